"""What a host may do at the centre: ship its own rows, and nothing else, whatever it tries.

The attacker has the login role's password and one installation's secret, as a host that was taken
over has. The oracle is the superuser's view.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from agent.fleet.streams import ALL_STREAMS, REMOVALS, STOPS, STREAMS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.fleet.conftest import Centre
    from tests.fleet.host import Host

NOTHING = "00000000-0000-0000-0000-000000000000"


def now_ms() -> int:
    return time.time_ns() // 10**6 - 60_000


@pytest.fixture
def attacker(centre: Centre, host: Host) -> Iterator[Any]:
    """A session with the hosts' login role, by password over TCP."""
    assert host.secret
    with psycopg.connect(centre.dsn("so1_agent", centre.password), autocommit=True) as one:
        yield one


def shipped(new_host: Callable[..., Host], letter: str) -> Host:
    host = new_host(letter)
    for stream in ALL_STREAMS:
        host.write(stream, 3, now_ms())
    host.flush()
    return host


REFUSED = [
    *(f"SELECT * FROM so1.{stream.name}" for stream in ALL_STREAMS),
    *(
        f"SELECT * FROM so1.{name}"
        for name in (
            *("installations", "hosts", "epochs", "cursors", "gaps", "out_of_range"),
            *("ranges", "settings"),
        )
    ),
    "INSERT INTO so1.gaps VALUES ('a', gen_random_uuid(), 'removals', 1, 2, 3, 4)",
    "UPDATE so1.installations SET secret_hash = ''",
    "DELETE FROM so1.cursors",
    "TRUNCATE so1.removals",
    "DO $$ BEGIN LOCK TABLE so1.settings IN SHARE MODE; END $$",
    "COPY so1.installations TO STDOUT",
    "SELECT so1.check_secret('a', 'b')",
    "SELECT so1.extend(0)",
    "SELECT so1.shrink(9000000000000)",
    "CREATE TEMP TABLE installations (a int)",
    "CREATE TABLE public.x (a int)",
    "CREATE TABLE so1_api.x (a int)",
    "CREATE SCHEMA mine",
    "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE FUNCTION so1_api.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE OR REPLACE FUNCTION so1_api.cursors() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "DROP FUNCTION so1_api.cursors(text, text, uuid, text)",
    "ALTER FUNCTION so1_api.cursors(text, text, uuid, text) OWNER TO so1_agent",
    "ALTER FUNCTION so1_api.cursors(text, text, uuid, text) SET search_path = public",
    "DROP SCHEMA so1 CASCADE",
    "SET ROLE so1_owner",
    "SET ROLE so1_reader",
    "SET SESSION AUTHORIZATION postgres",
    "GRANT so1_owner TO so1_agent",
    "ALTER ROLE so1_agent SUPERUSER",
    "ALTER ROLE so1_agent CREATEROLE",
    "CREATE ROLE mine",
    "CREATE DATABASE mine",
    "CREATE EXTENSION dblink SCHEMA pg_catalog",
    "CREATE EXTENSION file_fdw SCHEMA pg_catalog",
    "CREATE LANGUAGE plpython3u",
    "COPY (SELECT 1) TO PROGRAM 'id'",
    "COPY (SELECT 1) TO '/tmp/x'",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_ls_dir('/')",
    "SELECT * FROM pg_authid",
    "SELECT lo_create(0)",
    "SELECT lo_creat(-1)",
    "SELECT lo_from_bytea(0, 'x')",
    "SELECT pg_terminate_backend(pg_backend_pid())",
    "SELECT pg_cancel_backend(pg_backend_pid())",
    "SET log_parameter_max_length = -1",
    "SET session_replication_role = replica",
    "DO $$ BEGIN PERFORM 1 FROM so1.installations; END $$",
    "SELECT query_to_xml('SELECT * FROM so1.installations', true, true, '')",
]


@pytest.mark.parametrize("statement", REFUSED)
def test_nothing_but_the_entrance_is_open(lasting_centre: Centre, statement: str) -> None:
    dsn = lasting_centre.dsn("so1_agent", lasting_centre.password)
    with (
        psycopg.connect(dsn, autocommit=True) as attacker,
        pytest.raises(psycopg.Error) as raised,
    ):
        attacker.execute(statement)
    # Insufficient privilege, or there is nothing of the kind to be had.
    assert raised.value.sqlstate in ("42501", "0A000", "58P01", "42704"), raised.value


def test_the_role_may_call_the_entrance_and_no_other_function_of_ours(centre: Centre) -> None:
    found = centre.ask(
        "SELECT p.pronamespace::regnamespace::text, p.proname, p.prosecdef, p.proconfig,"
        " pg_get_userbyid(p.proowner) FROM pg_proc p"
        " WHERE p.pronamespace IN ('so1'::regnamespace, 'so1_api'::regnamespace)"
        " AND has_function_privilege('so1_agent', p.oid, 'EXECUTE')"
    )
    assert {(schema, name) for schema, name, *_ in found} == {
        *(("so1_api", name) for name in ("begin_epoch", "cursors", "holds")),
        *(("so1_api", f"ingest_{stream.name}") for stream in ALL_STREAMS),
    }
    for _, _, definer, settings, owner in found:
        assert (definer, owner) == (True, "so1_owner")
        assert settings == ["search_path=pg_catalog, pg_temp"]
    assert (
        centre.ask(
            "SELECT rolsuper, rolcreaterole, rolcreatedb, rolbypassrls, rolreplication"
            " FROM pg_roles WHERE rolname LIKE 'so1%'"
        )
        == [(False,) * 5] * 3
    )


def call(attacker: Any, name: str, *values: object) -> list[tuple[Any, ...]]:
    marks = ", ".join(["%s"] * len(values))
    found: list[tuple[Any, ...]] = attacker.execute(
        f"SELECT * FROM so1_api.{name}({marks})", values
    ).fetchall()
    return found


def test_a_secret_opens_its_own_installation_only(
    attacker: Any, centre: Centre, new_host: Callable[..., Host]
) -> None:
    mine, other = shipped(new_host, "b"), shipped(new_host, "c")
    (epoch,) = centre.ask(
        "SELECT epoch FROM so1.epochs WHERE installation = %s", other.installation
    )[0]
    before = [centre.rows(stream, other) for stream in STREAMS]
    now = now_ms()
    for name, values in (
        ("cursors", (epoch, "1")),
        ("begin_epoch", (NOTHING, None, "fork", "1", [], [], [])),
        ("holds", (epoch, "removals", 1, now)),
        ("ingest_stops", (epoch, 3, now, [4], [now], [5])),
    ):
        with pytest.raises(psycopg.Error) as raised:
            call(attacker, name, other.installation, mine.secret, *values)
        assert raised.value.sqlstate == "28000"
    # Its own installation with the other's epoch is an epoch of its own, and there is none.
    assert call(attacker, "cursors", mine.installation, mine.secret, epoch, "1") == []
    stops = centre.rows(STOPS, other)
    found = call(attacker, "holds", mine.installation, mine.secret, epoch, "stops", *stops[0][:2])
    assert found == [(False,)]
    found = call(
        attacker, "ingest_stops", mine.installation, mine.secret, epoch, 3, now, [4], [now], [5]
    )
    assert found == [("unknown", None, None)]
    assert [centre.rows(stream, other) for stream in STREAMS] == before


def test_a_stream_that_is_none_reaches_no_other_table(
    attacker: Any, new_host: Callable[..., Host]
) -> None:
    mine = shipped(new_host, "b")
    for name in ("installations", "removals; DROP TABLE so1.gaps", "pg_catalog.pg_authid"):
        found = call(attacker, "holds", mine.installation, mine.secret, NOTHING, name, 1, 1)
        assert found == [(False,)]


def test_unknown_installations_and_wrong_secrets_are_told_the_same(
    attacker: Any, new_host: Callable[..., Host]
) -> None:
    mine = shipped(new_host, "b")
    told = set()
    for installation, secret in (
        (mine.installation, "wrong"),
        ("f" * 32, mine.secret),
        (None, mine.secret),
        (mine.installation, None),
        ("'; --", ""),
    ):
        with pytest.raises(psycopg.Error) as raised:
            call(attacker, "cursors", installation, secret, NOTHING, "1")
        told.add((raised.value.sqlstate, str(raised.value).splitlines()[0]))
    assert len(told) == 1


ODD = {
    "no rows": ([], [], []),
    "NULL for the ids": (None, [1], [1]),
    "NULL for a column": ([4], [1], None),
    "lengths that differ": ([4, 5], [1, 2], [1]),
    "timestamps that are missing": ([4, 5], [1, None], [1, 2]),
    "ids that fall": ([5, 4], [1, 2], [1, 2]),
    "the same id twice": ([4, 4], [1, 2], [1, 2]),
    "an id that is missing": ([4, None], [1, 2], [1, 2]),
    "an id that was shipped": ([3, 4], [1, 2], [1, 2]),
    "a negative id": ([-1], [1], [1]),
    "two dimensions": ([[4], [5]], [1, 2], [1, 2]),
    "too many rows": (list(range(4, 6000)), [1] * 5996, [1] * 5996),
}


@pytest.mark.parametrize("what", ODD)
def test_arrays_that_are_no_rows_are_refused_whole(
    attacker: Any, centre: Centre, new_host: Callable[..., Host], what: str
) -> None:
    mine = shipped(new_host, "b")
    epoch, last, at = centre.ask(
        "SELECT epoch, last_id, last_timestamp FROM so1.cursors"
        " WHERE installation = %s AND stream = 'stops'",
        mine.installation,
    )[0]
    before = centre.rows(STOPS, mine)
    if what == "NULL for a column":
        # That is an older agent, which does not know the column.
        found = call(
            attacker, "ingest_stops", mine.installation, mine.secret, epoch, last, at, *ODD[what]
        )
        assert found[0][0] == "taken"
        return
    with pytest.raises(psycopg.Error):
        call(attacker, "ingest_stops", mine.installation, mine.secret, epoch, last, at, *ODD[what])
    assert centre.rows(STOPS, mine) == before


@pytest.mark.parametrize(("last", "off"), [(2, 0), (3, 1), (0, 0), (10**12, 0)])
def test_a_cursor_moves_from_where_it_is_only(
    attacker: Any, centre: Centre, new_host: Callable[..., Host], last: int, off: int
) -> None:
    mine = shipped(new_host, "b")
    epoch, true_last, at = centre.ask(
        "SELECT epoch, last_id, last_timestamp FROM so1.cursors"
        " WHERE installation = %s AND stream = 'stops'",
        mine.installation,
    )[0]
    found = call(
        attacker, "ingest_stops", mine.installation, mine.secret, epoch,
        last, at + off, [last + 10], [now_ms()], [1],
    )  # fmt: skip
    assert found == [("fork", true_last, at)]
    assert len(centre.rows(STOPS, mine)) == 3


def test_a_host_with_every_trick_at_hand_changes_no_function_of_ours(
    centre: Centre, new_host: Callable[..., Host]
) -> None:
    """Somebody has granted what the centre takes away: temporary tables, and a schema."""
    mine, other = shipped(new_host, "b"), shipped(new_host, "c")
    centre.ask(f"GRANT TEMP, CREATE ON DATABASE {centre.database} TO so1_agent")
    with psycopg.connect(centre.dsn("so1_agent", centre.password), autocommit=True) as one:
        # Without it the functions' owner would not look into the schema at all.
        one.execute("CREATE SCHEMA evil")
        one.execute("GRANT USAGE ON SCHEMA evil TO PUBLIC")
        for name, arguments, gives in (
            ("sha256", "bytea", "bytea"),
            ("convert_to", "text, name", "bytea"),
            ("cardinality", "anyarray", "integer"),
            ("left", "text, integer", "text"),
            ("clock_timestamp", "", "timestamptz"),
        ):
            for schema in ("evil", "pg_temp"):
                one.execute(
                    f'CREATE FUNCTION {schema}."{name}"({arguments}) RETURNS {gives}'
                    " LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'ran as %', current_user"
                    " USING ERRCODE = 'P0001'; END $$"
                )
        one.execute(
            "CREATE FUNCTION evil.same(bytea, bytea) RETURNS boolean LANGUAGE sql AS 'SELECT true'"
        )
        one.execute(
            "CREATE OPERATOR evil.= (LEFTARG = bytea, RIGHTARG = bytea, FUNCTION = evil.same)"
        )
        for name in ("installations", "cursors", "ranges", "settings", "epochs", "stops"):
            one.execute(f"CREATE TEMP TABLE {name} (installation text, secret_hash bytea)")
            one.execute(f"GRANT ALL ON {name} TO PUBLIC")
        one.execute("SET search_path = pg_temp, evil, pg_catalog")
        with pytest.raises(psycopg.Error) as raised:
            call(one, "cursors", other.installation, "anything", NOTHING, "1")
        assert raised.value.sqlstate == "28000"
        found = call(one, "cursors", mine.installation, mine.secret, None, "1")
        assert {stream for _, stream, *_ in found} == {stream.name for stream in ALL_STREAMS}
        epoch, _, last, at = next(row for row in found if row[1] == "stops")
        found = call(
            one, "ingest_stops", mine.installation, mine.secret, epoch, last, at, [9], [now_ms()],
            [1],
        )  # fmt: skip
        assert found[0][0] == "taken"
    assert len(centre.rows(STOPS, mine)) == 4
    assert len(centre.rows(REMOVALS, other)) == 3


def test_other_sessions_of_the_same_role_show_no_secret(
    attacker: Any, centre: Centre, new_host: Callable[..., Host]
) -> None:
    mine = shipped(new_host, "b")
    with psycopg.connect(centre.dsn("so1_agent", centre.password), autocommit=True) as other:
        call(other, "cursors", mine.installation, mine.secret, NOTHING, "1")
        seen = attacker.execute("SELECT query FROM pg_stat_activity").fetchall()
    assert any("so1_api.cursors" in query for (query,) in seen)
    assert not [query for (query,) in seen if mine.secret in query]


def test_no_secret_is_in_the_servers_log_though_it_logs_everything(
    attacker: Any, centre: Centre, new_host: Callable[..., Host]
) -> None:
    from agent.fleet import centre as administration
    from agent.fleet.connection import connected
    from agent.fleet.errors import FleetError

    mine = shipped(new_host, "b")
    old = mine.secret
    with connected(centre.dsn()) as connection:
        mine.secret = administration.rotate(connection, mine.installation)
    mine.write(STOPS, 1, now_ms())
    mine.flush()
    with pytest.raises(FleetError):
        bad = mine.copy(mine.directory.with_name("bad"))
        bad.secret = "wrong-secret-of-somebody"
        bad.flush()
    log = centre.server.log()
    assert "so1_api.ingest_stops" in log
    for word in (old, mine.secret, centre.password, "wrong-secret-of-somebody"):
        assert word not in log
    assert attacker.execute("SHOW log_parameter_max_length").fetchone() == ("0",)


def test_a_host_can_begin_only_so_many_epochs_a_day(
    attacker: Any, new_host: Callable[..., Host]
) -> None:
    mine = shipped(new_host, "b")
    for number in range(99):
        call(
            attacker, "begin_epoch", mine.installation, mine.secret,
            f"00000000-0000-0000-0000-{number:012}", None, "fork", "1", [], [], [],
        )  # fmt: skip
    with pytest.raises(psycopg.Error) as raised:
        call(
            attacker, "begin_epoch", mine.installation, mine.secret, NOTHING[:-1] + "f", None,
            "fork", "1", [], [], [],
        )  # fmt: skip
    assert raised.value.sqlstate == "53400"
