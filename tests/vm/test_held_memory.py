"""What a container holds, by the agent's formula, against what the host has back after its end.

The host's side is `MemAvailable`, its huge pages and its swap, read here; caches are dropped before
each reading, so that what a removal happens to free of them does not count as given back.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.clock import SystemClock
from agent.model.container import DOCKER, ContainerCgroup, ContainerKey
from agent.sources.cgroup import reader
from agent.sources.engine.inventory import Engine
from tests import containers
from tests.vm.conftest import Images
from tests.vm.zram import zram

pytestmark = pytest.mark.full

_MB = 1024
_LESS_KB, _MORE_KB = 24 * _MB, 96 * _MB
"""More comes back by the shim, outside the container's cgroup; the engine's heap goes both ways."""
_FILL = "dd if=/dev/zero of={} bs=1M count={} 2>/dev/null && touch /ready; exec sleep 99999"

_IS_V2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
_HUGEPAGES = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
_ZSWAP = Path("/sys/module/zswap/parameters/enabled")
_FEATURES = Path("/sys/kernel/cgroup/features")
_ACCOUNTING = "memory_hugetlb_accounting"

_PYTHON = """import ctypes, mmap, os, socket, time
libc = ctypes.CDLL(None, use_errno=True)
{}
libc.prctl(15, b"ready")
time.sleep(99999)
"""
"""Runs in the host's root, seen from the container; descriptor 3 is a file of the container's."""

_SOCKETS = """
listener = socket.create_server(("127.0.0.1", 0), backlog=999)
pairs = []
sent = 0
while sent < {size} << 20:
    one = socket.create_connection(listener.getsockname())
    pairs.append((one, listener.accept()[0]))
    one.setblocking(False)
    try:
        while sent < {size} << 20:
            sent += one.send(bytes(1 << 16))
    except BlockingIOError:
        pass
"""
_HUGE = """
pages = mmap.mmap(-1, {size} << 20, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | 0x40000)
for at in range(0, {size} << 20, 2 << 20):
    pages[at] = 1
"""
_LOCKED = """
for _ in range({size}):
    os.write(3, os.urandom(1 << 20))
pages = mmap.mmap(3, {size} << 20)
"""
_LOCK = """
place = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(pages)))
assert libc.mlock(place, ctypes.c_size_t({size} << 20)) == 0, ctypes.get_errno()
"""
_HALF_RANDOM = """
pages = mmap.mmap(-1, {size} << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for at in range(0, {size} << 20, 4096):
    pages[at : at + 2048] = os.urandom(2048)
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """A container that takes memory in one way; sizes in MB."""

    options: Sequence[str]
    command: Sequence[str]
    held: int
    given_back: int | None
    """None for as much as was held."""
    image: str = "alpine"
    needs: str = ""
    """What the host has meanwhile: `huge pages`, `static huge pages`, `zram`, `zswap`."""
    spread: int = 12
    """By how much more may be held."""


def _by_python(what: str, size: int) -> Sequence[str]:
    code = _PYTHON.format(what.format(size=size))
    return ("sh", "-c", 'exec 3<>/file; exec chroot /host /usr/bin/python3 -c "$0"', code)


_HOST = ("-v", "/:/host:ro")

KINDS = {
    "anonymous": Kind(
        (), ("stress", "--vm", "1", "--vm-bytes", "256M", "--vm-keep"), 256, 256, "stress"
    ),
    "tmpfs of its own": Kind(
        ("--tmpfs", "/t:size=300m"), ("sh", "-c", _FILL.format("/t/x", 256)), 256, 256
    ),
    "shared memory": Kind(
        ("--shm-size", "300m"), ("sh", "-c", _FILL.format("/dev/shm/x", 256)), 256, 256
    ),
    "page cache": Kind((), ("sh", "-c", _FILL.format("/x", 256)), 0, 0),
    # cgroup v1 charges nobody for them, where no limit of `memory.kmem.tcp` is set.
    "TCP buffers": Kind(_HOST, _by_python(_SOCKETS, 128), 128 if _IS_V2 else 0, 128, spread=48),
    "surplus huge pages": Kind(
        _HOST, _by_python(_HUGE, 128), 128, 128, needs="huge pages"
    ),
    # The pool is the host's and stays.
    "huge pages of the static pool": Kind(
        _HOST, _by_python(_HUGE, 128), 0, 0, needs="static huge pages"
    ),
    # cgroup v1 counts the file's buffer heads (104 bytes a page) and does not tell that they
    # could be reclaimed; beside them Python's own memory.
    "a locked file": Kind(
        (*_HOST, "--ulimit", "memlock=-1"),
        _by_python(_LOCKED + _LOCK, 256),
        256,
        256,
        spread=12 if _IS_V2 else 24,
    ),
    "locked memory": Kind(
        (*_HOST, "--ulimit", "memlock=-1"),
        _by_python(_HALF_RANDOM + _LOCK, 256),
        256,
        256,
    ),
    "zram": Kind(
        (*_HOST, "-m", "64m", "--memory-swap", "-1"),
        _by_python(_HALF_RANDOM, 400),
        200,
        None,
        needs="zram",
        spread=100,
    ),
    "zswap": Kind(
        (*_HOST, "-m", "256m", "--memory-swap", "-1"),
        _by_python(_HALF_RANDOM, 400),
        200,
        None,
        needs="zswap",
        # From what is compressed to a page of the pool for each.
        spread=230,
    ),
    # Known and documented: the mount is the host's and stays, with its pages.
    "tmpfs of the host": Kind(
        ("-v", "{tmpfs}:/t"), ("sh", "-c", _FILL.format("/t/x", 256)), 256, 0
    ),
}  # fmt: skip
if _FEATURES.exists() and _ACCOUNTING in _FEATURES.read_text(encoding="ascii"):
    KINDS[_ACCOUNTING] = Kind(_HOST, _by_python(_HUGE, 128), 128, 128, needs=_ACCOUNTING)


def _run(*words: str) -> None:
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def _huge_pages(name: str, count: int) -> Iterator[None]:
    (_HUGEPAGES / name).write_text(str(count), encoding="ascii")
    try:
        yield
    finally:
        (_HUGEPAGES / name).write_text("0", encoding="ascii")


@contextmanager
def _accounted_huge_pages() -> Iterator[None]:
    options = "remount,nsdelegate,memory_recursiveprot"
    _run("mount", "-o", f"{options},{_ACCOUNTING}", "/sys/fs/cgroup")
    try:
        with _huge_pages("nr_overcommit_hugepages", 100):
            yield
    finally:
        _run("mount", "-o", options, "/sys/fs/cgroup")


@contextmanager
def _zswap() -> Iterator[None]:
    file = Path("/var/tmp/so1-swap")
    _run("fallocate", "-l", "1G", str(file))
    file.chmod(0o600)
    _run("mkswap", str(file))
    was = _ZSWAP.read_text(encoding="ascii")
    _ZSWAP.write_text("1", encoding="ascii")
    _run("swapon", str(file))
    try:
        yield
    finally:
        _run("swapoff", str(file))
        _ZSWAP.write_text(was, encoding="ascii")
        file.unlink()


_NEEDS: Mapping[str, Callable[[], AbstractContextManager[object]]] = {
    "": nullcontext,
    "huge pages": lambda: _huge_pages("nr_overcommit_hugepages", 100),
    "static huge pages": lambda: _huge_pages("nr_hugepages", 100),
    _ACCOUNTING: _accounted_huge_pages,
    "zram": lambda: zram(1024),
    "zswap": _zswap,
}


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "none", str(tmp_path)], check=True)
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def meminfo_kb(name: str) -> int:
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    return int(text.partition(f"{name}:")[2].split()[0])


def available_kb() -> int:
    """The host's available memory once it stays where it is, without droppable caches."""
    subprocess.run(["sync"], check=True)
    last = 0
    for _ in range(60):
        Path("/proc/sys/vm/drop_caches").write_text("3", encoding="ascii")
        now = meminfo_kb("MemAvailable")
        if abs(now - last) < _MB:
            return now
        last = now
        time.sleep(1)
    raise AssertionError("the host's memory does not come to rest")


def _is_ready(box: str, kind: Kind) -> bool:
    if "/host" in str(kind.command):
        assert containers.inspect(box)["State"]["Running"], _logs(box)
        comm = Path(f"/proc/{containers.first_pid(box)}/comm").read_text(encoding="ascii")
        return comm == "ready\n"
    return "yes" in containers.docker("exec", box, "sh", "-c", "[ ! -e /ready ] || echo yes")


def _logs(box: str) -> str:
    done = subprocess.run(["docker", "logs", box], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@pytest.mark.parametrize("name", KINDS)
def test_what_is_held_is_what_the_host_has_back(
    name: str, images: Images, started: containers.Containers, tmpfs: Path
) -> None:
    kind = KINDS[name]
    with _NEEDS[kind.needs]():
        held, back = _held_and_given_back(name, kind, images, started, tmpfs)
    assert kind.held * _MB <= held <= (kind.held + kind.spread) * _MB
    expected = held if kind.given_back is None else kind.given_back * _MB
    assert -_LESS_KB <= back - expected <= _MORE_KB


def _held_and_given_back(
    name: str, kind: Kind, images: Images, started: containers.Containers, tmpfs: Path
) -> tuple[int, int]:
    image = images.stress if kind.image == "stress" else images.alpine
    options = [word.format(tmpfs=tmpfs) for word in kind.options]
    box = started.run(image, list(kind.command), options=options)
    engine, layout = Engine(containers.HOST, SystemClock(), 60.0), reader.detect()

    def cgroup() -> ContainerCgroup:
        return reader.read(layout, engine.list().containers).containers[ContainerKey(DOCKER, box)]

    def held_kb() -> int:
        found = cgroup().held_kb
        assert found is not None
        return found

    if kind.image == "stress":
        containers.wait_until(lambda: held_kb() >= kind.held * _MB, "it has its memory")
    else:
        containers.wait_until(lambda: _is_ready(box, kind), "it has its memory")
    counters = ("MemAvailable", "HugePages_Surp", "HugePages_Free", "SwapFree")
    before = {**{one: meminfo_kb(one) for one in counters}, "MemAvailable": available_kb()}
    held = held_kb()
    print(f"\n{name}: {cgroup()}")
    _print_files(box)
    containers.docker("rm", "-f", box, timeout_s=600)
    after = {**{one: meminfo_kb(one) for one in counters}, "MemAvailable": available_kb()}
    engine.close()
    back = after["MemAvailable"] - before["MemAvailable"]
    others = {one: after[one] - before[one] for one in counters[1:]}
    print(f"\n{name}: held {held / _MB:.1f} MB, given back {back / _MB:.1f} MB, {others}")
    return held, back


def _print_files(box: str) -> None:
    """What the kernel says of it, for whoever looks for a gap."""
    for directory in Path("/sys/fs/cgroup").rglob(f"*{box}*"):
        for file in sorted(directory.glob("*")):
            shown = ("memory.stat", "memory.swap.current", "memory.zswap.current", "hugetlb.2MB.",
                     "memory.current", "memory.usage_in", "memory.kmem")  # fmt: skip
            if file.name.startswith(shown) and "max" not in file.name:
                words = file.read_text(encoding="ascii").split()
                print(f"{file.relative_to('/sys/fs/cgroup')}: {' '.join(words)}")
    for one in ("/proc/swaps", "/sys/block/zram0/mm_stat"):
        if Path(one).exists():
            print(f"{one}: {Path(one).read_text(encoding='ascii')}")
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    print([line for line in text.splitlines() if line.startswith(("Z", "Swap", "Huge"))])
