"""The agent as its user runs it: a process with a command line, lines of output and signals.

Used by the docker and vm layers. It knows nothing of the agent's inside: what it tells comes from
the process, its output and the SQLite file.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.containers import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

PROJECT = Path(__file__).resolve().parents[1]


def agent_command(env: Mapping[str, str] | None = None) -> list[str]:
    """The installed `agent` in a guest, else this checkout's.

    The installed one heeds no PYTHONPATH; a test that needs one (`env`) gets the checkout's.
    """
    is_plain = "PYTHONPATH" not in (env or {})
    if os.environ.get("SO1_LAB") == "1" and is_plain and (installed := shutil.which("agent")):
        return [installed]
    return [sys.executable, "-m", "agent"]


def run_agent(
    *words: str, timeout_s: float = 300, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs `agent WORDS…` to its end."""
    return subprocess.run(
        [*agent_command(env), *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        cwd=PROJECT,
        env={**os.environ, **(env or {})},
    )


@dataclass(slots=True)
class AgentProcess:
    """A running `agent start`; leaving the block ends it, by force if need be."""

    words: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the environment."""
    lines: list[str] = field(default_factory=list)
    process: subprocess.Popen[str] = field(init=False)
    _readers: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            [*agent_command(self.env), "start", *self.words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
            env={**os.environ, **self.env},
        )
        for stream in (self.process.stdout, self.process.stderr):
            reader = threading.Thread(target=self._collect, args=(stream,), daemon=True)
            reader.start()
            self._readers.append(reader)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(180)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(30)

    def _collect(self, stream: Any) -> None:
        for line in stream:
            self.lines.append(line.rstrip("\n"))

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, text: str, timeout_s: float = 480) -> str:
        """The first line that holds `text`; fails with all output where it does not come."""

        def found() -> str | None:
            line = next((line for line in self.lines if text in line), None)
            if line is None and self.process.poll() is not None:
                raise AssertionError(f"the agent ended before {text!r}:\n{self.output}")
            return line

        try:
            line: str = wait_until(found, f"a line with {text!r}", timeout_s=timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output}") from None
        return line

    def wait_for_tick(self, number: int, timeout_s: float = 480) -> str:
        return self.wait_for(f"tick {number} ·", timeout_s)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait_end(self, timeout_s: float = 480) -> int:
        """The exit status; all output is in `lines` then."""
        status = self.process.wait(timeout_s)
        for reader in self._readers:
            reader.join(10)
        return status


def rows(database: Path, query: str, *values: object) -> list[dict[str, Any]]:
    """The rows of a query on the database as it is, read-only."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)
    try:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(query, values)]
    finally:
        connection.close()
