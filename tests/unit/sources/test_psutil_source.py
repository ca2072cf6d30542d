"""The fallback source, on a host in a directory and on this very machine's own processes."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import psutil
import pytest

from agent.clock import SystemClock
from agent.errors import SourceError
from agent.model.process import Candidate, Process, Snapshot, Source
from agent.sources import procfs, psutil_source
from agent.sources.cgroup import reader
from agent.sources.host_metrics import require_whole_proc
from tests.unit.sources.fake_host import FakeHost, full_id, nest, remove_nested

A = full_id("a")


@pytest.fixture
def pids(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The pids that psutil lists."""
    found: list[int] = []
    monkeypatch.setattr(psutil, "pids", lambda: list(found))
    return found


def read(host: FakeHost) -> Snapshot:
    return psutil_source.read(SystemClock(), host.layout())


def one(snapshot: Snapshot, pid: int) -> Process:
    (found,) = (process for process in snapshot.processes if process.pid == pid)
    return found


def candidate(snapshot: Snapshot, pid: int) -> Candidate | None:
    return next((found for found in snapshot.candidates if found.pid == pid), None)


@pytest.mark.parametrize("kind", ["v2", "v1", "hybrid"])
def test_cgroup_ids_are_the_inodes_of_their_directories(
    tmp_path: Path, pids: list[int], kind: str
) -> None:
    host = FakeHost(tmp_path, kind)
    own = host.cgroup(f"/docker/{A}")
    host.process(70, cgroup=f"/docker/{A}", pid_ns=9, uts_ns=8, own_pid=1)
    pids.extend([1, 70])
    snapshot = read(host)
    process, inside = one(snapshot, 70), candidate(snapshot, 70)
    assert inside is not None
    assert (inside.pid_ns, inside.uts_ns, inside.ns_pid) == (9, 8, 1)
    assert (inside.cgroup_id, inside.cgroup1_id) == (process.cgroup_id, process.cgroup1_id)
    assert own == (process.cgroup_id if kind == "v2" else process.cgroup1_id)
    assert bool(process.cgroup_id) == (kind != "v1")
    assert bool(process.cgroup1_id) == (kind != "v2")
    assert candidate(snapshot, 1) is None
    assert snapshot.source is Source.PSUTIL
    assert snapshot.candidates_ns == snapshot.snapshot_ns


@pytest.mark.parametrize(
    ("namespaces", "is_candidate"),
    [({}, False), ({"pid_ns": 9}, True), ({"uts_ns": 8}, True)],
)
def test_candidates_are_outside_the_hosts_uts_or_pid_namespace(
    tmp_path: Path, pids: list[int], namespaces: dict[str, int], is_candidate: bool
) -> None:
    host = FakeHost(tmp_path)
    host.process(70, **namespaces)  # type: ignore[arg-type]
    pids.append(70)
    assert (candidate(read(host), 70) is not None) == is_candidate


@pytest.mark.parametrize(("own_pids", "ns"), [(True, 12_345_678), (False, 0)])
def test_cpu_is_told_to_the_nanosecond_where_the_pids_are_ours(
    tmp_path: Path,
    pids: list[int],
    monkeypatch: pytest.MonkeyPatch,
    own_pids: bool,
    ns: int,
) -> None:
    host = FakeHost(tmp_path)
    host.process(70, uts_ns=8)
    pids.append(70)
    cut_ns = one(read(host), 70).cpu_ns
    told = f"Name:\tx\nNSpid:\t{os.getpid()}{'' if own_pids else ' 5'}\n"
    (tmp_path / "proc/self/status").write_text(told, encoding="ascii")
    real = time.clock_gettime_ns
    clocks = {~70 << 3 | 2: cut_ns + 12_345_678}
    monkeypatch.setattr(time, "clock_gettime_ns", lambda clock: clocks.get(clock) or real(clock))
    snapshot = read(host)
    found = candidate(snapshot, 70)
    assert found is not None
    assert one(snapshot, 70).cpu_ns == found.cpu_ns == cut_ns + ns


def test_a_zombie_has_only_its_pid_namespace(tmp_path: Path, pids: list[int]) -> None:
    host = FakeHost(tmp_path)
    host.process(70, pid_ns=9, uts_ns=0, own_pid=4, state="Z")
    host.process(71, uts_ns=0, state="Z")
    pids.extend([70, 71])
    snapshot = read(host)
    assert one(snapshot, 70).state == 32
    inside = candidate(snapshot, 70)
    assert inside is not None
    assert inside.pid_ns == 9
    assert candidate(snapshot, 71) is None


@pytest.mark.parametrize("kind", ["v2", "v1", "hybrid"])
def test_a_process_whose_main_thread_has_ended_is_what_its_other_threads_are(
    tmp_path: Path, pids: list[int], kind: str
) -> None:
    host = FakeHost(tmp_path, kind)
    host.cgroup(f"/docker/{A}")
    host.process(70, cgroup=f"/docker/{A}", pid_ns=9, uts_ns=8, own_pid=1)
    pids.append(70)
    alive, inside = one(read(host), 70), candidate(read(host), 70)
    assert alive.rss_kb == 12
    host.end_main_thread(70, tid=71)
    after = one(read(host), 70)
    assert after.state == 32
    for field in ("rss_kb", "vsz_kb", "mm_id", "cgroup_id", "cgroup1_id", "key"):
        assert getattr(after, field) == getattr(alive, field)
    assert inside is not None
    assert candidate(read(host), 70) is not None
    assert candidate(read(host), 70).uts_ns == inside.uts_ns == 8  # type: ignore[union-attr]


def test_the_other_thread_s_page_tables_are_read_before_6_2(
    tmp_path: Path, pids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = FakeHost(tmp_path)
    host.process(70)
    host.end_main_thread(70, tid=71)
    rollup = host.proc / "70" / "task" / "71" / "smaps_rollup"
    rollup.write_text("0-1 [rollup]\nRss: 1440 kB\nAnonymous: 96 kB\n")
    pids.append(70)
    monkeypatch.setattr("platform.release", lambda: "6.1.0-50-amd64")
    assert (one(read(host), 70).rss_kb, one(read(host), 70).rss_anon_kb) == (1440, 96)


def test_a_process_that_ends_while_it_is_read_is_left_out(tmp_path: Path, pids: list[int]) -> None:
    host = FakeHost(tmp_path)
    host.process(70)
    host.process(71, uts_ns=0)  # its namespaces went between two reads
    pids.extend([70, 71, 72])
    assert [process.pid for process in read(host).processes] == [70]


def test_the_v1_cgroup_of_a_zombie_is_that_of_the_default_hierarchy(
    tmp_path: Path, pids: list[int]
) -> None:
    host = FakeHost(tmp_path, "hybrid")
    own = host.cgroup(f"/docker/{A}")
    host.process(70, pid_ns=9, uts_ns=0, own_pid=4, state="Z")
    (host.proc / "70" / "cgroup").write_text(f"5:cpu,cpuacct:/\n4:memory:/\n0::/docker/{A}\n")
    stat = host.proc / "70" / "stat"
    stat.write_text(stat.read_text().replace(" 8192 ", " 0 "))
    pids.append(70)
    assert one(read(host), 70).cgroup1_id == own


def test_the_cgroup_of_a_zombie_on_pure_v1_is_not_told(tmp_path: Path, pids: list[int]) -> None:
    host = FakeHost(tmp_path, "v1")
    host.process(70, pid_ns=9, uts_ns=0, own_pid=4, state="Z")
    (host.proc / "70" / "cgroup").write_text("5:cpu,cpuacct:/\n4:memory:/\n0::/\n")
    stat = host.proc / "70" / "stat"
    stat.write_text(stat.read_text().replace(" 8192 ", " 0 "))
    pids.append(70)
    assert one(read(host), 70).cgroup1_id == 0


@pytest.mark.parametrize("path", ["/../outside", "/gone (deleted)", "relative", ""])
def test_a_cgroup_that_cannot_be_looked_up_has_no_id(
    tmp_path: Path, pids: list[int], path: str
) -> None:
    host = FakeHost(tmp_path)
    host.process(70, cgroup=path)
    pids.append(70)
    assert one(read(host), 70).cgroup_id == 0


LONG = ["x" * 200] * 30
LIST = {"v2": "cgroup.threads", "v1": "tasks"}


@pytest.mark.parametrize("kind", ["v2", "v1"])
@pytest.mark.parametrize("shown", ["cut", "refused"])
def test_a_cgroup_whose_path_the_kernel_does_not_tell_is_found_by_its_tasks(
    tmp_path: Path, pids: list[int], monkeypatch: pytest.MonkeyPatch, kind: str, shown: str
) -> None:
    """Linux 6.18 shows the first 4,095 bytes, 6.1 answers ENAMETOOLONG for the whole file."""
    host = FakeHost(tmp_path, kind)
    own = nest(host.identifying, LONG, {LIST[kind]: "70\n"})
    host.process(70, cgroup=("/" + "/".join(LONG))[:4095])
    pids.extend([1, 70])
    if shown == "refused":
        refuse(monkeypatch, host.proc / "70" / "cgroup")
    try:
        process = one(read(host), 70)
        assert own == (process.cgroup_id if kind == "v2" else process.cgroup1_id)
        # Two processes may show the same cut text.
        host.process(71, cgroup=("/" + "/".join(LONG))[:4095])
        pids.append(71)
        assert (one(read(host), 71).cgroup_id, one(read(host), 71).cgroup1_id) == (0, 0)
    finally:
        remove_nested(host.identifying)


def test_a_cgroup_whose_path_is_too_long_with_the_mount_before_it_is_opened_step_by_step(
    tmp_path: Path, pids: list[int]
) -> None:
    host = FakeHost(tmp_path)
    names = ["x" * 203] * 20
    own = nest(host.root, names)
    host.process(70, cgroup="/" + "/".join(names))
    pids.append(70)
    try:
        assert len("/".join(names)) < 4095 < len(f"{host.root}/{'/'.join(names)}")
        assert one(read(host), 70).cgroup_id == own
    finally:
        remove_nested(host.root)


def refuse(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """As the kernel does where the text would be too long."""
    real = procfs.read

    def read_or_refuse(name: str) -> bytes:
        if name == str(path):
            raise OSError(errno.ENAMETOOLONG, "File name too long")
        return real(name)

    monkeypatch.setattr(procfs, "read", read_or_refuse)


def test_names_come_as_the_modules_give_them(tmp_path: Path, pids: list[int]) -> None:
    host = FakeHost(tmp_path)
    host.process(70, comm="x) R 1 (")
    host.process(71)
    stat = host.proc / "71" / "stat"
    stat.write_bytes(stat.read_bytes().replace(b"(sleep)", b'("},{\n\xc3\x28\xff)'))
    pids.extend([70, 71])
    snapshot = read(host)
    assert one(snapshot, 70).name == "x) R 1 ("
    assert one(snapshot, 71).name == '"},{\n\ufffd(\ufffd'


def test_without_pid_1_there_is_no_snapshot(tmp_path: Path, pids: list[int]) -> None:
    host = FakeHost(tmp_path)
    (host.proc / "1" / "ns" / "pid").unlink()
    with pytest.raises(SourceError, match="cannot be read as root"):
        read(host)


def test_a_proc_of_processes_alone_is_a_sentence_with_the_remount(
    tmp_path: Path, pids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = FakeHost(tmp_path)
    monkeypatch.setattr("psutil.PROCFS_PATH", str(host.proc))
    with pytest.raises(SourceError, match="subset=pid") as caught:
        read(host)
    assert f"mount -t proc proc {host.proc}" in caught.value.hint
    with pytest.raises(SourceError, match="subset=pid"):
        require_whole_proc(host.proc)
    (host.proc / "meminfo").write_text("MemTotal: 1 kB\n")
    assert procfs.partial_problem(str(host.proc)) == ("", "")


def test_small_processes_are_counted_by_their_page_tables_before_6_2(
    tmp_path: Path, pids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = FakeHost(tmp_path)
    host.process(70)
    (host.proc / "70" / "smaps_rollup").write_text("0-1 [rollup]\nRss: 1440 kB\nAnonymous: 96 kB\n")
    pids.append(70)
    monkeypatch.setattr("platform.release", lambda: "6.1.0-50-amd64")
    old = one(read(host), 70)
    assert (old.rss_kb, old.rss_anon_kb) == (1440, 96)
    monkeypatch.setattr("platform.release", lambda: "6.12.1")
    assert one(read(host), 70).rss_kb == 12


def test_this_process_is_told_as_it_is() -> None:
    if not Path("/proc/self/cgroup").exists():
        pytest.skip("needs /proc")
    layout = reader.detect()
    clock = SystemClock()
    try:
        snapshot = psutil_source.read(clock, layout)
    except SourceError as error:
        pytest.skip(f"needs to read /proc as root: {error}")
    myself = one(snapshot, os.getpid())
    started = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - int(
        (time.time() - psutil.Process().create_time()) * 1e9
    )
    assert abs(myself.start_ns - started) < 2 * 10**9
    assert myself.ppid == os.getppid()
    assert myself.rss_kb > 1000
    assert myself.vsz_kb > myself.rss_kb
    assert myself.cpu_ns > 0
    assert myself.mm_id != 0
    again = one(psutil_source.read(clock, layout), os.getpid())
    assert again.key == myself.key
    assert snapshot.memory.total_kb == psutil.virtual_memory().total // 1024
    assert snapshot.memory.used_kb == snapshot.memory.total_kb - snapshot.memory.free_kb
    assert myself.start_ns % procfs.TICK_NS == 0
