"""Three centres for real, each a server of its own, and a hub that reads all of them."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg
import pytest

from agent.fleet import centre as administration
from agent.fleet import hub, report
from agent.fleet.connection import connected
from agent.fleet.errors import FleetError
from agent.fleet.streams import ALL_STREAMS, CONTAINERS, REMOVALS, STREAMS
from tests.fleet.conftest import Centre
from tests.fleet.host import Host, make_history
from tests.fleet.postgres import Server, server
from tests.fleet.test_centre import agent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHARDS = ("eu", "us", "asia")


@pytest.fixture(scope="module")
def shards() -> Iterator[dict[str, Centre]]:
    with ExitStack() as stack:
        made = {}
        for name in SHARDS:
            one = stack.enter_context(server())
            with connected(one.dsn()) as connection:
                password = administration.initialise(connection, 2, 2, name).password
            one.ask("CREATE ROLE hub_reader LOGIN PASSWORD 'hub-secret' IN ROLE so1_reader")
            made[name] = Centre(one, "so1", password)
        yield made


@pytest.fixture(scope="module")
def hosts(shards: dict[str, Centre], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Host]:
    """One at each shard, with everything shipped, in two flushes and a fork."""
    made = {}
    for number, (name, centre) in enumerate(shards.items()):
        host = Host(tmp_path_factory.mktemp(name) / "host", f"{number}" * 32)
        host.written = number * 1000
        make_history(host.database)
        with connected(centre.dsn()) as connection:
            host.secret = administration.enroll(connection, host.installation, f"{name}-1")
        host.dsn = centre.dsn("so1_agent", centre.password)
        for _ in range(2):
            for stream in STREAMS:
                host.write(stream, 4, time.time_ns() // 10**6 - 60_000, name)
            host.flush()
        made[name] = host
    return made


@pytest.fixture
def over(postgres: Server, shards: dict[str, Centre], hosts: dict[str, Host]) -> Iterator[Centre]:
    assert hosts
    postgres.ask("CREATE DATABASE hub", database="postgres")
    one = Centre(postgres, "hub", "")
    with connected(one.dsn()) as connection:
        found = hub.initialise(connection, {name: dsn(centre) for name, centre in shards.items()})
    assert {shard.name for shard in found if shard.answers} == set(SHARDS)
    yield one
    postgres.ask("DROP DATABASE hub WITH (FORCE)", database="postgres")


def dsn(centre: Centre) -> str:
    return centre.dsn("hub_reader", "hub-secret")


def test_each_shard_has_its_hosts_rows_and_the_hub_has_all(
    over: Centre, shards: dict[str, Centre], hosts: dict[str, Host]
) -> None:
    for stream in STREAMS:
        columns = ", ".join(one.name for one in stream.columns)
        for name, centre in shards.items():
            host = hosts[name]
            assert centre.rows(stream, host) == host.rows(stream)
            found = over.ask(
                f"SELECT id, timestamp, {columns} FROM so1.{stream.name}"
                " WHERE shard = %s ORDER BY id",
                name,
            )
            assert found == host.rows(stream)
        assert over.ask(f"SELECT count(*) FROM so1.{stream.name}") == [(24,)]
    assert over.ask("SELECT shard, name FROM so1.hosts ORDER BY 1") == sorted(
        (name, f"{name}-1") for name in SHARDS
    )


def test_a_shard_that_is_down_is_named_and_the_rest_answers(
    over: Centre, shards: dict[str, Centre]
) -> None:
    down = shards["us"].server
    down.stop("immediate")
    try:
        done = agent("top", "--dsn", over.dsn(), "--json")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert {one["name"] for one in found["hosts"]} == {"eu-1", "asia-1"}
        ((name, why),) = found["missing"]
        assert name == "us"
        assert "onnect" in why
        assert "us" in agent("top", "--dsn", over.dsn()).stdout.splitlines()[0]
        assert over.ask("SELECT count(*) FROM so1.removals") == [(16,)]
    finally:
        down.start()
    with connected(over.dsn()) as connection:
        assert report.fleet_top(connection, 10).missing == ()
    assert over.ask("SELECT count(*) FROM so1.removals") == [(24,)]


def test_a_reader_of_the_hub_looks_and_reads_and_no_more(over: Centre) -> None:
    over.ask("CREATE ROLE hub_grafana LOGIN IN ROLE so1_reader")
    try:
        with psycopg.connect(over.dsn("hub_grafana"), autocommit=True) as reader:
            reader.execute("SELECT so1.look()")
            assert reader.execute("SELECT count(*) FROM so1.container_1d").fetchone() == (24,)
            for statement in (
                "DELETE FROM so1.removals",
                "INSERT INTO so1.shards (name) VALUES ('x')",
                "SELECT * FROM pg_user_mapping",
                "CREATE TABLE so1.mine (x int)",
                "ALTER SERVER so1_eu OPTIONS (SET port '1')",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    reader.execute(statement)
            seen = reader.execute("SELECT umoptions::text FROM pg_user_mappings").fetchall()
            assert "hub-secret" not in str(seen)
    finally:
        over.ask("DROP ROLE hub_grafana")


def test_the_fleets_dashboard_asks_a_hub_as_it_asks_a_centre(
    over: Centre, hosts: dict[str, Host]
) -> None:
    from tests.fleet.flota_oracle import Seen
    from tests.fleet.flota_world import Fleet
    from tests.fleet.test_flota import PANELS, ask

    now_ms = time.time_ns() // 10**6
    seen = Seen(Fleet(now_ms, []), now_ms - 3_600_000, now_ms, 60_000)
    with psycopg.connect(over.dsn(), autocommit=True) as connection:
        for panel in PANELS.values():
            ask(connection, panel["targets"][0]["rawSql"], seen)
        (states,) = ask(connection, PANELS["Equipos"]["targets"][0]["rawSql"], seen)
        events = ask(
            connection, PANELS["Eliminaciones por Equipo y Regla"]["targets"][0]["rawSql"], seen
        )
    assert states == (3.0, 0.0, 0.0)
    assert sum(row[5] for row in events) == sum(len(host.rows(REMOVALS)) for host in hosts.values())
    assert over.ask("SELECT count(*) FROM so1.container_5m") == [
        (sum(len(host.rows(CONTAINERS)) for host in hosts.values()),)
    ]


def test_a_second_run_adds_nothing_and_what_is_no_hub_or_no_shard_is_refused(
    over: Centre, shards: dict[str, Centre], postgres: Server
) -> None:
    with connected(over.dsn()) as connection:
        again = hub.initialise(connection, {"eu": dsn(shards["eu"])})
        assert len(again) == 3
        assert all(shard.answers for shard in again)
        for name, words in {
            "eu; DROP": dsn(shards["eu"]),
            "none": "host=/x user=a dbname=b",
        }.items():
            with pytest.raises(FleetError):
                hub.initialise(connection, {name: words})
        # One that calls itself otherwise: its rows would be another's.
        (wrong,) = (
            one
            for one in hub.initialise(connection, {"moon": dsn(shards["eu"])})
            if one.name == "moon"
        )
        assert not wrong.answers
        assert "'eu'" in wrong.problem
    with connected(shards["eu"].dsn()) as connection, pytest.raises(FleetError) as raised:
        hub.initialise(connection, {})
    assert "no hub" in raised.value.message


def test_a_hub_of_an_older_agent_is_brought_up_to_date(
    postgres: Server, shards: dict[str, Centre], monkeypatch: pytest.MonkeyPatch
) -> None:
    older = tuple(
        replace(one, columns=tuple(column for column in one.columns if column.name != "engine"))
        for one in STREAMS
    )
    postgres.ask("CREATE DATABASE old_hub", database="postgres")
    one = Centre(postgres, "old_hub", "")
    shape = (
        "SELECT c.relname, c.relkind, a.attname FROM pg_class c"
        " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
        " WHERE c.relnamespace = 'so1'::regnamespace ORDER BY 1, 2, 3"
    )
    try:
        wanted = {name: dsn(centre) for name, centre in shards.items()}
        with monkeypatch.context() as patched, connected(one.dsn()) as connection:
            patched.setattr(hub, "ALL_STREAMS", older)
            assert all(shard.answers for shard in hub.initialise(connection, wanted))
        down = shards["asia"].server
        down.stop("immediate")
        try:
            with connected(one.dsn()) as connection:
                found = {shard.name for shard in hub.initialise(connection, {}) if shard.answers}
            assert found == {"eu", "us"}
        finally:
            down.start()
        with connected(one.dsn()) as connection:
            assert all(shard.answers for shard in hub.initialise(connection, {}))
        for stream in ALL_STREAMS:
            names = ", ".join(column.name for column in stream.columns)
            one.ask(f"SELECT {names} FROM so1.{stream.name}")
        upgraded = one.ask(shape)
        one.ask("DROP SCHEMA so1 CASCADE")
        one.ask("DROP SERVER so1_eu, so1_us, so1_asia CASCADE")
        with connected(one.dsn()) as connection:
            hub.initialise(connection, wanted)
        assert one.ask(shape) == upgraded
    finally:
        postgres.ask("DROP DATABASE old_hub WITH (FORCE)", database="postgres")


def test_the_command_makes_a_hub(
    postgres: Server, shards: dict[str, Centre], tmp_path: Path
) -> None:
    postgres.ask("CREATE DATABASE hub2", database="postgres")
    try:
        file = tmp_path / "shards"
        file.write_text("".join(f"{name} {dsn(one)}\n" for name, one in shards.items()))
        done = agent("hub", postgres.dsn(database="hub2"), "--shards", str(file))
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == [f"{name}  answers" for name in sorted(SHARDS)]
        assert "hub-secret" not in done.stdout + done.stderr
    finally:
        postgres.ask("DROP DATABASE hub2 WITH (FORCE)", database="postgres")
