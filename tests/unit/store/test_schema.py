"""The schema: what DB users rely on, who owns it, and how it gets from one version to the next."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from peewee import SqliteDatabase
from playhouse.migrations import Runner

from agent.errors import StoreError
from agent.store import counters, outbox, proof_state, rules_in_force
from agent.store import database as sqlite
from agent.store.rollup_tables import promised
from agent.store.tables import ALL_TABLES, columns, table_name
from tests.unit.store.builders import (
    HOUR_NS,
    ID_B,
    START_NS,
    a_container,
    a_container_process,
    a_process,
    a_tick,
    ask,
    count,
    open_store,
)

DOCUMENTED = {
    "metrics": """total_ram free_ram used_ram container_count process_count deleted_count
        available_ram cpu_usage cpu_count load1 psi_memory psi_cpu source tick_ms""",
    "container_stats": """container_id container_name pid process_name ram_usage cpu_usage
        verified basis engine""",
    "process_stats": "pid name ram_usage cpu_usage",
    "container_totals": """container_id container_name image tier governed processes held_mb
        held_basis rss_mb cache_mb cpu_usage cpu_short_lived cpu_unexplained starts exits
        oom_kills swap_mb held_estimated_mb rule engine pod""",
    "deletions": """decision container_id container_name image tier rank reason held_mb cpu_usage
        outcome duration_ms error available_before_mb available_after_mb action rule engine""",
    "oom_kills": """pid process_name container_id container_name image cgroup cause limit_cgroup
        limit_container limit_mb used_mb anon_mb file_mb shmem_mb swap_mb oom_score_adj trigger_pid
        trigger_name trigger_container grower_pid grower_name grower_container grown_mb grown_s
        beside witnesses engine""",
    "ended_processes": """started pid process_name parent_pid parent_name container_id
        container_name status oom cpu_ms peak_rss_mb""",
    "short_lived": """container_id container_name parent_name process_name count cpu_ms
        peak_rss_mb engine""",
    "host_samples": "before_ms available_mb psi_memory",
    "pass_containers": """container_id container_name rule state held_mb cpu_usage disputed
        decision engine""",
    "container_states": "engine container_id state health created started disputed",
    "attribution_checks": """agree conflict unverified added strayed moved dropped events_lost
        events_corrected events_late events_missed""",
}

FRACTIONAL = {
    *("cpu_usage", "load1", "psi_memory", "psi_cpu", "ram_usage", "held_mb", "rss_mb", "cache_mb"),
    *("cpu_short_lived", "cpu_unexplained", "available_before_mb", "available_after_mb"),
    *("swap_mb", "held_estimated_mb"),
    *("cpu_ms", "peak_rss_mb", "limit_mb", "used_mb", "anon_mb", "file_mb", "shmem_mb", "swap_mb"),
    *("grown_mb", "grown_s", "available_mb"),
}

TEXT = {
    *("source", "container_id", "container_name", "process_name", "verified", "basis", "name"),
    *("image", "tier", "held_basis", "decision", "reason", "outcome", "error"),
    *("parent_name", "cgroup", "cause", "limit_cgroup", "limit_container", "trigger_name"),
    *("trigger_container", "grower_name", "grower_container", "beside", "witnesses"),
    *("action", "rule", "engine", "pod", "state", "health"),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "metrics.db"
    open_store(path).close()
    return path


@pytest.mark.parametrize("table", DOCUMENTED)
def test_each_table_has_the_documented_columns_and_types(path: Path, table: str) -> None:
    found = ask(path, f"PRAGMA table_info({table})")

    assert [(name, kind, notnull) for _, name, kind, notnull, _, _ in found[:2]] == [
        ("id", "INTEGER", 1),
        ("timestamp", "INTEGER", 1),
    ]
    assert [row[1] for row in found[2:]] == DOCUMENTED[table].split()
    for _, name, kind, *_ in found:
        expected = "REAL" if name in FRACTIONAL else "TEXT" if name in TEXT else "INTEGER"
        assert (name, kind) == (name, expected)


def test_the_models_say_what_the_migrations_made(path: Path) -> None:
    for model in ALL_TABLES:
        info = {row[1]: row for row in ask(path, f"PRAGMA table_info({table_name(model)})")}
        assert tuple(info)[1:] == columns(model)
        for field in model._meta.sorted_fields:
            if field.column_name != "id":
                assert bool(info[field.column_name][3]) == (not field.null), field
    made = {row[0] for row in ask(path, "SELECT name FROM sqlite_master WHERE type = 'table'")}
    others = {*promised(), "sqlite_sequence", "schema_migration", "policy_state", *counters.TABLES}
    others |= {*outbox.TABLES, *proof_state.TABLES, rules_in_force.TABLE}
    assert made == {table_name(model) for model in ALL_TABLES} | others


def test_the_tables_given_to_people_and_the_ones_in_the_docs_are_the_same(path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "store.md").read_text(encoding="utf-8")
    for table, listed in DOCUMENTED.items():
        section = text.split(f"### `{table}`")[1].split("\n##")[0]
        told = re.findall(r"^\| `(\w+)`", section, re.MULTILINE)
        assert told == listed.split(), table


READERS = {
    "metrics_timestamp": "SELECT * FROM metrics WHERE timestamp BETWEEN 1 AND 2",
    "container_stats_timestamp": "SELECT * FROM container_stats WHERE timestamp > 1",
    "process_stats_timestamp": "SELECT max(ram_usage) FROM process_stats WHERE timestamp = 1",
    "container_totals_timestamp": "SELECT * FROM container_totals WHERE timestamp = 1",
    "deletions_container": (
        "SELECT * FROM deletions WHERE container_id IN ('a', 'b') AND timestamp > 1"
    ),
    "agent_stops_timestamp": "SELECT * FROM agent_stops WHERE timestamp > 1",
    "rollup_containers_engine": "SELECT max(engine) FROM rollup_containers",
    "rollup_containers_id": "SELECT * FROM rollup_containers WHERE container_id = 'a'",
    **{
        f"rollup_{kind}_{level}_timestamp": (
            f"SELECT * FROM rollup_{kind}_{level} WHERE timestamp > 1"
        )
        for kind, level in (
            *(
                (kind, level)
                for kind in ("host", "container", "process", "removals")
                for level in ("5m", "1h", "1d")
            ),
            *(("host", "1m"), ("container", "1m")),
        )
    },
    **{
        f"rollup_container_{level}_container": (
            f"SELECT 1 FROM rollup_container_{level} WHERE container = 1 AND timestamp > 1"
        )
        for level in ("1m", "5m", "1h", "1d")
    },
    "deletions_timestamp": "SELECT * FROM deletions WHERE timestamp > 1 ORDER BY timestamp",
    "host_samples_timestamp": "SELECT * FROM host_samples WHERE timestamp > 1",
    "container_states_timestamp": "SELECT * FROM container_states WHERE timestamp > 1",
    "pass_containers_timestamp": "SELECT * FROM pass_containers WHERE timestamp > 1",
    "short_lived_timestamp": "SELECT * FROM short_lived WHERE timestamp > 1",
    "oom_kills_timestamp": "SELECT * FROM oom_kills WHERE timestamp > 1",
    "ended_processes_timestamp": "SELECT * FROM ended_processes WHERE timestamp > 1",
    "ended_processes_pid": "SELECT * FROM ended_processes WHERE pid = 7 AND timestamp > 1",
    "attribution_checks_timestamp": "SELECT * FROM attribution_checks WHERE timestamp > 1",
    "container_totals_name": (
        "SELECT * FROM container_totals WHERE container_name = 'a' AND timestamp > 1"
    ),
}


def test_each_index_has_a_reader_and_each_reader_an_index(path: Path) -> None:
    sql = "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    own = {row[0] for row in ask(path, sql) if not row[0].startswith("schema_migration")}
    assert own - {"container_totals_events"} == set(READERS)
    for index, query in READERS.items():
        plan = " ".join(row[3] for row in ask(path, f"EXPLAIN QUERY PLAN {query}"))
        assert f"INDEX {index} " in f"{plan} ", plan


def test_the_newest_and_the_oldest_timestamp_are_found_without_reading_rows(path: Path) -> None:
    for table in DOCUMENTED:
        (plan,) = ask(path, f"EXPLAIN QUERY PLAN SELECT max(timestamp) FROM {table}")
        assert "COVERING INDEX" in plan[3], plan


def the_originals_queries() -> Iterator[str]:
    """As the original's manual has them, word for word."""
    yield """
        SELECT
          datetime(timestamp/1000, 'unixepoch') as time,
          container_count,
          deleted_count
        FROM metrics
        ORDER BY timestamp DESC
        LIMIT 10;
    """
    yield """
        SELECT
          container_name,
          MAX(ram_usage) as max_ram
        FROM container_stats
        WHERE timestamp > (strftime('%s', 'now', '-1 hour') * 1000)
        GROUP BY container_name
        ORDER BY max_ram DESC
        LIMIT 5;
    """
    yield """
        SELECT
          name,
          MAX(cpu_usage) as max_cpu
        FROM process_stats
        WHERE timestamp > (strftime('%s', 'now', '-1 hour') * 1000)
        GROUP BY name
        ORDER BY max_cpu DESC
        LIMIT 5;
    """


def test_the_originals_own_queries_answer_rightly(tmp_path: Path) -> None:
    path = tmp_path / "metrics.db"
    connection = sqlite3.connect(":memory:")
    now_ns = int(connection.execute("SELECT strftime('%s', 'now')").fetchone()[0]) * 10**9
    connection.close()
    web, job = a_container("so1_contenedor_web"), a_container("so1_contenedor_job", ID_B)
    old = a_tick(
        now_ns - 2 * HOUR_NS,
        processes=(a_process(1, "yesterdays", cpu=400.0),),
        container_processes=(a_container_process(9, "big", web, rss_kb=900 * 1024),),
        container_count=9,
    )
    fresh = [
        a_tick(
            now_ns - (12 - number) * 10**9,
            processes=(
                a_process(1, "stress", cpu=90.0 + number),
                a_process(2, "sleep", cpu=0.25),
                a_process(3, "stress", cpu=10.0),
            ),
            container_processes=(
                a_container_process(1, "stress", job, rss_kb=(100 + number) * 1024),
                a_container_process(3, "stress", job, rss_kb=1024),
                a_container_process(2, "sleep", web, rss_kb=512),
            ),
            container_count=5,
            deleted_count=number % 2,
        )
        for number in range(11)
    ]
    with open_store(path) as store:
        for record in (old, *fresh):
            store.write_tick(record)
    last_metrics, top_containers, top_processes = the_originals_queries()

    answer = ask(path, last_metrics)
    assert len(answer) == 10
    assert [row[1] for row in answer] == [5] * 10
    assert [row[2] for row in answer] == [number % 2 for number in range(10, 0, -1)]
    assert answer[0][0] > answer[-1][0]
    assert ask(path, top_containers) == [
        ("so1_contenedor_job", 110.0),
        ("so1_contenedor_web", 0.5),
    ]
    assert ask(path, top_processes) == [("stress", 100.0), ("sleep", 0.25)]


@pytest.fixture
def two_migrations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The real migrations and one after them, as the next version would ship it."""
    directory = tmp_path / "migrations"
    directory.mkdir()
    for script in sqlite.MIGRATIONS.glob("0*.py"):
        (directory / script.name).write_bytes(script.read_bytes())
    (directory / "9000_remark.py").write_text(
        "from peewee import TextField\n\n\n"
        "def up(migrator, db):\n"
        "    migrator.migrate(migrator.add_column('metrics', 'remark', TextField(null=True)))\n"
    )
    return directory


def test_a_database_of_this_version_opens_in_the_next_with_its_rows(
    path: Path, two_migrations: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(path) as store:
        for number in range(20):
            store.write_tick(a_tick(START_NS + number * 10**9, 5))
    before = ask(path, "SELECT * FROM process_stats"), ask(path, "SELECT * FROM metrics")

    monkeypatch.setattr(sqlite, "MIGRATIONS", two_migrations)
    with open_store(path) as store:
        store.write_tick(a_tick(START_NS + 60 * 10**9, 5))

    assert ask(path, "SELECT * FROM process_stats LIMIT 100") == before[0]
    assert [row[:-1] for row in ask(path, "SELECT * FROM metrics LIMIT 20")] == before[1]
    assert ask(path, "SELECT remark FROM metrics") == [(None,)] * 21
    assert [row[0] for row in ask(path, "SELECT name FROM schema_migration ORDER BY id")][-1] == (
        "9000_remark"
    )


def test_a_database_of_a_newer_version_is_refused_in_one_sentence_and_left_as_it_is(
    path: Path, two_migrations: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as newer:
        newer.setattr(sqlite, "MIGRATIONS", two_migrations)
        with open_store(path) as store:
            store.write_tick(a_tick())
    before = path.read_bytes()

    with pytest.raises(StoreError, match="newer version of the agent") as refused:
        open_store(path)

    assert refused.value.message.count(". ") == 0
    assert str(path) in refused.value.hint
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir() if one.is_file()] == ["metrics.db"]


def test_a_newer_database_left_by_a_kill_stays_readable_when_it_is_refused(
    path: Path, two_migrations: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as newer:
        newer.setattr(sqlite, "MIGRATIONS", two_migrations)
        killed = open_store(path)
        killed.write_tick(a_tick())
    for suffix in ("", "-wal", "-shm"):
        copy = path.with_name("copy.db" + suffix)
        copy.write_bytes(path.with_name(path.name + suffix).read_bytes())
    killed.close()

    with pytest.raises(StoreError, match="newer version"):
        open_store(path.with_name("copy.db"))

    assert count(path.with_name("copy.db"), "metrics") == 1


def test_migrations_run_once_and_a_second_run_does_nothing(path: Path) -> None:
    database = SqliteDatabase(str(path))
    runner = Runner(database, directory=str(sqlite.MIGRATIONS), table_name=sqlite.HISTORY_TABLE)

    assert runner.up() == []
    assert [one.name for one in runner.status()] == [
        script.stem for script in sorted(sqlite.MIGRATIONS.glob("0*.py"))
    ]
    database.close()


def test_a_migration_that_fails_leaves_the_older_schema_whole(
    path: Path, two_migrations: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (two_migrations / "9000_remark.py").write_text(
        "def up(migrator, db):\n"
        "    db.execute_sql('CREATE TABLE half (id INTEGER)')\n"
        "    db.execute_sql('CREATE TABLE metrics (id INTEGER)')\n"
    )
    with monkeypatch.context() as newer:
        newer.setattr(sqlite, "MIGRATIONS", two_migrations)
        with pytest.raises(StoreError, match="already exists"):
            open_store(path)

    assert ask(path, "SELECT name FROM sqlite_master WHERE name = 'half'") == []
    with open_store(path) as store:
        store.write_tick(a_tick())


def test_the_file_gives_free_pages_back_and_can_be_told_from_others(path: Path) -> None:
    assert ask(path, "PRAGMA auto_vacuum") == [(2,)]
    assert ask(path, "PRAGMA application_id") == [(0x536F3141,)]


DOC = Path(__file__).parents[3] / "docs" / "store.md"
BLOCKS = re.findall(r"```sql\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("sql", BLOCKS, ids=range(len(BLOCKS)))
def test_each_query_of_the_docs_runs_on_the_schema(path: Path, sql: str) -> None:
    ask(path, sql)


def test_the_originals_queries_are_in_the_docs_word_for_word() -> None:
    told = [" ".join(re.sub(r"--.*", "", sql).split()) for sql in BLOCKS]
    assert [" ".join(sql.split()) for sql in the_originals_queries()] == told[:3]
