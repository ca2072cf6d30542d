"""What one cgroup's files say: memory held, cached and swapped, CPU time, OOM kills.

Each figure is None where its file is not there, which is also how a cgroup that vanishes in the
middle of a reading looks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agent.model.container import HeldBasis
from agent.sources import procfs

_NO_LIMIT = 1 << 60


@dataclass(frozen=True, slots=True)
class Figures:
    """As the fields of `ContainerCgroup`."""

    held_kb: int | None = None
    held_basis: HeldBasis = HeldBasis.RSS
    cache_kb: int | None = None
    oom_kills: int | None = None
    swap_kb: int | None = None
    zswapped_kb: int | None = None
    zswap_kb: int = 0
    anon_kb: int | None = None
    file_kb: int | None = None
    limit_kb: int | None = None


def memory_v2(directory: str) -> Figures:
    """From `memory.stat` and `memory.events` (cgroup-v2.rst).

    Held is what the end of the container gives back: anonymous memory, shared memory and tmpfs,
    the kernel's own (page tables, stacks, slab that cannot be reclaimed, and what zswap keeps for
    it), socket buffers, which `kernel` does not include, and files locked in memory. Kernels before
    5.18 have no `kernel` line; there it is the sum of the lines that later went into it.
    """
    stat = _flat(f"{directory}/memory.stat")
    if "anon" not in stat:
        return Figures()
    kernel = stat.get("kernel")
    if kernel is None:
        parts = ("kernel_stack", "pagetables", "sec_pagetables", "percpu", "vmalloc", "slab")
        kernel = sum(stat.get(part, 0) for part in parts)
    shmem, file = stat.get("shmem", 0), stat.get("file", 0)
    held = stat["anon"] + shmem + kernel - stat.get("slab_reclaimable", 0) + stat.get("sock", 0)
    held += _locked_file(stat, "", stat["anon"] + shmem, file - shmem)
    return Figures(
        held_kb=max(0, held) // 1024,
        held_basis=HeldBasis.CGROUP2,
        cache_kb=max(0, file - shmem) // 1024,
        oom_kills=_flat(f"{directory}/memory.events").get("oom_kill"),
        swap_kb=_kb(_number(f"{directory}/memory.swap.current")),
        zswapped_kb=_kb(stat.get("zswapped")),
        zswap_kb=stat.get("zswap", 0) // 1024,
        anon_kb=stat["anon"] // 1024,
        file_kb=file // 1024,
        limit_kb=_limit_kb(_number(f"{directory}/memory.max")),
    )


def memory_v1(directory: str) -> Figures:
    """From `memory.stat`, `memory.kmem.*` and `memory.oom_control` (v1 memory.rst).

    The kernel's part holds reclaimable slab too: v1 does not tell them apart. Socket buffers are
    charged to a container only where somebody has set a limit for them.
    """
    stat = _flat(f"{directory}/memory.stat")
    if "total_rss" not in stat:
        return Figures()
    shmem, cache = stat.get("total_shmem", 0), stat.get("total_cache", 0)
    kernel = _number(f"{directory}/memory.kmem.usage_in_bytes") or 0
    sockets = _number(f"{directory}/memory.kmem.tcp.usage_in_bytes") or 0
    locked = _locked_file(stat, "total_", stat["total_rss"] + shmem, cache - shmem)
    return Figures(
        held_kb=(stat["total_rss"] + shmem + kernel + sockets + locked) // 1024,
        held_basis=HeldBasis.CGROUP1,
        cache_kb=max(0, cache - shmem) // 1024,
        oom_kills=_flat(f"{directory}/memory.oom_control").get("oom_kill"),
        swap_kb=_kb(stat.get("total_swap")),
        anon_kb=stat["total_rss"] // 1024,
        file_kb=cache // 1024,
        limit_kb=_limit_kb(_number(f"{directory}/memory.limit_in_bytes")),
    )


def hugetlb_kb(directory: str, sizes_kb: Iterable[int], *, v1: bool) -> dict[int, int] | None:
    """Huge pages in use by the cgroup and all below, KB by size of page; None without any figure.

    From the hugetlb controller (hugetlb.rst), which counts surplus pages and the pool's as one.
    """
    figure = "usage_in_bytes" if v1 else "current"
    found = {
        size_kb: used // 1024
        for size_kb in sizes_kb
        if (used := _number(f"{directory}/hugetlb.{_page_size(size_kb)}.{figure}")) is not None
    }
    return found or None


def _page_size(size_kb: int) -> str:
    """As the kernel names its files (mem_fmt, mm/hugetlb_cgroup.c)."""
    if size_kb >= 1 << 20:
        return f"{size_kb >> 20}GB"
    return f"{size_kb >> 10}MB" if size_kb >= 1 << 10 else f"{size_kb}KB"


def _locked_file(stat: Mapping[str, int], prefix: str, swap_backed: int, file: int) -> int:
    """Page cache that cannot be reclaimed while somebody has it locked, bytes.

    `unevictable` holds locked anonymous and shared memory too, which is what is missing from the
    two lists of such pages. Pages in the swap cache are on the lists beyond `swap_backed`.
    """
    listed = stat.get(f"{prefix}active_anon", 0) + stat.get(f"{prefix}inactive_anon", 0)
    locked = stat.get(f"{prefix}unevictable", 0) - max(0, swap_backed - listed)
    return max(0, min(locked, file))


def _limit_kb(limit: int | None) -> int | None:
    """v2 writes `max` for no limit, v1 the largest multiple of a page that its counter holds."""
    return None if limit is None or limit >= _NO_LIMIT else limit // 1024


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


def _kb(size: int | None) -> int | None:
    return None if size is None else size // 1024


def _number(path: str) -> int | None:
    try:
        return int(procfs.read(path))
    except (OSError, ValueError):
        return None
