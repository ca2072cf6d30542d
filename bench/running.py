"""A running agent to measure: started with a directory of its own, watched from outside through
`/proc`, its status file and its database, and stopped at the end. Used by every section that
measures the agent itself and by the soak.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

_PARENT = Path("/var/lib/so1-bench")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
HOST = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
PROJECT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class RunningAgent:
    """One agent: its process, and the directory that holds its settings, database and status."""

    process: subprocess.Popen[bytes]
    directory: Path
    log: Path
    """What it says: a line a tick, and its warnings."""

    @property
    def config(self) -> Path:
        return self.directory / "agent.toml"

    @property
    def database(self) -> Path:
        return self.directory / "metrics.db"

    def status(self) -> dict[str, Any]:
        """Its status file's content, empty before the first tick."""
        try:
            found: dict[str, Any] = json.loads((self.directory / "run/status.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return found

    def rows(self) -> int:
        """How many ticks are stored."""
        try:
            return int(self.ask("SELECT count(*) FROM metrics")[0][0])
        except sqlite3.Error:
            return 0

    def ask(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows of a query, read-only. Raises sqlite3.Error."""
        connection = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=5)
        try:
            return connection.execute(query, values).fetchall()
        finally:
            connection.close()

    def wait_for_bpf(self, timeout_s: float = 600) -> str:
        """Until the probes are there or is not available: the compile must not be measured.

        Gives how they are. Raises RuntimeError when neither comes, or the agent ends.
        """

        def word() -> str:
            found = str(self.status().get("bpf", ""))
            return "" if found.startswith("starting") else found

        return self.wait_until(word, "BPF neither came up nor said why not", timeout_s)

    def wait_for_checkpoint(self, timeout_s: float = 600) -> None:
        """Until the log was brought into the database for the first time, and is written over.

        Raises RuntimeError when that does not happen, or the agent ends.
        """
        size = self.database.stat().st_size
        self.wait_until(
            lambda: self.database.stat().st_size != size,
            "the database's log was never brought into the file",
            timeout_s,
        )

    def wait_for_first_row(self, timeout_s: float = 600) -> None:
        """Until the first tick is stored. Raises RuntimeError as the other waits do."""
        self.wait_until(self.rows, "no tick was stored", timeout_s, pause_s=0.02)

    def wait_until(
        self, condition: Callable[[], T], failure: str, timeout_s: float, pause_s: float = 0.2
    ) -> T:
        """The first true answer of `condition`.

        Raises RuntimeError with `failure` at the deadline, and at once where the agent ends.
        """
        deadline = time.monotonic() + timeout_s
        while not (answer := condition()):
            if time.monotonic() > deadline:
                raise RuntimeError(failure)
            self.check_alive()
            time.sleep(pause_s)
        return answer

    def check_alive(self) -> None:
        """Raises RuntimeError, with its last words, where it has ended."""
        if self.process.poll() is not None:
            said = self.log.read_text(encoding="utf-8", errors="replace")[-2000:]
            raise RuntimeError(f"the agent ended with {self.process.returncode}:\n{said}")

    def cpu_s(self) -> float:
        """CPU time so far, its ended children's not included."""
        return process_cpu_s(self.process.pid)

    def rss_kb(self) -> int:
        """Exact resident memory."""
        return self.proc_number("smaps_rollup", "Rss:")

    def written_bytes(self) -> int:
        """What it caused to be written to a disk."""
        return self.proc_number("io", "write_bytes:")

    def proc_number(self, name: str, key: str) -> int:
        """The number behind `key` in a file of `/proc/PID`; 0 where there is none."""
        text = Path(f"/proc/{self.process.pid}/{name}").read_text(encoding="utf-8")
        for line in text.splitlines():
            if line.startswith(key):
                return int(line.split()[1])
        return 0


def process_cpu_s(pid: int) -> float:
    """A process's CPU time so far, its ended children's not included."""
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


@contextmanager
def running_agent(
    command: list[str],
    *options: str,
    settings: str = "",
    dry_run: bool = True,
    log: Path | None = None,
    tree: Path = PROJECT,
    again: bool = False,
) -> Iterator[RunningAgent]:
    """An agent without cron and Grafana; its modules stay loaded for the next one.

    With `dry_run` it removes nobody's containers and does everything else. `settings` are further
    TOML tables, `log` where its output stays, `tree` whose code runs; with `again` a first run has
    made the database before. Raises subprocess.TimeoutExpired where it does not stop within two
    minutes.
    """
    _PARENT.mkdir(mode=0o750, exist_ok=True)
    directory = Path(tempfile.mkdtemp(dir=_PARENT))
    (directory / "run").mkdir(mode=0o750)
    (directory / "agent.toml").write_text(
        f'docker_host = "{HOST}"\n'
        "[modules]\nkeep = true\n"
        f'[paths]\ndatabase = "{directory}/metrics.db"\nrun = "{directory}/run"\n'
        f'log = "{directory}"\n{settings}',
        encoding="utf-8",
    )
    words = [*command, "start", "--no-cron", "--no-grafana", "--config", f"{directory}/agent.toml"]
    if dry_run:
        words.append("--dry-run")
    said = log or directory / "output.log"
    with said.open("wb") as output:
        if again:
            subprocess.run(
                [*words, "--once", *options],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=tree, check=True,
            )  # fmt: skip
        process = subprocess.Popen(
            [*words, *options],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=tree,
        )  # fmt: skip
    try:
        yield RunningAgent(process, directory, said)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(120)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(30)
            raise
        finally:
            shutil.rmtree(directory)
