"""What one cgroup's files say: memory held and cached, CPU time, OOM kills.

Each figure is None where its file is not there, which is also how a cgroup that vanishes in the
middle of a reading looks.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.model.container import HeldBasis
from agent.sources import procfs


@dataclass(frozen=True, slots=True)
class Figures:
    """As the fields of `ContainerCgroup`."""

    held_kb: int | None = None
    held_basis: HeldBasis = HeldBasis.RSS
    cache_kb: int | None = None
    oom_kills: int | None = None


def memory_v2(directory: str) -> Figures:
    """From `memory.stat` and `memory.events` (cgroup-v2.rst).

    Held is what the end of the container gives back: anonymous memory, shared memory and tmpfs,
    and the kernel's own (page tables, stacks, slab that cannot be reclaimed). Kernels before 5.18
    have no `kernel` line; there it is the sum of the lines that later went into it.
    """
    stat = _flat(f"{directory}/memory.stat")
    if "anon" not in stat:
        return Figures()
    kernel = stat.get("kernel")
    if kernel is None:
        parts = ("kernel_stack", "pagetables", "sec_pagetables", "percpu", "vmalloc", "slab")
        kernel = sum(stat.get(part, 0) for part in parts)
    shmem = stat.get("shmem", 0)
    held = stat["anon"] + shmem + kernel - stat.get("slab_reclaimable", 0)
    return Figures(
        held_kb=max(0, held) // 1024,
        held_basis=HeldBasis.CGROUP2,
        cache_kb=max(0, stat.get("file", 0) - shmem) // 1024,
        oom_kills=_flat(f"{directory}/memory.events").get("oom_kill"),
    )


def memory_v1(directory: str) -> Figures:
    """From `memory.stat`, `memory.kmem.usage_in_bytes` and `memory.oom_control` (v1 memory.rst).

    The kernel's part holds reclaimable slab too: v1 does not tell them apart.
    """
    stat = _flat(f"{directory}/memory.stat")
    if "total_rss" not in stat:
        return Figures()
    shmem = stat.get("total_shmem", 0)
    kernel = _number(f"{directory}/memory.kmem.usage_in_bytes") or 0
    return Figures(
        held_kb=(stat["total_rss"] + shmem + kernel) // 1024,
        held_basis=HeldBasis.CGROUP1,
        cache_kb=max(0, stat.get("total_cache", 0) - shmem) // 1024,
        oom_kills=_flat(f"{directory}/memory.oom_control").get("oom_kill"),
    )


def cpu_v2_ns(directory: str) -> int | None:
    """CPU time of the cgroup and all below, `usage_usec` of `cpu.stat` in ns."""
    usage = _flat(f"{directory}/cpu.stat").get("usage_usec")
    return None if usage is None else usage * 1000


def cpu_v1_ns(directory: str) -> int | None:
    """CPU time of the cgroup and all below, `cpuacct.usage`."""
    return _number(f"{directory}/cpuacct.usage")


def _flat(path: str) -> dict[str, int]:
    """A file of `name number` lines; empty where it cannot be read."""
    try:
        text = procfs.read(path)
    except OSError:
        return {}
    figures: dict[str, int] = {}
    for line in text.split(b"\n"):
        name, _, number = line.partition(b" ")
        if number.isdigit():
            figures[name.decode("ascii", "replace")] = int(number)
    return figures


def _number(path: str) -> int | None:
    try:
        return int(procfs.read(path))
    except (OSError, ValueError):
        return None
