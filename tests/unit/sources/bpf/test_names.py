"""The names of cgroups as the witness hands them over: kept until accounted for, losses counted."""

from __future__ import annotations

import pytest

from agent.model.bpf import CgroupName
from agent.sources.bpf import records
from agent.sources.bpf import witness as bpf
from agent.sources.bpf.names import CgroupNames
from agent.sources.bpf.programs import Handover
from agent.sources.bpf.startup import Probes
from tests.unit.sources.bpf.memory import Memory
from tests.unit.sources.bpf.test_witness import Clock, cgroup, clock, memory, start, witness

__all__ = ["clock", "memory", "witness"]


def made(cgroup_id: int, sequence: int, name: bytes = b"x") -> records.CgroupNameRecord:
    return records.CgroupNameRecord(sequence, cgroup_id, 5, 0, 1000, name)


def test_the_names_are_in_the_order_of_their_making_with_who_made_them(
    witness: bpf.Witness, memory: Memory
) -> None:
    memory.maps["cgroups"].content |= cgroup(30) | cgroup(20)
    memory.name(made(30, 1, b"docker-1\0of a record before"))
    memory.name(made(20, 2, b"b\xff"))
    names = witness.witness().names
    assert list(names.items()) == [
        (30, CgroupName("docker-1", 5, 1000)),
        (20, CgroupName("b\ufffd", 5, 1000)),
    ]


def test_a_name_that_found_no_room_is_lost_and_one_too_long_is_told_apart(
    witness: bpf.Witness, memory: Memory
) -> None:
    memory.name(made(20, 1))
    memory.name(made(21, 4))
    memory.counters[0] = records.CpuCounters(names=4, long_names=3)
    memory.counters[1] = records.CpuCounters(long_names=4)
    view = witness.witness()
    assert (view.lost, view.long_names) == (2, 7)


def test_a_cgroup_that_is_gone_keeps_its_name_until_a_tick_has_accounted_for_it(
    witness: bpf.Witness, memory: Memory, clock: Clock
) -> None:
    memory.maps["cgroups"].content |= cgroup(20, gone=1)
    memory.name(made(20, 1))
    assert 20 in witness.read().names
    for _ in range(3):
        clock.now += 61 * 10**9
        view = witness.read()
        assert (20 in view.names, 20 in view.totals) == (True, True)
    witness.mark(clock.now)
    clock.now += 10**9
    assert 20 in witness.read().names
    assert 20 not in witness.read().names
    assert not memory.maps["cgroups"].content


def test_a_name_whose_record_is_still_to_be_read_is_not_dropped(
    witness: bpf.Witness, memory: Memory
) -> None:
    """One that was made while the maps were read: its totals come with the next reading."""
    memory.name(made(20, 1))
    assert 20 in witness.witness().names
    memory.maps["cgroups"].content |= cgroup(20)
    assert 20 in witness.witness().names


def test_the_buffer_is_emptied_between_two_ticks_and_what_is_kept_is_bounded(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.sources.bpf.names.MAX_CGROUPS", 100)
    names = CgroupNames(memory.maps["names"].fd, lambda: memory.counters)
    memory.name(made(1, 1))
    names.look()
    assert not names.ids()
    for number in range(2, 301):
        memory.name(made(number, number))
    names.look()
    assert (len(names.ids()), names.lost) == (200, 100)
    names.close()


def test_without_the_probe_of_names_the_state_says_what_follows(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, memory: Memory
) -> None:
    partial = Probes(Handover(without=("on_name",)), memory.maps, {}, ())
    one, _ = start(monkeypatch, clock, partial)
    state = one.poll()
    assert state.status == "ready"
    assert state.reason == (
        "Lives of containers between two ticks may be nobody's: this kernel refuses the probe of "
        "cgroups' names."
    )
    one.close()
