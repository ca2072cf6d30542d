"""The canary at its hours: `agent bpf check --canary` as a niced process beside the loop.

None unless `proof.canary_hours` is set. One whose figures are off is repeated soon, so that its
budget recovers as soon as they are right again.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

import agent
from agent.clock import Clock
from agent.config import Config
from agent.model.proof import CanaryResult
from agent.util.subprocess import CommandError, Program, begin, kill_session
from agent.util.terminal import printable

log = logging.getLogger(__name__)

_SECOND_NS = 10**9
_FIRST_S = 120.0
_AGAIN_S = 300.0
"""From a canary that was off, or could not be run, to the next."""
_LONGEST_S = 600
_MOST_BYTES = 1 << 20
_LONGEST_REASON = 300
"""Characters of what a failed canary wrote last."""
_NICE = "10"


class _CanaryLine(msgspec.Struct, frozen=True):
    what: str
    error: float | None
    is_right: bool


class _CanaryDocument(msgspec.Struct, frozen=True):
    lines: list[_CanaryLine]


class CanaryRuns:
    """One thread calls it, and never waits."""

    def __init__(
        self, config: Config, config_file: Path | None, clock: Clock, kept: CanaryResult | None
    ) -> None:
        """`kept` is what the last canary of an earlier run proved."""
        self._hours = config.proof.canary_hours
        self._clock = clock
        self._command = canary_command(config_file)
        self._process: Program | None = None
        self._output, self._errors = -1, -1
        self._began_ns = 0
        pause_s = _FIRST_S
        if kept is not None and not kept.error:
            age_s = (clock.wall_ns() / 10**9) - kept.wall_ms / 1000
            pause_s = max(_FIRST_S, min(self._hours * 3600 - age_s, self._hours * 3600))
        self._next_ns = clock.boot_ns() + int(pause_s * _SECOND_NS)
        self.result = kept
        self.problem = ""
        """Why there was no canary when it was due, "" where there was."""

    def look(self) -> None:
        """Begins one that is due, or takes note of one that ended."""
        now_ns = self._clock.boot_ns()
        if self._process is None:
            if now_ns >= self._next_ns:
                self._begin(now_ns)
            return
        status = self._process.poll()
        if status is not None:
            output = os.pread(self._output, _MOST_BYTES, 0)
            errors = os.pread(self._errors, _MOST_BYTES, 0)
            self._let_go()
            self._ended(status, output, errors, now_ns)
        elif now_ns - self._began_ns > _LONGEST_S * _SECOND_NS:
            self.close()
            self._failed(f"it took longer than {_LONGEST_S} s", now_ns)

    def close(self) -> None:
        """Ends one that runs; its container goes with the next one."""
        if self._process is not None:
            kill_session(self._process)
            self._let_go()

    def _begin(self, now_ns: int) -> None:
        self._began_ns = now_ns
        root = str(Path(agent.__file__).parents[1])
        try:
            self._output = os.memfd_create("so1-canary", os.MFD_CLOEXEC)
            self._errors = os.memfd_create("so1-canary-errors", os.MFD_CLOEXEC)
            with (
                os.fdopen(os.dup(self._output), "wb") as output,
                os.fdopen(os.dup(self._errors), "wb") as errors,
            ):
                self._process = begin(
                    self._command, stdout=output, stderr=errors, env={"PYTHONPATH": root}
                )
        except (CommandError, OSError) as error:  # OSError: no descriptor is left
            self._let_go()
            why = error.strerror if isinstance(error, OSError) else None
            self._failed(why or str(error), now_ns)

    def _let_go(self) -> None:
        self._process = None
        for descriptor in (self._output, self._errors):
            if descriptor >= 0:
                os.close(descriptor)
        self._output, self._errors = -1, -1

    def _ended(self, status: int, output: bytes, errors: bytes, now_ns: int) -> None:
        try:
            document = msgspec.json.decode(output, type=_CanaryDocument)
        except msgspec.MsgspecError:
            lines = errors.decode(errors="replace").strip().splitlines()
            reason = f" ({printable(lines[-1][:_LONGEST_REASON])})" if lines else ""
            self._failed(f"it ended with status {status}{reason}; run `{_BY_HAND}`", now_ns)
            return
        self.problem = ""
        self.result = result_of(document, self._clock.wall_ns() // 10**6)
        pause_s = _AGAIN_S if self.result.error else self._hours * 3600
        self._next_ns = now_ns + int(pause_s * _SECOND_NS)
        log.info("canary=%s error=%.4f", "off" if self.result.error else "ok", self.result.error)

    def _failed(self, why: str, now_ns: int) -> None:
        """No canary is no proof of an error: nothing is spent."""
        if not self.problem:
            log.warning("canary=failing %s", why)
        self.problem = f"The canary could not be run: {why}."
        self._next_ns = now_ns + int(_AGAIN_S * _SECOND_NS)


_BY_HAND = "sudo agent bpf check --canary"


def canary_command(config_file: Path | None) -> Sequence[str]:
    """What is run, with the settings that this agent was started with."""
    words = ("nice", "-n", _NICE, sys.executable, "-P", "-m", "agent", "bpf", "check")
    chosen = ("--config", str(config_file.absolute())) if config_file else ()
    return (*words, "--canary", "--json", *chosen)


def result_of(document: _CanaryDocument, wall_ms: int) -> CanaryResult:
    """The line that is furthest off; one without a relative error that is off is off by all."""
    wrong = [
        (abs(line.error) if line.error is not None else 1.0, line.what)
        for line in document.lines
        if not line.is_right
    ]
    error, what = max(wrong, default=(0.0, ""))
    return CanaryResult(wall_ms, error, what)
