"""Man pages and completions name what `--help` names: each command and each of its options.

The oracle is the text of `--help`, which another code writes.
"""

from __future__ import annotations

import re
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from agent.cli.app import app
from agent.cli.documents.completions import completion_files
from agent.cli.documents.man import manual_pages
from agent.cli.documents.tree import read_tree
from agent.cli.options import GroupedCommands

_EPOCH_DAY = 1_700_000_000
_ROW = re.compile(r"^  ([a-z][a-z-]*) ", re.M)
_OPTION = re.compile(r"^  (?:(-\w), )?(--?[a-z][a-z-]*)", re.M)


def helps(application: typer.Typer, words: tuple[str, ...] = ()) -> dict[str, str]:
    """`agent WORDS` → its help, for every command that the helps themselves name."""
    text = CliRunner().invoke(application, [*words, "--help"], prog_name="agent").output
    found = {" ".join(("agent", *words)): text}
    if "COMMAND" in text.splitlines()[0]:
        commands = text.split("Options:")[1]
        for name in _ROW.findall(commands):
            found |= helps(application, (*words, name))
    return found


def options_in(text: str) -> set[str]:
    return {word for pair in _OPTION.findall(text) for word in pair if word}


HELPS = helps(app)


def plain(page: str) -> str:
    return re.sub(r"\\f[BIR]", "", page).replace("\\-", "-")


def test_the_help_names_more_than_a_dozen_commands() -> None:
    assert len(HELPS) > 12
    assert "--canary" in options_in(HELPS["agent bpf check"])


@pytest.mark.parametrize("command", HELPS)
def test_a_command_has_a_page_with_each_of_its_options_and_commands(command: str) -> None:
    pages = manual_pages(read_tree(), _EPOCH_DAY)
    page = plain(pages[command.replace(" ", "-") + ".1"])
    assert options_in(HELPS[command]) <= set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", page))
    for other in HELPS:
        if other.rpartition(" ")[0] == command:
            assert f".BR {other.replace(' ', '-')} (1)" in page


def test_each_page_belongs_to_a_command_and_carries_the_given_date() -> None:
    pages = manual_pages(read_tree(), _EPOCH_DAY)
    assert set(pages) == {f"{one.replace(' ', '-')}.1" for one in HELPS}
    assert all('1 "2023-11-14"' in page.splitlines()[0] for page in pages.values())


def test_a_line_of_help_that_looks_like_a_macro_stays_text() -> None:
    odd = typer.Typer(rich_markup_mode=None)

    @odd.callback(invoke_without_command=True)
    def agent(
        x: Annotated[bool, typer.Option("--x", help=".so /etc/passwd")] = False,
        y: Annotated[bool, typer.Option("--y", help="one. 'two \\fBthree")] = False,
    ) -> None:
        """Odd."""

    page = manual_pages(read_tree(odd), _EPOCH_DAY)["agent.1"]
    assert "\n\\&.so /etc/passwd\n" in page
    assert "\n\\&'two \\efBthree\n" in page


def test_a_new_command_is_documented_and_completed_without_a_list() -> None:
    more = typer.Typer(cls=GroupedCommands, rich_markup_mode=None)

    @more.command(rich_help_panel="New")
    def brand_new(loud: Annotated[bool, typer.Option("--loud", help="Loudly.")] = False) -> None:
        """Do it."""

    @more.command(hidden=True)
    def secret() -> None:
        """Nobody's."""

    tree = read_tree(more)
    pages = manual_pages(tree, _EPOCH_DAY)
    assert set(pages) == {"agent.1", "agent-brand-new.1"}
    assert "--loud" in plain(pages["agent-brand-new.1"])
    for text in completion_files(tree).values():
        assert "brand-new" in text
        assert "loud" in text
        assert "secret" not in text


def test_the_help_groups_commands_and_lists_each_once() -> None:
    text = HELPS["agent"]
    headings = re.findall(r"^(\S.*):$", text, re.M)
    assert headings[:2] == ["Options", "Run it"]
    assert len(headings) >= 5
    rows = _ROW.findall(text)
    assert len(rows) == len(set(rows))
    assert {"start", "stop", "cleanup"} < set(rows)
    assert text.index("Run it:") < text.index("  start ") < text.index("Look at this host:")


@pytest.mark.parametrize(
    "name", ["bash-completion/completions/agent", "zsh/vendor-completions/_agent"]
)
def test_a_completion_offers_each_command_with_each_of_its_words(name: str) -> None:
    script = completion_files(read_tree())[name]
    table = script[script.rindex('case "$route" in') :]
    for command, text in HELPS.items():
        line = next(one for one in table.splitlines() if f"'{command}')" in one)
        for word in options_in(text):
            assert word in line
