"""`agent policy`: what the rules are, and whether they can be meant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from agent.config import DEFAULT_CONFIG, Config, load_config
from agent.errors import ConfigError
from agent.util import streams

app = typer.Typer(
    name="policy",
    help="Which rules there are, and what they say of the containers.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ConfigOption = Annotated[
    Optional[Path],  # noqa: UP045 - typer reads it at run time on 3.11
    typer.Option("--config", metavar="FILE", help="Settings, instead of /etc/so1/agent.toml."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON instead of text.")]
_PSI = Path("/proc/pressure/memory")


@app.command()
def check(
    file: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Argument(metavar="FILE", help="Settings, /etc/so1/agent.toml by default."),
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> int:
    """Whether the rules of a file can be meant, each fault with its rule and line. No agent needed.

    Exit status 2: they cannot.
    """
    from agent.policy import original
    from agent.policy.notes import notes
    from agent.util.terminal import printable

    file = file or config
    try:
        settings = load_config(file)
    except ConfigError as error:
        if not as_json:
            raise
        streams.out(streams.json_text({"ok": False, "problems": [error.message], "notes": []}))
        return error.exit_status
    said = notes(settings.policy, has_psi=_PSI.exists())
    if as_json:
        streams.out(streams.json_text({"ok": True, "problems": [], "notes": list(said)}))
        return 0
    rules = original.rule_set(settings.policy)
    own, built_in = len(rules.own), len(rules.built_in)
    streams.out(
        f"{file or DEFAULT_CONFIG}: {own} rules of your own, {built_in} built-in. No fault."
    )
    for note in said:
        streams.out(printable(note))
    return 0


@app.command()
def show(as_json: JsonOption = False, config: ConfigOption = None) -> int:
    """All rules in the order in which they claim, the built-in set among them."""
    from agent.cli.views.policy import rules_text, rules_value
    from agent.policy import original

    settings: Config = load_config(config)
    rules = original.rule_set(settings.policy)
    if as_json:
        reach = str(original.reach(settings.policy))
        value = {"rules": rules_value(rules), "built_in_reach": reach}
        streams.out(streams.json_text(value))
    else:
        streams.out(rules_text(rules))
    return 0
