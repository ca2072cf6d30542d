"""The centre's side: its schema made or found, installations enrolled, rotated and forgotten.

Run by whoever administers the PostgreSQL server, with a role that may create roles and schemas.
Everything is one transaction, so that a run that is cut short has changed nothing.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from dataclasses import dataclass

from agent.fleet import entrance, schema
from agent.fleet.connection import CentreConnection
from agent.fleet.errors import FleetError
from agent.fleet.streams import ALL_STREAMS, DAY_MS

OLDEST_SERVER = 150000
_INSTALLATION = re.compile(r"[0-9a-f]{32}")
_LOCK = 0x736F3146
"""`so1F`: two who make the schema at once wait for each other. Only administrators get here."""


@dataclass(frozen=True, slots=True)
class Made:
    """What `initialise` did."""

    was_there: bool
    password: str
    """Of the hosts' login role where it was made now, else ""."""
    partitions: int
    dropped: int
    is_superuser: bool


def initialise(
    connection: CentreConnection,
    facts_days: int | None = None,
    figures_days: int | None = None,
    shard: str | None = None,
) -> Made:
    """Makes the schema, the roles and the partitions, or brings them up to date.

    `shard` is how a hub over several centres calls this one. Raises FleetError for a schema of
    somebody else's, or of a newer version.
    """
    server = int(connection.value("SELECT current_setting('server_version_num')"))
    if server < OLDEST_SERVER:
        raise FleetError(
            f"The centre is PostgreSQL {server // 10000}; 15 is the oldest.", "Update the server."
        )
    with connection.transaction():
        connection.run("SELECT pg_catalog.pg_advisory_xact_lock(%s)", (_LOCK,))
        superuser = bool(
            connection.value("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        )
        password = _roles(connection, superuser)
        found = version(connection)
        if found is None:
            _make(connection)
        else:
            _update(connection, found)
        _days(connection, facts_days, figures_days)
        connection.run("UPDATE so1.settings SET shard = COALESCE(%s, shard)", (shard,))
        _rights(connection, superuser)
        made, dropped = maintain(connection)
    return Made(found is not None, password, made, dropped, superuser)


def version(connection: CentreConnection) -> int | None:
    """The schema's version, None where there is none. Raises FleetError where it is not ours."""
    found = connection.rows(
        "SELECT nspname, obj_description(oid, 'pg_namespace') FROM pg_namespace"
        " WHERE nspname IN ('so1', 'so1_api')"
    )
    for name, mark in found:
        if mark != schema.MARK:
            raise FleetError(
                f"The database has a schema {name} that is not the fleet's.",
                "Use a database of its own: createdb so1.",
            )
    if not found:
        return None
    number = int(connection.value("SELECT version FROM so1.settings"))
    if number > schema.VERSION:
        raise FleetError(
            f"The centre's schema is of version {number}; this agent knows {schema.VERSION}.",
            "Update the agent on this machine.",
        )
    return number


def maintain(connection: CentreConnection) -> tuple[int, int]:
    """Makes the partitions of the next days and drops what is too old: how many of each."""
    now_ms = time.time_ns() // 10**6
    made = int(connection.value("SELECT so1.extend(%s)", (now_ms,)))
    dropped = int(connection.value("SELECT so1.shrink(%s)", (now_ms,)))
    return made, dropped


def enroll(connection: CentreConnection, installation: str, name: str) -> str:
    """Lets an installation in; its secret, which is nowhere else. Raises FleetError."""
    secret = secrets.token_urlsafe(32)
    with connection.transaction():
        _checked(connection, installation)
        done = connection.rows(
            "INSERT INTO so1.installations (installation, secret_hash, name) VALUES (%s, %s, %s)"
            " ON CONFLICT DO NOTHING RETURNING 1",
            (installation, _hash(secret), name[:255]),
        )
    if not done:
        raise FleetError(
            f"The installation {installation} is enrolled already.",
            "A new secret: agent fleet rotate. To begin again: agent fleet forget, then enroll.",
        )
    return secret


def rotate(connection: CentreConnection, installation: str) -> str:
    """A new secret for an installation; the old one is worth nothing from now on."""
    secret = secrets.token_urlsafe(32)
    with connection.transaction():
        _checked(connection, installation)
        done = connection.rows(
            "UPDATE so1.installations SET secret_hash = %s, rotated_at = clock_timestamp()"
            " WHERE installation = %s RETURNING 1",
            (_hash(secret), installation),
        )
    if not done:
        raise _unknown(installation)
    return secret


def forget(connection: CentreConnection, installation: str) -> int:
    """Removes an installation, its secret and all its rows; how many rows."""
    rows = 0
    with connection.transaction():
        _checked(connection, installation)
        connection.run("SET LOCAL statement_timeout = 0")
        if not connection.rows(
            "DELETE FROM so1.installations WHERE installation = %s RETURNING 1", (installation,)
        ):
            raise _unknown(installation)
        for stream in ALL_STREAMS:
            rows += int(
                connection.value(
                    f"WITH gone AS (DELETE FROM so1.{stream.name} WHERE installation = %s"  # noqa: S608
                    " RETURNING 1) SELECT count(*) FROM gone",
                    (installation,),
                )
            )
    return rows


def new_password(connection: CentreConnection) -> str:
    """A new password for the hosts' login role."""
    with connection.transaction():
        return _set_password(connection)


def _checked(connection: CentreConnection, installation: str) -> None:
    if not _INSTALLATION.fullmatch(installation):
        raise FleetError(
            "An installation's id has 32 hexadecimal digits.",
            "It is in /var/lib/so1/installation of the host.",
        )
    if version(connection) is None:
        raise FleetError("The centre has no schema yet.", "Make it: agent fleet init DSN.")


def _unknown(installation: str) -> FleetError:
    return FleetError(
        f"The installation {installation} is not enrolled.", "See which are: agent fleet top."
    )


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8")).digest()


def _roles(connection: CentreConnection, superuser: bool) -> str:
    """Makes the three roles where they are missing; the login role's password if it was made."""
    there = {
        str(name): bool(is_super)
        for name, is_super in connection.rows(
            "SELECT rolname, rolsuper FROM pg_roles WHERE rolname = ANY(%s)",
            ([schema.OWNER, schema.AGENT, schema.READER],),
        )
    }
    for name, is_super in there.items():
        if is_super:
            raise FleetError(
                f"The role {name} is a superuser: whoever calls its functions would be one too.",
                f"Take that away: ALTER ROLE {name} NOSUPERUSER.",
            )
    plain = "NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
    for name in (schema.OWNER, schema.READER):
        if name not in there:
            connection.run(f"CREATE ROLE {name} NOLOGIN {plain}")
    password = ""
    if schema.AGENT not in there:
        connection.run(f"CREATE ROLE {schema.AGENT} LOGIN {plain} NOINHERIT")
        password = _set_password(connection)
    if not superuser and not _may_be_owner(connection):
        connection.run(f"GRANT {schema.OWNER} TO current_user")
    return password


def _may_be_owner(connection: CentreConnection) -> bool:
    """Whether the administrator may act as the owner already, False where it may become one.

    From PostgreSQL 16 on only who made a role, or was given it with the right to, may grant it.
    """
    if int(connection.value("SHOW server_version_num")) < 160000:
        return False
    acts, grants, who = connection.rows(
        "SELECT pg_has_role(%s, 'SET'), pg_has_role(%s, 'MEMBER WITH ADMIN OPTION'),"
        " quote_ident(current_user)",
        (schema.OWNER, schema.OWNER),
    )[0]
    if not acts and not grants:
        raise FleetError(
            f"The role {schema.OWNER} was made by another administrator of this server.",
            f"As that one or as a superuser: GRANT {schema.OWNER} TO {who}.",
        )
    return bool(acts)


def _set_password(connection: CentreConnection) -> str:
    password = secrets.token_urlsafe(32)
    verifier = connection.quoted(connection.encrypted(password, schema.AGENT))
    connection.run(f"ALTER ROLE {schema.AGENT} PASSWORD {verifier}")
    return password


def _make(connection: CentreConnection) -> None:
    for name in ("so1", "so1_api"):
        connection.run(f"CREATE SCHEMA {name} AUTHORIZATION {schema.OWNER}")
        connection.run(f"COMMENT ON SCHEMA {name} IS {connection.quoted(schema.MARK)}")
    _as_owner(
        connection,
        [
            *schema.statements(),
            (
                "INSERT INTO so1.settings (version, facts_days, figures_days)"  # noqa: S608
                f" VALUES ({schema.VERSION}, 400, 90)"
            ),
        ],
    )


def _as_owner(connection: CentreConnection, statements: list[str]) -> None:
    connection.run(f"SET LOCAL ROLE {schema.OWNER}")
    for statement in statements:
        connection.run(statement)
    connection.run("RESET ROLE")


def _update(connection: CentreConnection, found: int) -> None:
    """Gives a schema of an older agent the columns and the streams that came since, and the
    functions that take them. Older agents leave them empty."""
    statements = []
    for stream in ALL_STREAMS:
        there = {
            str(name)
            for (name,) in connection.rows(
                "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s)"
                " AND attnum > 0 AND NOT attisdropped",
                (f"so1.{stream.name}",),
            )
        }
        new = [one for one in stream.columns if one.name not in there]
        if new and there:
            added = ", ".join(f"ADD COLUMN {one.name} {one.type}" for one in new)
            statements.append(f"ALTER TABLE so1.{stream.name} {added}")
            if found == schema.VERSION:
                statements += [
                    f"DROP FUNCTION so1_api.ingest_{stream.name}",
                    entrance.ingest(stream),
                    schema.shard_view(stream.name),
                ]
    if found < schema.VERSION:
        statements += schema.upgrade(found)
    if statements:
        _as_owner(connection, statements)


def _days(connection: CentreConnection, facts_days: int | None, figures_days: int | None) -> None:
    connection.run(
        "UPDATE so1.settings SET facts_days = COALESCE(%s, facts_days),"
        " figures_days = COALESCE(%s, figures_days)",
        (facts_days, figures_days),
    )
    facts, figures = connection.rows("SELECT facts_days, figures_days FROM so1.settings")[0]
    today = time.time_ns() // 10**6 // DAY_MS
    for stream in ALL_STREAMS:
        step = stream.partition_ms // DAY_MS
        first = (today - (facts if stream.is_fact else figures)) // step * step * DAY_MS
        # Only the first time: what a longer retention would have kept is gone.
        connection.run(
            "INSERT INTO so1.ranges (stream, first_ms, end_ms, step_ms) VALUES (%s, %s, %s, %s)"
            " ON CONFLICT DO NOTHING",
            (stream.name, first, first, stream.partition_ms),
        )


def _rights(connection: CentreConnection, superuser: bool) -> None:
    database = connection.value("SELECT quote_ident(current_database())")
    connection.run(f"REVOKE ALL ON DATABASE {database} FROM PUBLIC")
    connection.run("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    connection.run(f"GRANT CONNECT ON DATABASE {database} TO {schema.AGENT}, {schema.READER}")
    for statement in schema.grants():
        connection.run(statement)
    if superuser:
        for statement in schema.public_revocations():
            connection.run(statement)
        # A question over many partitions is compiled for longer than it runs.
        connection.run(f"ALTER DATABASE {database} SET jit = off")
        connection.run(f"ALTER ROLE {schema.AGENT} SET log_parameter_max_length = 0")
        connection.run(f"ALTER ROLE {schema.AGENT} SET temp_file_limit = '64MB'")
