"""One tick's values as rows of the tables, in the units and precision that are stored.

Pure: MB are KB divided by 1024, CPU is rounded to a thousandth of a percent, and text that SQLite
cannot hold (lone surrogates) or nobody can read (a megabyte of name) is made fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.model.record import TickRecord
    from agent.model.removal import RemovalPass

Values = tuple[Any, ...]

_TEXT_LIMIT = 1024
_NAME_LIMIT = 255


def clean(text: str, limit: int = _TEXT_LIMIT) -> str:
    """`text` as SQLite can hold it: valid UTF-8, without NUL, at most `limit` characters."""
    cut = text[:limit]
    if cut.isascii() and "\0" not in cut:
        return cut
    return cut.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")


def metrics(record: TickRecord, timestamp_ms: int) -> Values:
    memory, host = record.memory, record.host
    return (
        timestamp_ms,
        memory.total_kb,
        memory.free_kb,
        memory.used_kb,
        record.container_count,
        len(record.processes),
        record.deleted_count,
        memory.available_kb,
        round(host.cpu_usage_percent, 3),
        host.cpu_count,
        host.load1,
        host.psi_memory_some_avg10,
        host.psi_cpu_some_avg10,
        str(record.source),
        record.tick_ms,
    )


def process_stats(record: TickRecord, timestamp_ms: int) -> Iterator[Values]:
    # Thousands of rows a tick share few names, and most processes rest.
    names: dict[str, str] = {}
    for one in record.processes:
        name = names.get(one.name)
        if name is None:
            name = names[one.name] = clean(one.name, _NAME_LIMIT)
        cpu = one.cpu_percent
        yield (timestamp_ms, one.pid, name, one.rss_kb / 1024, round(cpu, 3) if cpu else 0.0)


def container_stats(record: TickRecord, timestamp_ms: int) -> Iterator[Values]:
    for one in record.container_processes:
        yield (
            timestamp_ms,
            one.container_id[:12],
            clean(one.container_name),
            one.pid,
            clean(one.name, _NAME_LIMIT),
            one.rss_kb / 1024,
            round(one.cpu_percent, 3),
            str(one.verified),
            str(one.basis),
        )


def container_totals(record: TickRecord, timestamp_ms: int) -> Iterator[Values]:
    for one in record.totals:
        yield (
            timestamp_ms,
            clean(one.container.short_id),
            clean(one.container.name),
            clean(one.container.image),
            str(one.tier),
            one.governed,
            one.processes,
            one.held_kb / 1024,
            str(one.held_basis),
            one.rss_kb / 1024,
            None if one.cache_kb is None else one.cache_kb / 1024,
            round(one.cpu_percent, 3),
            _rounded(one.cpu_short_lived_percent),
            _rounded(one.cpu_unexplained_percent),
            one.starts,
            one.exits,
            one.oom_kills,
        )


def deletions(passes: Sequence[tuple[int, RemovalPass]]) -> Iterator[Values]:
    """Rows of passes, each with the timestamp it is stored under."""
    for timestamp_ms, one in passes:
        for removal in one.removals:
            decision = removal.decision
            yield (
                timestamp_ms,
                clean(decision.id),
                clean(decision.container_id[:12]),
                clean(decision.container_name),
                clean(decision.image),
                str(decision.tier),
                decision.rank,
                str(decision.reason),
                decision.held_mb,
                round(decision.cpu_percent, 3),
                str(removal.outcome),
                removal.duration_ms,
                clean(removal.error),
                one.available_before_kb / 1024,
                one.available_after_kb / 1024,
                str(decision.action),
                clean(decision.rule),
                clean(decision.engine),
            )


def attribution_checks(record: TickRecord, timestamp_ms: int) -> Values:
    checks = record.checks
    return (
        timestamp_ms,
        checks.agree,
        checks.conflict,
        checks.unverified,
        checks.added,
        checks.strayed,
        checks.moved,
        checks.dropped,
        checks.events_lost,
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
