"""Plain builders of the values that flow through a tick; a test names only what it is about."""

from __future__ import annotations

from typing import Any

from agent.daemon.status import Status, TickStatus
from agent.daemon.tick_values import TickReport
from agent.model.attribution import AttributedProcess, AttributionCounts, Basis, Verified
from agent.model.container import (
    DOCKER,
    Container,
    ContainerCgroup,
    ContainerKey,
    ContainerState,
    HeldBasis,
)
from agent.model.host import Memory
from agent.model.process import Candidate, Process, Snapshot, Source

SECOND_NS = 10**9


def process(pid: int = 7, **changed: Any) -> Process:
    values: dict[str, Any] = {
        "name": "sleep",
        "state": 1,
        "rss_kb": 1024,
        "vsz_kb": 4096,
        "life_cpu_percent": 0,
        "ppid": 1,
        "threads": 1,
        "start_ns": 0,
        "cpu_ns": 0,
        "rss_anon_kb": 256,
        "rss_shmem_kb": 0,
        "mm_id": 0,
        "cgroup_id": 1,
        "cgroup1_id": 0,
    }
    return Process(pid=pid, **(values | changed))


def candidate(pid: int = 7, **changed: Any) -> Candidate:
    values: dict[str, Any] = {
        "name": "sleep",
        "rss_kb": 1024,
        "vsz_kb": 4096,
        "life_cpu_percent": 0,
        "start_ns": 0,
        "cpu_ns": 0,
        "rss_anon_kb": 256,
        "rss_shmem_kb": 0,
        "mm_id": 0,
        "cgroup_id": 1,
        "cgroup1_id": 0,
        "ns_pid": 1,
        "pid_ns": 1,
        "uts_ns": 1,
    }
    return Candidate(pid=pid, **(values | changed))


def snapshot(*processes: Process, at_ns: int = 10 * SECOND_NS) -> Snapshot:
    return Snapshot(Source.MODULES, at_ns, Memory(8192, 4096, 4096, 6144), processes, ())


def container_key(letter: str) -> ContainerKey:
    return ContainerKey(DOCKER, letter * 64)


def container(letter: str = "a", **changed: Any) -> Container:
    values: dict[str, Any] = {
        "name": f"so1_contenedor_{letter}",
        "image": "alpine:latest",
        "created_ns": 0,
        "state": ContainerState.RUNNING,
    }
    return Container(id=letter * 64, **(values | changed))


def cgroup(letter: str = "a", **changed: Any) -> ContainerCgroup:
    values: dict[str, Any] = {
        "path": f"/sys/fs/cgroup/{letter}",
        "ids": frozenset({1}),
        "held_kb": 2048,
        "held_basis": HeldBasis.CGROUP2,
        "cache_kb": 512,
        "cpu_ns": 0,
        "read_ns": 10 * SECOND_NS,
    }
    return ContainerCgroup(container=container_key(letter), **(values | changed))


def row(one: Process | Candidate | None = None, **changed: Any) -> AttributedProcess:
    values: dict[str, Any] = {
        "container": container_key("a"),
        "container_name": "so1_contenedor_a",
        "basis": Basis.CGROUP,
        "verified": Verified.AGREE,
    }
    return AttributedProcess(process=one or process(), **(values | changed))


def tick_report(**changed: Any) -> TickReport:
    values: dict[str, Any] = {
        "number": 3,
        "wall_ns": 1_700_000_000 * SECOND_NS,
        "source": "modules",
        "processes": 143,
        "mapped": 14,
        "checks": AttributionCounts(agree=14),
        "container_count": 5,
        "tiers": {"low": 3, "high": 2, "none": 0},
        "removed": 4,
        "failed": 0,
        "used_kb": 2 * 1024 * 1024,
        "total_kb": 8 * 1024 * 1024,
        "tick_ms": 412,
    }
    return TickReport(**(values | changed))


def status(**changed: Any) -> Status:
    values: dict[str, Any] = {
        "version": "1.0.0",
        "pid": 4242,
        "since_wall_ms": 1_700_000_000_000,
        "interval_s": 20.0,
        "scope": "managed",
        "dry_run": False,
        "source": "modules",
        "database": "/var/lib/so1/metrics.db",
        "grafana": "up at http://localhost:3000",
        "cron": "/etc/cron.d/so1-agent, every minute",
        "bpf": "ready",
        "unstored_ticks": 0,
        "problems": [],
        "tick": tick_status(),
    }
    return Status(**(values | changed))


def tick_status(**changed: Any) -> TickStatus:
    values: dict[str, Any] = {
        "number": 3,
        "wall_ms": 1_700_000_060_000,
        "processes": 143,
        "mapped": 14,
        "container_count": 5,
        "removed": 4,
        "failed": 0,
        "used_kb": 2 * 1024 * 1024,
        "total_kb": 8 * 1024 * 1024,
        "tick_ms": 412,
        "tiers": {"low": 3, "high": 2, "none": 0},
        "checks": {"agree": 14, "conflict": 0},
        "stages_ms": {"read": 1.5},
    }
    return TickStatus(**(values | changed))
