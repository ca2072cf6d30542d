"""How an answer to «which container is this process?» is put together, and how it looks.

For a living process from one look at the host, the same that a tick takes; for one that ended, from
the history. Values and pure functions: what reads is the command's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from agent.analysis.attribution import has_ended
from agent.cli.views.moments import moment, span
from agent.model.attribution import AttributedProcess, Basis, Verified
from agent.model.process import Process, Source, in_clock_ticks
from agent.model.tick import Tick
from agent.store.incidents import Ended, OomEntry, SeenProcess
from agent.util.terminal import printable

ZOMBIE = "zombie"
_MOST_PARENTS = 32
_KILLED = 137
"""128 and SIGKILL."""
_BASES = {
    Basis.CGROUP: "its cgroup is the container's",
    Basis.ADDED: "its cgroup is the container's, its namespaces are the host's",
    Basis.STRAYED: "its PID namespace is the container's, its cgroup is none's",
    Basis.MOVED: "its cgroup is this container's, its namespaces are another's",
}


@dataclass(frozen=True, slots=True)
class WhoLives:
    """One process that is there."""

    pid: int
    name: str
    state: str
    """`lives`, or `zombie`: it has ended and nobody has waited for it."""
    container: str
    """Its name; "" for the host's own."""
    container_id: str
    image: str
    basis: str
    rests_on: str
    witnesses: str
    parents: tuple[tuple[int, str], ...]
    """The nearest first."""
    since_ms: int
    seen_since_ms: int | None
    """The first tick that saw it in that container, None where no tick did."""
    rss_mb: float
    cpu_s: float
    life_cpu_percent: float
    tick_cpu_percent: float | None
    """Over the last tick's interval, of one CPU; None where no tick has it."""


@dataclass(frozen=True, slots=True)
class WhoEnded:
    """One process that is not there any more."""

    pid: int
    name: str
    state: str
    """`ended`."""
    container: str
    container_id: str
    ended_ms: int
    """Its end; with `exact` false the last tick that saw it."""
    exact: bool
    since_ms: int | None
    status: int | None
    """As a shell has it: 128 and the signal's number for one that was killed."""
    oom: bool
    oom_kill: int | None
    """Its number for `agent oom`."""
    parent_pid: int | None
    parent: str
    cpu_s: float | None
    peak_rss_mb: float | None
    verified: str
    basis: str


def living(
    tick: Tick, process: Process, sightings: Sequence[SeenProcess], boot_to_wall_ns: int
) -> WhoLives:
    """What one look says of a process, with what ticks saw of it."""
    row = next((one for one in tick.attribution.rows if one.process.pid == process.pid), None)
    image = next(
        (one.image for one in tick.containers if row is not None and one.key == row.container), ""
    )
    since_ms = (process.start_ns + boot_to_wall_ns) // 10**6
    mine = [
        one
        for one in sightings
        if one.pid == process.pid
        and one.last_ms >= since_ms
        and row is not None
        and row.container_id.startswith(one.container_id)
    ]
    last = mine[0] if mine else None
    return WhoLives(
        pid=process.pid,
        name=process.name,
        state=ZOMBIE if has_ended(process) else "lives",
        container=row.container_name if row else "",
        container_id=row.container_id if row else "",
        image=image,
        basis=str(row.basis) if row else "",
        rests_on=_rests_on(tick, row),
        witnesses=_witnesses(tick, row, process),
        parents=_parents(tick, process),
        since_ms=since_ms,
        seen_since_ms=max(since_ms, last.first_ms) if last else None,
        rss_mb=round(process.rss_kb / 1024, 3),
        cpu_s=round(process.cpu_ns / 10**9, 3),
        life_cpu_percent=_life_percent(tick, process),
        tick_cpu_percent=round(last.cpu_percent, 3) if last else None,
    )


def _life_percent(tick: Tick, process: Process) -> float:
    lived_ns = max(1, tick.sample.snapshot.snapshot_ns - process.start_ns)
    return round(100 * process.cpu_ns / lived_ns, 3)


def ended(row: Ended, kill: OomEntry | None) -> WhoEnded:
    """What is remembered of a process whose end was seen."""
    return WhoEnded(
        pid=row.pid,
        name=row.name,
        state="ended",
        container=row.container_name,
        container_id=row.container_id,
        ended_ms=row.timestamp_ms,
        exact=True,
        since_ms=row.started_ms,
        status=row.status,
        oom=row.oom,
        oom_kill=kill.number if kill is not None else None,
        parent_pid=row.parent_pid,
        parent=row.parent_name,
        cpu_s=round(row.cpu_ms / 1000, 3),
        peak_rss_mb=round(row.peak_rss_mb, 3),
        verified="",
        basis="",
    )


def last_seen(row: SeenProcess, kill: OomEntry | None) -> WhoEnded:
    """What ticks saw of a process whose end nobody told: the agent ran without BPF, or not."""
    return WhoEnded(
        pid=row.pid,
        name=row.name,
        state="ended",
        container=row.container_name,
        container_id=row.container_id,
        ended_ms=row.last_ms,
        exact=False,
        since_ms=row.first_ms,
        status=None,
        oom=kill is not None,
        oom_kill=kill.number if kill is not None else None,
        parent_pid=None,
        parent="",
        cpu_s=None,
        peak_rss_mb=round(row.ram_mb, 3),
        verified=row.verified,
        basis=row.basis,
    )


def killed(entry: OomEntry) -> WhoEnded:
    """What is known of a victim of the OOM killer whose end nobody else told."""
    kill = entry.kill
    parts = (kill.anon_mb, kill.file_mb, kill.shmem_mb)
    return WhoEnded(
        pid=kill.pid,
        name=kill.name,
        state="ended",
        container=kill.container_name,
        container_id=kill.container_id,
        ended_ms=kill.timestamp_ms,
        exact=True,
        since_ms=None,
        status=_KILLED,
        oom=True,
        oom_kill=entry.number,
        parent_pid=None,
        parent="",
        cpu_s=None,
        peak_rss_mb=None if None in parts else round(sum(one or 0.0 for one in parts), 3),
        verified="",
        basis="",
    )


def text(answer: WhoLives | WhoEnded) -> list[str]:
    """One answer as lines."""
    return _living_text(answer) if isinstance(answer, WhoLives) else _ended_text(answer)


def document(answers: Sequence[WhoLives | WhoEnded], notes: Sequence[str]) -> dict[str, object]:
    """For JSON."""
    return {"processes": [asdict(one) for one in answers], "notes": list(notes)}


def _living_text(one: WhoLives) -> list[str]:
    over = ": it has ended, and its parent has not waited for it" if one.state == ZOMBIE else ""
    lines = [f"{one.pid} {printable(one.name)}{over}"]
    whose = "the host's own"
    if one.container_id:
        image = f", image {printable(one.image)}" if one.image else ""
        whose = f"{printable(one.container)} ({one.container_id[:12]}{image})"
    lines += [f"  container  {whose}", f"  rests on   {printable(one.rests_on)}"]
    lines.append(f"  witnesses  {one.witnesses}")
    chain = " < ".join(f"{printable(name)} {pid}" for pid, name in one.parents)
    lines.append(f"  parents    {chain or 'none'}")
    seen = ""
    if one.seen_since_ms is not None:
        seen = f"; in this container since {moment(one.seen_since_ms)} as ticks saw it"
    lines.append(f"  since      {moment(one.since_ms)}{seen}")
    tick = (
        "" if one.tick_cpu_percent is None else f", {one.tick_cpu_percent:.1f} % in the last tick"
    )
    lines.append(
        f"  costs      {one.rss_mb:.1f} MB of RAM, {one.cpu_s:.2f} s of CPU "
        f"({one.life_cpu_percent:.1f} % of one over its life{tick})"
    )
    return lines


def _ended_text(one: WhoEnded) -> list[str]:
    if one.exact:
        words = [f"ended {moment(one.ended_ms)}", f"status {one.status}"]
    else:
        words = [f"last seen {moment(one.ended_ms)}, its end was not (no BPF then)"]
    if one.oom:
        number = "" if one.oom_kill is None else f" (agent oom {one.oom_kill})"
        words.append(f"OOM{number}")
    whose = f"{printable(one.container)} ({one.container_id})" if one.container_id else "the host"
    if one.container_id and not one.container:
        whose = one.container_id
    lines = [f"{one.pid} {printable(one.name)}: {', '.join(words)}", f"  container  {whose}"]
    if one.verified:
        lines.append(f"  rests on   {one.basis}, {one.verified}, at the last tick that saw it")
    if one.parent:
        lines.append(f"  parents    {printable(one.parent)} {one.parent_pid}")
    if one.since_ms is not None:
        lived = span(one.ended_ms - one.since_ms)
        begin = "since" if one.exact else "seen since"
        lines.append(f"  {begin:<10} {moment(one.since_ms)}, for {lived}")
    if one.cpu_s is not None and one.peak_rss_mb is not None:
        lines.append(
            f"  costs      {one.peak_rss_mb:.1f} MB of RAM at most, {one.cpu_s:.2f} s of CPU"
        )
    return lines


def _rests_on(tick: Tick, row: AttributedProcess | None) -> str:
    if row is not None:
        return _BASES[row.basis]
    if tick.sample.containers.value is None:
        return f"nothing: {tick.sample.containers.missing}"
    return "its cgroup is no container's"


def _witnesses(tick: Tick, row: AttributedProcess | None, process: Process) -> str:
    source = tick.sample.snapshot.source
    first = "the modules" if source is Source.MODULES else "/proc (the modules are not loaded)"
    bpf = tick.sample.bpf
    if bpf.value is None:
        return f"{first}; BPF does not testify: {bpf.missing}"
    if row is None:
        return first + _bpf_of_host(tick, process)
    if row.verified is Verified.AGREE:
        return f"{first} and BPF agree"
    if row.verified is Verified.CONFLICT:
        whom = (row.bpf_container_id or "")[:12] or "no container"
        return f"{first} and BPF disagree: BPF says {whom}"
    return f"{first}; BPF has no record of it"


def _bpf_of_host(tick: Tick, process: Process) -> str:
    """What BPF says of a process that is nobody's."""
    bpf, view = tick.sample.bpf.value, tick.sample.cgroups.value
    if bpf is None or view is None:
        return ""
    wanted = in_clock_ticks(process.key)
    cgroup_id = next(
        (one for key, one in bpf.cgroup_ids.items() if in_clock_ticks(key) == wanted), None
    )
    if cgroup_id is None:
        return "; BPF has no record of it"
    theirs = frozenset[int]().union(
        *(one.ids for one in view.containers.values()), *(one.ids for one in view.foreign.values())
    )
    return " and BPF disagree" if cgroup_id in theirs else " and BPF agree"


def _parents(tick: Tick, process: Process) -> tuple[tuple[int, str], ...]:
    by_pid = {one.pid: one for one in tick.sample.snapshot.processes}
    chain: list[tuple[int, str]] = []
    above = by_pid.get(process.ppid)
    while above is not None and len(chain) < _MOST_PARENTS:
        chain.append((above.pid, above.name))
        above = by_pid.get(above.ppid) if above.ppid not in (0, above.pid) else None
    return tuple(chain)
