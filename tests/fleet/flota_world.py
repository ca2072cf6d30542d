"""A fleet as a centre holds it, made from plain lists that an oracle can add up by itself.

Hours and days are folded here, not by the agent: a dashboard's figures from buckets have to be
those of the rows of 5 minutes.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent.fleet.streams import ALL_STREAMS

if TYPE_CHECKING:
    import psycopg

Row = dict[str, Any]

MINUTE, FIVE, HOUR, DAY = 60_000, 300_000, 3_600_000, 86_400_000
EPOCH = "00000000-0000-4000-8000-0000000000{:02d}"


@dataclass(slots=True)
class Member:
    """One host: its rows of 5 minutes, and what else the centre knows of it."""

    installation: str
    name: str
    number: int
    seen_s: int | None
    """Seconds since its last call."""
    until_ms: int
    """Its rows end here."""
    hosts: list[Row] = field(default_factory=list)
    containers: list[Row] = field(default_factory=list)
    removals: list[Row] = field(default_factory=list)
    kills: list[Row] = field(default_factory=list)
    """None of a host whose agent is older: its containers' counts are all there is."""
    stops: list[Row] = field(default_factory=list)
    host_minutes: list[Row] = field(default_factory=list)
    """These and the next two only of hosts that were asked for them."""
    container_minutes: list[Row] = field(default_factory=list)
    processes: list[Row] = field(default_factory=list)
    """Of 5 minutes."""

    @property
    def until_1h(self) -> int:
        return self.until_ms // HOUR * HOUR

    @property
    def until_1d(self) -> int:
        return self.until_ms // DAY * DAY


@dataclass(slots=True)
class Fleet:
    now_ms: int
    members: list[Member]
    breaks: list[tuple[str, int, str, str, int | None, int | None]] = field(default_factory=list)
    """Installation, when, what, stream, first and last id."""


def make_fleet(now_ms: int) -> Fleet:
    """Four hosts over nine days: one unverified, one in conflict, one silent, one never seen."""
    chance = random.Random(7)
    members = [
        Member("a" * 32, "web", 0, 60, now_ms),
        Member("b" * 32, "web", 1, 120, now_ms),
        Member("c" * 32, "db-1", 2, 7200, now_ms - 7_200_000),
        Member("d" * 32, "new-1", 3, None, 0),
    ]
    for member in members[:3]:
        _fill(member, now_ms, chance)
    for member in members[:2]:
        _fill_minutes(member, now_ms, random.Random(member.number))
        _fill_processes(member, random.Random(member.number))
    fleet = Fleet(now_ms, members)
    fleet.breaks = [
        ("b" * 32, now_ms - 5_400_000, "fork", "", None, None),
        ("b" * 32, now_ms - 40 * DAY, "begun again", "", None, None),
        ("c" * 32, now_ms - 3_600_000, "hueco", "removals", 5, 9),
        ("c" * 32, now_ms - 3_600_000, "hueco", "host_5m", 2, 2),
    ]
    return fleet


def _times(member: Member, now_ms: int) -> Iterator[int]:
    at = (now_ms - 9 * DAY) // FIVE * FIVE
    while at + FIVE <= member.until_ms:
        yield at
        at += FIVE if now_ms - at < 9 * HOUR else HOUR


def _fill(member: Member, now_ms: int, chance: random.Random) -> None:
    number = member.number
    for at in _times(member, now_ms):
        ticks = chance.randint(1, 15)
        checked = ticks if number != 2 else 0
        member.hosts.append(
            {
                "timestamp": at,
                "first_ms": at,
                "last_ms": at + 280_000,
                "ticks": ticks,
                "deleted_count": 0,
                "psutil_ticks": 0,
                "source": "modules",
                "total_ram_max": (number + 1) * 4_000_000,
                "used_ram_sum": ticks * chance.randint(1, 3_000_000),
                "used_ram_max": 9,
                "available_ram_sum": 5,
                "available_ram_min": 1,
                "cpu_usage_sum": ticks * chance.uniform(0, 90),
                "cpu_usage_max": 95.0,
                "cpu_count_max": 4,
                "load1_sum": 1.0,
                "load1_max": 1.0,
                "process_count_sum": 9,
                "process_count_max": 9,
                "tick_ms_sum": 9,
                "tick_ms_max": 9,
                "container_count_n": ticks,
                "container_count_sum": ticks * 3,
                "container_count_max": 3,
                "psi_memory_n": 0,
                "psi_memory_sum": None,
                "psi_memory_max": None,
                "checks_n": checked,
                "agree_sum": checked * 7,
                "unverified_sum": checked * (number == 0),
                "conflict_sum": (number == 1) * chance.randint(0, 2),
                "conflict_ticks": (number == 1) * chance.randint(0, 2),
                "unverified_ticks": 0,
                "events_lost": (number == 1) * chance.randint(0, 5),
            }
        )
        for place, name in enumerate(("cache", "api", "job-ñ'\"", "(others)", "api")):
            if place == 4 and number != 1:
                continue
            held = ticks * chance.uniform(0, 500) * (place + 1)
            cpu = ticks * chance.uniform(0, 60)
            member.containers.append(
                {
                    "timestamp": at,
                    "container_name": name,
                    "image": f"image-{place}",
                    # Another engine's, of the same name and id.
                    "container_id": "" if place == 3 else f"{number}{place % 3}" * 32,
                    "tier": ("low", "high", "none")[place % 3],
                    "ticks": ticks,
                    "held_mb_sum": held,
                    "held_mb_max": held / ticks * 1.5,
                    "held_mb_last": held / ticks,
                    "rss_mb_sum": 1.0,
                    "rss_mb_max": 1.0,
                    "cache_mb_n": 0,
                    "cache_mb_sum": None,
                    "cpu_usage_sum": cpu,
                    "cpu_usage_max": 99.0,
                    "cpu_usage_last": 1.0,
                    "cpu_short_lived_n": 0,
                    "cpu_short_lived_sum": None,
                    "cpu_unexplained_n": 0,
                    "cpu_unexplained_sum": None,
                    "processes_max": 3,
                    "starts": 0,
                    "exits": 0,
                    "oom_kills": int(chance.random() < 0.05 and place < 3),
                    "engine": "podman" if place == 4 else None if number == 2 else "docker",
                }
            )
    for turn in range(300):
        member.removals.append(
            {
                "timestamp": member.until_ms - turn * turn * 7_000 - 1,
                "decision": f"d{turn}",
                "container_id": f"{turn:064x}",
                "container_name": f"c{turn}",
                "image": "i",
                "tier": chance.choice(("low", "high")),
                "rank": turn,
                "reason": chance.choice(("excess-low", "excess-high", "exited", "stop", "rule")),
                "held_mb": chance.uniform(0, 90),
                "cpu_usage": 1.0,
                "duration_ms": 4,
                "outcome": chance.choice(("removed", "removed", "failed", "gone")),
                "error": "",
                "action": "remove",
                "engine": "docker",
                "rule": f"rule-{turn % 2}",
                "available_before_mb": 1.0,
                "available_after_mb": 2.0,
            }
        )
        if member.removals[-1]["outcome"] == "gone" and turn % 2:
            member.removals[-1]["error"] = "not governed any more"  # and so it is there still
    member.removals.reverse()
    for turn in range(60 if number < 2 else 0):
        place = turn % 4
        member.kills.append(
            {
                "timestamp": member.until_ms - turn * turn * 200_000 - 5,
                "pid": 100 + turn,
                "process_name": ("java", "cc1", "")[turn % 3],
                "container_id": f"{number}{place}" * 32 if place < 3 else "",
                "container_name": ("cache", "api", "job-ñ'\"", "")[place],
                "image": f"image-{place}" if place < 3 else "",
                "cause": "limit" if place < 3 else "host",
                "anon_mb": chance.uniform(1, 900),
                "file_mb": chance.uniform(0, 9),
                "shmem_mb": 0.5,
                "engine": "docker",
            }
        )
    member.kills.reverse()
    member.stops = [
        {"timestamp": now_ms - hours * HOUR, "until": now_ms - hours * HOUR + 90_000}
        for hours in (150, 30, 3)
    ]


def _fill_minutes(member: Member, now_ms: int, chance: random.Random) -> None:
    """Every minute of the last two hours, and one in ten of two days."""
    for at in range(now_ms // MINUTE * MINUTE - 2 * DAY, member.until_ms - MINUTE, MINUTE):
        if now_ms - at > 2 * HOUR and at % (10 * MINUTE):
            continue
        ticks = chance.randint(1, 3)
        host = {**member.hosts[-1], "timestamp": at, "first_ms": at, "last_ms": at, "ticks": ticks}
        host["used_ram_sum"] = ticks * chance.randint(1, 3_000_000)
        host["cpu_usage_sum"] = ticks * chance.uniform(0, 90)
        member.host_minutes.append(host)
        for one in member.containers[-4 - member.number :]:
            held = ticks * chance.uniform(0, 500)
            member.container_minutes.append(
                {**one, "timestamp": at, "ticks": ticks, "held_mb_sum": held}
            )


def _fill_processes(member: Member, chance: random.Random) -> None:
    """Fourteen names, two processes of one of them, and the others."""
    for host in member.hosts:
        for place in range(16):
            ticks = chance.randint(1, host["ticks"])
            ram, cpu = (ticks * chance.uniform(0, most) for most in (400, 90))
            member.processes.append(
                {
                    "timestamp": host["timestamp"],
                    "pid": 0 if place == 15 else 400 + place,
                    "name": "(others)" if place == 15 else f"work'er-{place % 14}",
                    "ticks": ticks,
                    "ram_usage_sum": ram,
                    "ram_usage_max": ram / ticks * 1.25,
                    "cpu_usage_sum": cpu,
                    "cpu_usage_max": cpu / ticks * 1.5,
                    "ram_usage_last": ram / ticks,
                    "cpu_usage_last": cpu / ticks,
                }
            )


def folded(rows: list[Row], bucket: int, until: int, keys: tuple[str, ...]) -> list[Row]:
    """Closed buckets before `until`."""
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        if row["timestamp"] < until:
            at = row["timestamp"] // bucket * bucket
            groups[(at, *(row[key] for key in keys))].append(row)
    made = []
    for (at, *_), many in groups.items():
        last = dict(many[-1])
        for name in last:
            values = [one[name] for one in many if one[name] is not None]
            if name.endswith("_max") or name in ("source", "last_ms"):
                last[name] = max(values, default=None)
            elif name.endswith("_min") or name == "first_ms":
                last[name] = min(values, default=None)
            elif name not in keys and not name.endswith("_last"):
                last[name] = sum(values) if values else None
        made.append({**last, "timestamp": at})
    return sorted(made, key=lambda row: row["timestamp"])


def fill_centre(fleet: Fleet, connection: psycopg.Connection[Any]) -> None:
    """Puts the fleet into an empty centre, past its entrance."""
    container = ("container_id", "container_name", "image", "tier", "engine")
    for member in fleet.members:
        epoch = EPOCH.format(member.number)
        connection.execute(
            "INSERT INTO so1.installations (installation, secret_hash, name, seen_at, version)"
            " VALUES (%s, '', %s, clock_timestamp() - make_interval(secs => %s), %s)",
            (member.installation, member.name, member.seen_s, "1.1"),
        )
        connection.execute(
            "INSERT INTO so1.epochs (installation, epoch, reason, began_at)"
            " VALUES (%s, %s, 'first', to_timestamp(0))",
            (member.installation, epoch),
        )
        rows = {
            "removals": member.removals,
            "oom_kills": member.kills,
            "stops": member.stops,
            "host_5m": member.hosts,
            "host_1h": folded(member.hosts, HOUR, member.until_1h, ()),
            "host_1d": folded(member.hosts, DAY, member.until_1d, ()),
            "container_5m": member.containers,
            "container_1h": folded(member.containers, HOUR, member.until_1h, container),
            "container_1d": folded(member.containers, DAY, member.until_1d, container),
            "host_1m": member.host_minutes,
            "container_1m": member.container_minutes,
            "process_5m": member.processes,
            "process_1h": folded(member.processes, HOUR, member.until_1h, ("pid", "name")),
            "process_1d": folded(member.processes, DAY, member.until_1d, ("pid", "name")),
        }
        for stream in ALL_STREAMS:
            names = [one.name for one in stream.columns]
            with connection.cursor().copy(
                f"COPY so1.{stream.name} (installation, epoch, id, timestamp, {', '.join(names)})"
                " FROM STDIN"
            ) as copy:
                for place, row in enumerate(rows.get(stream.name, []), start=1):
                    copy.write_row(
                        (
                            *(member.installation, epoch, place, row["timestamp"]),
                            *(row.get(name) for name in names),
                        )
                    )
            mine = rows.get(stream.name, [])
            last = mine[-1]["timestamp"] if mine else 0
            connection.execute(
                "INSERT INTO so1.cursors VALUES (%s, %s, %s, %s, %s)",
                (member.installation, epoch, stream.name, len(mine), last),
            )
    _break(fleet, connection)


def _break(fleet: Fleet, connection: psycopg.Connection[Any]) -> None:
    for place, (who, when, what, stream, first, last) in enumerate(fleet.breaks):
        if what == "hueco":
            connection.execute(
                "INSERT INTO so1.gaps VALUES (%s, %s, %s, %s, %s, 0, 0, to_timestamp(%s / 1000.0))",
                (who, EPOCH.format(0), stream, first, last, when),
            )
        else:
            connection.execute(
                "INSERT INTO so1.epochs VALUES (%s, %s, to_timestamp(%s / 1000.0), %s)",
                (who, EPOCH.format(90 + place), when, what),
            )
