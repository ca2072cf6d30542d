"""`agent fleet …`: the centre made, hosts let in, this host's rows shipped, everybody's looked at.

Runs in an environment of its own, which has the driver for PostgreSQL; the agent's has none.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from agent.cli.options import ConfigOption, JsonOption
from agent.config import load_config
from agent.errors import AgentError
from agent.fleet.environment import enter_environment, require_root
from agent.util import streams
from agent.util.terminal import Say, printable

app = typer.Typer(name="fleet", help="Many hosts in one PostgreSQL.", no_args_is_help=True)

Dsn = Annotated[str, typer.Argument(metavar="DSN", help="libpq's connection string, as admin.")]
Installation = Annotated[
    str, typer.Argument(metavar="ID", help="The host's id, in /var/lib/so1/installation.")
]


@app.command()
def init(
    dsn: Dsn,
    facts_days: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--facts-days", min=1, max=7300, help="How long facts stay (400)."),
    ] = None,
    figures_days: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--figures-days", min=1, max=7300, help="How long figures stay (90)."),
    ] = None,
    new_password: Annotated[
        bool, typer.Option("--new-password", help="A new password for the hosts' login role.")
    ] = False,
    shard: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--shard", metavar="NAME", help="How a hub calls this centre."),
    ] = None,
    config: ConfigOption = None,
) -> int:
    """Make the centre's schema and roles, or bring them up to date; run it daily (cron)."""
    enter_environment(load_config(config))
    from agent.fleet import centre, schema
    from agent.fleet.connection import connected

    # A password that could not be printed may not be in force: nobody would have it.
    with connected(dsn) as connection, connection.transaction():
        made = centre.initialise(connection, facts_days, figures_days, shard)
        password = made.password or (centre.new_password(connection) if new_password else "")
        streams.out("The schema was there." if made.was_there else "The schema is made.")
        streams.out(f"Partitions: {made.partitions} made, {made.dropped} dropped.")
        if password:
            streams.out(f"Password of {schema.AGENT}, shown this once: {password}")
    if not made.is_superuser:
        Say(sys.stderr)(
            "Not a superuser: docs/fleet.md has what only a superuser can set or take away"
            " (log_parameter_max_length = 0 first of all)."
        )
    return 0


@app.command()
def enroll(
    dsn: Dsn,
    installation: Installation,
    name: Annotated[str, typer.Option("--name", help="How people call the host.")] = "",
    config: ConfigOption = None,
) -> int:
    """Let a host in. Prints its secret, which is kept nowhere else, and nothing beside."""
    enter_environment(load_config(config))
    from agent.fleet import centre
    from agent.fleet.connection import connected

    with connected(dsn) as connection, connection.transaction():
        streams.out(centre.enroll(connection, installation, name or installation[:12]))
    return 0


@app.command()
def rotate(dsn: Dsn, installation: Installation, config: ConfigOption = None) -> int:
    """A new secret for a host; the old one is worth nothing once it is printed."""
    enter_environment(load_config(config))
    from agent.fleet import centre
    from agent.fleet.connection import connected

    with connected(dsn) as connection, connection.transaction():
        streams.out(centre.rotate(connection, installation))
    return 0


@app.command()
def forget(dsn: Dsn, installation: Installation, config: ConfigOption = None) -> int:
    """Remove a host, its secret and all its rows from the centre."""
    enter_environment(load_config(config))
    from agent.fleet import centre
    from agent.fleet.connection import connected

    with connected(dsn) as connection:
        rows = centre.forget(connection, installation)
    streams.out(f"Forgotten, with {rows} rows.")
    return 0


@app.command()
def ship(
    config: ConfigOption = None,
    database: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--database", metavar="PATH", help="The SQLite file."),
    ] = None,
) -> int:
    """Ship what this host has and the centre has not, once; the agent runs this by itself."""
    from agent.fleet import ship as shipping

    streams.out(shipping.ship(config, database))
    return 0


@app.command()
def status(as_json: JsonOption = False, config: ConfigOption = None) -> int:
    """What of this host waits to be shipped, how old it is, and why. Exit status 1: a problem."""
    from agent.fleet import report

    settings = load_config(config)
    require_root("agent fleet status")
    found = report.host_status(settings)
    streams.out(json.dumps(found.as_json()) if as_json else report.plain_status(found))
    return 1 if found.problem else 0


@app.command()
def hub(
    dsn: Dsn,
    shards: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--shards", metavar="FILE", help="Lines of NAME and DSN, to add or change."),
    ] = None,
    config: ConfigOption = None,
) -> int:
    """Make a database that reads several centres as one, or say which of them answer (status 1)."""
    enter_environment(load_config(config))
    from agent.fleet import hub as reading
    from agent.fleet.connection import connected

    with connected(dsn) as connection:
        found = reading.initialise(connection, _shards(shards))
    for one in found:
        state = "answers" if one.answers else f"is missing: {one.problem}"
        streams.out(printable(f"{one.name}  {state}"))
    return 0 if all(one.answers for one in found) else 1


def _shards(file: Path | None) -> dict[str, str]:
    """Not on the command line: there are passwords in them."""
    if file is None:
        return {}
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AgentError(f"{file} cannot be read.", "Lines of NAME and DSN, in UTF-8.") from error
    return {name: dsn for name, _, dsn in (line.strip().partition(" ") for line in lines) if name}


@app.command()
def top(
    dsn: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--dsn", metavar="DSN", help="The centre as a reader (so1_reader)."),
    ] = None,
    number: Annotated[int, typer.Option("-n", min=1, max=1000, help="So many of each.")] = 10,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> int:
    """All hosts: which are silent or not to be trusted, and which containers hold most."""
    settings = load_config(config)
    enter_environment(settings)
    from agent.cli.views.fleet_top import plain_top
    from agent.fleet import report
    from agent.fleet.connection import connected

    where = dsn or settings.fleet.dsn
    if not where:
        raise AgentError("No centre is named.", "Name it: agent fleet top --dsn DSN.")
    with connected(where, reads_only=True) as connection:
        found = report.fleet_top(connection, number)
    streams.out(json.dumps(found.as_json()) if as_json else plain_top(found))
    return 0
