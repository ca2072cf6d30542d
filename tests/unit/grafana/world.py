"""The host that `make_db` makes a history of: its daemons, its containers, and what they use."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

END_MS = 1_796_000_400_000
TICK_MS = 20_000
HOSTILE = "o'b\"r;--\x1b[31m<b>"
"""A process may call itself anything of up to 15 bytes."""

TOTAL_KB = 8_151_552
CPUS = 4
DAEMONS = (
    ("systemd", 12.4, 0.1),
    ("dockerd", 96.0, 1.8),
    ("containerd", 58.2, 0.9),
    ("agent", 41.7, 1.2),
    ("systemd-journal", 31.5, 0.3),
    ("mysqld", 412.0, 2.4),
    ("gnome-shell", 298.0, 4.1),
    ("firefox-esr", 655.0, 7.5),
    ("Web Content", 389.0, 3.2),
    ("Xorg", 112.0, 2.0),
    ("node", 174.0, 1.1),
    ("python3", 63.0, 0.6),
    ("sshd", 9.1, 0.0),
    ("cron", 3.0, 0.0),
    ("NetworkManager", 19.0, 0.1),
    ("grafana", 141.0, 0.8),
    ("udevd", 7.2, 0.0),
    (HOSTILE, 2.2, 0.4),
)


@dataclass
class Container:
    id: str
    name: str
    image: str
    tier: str
    governed: bool
    held_mb: float
    cpu: float
    pids: tuple[int, ...]
    born: int
    names: tuple[str, ...] = ()
    engine: str = "docker"


@dataclass
class Plan:
    """What the history is to hold. Spans end at `end_ms`; all figures follow from `seed`."""

    hours: float = 1.0
    """Of rows a process."""
    days: float = 0.0
    """Of the other tables, where longer than `hours`."""
    processes: int = 120
    containers: int = 10
    seed: int = 7
    end_ms: int = END_MS
    tick_ms: int = TICK_MS
    incidents: bool = True
    """A restart, a stretch of psutil, Docker away, conflicts, an OOM kill."""
    governed: bool = True
    """Whether there are governed containers at all."""
    kills: float = 0.05
    """The share of large young containers' ticks with an OOM kill, among the incidents."""
    twins: bool = False
    """Whether a second engine has containers of the same names, one of them of the same id too."""


@dataclass
class World:
    rng: random.Random
    plan: Plan
    containers: list[Container] = field(default_factory=list)
    pid: int = 4000
    deletions: int = 0

    def new_pid(self) -> int:
        self.pid += self.rng.randint(1, 9)
        return self.pid


def grafana(state: World) -> Container:
    return Container(
        "9e1f0c7d55aa", "grafana_so1", "grafana/grafana:13.2.2", "none", False, 138.0, 0.9,
        (state.new_pid(),), -1, ("grafana",),
    )  # fmt: skip


def database_service(state: World) -> Container:
    return Container(
        "5b00d2c4e6f1", "base-de-datos", "postgres:17", "none", False, 64.0, 1.4,
        (state.new_pid(), state.new_pid(), state.new_pid()), -1, ("postgres",) * 3,
    )  # fmt: skip


def twins(state: World) -> list[Container]:
    """podman's: what Docker has too, by name, and by name and id."""
    return [
        Container(
            identity, name, image, "none", False, held, cpu, (state.new_pid(), state.new_pid()),
            -1, ("postgres",) * 2, "podman",
        )
        for identity, name, image, held, cpu in (
            ("77aa00c4e6f1", "grafana_so1", "grafana/grafana:13.2.2", 333.0, 300.0),
            ("5b00d2c4e6f1", "base-de-datos", "postgres:17", 222.0, 400.0),
        )
    ]  # fmt: skip


def generate(state: World, number: int) -> None:
    """What the generator does each minute: up to ten governed containers of three kinds."""
    rng = state.rng
    for _ in range(state.plan.containers - sum(one.governed for one in state.containers)):
        kind = rng.randint(1, 3)
        names, held, cpu = {
            1: (("sleep",), 0.4 + rng.random() / 2, 0.0),
            2: (("stress", "stress"), 128.9 + rng.random() * 2, 60 + 30 * rng.random()),
            3: (("stress", "stress"), 0.9 + rng.random() / 2, 80 + 20 * rng.random()),
        }[kind]
        state.containers.append(
            Container(
                f"{rng.getrandbits(48):012x}",
                f"so1_contenedor_{rng.randint(0, 32767)}",
                "alpine:latest" if kind == 1 else "polinux/stress",
                "low" if kind == 1 else "high",
                True,
                held,
                cpu,
                tuple(state.new_pid() for _ in names),
                number,
                names,
            )
        )


def totals_of(state: World, one: Container, number: int, blind: bool) -> dict[str, Any]:
    rng = state.rng
    young = number - one.born < 2
    cpu = max(0.0, one.cpu * (0.45 if young else 0.55) + rng.random() * 2 - 0.6)
    if not one.cpu:
        cpu = rng.random() / 50
    held = one.held_mb * (0.97 + 0.06 * rng.random())
    short = 0.0 if one.tier == "low" else cpu * 0.03 * rng.random()
    unexplained = cpu * 0.02 * rng.random()
    oom = state.plan.incidents and one.held_mb > 120 and young and rng.random() < state.plan.kills
    return {
        "one": one,
        "held": held,
        "rss": held * 0.96 + 0.8,
        "cache": 0.2 + one.held_mb * 0.04,
        "cpu": round(cpu, 3),
        "short": None if blind else round(short, 3),
        "unexplained": None if blind else round(unexplained, 3),
        "starts": None if blind else len(one.pids) if number == one.born else 0,
        "exits": None if blind else int(oom),
        "oom": int(oom),
    }


def daemons_of(state: World) -> list[tuple[int, str, float, float]]:
    """The host's own processes: programs first, then kernel threads that hold nothing."""
    found = [(1, *DAEMONS[0])]
    found += [(400 + 37 * order, *one) for order, one in enumerate(DAEMONS[1:], start=1)]
    kthreads = state.plan.processes - len(found)
    found += [(2 + order, f"kworker/{order % 8}:{order}", 0.0, 0.0) for order in range(kthreads)]
    return found
