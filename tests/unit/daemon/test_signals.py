"""Signals that mean «stop»: what the handler may do, and what wakes who waits."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from agent.daemon.signals import RELOAD, Stopper

LONG_S = 600.0
"""No test waits so long: it is woken, or it fails by its own time limit."""


def test_a_reload_is_taken_once_and_stops_nothing() -> None:
    stopper = Stopper()
    with stopper.installed():
        assert not stopper.take_reload()
        signal.raise_signal(RELOAD)
        signal.raise_signal(RELOAD)
        stopper.wait(0)
        assert [stopper.take_reload(), stopper.take_reload()] == [True, False]
        assert not stopper.stopping


def test_a_handler_waits_for_no_lock_that_the_stopper_has() -> None:
    """It runs between two instructions of a thread that may hold any of them."""
    stopper = Stopper()
    for value in vars(stopper).values():
        for lock in (value, getattr(value, "_cond", None), getattr(value, "_lock", None)):
            if lock is not None and hasattr(lock, "acquire"):
                lock.acquire()
    handler = threading.Thread(target=stopper.handle, args=(signal.SIGTERM, None), daemon=True)
    handler.start()
    handler.join(30)
    assert not handler.is_alive()
    assert stopper.stopping


def test_a_handler_raises_nothing_though_the_pipe_is_full() -> None:
    stopper = Stopper()
    for _ in range(100_000):
        stopper.handle(signal.SIGTERM, None)
    assert stopper.asked == 100_000
    stopper.wait(LONG_S)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_real_signal_ends_a_wait_whichever_thread_the_kernel_gives_it_to(
    number: signal.Signals,
) -> None:
    stopper = Stopper()
    with stopper.installed():
        threading.Timer(0.05, os.kill, (os.getpid(), number)).start()
        while not stopper.stopping:
            stopper.wait(LONG_S)
    assert stopper.asked == 1


def test_a_signal_before_the_wait_is_not_slept_through() -> None:
    stopper = Stopper()
    with stopper.installed():
        signal.raise_signal(signal.SIGTERM)
        stopper.wait(LONG_S)
    assert stopper.stopping


def test_a_signal_whose_handler_has_not_run_yet_ends_the_wait_too() -> None:
    """The interpreter notes a signal at once and runs the handler between two instructions: a wait
    that begins in between would have nothing to wake it but what the interpreter itself writes."""
    stopper = Stopper()
    ran: list[int] = []
    stopper.handle = lambda number, frame: ran.append(number)  # type: ignore[method-assign]
    with stopper.installed():
        signal.raise_signal(signal.SIGTERM)
        # The handler above writes nothing, and yet there is something to wake a wait.
        assert select.select([stopper._read_fd], [], [], 0)[0] == [stopper._read_fd]
    assert ran == [signal.SIGTERM]


def test_a_wake_from_any_thread_ends_the_wait_under_way_or_the_next_one() -> None:
    stopper = Stopper()
    threading.Timer(0.05, stopper.wake).start()
    stopper.wait(LONG_S)
    stopper.wake()
    stopper.wake()
    stopper.wait(LONG_S)
    began = time.monotonic()
    stopper.wait(0.05)  # both wakes are used up
    assert time.monotonic() - began >= 0.05
    assert not stopper.stopping


def test_a_descriptor_that_becomes_readable_ends_the_wait() -> None:
    stopper = Stopper()
    read, write = os.pipe()
    threading.Timer(0.05, os.write, (write, b"x")).start()
    stopper.wait(LONG_S, read)
    os.close(read)
    os.close(write)


def test_the_handlers_and_the_interpreter_s_pipe_of_before_come_back() -> None:
    def before(number: int, frame: Any) -> None:
        raise AssertionError

    old = signal.signal(signal.SIGTERM, before)
    try:
        with Stopper().installed():
            assert signal.getsignal(signal.SIGTERM) is not before
        assert signal.getsignal(signal.SIGTERM) is before
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        signal.signal(signal.SIGTERM, old)


def test_a_stopper_that_nobody_has_any_more_leaves_no_descriptor_open() -> None:
    count = len(list(Path("/proc/self/fd").iterdir()))
    stopper = Stopper()
    assert len(list(Path("/proc/self/fd").iterdir())) == count + 2
    del stopper
    assert len(list(Path("/proc/self/fd").iterdir())) == count


def test_something_exceptional_ends_a_wait_and_ordinary_data_does_not() -> None:
    """As a trigger of memory pressure does: POLLPRI."""
    stopper = Stopper()
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as sender,
        server.accept()[0] as receiver,
    ):
        sender.send(b"ordinary")
        assert stopper.wait(0.05, urgent=(receiver.fileno(),)) == frozenset()
        sender.send(b"!", socket.MSG_OOB)
        assert stopper.wait(LONG_S, urgent=(receiver.fileno(),)) == {receiver.fileno()}
        stopper.wake()
        assert stopper.fileno() in stopper.wait(LONG_S)
