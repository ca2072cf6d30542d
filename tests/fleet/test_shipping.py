"""Every row of a host is at the centre exactly once, or a gap says which are missing.

Both sides are compared by key and content: SQLite's rows by plain SQL against PostgreSQL's.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from agent.fleet import shipper
from agent.fleet.connection import CentreConnection
from agent.fleet.errors import FleetError
from agent.fleet.local import FILE_NAME, alone, read_state, write_state
from agent.fleet.shipper import Identity, flush
from agent.fleet.streams import CONTAINERS, HOSTS, REMOVALS, STOPS, STREAMS
from tests.unit.store.builders import (
    SECOND_NS,
    FakeClock,
    a_container,
    a_pass,
    a_tick,
    open_store,
    totals,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.fleet.conftest import Centre
    from tests.fleet.host import Host


def now_ms() -> int:
    return time.time_ns() // 10**6 - 60_000


def fill(host: Host, count: int = 5, word: str = "x") -> None:
    for stream in STREAMS:
        host.write(stream, count, now_ms(), word)


def same(host: Host, centre: Centre) -> None:
    """Each row of the host is there once, and nothing else."""
    for stream in STREAMS:
        assert centre.rows(stream, host) == host.rows(stream), stream.name


def test_every_row_arrives_once_with_all_its_values(host: Host, centre: Centre) -> None:
    fill(host, 30)
    assert host.flush().rows == 30 * len(STREAMS)
    same(host, centre)
    assert centre.epochs(host) == ["first"]
    assert host.flush().rows == 0
    fill(host, 3)
    assert host.flush().rows == 3 * len(STREAMS)
    same(host, centre)
    assert centre.gaps(host) == []


def test_buckets_that_the_agent_closed_arrive_with_their_containers(
    host: Host, centre: Centre
) -> None:
    began_ns = (now_ms() - 3_600_000) * 10**6
    with open_store(host.database, FakeClock(began_ns)) as store:
        for number in range(60):
            one = totals(a_container(f"web-{number % 3}", f"{number % 3:064x}"), held_kb=number)
            at_ns = began_ns + number * 20 * SECOND_NS
            store.write_tick(a_tick(at_ns, totals=(one,), passes=(a_pass(),)))
    host.flush()
    same(host, centre)
    assert len(centre.rows(REMOVALS, host)) == 60
    assert len(centre.rows(HOSTS, host)) in (3, 4)
    assert {row[3] for row in centre.rows(CONTAINERS, host)} == {"web-0", "web-1", "web-2"}


def test_more_rows_than_a_call_takes_go_in_several(
    host: Host, centre: Centre, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipper, "BATCH_ROWS", 7)
    fill(host, 24)
    host.flush()
    same(host, centre)


def test_two_hosts_have_their_own(new_host: Callable[..., Host], centre: Centre) -> None:
    one, other = new_host("a"), new_host("b")
    fill(one, 4)
    fill(other, 6)
    one.flush()
    other.flush()
    same(one, centre)
    same(other, centre)


@pytest.mark.parametrize("committed", [False, True], ids=["before", "after"])
def test_a_connection_cut_around_the_commit_costs_and_doubles_nothing(
    host: Host, centre: Centre, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    fill(host, 10)
    whole = shipper._Flush._send

    def cut(self: Any, stream: Any, cursor: Any, rows: Any) -> str:
        if stream is not HOSTS:
            return whole(self, stream, cursor, rows)
        if committed:
            whole(self, stream, cursor, rows)
        raise FleetError("The connection was cut.")

    with monkeypatch.context() as patched:
        patched.setattr(shipper._Flush, "_send", cut)
        with pytest.raises(FleetError):
            host.flush()
    assert read_state(host.directory).problem == "The connection was cut."
    fill(host, 5)
    host.flush()
    same(host, centre)
    assert centre.epochs(host) == ["first"]
    assert read_state(host.directory).problem == ""


def test_two_flushes_of_one_host_do_not_meet(host: Host, centre: Centre) -> None:
    fill(host, 2)
    with alone(host.directory), pytest.raises(FleetError) as raised:
        host.flush()
    assert "under way" in raised.value.message
    assert read_state(host.directory).problem == ""
    host.flush()
    same(host, centre)


def test_two_machines_that_ship_under_one_id_at_once_are_told(
    host: Host, centre: Centre, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(host, 2)
    host.flush()
    other = host.copy(tmp_path / "other")
    fill(host, 1)
    other.written += 1000
    fill(other, 1)
    whole = shipper._Flush._take_up

    def meanwhile(self: Any) -> None:
        whole(self)
        with monkeypatch.context() as patched:
            patched.setattr(shipper._Flush, "_take_up", whole)
            other.flush()

    with monkeypatch.context() as patched:
        patched.setattr(shipper._Flush, "_take_up", meanwhile)
        with pytest.raises(FleetError) as raised:
            host.flush()
    assert "another one ships under its id" in raised.value.message
    host.flush()
    assert centre.epochs(host) == ["first", "fork"]
    for stream in STREAMS:
        expected = other.rows(stream) + host.rows(stream)[2:]
        assert centre.rows(stream, host) == expected


class KilledError(BaseException):
    """As kill -9: no handler of ours sees it."""


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_flush_killed_at_each_of_its_steps_costs_and_doubles_nothing(
    host: Host, centre: Centre, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    """Every statement to the centre and every writing of the state is a step."""
    steps, deadly = 0, 0

    def stepping(whole: Callable[..., Any]) -> Callable[..., Any]:
        def step(*values: Any, **more: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == deadly and not after:
                raise KilledError
            gives = whole(*values, **more)
            if steps == deadly:
                raise KilledError
            return gives

        return step

    monkeypatch.setattr(CentreConnection, "_execute", stepping(CentreConnection._execute))
    monkeypatch.setattr(shipper, "write_state", stepping(write_state))
    fill(host, 3)
    while True:
        steps, deadly = 0, deadly + 1
        try:
            host.flush()
        except KilledError:
            fill(host, 1)
            continue
        if steps < deadly:
            break
    assert deadly > 20
    deadly = 0
    host.flush()
    same(host, centre)
    assert centre.gaps(host) == []
    assert set(centre.epochs(host)) == {"first"}


def test_the_very_same_call_again_moves_nothing(
    host: Host, centre: Centre, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(host, 4)
    outcomes = []
    whole = shipper._Flush._send

    def twice(self: Any, stream: Any, cursor: Any, rows: Any) -> str:
        outcomes.append(whole(self, stream, cursor, rows))
        outcomes.append(whole(self, stream, cursor, rows))
        return outcomes[-1]

    monkeypatch.setattr(shipper._Flush, "_send", twice)
    host.flush()
    assert outcomes == ["taken", "again"] * len(STREAMS)
    same(host, centre)


@pytest.mark.parametrize("noise", [None, b"", b"{", b'{"epoch": 3}'])
def test_a_host_that_lost_its_state_goes_on_where_the_centre_is(
    host: Host, centre: Centre, noise: bytes | None
) -> None:
    fill(host, 5)
    host.flush()
    if noise is None:
        host.lose_state()
    else:
        host.state.write_bytes(noise)
    fill(host, 5)
    host.flush()
    same(host, centre)
    assert centre.epochs(host) == ["first"]


def test_a_clone_begins_an_epoch_where_the_two_parted(
    host: Host, centre: Centre, tmp_path: Path
) -> None:
    fill(host, 10)
    host.flush()
    clone = host.copy(tmp_path / "clone")
    fill(host, 3, "original")
    host.flush()
    clone.written += 1000
    fill(clone, 5, "clone")
    clone.flush()
    fill(host, 2, "original")
    host.flush()
    fill(clone, 2, "clone")
    clone.flush()
    assert centre.epochs(host) == ["first", "fork"]
    for stream in STREAMS:
        expected = host.rows(stream) + clone.rows(stream)[10:]
        assert centre.rows(stream, host) == expected
    assert centre.gaps(host) == []


def test_a_clone_without_its_state_finds_where_the_two_parted(
    host: Host, centre: Centre, tmp_path: Path
) -> None:
    fill(host, 40)
    host.flush()
    clone = host.copy(tmp_path / "clone")
    clone.lose_state()
    fill(host, 9, "original")
    host.flush()
    clone.written += 1000
    fill(clone, 25, "clone")
    clone.flush()
    assert centre.epochs(host) == ["first", "fork"]
    for stream in STREAMS:
        assert centre.rows(stream, host) == host.rows(stream) + clone.rows(stream)[40:]


@pytest.mark.parametrize("with_state", [True, False], ids=["whole disk", "database alone"])
def test_an_old_copy_brought_back_is_a_fork_and_doubles_nothing(
    host: Host, centre: Centre, tmp_path: Path, with_state: bool
) -> None:
    fill(host, 10)
    host.flush()
    old = host.copy(tmp_path / "old")
    fill(host, 6, "lost")
    host.flush()
    before = {stream.name: host.rows(stream) for stream in STREAMS}
    if not with_state:
        (old.directory / FILE_NAME).write_bytes(host.state.read_bytes())
    old.written += 1000
    fill(old, 4, "again")
    old.flush()
    assert centre.epochs(host) == ["first", "fork"]
    for stream in STREAMS:
        assert centre.rows(stream, host) == before[stream.name] + old.rows(stream)[10:]


def test_a_database_that_was_begun_anew_has_an_epoch_of_its_own(host: Host, centre: Centre) -> None:
    from tests.fleet.host import make_history

    fill(host, 10)
    host.flush()
    before = {stream.name: host.rows(stream) for stream in STREAMS}
    for path in host.directory.glob("metrics.db*"):
        path.unlink()
    make_history(host.database)
    fill(host, 12, "new")
    host.flush()
    assert centre.epochs(host) == ["first", "begun again"]
    for stream in STREAMS:
        assert centre.rows(stream, host) == before[stream.name] + host.rows(stream)


def test_rows_that_went_before_they_were_shipped_are_a_gap_that_says_which(
    host: Host, centre: Centre
) -> None:
    fill(host, 5)
    host.flush()
    fill(host, 10)
    host.run("DELETE FROM deletions WHERE id <= 9")
    host.run("DELETE FROM deletions WHERE id = 12")
    host.flush()
    assert centre.gaps(host) == [("removals", 6, 9), ("removals", 12, 12)]
    assert [row[0] for row in centre.rows(REMOVALS, host)] == [*range(1, 6), 10, 11, 13, 14, 15]


def test_retention_may_take_what_is_shipped_and_nothing_else(host: Host) -> None:
    fill(host, 5)
    with pytest.raises(FleetError):
        flush(host.database, host.dsn, Identity(host.installation, "x" * 43))
    assert read_state(host.directory).safe_before_ms == 0
    host.flush()
    safe_ms = read_state(host.directory).safe_before_ms
    assert safe_ms > 0
    fill(host, 5)
    with pytest.raises(FleetError):
        flush(host.database, host.dsn, Identity(host.installation, "x" * 43))
    assert read_state(host.directory).safe_before_ms == safe_ms
    assert min(row[1] for stream in STREAMS for row in host.rows(stream) if row[0] > 5) > safe_ms


def test_a_flush_that_stops_at_its_bound_holds_the_rest(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipper, "MAX_ROWS", 7)
    fill(host, 10)
    host.flush()
    assert read_state(host.directory).safe_before_ms == host.rows(REMOVALS)[7][1]


def test_an_emptied_table_goes_on_counting_and_leaves_a_gap(host: Host, centre: Centre) -> None:
    fill(host, 5)
    host.flush()
    fill(host, 4)
    host.run("DELETE FROM deletions")
    host.flush()
    fill(host, 2)
    host.flush()
    assert centre.epochs(host) == ["first"]
    assert centre.gaps(host) == [("removals", 6, 9)]
    assert [row[0] for row in centre.rows(REMOVALS, host)] == [1, 2, 3, 4, 5, 10, 11]


def test_rows_of_a_clock_in_2036_are_kept_apart_and_stop_nothing(
    host: Host, centre: Centre
) -> None:
    fill(host, 2)
    for stream in STREAMS:
        host.write(stream, 3, 2_090_000_000_000)
    for stream in STREAMS:
        host.write(stream, 1, 1_000_000_000_000)
    host.flush()
    fill(host, 2)
    host.flush()
    assert centre.gaps(host) == []
    apart = centre.ask("SELECT stream, id FROM so1.out_of_range ORDER BY 1, 2")
    assert apart == [(one, at) for one in sorted(s.name for s in STREAMS) for at in (3, 4, 5, 6)]
    for stream in STREAMS:
        assert [row[0] for row in centre.rows(stream, host)] == [1, 2, 7, 8]
    (content,) = centre.ask(
        "SELECT content FROM so1.out_of_range WHERE stream = 'removals' AND id = 3"
    )[0]
    (row,) = host.run("SELECT * FROM deletions WHERE id = 3")
    assert content["decision"] == row[2]
    assert content["held_mb"] == row[9]
    assert host.flush().rows == 0


def test_an_older_agents_history_ships_what_it_has(host: Host, centre: Centre) -> None:
    for (view,) in host.run("SELECT name FROM sqlite_master WHERE type = 'view'"):
        host.run(f"DROP VIEW {view}")
    for stream in STREAMS:
        if stream is not REMOVALS:
            host.run(f"DROP TABLE {stream.table}")
    host.run("ALTER TABLE deletions DROP COLUMN available_after_mb")
    host.write(STREAMS[0], 0, now_ms())
    host.run(
        "INSERT INTO deletions (timestamp, decision, container_id, container_name, image, tier,"
        " rank, reason, held_mb, cpu_usage, outcome, duration_ms, error, available_before_mb)"
        " VALUES (?, 'd', 'c', 'n', 'i', 'low', 1, 'exited', 1.5, 0, 'removed', 5, '', 7)",
        now_ms(),
    )
    assert host.flush().rows == 1
    (row,) = centre.rows(REMOVALS, host)
    after_mb = [one.name for one in REMOVALS.columns].index("available_after_mb") + 2
    assert (row[2], row[9], row[after_mb]) == ("d", 1.5, None)
    assert host.flush().rows == 0


def test_an_agent_older_than_the_centre_leaves_new_columns_empty(
    host: Host, centre: Centre, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    older = replace(STOPS, columns=())
    monkeypatch.setattr(shipper, "STREAMS", (older,))
    host.write(STOPS, 2, now_ms())
    host.flush()
    assert [row[2] for row in centre.rows(STOPS, host)] == [None, None]


def before_the_rules(centre: Centre) -> None:
    """The centre as an agent of before the rules made it."""
    from dataclasses import replace

    from agent.fleet import entrance
    from agent.fleet.schema import OWNER

    older = replace(REMOVALS, columns=REMOVALS.columns[:-3])
    centre.ask("DROP FUNCTION so1_api.ingest_removals")
    for name in ("action", "rule", "engine"):
        centre.ask(f"ALTER TABLE so1.removals DROP COLUMN {name}")
    centre.ask(entrance.ingest(older))
    centre.ask(f"ALTER FUNCTION so1_api.ingest_removals OWNER TO {OWNER}")
    centre.ask("GRANT EXECUTE ON FUNCTION so1_api.ingest_removals TO so1_agent")


def test_a_centre_of_before_the_rules_takes_what_it_knows_and_init_brings_it_up_to_date(
    host: Host, centre: Centre
) -> None:
    from agent.fleet import centre as administration
    from agent.fleet.connection import connected

    before_the_rules(centre)
    fill(host, 2)
    host.flush()
    assert centre.ask("SELECT count(*), min(error) FROM so1.removals")[0][0] == 2
    with connected(centre.dsn()) as connection:
        administration.initialise(connection)
    assert centre.ask("SELECT DISTINCT rule FROM so1.removals") == [(None,)]
    host.write(REMOVALS, 1, now_ms())
    host.flush()
    (sent,) = host.rows(REMOVALS)[2:]
    assert centre.rows(REMOVALS, host)[2] == sent
    assert sent[-2].startswith("x rule")


def test_a_wrong_secret_ships_nothing_and_says_what_to_do(host: Host, centre: Centre) -> None:
    fill(host)
    with pytest.raises(FleetError) as raised:
        flush(host.database, host.dsn, Identity(host.installation, "x" * 43))
    assert "not known here" in raised.value.message
    assert "enroll" in raised.value.hint.lower()
    assert centre.rows(REMOVALS, host) == []
    assert "not known here" in read_state(host.directory).problem
    host.flush()
    same(host, centre)


def test_a_centre_that_is_away_is_one_sentence_and_the_rows_wait(host: Host) -> None:
    fill(host)
    with pytest.raises(FleetError) as raised:
        flush(
            host.database,
            "host=/nonexistent user=so1_agent dbname=so1",
            Identity(host.installation, host.secret),
        )
    assert "cannot be reached" in raised.value.message
    state = read_state(host.directory)
    assert state.problem
    assert state.shipped_ms == 0
    assert host.flush().rows == 5 * len(STREAMS)


def test_a_host_that_was_forgotten_and_enrolled_again_ships_everything_anew(
    host: Host, centre: Centre
) -> None:
    from agent.fleet import centre as administration
    from agent.fleet.connection import connected

    fill(host, 4)
    host.flush()
    with connected(centre.dsn()) as connection:
        assert administration.forget(connection, host.installation) == 4 * len(STREAMS)
        assert [centre.rows(stream, host) for stream in STREAMS] == [[]] * len(STREAMS)
        with pytest.raises(FleetError):
            host.flush()
        host.secret = administration.enroll(connection, host.installation, "again")
    host.flush()
    same(host, centre)
    assert centre.epochs(host) == ["begun again"]


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.full)])
def test_a_centre_killed_while_hosts_ship_loses_and_doubles_nothing(
    host: Host, centre: Centre, kills: int
) -> None:
    import threading

    server = centre.server
    ending = threading.Event()
    failures: list[str] = []

    def ship() -> None:
        while not ending.is_set():
            fill(host, 20)
            try:
                host.flush()
            except FleetError as error:
                failures.append(error.message)
                time.sleep(0.05)

    thread = threading.Thread(target=ship)
    thread.start()
    try:
        for _ in range(kills):
            rows = centre.rows(HOSTS, host)
            while len(centre.rows(HOSTS, host)) == len(rows):
                time.sleep(0.02)
            server.kill()
            server.start()
    finally:
        ending.set()
        thread.join(60)
    host.flush()
    same(host, centre)
    assert centre.epochs(host) == ["first"]
    assert centre.gaps(host) == []


def test_containers_of_hostile_names_arrive_as_they_are(host: Host, centre: Centre) -> None:
    host.run(
        "INSERT INTO rollup_containers (id, container_id, container_name, image, tier)"
        " VALUES (999, 'abc', ?, ?, 'low')",
        '\'); DROP SCHEMA so1; --\n%s\\x00 {1,"2"} NULL',
        "y" * 5000,
    )
    host.write(CONTAINERS, 1, now_ms())
    host.run("UPDATE rollup_container_5m SET container = 999, ticks = 15")
    host.flush()
    (row,) = centre.rows(CONTAINERS, host)
    assert row[3] == '\'); DROP SCHEMA so1; --\n%s\\x00 {1,"2"} NULL'
    assert row[4] == "y" * 1024
    assert row[6] == 15
