"""Running `agent bpf …` as a person does, and reading what it prints."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tests.agent_process import PROJECT, agent_command
from tests.containers import wait_until

Line = dict[str, Any]


def command(*words: str, env: Mapping[str, str] | None = None) -> list[str]:
    """The command line of `agent bpf WORDS…`, told of the engine that the tests use."""
    host = os.environ.get("DOCKER_HOST")
    if host is None:
        return [*agent_command(env), "bpf", *words]
    config = Path("/var/tmp/so1-test-bpf.toml")
    config.write_text(f'docker_host = "{host}"\n', encoding="utf-8")
    return [*agent_command(env), "bpf", *words, "--config", str(config)]


def run(
    *words: str, env: Mapping[str, str] | None = None, timeout_s: float = 300
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words, env=env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        cwd=PROJECT,
        env={**os.environ, **(env or {})},
    )


@dataclass(slots=True)
class Trace:
    """A running trace whose lines go to a file."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path
    sink: subprocess.Popen[bytes] | None = None
    offset: int = field(default=0)

    @property
    def lines(self) -> list[str]:
        return self.out.read_text(encoding="utf-8").splitlines()

    @property
    def said(self) -> str:
        return self.err.read_text(encoding="utf-8")

    def records(self) -> list[Line]:
        """The whole lines so far."""
        text = self.out.read_bytes().rpartition(b"\n")[0]
        return [json.loads(line) for line in text.splitlines()]

    def wait_for(self, what: str, *pairs: tuple[str, Any]) -> Line:
        """The first JSON line that has all of these."""

        def find() -> Line | None:
            wanted = dict(pairs)
            for record in self.records():
                if all(record.get(key) == value for key, value in wanted.items()):
                    return record
            return None

        found: Line = wait_until(find, what, timeout_s=120)
        return found

    def interrupt(self, timeout_s: float = 60) -> int:
        self.process.send_signal(signal.SIGINT)
        status = self.process.wait(timeout_s)
        if self.sink is not None:
            self.sink.wait(timeout_s)
        return status


@contextmanager
def tracing(place: Path, *words: str, through: tuple[str, ...] = ()) -> Iterator[Trace]:
    """`agent bpf trace WORDS…`, perhaps through a filter, from when its probes are there."""
    out, err = place / "out", place / "err"
    with out.open("wb") as lines, err.open("wb") as said:
        sink = None
        target: IO[bytes] = lines
        if through:
            sink = subprocess.Popen(through, stdin=subprocess.PIPE, stdout=lines)
            assert sink.stdin is not None
            target = sink.stdin
        process = subprocess.Popen(
            command("trace", *words),
            stdin=subprocess.DEVNULL,
            stdout=target,
            stderr=said,
            cwd=PROJECT,
        )
        if sink is not None and sink.stdin is not None:
            sink.stdin.close()
    trace = Trace(process, out, err, sink)
    try:
        wait_until(
            lambda: "Tracing" in trace.said or process.poll() is not None,
            "the probes of the trace",
            timeout_s=240,
        )
        # Behind a filter it may have ended already: a busy host fills three lines at once.
        assert "Tracing" in trace.said if through else process.poll() is None, trace.said
        yield trace
    finally:
        for one in (process, sink):
            if one is not None and one.poll() is None:
                one.kill()
                one.wait()
