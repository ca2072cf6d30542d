"""What this host can and cannot do for the agent, and the remedy: the judgement.

Pure: facts and configuration in, one check a concern out. `agent.doctor.probe` finds the facts,
`agent.cli.commands.doctor` prints the checks.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.config import Config
from agent.doctor import host, kernel
from agent.doctor.check import Check, State
from agent.doctor.facts import Facts

__all__ = ["Check", "Facts", "State", "can_run", "judge"]


def can_run(checks: Sequence[Check]) -> bool:
    """Whether nothing that was found keeps the main job from running."""
    return all(check.state is not State.MISSING for check in checks)


def judge(facts: Facts, config: Config) -> tuple[Check, ...]:
    """Every check, in the order in which the agent comes up."""
    return (
        host.privileges(facts),
        host.configuration(facts, config),
        host.python(facts),
        host.installation(facts),
        host.proc(facts),
        kernel.kernel(facts, config),
        kernel.headers(facts, config),
        kernel.build_tools(facts, config),
        kernel.signing(facts, config),
        kernel.modules(facts, config),
        kernel.bpf(facts, config),
        kernel.bcc(facts, config),
        kernel.oom(facts, config),
        host.cgroups(facts),
        host.memory(facts),
        host.pressure(facts, config),
        host.docker(facts, config),
        *host.engines(facts),
        host.images(facts, config),
        host.compose(facts, config),
        host.cron(facts, config),
        host.disk(facts, config),
        host.database(facts, config),
        host.clock(facts),
        host.metrics(facts, config),
        host.fleet(facts, config),
        host.notify(facts, config),
        host.proof(facts, config),
        host.leftovers(facts, config),
    )
