"""Whole agents' histories through trouble: an hour without a centre, a full disk, a clock, damage.

The rows are written by the agent's own store, its retention and its closing of buckets included.
"""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from agent.fleet import centre as administration
from agent.fleet.connection import connected
from agent.fleet.errors import FleetError
from agent.fleet.local import read_state
from agent.fleet.streams import CONTAINERS, HOSTS, HOSTS_1H, REMOVALS, STREAMS
from tests.fleet.conftest import Centre
from tests.fleet.host import Host, make_history
from tests.fleet.postgres import Server, server, user
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
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agent.store.store import Store

HOUR_NS = 3600 * SECOND_NS


def same(host: Host, centre: Centre) -> None:
    for stream in STREAMS:
        assert centre.rows(stream, host) == host.rows(stream), stream.name


def tick_for(store: Store, clock: FakeClock, span_ns: int, step_ns: int = 20 * SECOND_NS) -> None:
    """Ticks with a container and a removal each."""
    for number in range(span_ns // step_ns):
        clock.pass_time(step_ns)
        one = totals(a_container(f"web-{number % 3}", f"{number % 3:064x}"), held_kb=number)
        store.write_tick(a_tick(clock.wall_ns(), totals=(one,), passes=(a_pass(),)))


def test_an_hour_without_a_centre_costs_nothing(host: Host, centre: Centre) -> None:
    # From half past an hour, so that two hours end meanwhile, whenever the test runs.
    clock = FakeClock((time.time_ns() // HOUR_NS - 4) * HOUR_NS + HOUR_NS // 2)
    with open_store(host.database, clock, history_days=1) as store:
        store.hold_ms = lambda: read_state(host.directory).safe_before_ms
        tick_for(store, clock, HOUR_NS)
        host.flush()
        away = host.dsn.replace(f"port={centre.server.port}", "port=1")
        assert away != host.dsn
        here, host.dsn = host.dsn, away
        for _ in range(12):
            tick_for(store, clock, HOUR_NS // 12)
            with pytest.raises(FleetError):
                host.flush()
        assert "cannot be reached" in read_state(host.directory).problem
        host.dsn = here
        tick_for(store, clock, HOUR_NS // 12)
        host.flush()
        same(host, centre)
        assert len(host.rows(REMOVALS)) == 375
        assert len(host.rows(HOSTS_1H)) == 2
    assert centre.epochs(host) == ["first"]
    assert centre.gaps(host) == []


@pytest.mark.full
def test_retention_that_the_size_forces_past_the_cursor_is_a_gap_of_exactly_those_rows(
    host: Host, centre: Centre
) -> None:
    clock = FakeClock(time.time_ns() - 4 * HOUR_NS)
    many = tuple(totals(a_container(f"c{n}", f"{n:064x}")) for n in range(900))
    with open_store(host.database, clock, max_database_mb=16) as store:
        store.hold_ms = lambda: read_state(host.directory).safe_before_ms
        tick_for(store, clock, 600 * SECOND_NS)
        host.flush()
        before = {stream.name: host.rows(stream) for stream in STREAMS}
        for _ in range(260):
            clock.pass_time(20 * SECOND_NS)
            store.write_tick(a_tick(clock.wall_ns(), totals=many, passes=(a_pass(),), processes=40))
        host.flush()
    gaps: dict[str, set[int]] = {stream.name: set() for stream in STREAMS}
    for stream_name, first, last in centre.gaps(host):
        gaps[stream_name] |= set(range(first, last + 1))
    assert gaps["removals"]
    for stream in STREAMS:
        arrived = {row[0]: row for row in centre.rows(stream, host)}
        here = {row[0]: row for row in (*before[stream.name], *host.rows(stream))}
        # Each row is there once, or named as missing; and none is both.
        assert arrived == here, stream.name
        assert set(range(1, max(here, default=0) + 1)) == arrived.keys() | gaps[stream.name]
        assert not arrived.keys() & gaps[stream.name]


def test_a_damaged_database_is_quarantined_and_the_new_one_is_shipped_beside_the_old(
    host: Host, centre: Centre
) -> None:
    clock = FakeClock(time.time_ns() - 2 * HOUR_NS)
    with open_store(host.database, clock) as store:
        tick_for(store, clock, 1200 * SECOND_NS)
    host.flush()
    before = {stream.name: host.rows(stream) for stream in STREAMS}
    whole = host.database.read_bytes()
    host.database.write_bytes(b"\0" * 4096 + os.urandom(len(whole) - 4096))
    with open_store(host.database, clock) as store:
        tick_for(store, clock, 1800 * SECOND_NS)
        host.flush()
        for stream in STREAMS:
            assert centre.rows(stream, host) == before[stream.name] + host.rows(stream)
    assert centre.epochs(host) == ["first", "begun again"]
    assert len(list(host.directory.glob("metrics.db*"))) > 1


@pytest.mark.parametrize("step_h", [-3, 2, 24 * 365 * 10], ids=["back", "forth", "into 2036"])
def test_a_clock_that_is_stepped_loses_and_doubles_nothing(
    host: Host, centre: Centre, step_h: int
) -> None:
    clock = FakeClock(time.time_ns() - 6 * HOUR_NS)
    with open_store(host.database, clock) as store:
        tick_for(store, clock, 900 * SECOND_NS)
        host.flush()
        clock.step_wall(step_h * HOUR_NS)
        tick_for(store, clock, 900 * SECOND_NS)
        host.flush()
        clock.step_wall(-step_h * HOUR_NS)
        tick_for(store, clock, 900 * SECOND_NS)
        host.flush()
        for stream in STREAMS:
            apart = centre.ask(
                "SELECT id, timestamp FROM so1.out_of_range WHERE stream = %s", stream.name
            )
            arrived = [row[:2] for row in centre.rows(stream, host)]
            assert sorted([*arrived, *apart]) == [row[:2] for row in host.rows(stream)]
            if stream is REMOVALS:
                # The store's timestamps never fall: what follows 2036 is of 2036 too.
                assert len(apart) == (90 if step_h > 1000 else 0)
    assert centre.gaps(host) == []
    assert centre.epochs(host) == ["first"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Server, Centre, Path]]:
    """A centre whose tables are on a file system of 40 MB."""
    if os.geteuid() != 0:
        pytest.skip("needs root, for a file system of its own")
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(data: Path) -> None:
        where = data.parent / "disk"
        where.mkdir()
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size=40m,uid={_uid()},mode=0700", "none", str(where)],
            check=True,
        )

    with server(mount) as one:
        where = one.directory / "disk"
        try:
            one.ask(f"CREATE TABLESPACE small LOCATION '{where}'", database="postgres")
            one.ask("CREATE DATABASE small TABLESPACE small", database="postgres")
            made = Centre(one, "small", "")
            with connected(made.dsn()) as connection:
                made.password = administration.initialise(connection, 2, 2).password
            yield one, made, where
        finally:
            one.stop("immediate")
            subprocess.run(["umount", str(where)], check=True)


def _uid() -> int:
    import pwd

    return pwd.getpwnam(user()).pw_uid


def test_a_centre_whose_disk_is_full_takes_whole_calls_or_none(
    small_disk: tuple[Server, Centre, Path], tmp_path: Path
) -> None:
    _, centre, disk = small_disk
    host = Host(tmp_path / "host", "a" * 32, dsn=centre.dsn("so1_agent", centre.password))
    make_history(host.database)
    with connected(centre.dsn()) as connection:
        host.secret = administration.enroll(connection, host.installation, "web-1")

    def write(count: int) -> None:
        for stream in (REMOVALS, HOSTS, CONTAINERS):
            host.write(stream, count, time.time_ns() // 10**6 - 60_000)

    write(50)
    host.flush()
    free = os.statvfs(disk)
    (disk / "ballast").write_bytes(bytes((free.f_bavail - 40) * free.f_frsize))
    write(1500)
    with pytest.raises(FleetError) as raised:
        host.flush()
    assert "out of disk" in raised.value.hint
    for stream in (REMOVALS, HOSTS, CONTAINERS):
        arrived = centre.rows(stream, host)
        assert arrived == host.rows(stream)[: len(arrived)]
    assert "No space left" in read_state(host.directory).problem
    write(10)
    with pytest.raises(FleetError):
        host.flush()
    (disk / "ballast").unlink()
    host.flush()
    same(host, centre)
    assert centre.epochs(host) == ["first"]
    assert centre.gaps(host) == []


def test_a_history_with_buckets_of_all_lengths_arrives_whole(
    new_host: Callable[..., Host], centre: Centre
) -> None:
    host = new_host()
    clock = FakeClock((time.time_ns() // 86_400_000_000_000 - 3) * 86_400_000_000_000)
    with open_store(host.database, clock) as store:
        tick_for(store, clock, 50 * HOUR_NS, 300 * SECOND_NS)
    host.flush()
    same(host, centre)
    assert [len(host.rows(stream)) for stream in STREAMS if stream.name.startswith("host")] == [
        *(599, 50, 2)
    ]
