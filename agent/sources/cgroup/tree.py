"""All directories of one cgroup hierarchy, and which of them are a container's.

The directory of a container is found by the container's full id anywhere in its name, whatever the
prefix, the depth or the driver. Names prove little by themselves (whoever may make a cgroup may
give it any name), so where several carry one id the first process decides.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from agent.model.cgroup_names import container_like, holds_pods, is_monitors
from agent.model.container_id import ids_in

log = logging.getLogger(__name__)

MAX_DEPTH = 128
MAX_DIRECTORIES = 200_000

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEVER_DOCKERS = re.compile(r"^(libpod|cri-containerd|crio)-")


@dataclass(frozen=True, slots=True)
class Directory:
    """One cgroup. `parent` is its parent's place in the list; parents come first."""

    path: str
    """Below the hierarchy's mount, as in `/proc/PID/cgroup`: `/` for the root. "" below MAX_DEPTH:
    such a one is only somebody's below whom it lies."""
    inode: int
    """The cgroup's id (64-bit kernels since 5.5: kernfs gives both the same number)."""
    parent: int
    depth: int
    uid: int

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


def walk(root: str) -> list[Directory]:
    """Every directory of the hierarchy mounted at `root`, the root first; empty where it is gone.

    Cgroups vanish while it walks; they are left out. Beyond MAX_DIRECTORIES nothing is looked at,
    which is logged.
    """
    return [directory for directory, _, _ in _visit(root)]


def members(root: str, file: str) -> dict[int, int]:
    """The cgroup's id of every task that the cgroups' `file` names: `tasks` or `cgroup.threads`.

    For what `/proc/PID/cgroup` does not show: the kernel refuses a path of PATH_MAX bytes or more,
    or cuts it (proc_cgroup_show).
    """
    found: dict[int, int] = {}
    for directory, parent, name in _visit(root):
        try:
            descriptor = os.open(f"{name}/{file}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=parent)
            with os.fdopen(descriptor, "rb") as tasks:
                found.update((int(task), directory.inode) for task in tasks.read().split())
        except (OSError, ValueError):
            continue
    return found


def inode_at(root: str, path: str) -> int:
    """The inode of the cgroup at `path`, which may be too long for one call. Raises OSError."""
    descriptor = os.open(root, _DIRECTORY)
    try:
        for name in filter(None, path.split("/")):
            below = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        return os.fstat(descriptor).st_ino
    finally:
        os.close(descriptor)


def _visit(root: str) -> Iterator[tuple[Directory, int, str]]:
    """Each directory with a descriptor and a name: the name leads to it from there, until the
    next one is requested.

    One descriptor goes down by names and up by `..`, which leads up from a removed directory too: a
    workload may nest them deeper than a path, a stack or a table of descriptors is long.
    """
    try:
        descriptor = os.open(root, _DIRECTORY)
    except OSError:
        return
    try:
        status = os.fstat(descriptor)
        top = Directory("/", status.st_ino, -1, 0, status.st_uid)
        yield top, descriptor, "."
        count = 1
        entered: tuple[int, Directory] | None = (0, top)
        left: list[list[tuple[int, Directory, str]]] = []
        while True:
            if entered is not None:
                inner = []
                for directory, name, has_more in _children(descriptor, *entered):
                    if count >= MAX_DIRECTORIES:
                        log.warning("cgroups=%d the rest is not looked at", count)
                        return
                    yield directory, descriptor, name
                    if has_more:
                        inner.append((count, directory, name))
                    count += 1
                left.append(inner)
            entered = None
            if left[-1]:
                place, directory, name = left[-1].pop()
                try:
                    other = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
                except OSError:
                    continue
                entered = (place, directory)
            else:
                left.pop()
                if not left:
                    return
                other = os.open("..", _DIRECTORY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = other
    except OSError as error:
        log.warning("cgroups=unread %s", error)
    finally:
        os.close(descriptor)


def _children(
    descriptor: int, place: int, here: Directory
) -> Iterator[tuple[Directory, str, bool]]:
    """The directories in the one open at `descriptor`, their names, and whether more is in them."""
    prefix = here.path if here.path != "/" else ""
    depth = here.depth + 1
    try:
        with os.scandir(descriptor) as entries:
            for entry in entries:
                try:
                    if not entry.is_dir(follow_symlinks=False):
                        continue
                    status = entry.stat(follow_symlinks=False)
                except OSError:
                    continue
                # Each path is as long as all names above it: endless depth would take all memory.
                path = f"{prefix}/{os.fsdecode(entry.name)}" if depth <= MAX_DEPTH else ""
                directory = Directory(path, status.st_ino, place, depth, status.st_uid)
                # A directory of kernfs has 2 links and one more for each directory in it.
                yield directory, entry.name, status.st_nlink != 2
    except OSError:
        return


def choose(
    directories: list[Directory],
    wanted: Iterable[str],
    first_paths: Mapping[str, str],
) -> dict[str, int]:
    """The directory of each container in `wanted` that has one: container id → place in the list.

    `first_paths` are the paths of first processes' cgroups, where they are known. Of several
    directories with one id the one goes first that holds the first process, then one that root made
    (a user with a delegated cgroup may call it anything), then one of an engine's form (podman's
    health checks are `<id>.service`), then the one nearest the root. A monitor's is none.
    """
    ids = frozenset(wanted)
    candidates: dict[str, list[int]] = {}
    for place, directory in enumerate(directories):
        for container_id in ids_in(directory.name):
            if container_id in ids and not is_monitors(directory.name):
                candidates.setdefault(container_id, []).append(place)

    def rank(container_id: str, place: int) -> tuple[bool, bool, bool, int, str]:
        directory = directories[place]
        holds_first = _is_within(first_paths.get(container_id, ""), directory.path)
        odd_form = container_like(directory.name) is None
        return (not holds_first, directory.uid != 0, odd_form, directory.depth, directory.path)

    chosen: dict[str, int] = {}
    for container_id, places in candidates.items():
        chosen[container_id] = min(places, key=lambda place: rank(container_id, place))
    return chosen


def _is_within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def owners(directories: list[Directory], chosen: Mapping[str, int]) -> list[str]:
    """The container of each directory, "" for none: the innermost chosen one at or above it.

    A container started with another one's cgroup as `--cgroup-parent` lies inside that one's
    directory and is still itself.
    """
    by_place = {place: container_id for container_id, place in chosen.items()}
    owner: list[str] = []
    for place, directory in enumerate(directories):
        inherited = owner[directory.parent] if directory.parent >= 0 else ""
        owner.append(by_place.get(place, inherited))
    return owner


@dataclass(frozen=True, slots=True)
class Unlisted:
    """A container-like directory that is no listed container's, with all that is below it."""

    id: str
    runtime: str
    """The part of its name before the id: `libpod`, `docker`, "" for a bare id."""
    path: str
    inodes: frozenset[int]

    @property
    def is_never_dockers(self) -> bool:
        return _NEVER_DOCKERS.match(self.runtime + "-") is not None


def unlisted(
    directories: list[Directory], owner: list[str], listed: frozenset[str]
) -> list[Unlisted]:
    """Outermost directories outside all containers of an engine's form with an id not listed."""
    place_of: list[int] = []
    ids: dict[int, tuple[str, str]] = {}
    inodes: dict[int, set[int]] = {}
    for place, directory in enumerate(directories):
        above = place_of[directory.parent] if directory.parent >= 0 else -1
        if owner[place]:
            above = -1
        elif (
            above < 0
            and (named := container_like(directory.name))
            and named[1] not in listed
            and not (named[0] == "" and holds_pods(directories[directory.parent].name))
        ):
            above = place
            ids[place] = named
        place_of.append(above)
        if above >= 0:
            inodes.setdefault(above, set()).add(directory.inode)
    return [
        Unlisted(container_id, runtime, directories[place].path, frozenset(inodes[place]))
        for place, (runtime, container_id) in ids.items()
    ]
