"""What containers there are, as Docker tells it.

The list is read through the low-level API: its high-level form fails while containers come and go.
Names, images and labels are chosen by whoever started a container; they are checked for their type,
and whatever steers a terminal is escaped, before anything else sees them. They are never cut: what
is decided on them is compared with what the engine says later. The size of an answer bounds them.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import docker
import docker.errors
import msgspec
import requests.exceptions

from agent.clock import Clock
from agent.engine_api import ownership, schema
from agent.engine_api.address import PODMAN_KIND, kind_of, product
from agent.engine_api.client import answering, connect
from agent.engine_api.schema import Inspected, Listed, label_text
from agent.engine_api.timestamps import parse_time_ns
from agent.errors import EngineUnavailableError
from agent.model.container import DOCKER, Container
from agent.sources.engine import pods
from agent.sources.engine.pods import PodPlace
from agent.sources.engine.uptime import at_least_up_ns
from agent.util.terminal import printable

log = logging.getLogger(__name__)

LIST_DEADLINE_S = 10.0
"""For the list and all that is asked for it."""
LOOK_DEADLINE_S = 2.0
"""For the look at one container: Docker answers none until a start under way has ended."""
LOOK_AGAIN_S = 0.2
"""For the next looks at one that did not answer, so that it holds no second tick."""

_ODD = (msgspec.MsgspecError, ValueError, RecursionError)
"""What the answer to one question can be instead of the answer."""

_NO_POD = PodPlace("", is_infra=False)
_HEALTH = re.compile(r"\((?:health: )?(healthy|unhealthy|starting)\)$")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Listing:
    """All containers of the engine, running or not."""

    containers: tuple[Container, ...]
    read_ns: int
    """Boot clock."""
    undescribed: int
    """How many of them Docker listed and could not describe."""
    left_out: int = 0
    """How many entries of Docker's list are no container that can be told from others."""


@dataclass(frozen=True, slots=True)
class _Known:
    """An inspected container, to be used again while it cannot have changed."""

    inspected: Inspected
    created_ns: int
    own_labels: Mapping[str, str]
    state: str
    read_ns: int


class Engine:
    """Docker as a source. One thread uses one object; it connects by itself, again if need be."""

    def __init__(
        self,
        docker_host: str,
        clock: Clock,
        deadline_s: float = LIST_DEADLINE_S,
        *,
        name: str = DOCKER,
        observed_only: str = "",
        all_labels: bool = False,
    ) -> None:
        """`name` is the engine's in the settings, `observed_only` why none of its containers is
        governed, "" where they may be. `all_labels`: images are asked for their labels, to tell
        which a container has itself; otherwise only for the installation's.
        """
        self._all_labels = all_labels
        self._host = docker_host
        self._name = name
        self._observed_only = observed_only
        self._pods: Mapping[str, PodPlace] | None = {}
        """None where podman does not say."""
        self._clock = clock
        self._deadline_s = deadline_s
        self._client: docker.APIClient | None = None
        self._known: dict[str, _Known] = {}
        self._image_labels: dict[str, Mapping[str, str]] = {}
        self._mute: set[str] = set()
        """Containers whose last look was not answered in time."""
        self._undescribed = 0
        self._left_out: frozenset[str] = frozenset()
        """What was odd about entries of the last list, each logged once."""

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
                listed = self._ask(ends, lambda api: api.containers(all=True), _a_list)
                entries, left_out = self._entries(listed)
                if kind_of(self._host) == PODMAN_KIND:
                    self._pods = self._read_pods(ends)
                found = [self._container(one, ends) for one in entries]
        except docker.errors.APIError as error:
            self.close()
            raise EngineUnavailableError(
                f"{product(self._host)} at {self._host} refuses: {str(error.explanation)[:300]}.",
                f"Look at `sudo {kind_of(self._host)} ps -a`.",
            ) from error
        except BaseException:
            self.close()
            raise
        containers = tuple(container for container in found if container is not None)
        present = {container.id for container in containers}
        self._known = {key: known for key, known in self._known.items() if key in present}
        self._mute &= present
        return Listing(containers, read_ns, self._undescribed, left_out)

    def ask_all_labels(self, wanted: bool) -> None:
        """Changes `all_labels`; what is known without them is asked for again."""
        if wanted != self._all_labels:
            self._all_labels = wanted
            self._known.clear()
            self._image_labels.clear()

    def close(self) -> None:
        """Drops the connection; the next `list` makes a new one."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _entries(self, listed: Sequence[Any]) -> tuple[Sequence[Listed], int]:
        """The entries that are containers, and how many are none."""
        entries: list[Listed] = []
        odd: set[str] = set()
        for number, entry in enumerate(listed):
            try:
                entries.append(schema.take_listed(entry))
            except (msgspec.ValidationError, RecursionError) as error:
                name = entry.get("Id") if isinstance(entry, dict) else None
                who = printable(name)[:12] if isinstance(name, str) else f"number {number}"
                odd.add(f"container={who} outcome=left-out {printable(str(error))[:200]}")
        for line in odd - self._left_out:
            log.warning("%s", line)
        self._left_out = frozenset(odd)
        return entries, len(listed) - len(entries)

    def _ask(
        self, ends: float, call: Callable[[docker.APIClient], Any], checked: Callable[[Any], T]
    ) -> T:
        """The checked answer of one call, within what is left of the whole list's time."""
        client = self._client
        left_s = ends - time.monotonic()
        if client is None or left_s <= 0:
            raise TimeoutError("the list took too long")
        client.timeout = left_s  # type: ignore[assignment]  # the stubs know whole seconds only
        return checked(call(client))

    def _container(self, listed: Listed, ends: float) -> Container | None:
        known = self._inspected(listed, ends)
        if known is None:
            return None
        state = schema.container_state(listed.State)
        inspected = known.inspected
        place = (self._pods or {}).get(listed.Id, _NO_POD)
        return Container(
            id=listed.Id,
            name=_name(listed, inspected),
            image=printable(inspected.Config.Image or listed.Image),
            created_ns=known.created_ns,
            state=state,
            first_pid=inspected.State.Pid if state.is_running else 0,
            labels=label_text(listed.Labels),
            own_installation=known.own_labels.get(ownership.INSTALLATION_LABEL, ""),
            own_labels=known.own_labels,
            health=health(listed.Status),
            needs=inspected.HostConfig.needs,
            restart_policy=_restart_policy(inspected),
            started_ns=_moment_or_0(inspected.State.StartedAt),
            engine=self._name,
            pod=place.pod,
            observed_only=self._why_observed(place),
        )

    def _read_pods(self, ends: float) -> Mapping[str, PodPlace] | None:
        """None, which is logged once, where podman does not say which pods there are."""
        try:
            return self._ask(ends, pods.read, _as_read)
        except (docker.errors.APIError, *_ODD) as error:
            if self._pods is not None:
                log.warning("engine=%s pods=unknown none is governed: %s", self._name, error)
            return None

    def _why_observed(self, place: PodPlace) -> str:
        if self._observed_only or self._pods is None:
            return self._observed_only or "podman does not say which containers hold a pod"
        return f"the infra container of pod {place.pod}" if place.is_infra else ""

    def _inspected(self, listed: Listed, ends: float) -> _Known | None:
        """What Docker knows of one container, asked again unless it cannot have restarted since.

        Docker tells how long a container has been up: where that is longer than our knowledge is
        old, the first process is still the same.
        """
        now_ns = self._clock.boot_ns()
        known = self._known.get(listed.Id)
        if known is not None and known.state == listed.State:
            # Only the first process changes, and only a running container has one.
            settled = not schema.container_state(listed.State).is_running
            if settled or now_ns - known.read_ns < at_least_up_ns(listed.Status):
                return known
        look_s = LOOK_AGAIN_S if listed.Id in self._mute else LOOK_DEADLINE_S
        try:
            inspected = self._ask(
                min(ends, time.monotonic() + look_s),
                lambda api: api.inspect_container(listed.Id),
                schema.take_inspected,
            )
            created_ns = parse_time_ns(inspected.Created)
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
        except _ODD as error:
            return self._without_a_look(listed, f"an odd answer: {error}")
        self._mute.discard(listed.Id)
        if inspected.Id != listed.Id:
            return self._without_a_look(listed, "another container than the one asked for")
        own = self._own_labels(listed, inspected, ends)
        fresh = _Known(inspected, created_ns, own or {}, listed.State, now_ns)
        if own is None:
            self._undescribed += 1
        else:
            self._known[listed.Id] = fresh
        return fresh

    def _without_a_look(self, listed: Listed, reason: str, *, said: bool = False) -> _Known:
        """What the list alone says of one that Docker does not describe (it starts, it is broken).

        One such container must not hide all others. It has no first process for us and is proved
        to be nobody's, and its creation is known to the second only: no removal takes it for sure.
        """
        self._undescribed += 1
        level = logging.DEBUG if said else logging.WARNING
        shown = printable(reason)[:200]
        log.log(level, "container=%s outcome=undescribed %s", listed.Id[:12], shown)
        return _Known(
            schema.unseen(listed.Id),
            listed.Created * 10**9,
            {},
            listed.State,
            self._clock.boot_ns(),
        )

    def _own_labels(
        self, listed: Listed, inspected: Inspected, ends: float
    ) -> Mapping[str, str] | None:
        """The labels that the container itself carries, None where its image cannot be looked at.

        Where the image is gone nothing can be proved. Without `all_labels` only the installation's.
        """
        labels = label_text(inspected.Config.Labels)
        if not self._all_labels:
            claimed = ownership.claimed(labels)
            labels = {ownership.INSTALLATION_LABEL: claimed} if claimed else {}
        image = inspected.Image or listed.ImageID
        if not labels or not image:
            return {}
        if image not in self._image_labels:
            try:
                inherited = self._ask(
                    min(ends, time.monotonic() + LOOK_DEADLINE_S),
                    lambda api: api.inspect_image(image),  # type: ignore[no-untyped-call]
                    schema.image_labels,
                )
            except docker.errors.NotFound:
                return {}
            except (docker.errors.APIError, requests.exceptions.Timeout, TimeoutError, *_ODD):
                if time.monotonic() >= ends:
                    raise
                return None
            self._image_labels[image] = inherited
        return ownership.own_labels(labels, self._image_labels[image])


def health(status: str) -> str:
    """Docker's word on the health check in `Up 2 hours (unhealthy)`, "" without one."""
    found = _HEALTH.search(status)
    return found[1] if found else ""


def _as_read(answer: Mapping[str, PodPlace]) -> Mapping[str, PodPlace]:
    return answer


def _a_list(answer: Any) -> Sequence[Any]:
    if not isinstance(answer, list):
        raise ValueError("its list of containers is not one")  # noqa: TRY004 - Docker's value
    return answer


def _restart_policy(inspected: Inspected) -> str:
    policy = inspected.HostConfig.RestartPolicy
    return printable(policy.Name) if policy else ""


def _moment_or_0(text: str) -> int:
    """When it last started; the year 1 says that it never did, and nothing rests on this."""
    try:
        return max(0, parse_time_ns(text))
    except ValueError:
        return 0


def _name(listed: Listed, inspected: Inspected) -> str:
    """The name now. The list has links as well (`/other/alias`), and none while one is removed."""
    for name in (*(listed.Names or ()), inspected.Name):
        plain = name.removeprefix("/")
        if plain and "/" not in plain:
            return printable(plain)
    return listed.Id[:12]
