"""bash/load_modules.sh on a real kernel: what it loads, keeps, replaces, undoes and unloads."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.containers import wait_until
from tests.vm import modules_support as host
from tests.vm.loader import (
    HEADERS_MISSING,
    LOAD,
    SCRIPT,
    UNLOAD,
    as_found,
    built,
    copied,
    identity,
    kernel_log,
    loaded,
    refused,
    script,
    seal,
    succeeded,
)

__all__ = ["as_found", "built", "copied"]


def test_both_modules_are_loaded_and_answer_and_nothing_is_built(built: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in built.iterdir()}
    # Without headers nothing could be built.
    succeeded(script(KDIR="/nonexistent"))
    assert loaded() == set(host.MODULES)
    assert len(host.processes()) > 20
    assert host.candidates() is not None
    assert {path: path.stat().st_mtime_ns for path in built.iterdir()} == before


def test_a_second_call_leaves_the_modules_as_they_are() -> None:
    succeeded(script())
    before = [identity(module) for module in host.MODULES]
    succeeded(script())
    assert [identity(module) for module in host.MODULES] == before


def test_loading_and_unloading_log_one_line_each_beside_the_taint() -> None:
    start = len(kernel_log())
    succeeded(script())
    succeeded(script("--unload"))
    succeeded(script("--unload"))
    verification = "module verification failed: signature and/or required key missing"
    allowed = {
        "sysinfo: loading out-of-tree module taints kernel.",
        f"sysinfo: {verification} - tainting kernel",
    }
    said = [line for line in kernel_log()[start:] if line not in allowed and "audit" not in line]
    assert said == [
        "Modulo sysinfo cargado.",
        "Modulo continfo cargado.",
        "Modulo continfo descargado.",
        "Modulo sysinfo descargado.",
    ]
    assert loaded() == set()
    assert not host.SYSINFO.exists()


def test_what_is_missing_of_the_two_is_added() -> None:
    succeeded(script())
    before = identity("continfo")
    subprocess.run(["rmmod", "sysinfo"], check=True)
    succeeded(script())
    assert loaded() == set(host.MODULES)
    assert identity("continfo") == before


def test_a_module_of_another_source_is_replaced(copied: Path) -> None:
    succeeded(script())
    before = {module: identity(module) for module in host.MODULES}
    (copied / "sysinfo.srcversion").write_text("0123456789ABCDEF01234567\n")
    succeeded(script(SO1_BUILD_ROOT=copied.parents[1]))
    assert identity("sysinfo") != before["sysinfo"]
    assert identity("continfo") == before["continfo"]


def test_settings_reach_the_modules_and_a_change_of_them_replaces_those_loaded() -> None:
    succeeded(script())
    settings: dict[str, Any] = {
        "SO1_SYSINFO_ENTRY": "sysinfo_other-1",
        "SO1_CONTINFO_ENTRY": "continfo",
        "SO1_MODULE_MODE": "0400",
        "SO1_MAX_SNAPSHOTS": 2,
    }
    succeeded(script(**settings))
    assert not host.SYSINFO.exists()
    for path in (Path("/proc/sysinfo_other-1"), Path("/proc/continfo")):
        assert path.stat().st_mode & 0o777 == 0o400
        nobody = ["setpriv", "--reuid=65534", "--clear-groups", "cat", str(path)]
        assert subprocess.run(nobody, capture_output=True, check=False).returncode == 1
        with path.open("rb") as first, path.open("rb") as second, path.open("rb") as third:
            assert first.read()
            assert second.read()
            with pytest.raises(OSError, match="busy"):
                third.read()
    before = [identity(module) for module in host.MODULES]
    succeeded(script(**settings))
    assert [identity(module) for module in host.MODULES] == before


@pytest.mark.parametrize(
    "parameter",
    [
        "mode=0666",
        "mode=0644",
        "mode=0",
        "mode=01444",
        "max_snapshots=0",
        "max_snapshots=4097",
        "entry=stat",
        "entry=sysinf",
        "entry=sysinfo/x",
        "entry=sysinfo.x",
        "entry=",
        "entry=sysinfo" + "x" * 250,
    ],
)
def test_a_module_refuses_a_parameter_that_makes_no_sense(built: Path, parameter: str) -> None:
    done = subprocess.run(
        ["insmod", built / "sysinfo.ko", parameter], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "Invalid parameters" in done.stderr
    assert loaded() == set()


def test_what_was_loaded_is_unloaded_when_a_later_step_fails(copied: Path) -> None:
    # The second module turns out to be the first again, which the kernel refuses.
    shutil.copy(copied / "sysinfo.ko", copied / "continfo.ko")
    seal(copied)
    line = refused(script(SO1_BUILD_ROOT=copied.parents[1]), LOAD)
    assert "continfo cannot be loaded (File exists)" in line
    assert loaded() == set()


def test_what_was_loaded_before_stays_when_a_later_step_fails(copied: Path) -> None:
    succeeded(script())
    subprocess.run(["rmmod", "continfo"], check=True)
    shutil.copy(copied / "sysinfo.ko", copied / "continfo.ko")
    seal(copied)
    refused(script(SO1_BUILD_ROOT=copied.parents[1]), LOAD)
    assert loaded() == {"sysinfo"}


def test_a_damaged_build_is_not_loaded(copied: Path) -> None:
    with (copied / "sysinfo.ko").open("r+b") as file:
        file.truncate(100_000)
    done = script(SO1_BUILD_ROOT=copied.parents[1], KDIR="/nonexistent")
    assert "/nonexistent" in refused(done, HEADERS_MISSING)
    assert loaded() == set()


def test_a_build_that_others_may_write_is_not_loaded(copied: Path) -> None:
    for path in (copied, copied.parent, copied / "sysinfo.ko"):
        mode = path.stat().st_mode & 0o777
        path.chmod(mode | 0o020)
        assert str(path) in refused(script(SO1_BUILD_ROOT=copied.parents[1]), LOAD)
        path.chmod(mode)
    os.chown(copied, 65534, 0)
    assert "chown root" in refused(script(SO1_BUILD_ROOT=copied.parents[1]), LOAD)
    assert loaded() == set()


def test_a_module_goes_under_open_files_and_their_next_read_is_an_error() -> None:
    succeeded(script())
    unread = host.SYSINFO.open("rb", buffering=0)
    begun = host.SYSINFO.open("rb", buffering=0)
    other = host.CONTINFO.open("rb", buffering=0)
    with unread, begun, other:
        assert begun.read(10)
        assert other.read(1)
        succeeded(script("--unload"))
        assert loaded() == set()
        for file in (unread, begun, other):
            with pytest.raises(OSError, match="Input/output error"):
                file.read(1)
        succeeded(script())
        with pytest.raises(OSError, match="Input/output error"):
            begun.read(1)
    assert host.processes()


HELD_READER = """
import ctypes, fcntl, mmap, os, platform, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
number = {"x86_64": 323, "aarch64": 282}[platform.machine()]
handler = libc.syscall(number, os.O_CLOEXEC)  # userfaultfd(2)
assert handler >= 0, os.strerror(ctypes.get_errno())
fcntl.ioctl(handler, 0xC018AA3F, bytearray(struct.pack("QQQ", 0xAA, 0, 0)))  # UFFDIO_API
page = mmap.mmap(-1, mmap.PAGESIZE)
where = ctypes.addressof(ctypes.c_char.from_buffer(page))
register = struct.pack("QQQQ", where, mmap.PAGESIZE, 1, 0)
fcntl.ioctl(handler, 0xC020AA00, bytearray(register))  # UFFDIO_REGISTER, missing pages
file = os.open(sys.argv[1], os.O_RDONLY)
print("reading", flush=True)
libc.read(file, ctypes.c_void_p(where), mmap.PAGESIZE)  # into memory that nobody ever fills
"""


def test_a_read_that_never_ends_is_named_and_holds_up_nothing_else() -> None:
    succeeded(script())
    with subprocess.Popen(
        [sys.executable, "-c", HELD_READER, str(host.SYSINFO)], stdout=subprocess.PIPE
    ) as reader:
        try:
            assert reader.stdout is not None
            assert reader.stdout.readline() == b"reading\n"
            # Not wchan, which is 0 before 5.16 where the kernel unwinds by ORC.
            stack = Path(f"/proc/{reader.pid}/stack")
            wait_until(lambda: "handle_userfault" in stack.read_text(), "the read has begun")
            line = refused(script("--unload"), UNLOAD)
            assert f"({reader.pid})" in line
            assert loaded() == {"sysinfo"}
            # The lock is free, another run says the same, and what is held goes on being read.
            with open("/run/so1/modules.lock", "rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            assert f"({reader.pid})" in refused(script("--unload"), UNLOAD)
            succeeded(script())
            assert loaded() == set(host.MODULES)
        finally:
            reader.kill()
    # The kernel refused at once, so nothing is under way: the next call unloads it.
    succeeded(script("--unload"))
    assert loaded() == set()
    succeeded(script())
    assert loaded() == set(host.MODULES)
    assert host.processes()


def test_two_calls_at_once_both_succeed() -> None:
    environment = os.environ | {"LC_ALL": "C"}
    calls = [
        subprocess.Popen(["bash", SCRIPT], stderr=subprocess.PIPE, env=environment, text=True)
        for _ in range(3)
    ]
    for call in calls:
        _, said = call.communicate(timeout=600)
        assert call.returncode == 0, said
    assert loaded() == set(host.MODULES)
