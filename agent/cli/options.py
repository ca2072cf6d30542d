"""Options that several commands have, each described once, and the groups of `agent --help`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from typer._click import Context, HelpFormatter

ConfigOption = Annotated[
    Optional[Path],  # noqa: UP045 - typer reads it at run time on 3.11
    typer.Option("--config", metavar="FILE", help="Settings, instead of /etc/so1/agent.toml."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]
AtOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--at",
        metavar="TIME",
        help="As it was then: 14:02, 2026-11-28 14:02:11, or a span ago, 2h.",
    ),
]
DatabaseOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--database", metavar="PATH", help="The SQLite file, /var/lib/so1/metrics.db."),
]

RUN = "Run it"
LOOK = "Look at this host"
PROVE = "Kernel events and proof"
FLEET = "Many hosts"
"""Headings of `agent --help`; a command that names none comes below «Commands»."""


class GroupedCommands(TyperGroup):
    """Lists commands below the heading that each names (`rich_help_panel`), in plain text.

    typer itself does so only in the boxes that it draws with rich, which no pipe wants.
    """

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        names = self.list_commands(ctx)
        width = max(map(len, names), default=0)
        for name in names:
            command = self.get_command(ctx, name)
            if command is None or command.hidden:
                continue
            heading = getattr(command, "rich_help_panel", None)
            rows = groups.setdefault(heading if isinstance(heading, str) else "Commands", [])
            about = command.get_short_help_str(formatter.width - 6 - width)
            rows.append((name.ljust(width), about))
        for heading, rows in groups.items():
            with formatter.section(heading):
                formatter.write_dl(rows)
