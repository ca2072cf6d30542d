"""`python -m bench.paired TREE`: the whole tick of the agent in TREE against this one's, in pairs.

Both run at the same time with the same settings, each on a database of its own that a first run
made, so that what else the host does weighs on both alike. Every second pair starts the other one
first.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import processes
from bench.running import PROJECT, RunningAgent, running_agent
from tests.agent_process import agent_command

_WARM_TICKS = 10
"""The first ones still import, compile and plan."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one agent took over the ticks of one pair."""

    cpu_ms: float
    """Of all its threads, a tick."""
    tick_ms: float
    """By the wall clock, the median."""
    stages_ms: dict[str, float]
    """Medians."""
    rss_mb: float
    private_mb: float
    """Written by it alone."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.paired", description=__doc__)
    parser.add_argument("tree", type=Path, help="a checkout of the version to compare with")
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--ticks", type=int, default=40, help="measured, of each agent")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds from tick to tick")
    parser.add_argument("--processes", type=int, default=300)
    parser.add_argument("--no-bpf", action="store_true")
    parser.add_argument("--source", default="auto")
    parser.add_argument("--json", type=Path)
    words = parser.parse_args()
    options = ["--interval", str(words.interval), "--source", words.source]
    options += ["--no-bpf"] if words.no_bpf else []
    pairs: list[tuple[Cost, Cost]] = []
    with processes.crowd(words.processes):
        print(f"{processes.count()} processes, before: {words.tree}, after: {PROJECT}")
        for number in range(words.pairs):
            pairs.append(_pair(words.tree, options, words.ticks, other_first=bool(number % 2)))
            print(_line(number + 1, pairs[-1]), flush=True)
    for what in ("cpu_ms", "tick_ms", "rss_mb", "private_mb"):
        print(_summary(what, [(getattr(a, what), getattr(b, what)) for a, b in pairs]))
    for name in pairs[0][1].stages_ms:
        both = [(a.stages_ms.get(name, 0.0), b.stages_ms.get(name, 0.0)) for a, b in pairs]
        print(_summary(f"{name} ms", both))
    if words.json is not None:
        words.json.write_text(
            json.dumps([[asdict(a), asdict(b)] for a, b in pairs], indent=1), encoding="utf-8"
        )


def _line(number: int, pair: tuple[Cost, Cost]) -> str:
    a, b = pair
    return (
        f"pair {number}: CPU {a.cpu_ms:.1f} and {b.cpu_ms:.1f} ms a tick, "
        f"{a.rss_mb:.1f} and {b.rss_mb:.1f} MB"
    )


def _summary(what: str, both: Sequence[tuple[float, float]]) -> str:
    before, after = ([one[side] for one in both] for side in (0, 1))
    text = (
        f"{what}: {statistics.median(before):.2f} ({min(before):.2f} to {max(before):.2f}) and "
        f"{statistics.median(after):.2f} ({min(after):.2f} to {max(after):.2f})"
    )
    if not all(before):
        return text
    ratios = [b / a for a, b in both]
    return f"{text}, ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"


def _pair(
    tree: Path, options: Sequence[str], ticks: int, *, other_first: bool
) -> tuple[Cost, Cost]:
    """Before and after."""
    trees = (tree, PROJECT) if other_first else (PROJECT, tree)
    with ExitStack() as stack:
        agents = {
            one: stack.enter_context(running_agent(agent_command(), *options, tree=one, again=True))
            for one in trees
        }
        for agent in agents.values():
            agent.wait_for_bpf()
            agent.wait_for_first_row()
        watched = [_Watched(agents[one]) for one in (tree, PROJECT)]
        while not all(one.look(ticks) for one in watched):
            time.sleep(0.1)
        before, after = (one.cost() for one in watched)
    return before, after


class _Watched:
    """An agent from a later tick on, over a number of them."""

    def __init__(self, agent: RunningAgent) -> None:
        self._agent = agent
        self._begin = self._number() + _WARM_TICKS
        self._walls: dict[int, float] = {}
        self._stages: dict[int, dict[str, float]] = {}
        self._first: tuple[int, float] | None = None
        self._last: tuple[int, float] | None = None

    def _number(self) -> int:
        return int(self._agent.status()["tick"]["number"])

    def look(self, ticks: int) -> bool:
        """Notes a tick that is new; whether so many were seen."""
        if self._last is not None:
            return True
        self._agent.check_alive()
        tick = self._agent.status()["tick"]
        number = tick["number"]
        if number < self._begin or number in self._walls:
            return False
        self._walls[number] = tick["tick_ms"]
        self._stages[number] = tick["stages_ms"]
        seen = number, self._cpu_s()
        self._first = self._first or seen
        if number - self._first[0] >= ticks:
            self._last = seen
        return self._last is not None

    def _cpu_s(self) -> float:
        # The process's own CPU clock (clock_getcpuclockid(3)): exact, ended threads included.
        return time.clock_gettime((~self._agent.process.pid << 3) | 2)

    def cost(self) -> Cost:
        assert self._first is not None
        assert self._last is not None
        names = dict.fromkeys(name for one in self._stages.values() for name in one)
        return Cost(
            cpu_ms=1000 * (self._last[1] - self._first[1]) / (self._last[0] - self._first[0]),
            tick_ms=statistics.median(self._walls.values()),
            stages_ms={
                name: statistics.median(one.get(name, 0.0) for one in self._stages.values())
                for name in names
            },
            rss_mb=self._agent.rss_kb() / 1024,
            private_mb=self._agent.proc_number("smaps_rollup", "Private_Dirty:") / 1024,
        )


if __name__ == "__main__":
    main()
