"""What a container's cgroup says, against what was put in and the kernel's files themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.clock import SystemClock
from agent.model.container import DOCKER, ContainerCgroup, ContainerKey, HeldBasis
from agent.sources.cgroup import reader
from agent.sources.engine.inventory import Engine
from tests.attribution_support import directories_of, identifying_root
from tests.containers import STRESS, wait_until
from tests.docker.private_engine import PrivateEngine, private_engine


@pytest.fixture(scope="module")
def docker() -> Iterator[PrivateEngine]:
    if not identifying_root().is_dir():
        pytest.skip("needs cgroups at /sys/fs/cgroup")
    with private_engine() as made:
        yield made


@pytest.fixture
def engine(docker: PrivateEngine) -> Iterator[Engine]:
    made = Engine(docker.host, SystemClock())
    yield made
    made.close()
    docker.clear()


def look(engine: Engine, layout: reader.CgroupLayout, key: str) -> ContainerCgroup:
    return reader.read(layout, engine.list().containers).containers[ContainerKey(DOCKER, key)]


def test_held_memory_is_what_was_put_in_and_tmpfs_counts(
    docker: PrivateEngine, engine: Engine
) -> None:
    small = docker.run()
    anonymous = docker.run(
        image=STRESS, command=("stress", "--vm", "1", "--vm-bytes", "48M", "--vm-keep")
    )
    fill = "dd if=/dev/zero of=/dev/shm/x bs=1M count=24 2>/dev/null; exec sleep 9999"
    shared = docker.run(command=("sh", "-c", fill))
    layout = reader.detect()
    wait_until(lambda: (look(engine, layout, anonymous).held_kb or 0) >= 48 * 1024, "48 MB")
    wait_until(lambda: (look(engine, layout, shared).held_kb or 0) >= 24 * 1024, "24 MB")
    assert (look(engine, layout, anonymous).held_kb or 0) < 60 * 1024
    assert (look(engine, layout, shared).held_kb or 0) < 32 * 1024
    assert (look(engine, layout, small).held_kb or 0) < 8 * 1024
    bases = {look(engine, layout, key).held_basis for key in (small, anonymous, shared)}
    assert len(bases) == 1
    assert bases < {HeldBasis.CGROUP1, HeldBasis.CGROUP2}


def test_page_cache_is_not_held(docker: PrivateEngine, engine: Engine) -> None:
    write = (
        "dd if=/dev/zero of=/file bs=1M count=24 2>/dev/null; cat /file >/dev/null; exec sleep 9999"
    )
    box = docker.run(command=("sh", "-c", write))
    layout = reader.detect()
    wait_until(lambda: (look(engine, layout, box).cache_kb or 0) >= 20 * 1024, "cache")
    found = look(engine, layout, box)
    assert found.held_kb is not None
    assert found.held_kb < 10 * 1024


def test_cpu_time_rises_between_two_readings_of_the_kernels_own_file(
    docker: PrivateEngine, engine: Engine
) -> None:
    box = docker.run(image=STRESS, command=("stress", "--cpu", "1"))
    layout = reader.detect()
    wait_until(lambda: _usage_ns(box) > 200_000_000, "it has burnt 0.2 s")
    before = _usage_ns(box)
    found = look(engine, layout, box)
    after = _usage_ns(box)
    assert found.cpu_ns is not None
    assert before <= found.cpu_ns <= after


def _usage_ns(box: str) -> int:
    """By hand, from wherever this kernel keeps it."""
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        (directory,) = directories_of(box)
        lines = (directory / "cpu.stat").read_text(encoding="ascii").splitlines()
        return int(dict(line.split() for line in lines)["usage_usec"]) * 1000
    (file,) = (root / "cpuacct").rglob(f"*{box}*/cpuacct.usage")
    return int(file.read_text(encoding="ascii"))


@pytest.mark.oom_kill
def test_a_kill_for_lack_of_memory_is_counted(docker: PrivateEngine, engine: Engine) -> None:
    script = "for i in 1 2; do stress --vm 1 --vm-bytes 64M --vm-keep -t 20; done; exec sleep 9999"
    box = docker.run(
        "--memory=24m", "--memory-swap=24m", image=STRESS, command=("sh", "-c", script)
    )
    layout = reader.detect()
    wait_until(lambda: (look(engine, layout, box).oom_kills or 0) >= 1, "a kill")


def test_every_containers_directory_is_found_with_all_below(
    docker: PrivateEngine, engine: Engine
) -> None:
    boxes = [docker.run() for _ in range(3)]
    (directory,) = directories_of(boxes[0])
    (directory / "inner" / "deep").mkdir(parents=True)
    view = reader.read(reader.detect(), engine.list().containers)
    for box in boxes:
        (place,) = directories_of(box)
        expected = {place.stat().st_ino, *(one.stat().st_ino for one in place.rglob("*/"))}
        assert view.containers[ContainerKey(DOCKER, box)].ids == expected
    (directory / "inner" / "deep").rmdir()
    (directory / "inner").rmdir()
