"""Carries out decisions on containers, side by side and never past a deadline.

`Remover` serves the ticks: what does not end in time is told at a later one, and what Docker
refuses is tried again with growing pauses. `remove_installation` serves stop and clean-up.
"""

from __future__ import annotations

import logging
import re
import secrets
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import docker
import docker.errors
import msgspec

from agent.actions.removal import (
    CALL_TIMEOUT_S,
    MAX_ERROR,
    Ending,
    Instead,
    StillAllowed,
    attempt,
    labels_of_image,
    look_up,
)
from agent.clock import Clock, SystemClock
from agent.engine_api import own_container, ownership
from agent.engine_api.client import answering, connect
from agent.engine_api.schema import Inspected
from agent.errors import EngineUnavailableError
from agent.model.container import DOCKER, Container, ContainerKey, ContainerState, Tier
from agent.model.removal import Decision, Outcome, Reason, Removal
from agent.policy import governance
from agent.util.backoff import Backoff
from agent.util.terminal import printable

log = logging.getLogger(__name__)

MAX_PARALLEL = 16
BACKOFF = Backoff(first_ns=20 * 10**9, longest_ns=3600 * 10**9)
"""After refusals."""
MAX_REMEMBERED = 4096
"""Refused containers whose pause is kept in mind; the one refused longest ago goes first."""
LOOK_S = 0.25
"""How long removals are waited for between two looks at whether something is more urgent."""
STOP_LIMIT_S = 180.0
"""All removals of one round at stop; a container takes seconds, and they go side by side."""

_STOP_ROUNDS = 5
_INSTALLATION_ID = re.compile(r"[0-9a-f]{8,64}")


@dataclass(frozen=True, slots=True)
class _Pause:
    failures: int
    until_ns: int
    """Boot clock."""


class Remover:
    """Removes what was decided on. Called by one thread; the removals have threads of their own.

    A decision whose container is still being removed, or waits out its pause after a refusal, is
    not attempted: `not_attempted` names those of the last call. No other goes in its place.
    """

    def __init__(
        self,
        hosts: str | Mapping[str, str],
        clock: Clock,
        grace_s: int,
        still_allowed: StillAllowed | None = None,
        last_word: Instead = lambda _: None,
    ) -> None:
        """`hosts` is where each engine that may be acted on listens, by its name, or Docker's
        address where that is the only one. Both callables are called by the removals' threads.
        """
        self._hosts = {DOCKER: hosts} if isinstance(hosts, str) else hosts
        self._clock = clock
        self._grace_s = grace_s
        self._still_allowed = still_allowed
        self._last_word = last_word
        self._changed = threading.Condition()
        self._queue: deque[Decision] = deque()
        self._pending: dict[ContainerKey, Decision] = {}
        self._ended: list[Removal] = []
        self._pauses: dict[ContainerKey, _Pause] = {}
        self._workers = 0
        self._closed = False
        self.not_attempted: tuple[Decision, ...] = ()
        self.hurry: Callable[[], bool] | None = None
        """Whether who waits for removals has something more urgent to do; looked at while it
        waits, four times a second."""

    def remove(
        self,
        decisions: Sequence[Decision],
        deadline_ns: int,
        announce: Callable[[Decision], object] = lambda _: None,
    ) -> Sequence[Removal]:
        """Begins them all and gives what has ended by `deadline_ns` (boot clock).

        `announce` is called for each just before it is begun, and not for one that is not attempted
        now. Removals of earlier calls that end meanwhile are among them; each is given once.
        """
        now_ns = self._clock.boot_ns()
        with self._changed:
            wanted = [one for one in decisions if self._may_begin(one, now_ns)]
            begun = {one.container for one in wanted}
            self.not_attempted = tuple(one for one in decisions if one.container not in begun)
            for decision in wanted:
                announce(decision)
                self._pending[decision.container] = decision
                self._queue.append(decision)
            self._start_workers(min(len(wanted), MAX_PARALLEL - self._workers))
            self._wait_for(begun, deadline_ns)
        return self.collect()

    def _wait_for(self, begun: set[ContainerKey], deadline_ns: int) -> None:
        """With the lock held."""
        while not begun.isdisjoint(self._pending):
            left_s = (deadline_ns - self._clock.boot_ns()) / 10**9
            if left_s <= 0 or (self.hurry is not None and self.hurry()):
                return
            wait_s = left_s if self.hurry is None else min(left_s, LOOK_S)
            self._changed.wait_for(lambda: begun.isdisjoint(self._pending), wait_s)

    def collect(self) -> Sequence[Removal]:
        """What has ended since the last call of this or `remove`, in the order of its ending."""
        with self._changed:
            ended, self._ended = self._ended, []
        return tuple(ended)

    def close(self, wait_s: float) -> Sequence[Removal]:
        """Begins nothing more, waits up to `wait_s` for what was begun, and gives how it all ended.

        What has not ended by then is FAILED: its thread ends with the process.
        """
        with self._changed:
            self._closed = True
            for decision in self._queue:
                self._pending.pop(decision.container, None)
                self._ended.append(_unfinished(decision, "the agent stopped before it began"))
            self._queue.clear()
            self._changed.wait_for(lambda: not self._pending, wait_s)
            for decision in self._pending.values():
                self._ended.append(_unfinished(decision, "not done when the agent stopped"))
            self._pending.clear()
        return self.collect()

    def _start_workers(self, number: int) -> None:
        """With the lock held. Where the host gives no thread and none is at work, the decisions
        have failed, to be made again."""
        try:
            for _ in range(number):
                threading.Thread(target=self._work, name="removal", daemon=True).start()
                self._workers += 1
        except RuntimeError as error:
            log.warning("removals=short of threads workers=%d %s", self._workers, error)
            while self._queue and not self._workers:
                decision = self._queue.popleft()
                del self._pending[decision.container]
                self._ended.append(_unfinished(decision, f"no thread could be started: {error}"))

    def _may_begin(self, decision: Decision, now_ns: int) -> bool:
        pause = self._pauses.get(decision.container)
        if self._closed or decision.container in self._pending:
            return False
        return pause is None or now_ns >= pause.until_ns

    def _work(self) -> None:
        """A worker's life: decisions, until there is none left."""
        while True:
            with self._changed:
                if not self._queue:
                    self._workers -= 1
                    return
                decision = self._queue.popleft()
            began_ns = self._clock.boot_ns()
            try:
                ending = self._attempt(decision)
            except Exception:
                # Whatever it is, the decision must come back and the worker must go on.
                log.exception("decision=%s outcome=failed", decision.id)
                ending = Ending(Outcome.FAILED, "an error inside the agent; its log has it")
            self._note(decision, ending, began_ns)

    def _attempt(self, decision: Decision) -> Ending:
        host = self._hosts.get(decision.engine)
        if host is None:
            return Ending(Outcome.FAILED, f"no engine {decision.engine} is governed")
        return attempt(host, decision, self._grace_s, self._still_allowed, self._last_word)

    def _note(self, decision: Decision, ending: Ending, began_ns: int) -> None:
        now_ns = self._clock.boot_ns()
        duration_ms = (now_ns - began_ns) // 10**6
        with self._changed:
            # After `close` its ending was told already.
            if self._pending.pop(decision.container, None) is not None:
                self._ended.append(Removal(decision, ending.outcome, duration_ms, ending.error))
            self._remember(decision.container, ending, now_ns)
            self._changed.notify_all()

    def _remember(self, container: ContainerKey, ending: Ending, now_ns: int) -> None:
        before = self._pauses.pop(container, None)
        left_alone = ending.outcome is Outcome.GONE and ending.error != ""
        if ending.outcome is not Outcome.FAILED and not left_alone:
            return
        failures = before.failures + 1 if before else 1
        pause_ns = BACKOFF.pause_ns(failures)
        if left_alone and failures == 1:
            # It changed since it was decided on. Decided on again as it is now, it may go at once.
            pause_ns = 0
        self._pauses[container] = _Pause(failures, now_ns + pause_ns)
        while len(self._pauses) > MAX_REMEMBERED:
            del self._pauses[next(iter(self._pauses))]


def remove_installation(
    docker_host: str,
    installation: str,
    *,
    progress: Callable[[str], object],
    grace_s: int = 1,
    limit_s: float = STOP_LIMIT_S,
) -> Sequence[Removal]:
    """Removes every container, running or not, that itself carries this installation's label.

    Never one that has the label from its image, whatever the policy's scope, nor a protected one.
    It looks again until nothing new is there, for one that Docker was still making. `progress` is
    told what goes and what is left for a reason. Raises EngineUnavailableError.
    """
    if not _INSTALLATION_ID.fullmatch(installation):
        return ()
    clock = SystemClock()
    own_ids = own_container.own_ids()
    remover = Remover(
        docker_host,
        clock,
        grace_s,
        lambda decision, now: governance.still_stands(decision, now, own_ids),
    )
    removals: list[Removal] = []
    told: set[str] = set()

    def tell_once(line: str) -> None:
        if line not in told:
            told.add(line)
            progress(line)

    tried: set[str] = set()
    unread: dict[str, str] = {}
    for _ in range(_STOP_ROUNDS):
        found, unread = _own(docker_host, installation, own_ids, tell_once)
        decisions = [
            _decision(one, rank)
            for rank, one in enumerate(found, start=len(tried) + 1)
            if one.id not in tried
        ]
        if not decisions:
            break
        tried.update(one.container_id for one in decisions)
        progress(f"Removing {len(decisions)} of this installation's containers …")
        removals += remover.remove(decisions, clock.boot_ns() + int(limit_s * 10**9))
    removals += remover.close(0)
    removals += [
        _unfinished(_decision(_nameless(one), rank), why)
        for rank, (one, why) in enumerate(unread.items(), start=len(tried) + 1)
        if one not in tried
    ]
    return tuple(removals)


def _own(
    docker_host: str,
    installation: str,
    own_ids: frozenset[str],
    progress: Callable[[str], object],
) -> tuple[list[Container], dict[str, str]]:
    """Containers that carry the label themselves, and why others of the label cannot be looked at.

    Raises EngineUnavailableError. One that Docker does not describe hides no other.
    """
    found: list[Container] = []
    unread: dict[str, str] = {}
    try:
        with answering(docker_host), closing(connect(docker_host, CALL_TIMEOUT_S)) as api:
            listed = api.containers(
                all=True, filters={"label": ownership.installation_filter(installation)}
            )
            for number, container_id in enumerate(_ids(listed), start=1):
                if container_id is None:
                    unread[f"entry {number}"] = "Docker lists it without an id"
                    continue
                try:
                    seen = look_up(api, container_id)
                    if seen and _may_go(api, seen, installation, own_ids, progress):
                        found.append(seen.container())
                except (
                    docker.errors.APIError,
                    msgspec.MsgspecError,
                    ValueError,
                    RecursionError,
                ) as error:
                    unread[container_id] = f"Docker does not describe it: {_words(error)}"
    except docker.errors.APIError as error:
        raise EngineUnavailableError(
            f"Docker at {docker_host} refuses: {str(error.explanation)[:300]}.",
            "Look at `sudo docker ps -a`.",
        ) from error
    return found, unread


def _ids(answer: Any) -> list[str | None]:
    """The ids in a list, None where an entry has none. ValueError for another kind of answer."""
    if not isinstance(answer, list):
        raise ValueError("the list of containers is not one")  # noqa: TRY004 - Docker's value
    ids = [one.get("Id") if isinstance(one, dict) else None for one in answer]
    return [one if isinstance(one, str) else None for one in ids]


def _may_go(
    api: docker.APIClient,
    seen: Inspected,
    installation: str,
    own_ids: frozenset[str],
    progress: Callable[[str], object],
) -> bool:
    """Whether it is unprotected and the label its own: an image that has it too, or is gone, tells
    nothing."""
    container = seen.container()
    claimed = ownership.claimed(container.labels)
    if claimed != installation:
        return False
    name = container.name
    if protected := governance.protection(container, own_ids):
        progress(f"{name} is this installation's, but protected ({protected}): left alone.")
        return False
    try:
        of_image = ownership.claimed(labels_of_image(api, seen.Image))
    except docker.errors.NotFound:
        progress(
            f"{name} carries this installation's label, but its image is gone and may have had it "
            f"too: left alone. If it is yours: `sudo docker rm -f {seen.Id[:12]}`."
        )
        return False
    return ownership.own_installation(claimed, of_image) == installation


def _words(error: Exception) -> str:
    said = error.explanation if isinstance(error, docker.errors.APIError) else None
    return printable(str(said or error)[:MAX_ERROR])


def _nameless(container_id: str) -> Container:
    return Container(container_id, container_id[:12], "", 0, ContainerState.UNKNOWN)


def _decision(container: Container, rank: int) -> Decision:
    return Decision(
        id=secrets.token_hex(6),
        container_id=container.id,
        container_name=container.name,
        image=container.image,
        created_ns=container.created_ns,
        tier=Tier.NONE,
        rank=rank,
        reason=Reason.STOP,
        held_mb=0.0,
        cpu_percent=0.0,
        engine=container.engine,
    )


def _unfinished(decision: Decision, error: str) -> Removal:
    return Removal(decision, Outcome.FAILED, 0, error)
