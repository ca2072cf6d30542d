"""The values of a removal: what the policy decided, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from agent.model.container import DOCKER, ContainerKey, Tier

BUILT_IN_NAMES = ("original-exited", "original-low", "original-high")
"""The rules of the original's policy."""


class Action(StrEnum):
    """What a rule does to a container."""

    NOTIFY = "notify"
    """Reports it and touches nothing."""
    REMOVE = "remove"
    STOP = "stop"
    RESTART = "restart"
    PAUSE = "pause"

    @property
    def is_destructive(self) -> bool:
        """Whether the container notices."""
        return self is not Action.NOTIFY


class Reason(StrEnum):
    """Why a container is to go."""

    EXCESS_LOW = "excess-low"
    EXCESS_HIGH = "excess-high"
    EXITED = "exited"
    RULE = "rule"
    """A rule of one's own; `Decision.rule` names it."""
    STOP = "stop"
    """The agent stops or cleans up and takes its own containers with it."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One container to remove, and its figures then. Carried out by id *and* creation time."""

    id: str
    container_id: str
    container_name: str
    image: str
    created_ns: int
    tier: Tier
    rank: int
    """1 goes first."""
    reason: Reason
    held_mb: float
    cpu_percent: float
    action: Action = Action.REMOVE
    rule: str = ""
    """The rule's name, "" for what a stop or a clean-up takes."""
    engine: str = DOCKER
    grace_s: int | None = None
    """How long it may take to end by itself; None: as `stop_grace_s` says."""

    @property
    def container(self) -> ContainerKey:
        return ContainerKey(self.engine, self.container_id)


class Outcome(StrEnum):
    REMOVED = "removed"
    GONE = "gone"
    """It vanished by itself, or is not the one decided on any more."""
    FAILED = "failed"
    DRY_RUN = "dry-run"
    STOPPED = "stopped"
    RESTARTED = "restarted"
    PAUSED = "paused"
    NOTIFIED = "notified"
    """Reported, and nothing else."""


def is_away(outcome: str, error: str) -> bool:
    """Whether a removal that ended so left no such container, whoever took it away.

    A `gone` with an error was not the one decided on any more: it runs again, or is not governed.
    """
    return outcome == Outcome.REMOVED or (outcome == Outcome.GONE and not error)


def in_words(outcome: str, error: str) -> str:
    """The outcome for a person: one that is there still is not `gone` but left alone."""
    return "left alone" if outcome == Outcome.GONE and error else outcome


def withheld_because(why: str) -> str:
    """The error of what a disarmed policy did not do."""
    return f"the policy is disarmed: {why}"


@dataclass(frozen=True, slots=True)
class Removal:
    """How a decision ended."""

    decision: Decision
    outcome: Outcome
    duration_ms: int
    error: str = ""
    """Why it failed, or why what Docker has under this id was left alone."""

    @property
    def is_withheld(self) -> bool:
        """Whether the policy was disarmed, so that this was only notified."""
        return self.outcome is Outcome.NOTIFIED and self.decision.action.is_destructive

    @property
    def is_away(self) -> bool:
        """Whether no such container is left, whoever took it away."""
        return is_away(self.outcome, self.error)


@dataclass(frozen=True, slots=True)
class RemovalPass:
    """All removals that one pass decided, for the `deletions` table."""

    removals: tuple[Removal, ...]
    available_before_kb: int
    available_after_kb: int
