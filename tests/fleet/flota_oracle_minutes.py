"""What the panels of minutes and of processes of «Monitor de Flota» should show."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from tests.fleet.flota_oracle import Seen, Table
from tests.fleet.flota_world import DAY, HOUR, MINUTE, Member, Row


def _point(seen: Seen) -> int:
    return max(seen.interval_ms, MINUTE)


def _inside(seen: Seen, rows: list[Row]) -> list[Row]:
    """The minutes that count: any of which lies in the range, and not too long before its end."""
    oldest = max(seen.from_ms, seen.to_ms - (DAY if seen.chosen else HOUR) + MINUTE - 1)
    return [
        row for row in rows if oldest < row["timestamp"] + MINUTE and row["timestamp"] <= seen.to_ms
    ]


def hosts(seen: Seen) -> Table:
    point = _point(seen)
    sums: dict[tuple[int, int], Counter[str]] = defaultdict(Counter)
    for member in seen.members():
        for row in _inside(seen, member.host_minutes):
            for name in ("ticks", "cpu_usage_sum", "used_ram_sum"):
                sums[member.number, row["timestamp"] // point * point][name] += row[name]
    members = {one.number: one for one in seen.members()}
    found: Table = []
    for (number, at), one in sums.items():
        member = members[number]
        total = one["ticks"] * member.hosts[0]["total_ram_max"]
        found.append((at, f"{seen.name(member)}: CPU", one["cpu_usage_sum"] / one["ticks"]))
        found.append((at, f"{seen.name(member)}: RAM", one["used_ram_sum"] * 100 / total))
    return sorted(found)


def _stacked(
    parts: Iterable[tuple[Member, int, str, float]], ticks: Counter[tuple[int, int]]
) -> Table:
    """By point and name, per tick of the host; all but the 12 largest names together."""
    made: Counter[tuple[int, str]] = Counter()
    for member, at, name, value in parts:
        made[at, name] += value / ticks[member.number, at]  # type: ignore[assignment]
    sums: Counter[str] = Counter()
    for (_, name), value in made.items():
        sums[name] += value
    del sums["(otros)"]
    kept = {name for name, _ in sorted(sums.items(), key=lambda one: (-one[1], one[0]))[:12]}
    shown: Counter[tuple[int, str]] = Counter()
    for (at, name), value in made.items():
        shown[at, name if name in kept else "(otros)"] += value
    return sorted((at, name, value) for (at, name), value in shown.items())


def held(seen: Seen) -> Table:
    point = _point(seen)
    ticks: Counter[tuple[int, int]] = Counter()
    parts = []
    for member in seen.members():
        for row in _inside(seen, member.host_minutes):
            ticks[member.number, row["timestamp"] // point * point] += row["ticks"]
        for row in _inside(seen, member.container_minutes):
            name = row["container_name"] if row["container_id"] else "(otros)"
            parts.append((member, row["timestamp"] // point * point, name, row["held_mb_sum"]))
    return _stacked(parts, ticks)


def process_cpu(seen: Seen) -> Table:
    point = seen.point("process")
    ticks: Counter[tuple[int, int]] = Counter()
    for member, at, row in seen.hosts("process"):
        ticks[member.number, at // point * point] += row["ticks"]
    parts = [
        (
            member,
            at // point * point,
            row["name"] if row["pid"] else "(otros)",
            row["cpu_usage_sum"],
        )
        for member, at, row in seen.processes()
    ]
    return _stacked(parts, ticks)


def processes(seen: Seen) -> dict[tuple[Any, ...], tuple[float, ...]]:
    """By host, name and number: largest and mean memory, mean and largest CPU."""
    many: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for member, _, row in seen.processes():
        if row["pid"]:
            many[seen.name(member), row["name"], float(row["pid"])].append(row)
    return {
        key: (
            max(row["ram_usage_max"] for row in rows),
            sum(row["ram_usage_sum"] for row in rows) / sum(row["ticks"] for row in rows),
            sum(row["cpu_usage_sum"] for row in rows) / sum(row["ticks"] for row in rows),
            max(row["cpu_usage_max"] for row in rows),
        )
        for key, rows in many.items()
    }
