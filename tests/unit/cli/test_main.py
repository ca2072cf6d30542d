"""The console script's ends: each error is a sentence or a status, none a traceback."""

from __future__ import annotations

import sys

import pytest

from agent import __main__ as entry
from agent.errors import AgentError
from agent.util import streams


@pytest.fixture(autouse=True)
def _streams_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "prepare", lambda: None)
    monkeypatch.setattr(streams, "settle", lambda: None)


ENDS: dict[str, tuple[int | BaseException, int, str]] = {
    "a number of the command's": (3, 3, ""),
    "an error with a remedy": (
        AgentError("The \x1b[2Jdisk is full.", "Make room."),
        1,
        "agent: The \\x1b[2Jdisk is full.\n       Make room.\n",
    ),
    "an error without a word": (AgentError("", ""), 1, ""),
    "Ctrl-C": (KeyboardInterrupt(), 130, ""),
    "a reader that is gone": (BrokenPipeError(), 141, ""),
    "a file": (
        FileNotFoundError(2, "No such file or directory", "/a\nb"),
        1,
        "agent: /a\\x0ab: No such file or directory.\n",
    ),
    "the system": (OSError("no words"), 1, "agent: no words.\n"),
}


@pytest.mark.parametrize("what", ENDS)
def test_every_end_of_a_command_has_its_status_and_its_sentence(
    what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome, status, said = ENDS[what]

    def run() -> int:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setattr("agent.cli.app.run", run)
    with pytest.raises(SystemExit) as end:
        entry.main()
    assert end.value.code == status
    assert capsys.readouterr() == ("", said)


@pytest.mark.parametrize("module", ["agent.cli.app", "agent.util.streams"])
def test_an_installation_that_is_not_whole_is_named_with_how_to_make_it_so(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    if module == "agent.util.streams":
        monkeypatch.delattr("agent.util.streams")
    with pytest.raises(SystemExit) as end:
        entry.main()
    assert end.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("agent: its installation is not whole: ")
    assert "start.sh --install-only" in said
