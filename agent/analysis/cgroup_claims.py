"""Whose a cgroup is by the name that it was made with. Pure.

For cgroups that came and went between two looks at the directories. Whoever may make a cgroup may
give it any name, so a name counts for what its maker may say:

- Of a maker who was in a container himself it says nothing: what he makes is his container's.
- Root outside of all containers is believed: engines, their runtimes and systemd are.
- Another user is believed (his own engine is) only where a container of that engine is known to
  have its cgroup in the same directory.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from agent.model.bpf import BpfView, CgroupName
from agent.model.cgroup_names import container_like, is_monitors
from agent.model.container import ContainerKey
from agent.model.container_id import ids_in

_MOST_LEVELS = 64


def claimed(
    view: BpfView,
    owner: Mapping[int, ContainerKey],
    foreign: Collection[int],
    containers: Iterable[ContainerKey],
) -> dict[int, ContainerKey]:
    """The container of each named cgroup of nobody in `owner`.

    `foreign` are the cgroups of containers that no engine lists. Where two engines list one id it
    is the first one's.
    """
    unknown = {key: name for key, name in view.names.items() if key not in owner}
    if not unknown:
        return {}
    by_id: dict[str, ContainerKey] = {}
    for key in containers:
        by_id.setdefault(key.id, key)
    places = {
        (container.engine, above)
        for cgroup_id, container in owner.items()
        if (above := view.parents.get(cgroup_id, 0)) and above not in owner
    }
    found: dict[int, ContainerKey] = {}
    inside = set(owner) | set(foreign)
    # In the order of their making: a maker's own cgroup comes before what he makes.
    for cgroup_id, name in unknown.items():
        if _is_inside(name.maker_id, view.parents, inside):
            continue
        if container_like(name.name) is not None:
            inside.add(cgroup_id)
        container = _named(name, by_id)
        if container is None:
            continue
        if name.uid and (container.engine, view.parents.get(cgroup_id, 0)) not in places:
            continue
        found[cgroup_id] = container
        inside.add(cgroup_id)
    return found


def _named(name: CgroupName, by_id: Mapping[str, ContainerKey]) -> ContainerKey | None:
    if is_monitors(name.name):
        return None
    return next((by_id[one] for one in ids_in(name.name) if one in by_id), None)


def _is_inside(cgroup_id: int, parents: Mapping[int, int], inside: Collection[int]) -> bool:
    """Whether a cgroup is one of `inside` or lies below one."""
    for _ in range(_MOST_LEVELS):
        if not cgroup_id or cgroup_id in inside:
            break
        cgroup_id = parents.get(cgroup_id, 0)
    return cgroup_id in inside
