"""All hosts of the centre at a glance, as plain lines."""

from __future__ import annotations

from agent.cli.views.tables import aligned
from agent.fleet.report import FleetTop
from agent.util.terminal import printable

_HOST_CHARACTERS = 20


def plain_top(found: FleetTop) -> str:
    """Three tables and what the centre's tables hold, one below the other."""
    hosts: list[tuple[str, ...]] = [("host", "seen", "RAM", "conflicts", "lost", "forks", "gaps")]
    for host in found.hosts:
        seen = "never" if host.seen_s is None else f"{host.seen_s} s"
        used = "" if host.used_ratio is None else f"{100 * host.used_ratio:.0f} %"
        counts = (host.conflict_ticks, host.events_lost, host.forks, host.gaps)
        hosts.append((_cut(host.name), seen, used, *map(str, counts)))
    containers = [("held MB", "CPU %", "host", "container")]
    containers += [
        (f"{one.held_mb:.1f}", f"{one.cpu_percent:.1f}", _cut(one.host), printable(one.name))
        for one in found.containers
    ]
    removals = [
        (str(count), _cut(host), f"{printable(reason)}, {printable(outcome)}")
        for host, reason, outcome, count in found.removals
    ]
    sizes = ", ".join(f"{name} {size / 2**20:.0f}" for name, size in found.bytes.items())
    return "\n".join(
        [
            *(f"shard {name} is missing: {printable(why)}" for name, why in found.missing),
            *aligned(hosts, right=frozenset(range(1, 7))),
            "",
            *aligned(containers, right=frozenset({0, 1})),
            "",
            "removals of a day",
            *(aligned(removals, right=frozenset({0})) if removals else []),
            "",
            f"MB at the centre: {sizes}; {found.out_of_range} rows out of range",
        ]
    )


def _cut(text: str) -> str:
    shown = printable(text)
    return shown if len(shown) <= _HOST_CHARACTERS else shown[: _HOST_CHARACTERS - 1] + "…"
