"""What containers read, write and send, for rules that ask whether one is idle.

I/O is what its cgroup was charged with: `io.stat` (cgroup-v2.rst) or the blkio controller's
`throttle.io_serviced` (v1 blkio-controller.rst). Sent bytes are those of its network namespace,
where that is its own: one that it shares with the host or another container proves nothing.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.clock import Clock, SystemClock
from agent.errors import SourceError
from agent.model.activity import Activity
from agent.model.container import CgroupView, Container, ContainerKey
from agent.sources import procfs
from agent.sources.cgroup.layout import CgroupLayout, detect

NO_IO = "this host counts no container's I/O (io.stat or blkio.throttle.io_serviced)"
SHARED = "its network is shared"
_V1_FILES = ("blkio.throttle.io_serviced_recursive", "blkio.throttle.io_serviced")
_LOOPBACK = b"lo"
_SENT_FIELD = 8
"""Of `/proc/net/dev`: bytes sent, behind eight figures of what was received."""


def read(
    layout: CgroupLayout,
    containers: Sequence[Container],
    view: CgroupView,
    clock: Clock | None = None,
) -> Mapping[ContainerKey, Activity]:
    """The counters of each running container. What cannot be read is said in `missing`."""
    clock = clock or SystemClock()
    proc = os.fspath(layout.proc)
    firsts = {one.key: one.first_pid for one in containers if one.first_pid > 0}
    networks = {key: _network(proc, pid) for key, pid in firsts.items()}
    problem = io_problem(layout)
    users = Counter(networks.values())
    users[_network(proc, 1) or _network(proc, "self")] += 1
    found = {}
    for key, pid in firsts.items():
        cgroup = view.containers.get(key)
        if cgroup is None or not cgroup.path or cgroup.cpu_ns is None:
            found[key] = Activity(clock.boot_ns(), 0, missing="its cgroup was not found")
            continue
        operations = None if problem else _operations(layout, proc, pid, key.id, cgroup.path)
        sent = _sent_bytes(proc, pid) if networks[key] else None
        missing = ""
        if operations is None:
            missing = NO_IO
        elif sent is None:
            missing = "its network cannot be read"
        elif users[networks[key]] > 1:
            missing = SHARED
        found[key] = Activity(
            clock.boot_ns(), cgroup.life_id, cgroup.cpu_ns, operations or 0, sent or 0, missing
        )
    return found


def host_io_problem() -> str:
    """`io_problem` of this host; "" where nothing tells its containers apart either."""
    try:
        return io_problem(detect())
    except SourceError:
        return ""


def io_problem(layout: CgroupLayout) -> str:
    """Why this host counts no container's I/O, "" where it does.

    The throttling layer of newer kernels (seen on 6.18) counts nothing on v1 before somebody sets a
    limit: then the root, which all I/O passes, has not one device.
    """
    if layout.blkio1_root is not None:
        return "" if any(_has_device(layout.blkio1_root, name) for name in _V1_FILES) else NO_IO
    try:
        text = procfs.read(f"{layout.default_root or layout.root}/cgroup.controllers")
    except OSError:
        return NO_IO
    return "" if b"io" in text.split() else NO_IO


def _has_device(directory: Path, name: str) -> bool:
    try:
        return b":" in procfs.read(f"{directory}/{name}")
    except OSError:
        return False


def operations_v2(text: bytes) -> int:
    """Reads, writes and discards of all devices in `io.stat`; lines of dead devices have none."""
    return sum(
        int(number)
        for line in text.splitlines()
        for name, _, number in (word.partition(b"=") for word in line.split()[1:])
        if name in (b"rios", b"wios", b"dios")
    )


def operations_v1(text: bytes) -> int:
    """The last line's `Total`, of all devices."""
    for line in reversed(text.splitlines()):
        words = line.split()
        if len(words) == 2 and words[0] == b"Total":
            return int(words[1])
    return 0


def sent_bytes(text: bytes) -> int:
    """What all interfaces of `/proc/PID/net/dev` but `lo` have sent."""
    sent = 0
    for line in text.splitlines():
        name, colon, figures = line.rpartition(b":")
        if colon and name.strip() != _LOOPBACK:
            sent += int(figures.split()[_SENT_FIELD])
    return sent


def _network(proc: str, pid: int | str) -> int:
    """Its number, 0 where it cannot be read."""
    try:
        return procfs.namespace(proc, pid, "net")
    except (OSError, ValueError):
        return 0


def _sent_bytes(proc: str, pid: int) -> int | None:
    try:
        return sent_bytes(procfs.read(f"{proc}/{pid}/net/dev"))
    except (OSError, ValueError, IndexError):
        return None


def _operations(
    layout: CgroupLayout, proc: str, pid: int, container_id: str, path: str
) -> int | None:
    try:
        if layout.blkio1_root is None:
            root = layout.default_root or layout.root
            return operations_v2(procfs.read(f"{root}{path}/io.stat"))
        # With systemd and `--cgroup-parent` the hierarchies have other paths.
        own = procfs.parse_cgroups(procfs.read(f"{proc}/{pid}/cgroup")).get("blkio", "")
        if container_id in own:
            path = own
        directory = f"{layout.blkio1_root}{path}"
        for name in _V1_FILES:
            try:
                return operations_v1(procfs.read(f"{directory}/{name}"))
            except FileNotFoundError:
                continue
    except (OSError, ValueError):
        return None
    return None
