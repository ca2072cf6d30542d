"""The witness between its start and its last descriptor, with the kernel left out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent.errors import SourceError
from agent.model.container import Hierarchy
from agent.model.process import ProcessKey
from agent.sources.bpf import records
from agent.sources.bpf import witness as bpf
from agent.sources.bpf.loader import HandoverError, Probes
from agent.sources.bpf.programs import Handover, Order
from agent.sources.bpf.support import BpfSupport

SUPPORT = BpfSupport(True, True, True, "python3", "none", True, "x86_64")
ME, OTHER = ProcessKey(7, 700), ProcessKey(8, 800)


class Clock:
    def __init__(self) -> None:
        self.now = 10**9

    def boot_ns(self) -> int:
        return self.now

    def wall_ns(self) -> int:
        return self.now


class FakeMap:
    """A map of bytes with the reader's interface."""

    def __init__(self, content: dict[bytes, bytes]) -> None:
        self.content = content
        self.fd, self.key_size, self.value_size = -1, 4, records.CPU_COUNTERS.size

    def chunks(self) -> Iterator[tuple[bytes, bytes]]:
        if self.content:
            yield b"".join(self.content), b"".join(self.content.values())

    def update(self, key: bytes, value: bytes) -> None:
        self.content[key] = value

    def delete(self, key: bytes) -> bool:
        return self.content.pop(key, None) is not None


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


def process(key: ProcessKey, cgroup: int, *, base: int = 0, exited: int = 0) -> dict[bytes, bytes]:
    record = records.PROCESS_RECORD.pack(cgroup, base, 0, 44, 1, 0, exited, 0, 0)
    return {records.PROCESS_KEY.pack(key.pid, 0, key.start_ns): record}


def cgroup(identity: int, *, parent: int = 1, born: int = 0, gone: int = 0) -> dict[bytes, bytes]:
    record = records.CGROUP_RECORD.pack(parent, 5, 4, 3, 1, 2, 1, 60, 40, born, gone)
    return {records.CGROUP_KEY.pack(identity): record}


def probes(processes: dict[bytes, bytes], cgroups: dict[bytes, bytes]) -> Probes:
    maps: dict[str, Any] = {
        "processes": FakeMap(processes),
        "cgroups": FakeMap(cgroups),
        "controls": FakeMap({}),
        "counters": FakeMap({}),
    }
    return Probes(Handover(seam=(1, 2, 3)), maps, {}, ())


@pytest.fixture
def clock() -> Clock:
    return Clock()


def start(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, *answers: Probes | HandoverError | None
) -> tuple[bpf.Witness, FakeStartup]:
    startup = FakeStartup(list(answers))
    monkeypatch.setattr(bpf, "Startup", startup)
    monkeypatch.setattr(bpf.Witness, "_lost", lambda self, counters: 4)
    return bpf.Witness.start(Hierarchy.DEFAULT, clock, SUPPORT), startup


def test_it_starts_without_waiting_and_is_ready_when_the_descriptors_come(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    witness, startup = start(monkeypatch, clock, None, probes({}, {}))
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


def ready(
    monkeypatch: pytest.MonkeyPatch,
    clock: Clock,
    processes: dict[bytes, bytes],
    cgroups: dict[bytes, bytes],
) -> tuple[bpf.Witness, Any]:
    what = probes(processes, cgroups)
    witness, _ = start(monkeypatch, clock, what)
    assert witness.poll().status == "ready"
    return witness, what.maps


def test_the_view_has_every_process_with_what_its_record_says(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    content = process(ME, 10) | process(OTHER, 20, base=33, exited=1)
    witness, maps = ready(monkeypatch, clock, content, cgroup(10, parent=2, born=1))
    view = witness.witness(snapshot_ns=555)
    assert view.cgroup_ids == {ME: 10, OTHER: 20}
    assert view.exiting == {OTHER: 44}
    assert view.moved_cpu_ns == {OTHER: 33}
    assert view.totals[10] == bpf.CgroupEvents(5, 4, 3, 1, 2, 1, 60, 40)
    assert (view.totals[10].starts, view.totals[10].cpu_exited_ns) == (5, 100)
    assert (view.parents, view.born, view.gone) == ({10: 2}, {10}, frozenset())
    assert (view.lost, view.seam) == (4, bpf.Seam(1, 2, 3))
    assert maps["controls"].content == {bytes(4): records.CONTROL.pack(555)}


def test_a_removed_cgroups_record_stays_a_minute_and_is_then_swept(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    witness, maps = ready(monkeypatch, clock, {}, cgroup(10, gone=1) | cgroup(11))
    assert witness.witness().gone == {10}
    clock.now += 59 * 10**9
    witness.witness()
    assert len(maps["cgroups"].content) == 2
    clock.now += 2 * 10**9
    witness.witness()
    assert list(maps["cgroups"].content) == [records.CGROUP_KEY.pack(11)]


def test_an_end_whose_freeing_is_never_told_is_settled_and_counted_as_lost(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    there = ProcessKey(os.getpid(), 900)
    gone = ProcessKey(1 << 22, 950)  # beyond every pid_max
    content = process(there, 10, exited=1) | process(gone, 10, base=4, exited=1)
    witness, maps = ready(monkeypatch, clock, content, cgroup(10))
    before = witness.witness()
    assert before.exiting == {there: 44, gone: 44}
    clock.now += 21 * 10**9
    after = witness.witness()
    assert after.exiting == {there: 44}
    assert set(after.cgroup_ids) == {there}
    assert after.lost == before.lost + 1
    assert after.totals[10].cpu_ended_ns == before.totals[10].cpu_ended_ns + 40
    assert len(maps["processes"].content) == 1
    assert witness.witness().totals == after.totals


def test_the_test_hook_makes_it_swear_to_another_cgroup(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, tmp_path: Any
) -> None:
    witness, _ = ready(monkeypatch, clock, process(ME, 10) | process(OTHER, 20), {})
    lies = tmp_path / "lies"
    lies.write_text(f"{ME.pid} 99\n12345 1\n", encoding="ascii")
    monkeypatch.setitem(os.environ, bpf.DISAGREE_VARIABLE, str(lies))
    assert witness.witness().cgroup_ids == {ME: 99, OTHER: 20}
    monkeypatch.delitem(os.environ, bpf.DISAGREE_VARIABLE)
    assert witness.witness().cgroup_ids == {ME: 10, OTHER: 20}
