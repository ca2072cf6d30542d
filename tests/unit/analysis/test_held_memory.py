"""The host's sums shared out among containers: never more than there is, and marked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.analysis.held_memory import HostMemory, with_estimates
from agent.model.container import DOCKER, ContainerCgroup, ContainerKey
from tests.unit.builders import cgroup

HUGE_KB = 2048


def estimated(host: HostMemory, **each: ContainerCgroup) -> dict[str, tuple[int | None, int]]:
    """(held, estimated part) by letter."""
    found = with_estimates({one.container: one for one in each.values()}, host)
    return {
        letter: (found[one.container].held_kb, found[one.container].held_estimated_kb)
        for letter, one in each.items()
    }


def test_one_containers_surplus_huge_pages_are_held_and_marked_as_an_estimate() -> None:
    host = HostMemory(surplus_kb={HUGE_KB: 262_144})
    one = cgroup("a", held_kb=300, hugetlb_kb={HUGE_KB: 262_144})
    assert estimated(host, a=one) == {"a": (262_444, 262_144)}


def test_huge_pages_of_the_static_pool_are_not_held() -> None:
    host = HostMemory(surplus_kb={HUGE_KB: 20_480})
    one = cgroup("a", held_kb=300, hugetlb_kb={HUGE_KB: 262_144})
    assert estimated(host, a=one) == {"a": (300 + 20_480, 20_480)}
    assert estimated(HostMemory(), a=one) == {"a": (300, 0)}


def test_surplus_pages_are_shared_out_in_proportion_and_by_size() -> None:
    host = HostMemory(surplus_kb={HUGE_KB: 40_960, 1 << 20: 1 << 20})
    a = cgroup("a", held_kb=0, hugetlb_kb={HUGE_KB: 61_440, 1 << 20: 1 << 20})
    b = cgroup("b", held_kb=0, hugetlb_kb={HUGE_KB: 20_480})
    assert estimated(host, a=a, b=b) == {
        "a": (30_720 + (1 << 20), 30_720 + (1 << 20)),
        "b": (10_240, 10_240),
    }


def test_swap_in_zram_costs_what_the_hosts_mean_page_costs() -> None:
    host = HostMemory(swap_used_kb=400_000, zram_kb=200_000)
    one = cgroup("a", held_kb=64_000, swap_kb=300_000)
    assert estimated(host, a=one) == {"a": (64_000 + 150_000, 150_000)}


def test_swap_on_a_disk_is_not_held() -> None:
    host = HostMemory(swap_used_kb=400_000)
    one = cgroup("a", held_kb=64_000, swap_kb=300_000)
    assert estimated(host, a=one) == {"a": (64_000, 0)}


def test_what_a_v2_cgroup_has_in_zswap_is_in_its_own_figures_already() -> None:
    host = HostMemory(swap_used_kb=400_000, zswap_kb=90_000, zswapped_kb=300_000)
    one = cgroup("a", held_kb=154_000, swap_kb=300_000, zswapped_kb=300_000, zswap_kb=90_000)
    assert estimated(host, a=one) == {"a": (154_000, 0)}


def test_what_zswaps_pool_takes_beyond_the_charge_is_held_too() -> None:
    """A pool that puts no two pages into one: 200 MB for 120 MB."""
    host = HostMemory(swap_used_kb=200_000, zswap_kb=200_000, zswapped_kb=200_000)
    a = cgroup("a", held_kb=0, swap_kb=150_000, zswapped_kb=150_000, zswap_kb=90_000)
    b = cgroup("b", held_kb=0, swap_kb=50_000, zswapped_kb=50_000, zswap_kb=30_000)
    assert estimated(host, a=a, b=b) == {"a": (60_000, 60_000), "b": (20_000, 20_000)}


def test_measured_a_pool_with_a_page_for_each_swapped_out_costs_what_is_swapped_out() -> None:
    """Debian 12, v2: 400 MB of half-random pages under `-m 256m`; the host had 430,490 KB back."""
    host = HostMemory(swap_used_kb=332_188, zswap_kb=330_052, zswapped_kb=331_956)
    one = cgroup("a", held_kb=261_687, swap_kb=331_956, zswapped_kb=331_956, zswap_kb=178_567)
    assert estimated(host, a=one) == {"a": (413_172, 151_485)}


def test_what_is_not_in_zswap_may_be_in_zram() -> None:
    host = HostMemory(swap_used_kb=400_000, zram_kb=50_000, zswap_kb=90_000, zswapped_kb=300_000)
    one = cgroup("a", held_kb=64_000, swap_kb=350_000, zswapped_kb=300_000, zswap_kb=90_000)
    assert estimated(host, a=one) == {"a": (64_000 + 25_000, 25_000)}


def test_on_v1_zswap_is_shared_out_since_nobody_is_charged_for_it() -> None:
    host = HostMemory(swap_used_kb=400_000, zswap_kb=100_000, zswapped_kb=400_000)
    one = cgroup("a", held_kb=64_000, swap_kb=200_000)
    assert estimated(host, a=one) == {"a": (64_000 + 50_000, 50_000)}


def test_without_a_memory_controller_nothing_is_estimated() -> None:
    host = HostMemory(surplus_kb={HUGE_KB: 262_144})
    one = cgroup("a", held_kb=None, hugetlb_kb={HUGE_KB: 262_144})
    assert estimated(host, a=one) == {"a": (None, 0)}


_KB = st.integers(0, 1 << 40)


@given(st.lists(st.tuples(_KB, _KB, _KB), max_size=5), st.booleans(), _KB, _KB, _KB, _KB, _KB)
def test_all_estimates_together_are_never_more_than_the_host_has(
    each: list[tuple[int, int, int]],
    is_v2: bool,
    surplus_kb: int,
    swap_used_kb: int,
    zram_kb: int,
    zswap_kb: int,
    zswapped_kb: int,
) -> None:
    """Whatever the counters say of one moment, each read at its own."""
    host = HostMemory({HUGE_KB: surplus_kb}, swap_used_kb, zram_kb, zswap_kb, zswapped_kb)
    containers = {
        ContainerKey(DOCKER, str(number)): cgroup(
            "a",
            held_kb=1,
            hugetlb_kb={HUGE_KB: huge},
            swap_kb=swap,
            zswapped_kb=zswapped if is_v2 else None,
        )
        for number, (huge, swap, zswapped) in enumerate(each)
    }
    found = with_estimates(containers, host).values()
    assert all(one.held_kb == 1 + one.held_estimated_kb >= 1 for one in found)
    most = surplus_kb + zram_kb + zswap_kb
    assert sum(one.held_estimated_kb for one in found) <= most


@pytest.mark.parametrize("used_kb", [0, 1])
def test_a_pool_that_nobody_uses_is_nobodys(used_kb: int) -> None:
    host = HostMemory(surplus_kb={HUGE_KB: 4096})
    one = cgroup("a", held_kb=0, hugetlb_kb={HUGE_KB: used_kb})
    assert estimated(host, a=one) == {"a": (used_kb, used_kb)}
