"""`agent policy`: what the rules are, and whether they can be meant."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from agent.cli.commands.policy_arming import arm, disarm
from agent.cli.options import ConfigOption, DatabaseOption
from agent.config import DEFAULT_CONFIG, Config, load_config, with_overrides
from agent.errors import AgentError, ConfigError
from agent.util import streams

if TYPE_CHECKING:
    from agent.cli.commands.policy_look import Look

app = typer.Typer(
    name="policy",
    help="Which rules there are, and what they say of the containers.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

JsonOption = Annotated[bool, typer.Option("--json", help="JSON instead of text.")]
_PROC = Path("/proc")
_SHORTEST_ID = 4


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
    from agent.sources import activity
    from agent.sources.memory_pressure import why_missing, why_no_trigger
    from agent.util.terminal import printable

    file = file or config
    try:
        settings = load_config(file)
    except ConfigError as error:
        if not as_json:
            raise
        streams.out(streams.json_text({"ok": False, "problems": [error.message], "notes": []}))
        return error.exit_status
    missing = why_missing(_PROC)
    no_psi = missing.sentence if missing else ""
    no_trigger = why_no_trigger(_PROC) if os.geteuid() == 0 and missing is None else ""
    said = notes(
        settings.policy,
        has_psi=not missing,
        no_psi=no_psi,
        no_trigger=no_trigger,
        io_problem=activity.host_io_problem(),
    )
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


@app.command()
def why(
    container: Annotated[str, typer.Argument(metavar="CONTAINER", help="Its name or its id.")],
    as_json: JsonOption = False,
    config: ConfigOption = None,
    database: DatabaseOption = None,
) -> int:
    """Every rule held against one container, each condition's value beside its threshold."""
    from agent.cli.commands.policy_look import look
    from agent.cli.views.policy import explanation_text
    from agent.policy.explain import explain
    from agent.sources.host_metrics import require_root
    from agent.util.terminal import printable

    settings = with_overrides(load_config(config), paths__database=database)
    require_root("agent policy why")
    seen = look(settings)
    exact = [one for one in seen.totals if container in (one.container.name, one.container.id)]
    found = exact or [
        one
        for one in seen.totals
        if len(container) >= _SHORTEST_ID and one.container.id.startswith(container)
    ]
    if len(found) != 1:
        many = "Several containers begin" if found else "No container has this name or begins"
        raise AgentError(
            f"{many} with {printable(container)[:128]}.", "Look at `sudo docker ps -a`."
        )
    one = found[0]
    protected = seen.protected.get(one.container.id)
    told = explain(one, protected, seen.rules, seen.explained(), seen.now, seen.installation)
    if as_json:
        streams.out(streams.json_text({"container": told, "figures_age_s": _age(seen)}))
    else:
        streams.out(explanation_text(told))
        _say_where_stale(seen, settings)
    return 0


@app.command()
def plan(
    free: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--free", metavar="SIZE", help="The fewest containers that hold so much: 4G, 800M."
        ),
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    database: DatabaseOption = None,
) -> int:
    """What the rules would do now, in order; `--json` is what `apply` takes. Touches nothing."""
    from agent.cli.commands import policy_free
    from agent.cli.commands.policy_look import look
    from agent.cli.views.policy import plan_text
    from agent.daemon.trust import word_on_disk
    from agent.policy import plan as plans
    from agent.sources.host_metrics import require_root
    from agent.util.terminal import printable

    settings = with_overrides(load_config(config), paths__database=database)
    require_root("agent policy plan")
    target_mb = None if free is None else policy_free.target_mb(free)
    seen = look(settings)
    if target_mb is None:
        due, reclaim = seen.due(), None
    else:
        due, reclaim = policy_free.choose(settings, seen, target_mb)
    if as_json:
        streams.out(streams.json_text(plans.make(due, seen.totals, _age(seen), reclaim)))
    else:
        streams.out(plan_text(due))
        if reclaim is not None:
            streams.out(policy_free.reclaim_text(reclaim))
        if at_it := [
            one.container.name for one in seen.totals if one.container.key in seen.under_way
        ]:
            streams.out(f"The agent is at {printable(', '.join(at_it))} already.")
        word = word_on_disk(Path(settings.paths.database))
        if not word.armed:
            streams.out(
                f"The policy is disarmed ({printable(word.why)}): nothing of it is done until "
                "that is over."
            )
        _say_where_stale(seen, settings)
    return 0


@app.command()
def apply(
    file: Annotated[Path, typer.Argument(metavar="PLAN", help="What `plan --json` printed.")],
    as_json: JsonOption = False,
    config: ConfigOption = None,
    database: DatabaseOption = None,
) -> int:
    """Carry out what of a plan still holds, and name the rest. Exit status 1: something failed."""
    from agent.cli.commands import policy_apply
    from agent.sources.host_metrics import require_root

    settings = with_overrides(load_config(config), paths__database=database)
    require_root("agent policy apply")
    return policy_apply.apply(settings, file, as_json=as_json)


@app.command()
def replay(
    since: Annotated[
        str, typer.Option("--since", metavar="SPAN", help="How far back: 90s, 30m, 6h, 30d.")
    ] = "7d",
    other: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--with", metavar="FILE", help="Settings with other rules than those of now."),
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    database: DatabaseOption = None,
) -> int:
    """Decide on the history again: as it was decided, or what other rules would have done."""
    from agent.cli.commands import policy_replay

    settings = with_overrides(load_config(config), paths__database=database)
    rules = None if other is None else load_config(other).policy
    return policy_replay.replay(settings, since, rules, as_json=as_json)


app.command()(disarm)
app.command()(arm)


def _age(seen: Look) -> float | None:
    return round(seen.age_s, 1) if math.isfinite(seen.age_s) else None


def _say_where_stale(seen: Look, settings: Config) -> None:
    if seen.is_stale(settings.interval_s):
        age = _age(seen)
        old = "No tick is stored" if age is None else f"The last tick is {age:.0f} s old"
        streams.out(f"{old}: figures of memory and CPU are not those of now. Is the agent running?")
