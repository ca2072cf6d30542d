"""That the witness has a history of its own, loses nothing unseen, and counts nothing twice.

The same cases run natively and in the guests. What the kernel cannot be made to do on request, an
event that comes late or never, is done by attaching a program later than the others.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.sources.bpf import loader
from agent.sources.bpf import witness as bpf
from agent.sources.bpf.exits import Exits
from agent.sources.bpf.loader import read_counters
from agent.sources.bpf.syscall import attach_tracepoint, possible_cpus
from tests.bpf_cases import children_cpu_ns, events, key_of, settled
from tests.bpf_history_support import (
    PAGE,
    cgroup,
    collect,
    ended_unreaped,
    in_all,
    is_freed,
    loaded,
    move,
    order,
    own_witness,
    threads_cpu_ns,
)
from tests.bpf_support import Storm, storm
from tests.containers import wait_until

if TYPE_CHECKING:
    from agent.sources.bpf.programs import Program
    from agent.sources.bpf.records import CpuCounters
    from tests import containers

_attach_at_once = loader._attach

BURNER = """
import threading, time
def burn():
    until = time.thread_time() + 1.0
    while time.thread_time() < until: pass
    print("burnt", flush=True)
    forever.wait()
forever = threading.Event()
threading.Thread(target=burn, daemon=True).start()
input()
"""


@pytest.mark.usefixtures("witness")
class BpfHistoryCases:
    """Beside the module's probes, some cases load probes of their own."""

    def test_what_living_threads_spent_before_a_move_is_not_the_destinations(
        self, witness: bpf.Witness, storms: list[Storm]
    ) -> None:
        there = storms[0]
        before = settled(witness)
        with subprocess.Popen(
            [sys.executable, "-I", "-c", BURNER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as burner:
            assert burner.stdout is not None
            assert burner.stdout.readline() == "burnt\n"
            elsewhere_ns = threads_cpu_ns(burner.pid)
            move(burner.pid, there.cgroup)
            reaped_ns = children_cpu_ns()
            burner.communicate("\n")
        in_all_ns = children_cpu_ns() - reaped_ns
        told = events(settled(witness), there).since(events(before, there))
        assert elsewhere_ns > 1e9
        assert told.exits == 1
        # What it ran there is the interpreter's end: half a second where it is emulated.
        assert told.cpu_exited_ns == pytest.approx(in_all_ns - elsewhere_ns, rel=0.2, abs=0.05e9)

    def test_an_exec_amid_a_move_leaves_the_move_to_its_event(
        self, monkeypatch: pytest.MonkeyPatch, storms: list[Storm]
    ) -> None:
        """The kernel sets the pointer, a program is executed, and only then the event comes."""
        here, there = storms[0], storms[1]
        held: list[int] = []

        def attach_later(program: Program, fd: int) -> int:
            return os.dup(fd) if program.function == "on_attach" else _attach_at_once(program, fd)

        monkeypatch.setattr(loader, "_attach", attach_later)
        with ExitStack() as stack:
            one = stack.enter_context(own_witness())
            assert one.probes is not None
            shell = subprocess.Popen(
                ["sh", "-c", "read line; exec sh -c 'echo there; read line'"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            stack.callback(shell.wait)
            stack.callback(shell.kill)
            assert shell.stdin is not None
            assert shell.stdout is not None
            # The first move is told by nobody.
            born = one.witness().cgroup_ids[key_of(one.witness(), shell.pid)]
            move(shell.pid, there.cgroup)
            shell.stdin.write(b"\n")
            shell.stdin.flush()
            assert shell.stdout.readline() == b"there\n"
            view = one.witness()
            key = key_of(view, shell.pid)
            assert view.cgroup_ids[key] == born
            assert view.pointer_ids[key] == there.cgroup_id
            assert view.corrected >= 1  # others on the host may be moved meanwhile
            assert view.lost == 0
            held.append(attach_tracepoint(one.probes.programs["on_attach"], ""))
            stack.callback(os.close, held[0])
            move(shell.pid, there.cgroup)
            after = one.witness()
            assert after.cgroup_ids[key] == there.cgroup_id
            assert key not in after.pointer_ids
            told = events(after, there).since(events(view, there))
            assert (told.moved_in, told.execs) == (1, 0)
            left = after.totals[born].since(view.totals[born])
            assert left.moved_out == 1
            assert left.cpu_ended_ns > 0
            assert here.cgroup_id != there.cgroup_id

    def test_a_child_starts_where_its_parent_is_by_record_and_not_by_pointer(
        self, monkeypatch: pytest.MonkeyPatch, storms: list[Storm]
    ) -> None:
        def attach_never(program: Program, fd: int) -> int:
            return os.dup(fd) if program.function == "on_attach" else _attach_at_once(program, fd)

        monkeypatch.setattr(loader, "_attach", attach_never)
        with own_witness() as one:
            shell = subprocess.Popen(
                ["sh", "-c", "read line; sleep 600 & echo $!; read line; kill $!"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            try:
                assert shell.stdin is not None
                assert shell.stdout is not None
                born = one.witness().cgroup_ids[key_of(one.witness(), shell.pid)]
                move(shell.pid, storms[0].cgroup)
                shell.stdin.write(b"\n")
                shell.stdin.flush()
                child = int(shell.stdout.readline())
                view = one.witness()
                key = key_of(view, child)
                assert view.cgroup_ids[key] == born
                assert view.pointer_ids[key] == storms[0].cgroup_id
                assert view.corrected >= 1
                assert view.lost == 0
            finally:
                shell.communicate(b"\n")

    def test_a_zombie_that_is_moved_stays_where_it_ended(
        self, witness: bpf.Witness, storms: list[Storm]
    ) -> None:
        """The kernel tells of a move and does not make it: what is ending is left out."""
        with cgroup("ended") as directory, ended_unreaped(0.0, directory) as pid:
            before = witness.witness()
            (key,) = (one for one in before.cgroup_ids if one.pid == pid)
            move(pid, storms[0].cgroup)
            after = witness.witness()
            assert after.cgroup_ids[key] == directory.stat().st_ino
            assert events(after, storms[0]) == events(before, storms[0])

    def test_a_zombies_cpu_is_counted_at_its_end_and_not_again_when_it_is_reaped(
        self, witness: bpf.Witness
    ) -> None:
        reaped_ns = children_cpu_ns()
        with cgroup("burnt") as directory:
            with ended_unreaped(0.3, directory) as pid:
                view = settled(witness)
                (key,) = (one for one in view.cgroup_ids if one.pid == pid)
                told = in_all(view, directory)
                assert told.exits == 1
                assert told.cpu_exited_ns > 290e6
                assert key in view.settled
            in_all_ns = children_cpu_ns() - reaped_ns
            assert told.cpu_exited_ns <= 1.02 * in_all_ns + 5e6
            wait_until(lambda: is_freed(witness, key), "the kernel has freed it", timeout_s=120)
            assert in_all(witness.witness(), directory) == told

    def test_a_cgroup_removed_with_a_zombie_inside_does_not_come_back(
        self, witness: bpf.Witness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(bpf, "_KEEP_GONE_NS", 0)
        with cgroup("left") as directory:
            identity = directory.stat().st_ino
            with ended_unreaped(0.0, directory) as pid:
                (key,) = (one for one in witness.witness().cgroup_ids if one.pid == pid)
                directory.rmdir()
                wait_until(lambda: identity in witness.witness().gone, "its end is told")
                wait_until(lambda: identity not in witness.witness().totals, "it is swept")
            wait_until(lambda: is_freed(witness, key), "the kernel has freed it", timeout_s=120)
            assert identity not in witness.witness().totals

    def test_a_storm_on_a_healthy_host_loses_nothing_though_some_frees_may_never_be_told(
        self, witness: bpf.Witness, storms: list[Storm], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(bpf, "_LATE_NS", 10**9)
        before = settled(witness)
        storms[0].do("fork", 3000)
        after = settled(witness)
        dead = [key for key in after.settled if not Path(f"/proc/{key.pid}").exists()]

        def is_cleared() -> bool:
            there = witness.witness().cgroup_ids
            return not any(key in there for key in dead)

        wait_until(is_cleared, "all of them are freed or given up", timeout_s=120, pause_s=0.5)
        end = witness.witness()
        print(f"\n{end.late - before.late} late, {end.lost - before.lost} lost")
        assert (end.lost, end.missed) == (before.lost, before.missed)
        told = events(end, storms[0]).since(events(before, storms[0]))
        assert (told.forks, told.exits) == (3000, 3000)

    def test_every_exit_is_given_live_with_its_names_its_status_and_its_cost(
        self, witness: bpf.Witness, storms: list[Storm]
    ) -> None:
        settled(witness)
        script = "(exec -a named sh -c 'i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; exit 3')"
        shell = subprocess.Popen(["bash", "-c", f"read line; {script}; exit 0"], stdin=-1)
        move(shell.pid, storms[0].cgroup)
        reaped = children_cpu_ns()
        shell.communicate(b"\n")
        spent = children_cpu_ns() - reaped
        found = {one.key.pid: one for one in collect(witness, shell.pid)}
        parent = found[shell.pid]
        (child,) = (one for one in found.values() if one.parent.pid == shell.pid)
        assert (parent.comm, child.parent_comm) == ("bash", "bash")
        assert child.comm == "sh"
        assert (parent.exit_code, child.exit_code) == (0, 3 << 8)
        assert {parent.cgroup_id, child.cgroup_id} == {storms[0].cgroup_id}
        assert parent.cpu_ns + child.cpu_ns == pytest.approx(spent, rel=0.2)
        assert parent.charged_ns < parent.cpu_ns
        assert child.charged_ns == child.cpu_ns
        assert child.max_rss_kb > 500
        assert parent.parent.pid == os.getpid()

    def test_records_of_exits_that_found_no_room_are_counted_to_the_last_one(
        self, boxes: containers.Containers, image: str, program: Path
    ) -> None:
        with loaded(order("-UEXIT_PAGES", "-DEXIT_PAGES=1")) as probes:
            exits = Exits(probes.maps["exits"].fd, PAGE)
            cpus = possible_cpus()

            def counters() -> list[CpuCounters]:
                return read_counters(probes.maps["counters"], cpus)

            with storm(boxes, image, program) as one:
                one.do("fork", 1000)
                got = len(exits.read(counters()))
                exits.read(counters())
            exits.read(counters())
            told = sum(each.exits for each in counters())
            got += len(exits.read(counters()))
            assert got < 1000 < told
            assert exits.lost >= 1000 - got
            exits.close()

    def test_a_process_without_room_is_lost_once_and_not_again_at_its_exec_or_a_move(
        self,
        boxes: containers.Containers,
        image: str,
        program: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(loader, "_look", lambda *_: (0, 0, 0))
        small = ("-USLOTS", "-DSLOTS=1", "-USLOT_BLOCK", "-DSLOT_BLOCK=1")
        with (
            storm(boxes, image, program) as one,
            loaded(order(*small, "-USPILLED", "-DSPILLED=1")) as probes,
        ):
            cpus = possible_cpus()

            def lost() -> int:
                counted = read_counters(probes.maps["counters"], cpus)
                return sum(each.lost_processes for each in counted)

            def forks() -> int:
                cgroups_of = bpf._read_cgroups(probes.maps["cgroups"])[0]
                return sum(each.forks for each in cgroups_of.values())

            with ExitStack() as stack:
                for _ in range(3):  # they have the only places there are
                    sleeper = stack.enter_context(subprocess.Popen(["sleep", "600"]))
                    stack.callback(sleeper.kill)
                # Others on the host are born, lost, or have a place meanwhile as well: births are
                # counted from before to after the losses.
                born = forks()
                before = lost()
                one.do("exec", 300)
                here, there = (stack.enter_context(cgroup(name)) for name in ("here", "there"))
                moved = stack.enter_context(subprocess.Popen(["sleep", "600"]))
                stack.callback(moved.kill)
                for _ in range(100):
                    move(moved.pid, here)
                    move(moved.pid, there)
                assert 0 < lost() - before <= forks() - born
