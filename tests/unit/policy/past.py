"""Moments of the past as values, for tests of their replay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.model.past import PastContainer, PastDecision, PastTick
from agent.policy.replay_run import Comparison, Simulation
from agent.policy.rules import RuleSet

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.policy.replay_run import Replayed
    from agent.policy.rules import Rule

TICK_MS = 20_000
GAP_NS = 50 * 10**9


def row(number: int, held_mb: float = 1, **changed: Any) -> PastContainer:
    """Claimed by the rule `mine` unless said otherwise."""
    values = {
        "container_id": f"{number:012x}",
        "name": f"job-{number}",
        "image": "registry.example/job:1",
        "tier": "none",
        "governed": 1,
        "processes": 1,
        "held_mb": float(held_mb),
        "cpu_percent": 0.0,
        "rule": "mine",
        "engine": "docker",
    }
    return PastContainer(**{**values, **changed})


def tick(number: int, *containers: PastContainer, **changed: Any) -> PastTick:
    values: dict[str, Any] = {
        "timestamp_ms": 1_000_000 + number * TICK_MS,
        "available_mb": 4000.0,
        "psi_memory": 0.0,
        "engine_answered": True,
        "disputed": frozenset(),
        "rows": containers,
    }
    return PastTick(**{**values, **changed})


def decision(at: int, number: int, **changed: Any) -> PastDecision:
    """A removal that the tick `at` recorded."""
    values = {
        "timestamp_ms": 1_000_000 + at * TICK_MS,
        "decision": f"d{number}",
        "container_id": f"{number:012x}",
        "container_name": f"job-{number}",
        "reason": "rule",
        "outcome": "removed",
        "error": "",
        "action": "remove",
        "rule": "mine",
        "engine": "docker",
        "held_mb": 1.0,
    }
    return PastDecision(**{**values, **changed})


def compared(events: Iterable[PastTick | PastDecision], *rules: Rule) -> Replayed:
    run = Comparison(RuleSet(rules), GAP_NS)
    return _run(run, events)


def simulated(events: Iterable[PastTick | PastDecision], *rules: Rule) -> Replayed:
    return _run(Simulation(RuleSet(rules), GAP_NS), events)


def _run(run: Comparison | Simulation, events: Iterable[PastTick | PastDecision]) -> Replayed:
    for one in events:
        if isinstance(one, PastTick):
            run.tick(one)
        else:
            run.decision(one)
    return run.finish()
