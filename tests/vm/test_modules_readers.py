"""Readers who never end, are slow, hold much, or may not know all: what they cannot bring about."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.vm import modules_support as host
from tests.vm.modules_support import program, scene, standing
from tests.vm.test_modules_snapshot import (
    NOBODY,
    SHARE,
    as_nobody,
    both,
    opened,
    user_who_takes_all,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("modules")


def built(name: str) -> str:
    """The .ko that load_modules.sh loads."""
    directory = subprocess.run(
        ["bash", "bash/load_modules.sh", "--print-dir"], check=True, capture_output=True, text=True
    ).stdout.strip()
    return f"{directory}/{name}.ko"


def insmod(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["insmod", *words], capture_output=True, text=True, check=False)


@contextmanager
def stuck_reader(path: Path, directory: Path) -> Iterator[int]:
    """The PID of a user whose read of `path` waits for a page that his file server never gives."""
    # The caller's directory is root's alone.
    for parent in (directory, *directory.parents[:2]):
        parent.chmod(0o755)
    with standing([program("stuck_reader"), str(path), str(directory)]) as reader:
        yield reader.pid


@both
def test_rmmod_refuses_at_once_while_a_reader_s_own_page_never_comes(
    path: Path, tmp_path: Path
) -> None:
    module = path.name.split("_")[0]
    holders = Path(f"/sys/module/{module}/parameters/holders")
    try:
        with stuck_reader(path, tmp_path) as pid:
            removal = subprocess.Popen(
                ["rmmod", module], stderr=subprocess.PIPE, text=True, start_new_session=True
            )
            # Where it waits for the reader, it cannot even be killed.
            _, said = removal.communicate(timeout=60)
            assert removal.returncode == 1
            assert "in use" in said
            assert holders.read_text().split() == [str(pid)]
            # It goes on for everybody else.
            json.loads(path.read_bytes())
            json.loads(as_nobody("cat", str(path)).stdout)
        host.rmmod(module)
        assert not path.exists()
    finally:
        if not path.exists():
            assert insmod(built(module)).returncode == 0
    assert holders.read_text() == "\n"
    assert holders.stat().st_mode & 0o777 == 0o400


def test_a_descriptor_that_nobody_reads_from_holds_no_module() -> None:
    try:
        with opened(host.SYSINFO) as descriptor:
            assert os.read(descriptor, 1) == b"{"
            host.rmmod("sysinfo")
            with pytest.raises(OSError, match="Input/output"):
                os.read(descriptor, 1)
    finally:
        assert insmod(built("sysinfo")).returncode == 0


# Since Linux 6.18 who has spent its quota is stopped on its way back to user space, so a read ends.
_THROTTLED_OUTSIDE = host.LINUX >= (6, 18)

SLOW_READER = """
import os, sys
descriptor = os.open(sys.argv[1], os.O_RDONLY)
buffer = bytearray(1 << 24)
for name, value in zip(sys.argv[2::2], sys.argv[3::2]):
    open(name, "w").write(value or str(os.getpid()))
try:
    print(os.readv(descriptor, [buffer]))
except OSError as error:
    print(-error.errno)
"""


def test_a_reader_with_next_to_no_cpu_does_not_keep_the_module_from_going() -> None:
    mounts = host.cgroup_hierarchies()
    v1 = "cpu" in mounts
    directory = mounts["cpu" if v1 else ""] / "so1-test-slow"
    if not v1:
        (directory.parent / "cgroup.subtree_control").write_text("+cpu")
    directory.mkdir()
    limits = (
        {"cpu.cfs_period_us": "1000000", "cpu.cfs_quota_us": "1000"}
        if v1
        else {"cpu.max": "1000 1000000"}
    )
    for name, value in limits.items():
        (directory / name).write_text(value)

    def throttled() -> int:
        text = (directory / "cpu.stat").read_text()
        return int(dict(line.split() for line in text.splitlines())["nr_throttled"])

    try:
        with (
            scene("parked", 4000),
            subprocess.Popen(
                [sys.executable, "-c", SLOW_READER, host.SYSINFO, directory / "cgroup.procs", ""],
                stdout=subprocess.PIPE,
                text=True,
            ) as reader,
        ):
            host.eventually(lambda: _assert(throttled() >= 3))
            host.rmmod("sysinfo")
            (directory.parent / "cgroup.procs").write_text(str(reader.pid))
            said, _ = reader.communicate(timeout=600)
        # Amid its walk, which it ended. Where it is stopped outside the kernel alone, it may
        # as well have read all before the module went.
        assert int(said) == -errno.EIO or (_THROTTLED_OUTSIDE and int(said) > 0)
    finally:
        if not host.SYSINFO.exists():
            assert insmod(built("sysinfo")).returncode == 0
        directory.rmdir()


def _assert(condition: bool) -> None:
    assert condition


@pytest.fixture
def one_megabyte() -> Iterator[None]:
    """Sysinfo with the smallest bound of bytes."""
    host.rmmod("sysinfo")
    assert insmod(built("sysinfo"), "max_mb=1").returncode == 0
    yield
    host.rmmod("sysinfo")
    assert insmod(built("sysinfo")).returncode == 0


@pytest.mark.usefixtures("one_megabyte")
def test_what_users_hold_is_bounded_by_bytes_alone_and_together_and_a_first_one_always_fits() -> (
    None
):
    with scene("parked", 1500), ExitStack() as stack:
        size = len(host.SYSINFO.read_bytes())
        # A quarter of 1 MB is less than one, and three are more than 1 MB.
        assert 1 << 18 < size < 1 << 19
        users = [
            stack.enter_context(user_who_takes_all(host.SYSINFO, user=NOBODY - number))
            for number in range(3)
        ]
        assert users == [(1, errno.EBUSY), (1, errno.EBUSY), (0, errno.EBUSY)]
        # The privileged hold as many as ever.
        for _ in range(8):
            descriptor = stack.enter_context(opened(host.SYSINFO))
            assert len(os.pread(descriptor, 1 << 20, 0)) > 1 << 18
    # What was held is given back, once the last of the scene has ended: it is the text's size that
    # says how many fit into a quarter of 1 MB, or a user's share where that is fewer.
    host.eventually(lambda: _assert(len(host.SYSINFO.read_bytes()) < 1 << 16))
    size = len(host.SYSINFO.read_bytes())
    with user_who_takes_all(host.SYSINFO) as (taken, number):
        assert number == errno.EBUSY
        assert 2 <= min(SHARE, (1 << 18) // (2 * size)) <= taken <= SHARE


def test_a_user_learns_a_namespace_s_number_where_proc_would_tell_him() -> None:
    as_user = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    hidden = (
        "import ctypes, sys; ctypes.CDLL(None).prctl(4, 0); print(flush=True); sys.stdin.read()"
    )
    with (
        scene("parked", 2, prefix=("unshare", "--uts")) as roots,
        scene("parked", 2, prefix=("unshare", "--uts", *as_user)) as own,
        scene("parked", 2, prefix=(*as_user, "unshare", "--user", "--uts")) as inside,
        subprocess.Popen(
            ["unshare", "--uts", *as_user, sys.executable, "-c", hidden],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as undumpable,
    ):
        assert undumpable.stdout is not None
        undumpable.stdout.readline()
        script = """
import json, os, sys
rows = json.load(open(sys.argv[1]))
def number(pid, kind):
    try:
        return int(os.readlink(f"/proc/{pid}/ns/{kind}").split("[")[1][:-1])
    except OSError:
        return 0
told = {row["pid"]: [row["pid_ns"], row["uts_ns"]] for row in rows}
kernel = {pid: [number(pid, "pid"), number(pid, "uts")] for pid in told}
print(json.dumps([list(told.items()), list(kernel.items())]))
"""

        def look() -> None:
            done = as_nobody(sys.executable, "-c", script, str(host.CONTINFO))
            told, kernel = (dict(pairs) for pairs in json.loads(done.stdout))
            assert told == kernel
            everything = host.candidates()
            for pid in (*roots.pids, undumpable.pid):
                assert told[pid] == [0, 0]
            for pid in (*own.pids, *inside.pids):
                row = everything[pid]
                assert told[pid] == [row["pid_ns"], row["uts_ns"]]
                assert 0 not in told[pid]

        host.eventually(look)
        # The rights are the opener's, whoever reads.
        with opened(host.CONTINFO) as descriptor:
            found = rows_by_nobody(descriptor)
        assert all(row["uts_ns"] for row in found if row["pid"] in roots.pids)
        undumpable.kill()


def rows_by_nobody(descriptor: int) -> list[dict[str, Any]]:
    """What a user reads from a descriptor that was given to him."""
    done = subprocess.run(
        ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "cat"],
        stdin=descriptor,
        capture_output=True,
        check=True,
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_a_name_in_proc_that_another_module_has_is_refused_with_the_reason(tmp_path: Path) -> None:
    # The same module under another name: it makes the same entry.
    other = tmp_path / "other.ko"
    section = tmp_path / "section"
    dump = ("objcopy", "--dump-section", f".gnu.linkonce.this_module={section}")
    subprocess.run([*dump, built("sysinfo"), "/dev/null"], check=True)
    text, module = section.read_bytes(), Path(built("sysinfo")).read_bytes()
    assert (text.count(b"sysinfo\0"), module.count(text)) == (1, 1)
    # In place: of what objcopy 2.44 updates, insmod succeeded and no line of its init was printed.
    other.write_bytes(module.replace(text, text.replace(b"sysinfo\0", b"sysinfx\0")))
    with Path("/dev/kmsg").open("rb", buffering=0) as log:
        os.lseek(log.fileno(), 0, os.SEEK_END)
        os.set_blocking(log.fileno(), False)
        done = insmod(str(other))
        said = records(log.fileno())
    assert done.returncode != 0
    # Not «File exists», which says that this very module is loaded: modprobe calls that a success.
    assert "resource busy" in done.stderr
    assert "sysinfo: /proc/sysinfo_so1_202300539 is there already" in said
    assert "Call Trace" not in said
    assert not Path("/sys/module/sysinfx").exists()
    json.loads(host.SYSINFO.read_bytes())
    # Under a name of its own it is welcome.
    assert insmod(str(other), "entry=sysinfo_other").returncode == 0
    json.loads(Path("/proc/sysinfo_other").read_bytes())
    host.rmmod("sysinfx")


def records(descriptor: int) -> str:
    """The kernel's log from the descriptor's position on."""
    found = b""
    while True:
        try:
            found += os.read(descriptor, 8192)
        except BlockingIOError:
            return found.decode(errors="replace")
