"""The part of held memory that the kernel reports for the whole host only, shared out.

Pure: the host's sums and each container's own counters in, an estimate for each container out. What
a cgroup's counters say exactly is not in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from agent.model.container import ContainerCgroup, ContainerKey


@dataclass(frozen=True, slots=True)
class HostMemory:
    """Sums of the whole host, KB."""

    surplus_kb: Mapping[int, int] = field(default_factory=dict)
    """Surplus huge pages, by size of page in KB."""
    swap_used_kb: int = 0
    """Of all swap devices, what is in zswap included."""
    zram_kb: int = 0
    """Memory of the zram devices that are swapped to."""
    zswap_kb: int = 0
    """Memory of zswap's pool. One of whole pages (`zbud`) may take twice what is in it."""
    zswapped_kb: int = 0
    """What is in it, uncompressed."""


def with_estimates(
    containers: Mapping[ContainerKey, ContainerCgroup], host: HostMemory
) -> dict[ContainerKey, ContainerCgroup]:
    """The containers, with the estimate added to what each holds; together at most the host's sums.

    Containers whose cgroup does not report what they hold stay as they are.
    """
    huge_kb: dict[int, int] = {}
    swap_kb = zswapped_kb = 0
    for one in containers.values():
        swap_kb += _shared_swap_kb(one)
        zswapped_kb += one.zswapped_kb or 0
        for size_kb, used_kb in one.hugetlb_kb.items():
            huge_kb[size_kb] = huge_kb.get(size_kb, 0) + used_kb
    estimated: dict[ContainerKey, ContainerCgroup] = {}
    for key, one in containers.items():
        extra_kb = (
            _surplus_kb(one, host, huge_kb)
            + _swap_in_memory_kb(one, host, swap_kb)
            + _zswap_waste_kb(one, host, zswapped_kb)
        )
        if one.held_kb is None or extra_kb == 0:
            estimated[key] = one
        else:
            total_kb = one.held_kb + extra_kb
            estimated[key] = replace(one, held_kb=total_kb, held_estimated_kb=extra_kb)
    return estimated


def _surplus_kb(container: ContainerCgroup, host: HostMemory, in_use: Mapping[int, int]) -> int:
    """Huge pages that go back to the host with the container's end.

    A huge page that is freed goes back for as long as there are surplus ones, whoever has them;
    then it stays in the static pool. So all containers together give back at most the surplus.
    """
    found = 0
    for size_kb, used_kb in container.hugetlb_kb.items():
        surplus_kb = host.surplus_kb.get(size_kb, 0)
        found += used_kb * min(surplus_kb, in_use[size_kb]) // in_use[size_kb] if used_kb else 0
    return found


def _shared_swap_kb(container: ContainerCgroup) -> int:
    """Its swapped-out pages, without those that are known to be in zswap."""
    return max(0, (container.swap_kb or 0) - (container.zswapped_kb or 0))


def _swap_in_memory_kb(container: ContainerCgroup, host: HostMemory, all_kb: int) -> int:
    """What its swapped-out pages take in zram or zswap; `all_kb` is what all containers have there.

    The kernel reports neither which of its pages are where nor how well they compress: they count
    as the host's mean.
    """
    swap_kb = _shared_swap_kb(container)
    if container.zswapped_kb is None:
        in_memory_kb, total_kb = host.zram_kb + host.zswap_kb, host.swap_used_kb
    else:
        in_memory_kb, total_kb = host.zram_kb, host.swap_used_kb - host.zswapped_kb
    total_kb = max(total_kb, all_kb)
    return in_memory_kb * swap_kb // total_kb if swap_kb and total_kb > 0 else 0


def _zswap_waste_kb(container: ContainerCgroup, host: HostMemory, all_kb: int) -> int:
    """What its pages take in zswap's pool beyond what it is charged for them (cgroup v2).

    The charge is the compressed size, and is in `kernel` (obj_cgroup_charge_zswap).
    """
    total_kb = max(host.zswapped_kb, all_kb)
    if not container.zswapped_kb or total_kb <= 0:
        return 0
    return max(0, host.zswap_kb * container.zswapped_kb // total_kb - container.zswap_kb)
