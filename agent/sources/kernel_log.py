"""OOM kills by the kernel's own log, `/dev/kmsg`.

It says of every kill whom and how large it was (mm/oom_kill.c: __oom_kill_process), and of some,
rate-limited, who asked for memory and which cgroup was at its limit. Only what the kernel itself
wrote is believed: a line of user space has another facility. Names in it are the workload's words.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent.model.oom import LoggedKill, VictimMemory

KMSG = Path("/dev/kmsg")
_RECORD_BYTES = 1 << 14
_MOST_RECORDS = 1 << 13
"""Read at once, more than a log of the usual size holds; the rest is left for the next reading.
A kernel that logs without end must not keep a tick from its end."""

_KILLED = re.compile(
    r"(?P<why>[^:]*): Killed process (?P<pid>\d{1,10}) \((?P<comm>.*)\)"
    r" total-vm:\d+kB, anon-rss:(?P<anon>\d{1,18})kB, file-rss:(?P<file>\d{1,18})kB,"
    r" shmem-rss:(?P<shmem>\d{1,18})kB,.* oom_score_adj:(?P<adj>-?\d{1,4})"
)
_DETAIL = re.compile(
    r"oom-kill:constraint=\w+,.*?,(?:oom_memcg=(?P<limit>.*?),|global_oom,)task_memcg=(?P<victim>.*)"
    r",task=.*,pid=(?P<pid>\d{1,10}),uid=\d+"
)
_INVOKED = re.compile(r"(?P<comm>.*) invoked oom-killer: gfp_mask=.*")
_WORTH_A_LOOK = (b"Killed process", b"oom-kill", b" PID: ")
"""One of them is in each line that is read here."""
_WHO = re.compile(r"CPU: \d+ (?:UID: \d+ )?PID: (?P<pid>\d{1,10}) Comm: .*")


class KernelLog:
    """The log from the moment it was opened; reading it takes nothing from other readers."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._parser = Parser()

    @classmethod
    def open(cls, path: Path = KMSG) -> KernelLog | None:
        """None where it cannot be read."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        with suppress(OSError):  # a file in place of the device
            os.lseek(fd, 0, os.SEEK_END)
        return cls(fd)

    def read(self) -> tuple[LoggedKill, ...]:
        """The kills that were logged since the last call."""
        found = tuple(self._parser.kills(self._records()))
        if not found:
            return ()
        # The log's clock stands still while the host is suspended, as the monotonic one does.
        asleep_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
        return tuple(one._replace(logged_ns=one.logged_ns + asleep_ns) for one in found)

    def _records(self) -> Iterable[str]:
        for _ in range(_MOST_RECORDS):
            try:
                record = os.read(self._fd, _RECORD_BYTES)
            except BrokenPipeError:  # overwritten before it was read; the next one is there
                continue
            except OSError:
                return
            if not record:
                return
            if any(words in record for words in _WORTH_A_LOOK):
                yield record.decode("utf-8", "replace")

    def close(self) -> None:
        os.close(self._fd)


@dataclass(slots=True)
class _Details:
    """What was logged of the kill that is being logged."""

    trigger_pid: int = 0
    trigger_comm: str = ""
    limit_path: str = ""
    victim_path: str = ""
    pid: int = 0


class Parser:
    """Records of the log in, kills out. What a kill's lines say before it is kept for it."""

    def __init__(self) -> None:
        self._details = _Details()

    def kills(self, records: Iterable[str]) -> Iterable[LoggedKill]:
        for record in records:
            head, found, text = record.partition(";")
            words = head.split(",")
            if not found or len(words) < 3 or not (words[0].isdecimal() and words[2].isdecimal()):
                continue
            if int(words[0]) >> 3:  # not the kernel's facility
                continue
            text = text.partition("\n")[0]
            if kill := self._line(text, int(words[2]) * 1000):
                yield kill

    def _line(self, text: str, logged_ns: int) -> LoggedKill | None:
        details = self._details
        if match := _INVOKED.fullmatch(text):
            self._details = _Details(trigger_comm=match["comm"])
        elif details.trigger_comm and not details.trigger_pid and (match := _WHO.fullmatch(text)):
            details.trigger_pid = int(match["pid"])
        elif match := _DETAIL.fullmatch(text):
            details.limit_path = match["limit"] or ""
            details.victim_path = match["victim"]
            details.pid = int(match["pid"])
        elif match := _KILLED.fullmatch(text):
            pid = int(match["pid"])
            is_its = details.pid == pid
            return LoggedKill(
                pid=pid,
                comm=match["comm"],
                memory=VictimMemory(
                    int(match["anon"]), int(match["file"]), int(match["shmem"]), None
                ),
                oom_score_adj=int(match["adj"]),
                is_limit=match["why"].startswith("Memory cgroup"),
                limit_path=details.limit_path if is_its else "",
                victim_path=details.victim_path if is_its else "",
                trigger_pid=details.trigger_pid if is_its else 0,
                trigger_comm=details.trigger_comm if is_its else "",
                logged_ns=logged_ns,
            )
        return None
