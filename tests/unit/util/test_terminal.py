"""What a workload calls itself never steers a terminal, and a closed terminal never stops us."""

from __future__ import annotations

import io
import logging
import os
import unicodedata
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.util.terminal import Say, is_journal, is_terminal, printable, set_up_logging

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOSTILE = {
    "colours": ("\x1b[31mred", "\\x1b[31mred"),
    "a title of the window": ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
    "an 8-bit control sequence": ("\x9b2J", "\\x9b2J"),
    "a second line": ("a\nroot removed", "a\\x0aroot removed"),
    "overwriting the line": ("a\rb\x08", "a\\x0db\\x08"),
    "a reversed reading order": ("\u202egnp.exe", "\\x202egnp.exe"),
    "an invisible character": ("a\u200bb\ufeff", "a\\x200bb\\xfeff"),
    "a line separator": ("a\u2028b\u2029c\x85d", "a\\x2028b\\x2029c\\x85d"),
    "half a surrogate pair": ("\udc80", "\\xdc80"),
    "NUL": ("a\0b", "a\\x00b"),
    "delete": ("a\x7f", "a\\x7f"),
    "tags that hide text": ("a\U000e0041", "a\\xe0041"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_name_that_would_steer_a_terminal_is_shown_as_what_it_is(what: str) -> None:
    name, shown = HOSTILE[what]
    assert printable(name) == shown


@pytest.mark.parametrize("name", ["sleep", "niño", "进程", "é", "a b", "🙂", "", "a\\b"])
def test_a_name_that_only_has_letters_is_shown_as_it_is(name: str) -> None:
    assert printable(name) == name


@given(st.text())
def test_what_is_shown_is_one_line_and_can_be_encoded(name: str) -> None:
    shown = printable(name)
    shown.encode("utf-8")
    assert len(shown.splitlines()) <= 1
    assert not any(unicodedata.category(char).startswith("C") for char in shown)
    assert printable(shown) == shown


class Gone(io.StringIO):
    """A terminal that was closed: writing fails as on a hung-up tty."""

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")


@pytest.mark.parametrize("stream", ["gone", "closed"])
def test_a_stream_that_is_gone_is_counted_and_never_raised(stream: str) -> None:
    out = Gone() if stream == "gone" else io.StringIO()
    if stream == "closed":
        out.close()
    say = Say(out)
    say("one")
    say("two")
    assert say.lost_lines == 2


def test_a_name_that_the_stream_s_encoding_lacks_is_no_reason_to_stop() -> None:
    raw = io.BytesIO()
    say = Say(io.TextIOWrapper(raw, encoding="ascii"))
    say("niño")
    assert say.lost_lines + raw.getvalue().count(b"\n") == 1


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield root
    root.handlers, root.level = handlers, level


def test_a_hostile_name_in_a_log_line_stays_on_its_line(root_logger: logging.Logger) -> None:
    out = io.StringIO()
    set_up_logging(Say(out))
    logging.getLogger("agent.x").warning("name=%s", "a\nERROR agent.x all is lost\x1b[2J")
    assert out.getvalue().count("\n") == 1
    assert "\x1b" not in out.getvalue()
    assert "WARNING agent.x name=a" in out.getvalue()


def test_a_traceback_in_a_log_line_stays_on_its_line(root_logger: logging.Logger) -> None:
    out = io.StringIO()
    set_up_logging(Say(out))
    try:
        raise KeyError("odd")
    except KeyError:
        logging.getLogger("agent.x").exception("step=a")
    assert out.getvalue().count("\n") == 1


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[io.TextIOBase]:
    """A stream that the environment names as the journal's."""
    with (tmp_path / "journal").open("w+", encoding="utf-8") as stream:
        about = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{about.st_dev}:{about.st_ino}")
        yield stream


@pytest.mark.parametrize(
    ("level", "prefix"), [(10, "<7>"), (20, "<6>"), (30, "<4>"), (40, "<3>"), (50, "<3>")]
)
def test_the_journal_is_told_the_priority_and_no_time(
    journal: io.TextIOBase, root_logger: logging.Logger, level: int, prefix: str
) -> None:
    set_up_logging(Say(journal))  # type: ignore[arg-type]
    root_logger.setLevel(0)
    logging.getLogger("agent.x").log(level, "step=a")
    journal.seek(0)
    assert journal.read() == f"{prefix}agent.x step=a\n"


def test_a_terminal_below_a_service_is_not_taken_for_the_journal(
    journal: io.TextIOBase, tmp_path: Path
) -> None:
    assert is_journal(journal)  # type: ignore[arg-type]
    with (tmp_path / "terminal").open("w") as other:
        assert not is_journal(other)
    assert not is_journal(io.StringIO())


def test_a_pipe_a_dumb_terminal_and_no_stream_at_all_are_no_terminals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Tty(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    assert is_terminal(Tty())
    assert not is_terminal(io.StringIO())
    monkeypatch.setenv("TERM", "dumb")
    assert not is_terminal(Tty())
    monkeypatch.setattr("sys.stdout", None)
    assert not is_terminal()
