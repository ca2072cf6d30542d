"""A centre of an older version is brought up to date while hosts of every age go on shipping."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from agent.fleet import centre as administration
from agent.fleet import entrance, schema, shipper
from agent.fleet.connection import connected
from agent.fleet.errors import FleetError
from agent.fleet.streams import OPTIONAL, STREAMS
from tests.fleet.host import Host, make_history

if TYPE_CHECKING:
    from pathlib import Path

    from agent.fleet.streams import Stream
    from tests.fleet.conftest import Centre

# As each version had them: columns that came later are at the end.
SECOND = tuple(
    replace(stream, columns=tuple(one for one in stream.columns if one.name != "engine"))
    if stream.name != "removals"
    else stream
    for stream in STREAMS
)
FIRST = tuple(stream for stream in SECOND if stream.since == 1)
LATER = tuple(stream for stream in STREAMS if stream.since > 1)
OPTIONS = ("minutes", "processes")


@pytest.fixture
def old_centre(centre: Centre, monkeypatch: pytest.MonkeyPatch) -> Centre:
    """As the first version's `agent fleet init` made it."""
    make_old(centre, monkeypatch, 1, FIRST)
    with connected(centre.dsn()) as connection:
        for name in (*schema.READABLE, *(stream.name for stream in FIRST)):
            connection.run(f"DROP VIEW so1.at_{name}")
        connection.run("DROP VIEW so1.closed")
        connection.run("ALTER TABLE so1.settings DROP COLUMN shard")
    return centre


def make_old(
    centre: Centre, monkeypatch: pytest.MonkeyPatch, version: int, streams: tuple[Stream, ...]
) -> None:
    centre.ask("DROP SCHEMA so1, so1_api CASCADE")
    with monkeypatch.context() as patched, connected(centre.dsn()) as connection:
        for module in (administration, schema, entrance):
            patched.setattr(module, "ALL_STREAMS", streams)
        patched.setattr(schema, "VERSION", version)
        patched.setattr(schema, "killed", lambda _stream: [])
        administration.initialise(connection, 30, 10)
    assert centre.ask("SELECT version FROM so1.settings") == [(version,)]


@pytest.fixture
def host(old_centre: Centre, tmp_path: Path) -> Host:
    one = Host(tmp_path / "host", "c" * 32)
    make_history(one.database)
    with connected(old_centre.dsn()) as connection:
        one.secret = administration.enroll(connection, one.installation, "web-1")
    one.dsn = old_centre.dsn("so1_agent", old_centre.password)
    return one


def fill(host: Host, count: int) -> None:
    for stream in STREAMS:
        host.write(stream, count, time.time_ns() // 10**6 - 60_000)


def as_of(older: pytest.MonkeyPatch, streams: tuple[Stream, ...]) -> None:
    """The shipper of an agent that knew these."""
    older.setattr(shipper, "ALL_STREAMS", streams)
    older.setattr(shipper, "chosen", lambda _options: streams)


def upgrade(centre: Centre) -> None:
    with connected(centre.dsn()) as connection:
        assert administration.initialise(connection).was_there


def test_rows_stay_and_hosts_of_both_ages_ship_each_row_once(
    host: Host, old_centre: Centre, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        as_of(older, FIRST)
        fill(host, 5)
        assert host.flush().rows == 5 * len(FIRST)
        upgrade(old_centre)
        fill(host, 2)
        assert host.flush().rows == 2 * len(FIRST)
    # The agent is updated too: what its buckets hold of the time before goes as well.
    assert host.flush().rows == 7 * len(LATER)
    for stream in (*FIRST, *LATER):
        assert old_centre.rows(stream, host) == host.rows(stream)
    assert old_centre.epochs(host) == ["first"]
    assert old_centre.gaps(host) == []
    assert old_centre.ask("SELECT version FROM so1.settings") == [(schema.VERSION,)]


def test_a_newer_host_ships_what_an_older_centre_takes_and_says_what_to_do(
    host: Host, old_centre: Centre
) -> None:
    fill(host, 3)
    with pytest.raises(FleetError) as raised:
        host.flush()
    assert "agent fleet init" in raised.value.hint
    for stream in FIRST:
        assert old_centre.rows(stream, host) == host.rows(stream)
    upgrade(old_centre)
    host.flush()
    for stream in (*FIRST, *LATER):
        assert old_centre.rows(stream, host) == host.rows(stream)


def test_an_agent_of_the_second_version_goes_on_and_a_newer_one_ships_more(
    host: Host, old_centre: Centre, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_old(old_centre, monkeypatch, 2, SECOND)
    with connected(old_centre.dsn()) as connection:
        host.secret = administration.enroll(connection, host.installation, "web-1")
    with monkeypatch.context() as older:
        as_of(older, SECOND)
        fill(host, 3)
        assert host.flush().rows == 3 * len(SECOND)
        upgrade(old_centre)
        fill(host, 2)
        assert host.flush().rows == 2 * len(SECOND)
    for stream in SECOND:
        assert old_centre.rows(stream, host) == host.rows(stream)
    for stream in OPTIONAL:
        host.write(stream, 4, time.time_ns() // 10**6 - 60_000)
    host.run(f"DELETE FROM {OPTIONAL[0].table} WHERE id < 3")
    assert host.flush().rows == 0
    assert host.flush(OPTIONS).rows == 4 * len(OPTIONAL) - 2
    for stream in OPTIONAL:
        assert old_centre.rows(stream, host) == host.rows(stream)
    # What went before it was asked for is missed by nobody.
    assert old_centre.gaps(host) == []
    assert old_centre.epochs(host) == ["first"]


def test_an_upgrade_that_fails_changes_nothing(
    old_centre: Centre, monkeypatch: pytest.MonkeyPatch
) -> None:
    functions = (
        "SELECT proname FROM pg_proc WHERE pronamespace = 'so1_api'::regnamespace ORDER BY 1"
    )
    before = old_centre.ask(functions)

    def fails(*_: object) -> None:
        raise FleetError("cut short")

    monkeypatch.setattr(administration, "maintain", fails)
    with connected(old_centre.dsn()) as connection, pytest.raises(FleetError):
        administration.initialise(connection)
    assert old_centre.ask(functions) == before
    assert old_centre.ask("SELECT version FROM so1.settings") == [(1,)]


def test_an_upgraded_centre_is_as_a_fresh_one(old_centre: Centre, centre: Centre) -> None:
    shape = (
        "SELECT c.relname, c.relkind, a.attname, a.atttypid::regtype::text FROM pg_class c"
        " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
        " WHERE c.relnamespace = 'so1'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'I')"
        " ORDER BY 1, 2, a.attnum"
    )
    rights = (
        "SELECT p.oid::regprocedure::text, p.proowner::regrole::text, p.prosecdef,"
        " p.proconfig, has_function_privilege('so1_agent', p.oid, 'EXECUTE') FROM pg_proc p"
        " WHERE p.pronamespace IN ('so1'::regnamespace, 'so1_api'::regnamespace) ORDER BY 1"
    )
    upgrade(old_centre)
    upgraded = old_centre.ask(shape), old_centre.ask(rights)
    centre.ask("DROP SCHEMA so1, so1_api CASCADE")
    upgrade_fresh(centre)
    assert (centre.ask(shape), centre.ask(rights)) == upgraded


def upgrade_fresh(centre: Centre) -> None:
    with connected(centre.dsn()) as connection:
        administration.initialise(connection, 30, 10)
