"""What the history says of days to years, from buckets: for `agent report`.

Reads the views, which go on with finer buckets and at last with ticks where buckets are not closed
yet. A bucket counts where any of it lies in the span.
"""

from __future__ import annotations

from dataclasses import dataclass

_DAY_MS = 86_400_000
_HOST_LEVELS = (("5m", 31 * _DAY_MS), ("1h", 800 * _DAY_MS), ("1d", 1 << 62))
_CONTAINER_LEVELS = (("5m", 7 * _DAY_MS), ("1h", 62 * _DAY_MS), ("1d", 1 << 62))
_BUCKET_MS = {"5m": 300_000, "1h": 3_600_000, "1d": _DAY_MS}

FIGURES = {
    "used_kb": ("used_ram", "ticks"),
    "available_kb": ("available_ram", "ticks"),
    "cpu_percent": ("cpu_usage", "ticks"),
    "load1": ("load1", "ticks"),
    "process_count": ("process_count", "ticks"),
    "psi_cpu": ("psi_cpu", "psi_cpu_n"),
    "psi_memory": ("psi_memory", "psi_memory_n"),
    "container_count": ("container_count", "container_count_n"),
}
"""Figures of the host by their names in a tick: the column, and where its count is."""


@dataclass(frozen=True, slots=True)
class SpanFigure:
    """One figure over a part of a span."""

    known: int
    """Ticks in which it was known."""
    total: float
    least: float | None
    most: float | None


def host(from_ms: int, to_ms: int, step_ms: int) -> str:
    """Each part of `step_ms`: `part`, `ticks`, `psutil_ticks`, and each figure's four columns."""
    columns = ", ".join(
        f"sum({count}) AS {name}_known, sum({column}_sum) AS {name}_total,"
        f" min({column}_min) AS {name}_least, max({column}_max) AS {name}_most"
        for name, (column, count) in FIGURES.items()
    )
    return (
        f"SELECT max(0, (timestamp - {from_ms}) / {step_ms}) AS part, sum(ticks) AS ticks,"  # noqa: S608
        f" sum(psutil_ticks) AS psutil_ticks, {columns}"
        f" FROM {_view('host', _HOST_LEVELS, from_ms, to_ms)} GROUP BY part"
    )


def verdicts(from_ms: int, to_ms: int) -> str:
    view = _view("host", _HOST_LEVELS, from_ms, to_ms)
    figures = {
        "conflict_ticks": "sum(conflict_ticks)",
        "unverified_ticks": "sum(unverified_ticks)",
        "most_strayed": "max(strayed_max)",
        "most_moved": "max(moved_max)",
        "most_added": "max(added_max)",
        "events_lost": "sum(events_lost)",
    }
    listed = [f"coalesce({made}, 0) AS {name}" for name, made in figures.items()]
    # Buckets from before these were kept do not know them: then the whole span does not.
    listed += [
        f"CASE WHEN total(checks_n > 0 AND {name} IS NULL) = 0 THEN coalesce(sum({name}), 0) END"
        f" AS {name}"
        for name in ("events_corrected", "events_late", "events_missed")
    ]
    return f"SELECT {', '.join(listed)} FROM {view}"  # noqa: S608


def containers(from_ms: int, to_ms: int) -> str:
    """Every container that was among the largest of a bucket, those that held most first."""
    return (
        "SELECT engine, container_id, max(container_name) AS container_name, max(image) AS image,"  # noqa: S608
        " max(tier) AS tier, sum(ticks) AS ticks, max(held_mb_max) AS max_held_mb,"
        " sum(cpu_usage_sum) / sum(ticks) AS mean_cpu_percent, sum(starts) AS starts,"
        " sum(exits) AS exits, sum(oom_kills) AS oom_kills"
        f" FROM {_view('container', _CONTAINER_LEVELS, from_ms, to_ms)} AND container_id <> ''"
        " GROUP BY engine, container_id ORDER BY max_held_mb DESC, container_id, engine"
    )


def removals(from_ms: int, to_ms: int) -> str:
    return (
        "SELECT outcome, reason, sum(removals) AS count"  # noqa: S608
        f" FROM {_view('removals', _HOST_LEVELS, from_ms, to_ms)} GROUP BY outcome, reason"
    )


def stops(from_ms: int, to_ms: int) -> str:
    return (
        "SELECT timestamp AS began_ms, until AS ended_ms FROM agent_stops"  # noqa: S608
        f" WHERE timestamp BETWEEN {from_ms} AND {to_ms} ORDER BY timestamp"
    )


CLOSED_UNTIL = "SELECT until AS at_ms FROM rollup_until WHERE bucket_ms = 300000"


def _view(kind: str, levels: tuple[tuple[str, int], ...], from_ms: int, to_ms: int) -> str:
    level = next(name for name, longest_ms in levels if to_ms - from_ms <= longest_ms)
    since = from_ms - _BUCKET_MS[level]
    return f"{kind}_{level} WHERE timestamp > {since} AND timestamp <= {to_ms}"
