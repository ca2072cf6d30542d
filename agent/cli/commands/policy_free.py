"""`agent policy plan --free 4G`: the fewest containers that hold so much, and what may come."""

from __future__ import annotations

from pathlib import Path

from agent.cli.commands.policy_look import Look
from agent.config import Config
from agent.errors import AgentError, ConfigError
from agent.model.removal import Decision
from agent.policy import reclaim as reclaiming
from agent.policy.reclaim import Reclaim
from agent.store.queries import History
from agent.util.terminal import printable


def target_mb(text: str) -> float:
    """Raises ConfigError for what is no amount of memory."""
    found = reclaiming.megabytes(text)
    if found is None:
        raise ConfigError(
            f"--free {printable(text)[:64]} is no amount of memory.",
            "Write it as 800M, 4G or 1.5G.",
        )
    return found


def choose(config: Config, seen: Look, target: float) -> tuple[tuple[Decision, ...], Reclaim]:
    """The plan's decisions and what may be expected of them.

    Raises AgentError where all that may go hold less, and StoreError.
    """
    offered = seen.offer()
    chosen = reclaiming.fewest(offered.decisions, target)
    if chosen is None:
        held_mb = sum(one.held_mb for one in offered.decisions)
        raise AgentError(
            f"All that may go, {len(offered.decisions)} of {len(seen.totals)} containers, hold "
            f"{held_mb:.0f} MB together, less than {target:.0f} MB.",
            "Ask for less; `sudo agent policy why CONTAINER` says what spares one of the others.",
        )
    with History.open(Path(config.paths.database)) as history:
        earlier = reclaiming.earlier(history.deletions_since(0))
    return chosen, reclaiming.expected(chosen, target, earlier)


def reclaim_text(one: Reclaim) -> str:
    """What was asked for, what is held, and what earlier removals gave back of that."""
    asked = f"{one.target_mb:.0f} MB asked for, {one.held_mb:.0f} MB held"
    lines = [f"{asked}, {one.predicted_mb:.0f} MB predicted."]
    earlier = one.earlier
    if earlier.median is None:
        lines.append("No earlier removal is stored from which to tell what comes back of it.")
    else:
        lines.append(
            f"{earlier.passes} earlier passes held {earlier.held_mb:.0f} MB and gave back "
            f"{earlier.gave_back_mb:.0f} MB (median of a pass: {earlier.median:.0%})."
        )
    lines.append("Neither `when` nor `keep` of the rules holds here: you ask.")
    return "\n".join(lines)
