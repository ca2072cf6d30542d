"""What a container holds, by the agent's formula, against what the host has back after its end.

The host's side is `MemAvailable`, read here; caches are dropped before each reading, so that what
a removal happens to free of them does not count as given back.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.clock import SystemClock
from agent.sources.cgroup import reader
from agent.sources.engine.inventory import Engine
from tests import containers
from tests.vm.conftest import Images

pytestmark = pytest.mark.full

_MB = 1024
_LESS_KB, _MORE_KB = 24 * _MB, 96 * _MB
"""More comes back by the shim, outside the container's cgroup; the engine's heap goes both ways."""
_FILL = "dd if=/dev/zero of={} bs=1M count={} 2>/dev/null && touch /ready; exec sleep 99999"


@dataclass(frozen=True, slots=True)
class Kind:
    """A container that takes memory in one way; sizes in MB."""

    options: Sequence[str]
    command: Sequence[str]
    held: int
    given_back: int
    image: str = "alpine"


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
    # Known and documented: the mount is the host's and stays, with its pages.
    "tmpfs of the host": Kind(
        ("-v", "{tmpfs}:/t"), ("sh", "-c", _FILL.format("/t/x", 256)), 256, 0
    ),
}  # fmt: skip


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "none", str(tmp_path)], check=True)
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def available_kb() -> int:
    """The host's available memory once it stays where it is, without droppable caches."""
    subprocess.run(["sync"], check=True)
    last = 0
    for _ in range(60):
        Path("/proc/sys/vm/drop_caches").write_text("3", encoding="ascii")
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        now = int(text.partition("MemAvailable:")[2].split()[0])
        if abs(now - last) < _MB:
            return now
        last = now
        time.sleep(1)
    raise AssertionError("the host's memory does not come to rest")


@pytest.mark.parametrize("name", KINDS)
def test_what_is_held_is_what_the_host_has_back(
    name: str, images: Images, started: containers.Containers, tmpfs: Path
) -> None:
    kind = KINDS[name]
    image = images.stress if kind.image == "stress" else images.alpine
    options = [word.format(tmpfs=tmpfs) for word in kind.options]
    box = started.run(image, list(kind.command), options=options)
    engine, layout = Engine(containers.HOST, SystemClock()), reader.detect()

    def held_kb() -> int:
        found = reader.read(layout, engine.list().containers).containers[box]
        assert found.held_kb is not None
        return found.held_kb

    if kind.image == "stress":
        containers.wait_until(lambda: held_kb() >= kind.held * _MB, "it has its memory")
    else:
        containers.wait_until(
            lambda: containers.docker("exec", box, "sh", "-c", "[ ! -e /ready ] || echo yes"),
            "it has written",
        )
    before = available_kb()
    held = held_kb()
    containers.docker("rm", "-f", box)
    back = available_kb() - before
    engine.close()
    print(f"\n{name}: held {held / _MB:.1f} MB, given back {back / _MB:.1f} MB")
    assert kind.held * _MB <= held <= (kind.held + 12) * _MB
    assert -_LESS_KB <= back - kind.given_back * _MB <= _MORE_KB
