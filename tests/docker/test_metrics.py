"""A whole agent's `/metrics`: its figures against the kernel's and Docker's, and after kill -9."""

from __future__ import annotations

import os
import re
import signal
import socket
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import containers
from tests.agent_process import AgentProcess, rows
from tests.containers import wait_until
from tests.docker.private_engine import PrivateEngine, private_engine

if TYPE_CHECKING:
    from collections.abc import Iterator

CGROUPS = Path("/sys/fs/cgroup")
LINE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
LIMIT_BYTES = 64 << 20


@pytest.fixture(scope="module")
def engine() -> Iterator[PrivateEngine]:
    with private_engine() as engine:
        yield engine


@dataclass(slots=True)
class Place:
    directory: Path
    port: int

    @property
    def database(self) -> Path:
        return self.directory / "data/metrics.db"

    def agent(self) -> AgentProcess:
        return AgentProcess(("--config", str(self.directory / "agent.toml"), "--no-bpf"))

    def scrape(self) -> dict[tuple[str, str], float]:
        """By metric and container's name; empty while nobody answers."""
        url = f"http://127.0.0.1:{self.port}/metrics"
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:
                text = answer.read().decode("utf-8")
        except (urllib.error.URLError, ConnectionError):
            return {}
        found = {}
        for line in text.splitlines():
            if match := LINE.fullmatch(line):
                name = re.search(r'\bname="([^"]*)"', match[2] or "")
                found[match[1], name[1] if name else ""] = float(match[3])
        return found


@pytest.fixture
def place(tmp_path: Path, engine: PrivateEngine) -> Iterator[Place]:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = int(one.getsockname()[1])
    (tmp_path / "agent.toml").write_text(
        f'interval_s = 1\nsource = "psutil"\ndocker_host = "{engine.host}"\n'
        f"[grafana]\nenabled = false\n[cron]\nenabled = false\n"
        f'[metrics]\nlisten = "127.0.0.1:{port}"\n'
        f'[paths]\nrun = "{tmp_path}/run"\nlog = "{tmp_path}/log"\n'
        f'database = "{tmp_path}/data/metrics.db"\n',
        encoding="utf-8",
    )
    os.chmod(tmp_path, 0o755)
    yield Place(tmp_path, port)
    engine.clear()


def own_cgroup(engine: PrivateEngine, container: str, controller: str) -> Path:
    """As the container's first process says where it is."""
    pid = engine.inspect(container)["State"]["Pid"]
    for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines():
        number, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return CGROUPS / controllers / path.lstrip("/")
        if number == "0" and (CGROUPS / "cgroup.controllers").exists():
            return CGROUPS / path.lstrip("/")
    raise AssertionError(f"no {controller} cgroup of {container}")


def cpu_s(engine: PrivateEngine, container: str) -> float:
    directory = own_cgroup(engine, container, "cpuacct")
    if (directory / "cpuacct.usage").exists():
        return int((directory / "cpuacct.usage").read_text()) / 10**9
    text = (directory / "cpu.stat").read_text()
    return int(re.findall(r"usage_usec (\d+)", text)[0]) / 10**6


def test_the_figures_are_the_kernels_and_dockers_and_no_counter_falls_by_a_kill(
    place: Place, engine: PrivateEngine
) -> None:
    busy = engine.run(
        *("--name", "busy", "--memory", str(LIMIT_BYTES)),
        image=containers.STRESS,
        command=("stress", "--cpu", "1", "--quiet"),
    )
    before = cpu_s(engine, busy)
    with place.agent() as agent:
        agent.wait_for_tick(2)
        first = wait_until(place.scrape, "the page is there")
        after = cpu_s(engine, busy)
        assert before <= first["container_cpu_usage_seconds_total", "busy"] <= after
        assert first["container_spec_memory_limit_bytes", "busy"] == LIMIT_BYTES
        started = datetime.fromisoformat(engine.inspect(busy)["State"]["StartedAt"][:19] + "+00:00")
        at = first["container_start_time_seconds", "busy"]
        assert started.timestamp() <= at < started.timestamp() + 1
        assert first["so1_containers", ""] == 1
        assert 0 < first["container_memory_rss", "busy"] < LIMIT_BYTES

        agent.signal(signal.SIGKILL)
        agent.wait_end()
    stored = rows(place.database, "SELECT value FROM host_counters WHERE name = '[\"ticks\"]'")
    with place.agent() as agent:
        agent.wait_for_tick(1)
        second = wait_until(place.scrape, "the page is there again")
        assert second["so1_ticks_total", ""] > stored[0]["value"] >= first["so1_ticks_total", ""]
        cpu = ("container_cpu_usage_seconds_total", "busy")
        assert second[cpu] > first[cpu]
        agent.signal(signal.SIGTERM)
        assert agent.wait_end() == 0, agent.output
    assert place.scrape() == {}
