"""One agent and one generator a host, and what a hostile or leftover file in their place does."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from agent.daemon.lock import (
    CLEANUP,
    AgentLock,
    GeneratorLock,
    Holder,
    agent_is_running,
    holder,
    holder_pid,
    named_holder,
    signal_agent,
    signal_holder,
)
from agent.errors import AgentError, LockedError, PrivilegeError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOLD = """
import fcntl, os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(fd, fcntl.LOCK_EX)
os.pwrite(fd, b'{"pid": %d, "started_wall_ns": 1}' % os.getpid(), 0)
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path / "run"


def open_lock(path: Path, kind: int) -> int:
    """A flock taken here, without the code under test."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(fd, kind | fcntl.LOCK_NB)
    return fd


def test_a_second_agent_is_refused_with_the_pid_of_the_first(run_dir: Path) -> None:
    with AgentLock(run_dir):
        with pytest.raises(LockedError) as caught:
            AgentLock(run_dir).acquire(wait_s=0)
        assert f"process {os.getpid()}" in caught.value.message
        assert "agent stop" in caught.value.hint
    AgentLock(run_dir).acquire(wait_s=0).release()


def test_the_lock_tells_who_runs_and_nothing_once_it_is_released(run_dir: Path) -> None:
    assert not agent_is_running(run_dir)
    before_ns = time.time_ns()
    with AgentLock(run_dir):
        assert agent_is_running(run_dir)
        found = holder(run_dir)
        assert found is not None
        assert (found.pid, holder_pid(run_dir)) == (os.getpid(), os.getpid())
        assert before_ns <= found.started_wall_ns <= time.time_ns()
    assert not agent_is_running(run_dir)
    assert holder_pid(run_dir) == 0


def test_a_starting_agent_waits_out_a_probe(run_dir: Path) -> None:
    run_dir.mkdir()
    probe = open_lock(run_dir / "agent.lock", fcntl.LOCK_SH)
    threading.Timer(0.2, os.close, (probe,)).start()
    AgentLock(run_dir).acquire().release()


def test_two_probes_at_once_do_not_take_each_other_for_an_agent(run_dir: Path) -> None:
    run_dir.mkdir()
    probe = open_lock(run_dir / "agent.lock", fcntl.LOCK_SH)
    assert not agent_is_running(run_dir)
    os.close(probe)


def test_the_lock_file_is_for_root_alone_and_stays_after_release(run_dir: Path) -> None:
    with AgentLock(run_dir):
        pass
    path = run_dir / "agent.lock"
    assert path.stat().st_mode & 0o777 == 0o600
    assert run_dir.stat().st_mode & 0o777 == 0o755
    json.loads(path.read_text())


@pytest.mark.allow_subprocess
def test_a_program_that_the_agent_starts_does_not_keep_the_lock(run_dir: Path) -> None:
    lock = AgentLock(run_dir).acquire()
    child = subprocess.Popen(["sleep", "600"], close_fds=False)
    try:
        lock.release()
        assert not agent_is_running(run_dir)
    finally:
        child.kill()
        child.wait()


@pytest.mark.allow_subprocess
def test_kill_9_leaves_no_stale_lock(run_dir: Path) -> None:
    run_dir.mkdir()
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run_dir / "agent.lock")], stdout=subprocess.PIPE
    )
    assert other.stdout is not None
    other.stdout.readline()
    assert holder_pid(run_dir) == other.pid
    other.kill()
    other.wait()
    other.stdout.close()
    with AgentLock(run_dir):
        assert holder_pid(run_dir) == os.getpid()


@pytest.mark.allow_subprocess
def test_a_stop_asks_the_generator_to_end_and_takes_its_lock(run_dir: Path) -> None:
    run_dir.mkdir()
    generator = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run_dir / "generator.lock")], stdout=subprocess.PIPE
    )
    assert generator.stdout is not None
    generator.stdout.readline()
    lock = GeneratorLock(run_dir)
    assert lock.acquire(wait_s=30)
    assert generator.wait() == -signal.SIGTERM
    generator.stdout.close()
    lock.release()


def test_a_pid_that_is_another_process_by_now_gets_no_signal(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda _fd, number: sent.append(number))
    monkeypatch.setattr(os, "kill", lambda *call: sent.append(-1))
    run_dir.mkdir()
    held = open_lock(run_dir / "generator.lock", fcntl.LOCK_EX)
    for pid, expected in ((os.getppid(), []), (os.getpid(), [signal.SIGTERM])):
        os.pwrite(held, json.dumps({"pid": pid, "started_wall_ns": 1}).encode().ljust(80), 0)
        assert not GeneratorLock(run_dir).acquire(wait_s=0)
        assert sent == expected
    os.close(held)


def record(held: int, pid: int, **more: object) -> None:
    os.ftruncate(held, 0)
    os.pwrite(held, json.dumps({"pid": pid, "started_wall_ns": 1, **more}).encode(), 0)


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with any lock."""
    with subprocess.Popen(["sleep", "600"]) as one:
        yield one
        one.kill()


@pytest.fixture
def held(run_dir: Path, stranger: subprocess.Popen[bytes]) -> int:
    """The agent's lock, which is held and names the stranger: the run before, say."""
    run_dir.mkdir()
    descriptor = open_lock(run_dir / "agent.lock", fcntl.LOCK_EX)
    record(descriptor, stranger.pid)
    return descriptor


@pytest.mark.allow_subprocess
def test_a_stop_signals_nobody_where_the_lock_names_a_process_that_does_not_hold_it(
    run_dir: Path, stranger: subprocess.Popen[bytes], held: int
) -> None:
    with pytest.raises(AgentError, match="does not say which") as caught:
        signal_agent(run_dir, signal.SIGTERM, wait_s=0.1)
    assert "fuser" in caught.value.hint
    assert holder_pid(run_dir) == 0
    os.close(held)
    assert signal_agent(run_dir, signal.SIGTERM) == 0
    # Signals come in the order of their numbers: had TERM been sent, it would be the cause.
    stranger.send_signal(signal.SIGUSR1)
    assert stranger.wait(30) == -signal.SIGUSR1


@pytest.mark.allow_subprocess
def test_a_process_that_only_looks_at_the_lock_is_not_its_holder(run_dir: Path) -> None:
    run_dir.mkdir()
    held = open_lock(run_dir / "agent.lock", fcntl.LOCK_EX)
    with (
        (run_dir / "agent.lock").open("rb") as looking,
        subprocess.Popen(["sleep", "600"], stdin=looking) as looker,
    ):
        record(held, looker.pid)
        assert holder_pid(run_dir) == 0
        assert not signal_holder(run_dir / "agent.lock", looker.pid, signal.SIGTERM)
        looker.kill()
    os.close(held)


@pytest.mark.allow_subprocess
@pytest.mark.parametrize("pid", [0, 1, -1, 1 << 70, "dead"])
def test_a_pid_that_nobody_has_is_a_sentence_and_no_traceback(
    run_dir: Path, pid: int | str
) -> None:
    if pid == "dead":
        ended = subprocess.Popen(["true"])
        ended.wait()
        pid = ended.pid
    run_dir.mkdir()
    held = open_lock(run_dir / "agent.lock", fcntl.LOCK_EX)
    record(held, int(pid))
    with pytest.raises(AgentError, match="does not say which"):
        signal_agent(run_dir, signal.SIGTERM, wait_s=0)
    os.close(held)


@pytest.mark.allow_subprocess
def test_a_stop_waits_for_a_holder_that_has_not_said_yet_who_it_is(
    run_dir: Path, stranger: subprocess.Popen[bytes]
) -> None:
    run_dir.mkdir()
    path = run_dir / "agent.lock"
    path.write_text(json.dumps({"pid": stranger.pid, "started_wall_ns": 1}))
    path.chmod(0o600)
    late = HOLD.replace(
        "os.pwrite",
        "print('locked', flush=True); sys.stdin.readline(); os.ftruncate(fd, 0); os.pwrite",
    )
    with subprocess.Popen(
        [sys.executable, "-c", late, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as agent:
        assert agent.stdout is not None
        assert agent.stdin is not None
        assert agent.stdout.readline() == b"locked\n"
        threading.Timer(0.2, agent.stdin.close).start()
        assert signal_agent(run_dir, signal.SIGTERM) == agent.pid
        assert agent.wait(30) == -signal.SIGTERM
    assert stranger.poll() is None


def test_a_stop_does_not_end_a_clean_up(run_dir: Path) -> None:
    with AgentLock(run_dir, CLEANUP):
        with pytest.raises(LockedError, match="clean") as caught:
            signal_agent(run_dir, signal.SIGTERM)
        assert str(os.getpid()) in caught.value.message
        with pytest.raises(LockedError, match="agent cleanup"):
            AgentLock(run_dir).acquire(wait_s=0)


def test_waiting_for_the_generator_can_be_given_up(run_dir: Path) -> None:
    run_dir.mkdir()
    held = open_lock(run_dir / "generator.lock", fcntl.LOCK_EX)
    asked = iter([False, False, True])
    assert not GeneratorLock(run_dir).acquire(wait_s=600, give_up=lambda: next(asked))
    os.close(held)


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"[1]", b'{"pid": "x"}', b"[" * 4000, b"\xff\xfe", b"{}"]
)
def test_what_a_lock_file_says_is_never_trusted(run_dir: Path, content: bytes) -> None:
    run_dir.mkdir()
    (run_dir / "agent.lock").write_bytes(content)
    held = open_lock(run_dir / "agent.lock", fcntl.LOCK_EX)
    assert holder_pid(run_dir) == 0
    with pytest.raises(LockedError, match=r"Another agent already runs on this host\."):
        AgentLock(run_dir).acquire(wait_s=0)
    os.close(held)


def test_a_symbolic_link_in_place_of_the_lock_is_refused(run_dir: Path, tmp_path: Path) -> None:
    run_dir.mkdir()
    target = tmp_path / "precious"
    target.write_text("keep")
    (run_dir / "agent.lock").symlink_to(target)
    with pytest.raises(AgentError, match="cannot be opened"):
        AgentLock(run_dir).acquire(wait_s=0)
    assert target.read_text() == "keep"


def test_a_fifo_in_place_of_the_lock_is_refused_without_waiting(run_dir: Path) -> None:
    run_dir.mkdir()
    os.mkfifo(run_dir / "agent.lock")
    with pytest.raises(AgentError, match="not a lock file"):
        AgentLock(run_dir).acquire(wait_s=0)


def test_a_directory_that_others_can_write_is_refused(run_dir: Path) -> None:
    run_dir.mkdir()
    run_dir.chmod(0o777)
    with pytest.raises(AgentError, match="only its owner can write"):
        AgentLock(run_dir).acquire(wait_s=0)


def test_a_link_in_place_of_the_directory_is_refused(run_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    run_dir.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AgentError, match="only its owner can write"):
        AgentLock(run_dir).acquire(wait_s=0)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_looking_for_an_agent_leaves_no_trace(run_dir: Path) -> None:
    assert not agent_is_running(run_dir)
    assert not run_dir.exists()


def test_taking_a_lock_that_is_held_already_changes_nothing(run_dir: Path) -> None:
    lock = AgentLock(run_dir).acquire(wait_s=0)
    text = lock.path.read_text()
    assert lock.acquire(wait_s=0) is lock
    assert lock.path.read_text() == text
    lock.release()
    assert not agent_is_running(run_dir)


def test_a_disk_that_takes_no_word_of_the_holder_leaves_no_lock_behind(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space left"):
            AgentLock(run_dir).acquire(wait_s=0)
    assert not agent_is_running(run_dir)
    with AgentLock(run_dir):
        assert holder_pid(run_dir) == os.getpid()


def test_a_generator_that_gets_no_signal_is_waited_for_all_the_same(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run_dir.mkdir()
    held = open_lock(run_dir / "generator.lock", fcntl.LOCK_EX)

    def refuse(path: Path, pid: int, number: int) -> bool:
        os.close(held)  # it ends by itself meanwhile
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("agent.daemon.lock.signal_holder", refuse)
    lock = GeneratorLock(run_dir)
    assert lock.acquire(wait_s=30)
    lock.release()
    assert "signal=TERM error=Operation not permitted" in caplog.text


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (PermissionError(13, "Permission denied"), PrivilegeError),
        (OSError(30, "Read-only file system"), AgentError),
    ],
)
def test_a_directory_that_cannot_be_made_is_a_sentence(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, refusal: OSError, kind: type[AgentError]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise refusal

    monkeypatch.setattr(type(run_dir), "mkdir", refuse)
    with pytest.raises(kind, match=str(refusal.strerror)) as raised:
        AgentLock(run_dir).acquire(wait_s=0)
    assert raised.value.hint


def test_a_process_that_ends_before_its_signal_got_none(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise ProcessLookupError

    with AgentLock(run_dir) as lock:
        monkeypatch.setattr(signal, "pidfd_send_signal", gone)
        assert signal_holder(lock.path, os.getpid(), signal.SIGTERM) is False


@pytest.mark.allow_subprocess
def test_nobody_is_told_to_kill_a_process_that_does_not_hold_the_lock(
    run_dir: Path, stranger: subprocess.Popen[bytes], held: int
) -> None:
    """The file names the agent of the run before, which could not keep its containers."""
    with pytest.raises(AgentError, match="does not say which") as caught:
        named_holder(run_dir, wait_s=0.1)
    assert str(stranger.pid) not in str(caught.value)
    with pytest.raises(LockedError) as refused:
        AgentLock(run_dir).acquire(wait_s=0)
    assert str(stranger.pid) not in str(refused.value)
    record(held, os.getpid(), keeps=True)
    assert named_holder(run_dir, wait_s=0) == Holder(os.getpid(), 1, keeps=True)
    os.close(held)
    assert named_holder(run_dir, wait_s=0) is None


def test_a_lock_file_is_not_to_be_removed_where_descriptors_are_short(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir.mkdir()

    def short(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "open", short)
    with pytest.raises(AgentError, match="Too many open files") as caught:
        AgentLock(run_dir).acquire(wait_s=0)
    assert caught.value.hint == ""
