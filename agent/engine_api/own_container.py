"""Which container the agent itself runs in, so that no caller ever removes it.

Several traces are followed, since each has a case where it says nothing: the agent's own cgroup
(`/` with a cgroup namespace of its own), the files that an engine mounts into each container
(another one's with `--network=container:X`), what the attribution answers for the agent's own
process (nothing, from the fallback source within a cgroup namespace), and who is in each
container's cgroup (nobody, where that is not mounted). What is found can only spare a container,
so all of it counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from agent.model.attribution import AttributedProcess
from agent.model.container import ContainerCgroup
from agent.model.container_id import ids_in

_ENGINES_FILES = frozenset({"/etc/hostname", "/etc/hosts", "/etc/resolv.conf"})
"""Bind mounts of `<storage>/containers/<id>/hostname` and so on (Docker, podman)."""


class OwnContainer:
    """The full ids that the agent's container may have; none on a host."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._pid = _own_pid(proc)
        self._looked_at: frozenset[str] = frozenset()
        self.ids = ids_of(_text(proc, "cgroup"), _text(proc, "mountinfo"))

    def learn(self, rows: Iterable[AttributedProcess]) -> None:
        """Adds the container that the attribution gives the agent's own process.

        Its pid is enough: we live while the processes are read, so nobody else can have it.
        """
        found = {row.container_id for row in rows if row.process.pid == self._pid}
        if not found <= self.ids:
            self.ids |= found

    def look_into(self, root: Path, cgroups: Iterable[ContainerCgroup]) -> None:
        """Adds the container among whose cgroup's processes the agent is.

        `root` is where the hierarchy is mounted. Each container is looked at once: the agent's own
        was there before the agent was.
        """
        paths = {one.container.id: one.path for one in cgroups if one.path}
        for container_id in paths.keys() - self._looked_at:
            if _is_within(Path(f"{root}{paths[container_id]}")):
                self.ids |= {container_id}
        self._looked_at = frozenset(paths)


def own_ids() -> frozenset[str]:
    """What `/proc` alone tells, for those who read no processes."""
    return OwnContainer().ids


def ids_of(cgroup: str, mountinfo: str) -> frozenset[str]:
    """The ids in `/proc/self/cgroup` and `/proc/self/mountinfo` (proc_pid_mountinfo(5)).

    Of the mounts only the engine's own files count: a host's table of mounts names every container.
    """
    found = set(ids_in(cgroup))
    for line in mountinfo.split("\n"):
        fields = line.split(" ")
        if len(fields) >= 5 and fields[4] in _ENGINES_FILES:
            found.update(ids_in(fields[3]))
    return frozenset(found)


def _is_within(directory: Path) -> bool:
    """Whether we are in this cgroup or in one below; `cgroup.procs` has the reader's own pids."""
    own = str(os.getpid())
    for here, _below, _files in os.walk(directory):
        try:
            if own in (Path(here) / "cgroup.procs").read_text(encoding="ascii").split():
                return True
        except (OSError, ValueError):
            continue
    return False


def _own_pid(proc: Path) -> int:
    """By the numbers of the mounted procfs, which are the host's where the processes are too."""
    try:
        return int(os.readlink(proc / "self"))
    except (OSError, ValueError):
        return os.getpid()


def _text(proc: Path, name: str) -> str:
    try:
        return (proc / "self" / name).read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""
