"""What one reading of the cgroups leaves for the next one.

Nothing in it decides alone: it keeps the ids of directories that were removed a moment ago (a
zombie keeps its cgroup), which containers had a directory with their name, the namespaces of first
processes that were seen in their own cgroup, and which foreign containers were already asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class FirstProcess:
    """A container's first process and its namespaces; `start_ns` tells a pid used again."""

    pid: int
    start_ns: int
    pid_ns: int
    uts_ns: int


@dataclass(slots=True)
class Memo:
    """Bounded: it speaks of the containers of the last reading only."""

    last_ids: dict[str, frozenset[int]] = field(default_factory=dict)
    """By container: the ids of its directories at the last reading."""
    first: dict[str, FirstProcess] = field(default_factory=dict)
    named: set[str] = field(default_factory=set)
    """Containers that have or had a directory with their name."""
    foreign: set[str] = field(default_factory=set)
    """Ids of containers that Docker was asked for and does not list."""
