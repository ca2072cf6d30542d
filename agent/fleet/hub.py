"""A hub: one database that reads several centres and answers as one of them would.

Each centre is a shard, complete in itself: hosts ship there directly and know nothing of a hub. The
hub's tables are partitioned by shard, each partition a foreign table. A shard that does not answer
is taken out, named, and put back once it answers: `so1.look()` does it, for whoever reads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.fleet import entrance, schema
from agent.fleet.connection import CentreConnection, settings_of
from agent.fleet.errors import FleetError
from agent.fleet.streams import ALL_STREAMS

MARK = "so1 fleet hub"
OWNER, READER = schema.OWNER, schema.READER

_NAME = re.compile(r"[a-z0-9_]{1,20}")
_CONNECT_TIMEOUT_S = "3"
_OF_SERVER = frozenset(
    ("host", "hostaddr", "port", "dbname", "sslmode", "sslrootcert", "target_session_attrs")
)

_TYPES = {
    "hosts": "installation text, name text, enrolled_at timestamptz, rotated_at timestamptz,"
    " seen_at timestamptz, version text",
    "closed": "installation text, until_1h bigint, until_1d bigint",
    "epochs": "installation text, epoch uuid, began_at timestamptz, reason text, before uuid",
    "cursors": "installation text, epoch uuid, stream text, last_id bigint, last_timestamp bigint,"
    " moved_at timestamptz",
    "gaps": "installation text, epoch uuid, stream text, first_id bigint, last_id bigint,"
    " after_timestamp bigint, before_timestamp bigint, noticed_at timestamptz",
    "out_of_range": "installation text, epoch uuid, stream text, id bigint, timestamp bigint,"
    " content jsonb, arrived_at timestamptz",
    "ranges": "stream text, first_ms bigint, end_ms bigint, step_ms bigint",
}


@dataclass(frozen=True, slots=True)
class Shard:
    name: str
    answers: bool
    problem: str


def initialise(connection: CentreConnection, shards: Mapping[str, str]) -> tuple[Shard, ...]:
    """Makes the hub, or adds and changes `shards` (connection strings by name); who answers.

    Run by a superuser of the hub, who alone may make foreign servers. Raises FleetError.
    """
    for name in shards:
        if not _NAME.fullmatch(name):
            raise FleetError(
                f"{name!r} is no name for a shard.",
                "Use the one given to `agent fleet init --shard`: a-z, 0-9 and _, 20 at most.",
            )
    with connection.transaction():
        mark = connection.value(
            "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = 'so1'"
        )
        made = connection.value("SELECT to_regnamespace('so1') IS NOT NULL")
        if made and mark != MARK:
            raise FleetError(
                "The database has a schema so1 that is no hub's.",
                "Use a database of its own: createdb so1_hub.",
            )
        if made:
            _update(connection)
        else:
            _make(connection)
        for name, dsn in shards.items():
            _add(connection, name, dsn)
        database = connection.value("SELECT quote_ident(current_database())")
        connection.run(f"ALTER DATABASE {database} SET jit = off")
    return look(connection)


def look(connection: CentreConnection) -> tuple[Shard, ...]:
    """Who answers now; partitions are put in and taken out accordingly."""
    with connection.transaction():
        connection.run("SELECT so1.look()")
        found = connection.rows("SELECT name, answers, problem FROM so1.shards ORDER BY name")
    return tuple(Shard(str(name), bool(answers), str(problem)) for name, answers, problem in found)


def _tables() -> dict[str, str]:
    """Columns by table, without the shard's."""
    streams = {
        stream.name: "installation text, epoch uuid, id bigint, timestamp bigint, "
        + ", ".join(f"{one.name} {one.type}" for one in stream.columns)
        for stream in ALL_STREAMS
    }
    return {**_TYPES, **streams}


def _make(connection: CentreConnection) -> None:
    there = {name for (name,) in connection.rows("SELECT rolname FROM pg_roles")}
    for role in (OWNER, READER):
        if role not in there:
            connection.run(f"CREATE ROLE {role} NOLOGIN")
    connection.run("CREATE EXTENSION IF NOT EXISTS postgres_fdw")
    connection.run(f"GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO {OWNER}")
    connection.run(f"CREATE SCHEMA so1 AUTHORIZATION {OWNER}")
    connection.run(f"COMMENT ON SCHEMA so1 IS {connection.quoted(MARK)}")
    connection.run(f"GRANT USAGE ON SCHEMA so1 TO {READER}")
    connection.run(f"SET LOCAL ROLE {OWNER}")
    connection.run(
        "CREATE TABLE so1.shards (name text PRIMARY KEY, answers boolean NOT NULL DEFAULT false,"
        " problem text NOT NULL DEFAULT '', since timestamptz NOT NULL DEFAULT clock_timestamp())"
    )
    for name, columns in _tables().items():
        connection.run(_table(name, columns))
    connection.run(_look())
    _grant(connection)
    connection.run("RESET ROLE")


def _update(connection: CentreConnection) -> None:
    """Gives a hub of an older agent the tables and columns that came since."""
    there: dict[str, set[str]] = {}
    for table, column in connection.rows(
        "SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
        " WHERE c.relnamespace = 'so1'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped"
    ):
        there.setdefault(str(table), set()).add(str(column))
    shards = [str(name) for (name,) in connection.rows("SELECT name FROM so1.shards")]
    changes = []
    for name, listed in _tables().items():
        if name not in there:
            changes += [_table(name, listed), *(_foreign(name, listed, one) for one in shards)]
            continue
        new = [one for one in listed.split(", ") if one.split()[0] not in there[name]]
        if new:
            added = ", ".join(f"ADD COLUMN {one}" for one in new)
            changes.append(f"ALTER TABLE so1.{name} {added}")
            changes += [f"ALTER FOREIGN TABLE so1.{name}_at_{one} {added}" for one in shards]
    if not changes:
        return
    connection.run(f"SET LOCAL ROLE {OWNER}")
    # The look that follows puts them back.
    for parent, part in connection.rows(
        "SELECT inhparent::regclass::text, inhrelid::regclass::text FROM pg_inherits"
        " JOIN pg_class c ON c.oid = inhrelid WHERE c.relnamespace = 'so1'::regnamespace"
    ):
        connection.run(f"ALTER TABLE {parent} DETACH PARTITION {part}")
    connection.run("UPDATE so1.shards SET answers = false")
    connection.run("DROP FUNCTION so1.look()")
    for statement in (*changes, _look()):
        connection.run(statement)
    _grant(connection)
    connection.run("RESET ROLE")


def _grant(connection: CentreConnection) -> None:
    connection.run("REVOKE ALL ON ALL FUNCTIONS IN SCHEMA so1 FROM PUBLIC")
    connection.run(f"GRANT EXECUTE ON FUNCTION so1.look() TO {READER}")
    connection.run(f"GRANT SELECT ON ALL TABLES IN SCHEMA so1 TO {READER}")


def _table(name: str, columns: str) -> str:
    return f"CREATE TABLE so1.{name} (shard text, {columns}) PARTITION BY LIST (shard)"


def _foreign(name: str, columns: str, shard: str) -> str:
    return (
        f"CREATE FOREIGN TABLE so1.{name}_at_{shard} (shard text, {columns}) SERVER so1_{shard}"
        f" OPTIONS (schema_name 'so1', table_name 'at_{name}')"
    )


def _add(connection: CentreConnection, name: str, dsn: str) -> None:
    values: dict[str, Any] = settings_of(dsn)
    if not values.get("password"):
        raise FleetError(
            f"The shard {name} has no password in its connection string.",
            "PostgreSQL reads a foreign server without one for superusers only.",
        )
    values["target_session_attrs"] = "any"
    options = {key: str(value) for key, value in values.items() if key in _OF_SERVER}
    options |= {"connect_timeout": _CONNECT_TIMEOUT_S, "async_capable": "true"}
    options |= {"fetch_size": "10000", "keep_connections": "off"}
    server = f"so1_{name}"
    q = connection.quoted
    connection.run(f"DROP SERVER IF EXISTS {server} CASCADE")
    listed = ", ".join(f"{key} {q(value)}" for key, value in options.items())
    connection.run(f"CREATE SERVER {server} FOREIGN DATA WRAPPER postgres_fdw OPTIONS ({listed})")
    connection.run(
        f"CREATE USER MAPPING FOR PUBLIC SERVER {server}"
        f" OPTIONS (user {q(str(values.get('user')))}, password {q(str(values['password']))})"
    )
    connection.run(f"GRANT USAGE ON FOREIGN SERVER {server} TO {OWNER}")
    connection.run(f"SET LOCAL ROLE {OWNER}")
    for table, columns in _tables().items():
        connection.run(_foreign(table, columns, name))
    connection.run(
        "INSERT INTO so1.shards (name) VALUES (%s)"
        " ON CONFLICT (name) DO UPDATE SET answers = false, problem = ''",
        (name,),
    )
    connection.run("RESET ROLE")


def _look() -> str:
    tables = ", ".join(f"'{name}'" for name in _tables())
    return f"""
    CREATE FUNCTION so1.look() RETURNS void
    LANGUAGE plpgsql {entrance.DEFINER} AS $body$
    DECLARE
        one record;
        part text;
        named text;
        now_answers boolean;
        why text;
    BEGIN
        -- Two that look at once would both put a partition in.
        FOR one IN SELECT * FROM so1.shards ORDER BY name FOR UPDATE LOOP
            BEGIN
                EXECUTE pg_catalog.format('SELECT shard FROM so1.%I', 'ranges_at_' || one.name)
                    || ' LIMIT 1' INTO named;
                now_answers := named IS NOT DISTINCT FROM one.name;
                why := CASE WHEN now_answers THEN '' ELSE
                    'it calls itself ' || coalesce(pg_catalog.quote_literal(named), 'nothing') END;
            EXCEPTION WHEN OTHERS THEN
                now_answers := false;
                why := pg_catalog.left(SQLERRM, 300);
            END;
            IF now_answers <> one.answers THEN
                FOREACH part IN ARRAY ARRAY[{tables}] LOOP
                    IF now_answers THEN
                        EXECUTE pg_catalog.format(
                            'ALTER TABLE so1.%I ATTACH PARTITION so1.%I FOR VALUES IN (%L)',
                            part, part || '_at_' || one.name, one.name);
                    ELSE
                        EXECUTE pg_catalog.format('ALTER TABLE so1.%I DETACH PARTITION so1.%I',
                            part, part || '_at_' || one.name);
                    END IF;
                END LOOP;
                UPDATE so1.shards s SET since = pg_catalog.clock_timestamp()
                WHERE s.name = one.name;
            END IF;
            UPDATE so1.shards s SET answers = now_answers, problem = why WHERE s.name = one.name
                AND (s.answers, s.problem) IS DISTINCT FROM (now_answers, why);
        END LOOP;
    END
    $body$
    """  # noqa: S608 - constants
