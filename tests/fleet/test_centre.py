"""The centre as its administrator runs it: made, found again, refused, kept within bounds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import IO, TYPE_CHECKING

import psycopg
import pytest

from agent.fleet import centre as administration
from agent.fleet.connection import connected, settings_of
from agent.fleet.errors import FleetError
from agent.fleet.streams import ALL_STREAMS, CONTAINERS, DAY_MS, HOSTS, REMOVALS, STREAMS
from tests.fleet.programs import PROJECT

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fleet.conftest import Centre
    from tests.fleet.host import Host


def now_ms() -> int:
    return time.time_ns() // 10**6 - 60_000


def agent(
    *words: str, stdout: IO[str] | int = subprocess.PIPE, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent", "fleet", *words],
        cwd=PROJECT,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )


def schema_of(centre: Centre) -> list[tuple[object, ...]]:
    return centre.ask(
        "SELECT relname, relkind, has_table_privilege('so1_reader', oid, 'SELECT') FROM pg_class"
        " WHERE relnamespace = 'so1'::regnamespace AND relkind <> 'i' ORDER BY 1"
    )


def test_a_second_run_changes_nothing(centre: Centre) -> None:
    before = schema_of(centre)
    with connected(centre.dsn()) as connection:
        again = administration.initialise(connection)
    assert again.was_there
    assert (again.password, again.partitions, again.dropped) == ("", 0, 0)
    assert schema_of(centre) == before
    assert centre.ask("SELECT facts_days, figures_days FROM so1.settings") == [(30, 10)]


def test_a_run_that_fails_at_its_end_has_changed_nothing(
    postgres: object, centre: Centre, monkeypatch: pytest.MonkeyPatch
) -> None:
    centre.ask("DROP SCHEMA so1, so1_api CASCADE")

    def fails(*_: object) -> None:
        raise FleetError("cut short")

    monkeypatch.setattr(administration, "maintain", fails)
    with connected(centre.dsn()) as connection, pytest.raises(FleetError):
        administration.initialise(connection)
    assert centre.ask("SELECT 1 FROM pg_namespace WHERE nspname LIKE 'so1%'") == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("COMMENT ON SCHEMA so1 IS 'mine'", "not the fleet's"),
        ("DROP SCHEMA so1, so1_api CASCADE; CREATE SCHEMA so1_api", "not the fleet's"),
        ("UPDATE so1.settings SET version = 99", "of version 99"),
        ("ALTER ROLE so1_owner SUPERUSER", "is a superuser"),
    ],
)
def test_what_is_not_ours_or_newer_or_unsafe_is_refused(
    centre: Centre, change: str, said: str
) -> None:
    for statement in change.split("; "):
        centre.ask(statement)
    before = centre.ask("SELECT nspname FROM pg_namespace ORDER BY 1")
    try:
        with connected(centre.dsn()) as connection, pytest.raises(FleetError) as raised:
            administration.initialise(connection)
    finally:
        centre.ask("ALTER ROLE so1_owner NOSUPERUSER")
    assert said in raised.value.message
    assert raised.value.hint
    assert centre.ask("SELECT nspname FROM pg_namespace ORDER BY 1") == before


def test_an_administrator_who_is_no_superuser_can_make_a_centre(centre: Centre) -> None:
    centre.ask("DROP SCHEMA so1, so1_api CASCADE")
    centre.ask("CREATE ROLE boss LOGIN CREATEROLE")
    try:
        centre.ask(f"ALTER DATABASE {centre.database} OWNER TO boss")
        centre.ask("ALTER SCHEMA public OWNER TO boss")
        with connected(centre.dsn("boss")) as connection:
            if centre.ask("SELECT current_setting('server_version_num')::int >= 160000")[0][0]:
                # The roles are the superuser's, who made the server's other centres.
                with pytest.raises(FleetError, match="another administrator") as refused:
                    administration.initialise(connection)
                assert (
                    refused.value.hint == "As that one or as a superuser: GRANT so1_owner TO boss."
                )
                centre.ask("GRANT so1_owner TO boss")
            made = administration.initialise(connection)
            # Again, as cron does.
            administration.initialise(connection)
        assert not made.is_superuser
        assert centre.ask("SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'so1'")[
            0
        ] == ("so1_owner",)
    finally:
        centre.ask("ALTER SCHEMA public OWNER TO postgres")
        centre.ask(f"ALTER DATABASE {centre.database} OWNER TO postgres")
        centre.ask("REVOKE so1_owner FROM boss")
        centre.ask("DROP OWNED BY boss")
        centre.ask("DROP ROLE boss")


def test_partitions_reach_from_the_retention_to_a_week_ahead(centre: Centre) -> None:
    today = time.time_ns() // 10**6 // DAY_MS * DAY_MS
    for stream in ALL_STREAMS:
        days = 30 if stream.is_fact else 10
        first, end = centre.ask(
            "SELECT first_ms, end_ms FROM so1.ranges WHERE stream = %s", stream.name
        )[0]
        assert first <= today - days * DAY_MS
        assert end >= today + 7 * DAY_MS
        (count,) = centre.ask(
            "SELECT count(*) FROM pg_inherits WHERE inhparent = %s::regclass", f"so1.{stream.name}"
        )[0]
        assert count == (end - first) // stream.partition_ms
    assert centre.ask("SELECT 1 FROM pg_partitioned_table WHERE partdefid <> 0") == []


def test_days_that_come_are_made_by_the_hosts_themselves(centre: Centre, host: Host) -> None:
    """Nobody has run anything at the centre for a week."""
    with connected(centre.dsn()) as connection:
        connection.run("UPDATE so1.ranges SET end_ms = first_ms")
        for stream in ALL_STREAMS:
            for (name,) in centre.ask(
                "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass",
                f"so1.{stream.name}",
            ):
                connection.run(f"DROP TABLE {name}")
    for stream in ALL_STREAMS:
        host.write(stream, 2, now_ms())
    host.flush(("minutes", "processes"))
    for stream in ALL_STREAMS:
        assert centre.rows(stream, host) == host.rows(stream)
    assert centre.ask("SELECT count(*) FROM so1.out_of_range") == [(0,)]


def test_what_is_older_than_its_days_goes_and_nothing_else(centre: Centre, host: Host) -> None:
    for stream in (REMOVALS, CONTAINERS):
        for days in (40, 29, 12, 8, 0):
            host.write(stream, 1, now_ms() - days * DAY_MS)
    host.flush()
    with connected(centre.dsn()) as connection:
        made = administration.initialise(connection, facts_days=20, figures_days=5)
    assert made.dropped > 0
    ages = {
        stream.name: [round((now_ms() - row[1]) / DAY_MS) for row in centre.rows(stream, host)]
        for stream in (REMOVALS, CONTAINERS)
    }
    assert 0 in ages["removals"]
    assert 12 in ages["removals"]
    assert ages["container_5m"] == [0]
    # What comes late for a day that is gone is kept apart.
    host.write(CONTAINERS, 1, now_ms() - 8 * DAY_MS)
    host.flush()
    assert centre.ask("SELECT stream, id FROM so1.out_of_range WHERE stream <> 'removals'")[-1] == (
        "container_5m",
        6,
    )


def test_secrets_are_made_once_and_a_rotated_one_is_worth_nothing(
    centre: Centre, host: Host
) -> None:
    with connected(centre.dsn()) as connection:
        with pytest.raises(FleetError) as raised:
            administration.enroll(connection, host.installation, "again")
        assert "enrolled already" in raised.value.message
        old, host.secret = host.secret, administration.rotate(connection, host.installation)
        assert old != host.secret
        for bad in ("", "x", "A" * 32, "g" * 32, "a" * 33, "'; --"):
            for action in (administration.rotate, administration.forget):
                with pytest.raises(FleetError):
                    action(connection, bad)
            with pytest.raises(FleetError):
                administration.enroll(connection, bad, "x")
        with pytest.raises(FleetError):
            administration.rotate(connection, "f" * 32)
    host.write(HOSTS, 1, now_ms())
    assert host.flush().rows == 1
    host.secret = old
    with pytest.raises(FleetError):
        host.flush()
    stored = centre.ask("SELECT encode(secret_hash, 'escape') FROM so1.installations")
    assert old not in str(stored)


@pytest.mark.parametrize(
    ("dsn", "expected"),
    [
        ("host=centre.example", {"sslmode": "verify-full", "sslrootcert": "system"}),
        ("postgresql://u@a,b/so1", {"sslmode": "verify-full"}),
        ("host=/run/postgresql", {"sslmode": None}),
        ("host=a sslmode=verify-ca", {"sslmode": "verify-ca"}),
        ("host=a sslmode=disable", {"sslmode": "disable", "sslrootcert": None}),
        ("host=a sslrootcert=/x", {"sslmode": "verify-full", "sslrootcert": "/x"}),
        ("hostaddr=10.0.0.1", {"sslmode": "verify-full"}),
        ("host=a,b", {"target_session_attrs": "primary"}),
    ],
)
def test_a_network_means_verified_tls_unless_somebody_says_otherwise(
    dsn: str, expected: dict[str, str | None]
) -> None:
    values = settings_of(dsn)
    assert {key: values.get(key) for key in expected} == expected


def test_an_address_that_is_none_repeats_no_password() -> None:
    with pytest.raises(FleetError) as raised:
        settings_of("host=a password=very-secret oops")
    assert "very-secret" not in str(raised.value)


def test_the_commands_do_all_of_it(centre: Centre, tmp_path: Path) -> None:
    from tests.fleet.host import Host, make_history

    dsn = centre.dsn()
    done = agent("init", dsn, "--facts-days", "31")
    assert (done.returncode, done.stderr) == (0, "")
    assert "The schema was there." in done.stdout
    host = Host(tmp_path / "var", "d" * 32, dsn=centre.dsn("so1_agent", centre.password))
    make_history(host.database)
    (host.directory / "installation").write_text(host.installation + "\n")
    enrolled = agent("enroll", dsn, host.installation, "--name", "web-1")
    assert enrolled.returncode == 0
    secret = tmp_path / "secret"
    secret.write_text(enrolled.stdout)
    secret.chmod(0o600)
    config = tmp_path / "agent.toml"
    config.write_text(
        f'[fleet]\ndsn = "{host.dsn}"\nsecret_file = "{secret}"\n'
        f'[paths]\ndatabase = "{host.database}"\n'
    )
    for stream in STREAMS:
        host.write(stream, 3, now_ms())
    before = agent("status", "--config", str(config), "--json")
    assert before.returncode == 1
    assert {one["stream"]: one["rows"] for one in json.loads(before.stdout)["waiting"]} == {
        stream.name: 3 for stream in STREAMS
    }
    done = agent("ship", "--config", str(config))
    assert (done.returncode, done.stdout) == (
        0,
        f"{3 * len(STREAMS)} rows shipped, a new epoch (first).\n",
    )
    after = agent("status", "--config", str(config))
    assert after.returncode == 0
    assert "removals: 0 rows" in after.stdout

    top = agent("top", "--dsn", dsn, "--json")
    assert top.returncode == 0, top.stderr
    found = json.loads(top.stdout)
    assert found["hosts"][0]["name"] == "web-1"
    newest = host.rows(CONTAINERS)[-1]
    assert found["containers"][0]["held_mb"] == max(row[9] for row in host.rows(CONTAINERS))
    assert found["containers"][0]["name"] == newest[3]
    assert found["removals"][0][0] == "web-1"
    centre.ask("UPDATE so1.removals SET outcome = 'gone', error = ''")
    centre.ask(
        "UPDATE so1.removals SET error = 'not governed any more'"
        " WHERE id > (SELECT min(id) FROM so1.removals)"
    )
    found = json.loads(agent("top", "--dsn", dsn, "--json").stdout)
    counted: Counter[str] = Counter()
    for _, _, outcome, number in found["removals"]:
        counted[outcome] += number
    assert counted == {"gone": 1, "left alone": 2}
    assert "web-1" in agent("top", "--dsn", dsn).stdout

    secret.chmod(0o644)
    refused = agent("ship", "--config", str(config))
    assert (refused.returncode, refused.stdout) == (9, "")
    assert "Others than root may read" in refused.stderr
    assert "Traceback" not in refused.stderr
    secret.chmod(0o600)
    assert agent("rotate", dsn, host.installation).returncode == 0
    refused = agent("ship", "--config", str(config))
    assert refused.returncode == 9
    assert "not known here" in refused.stderr
    assert agent("status", "--config", str(config)).returncode == 1
    forgotten = agent("forget", dsn, host.installation)
    assert forgotten.stdout == f"Forgotten, with {3 * len(STREAMS)} rows.\n"


def test_a_secret_that_could_not_be_printed_is_not_in_force(centre: Centre, host: Host) -> None:
    def secrets() -> list[tuple[object, ...]]:
        return [
            *centre.ask("SELECT installation, secret_hash, rotated_at FROM so1.installations"),
            *centre.ask("SELECT rolpassword FROM pg_authid WHERE rolname = 'so1_agent'"),
        ]

    before, dsn = secrets(), centre.dsn()
    for words in (
        ("rotate", dsn, host.installation),
        ("enroll", dsn, "e" * 32),
        ("init", dsn, "--new-password"),
    ):
        with Path("/dev/full").open("w") as full:
            done = agent(*words, stdout=full)
        assert done.returncode == 1, words
        assert done.stderr.count("\n") <= 2, done.stderr
        assert "Standard output cannot be written" in done.stderr
        assert secrets() == before, words


def test_a_reader_reads_everything_but_the_secrets(
    centre: Centre, new_host: Callable[..., Host]
) -> None:
    host = new_host()
    host.write(REMOVALS, 2, now_ms())
    host.flush()
    centre.ask("CREATE ROLE grafana LOGIN IN ROLE so1_reader")
    try:
        done = agent("top", "--dsn", centre.dsn("grafana"))
        assert (done.returncode, done.stderr) == (0, "")
        with psycopg.connect(centre.dsn("grafana"), autocommit=True) as reader:
            for statement in (
                "SELECT * FROM so1.installations",
                "DELETE FROM so1.removals",
                "SELECT so1.shrink(0)",
                "SELECT * FROM so1_api.cursors('a', 'b', NULL, '')",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    reader.execute(statement)
    finally:
        centre.ask("DROP ROLE grafana")


def test_an_agent_without_the_driver_says_how_to_get_it(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['psycopg'] = None\n"
        "import importlib.util as u; whole = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'psycopg' else whole(name, *a)\n"
        "from agent.__main__ import main; main()\n"
    )
    config = tmp_path / "agent.toml"
    config.write_text(f'[fleet]\ndsn = "host=/x"\nenvironment = "{tmp_path}/none"\n')
    done = subprocess.run(
        [sys.executable, "-c", script, "fleet", "ship", "--config", str(config)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "fleet_environment.sh" in done.stderr
    assert "Traceback" not in done.stderr
