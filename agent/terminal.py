"""What people read while the agent runs: plain lines.

A name that a workload chose may hold escape sequences, which must not reach the terminal; and a
terminal that was closed answers writes with an error, which must not stop the agent.
"""

from __future__ import annotations

import logging
import os
import sys
import unicodedata
from typing import TextIO


def printable(text: str) -> str:
    """`text` with everything that steers a terminal or turns the reading order shown as escapes."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char if unicodedata.category(char)[0] not in "C" else f"\\x{ord(char):02x}" for char in text
    )


class Say:
    """Writes whole lines to a stream; a stream that is gone is counted, not raised."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost_lines = 0

    def __call__(self, line: str) -> None:
        try:
            print(line, file=self._stream, flush=True)
        except (OSError, ValueError):
            self.lost_lines += 1


class _Handler(logging.Handler):
    def __init__(self, say: Say) -> None:
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say(printable(self.format(record)))


def set_up_logging(say: Say) -> None:
    """One event, one line on stderr; the journal stamps its lines itself."""
    under_journal = "JOURNAL_STREAM" in os.environ
    handler = _Handler(say)
    stamp = "" if under_journal else "%(asctime)s "
    handler.setFormatter(
        logging.Formatter(stamp + "%(levelname)s %(name)s %(message)s", datefmt="%H:%M:%S")
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    for noisy in ("docker", "urllib3", "peewee"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def is_terminal(stream: TextIO | None = None) -> bool:
    """Whether colour and tables have somebody to look at them."""
    return (stream or sys.stdout).isatty() and os.environ.get("TERM", "") != "dumb"
