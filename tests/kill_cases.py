"""The agent ended at one of its steps, and what the next start, stop or clean-up makes of it.

Collected through a subclass that gives an `engine`. The process is ended from outside by
`tests/steps/sitecustomize.py`, exactly before or after the step; the oracle is the file system,
`/proc`, SQLite and Docker.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests import containers
from tests.agent_process import AgentProcess, rows, run_agent
from tests.containers import wait_until

PREFIX = "so1_contenedor_"
SHIM = Path(__file__).parent / "steps"
CRONTABS = Path("/var/spool/cron/crontabs")
AWAY = "unlink .*/cron.d/so1-agent$"
"""The first step of every stop."""
START, CLEANUP = "start", "cleanup"
LIMIT = 3
LOCKS = {"agent.lock", "generator.lock", "compose.lock"}


class AnyEngine(Protocol):
    """What of an engine is used here: its address, and the docker command line on it."""

    @property
    def host(self) -> str: ...

    def docker(self, *words: str) -> str: ...


@dataclass(frozen=True, slots=True)
class Step:
    """One step, as the shim lists it, and the moment at which the agent gets the signal."""

    name: str
    step: str
    """A regular expression on `KIND TEXT`."""
    when: str = "before"
    nth: int = 1
    since: str = ""
    """Only once a step that matches this has been seen."""
    signal: int = int(signal.SIGKILL)
    often: bool = True
    """False: for --full alone."""

    def environment(self) -> dict[str, str]:
        return {"PYTHONPATH": str(SHIM), "SO1_TEST_STEP": json.dumps(asdict(self))}


def both(name: str, step: str, *, often: str = "before after", **more: Any) -> list[Step]:
    """Before and after the step; `often` names which of both run each time."""
    return [
        Step(f"{name}, {when}", step, when, often=when in often.split(), **more)
        for when in ("before", "after")
    ]


def sql(name: str, text: str, **more: Any) -> Step:
    """Before a statement; after it is before the next one."""
    return Step(f"{name}, before", f"sql {text}", **more)


START_STEPS = [
    *both("run directory made", "mkdir .*/run$", often="after"),
    *both("agent's lock file made", "open .*/agent.lock$", often="none"),
    *both("agent's lock taken", "flock .*/agent.lock$", often="after"),
    *both("database's directory made", "mkdir .*/data$", often="none"),
    *both("database made", "open .*/metrics.db$", often="after"),
    *both("log beside the database made", "open .*/metrics.db-wal$", often="after"),
    *both("index beside the database made", "open .*/metrics.db-shm$", often="none"),
    sql("log turned on", "PRAGMA journal_mode = WAL"),
    sql("log turned on for good", "PRAGMA secure_delete"),
    sql("list of migrations made", "CREATE TABLE IF NOT EXISTS .schema_migration", often=False),
    sql("first table made", "CREATE TABLE metrics"),
    sql("last index of the first migration", "CREATE INDEX container_totals_name", often=False),
    sql("first migration noted", "INSERT INTO .schema_migration. .*0001"),
    sql("second migration noted", "INSERT INTO .schema_migration. .*0002", often=False),
    *both("installation's id written aside", r"open .*/data/\.installation", often="after"),
    *both("installation's id in place", "link .*/data/installation$", often="after"),
    *both("aside of the installation's id removed", r"unlink .*/data/\.installation", often="none"),
    *both("loader of the modules run", "spawn .*load_modules.sh$"),
    *both("Docker asked for the first time", "http GET /version", often="none"),
    *both("cron file written aside", r"open .*/cron.d/\.so1-agent.new$", often="after"),
    *both("cron file in place", "rename .*/cron.d/so1-agent$", often="after"),
    *both("first generation run", "spawn .*generar_contenedores.sh$"),
]

TICK_STEPS = [
    *both("containers listed", "http GET /containers/json", often="none", nth=2),
    sql("tick begun", "BEGIN IMMEDIATE", nth=2, often=False),
    sql("tick's row of the host", 'INSERT INTO "metrics"', nth=2, often=False),
    sql("tick's rows of processes", 'INSERT INTO "process_stats"', nth=2),
    sql("tick's rows of containers", 'INSERT INTO "container_totals"', often=False),
    sql("tick's last row", 'INSERT INTO "attribution_checks"', nth=2, often=False),
    sql("tick committed", "COMMIT", since='sql INSERT INTO "container_totals"'),
    *both("status written aside", r"open .*/run/\.status.json.new$", often="after"),
    *both("status in place", "rename .*/run/status.json$", often="after"),
]

REMOVAL_STEPS = [
    *both("container looked up again", "http GET /containers/[0-9a-f]{64}/json", often="none"),
    *both("container stopped", "http POST /containers/.*/stop", often="after"),
    *both("container deleted", "http DELETE /containers/"),
    sql("deletion stored", 'INSERT INTO "deletions"'),
    sql("deletion committed", "COMMIT", since='sql INSERT INTO "deletions"', often=False),
]

STOP_STEPS = [
    *both("cron file removed", AWAY),
    *both("generator's lock file made", "open .*/generator.lock$", often="none"),
    *both("generator's lock taken", "flock .*/generator.lock$", often="after"),
    *both("own containers listed", "http GET /containers/json.*label", often="none"),
    *both("own container stopped", "http POST /containers/.*/stop", since=AWAY, often="none"),
    *both("own container deleted", "http DELETE /containers/", since=AWAY),
    sql("log folded in", "PRAGMA journal_mode = MEMORY", since=AWAY),
    sql("log folded in for good", "PRAGMA locking_mode = NORMAL", since=AWAY),
    *both("status removed", "unlink .*/run/status.json$", often="after"),
]

MODULE_STEPS = [
    *both("unloader of the modules run", "spawn .*load_modules.sh --unload$", often="after"),
]

TERM_STEPS = [
    Step(f"{name}, {when}", step, when, signal=int(signal.SIGTERM), often=often)
    for name, step, when, often in (
        ("database made", "open .*/metrics.db$", "after", True),
        ("first table made", "sql CREATE TABLE metrics", "before", False),
        ("loader of the modules run", "spawn .*load_modules.sh$", "after", True),
        ("cron file in place", "rename .*/cron.d/so1-agent$", "before", False),
        ("first generation run", "spawn .*generar_contenedores.sh$", "before", False),
        ("first generation run", "spawn .*generar_contenedores.sh$", "after", True),
        ("container stopped", "http POST /containers/.*/stop", "after", True),
        ("container deleted", "http DELETE /containers/", "before", False),
        ("tick committed", "sql COMMIT", "before", False),
        ("status in place", "rename .*/run/status.json$", "after", False),
    )
]


def cases(steps: list[Step]) -> list[Any]:
    """Each step with both ways on. Each time one of them runs, in turn; with --full both do.

    In a guest, where a start takes many times as long, those of each time are all there are.
    """
    listed = []
    for number, step in enumerate(steps):
        ways = (START, CLEANUP) if number % 2 else (CLEANUP, START)
        for place, way in enumerate(ways):
            often = step.often and place == 0
            if not often and containers.in_lab():
                continue
            marks = [] if often else [pytest.mark.full]
            listed.append(pytest.param(step, way, id=f"{step.name}, then {way}", marks=marks))
    return listed


def each(steps: list[Step]) -> list[Any]:
    """The same for steps that the agent is asked to stop at, where there is no way to choose."""
    return [
        pytest.param(one, id=one.name, marks=[] if one.often else [pytest.mark.full])
        for one in steps
        if one.often or not containers.in_lab()
    ]


def crontabs() -> dict[str, bytes]:
    return (
        {path.name: path.read_bytes() for path in CRONTABS.iterdir()} if CRONTABS.is_dir() else {}
    )


def modules() -> set[str]:
    return {name for name in ("sysinfo", "continfo") if Path(f"/sys/module/{name}").exists()}


def is_free(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


@dataclass(slots=True)
class Place:
    """Where an agent of a test keeps everything, and what has to be true of it."""

    directory: Path
    engine: AnyEngine
    users_crontabs: dict[str, bytes] = field(default_factory=crontabs)

    @property
    def config(self) -> Path:
        return self.directory / "agent.toml"

    @property
    def database(self) -> Path:
        return self.directory / "data/metrics.db"

    @property
    def run(self) -> Path:
        return self.directory / "run"

    @property
    def cron_file(self) -> Path:
        return self.directory / "cron.d/so1-agent"

    def configure(self, source: str) -> None:
        (self.directory / "cron.d").mkdir(mode=0o755)
        self.config.write_text(
            f'interval_s = 1\nsource = "{source}"\ndocker_host = "{self.engine.host}"\n'
            f'[images]\nlow = "{containers.ALPINE}"\nhigh = "{containers.STRESS}"\n'
            f"[policy]\nmax_containers = {LIMIT}\nkeep_low = 1\nkeep_high = 1\nstop_grace_s = 0\n"
            "[grafana]\nenabled = false\n[bpf]\nenabled = false\n"
            f'[cron]\ndirectory = "{self.directory}/cron.d"\n'
            f'[paths]\nrun = "{self.run}"\nlog = "{self.directory}/log"\n'
            f'database = "{self.database}"\n',
            encoding="utf-8",
        )

    def agent(self, step: Step | None = None) -> AgentProcess:
        return AgentProcess(("--config", str(self.config)), step.environment() if step else {})

    def command(self, *words: str) -> str:
        """`agent WORDS…`, which has to succeed; all that it said."""
        done = run_agent(*words, "--config", str(self.config))
        assert done.returncode == 0, f"agent {words}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def mine(self, *options: str) -> list[str]:
        """Full ids of all containers that the generator or the test made."""
        return self.engine.docker(
            "ps", "--no-trunc", "-q", "--filter", f"name={PREFIX}", *options
        ).split()

    def remove_mine(self) -> None:
        """All of them, running or not."""
        containers.remove_all(
            lambda: self.mine("-a"),
            self.engine.docker,
            "none of the generator's containers is left",
        )

    def processes(self) -> list[str]:
        """Command lines of processes that were told of this directory, zombies aside."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                words = (entry / "cmdline").read_bytes()
                told = words + (entry / "environ").read_bytes()
            except OSError:  # ended meanwhile
                continue
            if str(self.directory).encode() in told:
                found.append(words.replace(b"\0", b" ").decode(errors="replace"))
        return found

    def assert_whole_ticks(self) -> None:
        """A reader that cannot write sees whole ticks, at any moment."""
        if not self.database.exists() or not self.database.stat().st_size:
            return
        tables = {row["name"] for row in rows(self.database, "SELECT name FROM sqlite_master")}
        if "attribution_checks" not in tables:
            return
        assert rows(self.database, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]
        ticks = {
            row["timestamp"]: row["process_count"]
            for row in rows(self.database, "SELECT timestamp, process_count FROM metrics")
        }
        stored = rows(
            self.database,
            "SELECT timestamp, count(*) AS n FROM process_stats GROUP BY timestamp",
        )
        assert {row["timestamp"]: row["n"] for row in stored} == ticks
        checks = [
            row["timestamp"] for row in rows(self.database, "SELECT * FROM attribution_checks")
        ]
        assert sorted(checks) == sorted(ticks)
        for table in ("container_totals", "container_stats"):
            seen = rows(self.database, f"SELECT DISTINCT timestamp FROM {table}")
            assert {row["timestamp"] for row in seen} <= set(ticks)
        twice = "SELECT {0} FROM deletions {1} GROUP BY {0} HAVING count(*) > 1"
        assert not rows(self.database, twice.format("decision", ""))
        assert not rows(self.database, twice.format("container_id", "WHERE outcome = 'removed'"))

    def assert_nothing_is_left(self, *, way: str) -> None:
        wait_until(lambda: not self.processes(), f"all have ended: {self.processes()}")
        # An orphan may have made one last thing: what is there is looked at when all have ended.
        assert self.mine("-a") == []
        assert os.listdir(self.directory / "cron.d") == []
        assert modules() == set()
        assert all(is_free(self.run / name) for name in os.listdir(self.run))
        assert set(os.listdir(self.run)) <= LOCKS
        side = {"metrics.db-wal", "metrics.db-shm"} if way == CLEANUP else set()
        if self.database.parent.exists():
            kept = set(os.listdir(self.database.parent))
            assert kept <= {"metrics.db", "installation"} | side
        self.assert_whole_ticks()
        assert crontabs() == self.users_crontabs

    def bring_to_an_end(self, way: str) -> None:
        """The next start and stop, or clean-up, and what is left then."""
        if way == CLEANUP:
            said = self.command("cleanup")
            assert said.endswith("Clean.\n"), said
        else:
            with self.agent() as agent:
                agent.wait_for_tick(1)
                assert os.listdir(self.cron_file.parent) == [self.cron_file.name]
                assert len(self.mine()) <= LIMIT
                self.command("stop")
                assert agent.wait_end() == 0, agent.output
                assert "Traceback" not in agent.output
        self.assert_nothing_is_left(way=way)


@pytest.fixture
def place(request: pytest.FixtureRequest, engine: AnyEngine) -> Iterator[Place]:
    # A directory that others can write is refused, and pytest's own is below /tmp.
    parent = Path("/var/lib/so1-test")
    parent.mkdir(exist_ok=True)
    made = Place(Path(tempfile.mkdtemp(prefix="kill-", dir=parent)), engine)
    made.configure(request.cls.source)
    yield made
    made.remove_mine()
    shutil.rmtree(made.directory)


def end_at(place: Place, step: Step) -> None:
    """Runs the agent until the step ends it, with a stop on the way to a step of the stop."""
    with place.agent(step) as agent:
        if step in (*STOP_STEPS, *MODULE_STEPS):
            agent.wait_for_tick(1)
            wait_until(place.mine, "load is generated")
            agent.signal(signal.SIGTERM)
        assert agent.wait_end(120) == -signal.SIGKILL, f"{step}:\n{agent.output}"


class KillCases:
    """One ended agent a test."""

    source = "auto"

    @pytest.mark.parametrize(("step", "way"), cases(START_STEPS))
    def test_killed_in_the_start(self, place: Place, step: Step, way: str) -> None:
        end_at(place, step)
        place.assert_whole_ticks()
        place.bring_to_an_end(way)

    @pytest.mark.parametrize(("step", "way"), cases(TICK_STEPS))
    def test_killed_in_a_tick(self, place: Place, step: Step, way: str) -> None:
        end_at(place, step)
        place.assert_whole_ticks()
        place.bring_to_an_end(way)

    @pytest.mark.parametrize(("step", "way"), cases(REMOVAL_STEPS))
    def test_killed_in_a_removal(self, place: Place, step: Step, way: str) -> None:
        end_at(place, step)
        place.assert_whole_ticks()
        place.bring_to_an_end(way)

    @pytest.mark.parametrize(("step", "way"), cases(STOP_STEPS))
    def test_killed_in_the_stop(self, place: Place, step: Step, way: str) -> None:
        end_at(place, step)
        place.assert_whole_ticks()
        place.bring_to_an_end(way)

    @pytest.mark.parametrize("step", each(TERM_STEPS))
    def test_asked_to_stop_at_a_step_it_undoes_what_was_done(
        self, place: Place, step: Step
    ) -> None:
        with place.agent(step) as agent:
            assert agent.wait_end(120) == 0, agent.output
            assert "Traceback" not in agent.output
        place.assert_nothing_is_left(way=START)
