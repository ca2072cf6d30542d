"""(b) CPU and RAM of many containers, and (f) from excess to the policy held."""

from __future__ import annotations

import itertools
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import docker

from agent.clock import SystemClock
from agent.sources.cgroup import reader
from agent.sources.engine.inventory import Engine
from bench.measure import Row, of, ratio, timed
from bench.running import HOST, running_agent

_LABEL = "so1.bench"
_KEPT_LOW = 3
"""What a pass leaves of the low tier, where all of these containers are."""
_HELD_S = 240.0


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
        _remove(label)


def measure_figures(image: str, count: int, repetitions: int) -> list[Row]:
    """CPU and RAM of `count` containers: the agent's way, the files alone, and Docker's own."""
    clock = SystemClock()
    with sleepers(image, count):
        engine, layout = Engine(HOST, clock), reader.detect()
        listing = engine.list()

        def ours(engine: Engine = engine, layout: reader.CgroupLayout = layout) -> object:
            return reader.read(layout, engine.list().containers)

        files = [
            Path(f"{layout.root}{one.path}")
            for one in reader.read(layout, listing.containers).containers.values()
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
    return [
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


def measure_policy(command: list[str], image: str, limit: int = 10, rounds: int = 2) -> list[Row]:
    """From the container that is one too many to the policy held, by the real agent.

    It stands beside the same number of containers stopped and removed one after another, as a
    script would. The containers bear a governed name: on a shared engine others' would go too.
    """
    held: list[float] = []
    for _ in range(rounds):
        with running_agent(
            command, "--interval", "3600", "--no-bpf", dry_run=False,
            settings=f"[policy]\nmax_containers = {limit}\n",
        ) as agent:  # fmt: skip
            agent.wait_for_first_row()
            with governed(image, limit) as (label, start_one):
                began = time.perf_counter()
                start_one()
                deadline = time.monotonic() + _HELD_S
                while _running(label) > _KEPT_LOW:
                    if time.monotonic() > deadline:
                        raise RuntimeError(f"the policy was not held within {_HELD_S:g} s")
                    time.sleep(0.02)
                held.append((time.perf_counter() - began) * 1000)
    ours = of(held)
    excess = limit + 1 - _KEPT_LOW
    with governed(image, excess) as (label, _):
        listed = subprocess.run(
            ["docker", "ps", "-q", "--filter", f"label={label}"],
            check=True, capture_output=True, text=True,
        ).stdout.split()  # fmt: skip
        began = time.perf_counter()
        for identity in listed:
            _run("docker", "stop", identity)
            _run("docker", "rm", identity)
        theirs = of([(time.perf_counter() - began) * 1000])
    return [
        Row("f", f"{excess} too many · from the {limit + 1}th's start to the policy held", ours),
        Row("f", f"{excess} too many · docker stop and rm, one after another", theirs, "",
            ratio(theirs, ours), "ours"),
    ]  # fmt: skip


@contextmanager
def governed(image: str, count: int) -> Iterator[tuple[str, Callable[[], None]]]:
    """`count` sleepers with a governed name; gives their label and what starts one more."""
    label = f"{_LABEL}={uuid.uuid4().hex}"
    number = itertools.count()

    def start() -> None:
        name = f"so1_contenedor_bench_{label[-6:]}_{next(number)}"
        words = ["docker", "run", "-d", "--network=none", "--label", label, "--name", name]
        _run(*words, image, "sleep", "9999")

    try:
        for _ in range(count):
            start()
        yield label, start
    finally:
        _remove(label)


def _running(label: str) -> int:
    """How many containers with `label` run, by Docker's API: its command line is slow to ask."""
    client = docker.APIClient(base_url=HOST, timeout=60)
    try:
        return len(client.containers(quiet=True, filters={"label": label}))
    finally:
        client.close()


def _remove(label: str) -> None:
    left = subprocess.run(
        ["docker", "ps", "-aq", "--filter", f"label={label}"],
        check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    if left:
        subprocess.run(["docker", "rm", "-f", *left], check=False, capture_output=True)


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, stdin=subprocess.DEVNULL)
