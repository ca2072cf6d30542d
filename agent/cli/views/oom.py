"""How OOM kills look: a table of them, and one as an answer to «who, why, and who had grown»."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from agent.cli.views.moments import moment
from agent.cli.views.tables import Cell, Sheet, sheet_lines
from agent.store.incidents import OomEntry, OomKilled, Uncounted
from agent.util.terminal import printable

_WHY = {
    "limit": "limit",
    "host": "host out of memory",
    "sysrq": "asked for (sysrq-f)",
    "unknown": "unknown",
}


def sheet(entries: Sequence[OomEntry]) -> Sheet:
    """One line for each kill."""
    return Sheet(
        "OOM kills, newest first",
        ("ID", "WHEN", "PID", "RSS MB", "WHY", "LIMIT MB", "CONTAINER", "NAME", "GREW MOST"),
        tuple(
            (
                Cell(str(one.number)),
                Cell(moment(one.kill.timestamp_ms)),
                Cell(str(one.kill.pid)),
                Cell(_mb(rss_mb(one.kill))),
                Cell(_WHY.get(one.kill.cause, one.kill.cause)),
                Cell(_mb(one.kill.limit_mb)),
                Cell(printable(_container(one.kill))),
                Cell(printable(one.kill.name)),
                Cell(_grew(one.kill)),
            )
            for one in entries
        ),
        frozenset({0, 2, 3, 5}),
        "no process was killed for lack of memory",
    )


def listing(entries: Sequence[OomEntry], uncounted: Sequence[Uncounted]) -> list[str]:
    """The table, and what is only counted."""
    lines = sheet_lines(sheet(entries))
    if uncounted:
        lines += ["", "Counted by containers, without a record (nobody watched then):"]
        lines += [
            f"  {printable(one.container_name)} ({one.container_id}): {one.kills}"
            for one in uncounted
        ]
    return lines


def detail(entry: OomEntry) -> list[str]:
    """Everything that is known of one kill."""
    one = entry.kill
    named = f"{printable(one.container_name)} ({one.container_id})"
    where = f"container {named if one.container_name else one.container_id}"
    if not one.container_id:
        where = "the host"
    who = f"{printable(one.name)} (pid {one.pid}) of {where}"
    lines = [
        f"OOM kill {entry.number}: {who}, {moment(one.timestamp_ms)}",
        f"  victim     {_memory(one)}",
        f"  cgroup     {printable(one.cgroup) or 'not known'}",
        f"  trigger    {_trigger(one)}",
        f"  why        {_why(one)}",
        f"  grew most  {_growth(one)}",
        f"  witnesses  {one.witnesses.replace(',', ', ')}{_alone(one)}",
    ]
    if image := printable(one.image):
        lines.insert(1, f"  image      {image}")
    beside = neighbours(one)
    table = Sheet(
        "Lived beside it, largest first",
        ("PID", "RSS MB", "GREW MB", "STATE", "CONTAINER", "NAME"),
        tuple(
            (
                Cell(str(other["pid"])),
                Cell(_mb(other["rss_mb"])),
                Cell(_mb(other["grown_mb"])),
                Cell(printable(str(other["state"]))),
                Cell(printable(str(other["container"]))),
                Cell(printable(str(other["name"]))),
            )
            for other in beside
        ),
        frozenset({0, 1, 2}),
        "nothing is known",
    )
    return [*lines, "", *sheet_lines(table)]


def document(entry: OomEntry) -> dict[str, Any]:
    """For JSON: the row's columns, lists as lists."""
    one = entry.kill
    fields = {name: getattr(one, name) for name in OomKilled.__dataclass_fields__}
    return {
        "id": entry.number,
        **fields,
        "beside": neighbours(one),
        "witnesses": one.witnesses.split(",") if one.witnesses else [],
    }


def neighbours(one: OomKilled) -> list[dict[str, Any]]:
    try:
        found = json.loads(one.beside)
    except ValueError:
        return []
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []


def rss_mb(one: OomKilled) -> float | None:
    parts = (one.anon_mb, one.file_mb, one.shmem_mb)
    return None if None in parts else sum(part or 0.0 for part in parts)


def _container(one: OomKilled) -> str:
    return one.container_name or one.container_id or "-"


def _mb(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _memory(one: OomKilled) -> str:
    total = rss_mb(one)
    if total is None:
        return "its memory was not reported"
    swap = "" if one.swap_mb is None else f", {one.swap_mb:.1f} MB swapped out"
    adj = "" if one.oom_score_adj is None else f"; oom_score_adj {one.oom_score_adj}"
    return (
        f"{total:.1f} MB resident ({one.anon_mb:.1f} anonymous, {one.file_mb:.1f} files, "
        f"{one.shmem_mb:.1f} shared){swap}{adj}"
    )


def _trigger(one: OomKilled) -> str:
    if not one.trigger_name and one.trigger_pid is None:
        return "not reported"
    who = f"{printable(one.trigger_name)} (pid {one.trigger_pid})"
    if one.trigger_pid == one.pid:
        return f"{who}, the victim itself"
    return f"{who} of {printable(one.trigger_container) or 'the host'}"


def _why(one: OomKilled) -> str:
    if one.cause == "limit":
        whose = printable(one.limit_container)
        whose = f"container {whose}" if whose else printable(one.limit_cgroup) or "a cgroup"
        used = "" if one.used_mb is None else f", {one.used_mb:.1f} MB in use"
        limit = "not known" if one.limit_mb is None else f"{one.limit_mb:.1f} MB"
        return f"the limit of {whose}: {limit}{used}"
    if one.cause == "host":
        total = "" if one.limit_mb is None else f" of {one.limit_mb:.1f} MB"
        return f"the host's memory{total} was used up"
    return _WHY.get(one.cause, one.cause)


def _grew(one: OomKilled) -> str:
    if one.grown_mb is None:
        return "-"
    return f"{printable(one.grower_name)} +{one.grown_mb:.0f} MB"


def _growth(one: OomKilled) -> str:
    if one.grown_mb is None:
        return "no process by more than 1 MB, as far as ticks saw"
    over = "since it was born" if one.grown_s is None else f"within {one.grown_s:.0f} s"
    itself = ", the victim itself" if one.grower_pid == one.pid else ""
    where = "" if itself else f" of {printable(one.grower_container) or 'the host'}"
    return (
        f"{printable(one.grower_name)} (pid {one.grower_pid}){where}: "
        f"+{one.grown_mb:.1f} MB {over}{itself}"
    )


def _alone(one: OomKilled) -> str:
    if one.witnesses == "kernel-log":
        return " (without BPF the limit and its use are not known)"
    return ""
