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
from agent.fleet.local import alone, read_state, write_state
from agent.fleet.shipper import Identity, flush
from agent.fleet.streams import CONTAINERS, HOSTS, REMOVALS, STREAMS
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
