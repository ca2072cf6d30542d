"""What «Monitor de Flota» should show, added up in Python from the rows of 5 minutes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.fleet.flota_world import DAY, FIVE, HOUR, Fleet, Member, Row

Table = list[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Seen:
    """What somebody looks at."""

    fleet: Fleet
    from_ms: int
    to_ms: int
    interval_ms: int
    chosen: tuple[str, ...] = ()
    """Installations; all where empty."""
    top: int = 5

    @property
    def span(self) -> int:
        return self.to_ms - self.from_ms

    def limits(self, kind: str) -> tuple[int, int]:
        """The longest ranges that are read from 5 minutes and from hours."""
        if self.chosen:
            return DAY, 31 * DAY
        if kind == "process":
            return HOUR, DAY
        return (2 * HOUR, 2 * DAY) if kind == "container" else (DAY, 14 * DAY)

    def point(self, kind: str) -> int:
        fine, hours = self.limits(kind)
        least = DAY if self.span > hours else HOUR if self.span > fine else FIVE
        return max(self.interval_ms, least)

    def members(self) -> list[Member]:
        return [
            one for one in self.fleet.members if not self.chosen or one.installation in self.chosen
        ]

    def name(self, member: Member) -> str:
        same = [one for one in self.fleet.members if one.name == member.name]
        return member.name if len(same) == 1 else f"{member.name} {member.installation[:8]}"

    def inside(self, at: int) -> bool:
        return self.from_ms <= at <= self.to_ms

    def rows(self, member: Member, rows: list[Row], kind: str) -> Iterator[tuple[int, Row]]:
        """The rows that count, with the time of the bucket that they are read from."""
        fine, hours = self.limits(kind)
        for row in rows:
            bucket, oldest = FIVE, self.from_ms - FIVE + 1
            if self.span > fine:
                oldest = max(oldest, self.to_ms - 3 * HOUR)
            if self.span > fine and row["timestamp"] < member.until_1h:
                bucket, oldest = HOUR, self.from_ms - HOUR + 1
                if self.span > hours:
                    oldest = max(oldest, self.to_ms - 2 * DAY)
            if self.span > hours and row["timestamp"] < member.until_1d:
                bucket, oldest = DAY, self.from_ms - DAY + 1
            at = row["timestamp"] // bucket * bucket
            if oldest <= at <= self.to_ms:
                yield at, row

    def hosts(self, kind: str = "host") -> Iterator[tuple[Member, int, Row]]:
        for member in self.members():
            for at, row in self.rows(member, member.hosts, kind):
                yield member, at, row

    def processes(self) -> Iterator[tuple[Member, int, Row]]:
        for member in self.members():
            for at, row in self.rows(member, member.processes, "process"):
                yield member, at, row

    def containers(self) -> Iterator[tuple[Member, int, Row]]:
        for member in self.members():
            for at, row in self.rows(member, member.containers, "container"):
                yield member, at, row

    def removals(self) -> Iterator[tuple[Member, Row]]:
        for member in self.members():
            for row in member.removals:
                if self.inside(row["timestamp"]):
                    yield member, row

    def kills(self) -> Iterator[tuple[Member, int, Row, int]]:
        """Member, when, what is known of it, how many."""
        for member in self.members():
            for row in member.kills:
                if self.inside(row["timestamp"]):
                    yield member, row["timestamp"], row, 1
            if not member.kills:
                for at, row in self.rows(member, member.containers, "container"):
                    if row["oom_kills"]:
                        yield member, at, row, row["oom_kills"]

    def points(self, kind: str) -> range:
        point = self.point(kind)
        return range(self.from_ms // point, self.to_ms // point + 1)


def _sums(
    found: Iterator[tuple[Member, int, Row]], key: Callable[[Member, int, Row], Any], *names: str
) -> dict[Any, Counter[str]]:
    made: dict[Any, Counter[str]] = defaultdict(Counter)
    for member, at, row in found:
        for name in names:
            made[key(member, at, row)][name] += row[name] or 0
    return made


def states(seen: Seen) -> Table:
    ages = [one.seen_s for one in seen.members()]
    return [
        (
            float(sum(age is not None and age <= 900 for age in ages)),
            float(sum(age is not None and age > 900 for age in ages)),
            float(sum(age is None for age in ages)),
        )
    ]


def events(seen: Seen) -> Table:
    ends = Counter(row["outcome"] for _, row in seen.removals())
    kills = sum(number for *_, number in seen.kills())
    who = {one.installation for one in seen.members()}
    breaks = Counter(one[2] for one in seen.fleet.breaks if one[0] in who and seen.inside(one[1]))
    counts = (ends["removed"], ends["failed"], kills, breaks["fork"], breaks["hueco"])
    return [tuple(map(float, counts))]


def totals(seen: Seen) -> Table:
    names = ("ticks", "used_ram_sum", "container_count_sum", "container_count_n")
    sums = _sums(seen.hosts(), lambda member, at, _: (member.number, at), *names)
    last: dict[int, tuple[int, Counter[str]]] = {}
    for (number, at), one in sums.items():
        if number not in last or at > last[number][0]:
            last[number] = (at, one)
    total = {one.number: one.hosts[0]["total_ram_max"] for one in seen.members() if one.hosts}
    return [
        (
            sum(one["container_count_sum"] / one["container_count_n"] for _, one in last.values()),
            float(sum(one["used_ram_sum"] // one["ticks"] for _, one in last.values())),
            float(sum(total[number] for number in last)),
        )
    ]


def trust(seen: Seen) -> dict[str, tuple[Any, ...]]:
    """By the host's id: state, trust, RAM, CPU, containers, conflicts, lost, forks, missing."""
    names = (
        *("ticks", "used_ram_sum", "cpu_usage_sum", "container_count_sum", "container_count_n"),
        *("conflict_ticks", "events_lost", "unverified_sum", "checks_n"),
    )
    sums = _sums(seen.hosts(), lambda member, *_: member.number, *names)
    found: dict[str, tuple[Any, ...]] = {}
    for member in seen.members():
        one = sums.get(member.number)
        mine = [row for row in seen.fleet.breaks if row[0] == member.installation]
        forks = sum(row[2] == "fork" for row in mine)
        missing = sum(row[5] - row[4] + 1 for row in mine if row[4] is not None and row[5])
        state = "al-dia"
        if member.seen_s is None or member.seen_s > 900:
            state = "nunca" if member.seen_s is None else "silencioso"
        if one is None:
            nothing = (None, None, None, None, None)
            found[member.installation] = (state, "sin-datos", *nothing, forks, missing)
            continue
        word = "agree"
        if one["conflict_ticks"]:
            word = "conflict"
        elif forks or missing or one["events_lost"]:
            word = "incompleto"
        elif one["unverified_sum"] or not one["checks_n"]:
            word = "unverified"
        total = one["ticks"] * member.hosts[0]["total_ram_max"]
        found[member.installation] = (
            *(state, word, one["used_ram_sum"] * 100 / total, one["cpu_usage_sum"] / one["ticks"]),
            one["container_count_sum"] / one["container_count_n"],
            *(one["conflict_ticks"], one["events_lost"], forks, missing),
        )
    return found


def by_host(seen: Seen, figure: Callable[[Counter[str], Member], float]) -> Table:
    members = {one.number: one for one in seen.members()}
    point = seen.point("host")
    sums = _sums(
        seen.hosts(),
        lambda member, at, _: (member.number, at // point * point),
        *("ticks", "used_ram_sum", "cpu_usage_sum"),
    )
    values = {key: figure(one, members[key[0]]) for key, one in sums.items()}
    means = {
        number: sum(many) / len(many)
        for number in members
        if (many := [value for key, value in values.items() if key[0] == number])
    }
    kept = sorted(means, key=lambda number: -means[number])[: seen.top]
    return sorted(
        (at, seen.name(members[number]), value)
        for (number, at), value in values.items()
        if number in kept
    )


def ram(seen: Seen) -> Table:
    return by_host(
        seen,
        lambda one, member: (
            one["used_ram_sum"] * 100 / (one["ticks"] * member.hosts[0]["total_ram_max"])
        ),
    )


def cpu(seen: Seen) -> Table:
    return by_host(seen, lambda one, _: one["cpu_usage_sum"] / one["ticks"])


Figures = tuple[float, float, float, int]


def container_figures(seen: Seen) -> dict[tuple[str, str, str], Figures]:
    """By host, name and engine: largest and mean held memory, mean CPU, OOM kills."""
    many: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for member, _, row in seen.containers():
        if row["container_id"]:
            engine = row["engine"] or "docker"
            many[seen.name(member), row["container_name"], engine].append(row)
    made = {}
    for key, rows in many.items():
        ticks = sum(row["ticks"] for row in rows)
        made[key] = (
            max(row["held_mb_max"] for row in rows),
            sum(row["held_mb_sum"] for row in rows) / ticks,
            sum(row["cpu_usage_sum"] for row in rows) / ticks,
            sum(row["oom_kills"] for row in rows),
        )
    return made


def top(seen: Seen, place: int) -> Table:
    found = [
        (f"{host} / {'' if engine == 'docker' else f'{engine}: '}{name}", value[place])
        for (host, name, engine), value in container_figures(seen).items()
    ]
    return sorted(found, key=lambda one: (-one[1], one[0]))[: seen.top]


def removals_by_kind(seen: Seen) -> dict[tuple[str, ...], tuple[int, float, int]]:
    found: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for member, row in seen.removals():
        ending = "left" if row["outcome"] == "gone" and row["error"] else row["outcome"]
        found[seen.name(member), row["rule"], row["reason"], row["tier"], ending].append(row)
    return {
        key: (
            len(rows),
            sum(row["held_mb"] for row in rows),
            max(row["timestamp"] for row in rows),
        )
        for key, rows in found.items()
    }


def removals_over_time(seen: Seen) -> Table:
    counts: Counter[tuple[int, int]] = Counter()
    point = seen.point("host")
    for _, row in seen.removals():
        kind = {"excess-low": 0, "excess-high": 1, "exited": 2}.get(row["reason"], 3)
        if row["outcome"] in ("removed", "failed"):
            place = 4 if row["outcome"] == "failed" else kind
            counts[row["timestamp"] // point, place] += 1
    return [(g * point, *(float(counts[g, n]) for n in range(5))) for g in seen.points("host")]


def over_time(seen: Seen, kind: str, *names: str) -> Table:
    point = seen.point(kind)
    found = seen.hosts() if kind == "host" else seen.containers()
    sums = _sums(found, lambda _, at, __: at // point, *names)
    return [
        (g * point, *(float(sums[g][name]) if g in sums else 0.0 for name in names))
        for g in seen.points(kind)
    ]


def kills_over_time(seen: Seen) -> Table:
    point = seen.point("container")
    counts: Counter[int] = Counter()
    for _, at, _, number in seen.kills():
        counts[at // point] += number
    return [(g * point, float(counts[g])) for g in seen.points("container")]


def kills_by_kind(seen: Seen) -> dict[tuple[str, ...], tuple[int, float | None, int]]:
    """By host, container, image, process and cause: how many, what one held at most, the last."""
    found: dict[tuple[str, ...], list[tuple[int, Row, int]]] = defaultdict(list)
    for member, at, row, number in seen.kills():
        what = (row.get("process_name", ""), row.get("cause", "unknown"))
        found[seen.name(member), row["container_name"], row["image"], *what].append(
            (at, row, number)
        )
    return {
        key: (
            sum(number for *_, number in many),
            max(row["anon_mb"] + row["file_mb"] + row["shmem_mb"] for _, row, _ in many)
            if "anon_mb" in many[0][1]
            else None,
            max(at for at, *_ in many),
        )
        for key, many in found.items()
    }


def agreement(seen: Seen) -> Table:
    names = ("agree_sum", "unverified_sum", "conflict_sum")
    point = seen.point("host")
    sums = _sums(
        seen.hosts(),
        lambda member, at, _: (at // point * point, member.number),
        *("checks_n", *names),
    )
    made: dict[int, list[float | None]] = {}
    for (at, _), one in sums.items():
        values = made.setdefault(at, [None, None, None])
        if one["checks_n"]:
            for place, name in enumerate(names):
                values[place] = (values[place] or 0.0) + one[name] / one["checks_n"]
    return [(at, *values) for at, values in sorted(made.items())]


def held(seen: Seen) -> Table:
    point = seen.point("container")
    ticks = _sums(
        seen.hosts("container"), lambda one, at, _: (one.number, at // point * point), "ticks"
    )
    made: Counter[tuple[int, str]] = Counter()
    for member, at, row in seen.containers():
        begin = at // point * point
        name = row["container_name"] if row["container_id"] else "(otros)"
        made[begin, name] += row["held_mb_sum"] / ticks[member.number, begin]["ticks"]
    return sorted((at, name, value) for (at, name), value in made.items())
