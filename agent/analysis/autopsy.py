"""What an OOM kill was: whose limit, who had grown, who lived beside, and who bears witness. Pure.

The victim is whom the kernel chose, which is not always who took the memory. So growth is measured:
each process's resident memory after the kill (or when it ended, or was killed) against what it had
at the ticks before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from agent.model.bpf import ProcessExit
from agent.model.cgroup_names import container_like
from agent.model.container import DOCKER, ContainerKey
from agent.model.oom import (
    LoggedKill,
    MemoryLevel,
    Neighbour,
    OomCause,
    OomKill,
    OomMark,
    OomWitness,
)
from agent.model.process import ProcessKey, in_clock_ticks

SLACK_KB = 1024
"""A limit is reached where so little is left: charges come in batches of up to 64 pages a CPU."""
LEAST_GROWTH_KB = 1024
MOST_BESIDE = 8
SMALL_KB = 4096
"""A process that was smaller is not remembered, and counts as nothing."""


class NameAndImage(NamedTuple):
    """A container's name and image."""

    name: str
    image: str


_NAMELESS = NameAndImage("", "")


class Living(NamedTuple):
    """One process of a snapshot."""

    name: str
    rss_kb: int
    cgroup_id: int


@dataclass(frozen=True, slots=True)
class Remembered:
    """The larger processes of one earlier tick, by their keys in clock ticks."""

    at_ns: int
    rss_kb: Mapping[ProcessKey, int]


@dataclass(frozen=True, slots=True)
class Scene:
    """What is known of the host around the kills."""

    now_ns: int
    """Boot clock of `living`."""
    wall_ns: int
    """The same moment by the wall."""
    living: Mapping[ProcessKey, Living] = field(default_factory=dict)
    """By keys in clock ticks."""
    earlier: Sequence[Remembered] = ()
    """The ticks before, oldest first."""
    exits: Sequence[ProcessExit] = ()
    owner: Mapping[int, ContainerKey] = field(default_factory=dict)
    """The container of each cgroup that is one's."""
    parents: Mapping[int, int] = field(default_factory=dict)
    """Parent's id of each cgroup, 0 at the root."""
    containers: Mapping[ContainerKey, NameAndImage] = field(default_factory=dict)
    counted: Mapping[ContainerKey, int] = field(default_factory=dict)
    """Kills since the last tick by the container's own counter, where it can be read still."""
    host_total_kb: int = 0
    ooms_before: Mapping[int, int] = field(default_factory=dict)
    """By cgroup: how often it had been out of memory at the last kill that it was seen at."""


class Told(NamedTuple):
    """One kill by whoever told of it."""

    mark: OomMark | None
    logged: LoggedKill | None


def pair(
    marks: Sequence[OomMark], logged: Sequence[LoggedKill], told_lately: Collection[int] = ()
) -> tuple[list[Told], list[LoggedKill]]:
    """Each mark with its line of the log, and the lines that no mark explains.

    A process is killed once: a second mark of the same one is another of its threads, and of a
    group that dies together the kernel logs the first victim twice. `told_lately` are pids of kills
    that were told a moment ago.
    """
    lines: dict[int, list[LoggedKill]] = {}
    for line in logged:
        lines.setdefault(line.pid, []).append(line)
    found: list[Told] = []
    seen: set[ProcessKey] = set()
    for mark in marks:
        if mark.key in seen:
            continue
        seen.add(mark.key)
        mine = lines.get(mark.key.pid)
        found.append(Told(mark, mine.pop(0) if mine else None))
    told = {one.key.pid for one in marks} | set(told_lately)
    return found, [rest[0] for pid, rest in lines.items() if rest and pid not in told]


def autopsies(told: Sequence[Told], scene: Scene) -> tuple[OomKill, ...]:
    """One finding for each kill, in the order of `told`."""
    killed = {
        in_clock_ticks(one.mark.key): one.mark.memory.rss_kb
        for one in told
        if one.mark is not None and one.mark.memory is not None
    }
    ooms = dict(scene.ooms_before)
    found = []
    for one in told:
        found.append(_autopsy(one, scene, killed, ooms))
        if one.mark is not None:
            ooms.update((level.cgroup_id, level.ooms) for level in one.mark.levels)
    return _counted(found, scene)


def at_limit(levels: Sequence[MemoryLevel], ooms_before: Mapping[int, int]) -> MemoryLevel | None:
    """Whose limit it was: of those that were out of memory since they were last seen the lowest
    that is at its limit, as a charge fails at the lowest; None where no counter tells."""
    risen = [one for one in levels if one.ooms > ooms_before.get(one.cgroup_id, 0)]
    for one in risen:
        if _is_full(one.used_kb, one.limit_kb) or _is_full(one.swap_used_kb, one.swap_limit_kb):
            return one
    # What others gave back meanwhile may be more than the slack; who raised the event is certain.
    limited = [one for one in risen if one.limit_kb is not None]
    return limited[0] if len(limited) == 1 else None


def _is_full(used_kb: int, limit_kb: int | None) -> bool:
    return limit_kb is not None and used_kb + SLACK_KB >= limit_kb


def _autopsy(
    told: Told, scene: Scene, killed: Mapping[ProcessKey, int], ooms: Mapping[int, int]
) -> OomKill:
    mark, logged = told
    cause = _cause(mark, logged)
    limit = at_limit(mark.levels, ooms) if mark and cause in _LIMITED else None
    if limit is not None and cause is OomCause.UNKNOWN:
        cause = OomCause.LIMIT
    names = [level.name for level in mark.levels][::-1] if mark else []
    cgroup = "/" + "/".join(names) if names else (logged.victim_path if logged else "")
    victim = _container(mark.cgroup_id if mark else 0, cgroup, scene)
    trigger = (
        _container(mark.trigger_cgroup_id, mark.trigger_cgroup, scene) if mark is not None else None
    )
    limit_cgroup = ""
    if mark and limit is not None:
        place = mark.levels.index(limit)
        limit_cgroup = "/" + "/".join(level.name for level in mark.levels[place:][::-1])
    elif logged is not None and cause is OomCause.LIMIT:
        limit_cgroup = logged.limit_path
    limited = _container(limit.cgroup_id if limit else 0, limit_cgroup, scene)
    is_host = cause in (OomCause.HOST, OomCause.SYSRQ)
    within = limit.cgroup_id if limit else 0
    near, grower, since_ns = _growth(
        told,
        scene,
        killed,
        (within, is_host, limited or victim),
        scene.host_total_kb if is_host else (limit.limit_kb if limit else 0) or 0,
    )
    memory = mark.memory if mark and mark.memory else logged.memory if logged else None
    at_ns = mark.marked_ns if mark else min(logged.logged_ns, scene.now_ns) if logged else 0
    own = scene.containers.get(victim, _NAMELESS) if victim else _NAMELESS
    return OomKill(
        wall_ns=scene.wall_ns - max(0, scene.now_ns - at_ns),
        pid=mark.key.pid if mark else logged.pid if logged else 0,
        name=(mark.comm if mark else "") or (logged.comm if logged else ""),
        container_id=victim.id if victim else "",
        container_name=own.name,
        engine=victim.engine if victim else DOCKER,
        image=own.image,
        cgroup=cgroup,
        memory=memory,
        oom_score_adj=(
            mark.oom_score_adj
            if mark and mark.oom_score_adj is not None
            else logged.oom_score_adj
            if logged
            else None
        ),
        trigger_pid=mark.trigger.pid if mark else (logged and logged.trigger_pid) or None,
        trigger_name=mark.trigger_comm if mark else logged.trigger_comm if logged else "",
        trigger_container_id=trigger.id if trigger else "",
        trigger_container_name=_name(trigger, scene),
        cause=cause,
        limit_cgroup=limit_cgroup,
        limit_container_name=_name(limited, scene) or (limited.short_id if limited else ""),
        limit_kb=scene.host_total_kb or None if is_host else limit.limit_kb if limit else None,
        used_kb=limit.used_kb if limit and not is_host else None,
        grower=grower if grower is not None and grower.grown_kb >= LEAST_GROWTH_KB else None,
        grown_s=None if since_ns is None else round(max(0, at_ns - since_ns) / 10**9, 3),
        beside=tuple(sorted(near, key=lambda one: -one.rss_kb)[:MOST_BESIDE]),
        witnesses=tuple(
            witness
            for witness, is_there in (
                (OomWitness.BPF, mark is not None),
                (OomWitness.KERNEL_LOG, logged is not None),
            )
            if is_there
        ),
    )


_LIMITED = (OomCause.LIMIT, OomCause.UNKNOWN)


def _cause(mark: OomMark | None, logged: LoggedKill | None) -> OomCause:
    if mark is not None and mark.cause is not OomCause.UNKNOWN:
        return mark.cause
    if logged is not None:
        return OomCause.LIMIT if logged.is_limit else OomCause.HOST
    return OomCause.UNKNOWN


def _container(cgroup_id: int, path: str, scene: Scene) -> ContainerKey | None:
    """Whose a cgroup is: by its id or one above it, else by the names in its path."""
    steps = 0
    while cgroup_id and steps < 64:
        if (owner := scene.owner.get(cgroup_id)) is not None:
            return owner
        cgroup_id = scene.parents.get(cgroup_id, 0)
        steps += 1
    for name in path.split("/"):
        if (found := container_like(name)) is not None:
            runtime, container_id = found
            known = next((one for one in scene.containers if one.id == container_id), None)
            return known or ContainerKey(runtime, container_id)
    return None


def _name(container: ContainerKey | None, scene: Scene) -> str:
    return scene.containers.get(container, _NAMELESS).name if container is not None else ""


def _is_below(cgroup_id: int, top: int, parents: Mapping[int, int]) -> bool:
    for _ in range(64):
        if cgroup_id in (0, top):
            break
        cgroup_id = parents.get(cgroup_id, 0)
    return cgroup_id == top


Concerned = tuple[int, bool, ContainerKey | None]
"""Whom a limit is for: those below that cgroup, all of the host, or those of that container."""


def _growth(
    told: Told,
    scene: Scene,
    killed: Mapping[ProcessKey, int],
    concerned: Concerned,
    limit_kb: int,
) -> tuple[list[Neighbour], Neighbour | None, int | None]:
    """Who lived then, who of them grew most, and since when (None: nothing is known before).

    Since the last tick if somebody grew by a tenth of the limit since, else since one before: what
    pushed over the edge comes before what grew long ago, and a slow leak is seen at all.
    """
    near: list[Neighbour] = []
    grower = None
    for place in range(len(scene.earlier) - 1, -1, -1) or (0,):
        earlier = scene.earlier[place:]
        near = _neighbours(told.mark, scene, earlier, killed, concerned)
        grower = max(near, key=lambda one: (one.grown_kb, one.rss_kb), default=None)
        if grower is not None and grower.grown_kb >= max(LEAST_GROWTH_KB, limit_kb // 10):
            return near, grower, earlier[0].at_ns if earlier else None
    return near, grower, scene.earlier[0].at_ns if scene.earlier else None


def _neighbours(
    mark: OomMark | None,
    scene: Scene,
    earlier: Sequence[Remembered],
    killed: Mapping[ProcessKey, int],
    concerned: Concerned,
) -> list[Neighbour]:
    """Every process that the limit is for and that lived when the victim was chosen."""
    within, is_host, container = concerned

    def counts(cgroup_id: int) -> bool:
        if is_host:
            return True
        if within:
            return _is_below(cgroup_id, within, scene.parents)
        return container is not None and _container(cgroup_id, "", scene) == container

    at_ns = mark.marked_ns if mark else scene.now_ns
    found: dict[ProcessKey, Neighbour] = {}

    def add(
        key: ProcessKey, name: str, rss_kb: int, cgroup_id: int, state: str, peak: bool = False
    ) -> None:
        before_kb, first_known = _before(key, earlier)
        if peak and not first_known:
            # Its largest may be long ago: only what was measured counts as growth.
            rss_kb = max((one.rss_kb.get(key, 0) for one in scene.earlier), default=0)
        name_of = _name(_container(cgroup_id, "", scene), scene)
        found[key] = Neighbour(key.pid, name, name_of, rss_kb, rss_kb - before_kb, state)

    for key, one in scene.living.items():
        if key.start_ns <= at_ns and counts(one.cgroup_id):
            add(key, one.name, one.rss_kb, one.cgroup_id, "lived")
    for gone in scene.exits:
        key = in_clock_ticks(gone.key)
        if gone.ended_ns >= at_ns >= gone.key.start_ns and counts(gone.cgroup_id):
            add(key, gone.comm, gone.max_rss_kb, gone.cgroup_id, "ended", peak=True)
    if mark is not None and mark.memory is not None:
        key = in_clock_ticks(mark.key)
        add(key, mark.comm, mark.memory.rss_kb, mark.cgroup_id, "killed")
    for key, rss_kb in killed.items():
        if key in found and found[key].state != "killed":
            before_kb, _ = _before(key, earlier)
            found[key] = found[key]._replace(
                rss_kb=rss_kb, grown_kb=rss_kb - before_kb, state="killed"
            )
    return list(found.values())


def _before(key: ProcessKey, earlier: Sequence[Remembered]) -> tuple[int, bool]:
    """What it had at the first tick that knew it, and whether it was born since the first of all
    (then it had nothing)."""
    if not earlier or key.start_ns > earlier[0].at_ns:
        return 0, True
    return earlier[0].rss_kb.get(key, 0), False


def _counted(found: Iterable[OomKill], scene: Scene) -> tuple[OomKill, ...]:
    """With the containers' own counters as a witness, where they counted at least so many kills."""
    kills = list(found)
    number: dict[str, int] = {}
    for one in kills:
        number[one.container_id] = number.get(one.container_id, 0) + 1
    agreeing = {
        key.id for key, count in scene.counted.items() if 0 < number.get(key.id, 0) <= count
    }
    return tuple(
        replace(one, witnesses=(*one.witnesses, OomWitness.COUNTER))
        if one.container_id in agreeing
        else one
        for one in kills
    )


__all__ = ["Living", "NameAndImage", "Remembered", "Scene", "Told", "at_limit", "autopsies", "pair"]
