"""`agent bpf trace` and `agent bpf check` as their user runs them, against what was done.

Collected through a subclass that gives `image`; natively where the kernel has BPF, and in guests.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
import uuid
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import containers
from tests.agent_process import PROJECT
from tests.bpf_support import Storm, lying, storm
from tests.bpf_trace_support import command, run, tracing
from tests.containers import docker, in_lab, wait_until
from tests.other_user import need_readable_checkout

EACH = 1000
KINDS = ("fork", "exec", "exit", "attach", "mkdir", "rmdir", "oom", "lost", "end")


def _program_at(place: Path, length: int) -> str:
    """A program whose absolute path is so many characters long."""
    directory = place / str(length)
    directory.mkdir()
    path = str(directory)
    with ExitStack() as stack:
        # Each step from the one before: a path of more than 4,095 characters is refused.
        at = os.open(path, os.O_RDONLY)
        stack.callback(os.close, at)
        while (left := length - len(path) - 1) > 255:
            part = "d" * min(200, left - 10)
            os.mkdir(part, dir_fd=at)
            at = os.open(part, os.O_RDONLY, dir_fd=at)
            stack.callback(os.close, at)
            path += "/" + part
        name = "p" * left
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT, 0o755, dir_fd=at)
        with os.fdopen(descriptor, "wb") as file:
            file.write(Path("/bin/true").read_bytes())
    path += "/" + name
    assert len(path) == length
    return path


def jq() -> tuple[str, ...]:
    return ("jq", "--compact-output", "--unbuffered", ".") if shutil.which("jq") else ("cat",)


class BpfCommandCases:
    """What people see of the second witness."""

    def test_a_trace_under_load_is_whole_and_in_order_and_says_what_it_lost(
        self, tmp_path: Path, storms: list[Storm]
    ) -> None:
        with tracing(tmp_path, "--json", through=jq()) as trace:
            began = time.monotonic()
            for one, what in zip(storms, ("fork", "exec", "fork"), strict=True):
                one.begin(what, EACH)
            for one in storms:
                one.finish()
            took = time.monotonic() - began
            time.sleep(0)  # nothing to wait for: the last round comes after the signal
            assert trace.interrupt() == 0
            records = trace.records()
        assert {one["event"] for one in records} <= set(KINDS)
        end = records[-1]
        assert end["event"] == "end"
        assert end["events"] == len([one for one in records if one["event"] not in ("end", "lost")])
        assert end["lost"] == sum(one["lost"] for one in records if one["event"] == "lost")
        times = [one["time_ns"] for one in records if one["event"] not in ("end", "lost")]
        assert times == sorted(times)
        counted: Counter[tuple[str, str]] = Counter(
            (one["container_id"], one["event"]) for one in records if "container_id" in one
        )
        missing = 0
        for one, what in zip(storms, ("fork", "exec", "fork"), strict=True):
            wanted = {"fork": EACH, "exit": EACH, "exec": EACH if what == "exec" else 0}
            for event, number in wanted.items():
                missing += number - counted[one.container, event]
                assert counted[one.container, event] <= number
        assert missing <= end["lost"]
        born: dict[tuple[int, int], int] = {}
        mine = {one.container for one in storms}
        for place, record in enumerate(records):
            key = (record.get("pid", 0), record.get("start_ns", 0))
            if record.get("container_id") in mine:
                if record["event"] == "fork":
                    born[key] = place
                elif record["event"] == "exit" and end["lost"] == 0:
                    assert born.pop(key) < place
        print(f"\n{end['events']} events in {took:.1f} s, {end['lost']} lost")

    def test_a_reader_that_cannot_keep_up_is_told_at_once_what_it_lost(
        self, tmp_path: Path, storms: list[Storm]
    ) -> None:
        if containers.in_lab():
            pytest.skip("a buffer full of events takes minutes under emulation: run natively")
        with tracing(tmp_path, "--json", "--event", "fork,exit", through=("cat",)) as trace:
            assert trace.sink is not None
            trace.sink.send_signal(signal.SIGSTOP)
            for one in storms:
                one.begin("fork", 20_000)
            for one in storms:
                one.finish()
            trace.sink.send_signal(signal.SIGCONT)
            trace.wait_for("a line that tells of the loss", ("event", "lost"))
            assert trace.interrupt() == 0
            records = trace.records()
        mine = {one.container for one in storms}
        shown = sum(one.get("container_id") in mine for one in records)
        lost = records[-1]["lost"]
        assert lost > 0
        assert sum(one["lost"] for one in records[:-1] if one["event"] == "lost") == lost
        assert 120_000 - shown <= lost

    def test_a_containers_first_event_has_its_name_and_a_new_name_is_used_from_then_on(
        self, tmp_path: Path, boxes: containers.Containers, image: str, program: Path
    ) -> None:
        name = f"so1-trace-{os.getpid()}"
        with tracing(tmp_path, "--json", "--container", name) as trace:
            with storm(boxes, image, program, "--name", name) as one:
                one.do("fork", 3)
                trace.wait_for("its events", ("event", "exit"), ("container", name))
                docker("rename", one.container, f"{name}-new")
                one.do("fork", 1)
                assert trace.process.poll() is None
            assert trace.interrupt() == 0
            records = trace.records()[:-1]
        assert records[0]["event"] == "mkdir"
        assert {one["container"] for one in records} == {name}
        with tracing(tmp_path, "--json") as trace, storm(boxes, image, program) as one:
            one.do("fork", 1)
            docker("rename", one.container, f"{name}-late")

            def renamed() -> bool:
                one.do("fork", 1)
                return any(line.get("container") == f"{name}-late" for line in trace.records())

            wait_until(renamed, "the new name", timeout_s=60)
            assert trace.interrupt() == 0

    def test_filters_show_what_they_name_and_nothing_else(
        self, tmp_path: Path, storms: list[Storm]
    ) -> None:
        one, other = storms[0], storms[1]
        with tracing(
            tmp_path, "--json", "--container", one.container[:12], "--event", "exec"
        ) as trace:
            one.do("exec", 5)
            other.do("exec", 5)
            assert trace.interrupt() == 0
            records = trace.records()[:-1]
        assert [line["event"] for line in records] == ["exec"] * 5
        assert {line["container_id"] for line in records} == {one.container}
        assert {line["detail"] for line in records} == {"/storm/storm"}
        with tracing(tmp_path, "--json", "--pid", str(one.pid)) as trace:
            one.do("fork", 5)
            other.do("fork", 5)
            assert trace.interrupt() == 0
            records = trace.records()[:-1]
        assert Counter(line["event"] for line in records if "pid" in line) == {
            "fork": 5,
            "exit": 5,
        }
        assert {line["ppid"] for line in records if "pid" in line} == {one.pid}
        with tracing(tmp_path, "--json", "--comm", "so1-none") as trace:
            one.do("fork", 5)
            assert trace.interrupt() == 0
            assert [line["event"] for line in trace.records()] == ["end"]

    @pytest.mark.parametrize("as_json", [True, False], ids=["json", "lines"])
    def test_a_path_is_shown_whole_however_long(self, tmp_path: Path, as_json: bool) -> None:
        lengths = (79, 80, 112, 3000, 4095)
        paths = [_program_at(tmp_path, length) for length in lengths]
        words = ("--event", "exec", *(("--json",) if as_json else ()))
        with tracing(tmp_path, *words) as trace:
            for path in paths:
                subprocess.run([path], stdin=subprocess.DEVNULL, check=True)
            assert trace.interrupt() == 0
            lines = trace.lines
            events = trace.records()[:-1] if as_json else []
        if as_json:
            shown = {line["detail"] for line in events}
            assert not any("cut" in line for line in events)
        else:
            shown = {line.split()[-1] for line in lines}
        assert [len(path) for path in paths if path not in shown] == []

    def test_a_directory_of_a_long_name_is_shown_whole(
        self, tmp_path: Path, storms: list[Storm]
    ) -> None:
        name = f"so1-test-{uuid.uuid4().hex}-" + "n" * 200
        place = storms[0].cgroup / name
        with tracing(tmp_path, "--json", "--event", "mkdir,rmdir") as trace:
            place.mkdir()
            place.rmdir()
            assert trace.interrupt() == 0
            events = trace.records()[:-1]
        assert [one["event"] for one in events if one["detail"] == name] == ["mkdir", "rmdir"]

    def test_an_exit_tells_its_status_and_a_kill_its_signal(self, tmp_path: Path) -> None:
        with tracing(tmp_path, "--json", "--event", "exit", "--comm", "sh") as trace:
            quick = subprocess.Popen(["sh", "-c", "exit 3"])
            quick.wait()
            killed = subprocess.Popen(["sh", "-c", "kill -9 $$"])
            killed.wait()
            assert trace.interrupt() == 0
            records = {line["pid"]: line for line in trace.records()[:-1]}
        assert records[quick.pid]["exit_code"] == 3
        assert records[killed.pid]["signal"] == 9
        assert "SIGKILL" in records[killed.pid]["detail"]

    @pytest.mark.oom_kill
    def test_a_move_and_an_oom_kill_are_shown(
        self, tmp_path: Path, boxes: containers.Containers, image: str, program: Path
    ) -> None:
        sleeper = subprocess.Popen(["sleep", "600"])
        options = ("--memory=32m", "--memory-swap=32m")
        try:
            with (
                tracing(tmp_path, "--json") as trace,
                storm(boxes, image, program, *options) as one,
            ):
                (one.cgroup / "cgroup.procs").write_text(str(sleeper.pid), encoding="ascii")
                one.do("eat", 200)
                assert trace.interrupt() == 0
                records = trace.records()
        finally:
            sleeper.kill()
            sleeper.wait()
        moved = [line for line in records if line["event"] == "attach"]
        assert [line["container_id"] for line in moved if line["pid"] == sleeper.pid] == [
            one.container
        ]
        killed = [line for line in records if line["event"] == "exit" and line.get("oom")]
        assert [line["container_id"] for line in killed] == [one.container]
        victims = [line["pid"] for line in records if line["event"] == "oom"]
        assert victims == [line["pid"] for line in killed]

    def test_in_a_pipe_lines_are_plain_columns_and_a_closed_pipe_ends_it(
        self, tmp_path: Path, storms: list[Storm]
    ) -> None:
        with tracing(tmp_path, through=("head", "-n", "3")) as trace:
            storms[0].do("exec", 5)
            assert trace.process.wait(60) == 141
            assert "Traceback" not in trace.said
            head, *lines = trace.lines
        assert head.split() == ["TIME", "EVENT", "PID", "PPID", "COMM", "CONTAINER", "DETAIL"]
        assert len(lines) == 2
        for line in lines:
            assert re.match(r"\d\d:\d\d:\d\d\.\d{3} [a-z]+ +[\d-]+ +[\d-]+ ", line), line
            assert "\x1b" not in line

    def test_ctrl_c_ends_it_with_the_totals_and_so_does_its_duration(
        self, tmp_path: Path, storms: list[Storm]
    ) -> None:
        with tracing(tmp_path) as trace:
            storms[0].do("fork", 1)
            assert trace.interrupt(timeout_s=20) == 0
            assert re.search(r"\d+ events shown, \d+ lost", trace.said)
        with tracing(tmp_path, "--duration", "1") as trace:
            assert trace.process.wait(60) == 0

    def test_check_agrees_on_every_process_of_every_container(self, storms: list[Storm]) -> None:
        docker("exec", "-d", storms[0].container, "/storm/storm", "serve", "/ctl")
        wait_until(lambda: len(containers.pids_of(storms[0].container)) == 2, "the exec'd process")
        done = run("check", "--json")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        for one in storms:
            rows = [row for row in told["rows"] if row["container_id"] == one.container]
            assert {row["pid"] for row in rows} == containers.pids_of(one.container)
            assert {(row["verified"], row["basis"]) for row in rows} == {("agree", "cgroup")}
            assert {row["bpf_cgroup"] for row in rows} == {one.cgroup_id}
        text = run("check")
        assert text.returncode == 0
        assert "0 conflict" in text.stdout

    def test_check_agrees_from_inside_a_time_namespace_too(self, storms: list[Storm]) -> None:
        words = ["unshare", "--time", "--boottime", "86400", "--fork"]
        if subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
            pytest.skip("needs time namespaces (CONFIG_TIME_NS)")
        done = subprocess.run(
            [*words, *command("check", "--json")],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, cwd=PROJECT,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        rows = json.loads(done.stdout)["rows"]
        for one in storms:
            mine = [row for row in rows if row["container_id"] == one.container]
            assert {row["pid"] for row in mine} == containers.pids_of(one.container)
            assert {row["verified"] for row in mine} == {"agree"}

    def test_check_ends_with_status_1_where_the_witnesses_disagree(
        self, tmp_path: Path, storms: list[Storm]
    ) -> None:
        lies = tmp_path / "lies"
        lies.write_text(f"{storms[0].pid} {storms[1].cgroup_id}\n", encoding="ascii")
        done = run("check", "--json", env=lying(lies))
        assert done.returncode == 1, done.stderr
        rows = {row["pid"]: row for row in json.loads(done.stdout)["rows"]}
        assert rows[storms[0].pid]["verified"] == "conflict"
        assert rows[storms[0].pid]["bpf_container"] == storms[1].container
        assert rows[storms[1].pid]["verified"] == "agree"

    def test_the_canary_finds_everything_right_and_leaves_nothing(self) -> None:
        done = run("check", "--canary", "--json", timeout_s=600)
        assert done.returncode == 0, done.stdout + done.stderr
        told = json.loads(done.stdout)
        assert told["right"] is True
        by_name = {line["what"]: line for line in told["lines"]}
        assert by_name["children ended"]["measured"] == 1000
        assert by_name["events lost"]["measured"] == 0
        assert not docker("ps", "-aq", "--filter", "label=so1.canary")
        assert not docker("image", "ls", "-q", "so1-canary")
        print(f"\n{os.uname().release}")
        for line in told["lines"]:
            error = "" if line["error"] is None else f" {100 * line['error']:+.2f}%"
            print(f"{line['what']}: {line['asked']} {line['measured']:.3f} {line['unit']}{error}")

    def test_without_root_it_says_so_in_a_sentence(self) -> None:
        if not in_lab():  # there the installed agent runs
            need_readable_checkout()
        done = subprocess.run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command("check")],
            capture_output=True,
            text=True,
            cwd="/",
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
        )
        assert done.returncode == 3, done.stderr
        assert "needs root" in done.stderr

    def test_without_bcc_it_says_what_to_install(self, tmp_path: Path) -> None:
        places = [
            path for path in Path("/usr/lib/python3/dist-packages").glob("bcc") if path.is_dir()
        ]
        assert places
        hidden = f'mount --bind "$1" {places[0]} && shift && exec "$@"'
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", hidden, "sh", str(tmp_path), *command("check")],
            capture_output=True,
            text=True,
            cwd=PROJECT,
        )
        assert done.returncode != 0
        assert "python3-bpfcc" in done.stderr
        assert "Traceback" not in done.stderr
