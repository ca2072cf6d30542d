"""A whole agent that ships by itself, without Docker, and carries nothing of the driver."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.fleet.streams import STREAMS
from tests.agent_process import AgentProcess, run_agent
from tests.fleet.programs import PROJECT, wait_until

if TYPE_CHECKING:
    from tests.fleet.conftest import Centre
    from tests.fleet.host import Host

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as the agent does")


def test_an_agent_ships_by_itself_and_carries_no_driver(
    host: Host, centre: Centre, tmp_path: Path
) -> None:
    environment = tmp_path / "fleet"
    (environment / "bin").mkdir(parents=True)
    python = environment / "bin/python"
    # The isolated interpreter of an installation knows where the agent is; this one has to be told.
    python.write_text(f'#!/bin/sh\ncd {PROJECT}\nshift\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    secret = tmp_path / "secret"
    secret.write_text(host.secret + "\n")
    secret.chmod(0o600)
    (host.directory / "installation").write_text(host.installation + "\n")
    (host.directory / "installation").chmod(0o640)
    config = tmp_path / "agent.toml"
    config.write_text(
        f'interval_s = 1\nsource = "psutil"\ndocker_host = "unix://{tmp_path}/none.sock"\n'
        "[grafana]\nenabled = false\n[cron]\nenabled = false\n[bpf]\nenabled = false\n"
        f'[paths]\nrun = "{tmp_path}/run"\nlog = "{tmp_path}/log"\ndatabase = "{host.database}"\n'
        f'[fleet]\ndsn = "{host.dsn}"\nflush_s = 10\nsecret_file = "{secret}"\n'
        f'environment = "{environment}"\n'
    )
    for stream in STREAMS:
        host.write(stream, 4, time.time_ns() // 10**6 - 60_000)
    with AgentProcess(("--config", str(config), "--dry-run")) as agent:
        agent.wait_for_tick(1)
        # Of all streams: a stop would cut a flush off anywhere, and the next start goes on there.
        wait_until(
            lambda: all(centre.rows(one, host) == host.rows(one) for one in STREAMS),
            "all rows at the centre",
            timeout_s=120,
        )
        maps = Path(f"/proc/{agent.process.pid}/maps").read_text()
        assert "psycopg" not in maps
        assert "libpq" not in maps
        agent.signal(signal.SIGTERM)
        assert agent.wait_end() == 0, agent.output


def imported(tmp_path: Path) -> set[str]:
    """What a whole run of the agent imports, in this environment with every driver in it."""
    config = tmp_path / "agent.toml"
    config.write_text(
        f'source = "psutil"\ndocker_host = "unix://{tmp_path}/none.sock"\n'
        "[grafana]\nenabled = false\n[cron]\nenabled = false\n[bpf]\nenabled = false\n"
        f'[paths]\nrun = "{tmp_path}/run"\nlog = "{tmp_path}/log"\n'
        f'database = "{tmp_path}/var/metrics.db"\n'
    )
    words = ("start", "--once", "--dry-run", "--config", str(config))
    ended = run_agent(*words, env={"PYTHONVERBOSE": "1"})
    assert ended.returncode == 0, ended.stderr
    return set(re.findall(r"^import '([\w.]+)'", ended.stderr, re.MULTILINE))


def test_without_fleet_and_metrics_nothing_of_them_is_loaded_where_their_libraries_are_installed(
    tmp_path: Path,
) -> None:
    for one in ("psycopg", "prometheus_client"):
        assert importlib.util.find_spec(one)
    found = imported(tmp_path)
    assert "agent.store.store" in found
    foreign = ("psycopg", "prometheus_client", "agent.fleet.", "agent.export")
    # The command line asks it where the driver's environment is; it imports nothing of that.
    assert {one for one in found if one.startswith(foreign)} <= {"agent.fleet.environment"}
