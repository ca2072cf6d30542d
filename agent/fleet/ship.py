"""`agent fleet ship`: one flush, with as few imports as it can do.

The agent runs it each `flush_s`, and most of what it costs is the start of its Python.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agent.config import load_config, with_overrides
from agent.errors import AgentError
from agent.fleet.environment import enter_environment, require_root
from agent.place import SETTINGS

_OPTIONS = ("--config", "--database")


def ship(config: Path | None, database: str | None) -> str:
    """Ships what this host has and the centre has not; one line that says what came of it."""
    settings = with_overrides(load_config(config), paths__database=database)
    require_root("agent fleet ship")
    enter_environment(settings)
    # After that: without the driver there is nothing to import.
    from agent.fleet.secret import read_secret  # noqa: PLC0415
    from agent.fleet.shipper import Identity, flush  # noqa: PLC0415
    from agent.store.installation import existing_installation_id  # noqa: PLC0415

    fleet = settings.fleet
    if not fleet.dsn:
        raise AgentError("No centre is set.", f"Set dsn under [fleet] in {SETTINGS}.")
    path = Path(settings.paths.database)
    installation = existing_installation_id(path.parent)
    if installation is None:
        raise AgentError("This host has no installation's id yet.", "Start the agent once.")
    identity = Identity(installation, read_secret(Path(fleet.secret_file)))
    done = flush(path, fleet.dsn, identity, fleet.options)
    begun = f", a new epoch ({done.begun})" if done.begun else ""
    return f"{done.rows} rows shipped{begun}."


def plain_options(words: Sequence[str]) -> dict[str, str] | None:
    """The words after `agent fleet ship` as the agent writes them; None for any others.

    Those are the command line's to parse, whose library takes as long to import as the driver.
    """
    names, values = words[::2], words[1::2]
    if len(names) != len(values) or len(set(names)) != len(names):
        return None
    if any(name not in _OPTIONS for name in names) or any(one.startswith("-") for one in values):
        return None
    return {name.removeprefix("--"): value for name, value in zip(names, values, strict=True)}
