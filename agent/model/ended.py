"""A process that ended and is worth remembering for a while."""

from __future__ import annotations

from typing import NamedTuple


class EndedProcess(NamedTuple):
    """What is kept of it."""

    wall_ns: int
    """Its end."""
    started_wall_ns: int
    pid: int
    name: str
    parent_pid: int
    parent_name: str
    container_id: str
    """Full id, "" for a process of the host."""
    container_name: str
    status: int
    """As a shell has it: 128 and the signal's number for one that was killed."""
    oom: bool
    cpu_ns: int
    peak_rss_kb: int
