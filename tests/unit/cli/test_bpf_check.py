"""`agent bpf check` sees what a tick sees, other engines' containers included."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.cli.commands.bpf_check import check
from agent.clock import SystemClock
from agent.config import Config
from agent.daemon import watch as watch_module
from agent.daemon.outside import Outside
from agent.daemon.watch import Watch
from agent.engine_api.own_container import OwnContainer
from agent.errors import AgentError, EngineUnavailableError, SourceError
from agent.model.bpf import BpfView, Seam
from agent.model.process import ProcessKey, Snapshot, Source
from agent.sources.bpf.witness import Witness
from agent.sources.engine.inventory import Listing
from tests.unit.builders import candidate, process, snapshot
from tests.unit.sources.fake_host import FakeHost, container, full_id

HOST_CGROUP = 99
"""No container's."""


class FakeWitness:
    def __init__(self, cgroup_ids: dict[ProcessKey, int], *states: str) -> None:
        self.cgroup_ids = cgroup_ids
        self._states = [*states] or ["ready"]
        self.polls = 0
        self.closed = 0
        self.partial = ""
        self.long_names = 0

    @property
    def state(self) -> SimpleNamespace:
        off = self._states[0] == "off"
        reason, hint = ("the kernel has no BTF.", "Boot another.") if off else ("", "")
        reason = self.partial or reason
        return SimpleNamespace(status=self._states[0], reason=reason, hint=hint)

    def poll(self) -> SimpleNamespace:
        self.polls += 1
        if len(self._states) > 1:
            self._states.pop(0)
        return self.state

    def close(self) -> None:
        self.closed += 1

    def read(self) -> BpfView:
        return BpfView(
            *(0, self.cgroup_ids, {}, {}, {}, {}, frozenset(), frozenset(), 0, Seam()),
            long_names=self.long_names,
        )

    def mark(self, snapshot_ns: int) -> None:
        pass


class OneContainer:
    """An engine whose list has one container."""

    def __init__(self) -> None:
        self.asked = 0
        self.away = False
        self.closed = 0

    def list(self) -> Listing:
        self.asked += 1
        if self.away:
            raise EngineUnavailableError("Docker does not answer.", "Start it.")
        return Listing((container("a"),), 0, 0)

    def close(self) -> None:
        self.closed += 1


class FakeOutside(Outside):
    """A host whose processes and engine are a test's, and whose cgroups are real directories."""

    def __init__(self, host: FakeHost, seen: Snapshot, engine: OneContainer) -> None:
        super().__init__(Config(), SystemClock(), lambda _: None)  # type: ignore[arg-type]
        self._host, self._seen, self._engine = host, seen, engine
        self.modules_problem = ""

    def own_container(self) -> OwnContainer:
        return OwnContainer(self._host.proc / "nobody")

    def engine(self, settings: Any) -> Any:
        return self._engine

    def read_modules(self) -> Snapshot:
        if self.modules_problem:
            raise SourceError(self.modules_problem, "Load them.")
        return self._seen

    def read_psutil(self, layout: Any) -> Snapshot:
        return dataclasses.replace(self._seen, source=Source.PSUTIL, candidates=())


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path)


@pytest.fixture
def engine() -> OneContainer:
    return OneContainer()


def watch(
    host: FakeHost, engine: OneContainer, seen: Snapshot, cgroup_ids: dict[ProcessKey, int]
) -> Watch:
    witness = cast("Witness", FakeWitness(cgroup_ids))
    return Watch(FakeOutside(host, seen, engine), host.layout(), witness)


def test_a_container_of_another_docker_is_in_the_table(
    host: FakeHost, engine: OneContainer
) -> None:
    own = host.cgroup(f"/system.slice/docker-{full_id('a')}.scope")
    other = host.cgroup(f"/other/docker-{full_id('f')}.scope")
    processes = [process(pid, cgroup_id=group) for pid, group in ((7, own), (8, other))]
    seen = dataclasses.replace(
        snapshot(*processes),
        candidates=tuple(candidate(one.pid, cgroup_id=one.cgroup_id) for one in processes),
    )
    ids = {process.key: process.cgroup_id for process in processes}

    answer = watch(host, engine, seen, ids).look().attribution

    assert {row.process.pid: row.container_id for row in answer.rows} == {
        7: full_id("a"),
        8: full_id("f"),
    }
    assert (answer.counts.agree, answer.counts.dropped) == (2, 0)


def test_docker_is_asked_once_more_and_not_for_ever_for_what_it_does_not_explain(
    host: FakeHost, engine: OneContainer
) -> None:
    unit = host.cgroup("/system.slice/private.service")
    seen = dataclasses.replace(
        snapshot(process(9, cgroup_id=unit + 1000)),
        candidates=(candidate(9, cgroup_id=unit + 1000),),
    )
    one = watch(host, engine, seen, {})

    one.look()
    assert engine.asked == 2
    one.look()
    assert engine.asked == 3


@dataclasses.dataclass
class Command:
    """`agent bpf check` on a host with one process in a container, and what it printed."""

    outside: FakeOutside
    witness: FakeWitness
    engine: OneContainer
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *, as_json: bool = False) -> tuple[int, str, str]:
        status = check(Config(), SystemClock(), as_json=as_json)
        out, err = self.capsys.readouterr()
        return status, out, err


@pytest.fixture
def command(
    host: FakeHost,
    engine: OneContainer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., Command]:
    own = host.cgroup(f"/system.slice/docker-{full_id('a')}.scope")
    one = process(7, name="evil\x1b[2J", cgroup_id=own)
    seen = dataclasses.replace(
        snapshot(one), candidates=(candidate(7, name=one.name, cgroup_id=own, pid_ns=999),)
    )

    def make(*states: str, conflict: bool = False) -> Command:
        witness = FakeWitness({one.key: HOST_CGROUP if conflict else own}, *states)
        outside = FakeOutside(host, seen, engine)
        monkeypatch.setattr(outside, "layout", host.layout)
        monkeypatch.setattr(outside, "witness", lambda layout: witness)
        monkeypatch.setattr(watch_module, "Outside", lambda *_: outside)
        return Command(outside, witness, engine, capsys)

    return make


def test_the_table_has_a_line_for_each_process_and_steers_no_terminal(
    command: Callable[..., Command],
) -> None:
    status, out, err = command()()
    header, row, counts, overlap = out.splitlines()
    assert (status, err) == (0, "")
    assert header.split() == [
        *("PID", "COMM", "MODULE", "BPF", "NS", "VERIFIED", "BASIS", "CONTAINER")
    ]
    assert row.split()[:2] == ["7", r"evil\x1b[2J"]
    assert row.split()[-4:] == ["pid+uts", "agree", "cgroup", "name-a"]
    assert counts.startswith("1 processes of 1 containers: 1 agree, 0 conflict, 0 unverified; 0 ")
    assert overlap.endswith("Lost: 0; corrected: 0.")


def test_what_this_kernel_refuses_of_the_probes_is_said_and_so_are_names_too_long(
    command: Callable[..., Command],
) -> None:
    one = command()
    one.witness.partial, one.witness.long_names = "Lives between two ticks are nobody's.", 3
    status, out, err = one()
    assert (status, err) == (0, "BPF: Lives between two ticks are nobody's.\n")
    assert out.splitlines()[-1] == "3 cgroups were made with longer names than any engine gives."
    assert json.loads(one(as_json=True)[1])["long_names"] == 3


def test_a_conflict_is_named_with_what_bpf_says_and_is_the_exit_status(
    command: Callable[..., Command],
) -> None:
    status, out, _ = command(conflict=True)()
    assert status == 1
    assert "conflict   cgroup  name-a (BPF: none)" in out


def test_the_json_has_both_witnesses_of_each_row(command: Callable[..., Command]) -> None:
    status, out, _ = command(conflict=True)(as_json=True)
    value = json.loads(out)
    (row,) = value["rows"]
    assert status == 1
    assert (value["source"], value["counts"]["conflict"], value["lost"]) == ("modules", 1, 0)
    assert (row["pid"], row["container_id"], row["bpf_container"]) == (7, full_id("a"), "")
    assert row["source_cgroup"] != row["bpf_cgroup"] == HOST_CGROUP
    assert (row["verified"], row["namespaces"]) == ("conflict", "pid+uts")


def test_without_the_modules_proc_is_the_first_witness_and_that_is_said(
    command: Callable[..., Command],
) -> None:
    one = command()
    one.outside.modules_problem = "/proc/sysinfo is not there."
    status, out, err = one()
    assert status == 0
    assert "/proc instead of the modules. /proc/sysinfo is not there." in err
    assert out.split()[2] == "PROC"
    assert " agree " in out


def test_probes_are_waited_for_and_closed_with_the_engine(
    command: Callable[..., Command],
) -> None:
    one = command("starting", "starting", "ready")
    assert one()[0] == 0
    assert one.witness.polls >= 2
    assert (one.witness.closed, one.engine.closed) == (1, 1)


def test_where_there_can_be_no_probes_the_reason_is_the_error(
    command: Callable[..., Command],
) -> None:
    one = command("starting", "off")
    with pytest.raises(SourceError, match=r"^The kernel has no BTF\.") as raised:
        one()
    assert raised.value.hint == "Boot another."
    assert (one.witness.closed, one.engine.closed) == (1, 1)


def test_without_docker_there_is_no_table_but_an_error(command: Callable[..., Command]) -> None:
    one = command()
    one.engine.away = True
    with pytest.raises(EngineUnavailableError, match="does not answer"):
        one()
    assert one.witness.closed == 1


def test_a_bpf_that_cannot_be_read_is_an_error(
    command: Callable[..., Command], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> BpfView:
        raise SourceError("A map cannot be read.")

    one = command()
    monkeypatch.setattr(one.witness, "read", broken)
    with pytest.raises(AgentError, match="A map cannot be read"):
        one()
