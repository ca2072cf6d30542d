"""Two Docker engines and a podman in one agent; one of them stops answering, and only its rows.

Natively, each engine its own. The oracle is each engine's command line.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.agent_process import AgentProcess, rows, run_agent
from tests.containers import wait_until
from tests.docker.private_engine import PrivateEngine, private_engine
from tests.docker.private_podman import PrivatePodman, private_podman


@dataclass(frozen=True, slots=True)
class Place:
    """One agent's directory, and its engines."""

    directory: Path
    docker: PrivateEngine
    second: PrivateEngine
    podman: PrivatePodman

    @property
    def database(self) -> Path:
        return self.directory / "data/metrics.db"

    @property
    def config(self) -> str:
        return str(self.directory / "agent.toml")

    def agent(self) -> AgentProcess:
        return AgentProcess(("--config", self.config, "--no-bpf", "--no-cron", "--no-grafana"))

    def ticks(self) -> int:
        if not self.database.exists():
            return 0
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
            try:
                return int(connection.execute("SELECT count(*) FROM metrics").fetchone()[0])
            except sqlite3.OperationalError:
                return 0

    def of_last_tick(self) -> dict[str, set[str]]:
        """Engine → names of its containers."""
        found: dict[str, set[str]] = {}
        last = "SELECT max(timestamp) FROM metrics"
        for row in rows(
            self.database,
            f"SELECT engine, container_name FROM container_totals WHERE timestamp = ({last})",
        ):
            found.setdefault(row["engine"], set()).add(row["container_name"])
        return found

    def after_ticks(self, more: int) -> dict[str, set[str]]:
        wanted = self.ticks() + more
        wait_until(lambda: self.ticks() >= wanted, f"{more} more ticks", timeout_s=120)
        return self.of_last_tick()

    def status(self) -> dict[str, Any]:
        done = run_agent("status", "--json", "--config", self.config)
        found: dict[str, Any] = json.loads(done.stdout)["status"]
        return found


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with private_engine() as docker, private_engine() as second, private_podman() as podman:
        (tmp_path / "agent.toml").write_text(
            f'interval_s = 2\nsource = "psutil"\ndocker_host = "{docker.host}"\n'
            f'[[engine]]\nname = "second"\nsocket = "{second.host}"\n'
            f'[[engine]]\nname = "podman"\nkind = "podman"\nsocket = "{podman.socket}"\n'
            f'[paths]\nrun = "{tmp_path}/run"\nlog = "{tmp_path}/log"\n'
            f'database = "{tmp_path}/data/metrics.db"\n',
            encoding="utf-8",
        )
        os.chmod(tmp_path, 0o755)
        docker.run("--name", "same")
        second.run("--name", "same")
        second.run("--name", "other")
        podman.run("--name", "same")
        yield Place(tmp_path, docker, second, podman)


EVERYTHING = {"docker": {"same"}, "second": {"same", "other"}, "podman": {"same"}}


def test_each_engines_rows_are_its_own_and_one_that_stops_takes_no_others(place: Place) -> None:
    with place.agent():
        # A podman on a loaded machine may be late with its first list.
        wait_until(lambda: place.after_ticks(1) == EVERYTHING, "every engine has its rows")
        short = {
            (row["engine"], row["container_id"])
            for row in rows(place.database, "SELECT engine, container_id FROM container_stats")
            if row["engine"] in EVERYTHING  # what other engines of this machine run is nobody's
        }
        assert short == {
            *(("docker", one[:12]) for one in place.docker.docker("ps", "-q").split()),
            *(("second", one[:12]) for one in place.second.docker("ps", "-q").split()),
            *(("podman", one[:12]) for one in place.podman.ids()),
        }

        # What happens to a container makes the agent ask for the list again, instead of keeping it.
        place.second.docker("pause", "other")
        place.second.docker("unpause", "other")
        place.second.pause_daemon()
        try:
            # It hangs: the first tick waits for it a little, the next ones not at all.
            without = {name: found for name, found in EVERYTHING.items() if name != "second"}
            assert place.after_ticks(3) == without
            place.docker.run("--name", "born meanwhile".replace(" ", "-"))
            seen = place.after_ticks(2)
            assert seen["docker"] == {"same", "born-meanwhile"}
            assert seen.keys() == without.keys()
            engines = place.status()["engines"]
            assert engines["second"].startswith("away: ")
            assert (engines["docker"], engines["podman"]) == ("answers", "answers")
            stats = rows(
                place.database,
                "SELECT DISTINCT engine FROM container_stats"
                " WHERE timestamp = (SELECT max(timestamp) FROM metrics)",
            )
            assert {row["engine"] for row in stats} & EVERYTHING.keys() == {"docker", "podman"}
        finally:
            place.second.resume_daemon()
        wait_until(
            lambda: place.after_ticks(1).get("second") == {"same", "other"}, "the second is back"
        )

        place.podman.podman("pause", "same")
        place.podman.podman("unpause", "same")
        service = place.podman.service
        assert service is not None
        service.send_signal(signal.SIGSTOP)
        try:
            wait_until(lambda: place.after_ticks(1).keys() == {"docker", "second"}, "podman is off")
        finally:
            service.send_signal(signal.SIGCONT)
        wait_until(lambda: place.after_ticks(1).get("podman") == {"same"}, "podman is back")

        place.docker.docker("pause", "same")
        place.docker.docker("unpause", "same")
        place.docker.pause_daemon()
        try:
            wait_until(
                lambda: place.after_ticks(1).keys() == {"second", "podman"}, "Docker is away"
            )
        finally:
            place.docker.resume_daemon()
        wait_until(lambda: "docker" in place.after_ticks(1), "Docker is back")
    # No rows of an engine's own containers under another name, in all that was stored.
    pairs = rows(place.database, "SELECT DISTINCT engine, container_name FROM container_stats")
    assert {
        (row["engine"], row["container_name"]) for row in pairs if row["engine"] in EVERYTHING
    } == {
        *((name, one) for name, found in EVERYTHING.items() for one in found),
        ("docker", "born-meanwhile"),
    }
    known = {one[:12] for one in place.podman.ids()}
    for engine in (place.docker, place.second):
        known |= {one[:12] for one in engine.docker("ps", "-aq").split()}
    strangers = rows(place.database, "SELECT DISTINCT engine, container_id FROM container_stats")
    assert not {row["container_id"] for row in strangers if row["engine"] not in EVERYTHING} & known
