"""One connection to a centre: verified TLS by default, nothing kept between two of them.

The only module that imports a PostgreSQL driver. It goes through peewee, which takes psycopg 3.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import peewee
import psycopg
from psycopg import conninfo

from agent.fleet.errors import FleetError
from agent.util.terminal import printable

CONNECT_TIMEOUT_S = 10
STATEMENT_TIMEOUT_S = 60

Values = Sequence[Any] | Mapping[str, Any] | None


class CentreConnection:
    """A connection in use. Values go as parameters, never into the text of a statement."""

    def __init__(self, database: peewee.PostgresqlDatabase) -> None:
        self._database: Any = database

    def run(self, sql: str, values: Values = None) -> None:
        self._execute(sql, values)

    def rows(self, sql: str, values: Values = None) -> list[tuple[Any, ...]]:
        return list(self._execute(sql, values).fetchall())

    def _execute(self, sql: str, values: Values) -> Any:
        # Without values a `%` is a `%`, as in SQL.
        text = sql.replace("%", "%%") if values is None else sql
        return self._database.execute_sql(text, values)

    def value(self, sql: str, values: Sequence[Any] | None = None) -> Any:
        """The one value that a statement gives, None where it gives no row."""
        found = self.rows(sql, values)
        return found[0][0] if found else None

    def encrypted(self, password: str, role: str) -> str:
        """A password as the server keeps it (SCRAM): the word itself is in no statement or log."""
        raw: psycopg.Connection[Any] = self._database.connection()
        made = raw.pgconn.encrypt_password(
            password.encode("utf-8"), role.encode("ascii"), b"scram-sha-256"
        )
        return bytes(made).decode("ascii")

    def quoted(self, value: str) -> str:
        """A literal, for the few statements that take no parameters."""
        return "'" + value.replace("'", "''") + "'"

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """The block's statements, all of them or none."""
        with self._database.atomic():
            # A role's own defaults could be another host's doing.
            self.run(
                f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT_S}s';"
                " SET TRANSACTION READ WRITE"
            )
            yield


def settings_of(dsn: str) -> dict[str, Any]:
    """libpq's settings for `dsn`, completed by ours. Raises FleetError where it is none."""
    try:
        values: dict[str, Any] = dict(conninfo.conninfo_to_dict(dsn))
    except psycopg.Error as error:
        # Not the error itself: it may repeat a password.
        raise FleetError(
            "The centre's address is no connection string of libpq.",
            "For example: postgresql://so1_agent@centre.example/so1",
        ) from error
    values.setdefault("connect_timeout", CONNECT_TIMEOUT_S)
    values.setdefault("application_name", "so1-agent")
    hosts = str(values.get("host") or "").split(",")
    if any(one and not one.startswith("/") for one in hosts) or values.get("hostaddr"):
        values.setdefault("sslmode", "verify-full")
        if values["sslmode"] in ("verify-full", "verify-ca"):
            values.setdefault("sslrootcert", "system")
        # Not `read-write`: that asks for a default which any host can set for the role.
        values.setdefault("target_session_attrs", "primary")
    return values


def _trust_the_hosts_authorities() -> None:
    """The driver's wheel has an OpenSSL of its own, which looks where the wheel was built.

    Raises FleetError where this host has none to verify a centre by.
    """
    # Not at the top: a flush over a socket, or with an authority of one's own, needs nothing of it.
    import ssl  # noqa: PLC0415

    found = ssl.get_default_verify_paths()
    if found.cafile is None and found.capath is None:
        raise FleetError(
            "This host has no certificate authorities to verify the centre by.",
            "Install ca-certificates, or name your own in [fleet] dsn: sslrootcert=/etc/so1/ca.pem",
        )
    for name, path in (("SSL_CERT_FILE", found.cafile), ("SSL_CERT_DIR", found.capath)):
        if path is not None:
            os.environ.setdefault(name, path)


@contextmanager
def connected(dsn: str, *, reads_only: bool = False) -> Iterator[CentreConnection]:
    """A connection that ends with the block.

    `reads_only` also takes a replica. Raises FleetError, with the server's words and without ours.
    """
    values = settings_of(dsn)
    if reads_only:
        values["target_session_attrs"] = "any"
    # A pool in transaction mode hands statements of one session to several servers.
    values["prepare_threshold"] = None
    if values.get("sslrootcert") == "system":
        _trust_the_hosts_authorities()
    name = values.pop("dbname", None) or values.get("user") or "so1"
    database = peewee.PostgresqlDatabase(name, **values)
    try:
        try:
            database.connect()
        except peewee.PeeweeException as error:
            raise FleetError(
                f"The centre cannot be reached: {_words(error)}.",
                "See its address ([fleet] dsn), its server, and `agent fleet status`.",
            ) from error
        try:
            yield CentreConnection(database)
        except (peewee.PeeweeException, psycopg.Error) as error:
            raise FleetError(f"The centre refuses: {_words(error)}.", hint_for(error)) from error
    finally:
        database.close()


def hint_for(error: BaseException) -> str:
    """What helps, by the server's error code."""
    code = sql_state(error)
    if code == "28000":
        return "Enroll this host (agent fleet enroll), or put its secret where [fleet] names it."
    if code == "42501":
        return "This role may not do that: use the one that the command's help names."
    if code in ("3F000", "42883", "42P01"):
        return "The centre has no schema, or an older one: agent fleet init DSN."
    if code and code.startswith("53"):
        return "The centre's server is out of disk, memory or connections."
    return "See the centre's log."


def sql_state(error: BaseException) -> str:
    """The server's five characters for what went wrong, "" where it said nothing."""
    cause: BaseException | None = error
    while cause is not None:
        state = getattr(cause, "sqlstate", None)
        if state:
            return str(state)
        cause = cause.__cause__ or cause.__context__
    return ""


def _words(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return printable((lines[0] if lines else type(error).__name__)[:300]).rstrip(".")
