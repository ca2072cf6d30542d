"""The second witness on a real kernel: what it records against what was done.

The same cases run wherever BPF is to be had: natively on the developer's or CI's kernel, and in the
guests on every kernel and mode of cgroups. Collected through a subclass that gives `image`.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.analysis.cpu_accounting import owners
from agent.clock import SystemClock
from agent.model.bpf import BpfView, CgroupEvents
from agent.model.container import DOCKER, CgroupView, ContainerCgroup, ContainerKey
from agent.model.process import ProcessKey
from agent.sources.bpf import witness as bpf
from agent.sources.bpf.programs import WITNESS
from agent.sources.cgroup import reader
from tests import containers
from tests.attribution_processes import process_at
from tests.bpf_support import (
    Storm,
    cgroup_of,
    compile_storm,
    identifying_root,
    processes,
    program_ids,
    programs_there,
    storm,
)
from tests.containers import wait_until

PROJECT = Path(__file__).resolve().parents[1]
TICK_NS = 10**7
"""/proc tells starts in hundredths of a second."""

KEPT = Path("/var/lib/so1-test/bpf")
"""Where the tests' own compiles are kept: one for all modules."""

# A debug kernel takes some ten times as long for each.
EXECS, FORKS = (1_000, 2_000) if platform.release().endswith("-debug") else (10_000, 20_000)
BOXES = 3


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("storm")
    for path in (directory, *directory.parents):
        if path.stat().st_uid == os.getuid() and path != Path("/") and not path.is_mount():
            path.chmod(path.stat().st_mode | 0o111)
    return compile_storm(directory)


@pytest.fixture(scope="module")
def boxes() -> Iterator[containers.Containers]:
    mine = containers.Containers()
    yield mine
    mine.close()


@pytest.fixture(scope="module")
def witness() -> Iterator[bpf.Witness]:
    """Probes that are ready, for one module."""
    one = bpf.Witness.start(reader.detect().hierarchy, SystemClock(), directory=KEPT)
    wait_until(lambda: one.poll().status != "starting", "the helper answers", timeout_s=300)
    if one.state.status != "ready" and not containers.in_lab():
        pytest.skip(f"needs BPF: {one.state.reason}")
    assert one.state.status == "ready", one.state
    yield one
    one.close()


@pytest.fixture(scope="module")
def storms(
    boxes: containers.Containers, image: str, program: Path, witness: bpf.Witness
) -> Iterator[list[Storm]]:
    """Three containers, born under the probes' eyes."""
    with ExitStack() as stack:
        yield [stack.enter_context(storm(boxes, image, program)) for _ in range(BOXES)]


def events(view: BpfView, one: Storm) -> CgroupEvents:
    return view.totals.get(one.cgroup_id, CgroupEvents())


def settled(witness: bpf.Witness) -> BpfView:
    """A view in which everybody who is on the way out now is out and settled."""
    known = witness.witness().cgroup_ids
    leaving = [key for key in known if not Path(f"/proc/{key.pid}").exists()]

    def look() -> BpfView | None:
        for cpu in os.sched_getaffinity(0):
            subprocess.run(["taskset", "-c", str(cpu), "true"], check=True)
        view = witness.witness()
        unsettled = view.cgroup_ids.keys() - set(view.settled)
        return None if any(key in unsettled for key in leaving) else view

    view = wait_until(look, "what ended is settled", timeout_s=120)
    assert isinstance(view, BpfView)
    return view


def key_of(view: BpfView, pid: int) -> ProcessKey:
    (key,) = (key for key in view.cgroup_ids if key.pid == pid and key not in view.exiting)
    return key


def children_cpu_ns() -> int:
    """The CPU time of all children that were waited for (getrusage(2))."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return round((usage.ru_utime + usage.ru_stime) * 1e9)


@pytest.mark.usefixtures("witness")
class BpfCases:
    """Each case asks the probes of one module, one after the other."""

    def test_every_process_of_the_host_is_known_by_its_start_and_its_cgroup(
        self, witness: bpf.Witness
    ) -> None:
        before = processes()
        view = witness.witness()
        after = processes()
        stayed = {pid: told for pid, told in before.items() if after.get(pid) == told}
        known = {
            (key.pid, key.start_ns // TICK_NS): cgroup for key, cgroup in view.cgroup_ids.items()
        }
        assert len(stayed) > 10
        for pid, told in stayed.items():
            assert known.get((pid, told.start_ticks)) == told.cgroup, (pid, told)

    def test_the_seam_is_counted_and_nothing_is_lost(self, witness: bpf.Witness) -> None:
        view = witness.witness()
        assert view.seam.snapshot_only > 10
        assert view.lost == 0

    @pytest.mark.parametrize(("what", "number"), [("fork", FORKS), ("exec", EXECS)])
    def test_a_storm_is_counted_by_container_to_the_last_process_and_its_cpu_to_two_percent(
        self, witness: bpf.Witness, storms: list[Storm], what: str, number: int
    ) -> None:
        each = number // BOXES
        before = settled(witness)
        cpu_before = [(one.usage_ns(), one.first_process_cpu_ns()) for one in storms]
        for one in storms:
            one.begin(what, each)
        for one in storms:
            one.finish()
        cpu_after = [(one.usage_ns(), one.first_process_cpu_ns()) for one in storms]
        after = settled(witness)
        lost = after.lost - before.lost
        told = [events(after, one).since(events(before, one)) for one in storms]
        execs = each if what == "exec" else 0
        counted = [(one.forks, one.exits, one.execs) for one in told]
        print(f"\n{what}: asked {each} in each, counted {counted}, lost {lost}")
        missing = sum(2 * each + execs - sum(counts) for counts in counted)
        assert missing == 0 if lost == 0 else 0 <= missing <= lost
        for seen, (usage, first), (usage_after, first_after) in zip(
            told, cpu_before, cpu_after, strict=True
        ):
            charged = usage_after - usage
            explained = seen.cpu_exited_ns + first_after - first
            print(f"charged {charged / 1e6:.1f} ms, explained {explained / charged:.4f}")
            assert explained == pytest.approx(charged, rel=0.02)

    def test_threads_that_end_together_are_one_exit(
        self, witness: bpf.Witness, storms: list[Storm]
    ) -> None:
        one, number = storms[0], 300
        before = settled(witness)
        usage, first = one.usage_ns(), one.first_process_cpu_ns()
        one.do("threads", number)
        charged = one.usage_ns() - usage - (one.first_process_cpu_ns() - first)
        told = events(settled(witness), one).since(events(before, one))
        assert (told.forks, told.exits) == (number, number)
        assert told.cpu_exited_ns == pytest.approx(charged, rel=0.02)

    def test_an_exec_by_a_thread_keeps_the_process_it_was(
        self, witness: bpf.Witness, storms: list[Storm]
    ) -> None:
        one, number = storms[0], 50
        before = settled(witness)
        one.do("thread-exec", number)
        after = settled(witness)
        told = events(after, one).since(events(before, one))
        assert (told.forks, told.execs, told.exits) == (number, number, number)
        assert after.lost == before.lost
        assert len(after.cgroup_ids) <= len(before.cgroup_ids) + 20

    def test_a_burn_costs_what_its_own_clock_says(
        self, witness: bpf.Witness, storms: list[Storm]
    ) -> None:
        before = settled(witness)
        storms[0].do("burn", 500)
        told = events(settled(witness), storms[0]).since(events(before, storms[0]))
        assert told.cpu_exited_ns == pytest.approx(500e6, rel=0.05)
        assert told.cpu_short_ns == told.cpu_exited_ns

    @pytest.mark.oom_kill
    def test_an_oom_kill_is_told_apart_from_other_deaths(
        self,
        witness: bpf.Witness,
        boxes: containers.Containers,
        image: str,
        program: Path,
    ) -> None:
        limits = ("--memory=32m", "--memory-swap=32m")
        with storm(boxes, image, program, *limits) as one:
            before, killed = settled(witness), one.oom_kills()
            one.do("eat", 8)
            one.do("eat", 200)
            view = settled(witness)
            told = events(view, one).since(events(before, one))
            assert (told.forks, told.exits) == (2, 2)
            assert told.oom_kills == one.oom_kills() - killed == 1

    def test_a_process_that_is_moved_is_where_it_was_moved_to(
        self, witness: bpf.Witness, storms: list[Storm]
    ) -> None:
        here, there = storms[0], storms[1]
        before = witness.witness()
        sleeper = subprocess.Popen(["sleep", "600"])
        try:
            for one in (here, there):
                (one.cgroup / "cgroup.procs").write_text(str(sleeper.pid), encoding="ascii")
                view = witness.witness()
                assert view.cgroup_ids[key_of(view, sleeper.pid)] == one.cgroup_id
            told = [events(view, one).since(events(before, one)) for one in (here, there)]
            assert (told[0].moved_in, told[0].moved_out) == (1, 1)
            assert (told[1].moved_in, told[1].moved_out) == (1, 0)
        finally:
            sleeper.kill()
            sleeper.wait()
        told = [events(settled(witness), one).since(events(before, one)) for one in (here, there)]
        assert (told[0].exits, told[1].exits) == (0, 1)

    def test_what_was_spent_before_a_move_is_charged_where_it_was_spent(
        self, witness: bpf.Witness, storms: list[Storm]
    ) -> None:
        one = storms[2]
        before, usage = settled(witness), one.usage_ns()
        code = "import time\nwhile time.process_time() < {}: pass\ninput()\n"
        code += "while time.process_time() < {}: pass\n"
        mover = subprocess.Popen(
            [sys.executable, "-I", "-c", code.format(0.5, 0.7)], stdin=subprocess.PIPE
        )
        here = Path(f"/proc/{mover.pid}")

        def spent_ns() -> int:
            return int((here / "schedstat").read_text().split()[0])

        def waits_for_its_input() -> bool:
            state = (here / "stat").read_text().rpartition(")")[2].split()[0]
            return state == "S" and spent_ns() > 500_000_000

        wait_until(waits_for_its_input, "half a second burnt")
        elsewhere_ns = spent_ns()
        subprocess.run(["sh", "-c", f"echo {mover.pid} > {one.cgroup}/cgroup.procs"], check=True)
        reaped_ns = children_cpu_ns()
        mover.communicate(b"\n")
        in_all_ns = children_cpu_ns() - reaped_ns
        told = events(settled(witness), one).since(events(before, one))
        assert told.cpu_exited_ns == pytest.approx(in_all_ns - elsewhere_ns, rel=0.1)
        if identifying_root().name != "memory":  # on v1 the CPU is another hierarchy's
            assert told.cpu_exited_ns == pytest.approx(one.usage_ns() - usage, rel=0.1)

    def test_a_pid_that_is_used_again_is_another_process(
        self, witness: bpf.Witness, storms: list[Storm]
    ) -> None:
        first = subprocess.Popen(["sleep", "600"])
        (storms[0].cgroup / "cgroup.procs").write_text(str(first.pid), encoding="ascii")
        view = witness.witness()
        old = key_of(view, first.pid)
        assert view.cgroup_ids[old] == storms[0].cgroup_id
        first.kill()
        first.wait()
        with process_at(old.pid):
            view = settled(witness)
            new = key_of(view, old.pid)
            assert new.start_ns > old.start_ns
            assert old not in view.cgroup_ids
            assert view.cgroup_ids[new] == cgroup_of(os.getpid()).stat().st_ino

    def test_a_child_made_inside_another_cgroup_is_there_from_its_birth(
        self, witness: bpf.Witness, program: Path
    ) -> None:
        """CLONE_INTO_CGROUP, a thing of the default hierarchy: no attach event tells of it."""
        if not (Path("/sys/fs/cgroup/cgroup.controllers")).exists():
            pytest.skip("CLONE_INTO_CGROUP needs the default hierarchy (cgroup v2)")
        directory = cgroup_of(os.getpid()).parent / "so1-test-into"
        directory.mkdir()
        try:
            done = subprocess.run(
                [program, "into", directory], check=True, capture_output=True, text=True
            )
            pid = int(done.stdout)
            try:
                view = witness.witness()
                assert view.cgroup_ids[key_of(view, pid)] == directory.stat().st_ino
                assert view.totals[directory.stat().st_ino].forks == 1
                assert view.totals[directory.stat().st_ino].moved_in == 0
            finally:
                os.kill(pid, signal.SIGKILL)
        finally:
            wait_until(lambda: _remove(directory), "the cgroup is empty")

    def test_a_nested_cgroup_that_came_and_went_still_counts_for_its_container(
        self, witness: bpf.Witness, storms: list[Storm]
    ) -> None:
        one = storms[0]
        nested = one.cgroup / "nested" / "deep"
        nested.mkdir(parents=True)
        identity = nested.stat().st_ino
        try:
            script = 'echo $$ > "$1/cgroup.procs"; for i in 1 2 3; do /bin/true; done'
            subprocess.run(["sh", "-c", script, "sh", str(nested)], check=True)
        finally:
            for path in (nested, nested.parent):
                wait_until(functools.partial(_remove, path), "the cgroup is empty")
        view = settled(witness)
        assert view.totals[identity].forks == 3
        assert view.totals[identity].exits == 4
        assert identity in view.born
        assert identity in view.gone
        key = ContainerKey(DOCKER, one.container)
        cgroup = ContainerCgroup(key, "", frozenset({one.cgroup_id}))
        known = CgroupView(reader.detect().hierarchy, {key: cgroup})
        assert owners(view, known)[identity] == key

    def test_the_helper_is_gone_and_the_reader_is_small(self, witness: bpf.Witness) -> None:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii")
        for pid in children.split():
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            assert b"agent.sources.bpf.compiler" not in command
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
        assert "libbcc" not in maps
        assert "LLVM" not in maps

    @pytest.mark.parametrize("end", ["close", "kill -9"])
    def test_with_its_last_descriptor_every_program_is_gone(self, end: str) -> None:
        with subprocess.Popen(
            [sys.executable, "-m", "tests.bpf_holder"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
        ) as holder:
            assert holder.stdout is not None
            said = json.loads(holder.stdout.readline())
            assert said["status"] == "ready", said
            mine = program_ids(holder.pid)
            most = len(WITNESS.probes)
            assert most - len(WITNESS.optional) <= len(mine) <= most
            assert programs_there(mine) == mine
            if end == "close":
                holder.communicate("end\n", timeout=60)
                assert holder.returncode == 0
            else:
                holder.kill()
                holder.wait(timeout=60)
        wait_until(lambda: not programs_there(mine), "bpftool shows none of them", timeout_s=30)
        print(f"\nresident {said['rss_kb']} KB with the probes, {said['bare_kb']} KB before")


def _remove(directory: Path) -> bool:
    try:
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        time.sleep(0.05)
        return False
    return True
