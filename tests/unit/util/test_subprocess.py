"""The one door to other programs: what they are given, and how the agent gets rid of them."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.util.subprocess import (
    DISCARDED,
    CommandError,
    Finished,
    Running,
    begin,
    environment,
    find,
    kill_session,
    run,
)
from tests.containers import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.allow_subprocess

PATIENCE_S = 60.0


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def alive(pid: int) -> bool:
    """Whether the process exists and is more than a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children() -> set[int]:
    return {
        int(pid)
        for task in Path("/proc/self/task").iterdir()
        for pid in (task / "children").read_text().split()
    }


def test_status_and_output_come_back() -> None:
    done = run(["sh", "-c", "echo out; echo err >&2; exit 3"], timeout_s=PATIENCE_S, check=False)
    assert (done.status, done.stdout, done.stderr) == (3, "out\n", "err\n")


def test_a_program_sees_a_clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD_X", "evil")
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    done = run(python(code), timeout_s=PATIENCE_S, env={"SO1_X": "1"})
    assert json.loads(done.stdout) == environment({"SO1_X": "1"})
    assert json.loads(done.stdout).keys() == {"PATH", "LANG", "LC_ALL", "HOME", "SO1_X"}


def test_a_program_has_no_input_and_leads_a_session_of_its_own_below_the_root() -> None:
    code = (
        "import json, os, sys; "
        "print(json.dumps([sys.stdin.read(), os.getsid(0) == os.getpid(), os.getcwd()]))"
    )
    done = run(python(code), timeout_s=PATIENCE_S)
    assert json.loads(done.stdout) == ["", True, "/"]


def test_a_program_inherits_no_descriptor_but_those_it_is_passed(tmp_path: Path) -> None:
    code = "import os; print(*sorted(os.listdir('/proc/self/fd'), key=int))"
    with (tmp_path / "a").open("w") as passed, (tmp_path / "b").open("w") as kept:
        os.set_inheritable(kept.fileno(), True)
        done = run(python(code), timeout_s=PATIENCE_S, pass_fds=[passed.fileno()])
        found = done.stdout.split()
        # The standard ones, the passed one, and that of the listing itself, which reuses a number.
        assert found[:3] == ["0", "1", "2"]
        assert len(found) == 5
        assert str(passed.fileno()) in found


def test_output_that_is_no_text_does_not_stop_anybody() -> None:
    done = run(["printf", r"\377\376ok"], timeout_s=PATIENCE_S)
    assert done.stdout == "��ok"


def test_a_program_that_is_not_there_is_a_sentence() -> None:
    with pytest.raises(CommandError) as caught:
        run(["no-such-program-here"], timeout_s=PATIENCE_S)
    assert "no-such-program-here" in caught.value.message
    assert caught.value.hint


def test_a_failure_is_told_with_the_program_s_last_words() -> None:
    with pytest.raises(CommandError) as caught:
        run(["sh", "-c", "echo first; echo the disk is full >&2; exit 4"], timeout_s=PATIENCE_S)
    assert "status 4" in caught.value.message
    assert "the disk is full" in caught.value.message


def test_a_program_that_overruns_is_ended_with_everything_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"sleep 1000 & echo $! $$ > {pids}; trap '' TERM; sleep 1000"
    with pytest.raises(CommandError) as caught:
        run(["sh", "-c", script], timeout_s=1.0)
    assert "longer than 1 s" in caught.value.message
    started = [int(word) for word in pids.read_text().split()]
    assert len(started) == 2
    wait_until(lambda: not any(alive(pid) for pid in started), "both are gone")


def test_an_exception_in_the_middle_leaves_no_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class StopRequestedError(BaseException):
        pass

    pids = tmp_path / "pids"
    real = subprocess.Popen.communicate
    calls = []

    def interrupted(self: subprocess.Popen[bytes], *args: object, **more: object) -> object:
        calls.append(self.pid)
        if len(calls) == 1:
            wait_until(lambda: pids.exists() and pids.read_text(), "the program runs")
            raise StopRequestedError
        return real(self, *args, **more)  # type: ignore[arg-type,misc]

    monkeypatch.setattr(subprocess.Popen, "communicate", interrupted)
    with pytest.raises(StopRequestedError):
        run(["sh", "-c", f"echo $$ > {pids}; sleep 1000"], timeout_s=PATIENCE_S)
    assert not alive(int(pids.read_text()))
    assert calls[0] not in children()


@pytest.mark.parametrize(
    "words", [["true"], ["false"], ["sh", "-c", "kill -9 $$"]], ids=lambda words: words[0]
)
def test_a_program_that_ended_is_reaped(words: Sequence[str]) -> None:
    before = children()
    run(words, timeout_s=PATIENCE_S, check=False)
    assert children() == before


def test_a_program_that_a_signal_ended_has_its_negative_number() -> None:
    done = run(["sh", "-c", "kill -9 $$"], timeout_s=PATIENCE_S, check=False)
    assert done.status == -signal.SIGKILL


def test_ending_a_program_that_has_ended_is_no_error() -> None:
    process = subprocess.Popen(
        ["true"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    kill_session(process)
    kill_session(process)
    assert process.returncode is not None


@pytest.mark.parametrize(
    ("stdout", "stderr", "last"),
    [
        ("a\nb\n", "", "b"),
        ("a\n", "c\n\n  d  \n\n", "d"),
        ("", "", ""),
        ("  \n", "\n", ""),
    ],
)
def test_last_words_are_the_last_line_on_stderr_rather_than_on_stdout(
    stdout: str, stderr: str, last: str
) -> None:
    assert Finished(("x",), 1, stdout, stderr).last_line == last


def test_a_background_program_is_looked_at_and_never_waited_for(tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = f"echo begun; while [ ! -e {go} ]; do sleep 0.05; done; echo it broke >&2; exit 4"
    running = Running(["sh", "-c", script], timeout_s=PATIENCE_S)
    assert running.poll() is None
    assert select.select([running], [], [], 0)[0] == []
    go.touch()
    assert select.select([running], [], [], PATIENCE_S)[0] == [running]
    done = running.poll()
    assert done is not None
    assert (done.status, done.last_line) == (4, "it broke")
    assert running.poll() is done
    running.close()


def test_a_background_program_that_says_more_than_a_pipe_holds_ends_and_its_end_is_kept() -> None:
    running = Running(["sh", "-c", "seq 200000; echo last"], timeout_s=PATIENCE_S)
    wait_until(lambda: running.poll() is not None, "it ends")
    done = running.poll()
    assert done is not None
    assert done.last_line == "last"
    assert len(done.stderr) <= 64 << 10


@pytest.mark.parametrize("how", ["closed", "overrun"])
def test_a_background_program_is_ended_with_everything_it_started(tmp_path: Path, how: str) -> None:
    pids = tmp_path / "pids"
    before = children()
    running = Running(
        ["sh", "-c", f"sleep 1000 & echo $! $$ > {pids}; trap '' TERM; sleep 1000"],
        timeout_s=PATIENCE_S if how == "closed" else 0.0,
    )
    wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 2, "it runs")
    if how == "closed":
        running.close()
        running.close()
    else:
        with pytest.raises(CommandError, match="longer than"):
            running.poll()
    started = [int(word) for word in pids.read_text().split()]
    wait_until(lambda: not any(alive(pid) for pid in started), "both are gone")
    assert children() == before


def test_a_background_program_that_is_not_there_is_a_sentence() -> None:
    with pytest.raises(CommandError, match="no-such-program-here"):
        Running(["no-such-program-here"], timeout_s=PATIENCE_S)


def test_a_program_that_was_reaped_gets_no_signal_by_its_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process = subprocess.Popen(
        ["true"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    process.wait()
    sent: list[int] = []
    monkeypatch.setattr(os, "killpg", lambda pid, _: sent.append(pid))
    kill_session(process)
    assert sent == []


def test_a_program_that_was_begun_sees_the_clean_environment_and_no_output_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SO1_SECRET", "1")
    seen = tmp_path / "seen"
    script = f"env > {seen}; readlink /proc/self/fd/0 /proc/self/fd/1 >> {seen}"
    process = begin(
        ["sh", "-c", script], stdout=DISCARDED, stderr=DISCARDED, env={"SO1_GIVEN": "2"}
    )
    assert process.wait(PATIENCE_S) == 0
    lines = seen.read_text().splitlines()
    assert "SO1_GIVEN=2" in lines
    assert "LANG=C.UTF-8" in lines
    assert not [line for line in lines if line.startswith("SO1_SECRET")]
    assert "/dev/null" in lines


def test_a_program_is_found_by_the_path_that_it_would_be_started_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "so1-no-such-program"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find(own.name) is None
    assert find("sh") is not None


def test_a_program_that_cannot_be_watched_is_ended_and_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(pid: int) -> int:
        raise OSError(24, "Too many open files")

    before = children()
    monkeypatch.setattr(os, "pidfd_open", refuse)
    with pytest.raises(CommandError, match="cannot be watched: Too many open files"):
        Running(python("import time; time.sleep(600)"), timeout_s=PATIENCE_S)
    assert children() == before


def test_a_program_that_does_not_end_inside_the_kernel_is_left_and_reported(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = subprocess.Popen(
        python("import time; time.sleep(600)"), stdout=subprocess.PIPE, start_new_session=True
    )
    killed: list[tuple[int, int]] = []
    with monkeypatch.context() as patched:
        patched.setattr("agent.util.subprocess._KILLED_S", 0.01)
        patched.setattr(os, "killpg", lambda *words: killed.append(words))
        kill_session(process)
    assert killed == [(process.pid, signal.SIGKILL)]
    assert f"pid={process.pid} outcome=unkillable" in caplog.text
    assert process.stdout is not None
    assert process.stdout.closed
    process.kill()
    process.wait(PATIENCE_S)
