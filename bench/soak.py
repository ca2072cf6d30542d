"""An hour of the real agent at an interval of a second under a light load, sampled from outside.

Tells whether it can be left alone: memory, descriptors, threads, database and the rhythm of its
ticks have to stay flat. Run by `bench/soak.sh`; what was sampled so far is in the JSON file at any
moment, so that a run that is cut off leaves its figures.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import soak_report
from bench.churn import Counts, Pace, churn
from bench.machine import machine
from bench.running import RunningAgent, running_agent
from tests.agent_process import agent_command

_SETTINGS = """\
[retention]
raw_hours = 1
max_database_mb = 16
[proof]
canary_hours = 1
"""
"""A bound that the database meets within the hour: what holds it has to be seen at work. And all
budgets, none of which a sound host may spend."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--every", type=float, default=10, help="seconds between two samples")
    parser.add_argument("--interval", type=float, default=1, help="the agent's, in seconds")
    parser.add_argument("--image", default="so1-alpine-standin:local")
    parser.add_argument("--source", choices=("auto", "modules", "psutil"), default="auto")
    parser.add_argument("--dry-run", action="store_true", help="where others use the engine too")
    parser.add_argument("--out", type=Path, default=Path("soak"), help="directory of the results")
    words = parser.parse_args()
    words.out.mkdir(parents=True, exist_ok=True)
    run = Soak(words.out / "soak.json", words.minutes, words.every, words.interval)
    command = agent_command()
    status = 0
    try:
        with running_agent(
            command, "--interval", f"{words.interval:g}", "--source", words.source,
            settings=_SETTINGS, dry_run=words.dry_run, log=words.out / "agent.log",
        ) as agent:  # fmt: skip
            asks = [*command, "status", "--json", "--config", str(agent.config)]
            run.document["bpf"] = agent.wait_for_bpf()
            print(f"soak: BPF {run.document['bpf']}", file=sys.stderr, flush=True)
            with churn(words.image, agent.database, asks, Pace(), run.counts):
                run.watch(agent)
            stopping = time.monotonic()
        run.document["stop"] = {
            "seconds": round(time.monotonic() - stopping, 1),
            "status": agent.process.returncode,
        }
    except (RuntimeError, OSError) as error:
        run.document["ended_early"] = str(error)
        status = 1
    run.save()
    soak_report.write(run.document, words.out)
    print((words.out / "soak.md").read_text(encoding="utf-8"))
    return status


class Soak:
    """The samples of one run and their file."""

    def __init__(self, file: Path, minutes: float, every_s: float, interval_s: float) -> None:
        self._file = file
        self._seconds = minutes * 60
        self._every_s = every_s
        self.counts = Counts()
        self._own_cpu_s = 0.0
        self._last: tuple[int, float] | None = None
        """The last tick's row number and when it began, in milliseconds."""
        self.document: dict[str, Any] = {
            "machine": machine(),
            "date": time.strftime("%Y-%m-%d"),
            "minutes_asked": minutes,
            "interval_s": interval_s,
            "every_s": every_s,
            "samples": [],
        }

    def watch(self, agent: RunningAgent) -> None:
        """Samples until the time is over. Raises RuntimeError when the agent ends first."""
        began = next_s = time.monotonic()
        list(self._new_ticks(agent))  # What ran while BPF came up is not of the soak.
        self._own_cpu_s = _load_cpu_s()
        while (elapsed := time.monotonic() - began) <= self._seconds:
            agent.check_alive()
            self.document["samples"].append(self._sample(agent, elapsed))
            self.document["totals"] = self._totals(agent)
            self.save()
            next_s = max(next_s + self._every_s, time.monotonic())
            time.sleep(next_s - time.monotonic())

    def save(self) -> None:
        """Replaces the file whole."""
        load = {
            "done": dict(self.counts.done),
            "failures": dict(self.counts.failures),
            "cpu_s": round(_load_cpu_s() - self._own_cpu_s, 1),
        }
        if self.counts.query_ms:
            load["query_ms_median"] = round(statistics.median(self.counts.query_ms), 1)
            load["query_ms_max"] = round(max(self.counts.query_ms), 1)
        self.document["load"] = load
        aside = self._file.with_suffix(".new")
        aside.write_text(json.dumps(self.document) + "\n", encoding="utf-8")
        aside.rename(self._file)

    def _sample(self, agent: RunningAgent, elapsed_s: float) -> dict[str, Any]:
        process = Path(f"/proc/{agent.process.pid}")
        ticks = list(self._new_ticks(agent))
        database = agent.database
        tick = agent.status().get("tick") or {}
        return {
            "at_s": round(elapsed_s, 1),
            "rss_kb": agent.rss_kb(),
            "anonymous_kb": agent.proc_number("smaps_rollup", "Anonymous:"),
            "descriptors": len(os.listdir(process / "fd")),
            "threads": len(os.listdir(process / "task")),
            "children": len((process / f"task/{agent.process.pid}/children").read_text().split()),
            "cpu_s": agent.cpu_s(),
            "written_bytes": agent.written_bytes(),
            "database_bytes": _size(database),
            "wal_bytes": _size(database.with_name(f"{database.name}-wal")),
            "tick_ms": [tick_ms for tick_ms, _ in ticks],
            "gap_ms": [gap_ms for _, gap_ms in ticks],
            "stages_ms": {name: round(ms, 1) for name, ms in tick.get("stages_ms", {}).items()},
            "processes": tick.get("processes"),
            "containers": tick.get("container_count"),
            "load1": os.getloadavg()[0],
            "budgets": agent.status().get("budgets") or {},
            "ticks_over": self._ticks_over(agent),
        }

    def _ticks_over(self, agent: RunningAgent) -> int:
        """How many of the last ten ticks were over a budget."""
        try:
            found = agent.ask("SELECT payload FROM proof_state WHERE name = 'state'")
        except sqlite3.Error:
            return 0
        return sum(json.loads(found[0][0])["recent"]) if found else 0

    def _new_ticks(self, agent: RunningAgent) -> Iterator[tuple[int, int]]:
        """Each stored tick since the last call: how long it took, and its start's distance."""
        number = self._last[0] if self._last else 0
        try:
            rows = agent.ask(
                "SELECT id, timestamp, tick_ms FROM metrics WHERE id > ? ORDER BY id", number
            )
        except sqlite3.Error:
            return
        for number, timestamp_ms, tick_ms in rows:
            start_ms = timestamp_ms - tick_ms
            if self._last:
                yield tick_ms, start_ms - self._last[1]
            self._last = (number, start_ms)

    def _totals(self, agent: RunningAgent) -> dict[str, Any]:
        """What the agent says of itself, and of the rows that the bound has left."""
        status = agent.status()
        try:
            arming = agent.ask("SELECT timestamp, armed, why FROM policy_arming ORDER BY id")
            canary = agent.ask("SELECT payload ->> 'canary' FROM proof_state")
            outcomes = dict(agent.ask("SELECT outcome, count(*) FROM deletions GROUP BY 1"))
            checks = agent.ask(
                "SELECT sum(agree), sum(conflict), sum(unverified), sum(events_lost) "
                "FROM attribution_checks"
            )[0]
        except sqlite3.Error:
            outcomes, checks, arming, canary = {}, (None,) * 4, [], []
        return {
            "source": status.get("source"),
            "bpf": status.get("bpf"),
            "unstored_ticks": status.get("unstored_ticks"),
            "problems": status.get("problems"),
            "deletions": outcomes,
            "arming": arming,
            "canary": json.loads(canary[0][0] or "null") if canary else None,
            "checks": dict(zip(("agree", "conflict", "unverified", "events_lost"), checks,
                               strict=True)),
        }  # fmt: skip


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _load_cpu_s() -> float:
    """CPU of this process and its ended children: the load, without the engine's part."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


if __name__ == "__main__":
    sys.exit(main())
