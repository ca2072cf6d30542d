"""bash/load_modules.sh on a real kernel: what it loads, keeps, replaces, undoes and refuses."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.containers import wait_until
from tests.vm import modules_support as host

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).resolve().parents[2]
SCRIPT = PROJECT / "bash" / "load_modules.sh"
RELEASE = os.uname().release
HEADERS = Path(f"/lib/modules/{RELEASE}/build")

KERNEL, TOOLS, HEADERS_MISSING, LOCKED, BUILD, LOAD, UNLOAD = 4, 5, 6, 7, 8, 9, 11


def script(
    *options: str, path: Path = SCRIPT, prefix: tuple[str, ...] = (), **settings: object
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*prefix, "bash", str(path), *options],
        env=os.environ | {name: str(value) for name, value in settings.items()},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )


def succeeded(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    assert done.returncode == 0, done.stderr
    return done


def refused(done: subprocess.CompletedProcess[str], status: int) -> str:
    """The last line said, of a run that ended with `status`."""
    assert done.returncode == status, done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.endswith((".", ")")), "not a sentence"
    assert ": " in line, "without a remedy"
    return line


def loaded() -> set[str]:
    return {name for name in host.MODULES if Path(f"/sys/module/{name}/initstate").exists()}


def identity(module: str) -> int:
    """A number that another load of the module does not have."""
    return Path(f"/sys/module/{module}").stat().st_ino


def kernel_log() -> list[str]:
    done = subprocess.run(["dmesg", "--raw"], capture_output=True, check=True)
    return [
        line.split("] ", 1)[-1].strip()
        for line in done.stdout.decode(errors="replace").splitlines()
    ]


@pytest.fixture(autouse=True)
def as_found(guest: None) -> Iterator[None]:
    """Other tests may use the modules: what was loaded before is loaded afterwards."""
    before = loaded()
    succeeded(script("--unload"))
    yield
    succeeded(script() if before else script("--unload"))


@pytest.fixture
def built() -> Path:
    """The directory of the modules that the lab has built."""
    directory = Path(succeeded(script("--print-dir")).stdout.strip())
    assert (directory / "sysinfo.ko").exists(), "the lab has not seeded the modules"
    return directory


@pytest.fixture
def copied(built: Path, tmp_path: Path) -> Path:
    """A build root of the test's own with the same modules; SO1_BUILD_ROOT may name it."""
    target = tmp_path / "build" / RELEASE / built.name
    shutil.copytree(built, target)
    return target


def seal(directory: Path) -> None:
    """Make what is in a build directory count as whole."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(directory.glob("*.ko"))
    ]
    (directory / "SHA256SUMS").write_text("".join(lines))


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


LAY_OVER = 'while [ "$1" != -- ]; do mount --bind "$1" "$2"; shift 2; done; shift; exec "$@"'
TARGETS = {
    "lockdown": "/sys/kernel/security/lockdown",
    "modules_disabled": "/proc/sys/kernel/modules_disabled",
    "sig_enforce": "/sys/module/module/parameters/sig_enforce",
    "mokutil": "/usr/bin/mokutil",
}


def over(**files: Path) -> tuple[str, ...]:
    """A prefix under which files of the kernel read otherwise, for the script alone."""
    return laid({TARGETS[name]: path for name, path in files.items()})


def laid(files: dict[str, Path]) -> tuple[str, ...]:
    words = [word for target, path in files.items() for word in (str(path), target)]
    return ("unshare", "--mount", "bash", "-c", LAY_OVER, "lay", *words, "--")


@pytest.mark.parametrize("missing", ["make", "gcc", "insmod"])
def test_a_missing_program_is_named_before_anything_is_built(tmp_path: Path, missing: str) -> None:
    # What is no program any more is not found in the path.
    hidden = {shutil.which(missing) or "", *map(str, Path("/usr/bin").glob(f"{missing}-[0-9]*"))}
    done = script(
        prefix=laid({target: Path("/dev/null") for target in hidden}),
        SO1_BUILD_ROOT=tmp_path / "empty",
    )
    line = refused(done, TOOLS)
    assert missing in line
    assert "sudo apt-get install" in line
    assert not list(tmp_path.glob("empty/*/.aside*"))


def test_missing_headers_are_named_with_their_package(tmp_path: Path) -> None:
    done = script(SO1_BUILD_ROOT=tmp_path, KDIR=tmp_path / "none")
    assert f"sudo apt-get install -y linux-headers-{RELEASE}" in refused(done, HEADERS_MISSING)


@pytest.fixture
def mokutil(tmp_path: Path) -> Path:
    """A mokutil of a machine with Secure Boot on that does not know our key."""
    program = tmp_path / "mokutil"
    program.write_text(
        '#!/bin/sh\ncase $1 in\n--sb-state) echo "SecureBoot enabled" ;;\n'
        '--test-key) echo "$2 is not enrolled" ;;\nesac\n'
    )
    program.chmod(0o755)
    return program


def test_a_locked_down_kernel_without_a_key_is_told_before_anything_is_built(
    tmp_path: Path, mokutil: Path
) -> None:
    lockdown, enforce = tmp_path / "lockdown", tmp_path / "enforce"
    lockdown.write_text("none [integrity] confidentiality\n")
    enforce.write_text("Y\n")
    for prefix, why in (
        (over(lockdown=lockdown), "This kernel is locked down"),
        (over(sig_enforce=enforce), "This kernel is locked down"),
        (over(lockdown=lockdown, mokutil=mokutil), "Secure Boot is on"),
    ):
        line = refused(script(prefix=prefix, SO1_BUILD_ROOT=tmp_path / "empty"), LOCKED)
        assert why in line
        assert "openssl req" in line
        assert "mokutil --import" in line
    assert not (tmp_path / "empty").exists()


def test_a_key_that_the_firmware_does_not_know_is_told_before_anything_is_built(
    tmp_path: Path, mokutil: Path
) -> None:
    lockdown = tmp_path / "lockdown"
    lockdown.write_text("none [integrity] confidentiality\n")
    key, certificate = signing_key(tmp_path)
    done = script(
        prefix=over(lockdown=lockdown, mokutil=mokutil),
        SO1_BUILD_ROOT=tmp_path / "empty",
        SO1_SIGN_KEY=key,
        SO1_SIGN_CERT=certificate,
    )
    assert f"mokutil --import {certificate}" in refused(done, LOCKED)
    assert not (tmp_path / "empty").exists()


def signing_key(directory: Path) -> tuple[Path, Path]:
    key, certificate = directory / "mok.key", directory / "mok.pub"
    request = "openssl req -new -x509 -newkey rsa:2048 -nodes -days 9 -subj /CN=so1-test/"
    files = f" -outform DER -keyout {key} -out {certificate}"
    subprocess.run(shlex.split(request + files), check=True, capture_output=True)
    return key, certificate


def test_a_kernel_that_takes_no_more_modules_is_told_so(tmp_path: Path) -> None:
    disabled = tmp_path / "disabled"
    disabled.write_text("1\n")
    done = script(prefix=over(modules_disabled=disabled))
    assert "kernel.modules_disabled" in refused(done, KERNEL)


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
            wchan = Path(f"/proc/{reader.pid}/wchan")
            wait_until(lambda: "userfault" in wchan.read_text(), "the read has begun")
            line = refused(script("--unload"), UNLOAD)
            assert f"({reader.pid})" in line
            assert loaded() == {"sysinfo"}
            # The lock is free, and another run says the same instead of waiting for it.
            with open("/run/so1/modules.lock", "rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            assert f"({reader.pid})" in refused(script(), UNLOAD)
        finally:
            reader.kill()
    wait_until(lambda: not loaded(), "the removal ends by itself")
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
        _, said = call.communicate(timeout=120)
        assert call.returncode == 0, said
    assert loaded() == set(host.MODULES)


@pytest.mark.full
def test_it_builds_from_a_read_only_checkout_once(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    subprocess.run(["mount", "--bind", PROJECT, checkout], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", checkout], check=True)
        path = checkout / "bash" / "load_modules.sh"
        started = time.monotonic()
        first = succeeded(script(path=path, SO1_BUILD_ROOT=tmp_path / "build"))
        assert "built" in first.stderr
        building_s = time.monotonic() - started
        (directory,) = tmp_path.glob("build/*/*/")
        second = succeeded(script(path=path, SO1_BUILD_ROOT=tmp_path / "build"))
        assert "built" not in second.stderr
        assert {file.name for file in directory.iterdir()} == {
            *("sysinfo.ko", "continfo.ko", "sysinfo.srcversion", "continfo.srcversion"),
            *("build.log", "SHA256SUMS"),
        }
        print(f"built in {building_s:.0f} s")
    finally:
        subprocess.run(["umount", checkout], check=True)


@pytest.mark.full
def test_an_error_in_the_sources_is_shown_and_leaves_no_half_build(tmp_path: Path) -> None:
    for part in ("bash", "kernel"):
        shutil.copytree(PROJECT / part, tmp_path / part)
    source = tmp_path / "kernel" / "modules" / "sysinfo.c"
    source.write_text(source.read_text() + "\nnot C at all;\n")
    done = script(path=tmp_path / "bash" / "load_modules.sh", SO1_BUILD_ROOT=tmp_path / "build")
    assert "error:" in refused(done, BUILD)
    assert not list(tmp_path.glob("build/*/*/"))
    assert (tmp_path / "build" / RELEASE / "failed.log").exists()


@pytest.mark.full
def test_a_locked_down_kernel_is_given_signed_modules(tmp_path: Path) -> None:
    lockdown, silent = tmp_path / "lockdown", tmp_path / "mokutil"
    lockdown.write_text("none [integrity] confidentiality\n")
    silent.write_text("#!/bin/sh\n")
    silent.chmod(0o755)
    key, certificate = signing_key(tmp_path)
    succeeded(
        script(
            prefix=over(lockdown=lockdown, mokutil=silent),
            SO1_BUILD_ROOT=tmp_path / "build",
            SO1_SIGN_KEY=key,
            SO1_SIGN_CERT=certificate,
        )
    )
    for module in tmp_path.glob("build/*/*/*.ko"):
        signer = subprocess.run(["modinfo", "-F", "signer", module], capture_output=True, text=True)
        assert signer.stdout.strip() == "so1-test"


@pytest.mark.full
def test_the_sources_compile_without_a_warning(tmp_path: Path) -> None:
    shutil.copytree(PROJECT / "kernel" / "modules", tmp_path / "modules")
    done = subprocess.run(
        ["make", "-C", tmp_path / "modules", "check"], capture_output=True, text=True, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "CHECK" in said
    assert "warning" not in said.lower()
