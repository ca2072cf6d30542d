"""The few commands of a container that matter most among those no snapshot saw. Pure.

A tick keeps a bounded list and one row for the rest, so that counts and CPU are those of all.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.model.container import OTHERS, ShortLivedCommand

MOST = 16
"""Rows of one container in one tick, without that of the others."""


def largest(
    named: Sequence[ShortLivedCommand], processes: int, cpu_ns: int
) -> tuple[ShortLivedCommand, ...]:
    """The MOST that cost most CPU, and OTHERS with what is left of `processes` and `cpu_ns`.

    Names and sums are read a moment apart: where the names have more than the sums, the largest row
    gives it back, so that the rows' CPU is `cpu_ns` whatever happens.
    """
    rows = sorted(named, key=lambda one: (-one.cpu_ns, -one.processes, one.parent, one.name))[:MOST]
    left = processes - sum(one.processes for one in rows)
    left_ns = cpu_ns - sum(one.cpu_ns for one in rows)
    if rows and left_ns < 0:
        given = min(rows[0].cpu_ns, -left_ns)
        rows[0] = rows[0]._replace(cpu_ns=rows[0].cpu_ns - given)
        left_ns += given
    if left > 0 or left_ns:
        rows.append(ShortLivedCommand("", OTHERS, max(left, 0), left_ns, None))
    return tuple(rows)
