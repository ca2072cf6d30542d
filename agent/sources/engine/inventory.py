"""What containers there are, as Docker tells it, and when one starts or ends.

The list is read through the low-level API: its high-level form fails while containers come and go.
Names, images and labels are chosen by whoever started a container; they are checked for type and
length, and whatever steers a terminal is escaped, before anything else sees them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import docker
import docker.errors
import msgspec
import requests.exceptions

from agent.clock import Clock
from agent.engine_api.client import (
    INSTALLATION_LABEL,
    EventStream,
    answering,
    connect,
    learn_shapes,
)
from agent.engine_api.timestamps import parse_time_ns
from agent.errors import EngineUnavailableError
from agent.model.container import Container, ContainerState
from agent.sources.engine.uptime import at_least_up_ns
from agent.util.terminal import printable

log = logging.getLogger(__name__)

LIST_DEADLINE_S = 10.0
"""For the list and all that is asked for it."""
LOOK_DEADLINE_S = 2.0
"""For the look at one container: Docker answers none until a start under way has ended."""
LOOK_AGAIN_S = 0.2
"""For the next looks at one that did not answer, so that it holds no second tick."""
MAX_NAME = 255
MAX_LABEL = 4096
MAX_LABELS = 1000

_EVENTS = ("create", "start", "pause", "unpause", "die", "destroy", "rename", "oom")
_OPEN_TIMEOUT_S = 5.0
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0
_JOIN_S = 5.0

FullId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]


class _Listed(msgspec.Struct, frozen=True):
    """One entry of `GET /containers/json`."""

    Id: FullId
    Names: list[str] | None = None
    Image: str = ""
    ImageID: str = ""
    Created: Annotated[int, msgspec.Meta(ge=0, le=1 << 40)] = 0
    State: str = ""
    Status: str = ""
    Labels: dict[str, str] | None = None


class _InspectedConfig(msgspec.Struct, frozen=True):
    Image: str = ""
    Labels: dict[str, str] | None = None


class _InspectedState(msgspec.Struct, frozen=True):
    Pid: Annotated[int, msgspec.Meta(ge=0, le=1 << 22)] = 0


class _Inspected(msgspec.Struct, frozen=True):
    """What is used of `GET /containers/<id>/json`."""

    Id: FullId
    Created: str
    Name: str = ""
    Image: str = ""
    Config: _InspectedConfig = _InspectedConfig()
    State: _InspectedState = _InspectedState()


class _ImageConfig(msgspec.Struct, frozen=True):
    Labels: dict[str, str] | None = None


class _InspectedImage(msgspec.Struct, frozen=True):
    Config: _ImageConfig | None = None


learn_shapes(list[_Listed], _Inspected, _InspectedImage)


@dataclass(frozen=True, slots=True)
class Listing:
    """All containers of the engine, running or not."""

    containers: tuple[Container, ...]
    read_ns: int
    """Boot clock."""
    undescribed: int
    """How many of them Docker listed and could not describe."""


@dataclass(frozen=True, slots=True)
class _Known:
    """An inspected container, to be used again while it cannot have changed."""

    inspected: _Inspected
    own_installation: str
    state: str
    read_ns: int


class Engine:
    """Docker as a source. One thread uses one object; it connects by itself, again if need be."""

    def __init__(self, docker_host: str, clock: Clock, deadline_s: float = LIST_DEADLINE_S) -> None:
        self._host = docker_host
        self._clock = clock
        self._deadline_s = deadline_s
        self._client: docker.APIClient | None = None
        self._known: dict[str, _Known] = {}
        self._image_labels: dict[str, str] = {}
        self._mute: set[str] = set()
        """Containers whose last look was not answered in time."""
        self._undescribed = 0

    def list(self) -> Listing:
        """All containers. Raises EngineUnavailableError where Docker does not give a whole answer.

        A container that vanishes between the list and the look at it is left out: it is gone.
        """
        ends = time.monotonic() + self._deadline_s
        self._undescribed = 0
        try:
            with answering(self._host):
                if self._client is None:
                    self._client = connect(self._host, self._deadline_s)
                read_ns = self._clock.boot_ns()
                listed = self._ask(ends, lambda api: api.containers(all=True), list[_Listed])
                found = [self._container(one, ends) for one in listed]
        except docker.errors.APIError as error:
            self.close()
            raise EngineUnavailableError(
                f"Docker at {self._host} refuses: {str(error.explanation)[:300]}.",
                "Look at `sudo docker ps -a`.",
            ) from error
        except BaseException:
            self.close()
            raise
        containers = tuple(container for container in found if container is not None)
        present = {container.id for container in containers}
        self._known = {key: known for key, known in self._known.items() if key in present}
        self._mute &= present
        return Listing(containers, read_ns, self._undescribed)

    def close(self) -> None:
        """Drops the connection; the next `list` makes a new one."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _ask(self, ends: float, call: Callable[[docker.APIClient], Any], shape: Any) -> Any:
        """The checked answer of one call, within what is left of the whole list's time."""
        client = self._client
        left_s = ends - time.monotonic()
        if client is None or left_s <= 0:
            raise TimeoutError("the list took too long")
        client.timeout = left_s  # type: ignore[assignment]  # the stubs know whole seconds only
        return msgspec.convert(call(client), shape)

    def _container(self, listed: _Listed, ends: float) -> Container | None:
        known = self._inspected(listed, ends)
        if known is None:
            return None
        state = _state(listed.State)
        inspected = known.inspected
        return Container(
            id=listed.Id,
            name=_name(listed, inspected),
            image=_text(inspected.Config.Image or listed.Image, MAX_LABEL),
            created_ns=parse_time_ns(inspected.Created),
            state=state,
            first_pid=inspected.State.Pid if state.is_running else 0,
            labels=_labels(listed.Labels),
            own_installation=known.own_installation,
        )

    def _inspected(self, listed: _Listed, ends: float) -> _Known | None:
        """What Docker knows of one container, asked anew unless it cannot have restarted since.

        Docker tells how long a container has been up: where that is longer than our knowledge is
        old, the first process is still the same.
        """
        now_ns = self._clock.boot_ns()
        known = self._known.get(listed.Id)
        if known is not None and known.state == listed.State:
            # Only the first process changes, and only a running container has one.
            settled = not _state(listed.State).is_running
            if settled or now_ns - known.read_ns < at_least_up_ns(listed.Status):
                return known
        look_s = LOOK_AGAIN_S if listed.Id in self._mute else LOOK_DEADLINE_S
        try:
            inspected: _Inspected = self._ask(
                min(ends, time.monotonic() + look_s),
                lambda api: api.inspect_container(listed.Id),
                _Inspected,
            )
        except docker.errors.NotFound:
            return None
        except docker.errors.APIError as error:
            return self._without_a_look(listed, str(error.explanation))
        except (requests.exceptions.Timeout, TimeoutError):
            if time.monotonic() >= ends:
                raise
            said = listed.Id in self._mute
            self._mute.add(listed.Id)
            return self._without_a_look(listed, f"no answer within {look_s:g} s", said=said)
        self._mute.discard(listed.Id)
        if inspected.Id != listed.Id:
            raise ValueError("another container than the one asked for")
        fresh = _Known(
            inspected,
            self._own_installation(listed, inspected, ends),
            listed.State,
            now_ns,
        )
        self._known[listed.Id] = fresh
        return fresh

    def _without_a_look(self, listed: _Listed, reason: str, *, said: bool = False) -> _Known:
        """What the list alone says of one that Docker does not describe (it starts, it is broken).

        One such container must not hide all others. It has no first process for us and is proved
        to be nobody's, and its creation is known to the second only: no removal takes it for sure.
        """
        self._undescribed += 1
        level = logging.DEBUG if said else logging.WARNING
        log.log(level, "container=%s outcome=undescribed %s", listed.Id[:12], reason[:200])
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(listed.Created))
        return _Known(_Inspected(listed.Id, created), "", listed.State, self._clock.boot_ns())

    def _own_installation(self, listed: _Listed, inspected: _Inspected, ends: float) -> str:
        """The installation's label where the container itself carries it.

        A container inherits its image's labels: one that the image carries too proves nothing, and
        where the image is gone nothing can be proved.
        """
        own = (inspected.Config.Labels or {}).get(INSTALLATION_LABEL, "")
        image = inspected.Image or listed.ImageID
        if not own or not image:
            return ""
        if image not in self._image_labels:
            try:
                answer: _InspectedImage = self._ask(
                    ends,
                    lambda api: api.inspect_image(image),  # type: ignore[no-untyped-call]
                    _InspectedImage,
                )
            except docker.errors.NotFound:
                return ""
            labels = (answer.Config.Labels if answer.Config else None) or {}
            self._image_labels[image] = labels.get(INSTALLATION_LABEL, "")
        return "" if self._image_labels[image] == own else _text(own, MAX_LABEL)


def _state(text: str) -> ContainerState:
    try:
        return ContainerState(text)
    except ValueError:
        return ContainerState.UNKNOWN


def _name(listed: _Listed, inspected: _Inspected) -> str:
    """The name now. The list has links as well (`/other/alias`), and none while one is removed."""
    for name in (*(listed.Names or ()), inspected.Name):
        plain = name.removeprefix("/")
        if plain and "/" not in plain:
            return _text(plain, MAX_NAME)
    return listed.Id[:12]


def _labels(labels: Mapping[str, str] | None) -> dict[str, str]:
    pairs = list((labels or {}).items())[:MAX_LABELS]
    return {_text(key, MAX_LABEL): _text(value, MAX_LABEL) for key, value in pairs}


def _text(text: str, limit: int) -> str:
    return printable(text[:limit])


class EngineEvents:
    """Follows the engine's container events in a thread of its own and calls back for each.

    `callback(kind, container_id)` runs in that thread; `kind` is `create`,
    `start`, `pause`, `unpause`, `die`, `destroy`, `rename` or `oom`, or `resync` (with no id) when
    the stream is there again after it was lost or could not be had: whatever happened in between
    was missed.
    """

    def __init__(
        self, docker_host: str, clock: Clock, callback: Callable[[str, str], None]
    ) -> None:
        self._host = docker_host
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
        if self._failing or self._ending.is_set():
            return self._failing
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
        pause_s = _FIRST_PAUSE_S
        while not self._ending.is_set():
            try:
                self._follow_once()
            except EngineUnavailableError as error:
                self._note_failure(str(error), logging.DEBUG)
            except Exception as error:  # noqa: BLE001 - no descriptor for a socket, or our own error
                self._note_failure(f"{type(error).__name__}: {error}", logging.WARNING)
            if self._opened:
                pause_s = _FIRST_PAUSE_S
            self._missed = True
            self._ending.wait(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _follow_once(self) -> None:
        """One stream from its begin to its end. Raises EngineUnavailableError, OSError."""
        self._opened = False
        with self._lock:
            if self._ending.is_set():
                return
            stream = self._stream = EventStream(self._host, _EVENTS, _OPEN_TIMEOUT_S)
        try:
            stream.open()
            self._opened = True
            self._failing = ""
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

    def _hand_on(self, event: Mapping[str, Any]) -> None:
        self.quiet_since_ns = self._clock.boot_ns()
        kind, actor = event.get("Action"), event.get("Actor")
        container_id = actor.get("ID") if isinstance(actor, dict) else None
        if kind in _EVENTS and isinstance(container_id, str) and len(container_id) == 64:
            self._callback(str(kind), container_id)
        else:
            self.odd_events += 1
