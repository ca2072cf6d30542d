"""Processes that share an address space: one number, in this snapshot only, and exact memory."""

from __future__ import annotations

import pytest

from tests.vm import modules_support as host
from tests.vm.modules_support import scene

pytestmark = pytest.mark.usefixtures("modules")


def test_processes_that_share_an_address_space_have_one_number_and_others_their_own() -> None:
    with scene("shared-mm") as sharing, scene("parked", 5):
        rows = host.processes()
        starter, cloned, waiting, vforked = sharing.pids
        assert rows[starter]["mm_id"] == rows[cloned]["mm_id"]
        assert rows[waiting]["mm_id"] == rows[vforked]["mm_id"]
        numbers = [row["mm_id"] for pid, row in rows.items() if pid not in (cloned, vforked)]
        for pid in sharing.pids:
            assert (rows[pid]["rss"],) == host.kilobytes(pid, "smaps_rollup", "Rss")
    own = [number for number in numbers if number]
    assert len(set(own)) == len(own)
    assert max(own) < 2**53


def test_the_number_of_an_address_space_says_nothing_about_another_snapshot() -> None:
    with scene("shared-mm"), scene("parked", 5):
        first, second = host.processes(), host.processes()
        candidates = host.candidates()
    both = {pid for pid in set(first) & set(second) if first[pid]["mm_id"]}
    assert len(both) > 5
    assert not {pid for pid in both if first[pid]["mm_id"] == second[pid]["mm_id"]}
    assert not {pid for pid in candidates if candidates[pid]["mm_id"] == second[pid]["mm_id"] != 0}


def test_the_memory_of_many_processes_that_share_theirs_is_exact() -> None:
    # On 6.1 and earlier each pair takes the counts of another process's threads.
    with scene("vfork-pairs", 150) as pairs:
        rows = host.processes()
        for pid in pairs.pids:
            assert (rows[pid]["rss"], rows[pid]["rss_anon"]) == host.kilobytes(
                pid, "smaps_rollup", "Rss", "Anonymous"
            )
            assert rows[pid]["rss_anon"] >= 80
