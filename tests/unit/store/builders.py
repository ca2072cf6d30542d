"""Values for the store's tests: a clock that does what it is told, and ticks of any size."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.config import RetentionSettings
from agent.model.attribution import AttributionCounts, Basis, Verified
from agent.model.container import (
    DOCKER,
    Container,
    ContainerKey,
    ContainerState,
    ContainerTotals,
    HeldBasis,
    Tier,
)
from agent.model.host import HostFigures, Memory
from agent.model.process import Source
from agent.model.record import ContainerProcessUsage, ProcessUsage, TickRecord
from agent.model.removal import Decision, Outcome, Reason, Removal, RemovalPass
from agent.store.store import Store

START_NS = 1_764_000_000 * 10**9
SECOND_NS = 10**9
HOUR_NS = 3600 * 10**9
DAY_NS = 24 * HOUR_NS

ID_A = "a1" * 32
ID_B = "b2" * 32
KEY_A, KEY_B = ContainerKey(DOCKER, ID_A), ContainerKey(DOCKER, ID_B)


@dataclass
class FakeClock:
    """Both clocks; `pass_time` moves them together, `step_wall` the wall alone."""

    wall: int = START_NS
    boot: int = 100 * SECOND_NS

    def wall_ns(self) -> int:
        return self.wall

    def boot_ns(self) -> int:
        return self.boot

    def pass_time(self, ns: int) -> None:
        self.wall += ns
        self.boot += ns

    def step_wall(self, ns: int) -> None:
        self.wall += ns

    def reboot(self) -> None:
        self.boot = 5 * SECOND_NS


def a_process(pid: int, name: str = "", rss_kb: int = 4096, cpu: float = 0.5) -> ProcessUsage:
    return ProcessUsage(pid, name or f"proc-{pid % 100}", rss_kb, cpu)


def a_container(name: str = "so1_contenedor_1", identity: str = ID_A) -> Container:
    return Container(identity, name, "alpine:latest", START_NS, ContainerState.RUNNING)


def a_container_process(
    pid: int, name: str = "sleep", container: Container | None = None, rss_kb: int = 2048
) -> ContainerProcessUsage:
    owner = container or a_container()
    return ContainerProcessUsage(
        owner.key, owner.name, pid, name, rss_kb, 1.25, Verified.UNVERIFIED, Basis.CGROUP
    )


def totals(container: Container | None = None, held_kb: int = 3072) -> ContainerTotals:
    return ContainerTotals(
        container=container or a_container(),
        tier=Tier.LOW,
        governed=True,
        processes=1,
        held_kb=held_kb,
        held_basis=HeldBasis.CGROUP2,
        rss_kb=2048,
        cache_kb=512,
        cpu_percent=12.3456,
        oom_kills=0,
    )


def a_removal(number: int = 1, outcome: Outcome = Outcome.REMOVED, error: str = "") -> Removal:
    decision = Decision(
        id=f"decision-{number}",
        container_id=ID_B,
        container_name=f"so1_contenedor_{number}",
        image="polinux/stress",
        created_ns=START_NS,
        tier=Tier.HIGH,
        rank=number,
        reason=Reason.EXCESS_HIGH,
        held_mb=128.5,
        cpu_percent=99.0,
    )
    return Removal(decision, outcome, 340, error)


def a_pass(*removals: Removal) -> RemovalPass:
    return RemovalPass(removals or (a_removal(),), 1_024_000, 2_048_000)


def a_tick(
    wall_ns: int = START_NS,
    processes: int | tuple[ProcessUsage, ...] = 3,
    **changes: Any,
) -> TickRecord:
    listed = (
        tuple(a_process(pid) for pid in range(1, processes + 1))
        if isinstance(processes, int)
        else processes
    )
    values: dict[str, Any] = {
        "wall_ns": wall_ns,
        "memory": Memory(8_000_000, 3_000_000, 5_000_000, 6_000_000),
        "host": HostFigures(12.5, 4, 0.75, 0.1, None),
        "source": Source.MODULES,
        "container_count": 1,
        "deleted_count": 0,
        "tick_ms": 45,
        "processes": listed,
        "container_processes": (a_container_process(2),),
        "totals": (totals(),),
        "passes": (),
        "checks": AttributionCounts(unverified=1),
    }
    return TickRecord(**{**values, **changes})


def open_store(path: Path, clock: FakeClock | None = None, **settings: Any) -> Store:
    return Store.open(path, clock=clock or FakeClock(), retention=RetentionSettings(**settings))


def ask(path: Path, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """The answer of plain SQLite over a connection that cannot write."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)
    try:
        return connection.execute(sql, parameters).fetchall()
    finally:
        connection.close()


def count(path: Path, table: str) -> int:
    return int(ask(path, f"SELECT count(*) FROM {table}")[0][0])
