"""Which of a tick's ended processes are kept, and as what. Pure.

A fork storm ends thousands a tick. Kept are victims of the OOM killer, then those that a snapshot
had seen, then a container's short-lived ones, those that cost most first: MOST of them a tick.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from agent.model.bpf import ProcessExit
from agent.model.container import ContainerKey
from agent.model.ended import EndedProcess

MOST = 128


def status(exit_code: int) -> int:
    """As a shell has it, from wait(2)'s word."""
    signal = exit_code & 0x7F
    return 128 + signal if signal else exit_code >> 8 & 0xFF


def remembered(
    exits: Sequence[ProcessExit],
    owner: Mapping[int, ContainerKey],
    name_of: Callable[[ContainerKey], str],
    boot_to_wall_ns: int,
) -> tuple[EndedProcess, ...]:
    """The ones that are kept, in the order of their ends. `owner` is by cgroup."""
    kept = [one for one in exits if one.oom or not one.short_lived or one.cgroup_id in owner]
    kept.sort(key=lambda one: (not one.oom, one.short_lived, -one.cpu_ns, one.ended_ns))
    return tuple(
        _ended(one, owner.get(one.cgroup_id), name_of, boot_to_wall_ns)
        for one in sorted(kept[:MOST], key=lambda one: one.ended_ns)
    )


def _ended(
    one: ProcessExit,
    container: ContainerKey | None,
    name_of: Callable[[ContainerKey], str],
    boot_to_wall_ns: int,
) -> EndedProcess:
    return EndedProcess(
        wall_ns=one.ended_ns + boot_to_wall_ns,
        started_wall_ns=one.key.start_ns + boot_to_wall_ns,
        pid=one.key.pid,
        name=one.comm,
        parent_pid=one.parent.pid,
        parent_name=one.parent_comm,
        container_id=container.id if container else "",
        container_name=name_of(container) if container else "",
        status=status(one.exit_code),
        oom=one.oom,
        cpu_ns=one.cpu_ns,
        peak_rss_kb=one.max_rss_kb,
    )
