"""The host's own figures in one tick: memory, CPU, load and pressure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HostCounters:
    """What the host says at one moment; its CPU time is held against an earlier reading's."""

    cpu_busy_s: float
    """CPU time that was not idle, of all CPUs, since boot."""
    cpu_total_s: float
    cpu_count: int
    load1: float
    psi_memory_some_avg10: float | None
    """`some avg10` of /proc/pressure (Documentation/accounting/psi.rst), None without PSI."""
    psi_cpu_some_avg10: float | None


@dataclass(frozen=True, slots=True)
class Memory:
    """The host's memory, KB. `used_kb` is total minus free, as the original had it."""

    total_kb: int
    free_kb: int
    used_kb: int
    available_kb: int


@dataclass(frozen=True, slots=True)
class MemoryReading:
    """What the host says of its memory at one moment between two ticks."""

    read_ns: int
    """Boot clock."""
    available_kb: int | None = None
    """`MemAvailable`, None where it could not be read."""
    pressure: float | None = None
    """`some avg10` of memory, which the kernel works out every two seconds; None without PSI."""
    stalled_us: int | None = None
    """`some total` of memory: the time that somebody waited for memory, since boot."""


@dataclass(frozen=True, slots=True)
class HostFigures:
    """Figures of the host beside memory; `None` where the kernel does not tell."""

    cpu_usage_percent: float
    """Percent of all CPUs over the last interval."""
    cpu_count: int
    load1: float
    psi_memory_some_avg10: float | None
    psi_cpu_some_avg10: float | None
