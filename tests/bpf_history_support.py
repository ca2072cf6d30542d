"""What the cases of the witness share: probes of their own, and processes that end unreaped."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from agent.clock import SystemClock
from agent.model.bpf import BpfView, CgroupEvents
from agent.sources.bpf import witness as bpf
from agent.sources.bpf.loader import Probes
from agent.sources.bpf.programs import Order
from agent.sources.bpf.startup import Startup
from agent.sources.cgroup import reader
from tests.bpf_cases import KEPT
from tests.bpf_support import identifying_root
from tests.containers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from agent.model.process import ProcessKey

PAGE = os.sysconf("SC_PAGE_SIZE")


def order(*macros: str) -> Order:
    return Order("witness", str(reader.detect().hierarchy), macros=macros)


@contextmanager
def loaded(one: Order) -> Iterator[Probes]:
    """Probes from a compile of their own; BCC stays in its own process."""
    startup = Startup(one)
    try:
        probes = wait_until(startup.poll, "the probes are there", timeout_s=300)
        assert isinstance(probes, Probes)
        try:
            yield probes
        finally:
            probes.close()
    finally:
        startup.close()


@contextmanager
def cgroup(name: str) -> Iterator[Path]:
    """A directory where containers are told apart, empty and gone at the end."""
    directory = identifying_root() / f"so1-test-{name}-{os.getpid()}"
    directory.mkdir()
    try:
        yield directory
    finally:
        if directory.exists():
            wait_until(lambda: _is_removed(directory), "the cgroup is empty")


def _is_removed(directory: Path) -> bool:
    with suppress(OSError):
        directory.rmdir()
    return not directory.exists()


def move(pid: int, to: Path) -> None:
    (to / "cgroup.procs").write_text(str(pid), encoding="ascii")


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]


def threads_cpu_ns(pid: int) -> int:
    """What the living threads of a process have run."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(one.read_text(encoding="ascii").split()[0]) for one in threads)


def in_all(view: BpfView, directory: Path) -> CgroupEvents:
    return view.totals.get(directory.stat().st_ino, CgroupEvents())


@contextmanager
def ended_unreaped(burn_s: float, directory: Path) -> Iterator[int]:
    """A child that burned its CPU in `directory` and is a zombie; reaped at the end."""
    pid = os.fork()
    if pid == 0:
        status = 1
        with suppress(OSError):
            move(os.getpid(), directory)
            until = time.process_time() + burn_s
            while time.process_time() < until:
                pass
            status = 0
        os._exit(status)
    try:
        wait_until(lambda: state(pid) == "Z", "the child has ended")
        yield pid
    finally:
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)


def is_freed(witness: bpf.Witness, key: ProcessKey) -> bool:
    """Whether its record is gone; wakes every CPU, which an idle one's grace period waits for."""
    for cpu in os.sched_getaffinity(0):
        subprocess.run(["taskset", "-c", str(cpu), "true"], check=True)
    return key not in witness.witness().cgroup_ids


def collect(witness: bpf.Witness, pid: int) -> list[bpf.ProcessExit]:
    """All exits up to that of `pid`."""
    found: list[bpf.ProcessExit] = []

    def is_there() -> bool:
        found.extend(witness.witness().exits)
        return any(one.key.pid == pid for one in found)

    wait_until(is_there, "its exit is given")
    return found


def own_witness() -> AbstractContextManager[bpf.Witness]:
    """Probes beside the module's, of the same programs."""
    return ready(bpf.Witness.start(reader.detect().hierarchy, SystemClock(), directory=KEPT))


@contextmanager
def ready(one: bpf.Witness) -> Iterator[bpf.Witness]:
    """`one` once its probes are there; closed at the end."""
    try:
        wait_until(lambda: one.poll().status != "starting", "the probes are there", timeout_s=300)
        assert one.state.status == "ready", one.state
        yield one
    finally:
        one.close()
