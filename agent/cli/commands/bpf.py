"""`agent bpf`: the second witness, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from agent.cli.options import ConfigOption, JsonOption
from agent.config import load_config
from agent.errors import ConfigError

_LONGEST_S = 10**9

app = typer.Typer(
    name="bpf",
    help="What the kernel's own events say of processes and containers.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def trace(
    container: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--container",
            "-c",
            metavar="NAME",
            help="Only this container (name or id); repeatable.",
        ),
    ] = None,
    pid: Annotated[
        int,
        typer.Option("--pid", "-p", min=0, max=1 << 22, help="Only this process and its children."),
    ] = 0,
    comm: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--comm", "-n", metavar="NAME", help="Only this command; repeatable."),
    ] = None,
    event: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--event",
            "-e",
            metavar="KIND",
            help="Only fork, exec, exit, attach, mkdir, rmdir or oom; repeatable.",
        ),
    ] = None,
    duration: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option("--duration", "-d", metavar="SECONDS", min=0, help="End by itself."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    config: ConfigOption = None,
) -> int:
    """What starts, ends and moves on this host, live, with its container's name."""
    from agent.cli.commands.bpf_trace import Wanted, trace_events
    from agent.cli.views.trace import Filter, Kind
    from agent.clock import SystemClock
    from agent.sources.host_metrics import require_root

    if duration is not None and not duration <= _LONGEST_S:  # NaN is neither
        raise ConfigError(f"--duration {duration:g} is no time to wait.", "Give seconds: 60.")
    settings = load_config(config)
    kinds = frozenset(Kind(one) for one in _words(event, [str(kind) for kind in Kind][:-2]))
    require_root("agent bpf trace")
    wanted = Wanted(
        events=kinds,
        filter=Filter(frozenset(container or ()), frozenset(comm or ())),
        pid=pid,
        duration_s=duration,
        as_json=as_json,
    )
    return trace_events(wanted, settings.engines, SystemClock(), Path(settings.paths.bpf))


@app.command()
def check(
    canary: Annotated[
        bool,
        typer.Option("--canary", help="Prove it with a throw-away container of known life."),
    ] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> int:
    """What each witness says of every containerised process. Exit status 1: a conflict stands."""
    from agent.cli.commands import bpf_check
    from agent.clock import SystemClock
    from agent.selftest import examination
    from agent.sources.host_metrics import require_root

    settings = load_config(config)
    require_root("agent bpf check")
    run = examination.run if canary else bpf_check.check
    return run(settings, SystemClock(), as_json=as_json)


def _words(given: list[str] | None, known: list[str]) -> list[str]:
    words = [word for one in given or () for word in one.split(",") if word]
    for word in words:
        if word not in known:
            raise ConfigError(f"{word!r} is no kind of event.", f"There are {', '.join(known)}.")
    return words
