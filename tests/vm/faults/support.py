"""What the tests of faults share: the agent under test, its figures, and the books that must close.

All of it is told from outside: `/proc` of the agent's process, its lines on the terminal, the
SQLite file and the docker command line. Nothing here imports the agent.
"""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.agent_process import AgentProcess, rows
from tests.containers import ALPINE, Containers, docker, in_lab, inspect, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pytest

PREFIX = "so1_contenedor_"
INTERVAL_S = 2 if in_lab() else 1
"""An emulated machine needs the better part of a second for a tick."""
SLEEP = ("sh", "-c", "trap 'exit 0' TERM; sleep 99999 & wait")

_TICK = re.compile(r"\btick (\d+) · ")
_GROWTH_KB = 6 * 1024
"""Anonymous memory that an allocator may keep after a fault; a leak per fault shows over many."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a process has, by `/proc`. Memory is its anonymous resident part, in KB."""

    descriptors: int
    threads: int
    anon_kb: int

    @classmethod
    def of(cls, pid: int) -> Figures:
        status = dict(
            line.split(":", 1)
            for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        )
        return cls(
            descriptors=len(list(Path(f"/proc/{pid}/fd").iterdir())),
            threads=int(status["Threads"]),
            anon_kb=int(status["RssAnon"].split()[0]),
        )

    def __str__(self) -> str:
        mb = self.anon_kb / 1024
        return f"{self.descriptors} descriptors, {self.threads} threads, {mb:.1f} MB"


class Agent(AgentProcess):
    """The agent under a fault: counts its ticks, takes its figures, and is checked at its end."""

    __slots__ = ("before", "stored_elsewhere")

    def __init__(self, config: Path, *words: str) -> None:
        super().__init__(("--config", str(config), *words))
        self.stored_elsewhere = 0
        """Ticks told as stored whose rows are not in the database's file any more."""

    @property
    def pid(self) -> int:
        return int(self.process.pid)

    @property
    def tick_lines(self) -> list[str]:
        return [line for line in list(self.lines) if _TICK.search(line)]

    @property
    def stored_ticks(self) -> int:
        """Ticks that the agent told as stored."""
        return sum("not stored" not in line for line in self.tick_lines)

    def count(self, text: str) -> int:
        return sum(text in line for line in list(self.lines))

    def more_ticks(self, number: int, holding: str = " · ", timeout_s: float = 240) -> list[str]:
        """The next `number` tick lines that hold `holding`, from now on."""
        seen = len(self.tick_lines)

        def later() -> list[str] | None:
            found = [line for line in self.tick_lines[seen:] if holding in line]
            if len(found) < number and self.process.poll() is not None:
                raise AssertionError(f"the agent ended:\n{self.output}")
            return found if len(found) >= number else None

        try:
            found: list[str] = wait_until(
                later, f"{number} more ticks with {holding!r}", timeout_s=timeout_s
            )
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output}") from None
        return found

    def stored_again(self, number: int = 3) -> None:
        """Waits until ticks that come are stored once more."""
        seen = len(self.tick_lines)

        def enough() -> bool:
            later = self.tick_lines[seen:]
            return sum("not stored" not in line for line in later) >= number

        try:
            wait_until(enough, "ticks are stored again")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output}") from None

    @contextmanager
    def frozen_between_ticks(self, database: Path) -> Iterator[None]:
        """Stops the process (SIGSTOP) at a moment when all that it stored is told; then goes on."""

        def caught() -> bool:
            self.signal(signal.SIGSTOP)
            wait_until(lambda: state_of(self.pid) == "T", "the agent is stopped", pause_s=0.01)
            told = -1
            while told != (told := self.stored_ticks):  # what is still in the pipe
                time.sleep(0.05)
            try:
                stored = metrics(database, "count(*) AS n")[0]["n"]
            except sqlite3.OperationalError:  # a broken disk's cannot be read, nor written
                stored = told - self.stored_elsewhere
            if stored == told - self.stored_elsewhere:
                return True
            self.signal(signal.SIGCONT)
            return False

        wait_until(caught, "a moment between two ticks", pause_s=0.2)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    def warm(self) -> Figures:
        """Its figures once it has done all that it does in ordinary ticks."""
        self.wait_for_tick(1)
        self.more_ticks(4)
        self.before = Figures.of(self.pid)
        return self.before

    def end(self) -> None:
        """Ends it as Ctrl-C does: status 0 and never a traceback."""
        self.signal(signal.SIGINT)
        assert self.wait_end() == 0, self.output
        assert "Traceback" not in self.output, self.output
        assert "could not be undone" not in self.output, self.output


def assert_no_leak(
    agent: Agent, record: Callable[[str, object], None], growth_kb: int = _GROWTH_KB
) -> None:
    """Descriptors and threads come back to what they were, memory does within what is allowed."""
    before = agent.before

    def back() -> bool:
        now = Figures.of(agent.pid)
        return now.descriptors <= before.descriptors and now.threads <= before.threads

    try:
        wait_until(back, "descriptors and threads are what they were", timeout_s=60)
    except AssertionError as error:
        held = sorted(os.readlink(one) for one in _descriptors(agent.pid))
        raise AssertionError(
            f"{error}: before {before}, after {Figures.of(agent.pid)}: {held}"
        ) from None
    after = Figures.of(agent.pid)
    record("figures_before", str(before))
    record("figures_after", str(after))
    print(f"\nbefore: {before}; after: {after}")
    assert after.anon_kb - before.anon_kb <= growth_kb, f"before {before}, after {after}"


def state_of(pid: int) -> str:
    """The one-letter state of a process, "" where it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    return text.rpartition(")")[2].split()[0]


def _descriptors(pid: int) -> list[Path]:
    return [one for one in Path(f"/proc/{pid}/fd").iterdir() if one.is_symlink()]


def assert_books_close(database: Path, agents: list[Agent], *others: Path) -> int:
    """Every tick told as stored is a whole one in the file or in `others`; gives how many.

    Timestamps rise from row to row, and each tick has as many process rows as it counted.
    """
    told = sum(agent.stored_ticks for agent in agents)
    found = 0
    last_ms = 0
    for path in (*others, database):
        ticks = whole_ticks(path)
        stamps = [stamp for stamp, _ in ticks]
        assert stamps == sorted(set(stamps)), f"timestamps of {path} do not rise"
        if stamps:
            assert stamps[0] > last_ms, f"{path} begins before its predecessor's end"
            last_ms = stamps[-1]
        found += len(ticks)
    assert found == told, f"{told} ticks told as stored, {found} found"
    return found


def whole_ticks(database: Path) -> list[tuple[int, int]]:
    """(timestamp in ms, processes) of each stored tick, in the order of their writing."""
    assert rows(database, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]
    metrics = rows(database, "SELECT timestamp, process_count FROM metrics ORDER BY id")
    counted = {
        row["timestamp"]: row["n"]
        for row in rows(
            database, "SELECT timestamp, count(*) AS n FROM process_stats GROUP BY timestamp"
        )
    }
    checks = {
        row["timestamp"] for row in rows(database, "SELECT timestamp FROM attribution_checks")
    }
    ticks = [(row["timestamp"], row["process_count"]) for row in metrics]
    assert {stamp: number for stamp, number in ticks if number} == counted, "a tick in parts"
    assert checks == {stamp for stamp, _ in ticks}
    return ticks


def metrics(database: Path, columns: str = "*") -> list[dict[str, Any]]:
    return rows(database, f"SELECT {columns} FROM metrics ORDER BY id")


def removed(database: Path) -> list[dict[str, Any]]:
    """What the agent says it removed or tried to."""
    return rows(database, "SELECT * FROM deletions ORDER BY id")


def settings(directory: Path, docker_host: str, database: Path | None = None) -> Path:
    """A configuration that keeps everything below `directory`, with nothing beside the loop."""
    path = directory / "agent.toml"
    source = "auto" if in_lab() else "psutil"
    build = "/var/lib/so1/build" if in_lab() else str(directory / "build")
    path.write_text(
        f'interval_s = {INTERVAL_S}\nsource = "{source}"\ndocker_host = "{docker_host}"\n'
        "[grafana]\nenabled = false\n[bpf]\nenabled = false\n[cron]\nenabled = false\n"
        f'[paths]\ndatabase = "{database or directory / "db" / "metrics.db"}"\n'
        f'build = "{build}"\nrun = "{directory / "run"}"\nlog = "{directory / "log"}"\n',
        encoding="utf-8",
    )
    return path


@dataclass(frozen=True, slots=True)
class Town:
    """Containers that no fault may cost: what the policy keeps, and what is none of its business.

    Name → full id. The five governed ones are just what a pass leaves.
    """

    mine: Containers
    governed: Mapping[str, str]
    bystanders: Mapping[str, str]

    @property
    def all(self) -> dict[str, str]:
        return {**self.governed, **self.bystanders}

    def is_whole(self) -> bool:
        """Whether all of them run."""
        return set(self.all.values()) <= set(docker("ps", "-q", "--no-trunc").split())

    def assert_unharmed(self) -> None:
        """Each exists under its id and runs."""
        if not self.is_whole():
            states = {name: inspect(identity)["State"] for name, identity in self.all.items()}
            raise AssertionError(f"some of the town do not run: {states}")

    def assert_none_decided_on(self, database: Path) -> None:
        """No decision ever named one of them."""
        short = {identity[:12] for identity in self.all.values()}
        named = [row for row in removed(database) if row["container_id"] in short]
        assert named == [], named


def build_town(mine: Containers) -> Town:
    """Five governed containers and three others, which come back with their engine."""
    again = ("--restart=always",)

    def start(name: str, image: str, *options: str) -> str:
        return mine.run(image, SLEEP, name=name, options=(*again, *options))

    stress = "so1-stress-standin:local"
    governed = {
        f"{PREFIX}{number}": start(f"{PREFIX}{number}", ALPINE if number <= 3 else stress)
        for number in range(1, 6)
    }
    bystanders = {
        "bystander": start("bystander", ALPINE),
        "my_grafana": start("my_grafana", ALPINE),
        f"{PREFIX}777": start(f"{PREFIX}777", ALPINE, "--label", "so1.protect=true"),
    }
    return Town(mine, governed, bystanders)


def surplus(mine: Containers, number: int, first: int = 100) -> list[str]:
    """Governed containers beyond what the policy keeps; their full ids."""
    return [mine.run(ALPINE, SLEEP, name=f"{PREFIX}{first + index}") for index in range(number)]


def exists(identity: str) -> bool:
    return identity in docker("ps", "-aq", "--no-trunc").split()


def wait_gone(identities: Sequence[str]) -> None:
    wait_until(lambda: not any(exists(one) for one in identities), f"{identities} are removed")


def hold_for(seconds: float, meanwhile: Callable[[], bool], what: str) -> None:
    """Keeps a staged fault up for its length, checking all the while that it is."""
    ends = time.monotonic() + seconds

    def over() -> bool:
        assert meanwhile(), what
        return time.monotonic() >= ends

    wait_until(over, "the fault's length", timeout_s=seconds + 60, pause_s=min(0.1, seconds))


def run(*words: str, check: bool = True, timeout_s: float = 120) -> str:
    """What a program printed; AssertionError with its words where it fails."""
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s
    )
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def agents_left(directory: Path) -> list[str]:
    """Command lines of processes that name this test's configuration."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if str(directory) in words and "agent" in words:
                found.append(words.replace("\0", " "))
    return found


def salvageable(path: Path) -> bool:
    """Whether SQLite still reads the metrics of a file that was quarantined."""
    try:
        rows(path, "SELECT count(*) FROM metrics")
    except sqlite3.Error:
        return False
    return True


def recorder(request: pytest.FixtureRequest) -> Callable[[str, object], None]:
    """`record_property` that takes any value."""

    def record(name: str, value: object) -> None:
        request.node.user_properties.append((name, str(value)))

    return record


def set_clock(seconds: float) -> None:
    """Puts the wall clock `seconds` forward."""
    run("date", "-s", f"@{time.time() + seconds:.3f}")


class a_clock_put_back:  # noqa: N801 - reads as what it does
    """Whatever happens in the block, the wall clock is right after it."""

    def __enter__(self) -> None:
        self._offset = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)

    def __exit__(self, *_: object) -> None:
        right = time.clock_gettime(time.CLOCK_BOOTTIME) + self._offset
        run("date", "-s", f"@{right:.3f}")
