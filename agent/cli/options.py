"""Options that several commands have, each described once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

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
