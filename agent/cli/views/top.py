"""The live view of the last tick: what `agent top` shows, and what a key changes in it.

Values and pure functions; the terminal is the command's. The containers are those that the tick
found, so one that the same tick removed is still in the list and marked as removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from agent.cli.views.drawing import draw
from agent.cli.views.moments import moment, span
from agent.cli.views.names import shown_names
from agent.cli.views.report import TIER_STYLES, VERDICT_STYLES
from agent.cli.views.report_figures import worst_verdict
from agent.cli.views.tables import Cell, Sheet, sheet_lines
from agent.cli.views.top_keys import Key, Sort
from agent.config import PolicySettings
from agent.model.container import ContainerKey
from agent.model.proof import ARMED, ArmingWord
from agent.model.removal import BUILT_IN_NAMES
from agent.policy.eviction_preview import Contender, contenders
from agent.store.queries import ContainerProcess, ContainerRow, History, ShortLived, TickRow
from agent.util.terminal import printable

_KB_PER_GB = 1024 * 1024
_REMOVALS_WITHIN_MS = 3_600_000
_STALE_INTERVALS = 3
_UNSEEN = 3
"""Commands of a container that its line names."""


_SORTS = {
    Key.BY_RAM: Sort.RAM,
    Key.BY_CPU: Sort.CPU,
    Key.BY_PROCESSES: Sort.PROCESSES,
    Key.BY_NAME: Sort.NAME,
}


@dataclass(frozen=True, slots=True)
class LastTick:
    """Everything that is known of the last tick."""

    tick: TickRow
    containers: tuple[ContainerRow, ...]
    processes: tuple[ContainerProcess, ...]
    gone: frozenset[ContainerKey]
    """By short id, those that were removed, in that tick or since."""
    contenders: tuple[Contender, ...]
    short_lived: tuple[ShortLived, ...] = ()
    """What ended before a snapshot saw it."""
    word: ArmingWord = ARMED


@dataclass(frozen=True, slots=True)
class Choice:
    """What a person has chosen. `selected` is a container's id, "" until one is chosen."""

    sort: Sort = Sort.RAM
    selected: str = ""
    inside: bool = False
    """Whether the selected container's processes are shown."""
    running: bool = True


def read(path: Path, settings: PolicySettings, at_ms: int | None = None) -> LastTick | None:
    """The last tick (of `at_ms` or before), None where none is stored.

    Raises StoreError where it cannot be read.
    """
    with History.open(path, at_ms) as history:
        tick = history.last_tick()
        if tick is None:
            return None
        rows = history.containers_at(tick.timestamp_ms)
        processes = history.container_processes_at(tick.timestamp_ms)
        unseen = history.short_lived_at(tick.timestamp_ms)
        removals = history.deletions_since(tick.timestamp_ms - _REMOVALS_WITHIN_MS)
        word = history.arming()
    gone = frozenset(ContainerKey(one.engine, one.container_id) for one in removals if one.is_away)
    disputed = {
        ContainerKey(one.engine, one.container_id)
        for one in processes
        if one.verified == "conflict"
    }
    going = contenders(rows, disputed, gone, settings)
    return LastTick(tick, rows, processes, gone, going, unseen, word)


def press(state: Choice, key: Key, last: LastTick) -> Choice:
    """What the view is after a key."""
    if key is Key.QUIT:
        return replace(state, running=False)
    if key in _SORTS:
        return replace(state, sort=_SORTS[key])
    if key is Key.BACK:
        return replace(state, inside=False)
    order = [row.container_id for row in in_order(last.containers, state.sort)]
    if not order:
        return replace(state, selected="", inside=False)
    place = order.index(state.selected) if state.selected in order else -1
    if key is Key.OPEN:
        return replace(state, selected=order[max(0, place)], inside=True)
    step = -1 if key is Key.UP else 1
    return replace(state, selected=order[min(len(order) - 1, max(0, place + step))])


def in_order(rows: Sequence[ContainerRow], sort: Sort) -> list[ContainerRow]:
    """The containers as they are listed; equals by name, so that the list does not jump."""
    by_name = sorted(rows, key=lambda row: (row.container_name, row.container_id))
    if sort is Sort.RAM:
        return sorted(by_name, key=lambda row: -row.held_mb)
    if sort is Sort.CPU:
        return sorted(by_name, key=lambda row: -row.cpu_percent)
    if sort is Sort.PROCESSES:
        return sorted(by_name, key=lambda row: -row.processes)
    return by_name


def frame(
    last: LastTick, state: Choice, now_ms: int, interval_s: float, height: int = 0
) -> RenderableType:
    """The whole screen; `height` lines at most, 0 for no limit."""
    age_ms = now_ms - last.tick.timestamp_ms
    stale = age_ms > _STALE_INTERVALS * interval_s * 1000
    is_odd = stale or not last.word.armed
    head = _line(headline(last, now_ms), "bold red" if is_odd else "bold")
    below = _inside(last, state) if state.inside else _next(last)
    room = max(3, height - 9) if height else 10_000
    upper = _cut(_containers(last, state), room * 2 // 3)
    lower = _cut(below, max(1, room - len(upper.rows)))
    keys = "r RAM  c CPU  p processes  n name   up/down choose  enter processes  esc back  q quit"
    return Group(head, Text(), draw(upper), Text(), draw(lower), Text(), _line(keys, "dim"))


def _line(text: str, style: str) -> Text:
    """One line, cut and not wrapped: the screen has no line to spare."""
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def plain(last: LastTick, state: Choice, now_ms: int, *, is_past: bool = False) -> str:
    """The same without a terminal; with `is_past` as it was at `now_ms`."""
    at = f"At {moment(now_ms)}: " if is_past else ""
    lines = [at + headline(last, now_ms, is_past), "", *sheet_lines(_containers(last, state))]
    return "\n".join([*lines, "", *sheet_lines(_next(last))])


def headline(last: LastTick, now_ms: int, is_past: bool = False) -> str:
    """The host in one line, and how old all of this is."""
    tick = last.tick
    containers = (
        "containers unknown"
        if tick.container_count is None
        else f"{tick.container_count} containers"
    )
    disarmed = "" if last.word.armed else f"DISARMED ({printable(last.word.why)}), "
    return (
        f"{disarmed}tick {span(now_ms - tick.timestamp_ms)} {'before' if is_past else 'ago'} from "
        f"{tick.source}, "
        f"RAM {tick.used_kb / _KB_PER_GB:.1f} of {tick.total_kb / _KB_PER_GB:.1f} GB "
        f"({tick.available_kb / _KB_PER_GB:.1f} available), CPU {tick.cpu_percent:.0f} %, "
        f"load {tick.load1:.2f}, {containers}, {tick.process_count} processes"
    )


def _containers(last: LastTick, state: Choice) -> Sheet:
    mine: dict[str, list[ContainerProcess]] = {}
    for one in last.processes:
        mine.setdefault(one.container_id, []).append(one)
    unseen: dict[str, list[ShortLived]] = {}
    for command in last.short_lived:
        unseen.setdefault(command.container_id, []).append(command)
    rows: list[tuple[Cell, ...]] = []
    names = shown_names(last.containers)
    with_rules = any(_own_rule(row) for row in last.containers)
    for row in in_order(last.containers, state.sort):
        word = worst_verdict(mine.get(row.container_id, []))
        chosen = row.container_id == state.selected
        removed = (row.engine, row.container_id) in last.gone
        style = "reverse" if chosen else "dim strike" if removed else ""
        name = names[row] + (" (removed)" if removed else "")
        rows.append(
            (
                Cell(">" if chosen else " "),
                Cell(f"{row.held_mb:.1f}"),
                Cell(f"{row.rss_mb:.1f}"),
                Cell(f"{row.cpu_percent:.1f}"),
                Cell("-" if row.cpu_short_lived_percent is None else
                     f"{row.cpu_short_lived_percent:.1f}"),
                Cell(str(row.processes)),
                Cell(row.tier, TIER_STYLES.get(row.tier, "")),
                *([Cell(_own_rule(row) or "-")] if with_rules else []),
                Cell(word or "no process", VERDICT_STYLES.get(word, "dim")),
                Cell(name, style),
            )
        )  # fmt: skip
        if row.container_id in unseen:
            rows.append(
                (*[Cell("")] * (8 + with_rules), Cell(_unseen(unseen[row.container_id]), "dim"))
            )
    return Sheet(
        f"Containers by {state.sort}",
        (
            "",
            "HELD MB",
            "RSS MB",
            "CPU %",
            "SHORT %",
            "PROCS",
            "TIER",
            *(("RULE",) if with_rules else ()),
            "VERIFIED",
            "NAME",
        ),
        tuple(rows),
        frozenset({1, 2, 3, 4, 5}),
        "none is running"
        if last.tick.container_count is not None
        else "unknown: Docker did not answer",
    )


def _unseen(commands: Sequence[ShortLived]) -> str:
    """What a container ran between two looks, in one line below it."""
    named = [f"{one.processes} {printable(one.name)}" for one in commands[:_UNSEEN]]
    more = sum(one.processes for one in commands[_UNSEEN:])
    cpu_ms = sum(one.cpu_ms for one in commands)
    listed = ", ".join([*named, *([f"{more} more"] if more else [])])
    return f"  unseen: {listed}; {cpu_ms:.0f} ms of CPU"


def _own_rule(row: ContainerRow) -> str:
    """A rule of one's own that claims it; what the built-in set claims has a tier."""
    return "" if row.rule in BUILT_IN_NAMES else row.rule or ""


def _next(last: LastTick) -> Sheet:
    rows = tuple(
        (
            Cell(_when(one), "bold red" if one.goes else "dim"),
            Cell(one.tier, TIER_STYLES.get(one.tier, "")),
            Cell(printable(one.container_name)),
            Cell(one.why, "" if one.goes else "dim"),
        )
        for one in last.contenders
    )
    return Sheet(
        "Next to be removed, and why",
        ("NEXT", "TIER", "NAME", "WHY"),
        rows,
        frozenset(),
        "no container of the built-in set is there; of your own rules: see agent policy plan"
        if any(_own_rule(row) for row in last.containers)
        else "no governed container is there",
    )


def _when(one: Contender) -> str:
    if one.goes:
        return "goes"
    return f"{one.place}." if one.place else "?"


def _inside(last: LastTick, state: Choice) -> Sheet:
    names = {row.container_id: name for row, name in shown_names(last.containers).items()}
    name = names.get(state.selected, "a container that is gone")
    order = [one for one in last.processes if one.container_id == state.selected]
    if state.sort is Sort.CPU:
        order.sort(key=lambda one: -one.cpu_percent)
    return Sheet(
        f"Processes of {name}",
        ("PID", "RAM MB", "CPU %", "VERIFIED", "BASIS", "NAME"),
        tuple(
            (
                Cell(str(one.pid)),
                Cell(f"{one.ram_mb:.1f}"),
                Cell(f"{one.cpu_percent:.1f}"),
                Cell(one.verified, VERDICT_STYLES.get(one.verified, "")),
                Cell(one.basis, "dim" if one.basis == "cgroup" else "yellow"),
                Cell(printable(one.name)),
            )
            for one in order
        )
        + tuple(_ended(one) for one in last.short_lived if one.container_id == state.selected),
        frozenset({0, 1, 2}),
        "none",
    )


def _ended(one: ShortLived) -> tuple[Cell, ...]:
    """One command of a container that no snapshot saw."""
    parent = f" from {printable(one.parent)}" if one.parent else ""
    return (
        Cell("-"),
        Cell("-" if one.peak_rss_mb is None else f"{one.peak_rss_mb:.1f}"),
        Cell("-"),
        Cell("ended", "dim"),
        Cell("-", "dim"),
        Cell(f"{printable(one.name)}: {one.processes} times{parent}, {one.cpu_ms:.1f} ms of CPU"),
    )


def _cut(sheet: Sheet, room: int) -> Sheet:
    """At most `room` rows, the selected one among them; how many more there are is said."""
    if len(sheet.rows) <= room:
        return sheet
    chosen = next((place for place, row in enumerate(sheet.rows) if row[0].text == ">"), 0)
    first = min(max(0, chosen - room + 1), len(sheet.rows) - room)
    shown = sheet.rows[first : first + room]
    left = sum(row[0].text != "" for row in sheet.rows) - sum(row[0].text != "" for row in shown)
    return replace(sheet, rows=shown, title=f"{sheet.title} ({left} more)")
