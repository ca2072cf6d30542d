"""Containers that their owner brings back each time they are removed.

A Swarm service, a compose service with something that runs `up`, a systemd unit: the policy removes
them as before, and a person must hear that this never ends. Pure but for what it remembers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from agent.engine_api import ownership
from agent.model.container import Container, ContainerKey, ContainerState
from agent.model.removal import BUILT_IN_NAMES, Decision, Outcome, Removal
from agent.policy import governance

RETURNS = 3
WITHIN_NS = 3600 * 10**9
_SWARM_LABELS = ("com.docker.swarm.service.name", "com.docker.swarm.service.id")
_COMPOSE_SERVICE_LABEL = "com.docker.compose.service"
_UNIT_LABEL = "PODMAN_SYSTEMD_UNIT"
_MAX_SHOWN = 100


def owner_of(container: Container, installation: str) -> str:
    """Who would make it again, in words; "" for what our own generator made.

    Its name, where no label says more: whatever makes a container of the same name owns it.
    """
    labels = container.labels
    for label in _SWARM_LABELS:
        if labels.get(label):
            return f"Swarm service {labels[label]}"
    project = labels.get(ownership.COMPOSE_PROJECT_LABEL)
    service = labels.get(_COMPOSE_SERVICE_LABEL)
    if project and service:
        return f"compose service {project}/{service}"
    if labels.get(_UNIT_LABEL):
        return f"systemd unit {labels[_UNIT_LABEL]}"
    if governance.is_own(container, installation):
        return ""
    if container.restart_policy not in ("", "no"):
        return f"restart policy {container.restart_policy} of {container.name}"
    return f"whatever makes {container.name}"


@dataclass(slots=True)
class _Owner:
    pending: list[int] = field(default_factory=list)
    """When each container of it was removed that has not come back (boot clock)."""
    returns: list[int] = field(default_factory=list)
    """When one came back."""

    def forget(self, before_ns: int) -> None:
        self.pending = [one for one in self.pending if one > before_ns]
        self.returns = [one for one in self.returns if one > before_ns]


class Recreations:
    """Counts removals that were followed by a new container of the same owner."""

    def __init__(self, installation: str) -> None:
        self._installation = installation
        self._owner_of: dict[ContainerKey, str] = {}
        """Of the containers of the last list."""
        self._owners: dict[str, _Owner] = {}
        self._at_rest: dict[ContainerKey, str] = {}
        """Those that the agent stopped or paused, and their owners."""
        self._reported: frozenset[str] = frozenset()

    def removed(self, removals: Iterable[Removal], now_ns: int) -> None:
        """Notes what the agent took away."""
        for removal in removals:
            owner = self._owner_of.get(removal.decision.container)
            if owner and removal.outcome is Outcome.REMOVED:
                self._owners.setdefault(owner, _Owner()).pending.append(now_ns)
            elif owner and removal.outcome in (Outcome.STOPPED, Outcome.PAUSED):
                self._at_rest[removal.decision.container] = owner

    def seen(self, containers: Iterable[Container], now_ns: int) -> tuple[str, ...]:
        """Notes all that there are now; the owners that are to be reported for the first time."""
        containers = tuple(containers)
        now = {one.key: owner_of(one, self._installation) for one in containers}
        self._note_awake(containers, now_ns)
        for key in now.keys() - self._owner_of.keys():
            owner = self._owners.get(now[key])
            if owner and owner.pending:
                owner.pending.pop(0)
                owner.returns.append(now_ns)
        self._owner_of = now
        for owner in self._owners.values():
            owner.forget(now_ns - WITHIN_NS)
        self._owners = {key: one for key, one in self._owners.items() if one.pending or one.returns}
        before, self._reported = self._reported, frozenset(self.returning)
        return tuple(sorted(self._reported - before))

    def _note_awake(self, containers: Iterable[Container], now_ns: int) -> None:
        """Notes those that run again though the agent has stopped or paused them."""
        states = {one.key: one.state for one in containers}
        for key, owner in tuple(self._at_rest.items()):
            state = states.get(key)
            if state in (ContainerState.RUNNING, ContainerState.RESTARTING):
                self._owners.setdefault(owner, _Owner()).returns.append(now_ns)
            if state is None or (state.is_running and state is not ContainerState.PAUSED):
                del self._at_rest[key]

    @property
    def returning(self) -> Mapping[str, int]:
        """How often each owner that does not give up brought one back within the hour."""
        return {
            key: len(one.returns)
            for key, one in self._owners.items()
            if len(one.returns) >= RETURNS
        }

    def is_returning(self, container: ContainerKey) -> bool:
        """Whether the owner of this container does not give up."""
        return self._owner_of.get(container, "") in self.returning

    def leaves(self, decision: Decision) -> bool:
        """Whether one's own rule leaves it to an owner that brings it back each time. The built-in
        set goes on removing."""
        return (
            decision.rule not in BUILT_IN_NAMES
            and decision.action.is_destructive
            and self.is_returning(decision.container)
        )

    @property
    def problems(self) -> tuple[str, ...]:
        """One sentence for each of them, for `agent status`."""
        return tuple(
            f"owner-recreates: {owner[:_MAX_SHOWN]} brought {count} containers back within "
            f"an hour. Scale it down, or spare it with the label {governance.PROTECT_LABEL}=true."
            for owner, count in sorted(self.returning.items())
        )
