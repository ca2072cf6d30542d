"""What `/proc/PID` says of one process, parsed: for the fallback source and for first processes.

Formats are those of proc(5). A process may end between two reads: functions that read raise OSError
then (ENOENT or ESRCH), and ValueError for text that is not what the kernel writes.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Mapping
from typing import NamedTuple

from agent.clock import BOOT_OFFSET_NS

TICK_NS = 10**9 // os.sysconf("SC_CLK_TCK")
"""Times in `/proc/PID/stat` are cut to this: 10 ms everywhere that Docker runs."""

_CPUCLOCK_SCHED = 2
"""include/linux/posix-timers.h: of a process's clocks the one that the scheduler keeps. A clock's
number is ~pid << 3 with it (MAKE_PROCESS_CPUCLOCK), as clock_getcpuclockid(3) gives it."""

_READ_BYTES = 1 << 16

PATH_MAX = 4096
"""include/uapi/linux/limits.h, with the final NUL."""

_STATUS_FIELDS = tuple(
    (key, b"\n" + key + b":\t", len(key) + 3)
    for key in (b"NSpid", b"VmRSS", b"RssAnon", b"RssShmem")
)
"""Each key, what is before its value, and the length of that."""


class Stat(NamedTuple):
    """The part of `/proc/PID/stat` that is used here."""

    comm: bytes
    state: str
    """One letter: R, S, D, T, t, Z, X, I …"""
    ppid: int
    cpu_ns: int
    """User and system time of the group, dead threads included; in whole ticks."""
    threads: int
    start_ns: int
    """The host's boot clock, cut to whole ticks, whatever time namespace we are in."""
    vsz_kb: int


def read(path: str) -> bytes:
    """All of a small file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(descriptor, _READ_BYTES)
        if len(text) < _READ_BYTES:
            return text
        parts = [text]
        while more := os.read(descriptor, _READ_BYTES):
            parts.append(more)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def parse_stat(text: bytes) -> Stat:
    """The name is between the first `(` and the last `)`: it may hold both, and newlines."""
    opening, closing = text.index(b"("), text.rindex(b")")
    fields = text[closing + 2 :].split(None, 21)
    if len(fields) < 21:
        raise ValueError("a stat line is cut")
    return Stat(
        comm=text[opening + 1 : closing],
        state=fields[0].decode("ascii"),
        ppid=int(fields[1]),
        cpu_ns=(int(fields[11]) + int(fields[12])) * TICK_NS,
        threads=int(fields[17]),
        start_ns=(int(fields[19]) * TICK_NS - BOOT_OFFSET_NS) // TICK_NS * TICK_NS,
        vsz_kb=int(fields[20]) // 1024,
    )


def read_stat(proc: str, pid: int | str) -> Stat:
    """`/proc/PID/stat`."""
    return parse_stat(read(f"{proc}/{pid}/stat"))


def has_our_pids(proc: str) -> bool:
    """Whether its pids are those that system calls take here: it is of our own PID namespace."""
    try:
        return innermost_pid(parse_status(read(f"{proc}/self/status"))) == (os.getpid(), 1)
    except (OSError, ValueError):
        return False


def exact_cpu_ns(pid: int, stat: Stat) -> int:
    """`stat.cpu_ns` to the nanosecond, by the process's own clock: its threads and those that are
    gone (kernel/time/posix-cpu-timers.c: thread_group_cputime). For a `/proc` that has our pids.

    `stat` has user and system time cut to a tick each, and is the least that it can be: another
    process that has the pid by now has less.
    """
    try:
        return max(stat.cpu_ns, time.clock_gettime_ns(~pid << 3 | _CPUCLOCK_SCHED))
    except OSError:
        return stat.cpu_ns


def parse_status(text: bytes) -> dict[bytes, bytes]:
    """What is used here of `/proc/PID/status`, by field; the first of a name counts.

    A name cannot forge a field: the kernel escapes its newlines. Some sixty fields are there, and
    to take them all apart was an eighth of a snapshot's time.
    """
    fields: dict[bytes, bytes] = {}
    for key, before, length in _STATUS_FIELDS:
        at = text.find(before)
        if at >= 0:
            begin = at + length
            end = text.find(b"\n", begin)
            fields[key] = text[begin:end] if end >= 0 else text[begin:]
    return fields


def speaker(proc: str, pid: int, stat: Stat, status: Mapping[bytes, bytes]) -> str:
    """The directory below `proc` that speaks for a process: `PID`, or `PID/task/TID`.

    Memory, cgroups and namespaces are each thread's own. A main thread that has ended before the
    others has none left (exit_mm, exit_task_namespaces), is a zombie by its state, and is not moved
    to another cgroup with them; then a thread that still has the address space speaks.
    """
    has_memory = b"VmRSS" in status
    if has_memory or not (stat.vsz_kb or stat.threads > 1):
        return str(pid)
    for tid in os.listdir(f"{proc}/{pid}/task"):
        try:
            if b"VmRSS" in parse_status(read(f"{proc}/{pid}/task/{tid}/status")):
                return f"{pid}/task/{tid}"
        except OSError:
            continue
    return str(pid)


def parse_rollup(text: bytes) -> dict[bytes, bytes]:
    """`/proc/PID/smaps_rollup` by field; its first line is an address range."""
    lines = (line.partition(b":") for line in text.split(b"\n")[1:])
    return {key: value for key, colon, value in lines if colon}


def kb(fields: Mapping[bytes, bytes], key: bytes) -> int:
    """A field of `status` or `smaps_rollup` in kB, 0 where it is absent (no address space)."""
    value = fields.get(key)
    return int(value[: -len(" kB")]) if value else 0


def innermost_pid(fields: Mapping[bytes, bytes]) -> tuple[int, int]:
    """The pid in the process's own PID namespace, and how many namespaces see the process."""
    pids = fields.get(b"NSpid", b"").split()
    if not pids:
        raise ValueError("no NSpid in status")
    return int(pids[-1]), len(pids)


def parse_cgroups(text: bytes) -> dict[str, str]:
    """`/proc/PID/cgroup`: path by controller (`memory`, `name=systemd`), that of the default
    hierarchy under ``""``. The kernel lets no newline into a cgroup's name (cgroup_mkdir)."""
    paths: dict[str, str] = {}
    for line in os.fsdecode(text).split("\n"):
        parts = line.split(":", 2)
        if len(parts) != 3:
            continue
        for controller in parts[1].split(","):
            paths[controller] = parts[2]
    return paths


def partial_problem(proc: str) -> tuple[str, str]:
    """What a person is told, and what to do, where it shows processes and nothing else (mounted
    `subset=pid`, Linux 5.8); "" twice where it shows all.

    The kernel takes the option back from no mount that has it: a new one has to go over it.
    """
    if not os.path.isdir(f"{proc}/self") or os.path.exists(f"{proc}/meminfo"):
        return "", ""
    return (
        f"{proc} shows processes alone (it is mounted subset=pid), not the host's memory and CPU.",
        f"Mount a whole one: sudo mount -t proc proc {proc} (and see /etc/fstab)",
    )


def cgroup_text(proc: str, pid: int | str) -> bytes | None:
    """`/proc/PID/cgroup`, None where one of its paths has PATH_MAX bytes or more and the kernel
    refuses the whole; newer ones cut it (seen on 6.18). `pid` as in `speaker`."""
    try:
        return read(f"{proc}/{pid}/cgroup")
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return None


def host_namespaces(proc: str) -> tuple[int, int]:
    """The host's PID and UTS namespace: pid 1's, or our own where pid 1's are not shown to us."""
    try:
        return namespace(proc, 1, "pid"), namespace(proc, 1, "uts")
    except PermissionError:
        return namespace(proc, "self", "pid"), namespace(proc, "self", "uts")


def namespace(proc: str, pid: int | str, kind: str) -> int:
    """The number in `/proc/PID/ns/KIND`. Not there for a zombie, except `pid`.

    `pid` may be what `speaker` gives.
    """
    # A Path of each would be a quarter of a whole snapshot's time.
    target = os.readlink(f"{proc}/{pid}/ns/{kind}")
    if not (target.startswith(f"{kind}:[") and target.endswith("]")):
        raise ValueError(f"not a namespace: {target[:40]!r}")
    return int(target[len(kind) + 2 : -1])
