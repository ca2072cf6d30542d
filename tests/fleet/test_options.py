"""What a host ships only where `[fleet]` asks for it: minutes, and processes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from agent.fleet.streams import (
    CONTAINERS,
    CONTAINERS_1M,
    HOSTS_1M,
    OOM_KILLS,
    OPTIONAL,
    PROCESSES_5M,
    STREAMS,
)
from agent.store.minutes import Minutes
from tests.unit.store.builders import a_tick, open_store

if TYPE_CHECKING:
    from tests.fleet.conftest import Centre
    from tests.fleet.host import Host

SECOND_NS = 10**9


def run_ticks(host: Host, minutes: int, ago_s: int) -> None:
    """What an agent stores in so many minutes that ended `ago_s` ago."""
    began_ns = time.time_ns() - (ago_s + minutes * 60) * SECOND_NS
    with open_store(host.database) as store:
        store.minutes = Minutes(time.monotonic_ns)
        for number in range(minutes * 3 + 1):
            store.write_tick(a_tick(began_ns + number * 20 * SECOND_NS))


def test_minutes_and_processes_arrive_each_once_and_only_where_asked_for(
    centre: Centre, host: Host
) -> None:
    run_ticks(host, 13, 1800)
    host.flush()
    for stream in OPTIONAL:
        assert centre.rows(stream, host) == []
    host.flush(("minutes",))
    assert 12 <= len(centre.rows(HOSTS_1M, host)) <= 13
    assert centre.rows(PROCESSES_5M, host) == []
    host.flush(("minutes", "processes"))
    # Off, and on again: what was closed meanwhile comes once.
    run_ticks(host, 11, 60)
    host.flush()
    seen = len(centre.rows(HOSTS_1M, host))
    host.flush(("minutes", "processes"))
    assert len(centre.rows(HOSTS_1M, host)) > seen
    for stream in (*STREAMS, *OPTIONAL):
        assert centre.rows(stream, host) == host.rows(stream), stream.name
    assert {row[-1] for row in centre.rows(CONTAINERS_1M, host)} <= {None, "docker"}
    assert centre.rows(PROCESSES_5M, host)
    assert centre.gaps(host) == []
    assert centre.epochs(host) == ["first"]


def test_a_copy_of_a_disk_ships_nothing_twice_of_what_is_off_meanwhile(
    centre: Centre, host: Host
) -> None:
    options = ("minutes", "processes")
    for stream in OPTIONAL:
        host.write(stream, 3, time.time_ns() // 10**6 - 60_000)
    host.flush(options)
    old = host.copy(host.directory.parent / "old")
    for stream in (*STREAMS, *OPTIONAL):
        host.write(stream, 2, time.time_ns() // 10**6 - 60_000)
    host.flush(options)
    # The old copy comes back with the options off, and then on.
    for stream in (*STREAMS, *OPTIONAL):
        old.write(stream, 4, time.time_ns() // 10**6 - 30_000, "other")
    old.flush()
    assert centre.epochs(host)[-1] in ("fork", "begun again")
    old.flush(options)
    for stream in OPTIONAL:
        found = centre.rows(stream, host)
        assert found == sorted([*host.rows(stream), *old.rows(stream)[3:]], key=found.index)
        assert len(found) == 5 + 4


def test_containers_of_two_engines_with_one_name_and_id_are_two_at_the_centre(
    centre: Centre, host: Host
) -> None:
    for table in ("rollup_containers", "oom_kills"):
        if not any(row[1] == "engine" for row in host.run(f"PRAGMA table_info({table})")):
            host.run(f"ALTER TABLE {table} ADD COLUMN engine TEXT NOT NULL DEFAULT 'docker'")
    for stream in (CONTAINERS, OOM_KILLS):
        host.write(stream, 2, time.time_ns() // 10**6 - 60_000)
    host.run("UPDATE rollup_containers SET container_id = 'a', container_name = 'web'")
    host.run("UPDATE rollup_containers SET engine = 'podman' WHERE id = 1")
    host.run("UPDATE oom_kills SET engine = 'podman' WHERE id = 2")
    host.flush()
    place = [one.name for one in CONTAINERS.columns].index("engine") + 2
    found = {(*row[2:4], row[place]) for row in centre.rows(CONTAINERS, host)}
    assert found == {("a", "web", "podman"), ("a", "web", "docker")}
    assert centre.rows(OOM_KILLS, host) == host.rows(OOM_KILLS)
    assert centre.rows(OOM_KILLS, host)[1][-1] == "podman"
