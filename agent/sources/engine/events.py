"""Follows an engine's container events: when one starts or ends, between two lists.

Events are replayed from a short memory and lost on a restart of the engine, so a stream that is
there again says so, and whoever keeps a list asks for it once more.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from agent.clock import Clock
from agent.engine_api.address import PODMAN_KIND, kind_of
from agent.engine_api.client import EventsRefusedError, EventStream
from agent.errors import EngineUnavailableError
from agent.model.container_id import is_full_id
from agent.util.backoff import Backoff

log = logging.getLogger(__name__)

_EVENTS = ("create", "start", "pause", "unpause", "die", "destroy", "rename", "oom")
_PODMANS = {"died": "die", "exited": "die", "remove": "destroy"}
"""Podman's own words: it filters by them and sends some of Docker's, by version."""
_OPEN_TIMEOUT_S = 5.0
_BACKOFF = Backoff(first_ns=2 * 10**8, longest_ns=5 * 10**9)
_JOIN_S = 5.0
_MOST_NAMES = 255
_MOST_TEXT = 512


class NoEvents:
    """Of an engine whose events nobody follows: its list is asked for each time."""

    quiet_since_ns = None
    problem = ""
    names: Mapping[str, tuple[str, str]] = MappingProxyType({})

    def start(self) -> None:
        """Nothing is begun."""

    def close(self) -> None:
        """So nothing ends."""


class EngineEvents:
    """Follows the engine's container events in a thread of its own and calls back for each.

    `callback(kind, container_id)` runs in that thread; `kind` is `create`,
    `start`, `pause`, `unpause`, `die`, `destroy`, `rename` or `oom`, or `resync` (with no id) when
    the stream is there again after it was lost or could not be had: whatever happened in between
    was missed. `unread` (with no id) is one that cannot be read and may have been any of them.
    """

    def __init__(
        self, docker_host: str, clock: Clock, callback: Callable[[str, str], None]
    ) -> None:
        self._host = docker_host
        self._kinds = (*_EVENTS, *_PODMANS) if kind_of(docker_host) == PODMAN_KIND else _EVENTS
        self._clock = clock
        self._callback = callback
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._stream: EventStream | None = None
        self._opened = False
        self._missed = False
        self._failing = ""
        self._thread = threading.Thread(target=self._follow, name="docker-events", daemon=True)
        self.reconnects = 0
        self.odd_events = 0
        """Events that were not what Docker's API describes; they are left out."""
        self.refusal = ""
        """Why Docker gives no events though it is there, "" while it does."""
        self.names: dict[str, tuple[str, str]] = {}
        """Name and image of the containers that started, by full id; the latest ones."""
        self.quiet_since_ns: int | None = None
        """Boot clock of the last event, or of the stream's begin; None while there is no stream."""

    def start(self) -> None:
        """Begins to follow. Call once. Where no thread can be started `problem` says so."""
        try:
            self._thread.start()
        except RuntimeError as error:
            self._failing = f"no thread can be started: {error}"
            log.warning("events=off %s", self._failing)

    @property
    def problem(self) -> str:
        """Why nothing is heard of Docker's events, "" while they are followed."""
        if self.refusal or self._failing or self._ending.is_set():
            return self.refusal or self._failing
        has_ended = self._thread.ident is not None and not self._thread.is_alive()
        return "the thread that follows them has ended" if has_ended else ""

    def close(self) -> None:
        """Ends the thread and its connection, whatever it waits for."""
        self._ending.set()
        with self._lock:
            if self._stream is not None:
                self._stream.close()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)

    def _follow(self) -> None:
        """The thread's life. Whatever goes wrong, it tries again: nobody else would."""
        failures = 0
        while not self._ending.is_set():
            try:
                self._follow_once()
            except EventsRefusedError as error:
                if not self.refusal:
                    log.warning("events=refused the limit is looked at with each tick: %s", error)
                self.refusal = str(error)
            except EngineUnavailableError as error:
                self._note_failure(str(error), logging.DEBUG)
            except Exception as error:  # noqa: BLE001 - no descriptor for a socket, or our own error
                self._note_failure(f"{type(error).__name__}: {error}", logging.WARNING)
            failures = 1 if self._opened else failures + 1
            self._missed = True
            self._ending.wait(_BACKOFF.pause_ns(failures) / 10**9)

    def _follow_once(self) -> None:
        """One stream from its begin to its end. Raises EngineUnavailableError, OSError."""
        self._opened = False
        with self._lock:
            if self._ending.is_set():
                return
            stream = self._stream = EventStream(self._host, self._kinds, _OPEN_TIMEOUT_S)
        try:
            stream.open()
            self._opened = True
            self._failing = ""
            self.refusal = ""
            self.quiet_since_ns = self._clock.boot_ns()
            if self._missed:
                self.reconnects += 1
                self._callback("resync", "")
            for event in stream:
                self._hand_on(event)
        finally:
            self.quiet_since_ns = None
            stream.close()

    def _note_failure(self, why: str, level: int) -> None:
        if not self._ending.is_set():
            log.log(logging.DEBUG if self._failing else level, "events=lost %s", why)
            if not self._opened:  # one that was there and broke is opened again in a moment
                self._failing = why

    def _hand_on(self, event: Mapping[str, Any] | None) -> None:
        self.quiet_since_ns = self._clock.boot_ns()
        if event is None:
            self.odd_events += 1
            log.log(
                logging.WARNING if self.odd_events == 1 else logging.DEBUG,
                "events=odd number=%d one cannot be read",
                self.odd_events,
            )
            self._callback("unread", "")
            return
        kind, actor = event.get("Action"), event.get("Actor")
        if isinstance(kind, str):
            kind = _PODMANS.get(kind, kind)
        container_id = actor.get("ID") if isinstance(actor, dict) else None
        if isinstance(kind, str) and kind in _EVENTS and is_full_id(container_id):
            if kind == "start" and isinstance(actor, dict):
                self._learn(str(container_id), actor.get("Attributes"))
            self._callback(kind, str(container_id))
        else:
            self.odd_events += 1

    def _learn(self, container_id: str, attributes: object) -> None:
        if isinstance(attributes, dict):
            name, image = (str(attributes.get(key, ""))[:_MOST_TEXT] for key in ("name", "image"))
            self.names = {
                **dict(list(self.names.items())[-_MOST_NAMES:]),
                container_id: (name, image),
            }
