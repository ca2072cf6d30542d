"""`agent policy apply`: what of a plan still holds, under every safeguard of a tick."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from agent.actions.remover import Remover
from agent.cli.commands.policy_look import Look, look
from agent.clock import SystemClock
from agent.config import Config
from agent.daemon.engines import governed_hosts
from agent.daemon.last_word import LastWord
from agent.daemon.signals import Stopper
from agent.daemon.trust import word_on_disk
from agent.errors import AgentError
from agent.model.removal import Action, Decision, Outcome, Removal, RemovalPass, in_words
from agent.policy import governance
from agent.policy import plan as plans
from agent.policy.conditions import KB_PER_MB
from agent.policy.reclaim import Reclaim
from agent.sources.host_metrics import available_kb
from agent.store import handover
from agent.util import streams
from agent.util.terminal import Say, printable

_MAX_BYTES = 16 << 20
_WAIT_S = 180.0
_END_S = 10.0
"""Beside their grace, for what was begun when a signal says stop."""


def apply(config: Config, file: Path, *, as_json: bool) -> int:
    """Carries out the plan in `file`. 1 where an action failed.

    Raises AgentError for what is no plan, and where no fresh tick says what the containers hold:
    then nobody knows whether the conditions still hold.
    """
    word = word_on_disk(Path(config.paths.database))
    if not word.armed:
        raise AgentError(
            f"The policy is disarmed ({word.why}), so nothing is done.",
            "Arm it where that is over: sudo agent policy arm",
        )
    plan = read_plan(file)
    with handover.alone(Path(config.paths.database).parent):
        return _apply(config, plan, as_json=as_json)


def _apply(config: Config, plan: plans.Plan, *, as_json: bool) -> int:
    seen = look(config)
    if seen.is_stale(config.interval_s):
        raise AgentError(
            "The last tick is too old to tell whether the plan still holds.",
            "Start the agent, then make and apply a plan: sudo agent start",
        )
    if plan.reclaim is None:
        why = {one.totals.container.id: one.why for one in seen.explained()}
        due = seen.due()
    else:
        offered = seen.offer()
        why, due = offered.spared, offered.decisions
    holding, others = plans.still(plan, due, seen.totals, why)
    of = _carry_out(config, seen, holding)
    done = of.removals
    names = {one.container_id: one.container_name for one in plan.decisions}
    if as_json:
        streams.out(
            streams.json_text(
                {
                    "plan": plan.id,
                    "done": [
                        {
                            "container_id": one.decision.container_id,
                            "action": str(one.decision.action),
                            "outcome": str(one.outcome),
                            "error": one.error,
                        }
                        for one in done
                    ],
                    "left": others,
                    "available_before_mb": round(of.available_before_kb / KB_PER_MB, 1),
                    "available_after_mb": round(of.available_after_kb / KB_PER_MB, 1),
                }
            )
        )
    else:
        _print(of, others, names, plan.reclaim)
    return 1 if any(one.outcome is Outcome.FAILED for one in done) else 0


def read_plan(file: Path) -> plans.Plan:
    """What `agent policy plan --json` printed. Raises AgentError for anything else."""
    hint = "Make one: sudo agent policy plan --json > plan.json"
    try:
        with file.open("rb") as opened:
            # An editor of another system may have put a mark of the byte order first.
            text = opened.read(_MAX_BYTES).removeprefix(codecs.BOM_UTF8)
        plan = msgspec.json.decode(text, type=plans.Plan)
    except OSError as error:
        raise AgentError(f"The plan {file} cannot be read: {error.strerror}.", hint) from error
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise AgentError(f"{file} is no plan: {printable(str(error))[:200]}.", hint) from error
    if not plans.is_whole(plan):
        raise AgentError(f"{file} is not the plan that its id says: it was changed.", hint)
    return plan


def _carry_out(config: Config, seen: Look, holding: Sequence[Decision]) -> RemovalPass:
    """All of them side by side, recorded for the history however they end.

    A signal to stop begins nothing more and waits for what was begun, so that each has its row.
    """
    if not holding:
        now_kb = available_kb()
        return RemovalPass((), now_kb, now_kb)
    clock = SystemClock()
    own_ids = seen.own_ids
    remover = Remover(
        governed_hosts(config),
        clock,
        config.policy.stop_grace_s,
        lambda decision, now: governance.still_stands(decision, now, own_ids),
        LastWord(lambda: word_on_disk(Path(config.paths.database))),
    )
    before_kb = available_kb()
    others = [one for one in holding if one.action is not Action.NOTIFY]
    reported = [Removal(one, Outcome.NOTIFIED, 0) for one in holding if one not in others]
    deadline_ns = clock.boot_ns() + int(_WAIT_S * 10**9)
    stopper = Stopper()
    remover.hurry = lambda: stopper.stopping
    done = reported
    with stopper.installed():
        try:
            done += remover.remove(others, deadline_ns)
        finally:
            done += remover.close(config.policy.stop_grace_s + _END_S if stopper.stopping else 0)
            of = RemovalPass(tuple(done), before_kb, available_kb())
            handover.leave(Path(config.paths.database).parent, of)
    return of


def _print(
    of: RemovalPass, others: dict[str, str], names: dict[str, str], reclaim: Reclaim | None
) -> None:
    say = Say(sys.stdout)
    for one in of.removals:
        error = f" ({one.error})" if one.error else ""
        say(f"{one.decision.container_name}: {in_words(one.outcome, one.error)}{error}")
    for container_id, reason in others.items():
        say(f"{names[container_id]}: left, {reason}")
    if not of.removals:
        say("Nothing of the plan was carried out.")
        return
    before_mb, after_mb = of.available_before_kb / KB_PER_MB, of.available_after_kb / KB_PER_MB
    predicted = f", {reclaim.predicted_mb:.0f} predicted" if reclaim else ""
    say(
        f"Available memory: {before_mb:.0f} MB before, {after_mb:.0f} MB after "
        f"({after_mb - before_mb:+.0f} MB{predicted})."
    )
