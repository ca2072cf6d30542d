"""The dashboards over a history that the agent itself wrote, with modules and probes.

The agent runs beside a generator of ours that keeps starting containers, is stopped once, and goes
on; then every panel is held against the oracle. `SO1_DASHBOARD_SECONDS` makes the run longer, and
the history is left in /results for whoever wants to look at it.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sqlite3
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from tests import containers
from tests.agent_process import AgentProcess, rows, run_agent
from tests.containers import docker, wait_until
from tests.unit.grafana import plugin
from tests.unit.grafana.compare import check
from tests.unit.grafana.oracle import Rows
from tests.unit.grafana.plugin import Panel, View

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.vm.conftest import Images

# Minutes of guest time: beyond what CI has for one guest.
pytestmark = pytest.mark.full

SECONDS = int(os.environ.get("SO1_DASHBOARD_SECONDS", "60"))
INTERVAL_S = 2.0
PREFIX = "so1_contenedor_"
WINDOW_MS = 14_000
"""So short that no panel leaves a tick out, at ticks of two seconds."""
POINT_MS = 1000
"""No panel's points are closer."""
PANELS = list(plugin.panels())


class Generator:
    """Keeps up to eight containers of three kinds, as the installed one does each minute."""

    def __init__(self, images: Images) -> None:
        self._images = images
        self._mine = containers.Containers()
        self._stop = threading.Event()
        self._number = 0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(120)
        self._mine.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            there = docker("ps", "--format", "{{.Names}}").split()
            if sum(name.startswith(PREFIX) for name in there) < 8:
                self._start()
            self._stop.wait(1)

    def _start(self) -> None:
        self._number += 1
        stress = "stress --vm 1 --vm-bytes 24M --vm-keep --vm-hang 9999"
        image, command, options = (
            (self._images.alpine, ["sleep", "9999"], ()),
            (self._images.stress, stress.split(), ()),
            (self._images.stress, ["stress", "--cpu", "1"], ("--cpus=0.1",)),
        )[self._number % 3]
        self._mine.run(image, command, name=f"{PREFIX}{self._number}", options=options)


def run_for(database: Path, config: Path, seconds: int) -> None:
    """The agent for so long, stopped as a person stops it."""
    before = count(database)
    words = ("--no-grafana", "--no-cron", "--database", str(database), "--config", str(config))
    with AgentProcess(words) as agent:
        wanted = before + max(3, int(seconds / INTERVAL_S / 2))
        wait_until(
            lambda: count(database) >= wanted and removals(database),
            "ticks are stored, and removals",
            timeout_s=seconds + 300,
        )
        agent.signal(signal.SIGINT)
        assert agent.wait_end() == 0, agent.output


def count(database: Path) -> int:
    if not database.exists():
        return 0
    # The file is there a moment before its tables.
    if not rows(database, "SELECT name FROM sqlite_master WHERE name = 'metrics'"):
        return 0
    return int(rows(database, "SELECT count(*) AS n FROM metrics")[0]["n"])


def removals(database: Path) -> int:
    words = "SELECT count(*) AS n FROM deletions WHERE outcome = 'removed'"
    return int(rows(database, words)[0]["n"])


@pytest.fixture(scope="module")
def history(images: Images) -> Iterator[Path]:
    parent = Path("/var/lib/so1-test")
    parent.mkdir(exist_ok=True)
    directory = Path(tempfile.mkdtemp(dir=parent))
    config = directory / "agent.toml"
    config.write_text(f"interval_s = {INTERVAL_S}\n", encoding="utf-8")
    database = directory / "data" / "metrics.db"
    with Generator(images):
        run_for(database, config, SECONDS // 2)
        run_for(database, config, SECONDS // 2)
    results = Path("/results")
    if results.is_dir():
        shutil.copyfile(database, results / "metrics.db")
    yield database
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def connection(history: Path) -> Iterator[sqlite3.Connection]:
    opened = sqlite3.connect(f"file:{history}?mode=ro", uri=True)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def everything(connection: sqlite3.Connection) -> Rows:
    return Rows.of(connection)


def windows(everything: Rows) -> list[View]:
    """The run in pieces of some ticks each, those that hold none left out.

    So are those with two ticks within one point, as after a late first one: of these a panel that
    thins takes one.
    """
    times = [row["timestamp"] for row in everything.metrics]
    views = []
    for start in range(times[0], times[-1], WINDOW_MS):
        inside = [at for at in times if start <= at <= start + WINDOW_MS]
        if inside and all(b - a >= POINT_MS for a, b in itertools.pairwise(inside)):
            views.append(View(start, start + WINDOW_MS))
    assert views
    return views


def test_the_run_had_everything_that_the_dashboards_show(everything: Rows) -> None:
    assert len(everything.metrics) >= 6
    assert {row["source"] for row in everything.metrics} == {"modules"}
    assert any(row["outcome"] == "removed" for row in everything.deletions)
    assert {row["tier"] for row in everything.totals} >= {"low", "high"}


@pytest.mark.parametrize("panel", PANELS, ids=str)
def test_a_panel_shows_what_the_agent_wrote(
    panel: Panel, connection: sqlite3.Connection, everything: Rows
) -> None:
    for view in windows(everything):
        check(panel, connection, everything, view)


def test_the_report_counts_the_same_ticks_and_removals(history: Path, everything: Rows) -> None:
    done = run_agent("report", "--since", "1d", "--json", "--database", str(history))

    assert done.returncode == 0, done.stderr
    import json

    found = json.loads(done.stdout)
    assert found["ticks"] == len(everything.metrics)
    assert sum(found["removals"]["outcomes"].values()) == len(everything.deletions)
