"""What the history says of a span of time: `agent report`, for those on a terminal.

The same answers as the dashboards give, as values; how they look is `report_text`. Memory in KB for
the host and MB for processes and containers, as stored; 1 MB is 1024 KB.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean, median

from agent.errors import ConfigError
from agent.model.proof import ArmingWord
from agent.store import incidents
from agent.store.incidents import UnseenSpan
from agent.store.queries import (
    By,
    Checks,
    ChecksSpan,
    ContainerProcess,
    ContainerRow,
    ContainerSpan,
    Deletion,
    History,
    HostPart,
    HostProcess,
    TickRow,
)

_UNIT_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_LONGEST_MS = 366 * 20 * _UNIT_MS["d"]
_GAP_TICKS = 2.5
"""So many times the usual time between ticks without one are a stop."""
_CURVE_POINTS = 60
_RHYTHM_TICKS = 200
_CURVES_WITHIN_MS = 2 * _UNIT_MS["d"]
"""A longer span has no curve for each container: it is a second's reading for each."""
_TICKS_WITHIN_MS = 2 * _UNIT_MS["d"]
"""A longer span is read from buckets: a row a tick of a month would take seconds."""
_ALL = 10_000_000
"""Rows: more than the database may hold."""
_TOP = 5
_REMOVALS = 10


@dataclass(frozen=True, slots=True)
class Curve:
    """One figure over the span. `points` are means of equal parts, None where no tick was."""

    last: float | None
    least: float
    mean: float
    most: float
    points: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class RemovalSummary:
    """What went in the span."""

    outcomes: dict[str, int]
    reasons: dict[str, int]
    """Of those removed."""
    last: tuple[Deletion, ...]
    """Newest first."""
    left_alone: int = 0
    """Of the `gone` ones: they were not what had been decided on any more, and are there still."""


@dataclass(frozen=True, slots=True)
class ContainerNow:
    """One container at the last tick."""

    row: ContainerRow
    verified: str
    """The worst word for one of its processes: conflict, unverified, agree; "" without any."""
    unusual: int
    """Processes that are added, strayed or moved."""
    held: Curve | None
    """Its held MB over the span; None where the span is too long to look through."""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that is told of a span."""

    from_ms: int
    to_ms: int
    ticks: int
    stops: int
    """So often no tick came for a while."""
    stopped_ms: int
    sources: dict[str, int]
    """Ticks by where processes were read."""
    last: TickRow
    used_kb: Curve
    available_kb: Curve
    cpu_percent: Curve
    load1: Curve
    psi_cpu: Curve | None
    psi_memory: Curve | None
    process_count: Curve
    container_count: Curve | None
    """None where Docker never answered."""
    removals: RemovalSummary
    checks: Checks | None
    """How the witnesses agreed at the last tick."""
    verdicts: ChecksSpan
    """The same over the span."""
    containers: tuple[ContainerNow, ...]
    top_held: tuple[ContainerSpan, ...]
    """Of the whole span, by the most that was held in one tick."""
    top_container_cpu: tuple[ContainerSpan, ...]
    top_ram: tuple[HostProcess, ...]
    top_cpu: tuple[HostProcess, ...]
    policy: ArmingWord
    """Whether the policy acts now."""
    short_lived: tuple[UnseenSpan, ...] = ()
    """Commands that no tick saw, over the span, as far back as rows a process are kept."""
    oom_kills: int = 0
    """Processes that were killed for lack of memory, within the span."""


def parse_since(text: str) -> int:
    """`90s`, `30m`, `6h` or `7d` in milliseconds. Raises ConfigError."""
    match = re.fullmatch(r"(\d{1,9})\s*([smhd])", text.strip())
    span_ms = int(match[1]) * _UNIT_MS[match[2]] if match else 0
    if span_ms > _LONGEST_MS:
        raise ConfigError(
            f"--since {text!r} is too long: {_LONGEST_MS // _UNIT_MS['d']}d is the longest.",
            "Nothing is kept longer.",
        )
    if span_ms <= 0:
        raise ConfigError(
            f"--since {text!r} is not a span of time.", "Write it as 90s, 30m, 6h or 7d."
        )
    return span_ms


def build(history: History, span_ms: int, now_ms: int) -> Report | None:
    """The report of the `span_ms` before `now_ms`, None where no tick is in them."""
    from_ms = now_ms - span_ms
    if span_ms > _TICKS_WITHIN_MS:
        return _of_buckets(history, from_ms, now_ms)
    ticks = tuple(
        tick for tick in history.ticks_since(from_ms, _ALL) if tick.timestamp_ms <= now_ms
    )
    if not ticks:
        return None
    last = ticks[-1]
    stops = _stops([tick.timestamp_ms for tick in ticks])
    spans = history.containers_since(from_ms)

    def curve(values: Sequence[float | None]) -> Curve | None:
        return _curve([tick.timestamp_ms for tick in ticks], values, from_ms, now_ms)

    return Report(
        from_ms=from_ms,
        to_ms=now_ms,
        ticks=len(ticks),
        stops=len(stops),
        stopped_ms=sum(stops),
        sources=dict(Counter(tick.source for tick in ticks)),
        last=last,
        used_kb=_sure(curve([tick.used_kb for tick in ticks])),
        available_kb=_sure(curve([tick.available_kb for tick in ticks])),
        cpu_percent=_sure(curve([tick.cpu_percent for tick in ticks])),
        load1=_sure(curve([tick.load1 for tick in ticks])),
        psi_cpu=curve([tick.psi_cpu for tick in ticks]),
        psi_memory=curve([tick.psi_memory for tick in ticks]),
        process_count=_sure(curve([tick.process_count for tick in ticks])),
        container_count=curve([tick.container_count for tick in ticks]),
        removals=_removals(history, from_ms, history.deletion_counts_since(from_ms)),
        checks=history.checks_at(last.timestamp_ms),
        verdicts=history.checks_over(from_ms),
        containers=_containers(history, last, from_ms, now_ms),
        top_held=spans[:_TOP],
        top_container_cpu=tuple(sorted(spans, key=lambda span: -span.mean_cpu_percent)[:_TOP]),
        top_ram=history.top_processes_at(last.timestamp_ms, _TOP, By.RAM),
        top_cpu=history.top_processes_at(last.timestamp_ms, _TOP, By.CPU),
        short_lived=incidents.unseen(history, from_ms, _TOP),
        oom_kills=incidents.oom_count(history, from_ms),
        policy=history.arming(),
    )


def _of_buckets(history: History, from_ms: int, now_ms: int) -> Report | None:
    """A span of days to years: the same figures, containers among the largest of each bucket."""
    step_ms = max(1, (now_ms - from_ms) // _CURVE_POINTS)
    parts = history.host_over(from_ms, now_ms, step_ms)
    last = history.last_tick()
    if not parts or last is None:
        return None
    ticks = sum(one.ticks for one in parts)
    psutil = sum(one.psutil_ticks for one in parts)
    usual = _usual_ms(history, now_ms)
    stops = [
        end - begin
        for begin, end in history.stops_over(from_ms, now_ms)
        if end - begin > _GAP_TICKS * usual
    ]
    held = history.containers_over(from_ms, now_ms)

    def curve(name: str) -> Curve | None:
        return _curve_of(parts, name, getattr(last, name))

    return Report(
        from_ms=from_ms,
        to_ms=now_ms,
        ticks=ticks,
        stops=len(stops),
        stopped_ms=sum(stops),
        sources={
            name: count
            for name, count in (("modules", ticks - psutil), ("psutil", psutil))
            if count
        },
        last=last,
        used_kb=_sure(curve("used_kb")),
        available_kb=_sure(curve("available_kb")),
        cpu_percent=_sure(curve("cpu_percent")),
        load1=_sure(curve("load1")),
        psi_cpu=curve("psi_cpu"),
        psi_memory=curve("psi_memory"),
        process_count=_sure(curve("process_count")),
        container_count=curve("container_count"),
        removals=_removals(history, from_ms, history.removals_over(from_ms, now_ms)),
        checks=history.checks_at(last.timestamp_ms),
        verdicts=history.verdicts_over(from_ms, now_ms),
        containers=_containers(history, last, from_ms, now_ms),
        top_held=held[:_TOP],
        top_container_cpu=tuple(sorted(held, key=lambda span: -span.mean_cpu_percent)[:_TOP]),
        top_ram=history.top_processes_at(last.timestamp_ms, _TOP, By.RAM),
        top_cpu=history.top_processes_at(last.timestamp_ms, _TOP, By.CPU),
        short_lived=incidents.unseen(history, from_ms, _TOP),
        oom_kills=incidents.oom_count(history, from_ms),
        policy=history.arming(),
    )


def _curve_of(parts: Sequence[HostPart], name: str, last: float | None) -> Curve | None:
    """None where no value is known."""
    cells = {min(one.part, _CURVE_POINTS - 1): one.figures[name] for one in parts}
    known = [cell for cell in cells.values() if cell.known]
    if not known:
        return None
    means = {part: cell.total / cell.known for part, cell in cells.items() if cell.known}
    return Curve(
        last=None if last is None else float(last),
        least=min(float(cell.least) for cell in known if cell.least is not None),
        mean=sum(cell.total for cell in known) / sum(cell.known for cell in known),
        most=max(float(cell.most) for cell in known if cell.most is not None),
        points=tuple(means.get(part) for part in range(_CURVE_POINTS)),
    )


def _usual_ms(history: History, now_ms: int) -> float:
    """The time between the last ticks."""
    times = [tick.timestamp_ms for tick in history.ticks_since(0, _RHYTHM_TICKS)]
    between = [after - before for before, after in pairwise(times) if after <= now_ms]
    return median(between) if between else 0.0


def worst_verdict(processes: Sequence[ContainerProcess]) -> str:
    """The worst word for one of them, "" for none."""
    words = {one.verified for one in processes}
    return next((word for word in ("conflict", "unverified", "agree") if word in words), "")


def _containers(
    history: History, last: TickRow, from_ms: int, now_ms: int
) -> tuple[ContainerNow, ...]:
    processes: dict[tuple[str, str], list[ContainerProcess]] = {}
    for one in history.container_processes_at(last.timestamp_ms):
        processes.setdefault((one.engine, one.container_id), []).append(one)
    found = []
    for row in history.containers_at(last.timestamp_ms):
        mine = processes.get((row.engine, row.container_id), [])
        past = [
            one
            for one in _past(history, row, from_ms, now_ms)
            if (one.engine, one.container_id) == (row.engine, row.container_id)
        ]
        held = _curve(
            [one.timestamp_ms for one in past], [one.held_mb for one in past], from_ms, now_ms
        )
        unusual = sum(one.basis != "cgroup" for one in mine)
        found.append(ContainerNow(row, worst_verdict(mine), unusual, held))
    return tuple(found)


def _past(
    history: History, row: ContainerRow, from_ms: int, now_ms: int
) -> tuple[ContainerRow, ...]:
    if now_ms - from_ms > _CURVES_WITHIN_MS:
        return ()
    return history.container_since(row.container_name, from_ms, _ALL)


def _curve(
    times: Sequence[int], values: Sequence[float | None], from_ms: int, to_ms: int
) -> Curve | None:
    """None where no value is known."""
    known = [float(value) for value in values if value is not None]
    if not known:
        return None
    step = max(1, (to_ms - from_ms) / _CURVE_POINTS)
    cells: list[list[float]] = [[] for _ in range(_CURVE_POINTS)]
    for at, value in zip(times, values, strict=True):
        if value is not None:
            cells[min(_CURVE_POINTS - 1, int((at - from_ms) / step))].append(float(value))
    latest = values[-1]
    return Curve(
        last=None if latest is None else float(latest),
        least=min(known),
        mean=mean(known),
        most=max(known),
        points=tuple(mean(cell) if cell else None for cell in cells),
    )


def _sure(curve: Curve | None) -> Curve:
    if curve is None:
        raise ValueError("a column that is never NULL has no value")
    return curve


def _stops(times: Sequence[int]) -> list[int]:
    """How long each time without ticks was, in milliseconds."""
    between = [after - before for before, after in pairwise(times)]
    if not between:
        return []
    usual = median(between)
    return [one for one in between if one > _GAP_TICKS * usual]


def _removals(history: History, from_ms: int, counts: dict[tuple[str, str], int]) -> RemovalSummary:
    outcomes: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for (outcome, reason), count in counts.items():
        outcomes[outcome] += count
        if outcome == "removed":
            reasons[reason] += count
    last = history.last_deletions(_REMOVALS)
    return RemovalSummary(
        dict(outcomes),
        dict(reasons),
        tuple(one for one in last if one.timestamp_ms >= from_ms),
        history.left_alone_since(from_ms),
    )
