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

_STEERING = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})
"""Controls, format characters, what is not assigned, surrogates, and Unicode's own line ends."""


def printable(text: str) -> str:
    """`text` with what steers a terminal, ends a line or turns the reading order as escapes."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        f"\\x{ord(char):02x}" if unicodedata.category(char) in _STEERING else char for char in text
    )


def fit(text: str, width: int) -> str:
    """`text` in `width` characters, both its ends kept: names differ at one or the other.

    Generated names share their beginning, replicas of one service all but their end.
    """
    if len(text) <= width:
        return text
    tail = (width - 1) * 2 // 3
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"


class Say:
    """Writes whole lines to a stream; a stream that is gone is counted, not raised."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.lost_lines = 0

    def __call__(self, line: str) -> None:
        try:
            print(line, file=self.stream, flush=True)
        except (OSError, ValueError):
            self.lost_lines += 1


class _Handler(logging.Handler):
    def __init__(self, say: Say) -> None:
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say(printable(self.format(record)))


class _JournalFormatter(logging.Formatter):
    """A line that begins with its priority (sd-daemon(3)), so that `journalctl -p` can choose."""

    def format(self, record: logging.LogRecord) -> str:
        priority = next(number for level, number in _PRIORITIES if record.levelno >= level)
        return f"<{priority}>{super().format(record)}"


_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.NOTSET, 7))


def set_up_logging(say: Say) -> None:
    """One event, one line on stderr; the journal stamps its lines itself."""
    handler = _Handler(say)
    handler.setFormatter(
        _JournalFormatter("%(name)s %(message)s")
        if is_journal(say.stream)
        else logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s", datefmt="%H:%M:%S")
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    for noisy in ("docker", "urllib3", "peewee"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def is_journal(stream: TextIO) -> bool:
    """Whether what is written goes to the journal (systemd.exec(5), `JOURNAL_STREAM`).

    The variable alone says nothing: a shell below a service inherits it.
    """
    try:
        about = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{about.st_dev}:{about.st_ino}"


def is_terminal(stream: TextIO | None = None) -> bool:
    """Whether colour and tables have somebody to look at them."""
    stream = stream or sys.stdout  # None where the descriptor was closed before we began
    return stream is not None and stream.isatty() and os.environ.get("TERM", "") != "dumb"
