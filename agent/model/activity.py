"""What a container has done since it began: counters that tell whether it rested in between."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Activity:
    """The counters of one life of a container at one moment; read while a rule asks for them."""

    read_ns: int
    """Boot clock."""
    life_id: int
    """To which the counters belong, as `ContainerCgroup.life_id`."""
    cpu_ns: int = 0
    io_operations: int = 0
    """Of block devices, by `io.stat` or blkio: what the page cache answers is none."""
    sent_bytes: int = 0
    """By all interfaces of its own network namespace but `lo`."""
    missing: str = ""
    """Why one of them is unknown, "" where all are known."""
