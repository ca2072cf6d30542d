"""Failing allocations and leaks, which only a debug kernel can bring about and see."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.vm import modules_support as host
from tests.vm.modules_support import scene

if TYPE_CHECKING:
    from collections.abc import Iterator

DEBUG = Path("/sys/kernel/debug")
LEAKS = DEBUG / "kmemleak"
_ANYWHERE = "0xffffffffffffffff"
"""The `require-end` of a boot: no look at the stack."""
both = pytest.mark.parametrize("module", host.MODULES)


def entry(module: str) -> Path:
    return {"sysinfo": host.SYSINFO, "continfo": host.CONTINFO}[module]


@contextmanager
def injection(probability: int = 0, **settings: object) -> Iterator[None]:
    """Let slab and page allocations fail as the settings of the kernel's fault injection say.

    A probability without `task_filter` is for the whole system. A task's own `fail-nth` needs none
    (lib/fault-inject.c, should_fail_ex).
    """
    common = {"ignore-gfp-wait": "N", "verbose": 0, "times": -1, "interval": 1}
    reset = {"probability": 0, "task-filter": "N", "require-start": 0, "require-end": _ANYWHERE}

    def write(values: dict[str, object]) -> None:
        for kind in ("failslab", "fail_page_alloc"):
            for name, value in values.items():
                (DEBUG / kind / name).write_text(f"{value}\n")

    (DEBUG / "fail_page_alloc" / "min-order").write_text("0\n")
    (DEBUG / "fail_page_alloc" / "ignore-gfp-highmem").write_text("N\n")
    write(common | {name.replace("_", "-"): value for name, value in settings.items()})
    # Last: until the others stand it would be anybody's allocations that fail.
    write({"probability": probability})
    try:
        yield
    finally:
        write(reset)


@contextmanager
def of_this_process() -> Iterator[None]:
    """This process's allocations, and those of its children, are what an injection is for."""
    mine = Path("/proc/self/make-it-fail")
    mine.write_text("1")
    try:
        yield
    finally:
        mine.write_text("0")


def all_slots_are_free(path: Path) -> None:
    held = [path.open("rb") for _ in range(64)]
    for file in held:
        assert file.read(1)
    for file in held:
        file.close()


def read_whole(path: Path) -> bytes:
    """The file by plain system calls: nothing else of this task's may need memory meanwhile."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        parts, length = [], 0
        while part := os.pread(descriptor, 1 << 16, length):
            parts.append(part)
            length += len(part)
    finally:
        os.close(descriptor)
    return b"".join(parts)


@both
@pytest.mark.usefixtures("modules")
def test_each_single_allocation_of_a_read_may_fail(module: str) -> None:
    path = entry(module)
    # Held open: to open it takes memory as well, which would be what fails.
    order = os.open(f"/proc/self/task/{threading.get_native_id()}/fail-nth", os.O_RDWR)
    failed = number = 0
    left = b"0"
    with scene("parked", 300, prefix=("unshare", "--uts")), injection():
        while left == b"0":
            number += 1
            assert number < 399
            text = None
            os.pwrite(order, b"%d" % number, 0)
            try:
                text = read_whole(path)
            except OSError as error:
                problem = error.errno
            left = os.pread(order, 16, 0).strip()
            os.pwrite(order, b"0", 0)
            # An allocation may fail without harm where there is another way to the memory.
            if text is not None:
                json.loads(text)
            else:
                assert problem == errno.ENOMEM
                failed += 1
    os.close(order)
    print(f"{number - 1} allocations, {failed} of them needed")
    assert failed >= 3
    all_slots_are_free(path)


@both
@pytest.mark.usefixtures("modules")
def test_allocations_of_the_module_may_fail_at_random(module: str) -> None:
    path = entry(module)
    sections = Path(f"/sys/module/{module}/sections")
    start = int((sections / ".text").read_text(), 16)
    outcomes = [0, 0]
    with (
        scene("parked", 300, prefix=("unshare", "--uts")),
        of_this_process(),
        injection(
            probability=2,
            task_filter="Y",
            require_start=hex(start),
            require_end=hex(start + 0x8000),
            stacktrace_depth=32,
        ),
    ):
        for _ in range(300):
            try:
                json.loads(read_whole(path))
                outcomes[0] += 1
            except OSError as error:
                assert error.errno == errno.ENOMEM
                outcomes[1] += 1
    assert min(outcomes) > 0
    all_slots_are_free(path)


def test_nothing_leaks_over_reads_loads_and_unloads(modules: object) -> None:
    build = subprocess.run(
        ["bash", "bash/load_modules.sh", "--print-dir"], check=True, capture_output=True, text=True
    ).stdout.strip()
    LEAKS.write_text("clear\n")
    with scene("crowd", 100, 20, 1, prefix=("unshare", "--uts")):
        for _ in range(10):
            held = [path.open("rb") for path in (host.SYSINFO, host.CONTINFO) for _ in range(3)]
            for file in held[:4]:
                file.read(10)
            for name in reversed(host.MODULES):
                host.rmmod(name)
            for file in held:
                file.close()
            for name in host.MODULES:
                subprocess.run(["insmod", f"{build}/{name}.ko"], check=True)
            host.SYSINFO.read_bytes()
            host.CONTINFO.read_bytes()
    # kmemleak takes two looks, and reports only what is older than 5 s.
    LEAKS.write_text("scan\n")
    time.sleep(6)
    LEAKS.write_text("scan\n")
    records = LEAKS.read_text().split("unreferenced object")[1:]
    # Ours by name, or by an address where a module was that is unloaded.
    ours = [text for text in records if "sysinfo" in text or "continfo" in text or "[<0" in text]
    assert not ours
