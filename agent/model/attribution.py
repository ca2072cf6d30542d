"""Whose a process is: the answer, what it rests on, and whether BPF named the same container."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import msgspec

from agent.model.container import ContainerKey
from agent.model.process import Candidate, Process


class Verified(StrEnum):
    """Whether BPF, the second witness, named the same container."""

    AGREE = "agree"
    CONFLICT = "conflict"
    UNVERIFIED = "unverified"


class Basis(StrEnum):
    """On what the answer rests."""

    CGROUP = "cgroup"
    ADDED = "added"
    """In the container's cgroup though its namespaces are the host's."""
    STRAYED = "strayed"
    """In the container's private PID namespace but in no container's cgroup."""
    MOVED = "moved"
    """Cgroup of one container, namespaces of another: the kernel charges the cgroup's."""


class AttributedProcess(msgspec.Struct, frozen=True, gc=False):
    """One process that is a container's."""

    process: Process | Candidate
    container: ContainerKey
    container_name: str
    basis: Basis
    verified: Verified
    bpf_container_id: str | None = None
    """What BPF named where it disagreed ("" for: no container)."""

    @property
    def container_id(self) -> str:
        """Full id; that of the cgroup's own name for a container Docker does not list."""
        return self.container.id


@dataclass(frozen=True, slots=True)
class AttributionCounts:
    agree: int = 0
    conflict: int = 0
    unverified: int = 0
    """Rows, and living processes without one whose cgroup could not be read."""
    added: int = 0
    strayed: int = 0
    moved: int = 0
    dropped: int = 0
    """Candidates that are no container's: units with private namespaces."""
    events_lost: int = 0
    """BPF's records and events that are gone."""
    events_corrected: int = 0
    events_late: int = 0
    events_missed: int = 0
    """Part of `events_lost`."""


@dataclass(frozen=True, slots=True)
class Attribution:
    """The answer for one snapshot."""

    rows: tuple[AttributedProcess, ...]
    """Conflicting rows are in it: they are stored, but kept out of totals."""
    counts: AttributionCounts
    disputed: frozenset[ContainerKey] = frozenset()
    """Containers that a conflict names on either side: not to be removed in this pass."""
    unknown_cgroups: frozenset[int] = frozenset()
    """Cgroup ids of candidates that no container claims: a reason to ask Docker once more."""
