"""The centre's schema as SQL: its tables, its partitions, and who may do what.

Everything here is text; `agent.fleet.centre` runs it. Hosts log in as one role that may call the
functions of `so1_api` (`agent.fleet.entrance`) and nothing else: no table, no temporary table, no
other function.
"""

from __future__ import annotations

from agent.fleet import entrance
from agent.fleet.streams import ALL_STREAMS, CONTAINERS_1D, Stream

VERSION = 3
"""Of the schema. A centre of a newer one is refused, one of an older one is brought up to date."""

MARK = "so1 fleet"
"""The comment on the schema that tells ours from another program's."""

OWNER, AGENT, READER = "so1_owner", "so1_agent", "so1_reader"

AHEAD_DAYS = 7
"""Partitions are made so far ahead, by the centre's clock."""

_FIXED = (
    """
    CREATE TABLE so1.settings (
        one boolean PRIMARY KEY DEFAULT true CHECK (one),
        version integer NOT NULL,
        facts_days integer NOT NULL CHECK (facts_days BETWEEN 1 AND 7300),
        figures_days integer NOT NULL CHECK (figures_days BETWEEN 1 AND 7300),
        made_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        shard text NOT NULL DEFAULT '' CHECK (shard ~ '^[a-z0-9_]{0,20}$')
    )
    """,
    """
    CREATE TABLE so1.installations (
        installation text PRIMARY KEY CHECK (installation ~ '^[0-9a-f]{32}$'),
        secret_hash bytea NOT NULL,
        name text NOT NULL,
        enrolled_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        rotated_at timestamptz,
        seen_at timestamptz,
        version text
    )
    """,
    """
    CREATE TABLE so1.epochs (
        installation text NOT NULL REFERENCES so1.installations ON DELETE CASCADE,
        epoch uuid NOT NULL,
        began_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        reason text NOT NULL,
        before uuid,
        PRIMARY KEY (installation, epoch)
    )
    """,
    """
    CREATE TABLE so1.cursors (
        installation text NOT NULL,
        epoch uuid NOT NULL,
        stream text NOT NULL,
        last_id bigint NOT NULL,
        last_timestamp bigint NOT NULL,
        moved_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (installation, epoch, stream),
        FOREIGN KEY (installation, epoch) REFERENCES so1.epochs ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE so1.gaps (
        installation text NOT NULL REFERENCES so1.installations ON DELETE CASCADE,
        epoch uuid NOT NULL,
        stream text NOT NULL,
        first_id bigint NOT NULL,
        last_id bigint NOT NULL,
        after_timestamp bigint NOT NULL,
        before_timestamp bigint NOT NULL,
        noticed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (installation, epoch, stream, first_id)
    )
    """,
    """
    CREATE TABLE so1.out_of_range (
        installation text NOT NULL REFERENCES so1.installations ON DELETE CASCADE,
        epoch uuid NOT NULL,
        stream text NOT NULL,
        id bigint NOT NULL,
        timestamp bigint NOT NULL,
        content jsonb NOT NULL,
        arrived_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (installation, epoch, stream, id)
    )
    """,
    """
    CREATE TABLE so1.ranges (
        stream text PRIMARY KEY,
        first_ms bigint NOT NULL,
        end_ms bigint NOT NULL,
        step_ms bigint NOT NULL
    )
    """,
    # What readers may know of an installation: everything but the secret's hash.
    """
    CREATE VIEW so1.hosts AS
    SELECT installation, name, enrolled_at, rotated_at, seen_at, version FROM so1.installations
    """,
)

_CLOSED = """
    CREATE VIEW so1.closed AS
    SELECT installation,
        max(last_timestamp) FILTER (WHERE stream = 'host_1h') + 3600000 AS until_1h,
        max(last_timestamp) FILTER (WHERE stream = 'host_1d') + 86400000 AS until_1d
    FROM so1.cursors
    WHERE last_timestamp BETWEEN 1 AND extract(epoch FROM clock_timestamp()) * 1000
    GROUP BY installation
"""
"""How far a host's hours and days reach; what is later is in the finer rows only."""

READABLE = ("hosts", "closed", "epochs", "cursors", "gaps", "out_of_range", "ranges")
"""What readers may see beside the streams and the settings."""


def shard_views() -> list[str]:
    """What a hub over several centres reads of this one."""
    return [shard_view(name) for name in (*READABLE, *(stream.name for stream in ALL_STREAMS))]


def shard_view(name: str) -> str:
    """A table with the centre's own name. Again after columns came, which are then at its end."""
    return (
        f"CREATE OR REPLACE VIEW so1.at_{name} AS"
        f" SELECT s.shard, t.* FROM so1.{name} t CROSS JOIN so1.settings s"
    )


_EXTEND = f"""
    CREATE FUNCTION so1.extend(now_ms bigint) RETURNS integer
    LANGUAGE plpgsql {entrance.DEFINER} AS $body$
    DECLARE
        one record;
        made integer := 0;
        part text;
    BEGIN
        -- A row that no host can lock: an advisory lock could be held by any of them.
        PERFORM 1 FROM so1.settings FOR UPDATE SKIP LOCKED;
        IF NOT FOUND THEN
            RETURN 0;
        END IF;
        FOR one IN SELECT * FROM so1.ranges ORDER BY stream LOOP
            WHILE one.end_ms < now_ms + {AHEAD_DAYS} * 86400000::bigint LOOP
                part := pg_catalog.format('%s_%s', one.stream, one.end_ms / 86400000);
                -- Made apart and attached: that waits for no reader of the whole table.
                EXECUTE pg_catalog.format(
                    'CREATE TABLE so1.%I (LIKE so1.%I INCLUDING DEFAULTS)', part, one.stream);
                EXECUTE pg_catalog.format(
                    'ALTER TABLE so1.%I ATTACH PARTITION so1.%I FOR VALUES FROM (%s) TO (%s)',
                    one.stream, part, one.end_ms, one.end_ms + one.step_ms);
                one.end_ms := one.end_ms + one.step_ms;
                made := made + 1;
            END LOOP;
            UPDATE so1.ranges r SET end_ms = one.end_ms WHERE r.stream = one.stream;
        END LOOP;
        RETURN made;
    END
    $body$
"""

_SHRINK = f"""
    CREATE FUNCTION so1.shrink(now_ms bigint) RETURNS integer
    LANGUAGE plpgsql {entrance.DEFINER} AS $body$
    DECLARE
        one record;
        dropped integer := 0;
    BEGIN
        FOR one IN
            SELECT r.stream, r.first_ms, r.step_ms,
                CASE WHEN r.step_ms > 86400000 THEN s.facts_days ELSE s.figures_days END AS days
            FROM so1.ranges r CROSS JOIN so1.settings s ORDER BY r.stream
        LOOP
            WHILE one.first_ms + one.step_ms <= now_ms - one.days * 86400000::bigint LOOP
                EXECUTE pg_catalog.format('DROP TABLE IF EXISTS so1.%I',
                    pg_catalog.format('%s_%s', one.stream, one.first_ms / 86400000));
                one.first_ms := one.first_ms + one.step_ms;
                dropped := dropped + 1;
            END LOOP;
            UPDATE so1.ranges r SET first_ms = one.first_ms WHERE r.stream = one.stream;
        END LOOP;
        DELETE FROM so1.out_of_range o USING so1.settings s
        WHERE o.arrived_at < pg_catalog.to_timestamp(now_ms / 1000.0)
            - pg_catalog.make_interval(days => s.figures_days);
        RETURN dropped;
    END
    $body$
"""

_PUBLIC_RIGHTS = (
    "pg_catalog.lo_create(oid)",
    "pg_catalog.lo_creat(integer)",
    "pg_catalog.lo_from_bytea(oid, bytea)",
    "pg_catalog.pg_terminate_backend(integer, bigint)",
    "pg_catalog.pg_cancel_backend(integer)",
)
"""What every login role may call by default: large objects that nobody counts, and the end of
others' sessions of the same role."""


def statements() -> list[str]:
    """Everything inside the database, in order; run as the owner-to-be, in one transaction."""
    made = list(_FIXED)
    for stream in ALL_STREAMS:
        made += [table(stream), *indexes(stream)]
    return [*made, _CLOSED, *shard_views(), *_functions()]


def _functions() -> list[str]:
    return [_EXTEND, _SHRINK, *entrance.statements()]


def upgrade(version: int) -> list[str]:
    """From an older `version` to this one; run as the owner, in one transaction.

    Hosts of any age go on shipping: their streams and their calls stay as they are. An epoch that
    is open begins a new stream at its first row.
    """
    made = [_DROP_FUNCTIONS]
    for stream in ALL_STREAMS:
        if stream.since > version:
            made += [table(stream), *indexes(stream), _cursors(stream)]
        elif version < 3:
            made += killed(stream)
    if version < 2:
        made += [_SHARD, _CLOSED]
    made += shard_views()
    return [*made, *_functions(), f"UPDATE so1.settings SET version = {VERSION}"]


_SHARD = """
    ALTER TABLE so1.settings
    ADD COLUMN shard text NOT NULL DEFAULT '' CHECK (shard ~ '^[a-z0-9_]{0,20}$')
"""

_DROP_FUNCTIONS = """
    DO $do$
    DECLARE
        one record;
    BEGIN
        FOR one IN
            SELECT p.oid::regprocedure AS signature FROM pg_catalog.pg_proc p
            WHERE p.pronamespace IN ('so1'::regnamespace, 'so1_api'::regnamespace)
        LOOP
            EXECUTE pg_catalog.format('DROP FUNCTION %s', one.signature);
        END LOOP;
    END
    $do$
"""


def _cursors(stream: Stream) -> str:
    return f"""
        INSERT INTO so1.cursors (installation, epoch, stream, last_id, last_timestamp)
        SELECT installation, epoch, '{stream.name}', 0, 0 FROM so1.epochs
    """


def table(stream: Stream) -> str:
    columns = ", ".join(f"{one.name} {one.type}" for one in stream.columns)
    return f"""
        CREATE TABLE so1.{stream.name} (
            installation text NOT NULL, epoch uuid NOT NULL, id bigint NOT NULL,
            timestamp bigint NOT NULL, {columns},
            PRIMARY KEY (installation, epoch, id, timestamp)
        ) PARTITION BY RANGE (timestamp)
    """


def indexes(stream: Stream) -> list[str]:
    return [f"CREATE INDEX ON so1.{stream.name} (timestamp)", *killed(stream)]


def killed(stream: Stream) -> list[str]:
    """The few days of containers in which processes were killed: for hosts that tell no more."""
    if stream is not CONTAINERS_1D:
        return []
    return [f"CREATE INDEX ON so1.{stream.name} (timestamp) WHERE oom_kills > 0"]


def grants() -> list[str]:
    """Who may do what inside the database; every right that is not named here is taken away."""
    made = [
        "REVOKE ALL ON SCHEMA so1, so1_api FROM PUBLIC",
        "REVOKE ALL ON ALL TABLES IN SCHEMA so1 FROM PUBLIC",
        "REVOKE ALL ON ALL FUNCTIONS IN SCHEMA so1 FROM PUBLIC",
        "REVOKE ALL ON ALL FUNCTIONS IN SCHEMA so1_api FROM PUBLIC",
        f"GRANT USAGE ON SCHEMA so1_api TO {AGENT}",
        f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA so1_api TO {AGENT}",
        f"GRANT USAGE ON SCHEMA so1 TO {READER}",
    ]
    streams = tuple(stream.name for stream in ALL_STREAMS)
    at = tuple(f"at_{name}" for name in (*READABLE, *streams))
    made += [f"GRANT SELECT ON so1.{name} TO {READER}" for name in (*READABLE, *streams, *at)]
    made.append(f"GRANT SELECT ON so1.settings TO {READER}")
    return made


def public_revocations() -> list[str]:
    """What only a superuser can take from everybody in this database."""
    return [f"REVOKE EXECUTE ON FUNCTION {one} FROM PUBLIC" for one in _PUBLIC_RIGHTS]
