"""`agent policy replay`: the history decided on again, by the rules of now or by others."""

from __future__ import annotations

import time
from pathlib import Path

from agent.cli.views.policy_replay import replayed_text
from agent.cli.views.report_figures import parse_since
from agent.config import Config, PolicySettings
from agent.errors import AgentError
from agent.model.past import PastDecision, PastState, PastTick
from agent.policy import original
from agent.policy.original import RulesInForce
from agent.policy.replay_limits import limits
from agent.policy.replay_run import Comparison, Replayed, Simulation
from agent.store.queries import History
from agent.util import streams


def replay(config: Config, since: str, other: PolicySettings | None, *, as_json: bool) -> int:
    """Prints what came of it. Raises ConfigError for a span that is none, AgentError where the
    history has no tick in it, and StoreError."""
    now_ms = time.time_ns() // 10**6
    from_ms = now_ms - parse_since(since)
    rules = original.rule_set(other or config.policy)
    longest_gap_ns = int(2.5 * config.interval_s * 10**9)
    run: Comparison | Simulation = (
        Comparison(rules, longest_gap_ns) if other is None else Simulation(rules, longest_gap_ns)
    )
    with History.open(Path(config.paths.database)) as history:
        found = _gone_through(history, run, from_ms, now_ms, images=other is not None)
    if not found.ticks:
        raise AgentError(
            f"The history has no tick of the last {since}.", "Go further back: --since"
        )
    used = [rules] if isinstance(run, Simulation) else run.used
    unknown = tuple(
        dict.fromkeys(
            sentence
            for one in used
            for sentence in limits(one, as_claimed=other is None, states_known=not run.lacks_states)
        )
    )
    if as_json:
        value = {"with_other_rules": other is not None, "limits": list(unknown), "replay": found}
        streams.out(streams.json_text(value))
    else:
        streams.out(replayed_text(found, unknown, others=other is not None))
    return 0


def _gone_through(
    history: History, run: Comparison | Simulation, from_ms: int, to_ms: int, *, images: bool
) -> Replayed:
    for event in history.past(from_ms, to_ms, images=images):
        if isinstance(event, PastTick):
            run.tick(event)
        elif isinstance(event, PastDecision):
            run.decision(event)
        elif isinstance(event, PastState):
            run.state(event)
        elif isinstance(event, RulesInForce):
            run.rules(event)
        else:
            run.host_pass(event)
    return run.finish()
