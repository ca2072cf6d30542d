"""Words for people: the line of a tick, and the status as lines or a table."""

from __future__ import annotations

from collections.abc import Sequence

from agent.cli.views import moments
from agent.cli.views.tables import aligned
from agent.daemon.status import Status
from agent.daemon.tick_values import TickReport
from agent.util.terminal import printable

_GB_KB = 1024 * 1024


def tick_line(report: TickReport) -> str:
    """One line a tick: read, mapped, containers, removed, RAM in use, how long it took."""
    stamp = moments.moment(report.wall_ns // 10**6, "%H:%M:%S")
    checks = report.checks
    mapped = f"{report.mapped} mapped ({_verdicts(report)})"
    containers = (
        "containers unknown (Docker is away)"
        if report.container_count is None
        else f"{report.container_count} containers"
    )
    removed = f"{report.removed} removed" + (f", {report.failed} failed" if report.failed else "")
    unstored = "" if report.stored else " · not stored"
    lost = f" · {checks.events_lost} events lost" if checks.events_lost else ""
    return (
        f"{stamp} tick {report.number} · {report.source}: {report.processes} processes, {mapped}"
        f" · {containers} · {removed} · RAM {ram(report.used_kb, report.total_kb)}"
        f" · {report.tick_ms} ms{lost}{unstored}"
    )


def ram(used_kb: int, total_kb: int) -> str:
    """`1.9 of 7.8 GB (24 %)`; 1 GB is 1024 MB."""
    percent = 100 * used_kb / total_kb if total_kb else 0
    return f"{used_kb / _GB_KB:.1f} of {total_kb / _GB_KB:.1f} GB ({percent:.0f} %)"


def status_rows(status: Status, now_ms: int) -> list[tuple[str, str]]:
    """Name and value of everything that `agent status` tells, in reading order."""
    rows = [
        ("agent", f"running, pid {status.pid}, since {moment(status.since_wall_ms)}"),
        ("every", f"{status.interval_s:g} s, scope {status.scope}" + _dry(status)),
        ("source", status.source),
    ]
    tick = status.tick
    if tick is None:
        rows.append(("last tick", "none yet"))
    else:
        age_s = max(0, now_ms - tick.wall_ms) // 1000
        rows += [
            ("last tick", f"number {tick.number}, {age_s} s ago, took {tick.tick_ms} ms"),
            ("processes", f"{tick.processes} read, {tick.mapped} of them in containers"),
            ("attribution", ", ".join(f"{name} {count}" for name, count in tick.checks.items())),
            ("containers", _containers(status)),
            ("RAM", ram(tick.used_kb, tick.total_kb)),
        ]
    rows += _policy(status)
    rows += [
        *_engines(status),
        ("BPF", status.bpf),
        ("cron", status.cron),
        ("Grafana", status.grafana),
        ("database", status.database + _unstored(status)),
    ]
    rows += [("not working", printable(problem)) for problem in status.problems]
    return rows


def moment(wall_ms: int) -> str:
    """Local date and time of Unix milliseconds."""
    return moments.moment(wall_ms, "%Y-%m-%d %H:%M:%S %Z")


def plain(rows: Sequence[tuple[str, str]]) -> str:
    """Aligned lines for a pipe."""
    return "\n".join(aligned(rows))


def _verdicts(report: TickReport) -> str:
    checks = report.checks
    parts = [
        f"{count} {word}"
        for word, count in (
            ("agree", checks.agree),
            ("conflict", checks.conflict),
            ("unverified", checks.unverified),
        )
        if count
    ]
    return ", ".join(parts) or "none"


def _containers(status: Status) -> str:
    tick = status.tick
    if tick is None or tick.container_count is None:
        return "unknown: Docker does not answer"
    tiers = ", ".join(f"{name} {count}" for name, count in tick.tiers.items())
    return f"{tick.container_count} running (by tier: {tiers})"


def _engines(status: Status) -> list[tuple[str, str]]:
    """Each one's state, where there is more than one."""
    if len(status.engines) < 2:
        return []
    return [(f"engine {name}", printable(word)) for name, word in status.engines.items()]


def _policy(status: Status) -> list[tuple[str, str]]:
    budgets = ", ".join(f"{name} {100 * used:.0f} %" for name, used in status.budgets.items())
    rows = []
    if not status.armed:
        since = f" since {moment(status.disarmed_since_ms)}" if status.disarmed_since_ms else ""
        rows.append(("policy", f"DISARMED{since}: {printable(status.disarmed_why)}"))
    else:
        rows.append(("policy", "armed" + (f" (budgets used: {budgets})" if budgets else "")))
    if status.notify:
        waiting = ", ".join(f"{name} {count}" for name, count in status.notify.items())
        rows.append(("notify", f"waiting: {waiting}"))
    return rows


def _dry(status: Status) -> str:
    return ", dry run: nothing is removed" if status.dry_run else ""


def _unstored(status: Status) -> str:
    return f", {status.unstored_ticks} ticks not stored" if status.unstored_ticks else ""
