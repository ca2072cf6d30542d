"""An hour of mixed load at the default interval: how much of the containers' CPU is unexplained.

Each container has a kind of load of its own: one that burns, one with short bursts, processes of
milliseconds, pipelines, commands that `docker exec` brings, containers that come and go. The agent
tells what living processes took, what those that lived less than a tick took, and what neither
explains; the cgroup's own figure at both ends is read here, past the agent.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.machine import in_words, machine
from bench.running import RunningAgent, running_agent
from tests.agent_process import agent_command
from tests.bpf_support import cgroup_of, cgroup_usage_ns
from tests.containers import Containers, DockerCommandError, docker, first_pid

LOADS = {
    "sleeps": "exec sleep 1000000",
    "burns": "while :; do :; done",
    "bursts": "while :; do i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 3; done",
    "forks": "while :; do for i in 1 2 3 4 5; do (exit 0); done; sleep 1; done",
    "execs": "while :; do for i in 1 2 3 4 5; do /bin/true; done; sleep 1; done",
    "pipes": "while :; do dd if=/dev/zero bs=64k count=40 2>/dev/null | md5sum >&2; sleep 4; done",
    "orphans": "while :; do (sleep 2 & sleep 7 &); sleep 1; done",
}
"""What the first process of each container runs."""
_EXECUTED = "i=0; while [ $i -lt 5000 ]; do i=$((i+1)); done"
_VISIT = "n=0; while [ $n -lt 40 ]; do n=$((n+1)); /bin/true; /bin/true; (exit 0); sleep 1; done"
"""Ends by itself: the first process of a container is deaf to a signal from inside."""
_VISITOR = "mixed_visit_"


@dataclass(slots=True)
class Account:
    """Seconds of CPU of one container over the run."""

    name: str
    charged_s: float
    """By its cgroup at both ends of the run; nan where it did not live that long."""
    cpu_s: float = 0.0
    short_lived_s: float = 0.0
    unexplained_s: float = 0.0
    unexplained_abs_s: float = 0.0
    """The sum of each tick's unexplained part without its sign."""
    starts: int = 0
    ticks: int = 0
    blind_ticks: int = 0
    """Ticks whose account was not closed: the first of a container, and lost records."""


@contextmanager
def mixed_load(image: str, failures: list[str]) -> Iterator[dict[str, str]]:
    """The whole load while the block runs; gives the ids of its lasting containers by their names.

    What Docker said of commands that failed meanwhile is added to `failures`.
    """
    boxes = Containers()
    over = threading.Event()
    tag = boxes.label[-6:]
    threads: list[threading.Thread] = []

    def repeat(every_s: float, words: Callable[[int], Sequence[str]]) -> None:
        for number in itertools.count():
            if over.wait(every_s):
                return
            try:
                docker(*words(number))
            except DockerCommandError as error:
                failures.append(str(error)[-200:])

    def visit(number: int) -> list[str]:
        name = f"{_VISITOR}{tag}_{number}"
        return ["run", "-d", "--rm", "--network=none", "--label", boxes.label, "--name", name,
                image, "sh", "-c", _VISIT]  # fmt: skip

    try:
        lasting = {
            name: boxes.run(
                image, ["sh", "-c", script], name=f"mixed_{name}_{tag}", options=["--cpus=0.2"]
            )
            for name, script in LOADS.items()
        }
        entering = ["exec", lasting["sleeps"], "sh", "-c", _EXECUTED]
        threads = [
            threading.Thread(target=repeat, args=(25.0, visit), daemon=True),
            threading.Thread(target=repeat, args=(10.0, lambda _: entering), daemon=True),
        ]
        for thread in threads:
            thread.start()
        yield lasting
    finally:
        over.set()
        for thread in threads:
            thread.join(60)
        boxes.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.mixed_load", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--interval", type=float, default=20)
    parser.add_argument("--image", default="so1-alpine-standin:local")
    parser.add_argument("--source", choices=("auto", "modules", "psutil"), default="auto")
    parser.add_argument("--json", type=Path, help="where the figures go")
    words = parser.parse_args()
    command = agent_command()
    failures: list[str] = []
    try:
        with (
            mixed_load(words.image, failures) as lasting,
            running_agent(
                command, "--interval", f"{words.interval:g}", "--source", words.source
            ) as agent,
        ):
            print(f"mixed load: BPF {agent.wait_for_bpf()}", file=sys.stderr, flush=True)
            document = _watch(agent, lasting, words.minutes * 60)
            document["failures"] = failures
    except (RuntimeError, OSError, AssertionError) as error:
        print(f"mixed load: {error}", file=sys.stderr)
        return 1
    if words.json:
        words.json.write_text(json.dumps(document) + "\n", encoding="utf-8")
    _print(document)
    return 0


def _watch(agent: RunningAgent, lasting: dict[str, str], seconds: float) -> dict[str, Any]:
    """Waits for a whole account of each container, then for the run's time, and sums it up."""
    identities = {name: identity[:12] for name, identity in lasting.items()}
    pids = {name: first_pid(identity) for name, identity in lasting.items()}
    first = _first_accounts(agent, set(identities.values()))
    before = {name: _usage_s(pid) for name, pid in pids.items()}
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        time.sleep(min(10.0, seconds))
        agent.check_alive()
    after = {name: _usage_s(pid) for name, pid in pids.items()}
    rows = agent.ask(
        "SELECT container_id, container_name, timestamp, cpu_usage, cpu_short_lived, "
        "cpu_unexplained, starts FROM container_totals WHERE timestamp >= ? "
        "ORDER BY container_id, timestamp",
        first,
    )
    lost = agent.ask("SELECT sum(events_lost), sum(conflict) FROM attribution_checks")[0]
    summed = accounts(rows, identities, {name: after[name] - before[name] for name in pids})
    status = agent.status()
    return {
        "machine": machine(),
        "date": time.strftime("%Y-%m-%d"),
        "minutes": round((time.monotonic() - began) / 60, 1),
        "source": status.get("source"),
        "bpf": status.get("bpf"),
        "events_lost": lost[0],
        "conflicts": lost[1],
        "accounts": [{slot: getattr(one, slot) for slot in Account.__slots__} for one in summed],
    }


def _first_accounts(agent: RunningAgent, wanted: set[str]) -> int:
    """The timestamp of the first tick that has a closed account of every lasting container."""

    def closed_for_all() -> int:
        for (timestamp,) in agent.ask(
            "SELECT DISTINCT timestamp FROM container_totals WHERE cpu_unexplained IS NOT NULL "
            "ORDER BY timestamp"
        ):
            closed = agent.ask(
                "SELECT container_id FROM container_totals "
                "WHERE timestamp = ? AND cpu_unexplained IS NOT NULL",
                timestamp,
            )
            if wanted <= {identity for (identity,) in closed}:
                return int(timestamp)
        return 0

    failure = "no tick closed the account of every container"
    return agent.wait_until(closed_for_all, failure, 600, pause_s=1)


def accounts(
    rows: list[tuple[Any, ...]], identities: dict[str, str], charged: dict[str, float]
) -> list[Account]:
    """One account a lasting container, and one for all visitors together."""
    names = {identity: name for name, identity in identities.items()}
    found = {name: Account(name, charged[name]) for name in identities}
    visits = found["come and go"] = Account("come and go", float("nan"))
    for last, row in itertools.pairwise(rows):
        if last[0] != row[0]:
            continue
        name = names.get(row[0])
        if name is None and not str(row[1]).startswith(_VISITOR):
            continue
        account = visits if name is None else found[name]
        cpu, short, unexplained = row[3:6]
        if unexplained is None:
            account.blind_ticks += 1
            continue
        interval_s = (row[2] - last[2]) / 1000
        account.ticks += 1
        account.starts += row[6]
        account.cpu_s += cpu / 100 * interval_s
        account.short_lived_s += short / 100 * interval_s
        account.unexplained_s += unexplained / 100 * interval_s
        account.unexplained_abs_s += abs(unexplained) / 100 * interval_s
    return list(found.values())


def _print(document: dict[str, Any]) -> None:
    console = Console(width=110)
    console.print(
        f"{document['minutes']} minutes of mixed load on {document['date']}; "
        f"source {document['source']}, BPF {document['bpf']}, "
        f"records lost {document['events_lost']}, conflicts {document['conflicts']}"
    )
    console.print(in_words(document["machine"]))
    table = Table("container", "cgroup s", "stored s", "short-lived", "unexplained",
                  "each tick's, abs", "starts", "ticks", "blind")  # fmt: skip
    whole = Account("all", float("nan"))
    for one in [Account(**values) for values in document["accounts"]]:
        table.add_row(*_cells(one))
        for slot in Account.__slots__[2:]:
            setattr(whole, slot, getattr(whole, slot) + getattr(one, slot))
    table.add_row(*_cells(whole))
    console.print(table)
    for text in sorted(set(document["failures"])):
        console.print(f"failure of the load: {text}", markup=False)


def _cells(one: Account) -> list[str]:
    def share(value: float) -> str:
        return f"{100 * value / one.cpu_s:+.2f} %" if one.cpu_s else "-"

    return [
        one.name,
        f"{one.charged_s:.2f}",
        f"{one.cpu_s:.2f}",
        share(one.short_lived_s),
        share(one.unexplained_s),
        share(one.unexplained_abs_s),
        str(one.starts),
        str(one.ticks),
        str(one.blind_ticks),
    ]


def _usage_s(pid: int) -> float:
    """What the kernel has charged the cgroup of a container's first process for."""
    return cgroup_usage_ns(cgroup_of(pid), pid) / 1e9


if __name__ == "__main__":
    sys.exit(main())
