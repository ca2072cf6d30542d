"""Manual pages in man(7): one a command, as `git` and `docker` have them."""

from __future__ import annotations

import time

from agent import __version__, errors
from agent.cli.commands.control import NOT_RUNNING
from agent.cli.documents.tree import CommandPage, Parameter
from agent.config import DEFAULT_CONFIG, Config

_ESCAPES = str.maketrans({"\\": "\\e", "-": "\\-", "^": "\\(ha", "~": "\\(ti", "`": "\\(ga"})


def manual_pages(tree: CommandPage, made_s: int) -> dict[str, str]:
    """File name → text of each page; `made_s` is the moment (Unix time) that they are dated by."""
    date = time.strftime("%Y-%m-%d", time.gmtime(made_s))
    return {f"{page.name}.1": _manual(page, tree, date) for page in tree.walk()}


def _manual(page: CommandPage, tree: CommandPage, date: str) -> str:
    lines = [
        f'.TH {_text(page.name.upper())} 1 "{date}" "so1 agent {_text(__version__)}" "so1 agent"',
        ".SH NAME",
        f"{_text(page.name)} \\- {_text(page.summary)}",
        ".SH SYNOPSIS",
        f".B {_text(' '.join(page.path))}",
        *_synopsis(page),
        ".SH DESCRIPTION",
        _line(page.help),
    ]
    if page.commands:
        lines += _commands(page)
    if page.arguments:
        lines += [".SH ARGUMENTS", *(line for one in page.arguments for line in _entry(one))]
    lines += [".SH OPTIONS", *(line for one in page.options for line in _entry(one))]
    if len(page.path) == 1:
        lines += [*_exit_status(), *_files()]
    lines += _see_also(page, tree)
    return "\n".join(lines) + "\n"


def _synopsis(page: CommandPage) -> list[str]:
    lines = [".RI [ OPTIONS ]"] if page.options else []
    lines += [f".I {_text(one.metavar)}" for one in page.arguments]
    if page.commands:
        lines += [".I COMMAND", ".RI [ ARGUMENTS ]"]
    return lines


def _commands(page: CommandPage) -> list[str]:
    lines = [".SH COMMANDS"]
    headings = list(dict.fromkeys(one.heading for one in page.commands))
    for heading in headings:
        if len(headings) > 1:
            lines.append(f".SS {_text(heading)}")
        for one in page.commands:
            if one.heading == heading:
                lines += [".TP", f".BR {_text(one.name)} (1)", _line(one.help)]
    return lines


def _entry(one: Parameter) -> list[str]:
    """An option or an argument with its help."""
    value = f"\\fI{_text(one.metavar)}\\fR" if one.metavar else ""
    head = ", ".join(f"\\fB{_text(word)}\\fR" for word in one.words)
    return [".TP", f"{head} {value}".strip(), _line(one.help or one.metavar)]


def _exit_status() -> list[str]:
    kinds = {
        kind.exit_status: kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.AgentError)
    }
    lines = [".SH EXIT STATUS", ".TP", ".B 0", "Done."]
    for status, kind in sorted(kinds.items()):
        about = (kind.__doc__ or "").split("\n")[0].split(":")[0].rstrip(".")
        if kind is errors.AgentError:
            about = "It could not be done"
        if status == NOT_RUNNING:
            # As 1.0 had it, and as a service's status has it: two meanings of one number.
            about += "; of `agent status` and `agent reload` also: no agent runs"
        lines += [".TP", f".B {status}", _line(f"{about}.")]
    return [*lines, ".PP", "Each is one sentence on standard error, with the remedy."]


def _files() -> list[str]:
    paths = Config().paths
    described = {
        str(DEFAULT_CONFIG): "Settings (TOML); all are optional.",
        paths.database: "The history (SQLite).",
        paths.run: "Locks and the state of the running agent.",
        paths.log: "Logs of the generated load and of Docker.",
    }
    lines = [".SH FILES"]
    for path, about in described.items():
        lines += [".TP", f".I {_text(path)}", _line(about)]
    return lines


def _see_also(page: CommandPage, tree: CommandPage) -> list[str]:
    parent = page.path[:-1]
    near = [one for one in tree.walk() if one.path == parent or one.path[:-1] == parent]
    names = sorted({one.name for one in near if one.name != page.name})
    if not names:
        return []
    ends = [","] * (len(names) - 1) + [""]
    return [
        ".SH SEE ALSO",
        *(f".BR {_text(name)} (1){end}" for name, end in zip(names, ends, strict=True)),
    ]


def _text(text: str) -> str:
    return text.translate(_ESCAPES)


def _line(text: str) -> str:
    """A line of text, which no macro begins; sentences begin lines, as man(7) asks."""
    sentences = _text(text).replace(". ", ".\n").split("\n")
    return "\n".join(f"\\&{one}" if one[:1] in (".", "'") else one for one in sentences)
