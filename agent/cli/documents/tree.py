"""The commands of `agent` as values: what a manual page or a completion says of each.

Read from typer's own tree, so that a command which is added is documented without a list here.
"""

from __future__ import annotations

from dataclasses import dataclass

import typer

from agent.cli.app import app

FILES = ("FILE", "PATH", "DIR")
"""Metavars whose value is a path."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """An option, or an argument where `words` is empty."""

    words: tuple[str, ...]
    metavar: str
    """What its value is called, empty for a switch."""
    choices: tuple[str, ...]
    help: str

    @property
    def takes_path(self) -> bool:
        return self.metavar in FILES


@dataclass(frozen=True, slots=True)
class CommandPage:
    """One command or group of commands."""

    path: tuple[str, ...]
    """Its words, `agent` first."""
    summary: str
    """One sentence at most, without a full stop."""
    help: str
    heading: str
    """Which group of `agent --help` it is in."""
    parameters: tuple[Parameter, ...]
    commands: tuple[CommandPage, ...]

    @property
    def name(self) -> str:
        """As its manual page is called: `agent-bpf-trace`."""
        return "-".join(self.path)

    @property
    def options(self) -> tuple[Parameter, ...]:
        return tuple(one for one in self.parameters if one.words)

    @property
    def arguments(self) -> tuple[Parameter, ...]:
        return tuple(one for one in self.parameters if not one.words)

    def walk(self) -> tuple[CommandPage, ...]:
        """Itself, and all below it."""
        return (self, *(page for one in self.commands for page in one.walk()))


def read_tree(application: typer.Typer = app) -> CommandPage:
    """The whole command line; hidden commands and options are left out."""
    return _page(typer.main.get_command(application), ("agent",))


def _page(command: object, path: tuple[str, ...]) -> CommandPage:
    text = " ".join(str(getattr(command, "help", None) or "").split())
    found = [_parameter(one) for one in getattr(command, "params", ()) if not _is_hidden(one)]
    shown_help = Parameter(("--help",), "", (), "Show this message and exit.")
    below = getattr(command, "commands", {})
    return CommandPage(
        path=path,
        summary=text.split(". ")[0].rstrip("."),
        help=text,
        heading=str(getattr(command, "rich_help_panel", None) or "Commands"),
        parameters=(*found, shown_help),
        commands=tuple(
            _page(one, (*path, name)) for name, one in below.items() if not _is_hidden(one)
        ),
    )


def _is_hidden(one: object) -> bool:
    return bool(getattr(one, "hidden", False))


def _parameter(one: object) -> Parameter:
    is_option = getattr(one, "param_type_name", "") == "option"
    words = [*getattr(one, "opts", ()), *getattr(one, "secondary_opts", ())] if is_option else []
    kind = getattr(one, "type", None)
    choices = tuple(str(word) for word in getattr(kind, "choices", ()) or ())
    metavar = str(getattr(one, "metavar", None) or "")
    if not metavar and not getattr(one, "is_flag", False):
        metavar = "|".join(choices) or str(getattr(kind, "name", "value")).split()[0].upper()
    return Parameter(
        words=tuple(sorted(words, key=len)),
        metavar=metavar,
        choices=choices,
        help=" ".join(str(getattr(one, "help", None) or "").split()),
    )
