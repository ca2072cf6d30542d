"""A light and steady load for the soak: processes that come and go, containers that end by
themselves or are removed by the policy, and a reader who looks at the dashboards meanwhile.
"""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
import subprocess
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.unit.grafana import plugin

_LABEL = "so1.bench"
_FORKS = """\
while :; do
    /bin/true; /bin/true
    sleep 5 &
    sleep 1
done
"""
_LOOKED_AT_MS = 15 * 60 * 1000
_PLUGIN_BUSY_S = 5.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How often each kind of load comes, in seconds."""

    container_every_s: float = 25.0
    container_life_s: int = 110
    query_every_s: float = 5.0
    status_every_s: float = 180.0


@dataclass(slots=True)
class Counts:
    """What the load has done so far, by kind, and what it was told when something failed."""

    done: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    query_ms: list[float] = field(default_factory=list)
    """How long each dashboard query took."""


@contextmanager
def churn(
    image: str, database: Path, status_command: list[str], pace: Pace, counts: Counts
) -> Iterator[None]:
    """The whole load while the block runs; afterwards its containers and processes are gone."""
    label = f"{_LABEL}={uuid.uuid4().hex}"
    over = threading.Event()
    forks = subprocess.Popen(["sh", "-c", _FORKS], stdin=subprocess.DEVNULL, start_new_session=True)
    loads: list[tuple[str, float, Callable[[], None]]] = [
        ("container", pace.container_every_s, _starts(image, label, pace, counts)),
        ("query", pace.query_every_s, _looks(database, counts)),
        ("status", pace.status_every_s, lambda: _run(status_command, "status", counts)),
    ]
    threads = [
        threading.Thread(target=_repeat, args=(over, every_s, work, name, counts), daemon=True)
        for name, every_s, work in loads
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(120)
        os.killpg(forks.pid, signal.SIGKILL)
        forks.wait()
        listed = subprocess.run(
            ["docker", "ps", "-aq", "--filter", f"label={label}"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if left := listed.stdout.split():
            subprocess.run(["docker", "rm", "-f", *left], capture_output=True, check=False)


def _repeat(
    over: threading.Event, every_s: float, work: Callable[[], None], name: str, counts: Counts
) -> None:
    """`work` each `every_s` until it is over; one that takes longer is not made up for."""
    next_s = time.monotonic()
    while not over.is_set():
        try:
            work()
        except (OSError, sqlite3.Error, subprocess.SubprocessError, AssertionError) as error:
            counts.failures[f"{name}: {error}"[:200]] += 1
        now_s = time.monotonic()
        next_s = max(next_s + every_s, now_s)
        over.wait(next_s - now_s)


def _starts(image: str, label: str, pace: Pace, counts: Counts) -> Callable[[], None]:
    """Starts a container at each call: every other one goes with its end, the rest stay exited.

    They bear a governed name, so that the agent's policy has something to remove.
    """
    tag = uuid.uuid4().hex[:6]

    def start() -> None:
        number = counts.done["container"] + counts.failures.total()
        words = ["docker", "run", "-d", "--network=none", "--label", label]
        words += ["--name", f"so1_contenedor_soak_{tag}_{number}"]
        if number % 2:
            words.append("--rm")
        _run([*words, image, "sleep", str(pace.container_life_s)], "container", counts)

    return start


def _run(command: list[str], name: str, counts: Counts) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, timeout=300, check=False, text=True
    )
    if done.returncode:
        raise OSError(f"status {done.returncode}: {done.stderr.strip()[-150:]}")
    counts.done[name] += 1


def _looks(database: Path, counts: Counts) -> Callable[[], None]:
    """One panel's query of the last 15 minutes at each call, as the data source would send it."""
    panels = itertools.cycle(plugin.panels())

    def look() -> None:
        panel = next(panels)
        now_ms = time.time_ns() // 10**6
        view = plugin.View(now_ms - _LOOKED_AT_MS, now_ms)
        began = time.perf_counter()
        # The data source's backend opens and closes a connection for each query.
        connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=_PLUGIN_BUSY_S)
        try:
            plugin.ask(connection, panel.sql, view, panel.interval(view))
        finally:
            connection.close()
        counts.query_ms.append((time.perf_counter() - began) * 1000)
        counts.done["query"] += 1

    return look
