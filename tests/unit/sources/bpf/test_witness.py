"""The witness between its start and its last descriptor, with the kernel left out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.errors import SourceError
from agent.model.container import Hierarchy
from agent.model.process import ProcessKey
from agent.sources.bpf import records
from agent.sources.bpf import witness as bpf
from agent.sources.bpf.exits import MOST_EXITS
from agent.sources.bpf.offsets import EXIT_BYTES, SLOT_BLOCK, SLOTS
from agent.sources.bpf.programs import Handover, Order
from agent.sources.bpf.startup import HandoverError, Probes
from agent.sources.bpf.support import BpfSupport
from agent.sources.bpf.table import ProcessTable
from tests.containers import wait_until
from tests.unit.sources.bpf.memory import PAGE, Memory, exit_record

SUPPORT = BpfSupport(True, True, True, "python3", "none", True, "x86_64")
ME, OTHER = ProcessKey(7, 700), ProcessKey(8, 800)


class Clock:
    def __init__(self) -> None:
        self.now = 10**9

    def boot_ns(self) -> int:
        return self.now

    def wall_ns(self) -> int:
        return self.now


@dataclass
class FakeStartup:
    answers: list[Probes | HandoverError | None]
    closed: int = 0
    orders: list[Order] = field(default_factory=list)

    def __call__(self, order: Order, directory: Path) -> FakeStartup:
        self.orders.append(order)
        return self

    def poll(self) -> Probes | None:
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, HandoverError):
            raise answer
        return answer

    def fileno(self) -> int:
        return 99

    def close(self) -> None:
        self.closed += 1


def cgroup(identity: int, *, parent: int = 1, born: int = 0, gone: int = 0) -> dict[bytes, bytes]:
    record = records.CGROUP_RECORD.pack(parent, 5, 4, 3, 1, 2, 1, 60, 40, 2, born, gone)
    return {records.CGROUP_KEY.pack(identity): record}


@pytest.fixture
def memory() -> Iterator[Memory]:
    one = Memory()
    yield one
    one.close()


def probes(memory: Memory) -> Probes:
    return Probes(Handover(seam=(1, 2, 3)), memory.maps, {}, ())


@pytest.fixture
def clock() -> Clock:
    return Clock()


def start(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, *answers: Probes | HandoverError | None
) -> tuple[bpf.Witness, FakeStartup]:
    startup = FakeStartup(list(answers))
    monkeypatch.setattr(bpf, "Startup", startup)
    return bpf.Witness.start(Hierarchy.DEFAULT, clock, SUPPORT), startup


def test_it_starts_without_waiting_and_is_ready_when_the_descriptors_come(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, memory: Memory
) -> None:
    witness, startup = start(monkeypatch, clock, None, probes(memory))
    assert witness.state.status == "starting"
    assert witness.fileno() == 99
    assert witness.poll().status == "starting"
    assert witness.poll().status == "ready"
    assert (startup.closed, witness.fileno()) == (1, None)
    assert startup.orders == [Order("witness", "default")]


def test_a_start_that_fails_turns_it_off_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    witness, startup = start(monkeypatch, clock, HandoverError("No BTF.", "Boot another kernel."))
    state = witness.poll()
    assert (state.status, state.reason, state.hint) == ("off", "No BTF.", "Boot another kernel.")
    assert startup.closed == 1
    assert witness.poll() is state


def test_a_start_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    witness, startup = start(monkeypatch, clock)
    clock.now += 299 * 10**9
    assert witness.poll().status == "starting"
    clock.now += 2 * 10**9
    assert witness.poll().status == "off"
    assert startup.closed == 1


def test_asked_before_it_is_ready_it_refuses(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    witness, _ = start(monkeypatch, clock)
    with pytest.raises(SourceError):
        witness.witness()


def test_closed_it_is_off_and_ends_the_start(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    witness, startup = start(monkeypatch, clock)
    witness.close()
    witness.close()
    assert (witness.state.status, startup.closed) == ("off", 1)


@pytest.fixture
def witness(monkeypatch: pytest.MonkeyPatch, clock: Clock, memory: Memory) -> Iterator[bpf.Witness]:
    """One that is ready, on maps of memory."""
    one, _ = start(monkeypatch, clock, probes(memory))
    monkeypatch.setattr(bpf, "read_counters", lambda *_: memory.counters)
    assert one.poll().status == "ready"
    yield one
    one.close()


def test_the_view_has_every_process_with_what_its_record_says(
    witness: bpf.Witness, memory: Memory
) -> None:
    memory.put(ME, 10)
    memory.put(OTHER, 20, base_cpu_ns=33, exit_cpu_ns=44, ended=1, pointer_id=21)
    memory.maps["cgroups"].content |= cgroup(10, parent=2, born=1)
    memory.counters[0] = records.CpuCounters(lost_processes=3, corrected=5, late=6, seam_both=7)
    memory.counters[1] = records.CpuCounters(lost_cgroups=1, corrected=2)
    view = witness.witness(snapshot_ns=555)
    assert view.cgroup_ids == {ME: 10, OTHER: 20}
    assert (view.exiting, set(view.settled)) == ({OTHER: 44}, {OTHER})
    assert (view.moved_cpu_ns, view.pointer_ids) == ({OTHER: 33}, {OTHER: 21})
    assert view.totals[10] == bpf.CgroupEvents(5, 4, 3, 1, 2, 1, 60, 40, 2)
    assert (view.totals[10].starts, view.totals[10].cpu_exited_ns) == (5, 100)
    assert (view.parents, view.born, view.gone) == ({10: 2}, {10}, frozenset())
    assert (view.lost, view.corrected, view.late, view.missed) == (4, 7, 6, 0)
    assert view.seam == bpf.Seam(1, 2, 3)
    assert memory.maps["controls"].content == {bytes(4): records.CONTROL.pack(555)}


def test_a_view_stays_as_it_was_when_the_next_is_read(witness: bpf.Witness, memory: Memory) -> None:
    memory.put(ME, 10)
    first = witness.witness()
    memory.free(ME)
    memory.put(OTHER, 20)
    second = witness.witness()
    assert (first.cgroup_ids, second.cgroup_ids) == ({ME: 10}, {OTHER: 20})


def test_a_process_that_is_moved_and_a_pid_that_is_used_again_are_seen_at_the_next_reading(
    witness: bpf.Witness, memory: Memory
) -> None:
    memory.put(ME, 10)
    assert witness.witness().cgroup_ids == {ME: 10}
    memory.put(ME, 11)
    assert witness.witness().cgroup_ids == {ME: 11}
    again = ProcessKey(ME.pid, ME.start_ns + 5)
    memory.put(again, 12)
    assert witness.witness().cgroup_ids == {again: 12}
    assert witness.witness().cgroup_ids == {again: 12}


def test_a_record_that_changes_while_it_is_read_is_read_again(
    witness: bpf.Witness, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.put(ME, 10)
    take = ProcessTable._take
    moves = iter((11, 12))

    def take_and_move(self: ProcessTable, block: int, found: Iterator[tuple[int, ...]]) -> None:
        take(self, block, found)
        if (cgroup_id := next(moves, 0)) != 0:
            memory.put(ME, cgroup_id)

    monkeypatch.setattr(ProcessTable, "_take", take_and_move)
    assert witness.witness().cgroup_ids == {ME: 12}


def test_a_reading_looks_only_at_what_changed(
    witness: bpf.Witness, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[int] = []
    take = ProcessTable._take

    def note(self: ProcessTable, block: int, found: Iterator[tuple[int, ...]]) -> None:
        looked_at.append(block)
        take(self, block, found)

    monkeypatch.setattr(ProcessTable, "_take", note)
    far = ProcessKey(SLOT_BLOCK * 7, 1)
    for key in (ME, OTHER, far):
        memory.put(key, 10)
    witness.witness()
    assert set(looked_at) == {0, 7}
    looked_at.clear()
    witness.witness()
    assert not looked_at
    memory.put(far, 11)
    assert witness.witness().cgroup_ids[far] == 11
    assert set(looked_at) == {7}


def test_blocks_side_by_side_and_across_pages_are_each_their_own(
    witness: bpf.Witness, memory: Memory
) -> None:
    """The last of a block, the first of the next, one in the middle of nowhere, the last of all."""
    pids = (SLOT_BLOCK - 1, SLOT_BLOCK, 5 * SLOT_BLOCK + 3, 99 * SLOT_BLOCK + 1, SLOTS - 1)
    for pid in pids:
        memory.put(ProcessKey(pid, pid + 1), 10 + pid)
    assert witness.witness().cgroup_ids == {ProcessKey(pid, pid + 1): 10 + pid for pid in pids}
    memory.put(ProcessKey(SLOT_BLOCK, SLOT_BLOCK + 1), 5)
    memory.free(ProcessKey(SLOTS - 1, SLOTS))
    assert witness.witness().cgroup_ids == {
        ProcessKey(pid, pid + 1): 5 if pid == SLOT_BLOCK else 10 + pid for pid in pids[:-1]
    }


def test_the_maps_memory_is_not_the_agents(witness: bpf.Witness, memory: Memory) -> None:
    """All pages of a mapped map are resident: kept are the two positions of the ring buffer."""
    for number in range(200):
        memory.put(ProcessKey(number * SLOT_BLOCK, 5), 10)
        memory.exit(exit_record(ProcessKey(number + 1, 1), sequence=number + 1))
    assert len(witness.witness().exits) == 200
    tests_own = {"slots": len(memory.slots), "exits": len(memory.ring)}
    assert {
        name: mapped_bytes(memory.maps[name].fd) - size for name, size in tests_own.items()
    } == {
        "slots": 0,
        "exits": 2 * PAGE,
    }


def mapped_bytes(fd: int) -> int:
    """How much of the address space is the file's, as `/proc` has it."""
    inode = str(os.fstat(fd).st_ino)
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    ranges = [line.split()[0].split("-") for line in lines if line.split()[4] == inode]
    return sum(int(end, 16) - int(begin, 16) for begin, end in ranges)


def test_half_a_record_is_none(witness: bpf.Witness, memory: Memory) -> None:
    memory.put(ME, 0)
    memory.put(OTHER, 20, start_ns=0)
    assert witness.witness().cgroup_ids == {}


def test_processes_that_found_their_place_taken_are_known_as_well(
    witness: bpf.Witness, memory: Memory
) -> None:
    far = ProcessKey(ME.pid + SLOTS, 701)
    memory.put(ME, 10)
    memory.spill(far, 30)
    assert witness.witness().cgroup_ids == {ME: 10, far: 30}
    memory.maps["spilled"].content.clear()
    assert witness.witness().cgroup_ids == {ME: 10}


def test_a_removed_cgroups_record_stays_a_minute_and_is_then_swept(
    witness: bpf.Witness, memory: Memory, clock: Clock
) -> None:
    kept = memory.maps["cgroups"].content
    kept |= cgroup(10, gone=1) | cgroup(11)
    assert witness.witness().gone == {10}
    clock.now += 59 * 10**9
    witness.witness()
    assert len(kept) == 2
    clock.now += 2 * 10**9
    witness.witness()
    assert list(kept) == [records.CGROUP_KEY.pack(11)]


def test_an_ended_process_whose_freeing_is_never_told_gives_up_its_place_and_is_late_not_lost(
    witness: bpf.Witness, memory: Memory, clock: Clock
) -> None:
    zombie = ProcessKey(os.getpid(), 900)
    gone = ProcessKey(SLOTS - 1, 950)
    while Path(f"/proc/{gone.pid}").exists():
        gone = ProcessKey(gone.pid - 1, 950)
    for key in (zombie, gone):
        memory.put(key, 10, exit_cpu_ns=44, ended=1)
    before = witness.witness()
    assert before.exiting == {zombie: 44, gone: 44}
    clock.now += 21 * 10**9
    witness.witness()
    after = witness.witness()
    assert set(after.cgroup_ids) == set(after.exiting) == {zombie}
    assert (after.late, after.lost) == (before.late + 1, before.lost)
    assert (memory.at(gone.pid).released, memory.at(zombie.pid).released) == (1, 0)
    assert witness.witness().late == after.late


def test_an_exit_has_its_names_and_its_cost(witness: bpf.Witness, memory: Memory) -> None:
    one = exit_record(
        ME, ppid=3, comm=b"sleep\0x", parent_comm=b"sh", cpu_ns=70, charged_ns=60, oom=1,
        exit_code=9, short_lived=1, ended_ns=88,
    )  # fmt: skip
    memory.exit(one)
    (got,) = witness.witness().exits
    assert (got.key, got.parent) == (ME, ProcessKey(3, 5))
    assert (got.comm, got.parent_comm, got.cgroup_id) == ("sleep", "sh", 10)
    assert (got.cpu_ns, got.charged_ns, got.exit_code, got.ended_ns) == (70, 60, 9, 88)
    assert (got.oom, got.short_lived) == (True, True)
    assert got.max_rss_kb == 25 * PAGE // 1024
    assert witness.witness().exits == ()


def test_cpu_that_comes_after_an_exits_record_is_added_to_it(
    witness: bpf.Witness, memory: Memory
) -> None:
    memory.exit(exit_record(ME, sequence=1))
    memory.exit(exit_record(ME, sequence=2, kind=2, cpu_ns=7, charged_ns=6))
    (got,) = witness.witness().exits
    assert (got.cpu_ns, got.charged_ns) == (107, 106)


def test_a_gap_in_the_numbers_and_a_tail_that_only_the_count_knows_are_lost_exactly(
    witness: bpf.Witness, memory: Memory
) -> None:
    for sequence in (1, 2, 5):
        memory.exit(exit_record(ProcessKey(sequence, 1), sequence=sequence))
    memory.exit(exit_record(ProcessKey(9, 1), sequence=2, cpu=1))
    memory.counters[:] = [records.CpuCounters(exits=9), records.CpuCounters(exits=2)]
    first = witness.witness()
    assert (len(first.exits), first.lost) == (4, 2 + 1)
    assert witness.witness().lost == 2 + 4 + 1
    memory.exit(exit_record(ProcessKey(10, 1), sequence=10))
    memory.counters[0] = records.CpuCounters(exits=10)
    assert witness.witness().lost == 7
    assert witness.witness().lost == 7


def test_a_number_that_is_taken_before_its_record_is_there_is_no_loss(
    witness: bpf.Witness, memory: Memory
) -> None:
    memory.counters[0] = records.CpuCounters(exits=1)
    assert witness.witness().lost == 0
    memory.exit(exit_record(ME))
    assert witness.witness().lost == 0


def test_short_lived_commands_are_summed_by_cgroup_parent_and_name(
    witness: bpf.Witness, memory: Memory, clock: Clock
) -> None:
    for number, rss in ((1, 10), (2, 30), (3, 20)):
        one = exit_record(ProcessKey(number, 1), sequence=number, short_lived=1, cpu_ns=9)
        memory.exit(one._replace(charged_ns=7, max_rss_pages=rss, ended_ns=number))
    memory.exit(exit_record(ProcessKey(4, 1), sequence=4, comm=b"old"))
    memory.exit(exit_record(ProcessKey(5, 1), sequence=5, short_lived=1, ended_ns=clock.now + 5))
    (found,) = witness.witness().short_lived.items()
    assert found[0] == (10, "init", "sh")
    assert (found[1].processes, found[1].cpu_ns) == (3, 21)
    assert found[1].peaks == ((2, 30 * PAGE // 1024), (3, 20 * PAGE // 1024))
    clock.now += 10
    assert next(iter(witness.witness().short_lived.values())).processes == 4


def test_the_sums_of_a_swept_cgroup_and_the_least_recent_of_too_many_are_dropped(
    witness: bpf.Witness, memory: Memory, clock: Clock
) -> None:
    memory.maps["cgroups"].content |= cgroup(10, gone=1)
    memory.exit(exit_record(ME, short_lived=1))
    witness.witness()
    assert len(witness.witness().short_lived) == 1
    clock.now += 61 * 10**9
    witness.witness()
    assert not witness.witness().short_lived
    for number in range(5000):
        one = exit_record(ProcessKey(number, 2), sequence=number + 2, short_lived=1)
        memory.exit(one._replace(comm=b"c%d" % number))
    names = {key.name for key in witness.witness().short_lived}
    assert len(names) == 4096
    assert "c4999" in names
    assert "c0" not in names


def test_exits_are_taken_out_between_two_ticks_before_their_buffer_is_full(
    witness: bpf.Witness, memory: Memory
) -> None:
    number = EXIT_BYTES // 2 // (records.EXIT.size + 8)
    for sequence in range(1, number + 1):
        memory.exit(exit_record(ProcessKey(sequence, 1), sequence=sequence, short_lived=1))
    memory.counters[0] = records.CpuCounters(exits=number)
    wait_until(lambda: memory.taken == memory.given, "the buffer is empty", timeout_s=30)
    view = witness.witness()
    assert [one.key.pid for one in view.exits] == list(range(number - MOST_EXITS + 1, number + 1))
    (figures,) = view.short_lived.values()
    assert figures.processes == number
    assert witness.witness().lost == 0
