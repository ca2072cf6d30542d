"""(b) CPU and RAM of many containers, and (f) from excess to the policy held."""

from __future__ import annotations

import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.actions.containers import Remover
from agent.clock import SystemClock
from agent.decisions import Decision, Reason
from agent.model import Tier
from agent.sources import cgroups
from agent.sources.engine import Engine
from bench.measure import Row, of, ratio, timed

_HOST = "unix:///var/run/docker.sock"
_LABEL = "so1.bench"


@contextmanager
def sleepers(image: str, count: int) -> Iterator[list[str]]:
    """`count` containers that ignore SIGTERM, as a first process that sets no handler does."""
    label = f"{_LABEL}={uuid.uuid4().hex}"
    ids: list[str] = []
    try:
        for _ in range(count):
            done = subprocess.run(
                ["docker", "run", "-d", "--network=none", "--label", label, image, "sleep", "9999"],
                check=True, capture_output=True, text=True,
            )  # fmt: skip
            ids.append(done.stdout.strip())
        yield ids
    finally:
        left = subprocess.run(
            ["docker", "ps", "-aq", "--filter", f"label={label}"],
            check=True, capture_output=True, text=True,
        ).stdout.split()  # fmt: skip
        if left:
            subprocess.run(["docker", "rm", "-f", *left], check=False, capture_output=True)


def measure_figures(image: str, counts: tuple[int, ...], repetitions: int) -> list[Row]:
    rows: list[Row] = []
    clock = SystemClock()
    for count in counts:
        with sleepers(image, count):
            engine, layout = Engine(_HOST, clock), cgroups.detect()
            listing = engine.list()

            def ours(engine: Engine = engine, layout: cgroups.CgroupLayout = layout) -> object:
                return cgroups.read(layout, engine.list().containers)

            files = [
                Path(f"{layout.root}{one.path}")
                for one in cgroups.read(layout, listing.containers).containers.values()
            ]

            def by_cat(files: list[Path] = files) -> None:
                for directory in files:
                    for name in ("memory.stat", "cpu.stat"):
                        file = directory / name
                        if file.exists():
                            file.read_bytes()

            mine = timed(ours, repetitions)
            cat = timed(by_cat, repetitions)
            stats = timed(lambda: _run("docker", "stats", "--no-stream"), 2)
        rows += [
            Row("b", f"{count} containers · Docker's list and all figures", mine),
            Row(
                "b",
                f"{count} containers · the cgroup files alone",
                cat,
                "",
                ratio(cat, mine),
                "ours",
            ),
            Row(
                "b",
                f"{count} containers · docker stats --no-stream",
                stats,
                "",
                ratio(stats, mine),
                "ours",
            ),
        ]
    return rows


def measure_removal(image: str, excess: int = 4) -> list[Row]:
    """`excess` containers side by side, as the agent does, against one after another."""
    clock = SystemClock()
    engine = Engine(_HOST, clock)
    with sleepers(image, excess) as ids:
        chosen = [one for one in engine.list().containers if one.id in ids]
        decisions = [
            Decision(
                id=f"bench{rank}", container_id=one.id, container_name=one.name, image=one.image,
                created_ns=one.created_ns, tier=Tier.LOW, rank=rank, reason=Reason.EXCESS_LOW,
                held_mb=0.0, cpu_percent=0.0,
            )
            for rank, one in enumerate(chosen, 1)
        ]  # fmt: skip
        remover = Remover(_HOST, clock, 1)
        began = time.perf_counter()
        remover.remove(decisions, clock.boot_ns() + 120 * 10**9)
        ours = of([(time.perf_counter() - began) * 1000])
        remover.close(5.0)
    with sleepers(image, excess) as ids:
        began = time.perf_counter()
        for identity in ids:
            _run("docker", "stop", identity)
            _run("docker", "rm", identity)
        theirs = of([(time.perf_counter() - began) * 1000])
    return [
        Row("f", f"{excess} too many · removed side by side", ours),
        Row("f", f"{excess} too many · docker stop and rm, one after another", theirs, "",
            ratio(theirs, ours), "ours"),
    ]  # fmt: skip


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, stdin=subprocess.DEVNULL)
