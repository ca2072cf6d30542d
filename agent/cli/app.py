"""The commands that people type: each parses, builds, calls and prints."""

from __future__ import annotations

import sys
from typing import Annotated, Optional

import typer
from typer._click.exceptions import NoArgsIsHelpError, UsageError
from typer.exceptions import TyperException

from agent import __version__
from agent.cli.commands import bpf, fleet, notify, policy
from agent.cli.commands.oom import oom
from agent.cli.commands.report import report
from agent.cli.commands.top import top
from agent.cli.commands.who import who
from agent.cli.options import (
    FLEET,
    LOOK,
    PROVE,
    RUN,
    ConfigOption,
    DatabaseOption,
    GroupedCommands,
    JsonOption,
)
from agent.config import Config, Scope, SourceChoice, load_config, with_overrides
from agent.errors import AgentError
from agent.util import streams

app = typer.Typer(
    name="agent",
    cls=GroupedCommands,
    help="Which container does a process belong to, what does it cost, and which one should go?",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.add_typer(policy.app, rich_help_panel=RUN)
app.add_typer(notify.app, rich_help_panel=RUN)
app.add_typer(bpf.app, rich_help_panel=PROVE)
app.add_typer(fleet.app, rich_help_panel=FLEET)


def _version(wanted: bool) -> None:
    if wanted:
        streams.out(f"agent {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Prints the version."),
    ] = False,
) -> None:
    """Which container does a process belong to, what does it cost, and which one should go?"""
    del version


@app.command(rich_help_panel=RUN)
def start(
    interval: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            "--interval", metavar="SECONDS", help="Time from tick to tick, 20 by default."
        ),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="One tick with removals; no cron, generator or Grafana.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Decide and record, but touch no container.")
    ] = False,
    scope: Annotated[
        Optional[Scope],  # noqa: UP045
        typer.Option("--scope", help="Govern our containers, or every unprotected one."),
    ] = None,
    source: Annotated[
        Optional[SourceChoice],  # noqa: UP045
        typer.Option("--source", help="Where processes are read."),
    ] = None,
    no_cron: Annotated[
        bool, typer.Option("--no-cron", help="No cron job and no first generation.")
    ] = False,
    no_bpf: Annotated[bool, typer.Option("--no-bpf", help="No second witness.")] = False,
    no_grafana: Annotated[bool, typer.Option("--no-grafana", help="No Grafana.")] = False,
    keep_grafana: Annotated[
        bool, typer.Option("--keep-grafana", help="Leave Grafana up at stop.")
    ] = False,
    config: ConfigOption = None,
    database: DatabaseOption = None,
) -> int:
    """Run the agent in the foreground; Ctrl-C takes down what it brought."""
    from agent.cli.commands import start as command

    return command.start(
        interval=interval,
        once=once,
        dry_run=dry_run,
        scope=scope,
        source=source,
        no_cron=no_cron,
        no_bpf=no_bpf,
        no_grafana=no_grafana,
        keep_grafana=keep_grafana,
        config=config,
        database=database,
    )


@app.command(rich_help_panel=RUN)
def stop(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave this installation's containers running.")
    ] = False,
    config: ConfigOption = None,
) -> int:
    """Stop the running agent and wait until it has taken everything down."""
    from agent.cli.commands import control
    from agent.sources.host_metrics import require_root

    settings = load_config(config)
    require_root("agent stop")
    return control.stop(settings, keep=keep)


@app.command(rich_help_panel=RUN)
def reload(config: ConfigOption = None) -> int:
    """Have the running agent go by the rules as the settings have them now. 3: none runs."""
    from agent.cli.commands import control
    from agent.sources.host_metrics import require_root

    settings = load_config(config)
    require_root("agent reload")
    return control.reload(settings, config)


@app.command(rich_help_panel=RUN)
def status(
    as_json: JsonOption = False, config: ConfigOption = None, database: DatabaseOption = None
) -> int:
    """What the agent does, since when, and what does not work. Exit status 3: it is not running."""
    from agent.cli.commands import control
    from agent.sources.host_metrics import require_root

    settings = with_overrides(load_config(config), paths__database=database)
    require_root("agent status")
    return control.status(settings, as_json=as_json)


@app.command(rich_help_panel=RUN)
def cleanup(config: ConfigOption = None, database: DatabaseOption = None) -> int:
    """Remove what an agent that was killed left behind; refuses beside a live one."""
    from agent.cli.commands import control
    from agent.sources.host_metrics import require_root

    settings = with_overrides(load_config(config), paths__database=database)
    require_root("agent cleanup")
    return control.cleanup(settings)


@app.command(rich_help_panel=LOOK)
def doctor(
    as_json: JsonOption = False, config: ConfigOption = None, database: DatabaseOption = None
) -> int:
    """What this host can and cannot do, and the remedy. Exit status 1: the agent cannot run."""
    from agent.cli.commands import doctor as command

    return command.doctor(config, database, as_json=as_json)


app.command(rich_help_panel=LOOK)(oom)
app.command(rich_help_panel=LOOK)(report)
app.command(rich_help_panel=LOOK)(top)
app.command(rich_help_panel=LOOK)(who)


def run(arguments: list[str] | None = None) -> int:
    """Runs a command line and gives its exit status; usage errors are one sentence, status 2."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        result = app(args=words or ["--help"], prog_name="agent", standalone_mode=False)
    except typer.Exit as end:
        return end.exit_code
    except NoArgsIsHelpError as error:
        streams.out(error.format_message())
        return error.exit_code
    except TyperException as error:
        sentence = error.format_message().rstrip(".") + "."
        context = error.ctx if isinstance(error, UsageError) else None
        command = context.command_path if context else "agent"
        raise UsageProblemError(sentence, f"See `{command} --help`.") from error
    return result if isinstance(result, int) else 0


class UsageProblemError(AgentError):
    """The command line is not one of ours."""

    exit_status = 2


__all__ = ["Config", "app", "run"]
