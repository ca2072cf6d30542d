"""One open is one snapshot; how many there may be, who may take one, and what they cost."""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.vm import modules_support as host
from tests.vm.modules_support import scene

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.vm.conftest import Images

pytestmark = pytest.mark.usefixtures("modules")

LIMIT = 64
# What is left of it without the eighth for the privileged, and one user's quarter of that.
OPEN_TO_ALL = LIMIT - LIMIT // 8
SHARE = OPEN_TO_ALL // 4
NOBODY = 65534
both = pytest.mark.parametrize("path", [host.SYSINFO, host.CONTINFO], ids=["sysinfo", "continfo"])


@contextmanager
def opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def whole(descriptor: int, size: int = 1 << 20) -> bytes:
    """All from the start of the descriptor, in reads of `size`."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    parts = []
    while part := os.read(descriptor, size):
        assert len(part) <= size
        parts.append(part)
    return b"".join(parts)


@both
def test_reads_of_any_size_see_one_text_while_processes_come_and_go(path: Path) -> None:
    with scene("crowd", 40, 3, 2, prefix=("unshare", "--uts")), opened(path) as descriptor:
        first = whole(descriptor)
        json.loads(first)
        for size in (7, 1000, 4095, 4096, 4097, 16383, 16384, 16385, 65536):
            assert whole(descriptor, size) == first
        os.lseek(descriptor, 0, os.SEEK_SET)
        assert b"".join(os.read(descriptor, 1) for _ in range(2000)) == first[:2000]
        with opened(path) as later:
            assert whole(later) != first


@both
def test_seeks_and_pread_see_the_same_text(path: Path) -> None:
    chance = random.Random(300539)
    with scene("crowd", 40, 3, 2, prefix=("unshare", "--uts")), opened(path) as descriptor:
        # The first read is far inside: the snapshot is whole all the same.
        tail = os.pread(descriptor, 1 << 20, 3000)
        text = whole(descriptor)
        assert text[3000:] == tail
        for _ in range(300):
            at, size = chance.randrange(len(text) + 100), chance.randrange(1, 20_000)
            assert os.pread(descriptor, size, at) == text[at : at + size]
            os.lseek(descriptor, at, os.SEEK_SET)
            assert os.read(descriptor, size) == text[at : at + size]
        at = os.lseek(descriptor, 10, os.SEEK_SET)
        assert os.lseek(descriptor, 5, os.SEEK_CUR) == at + 5
        assert os.read(descriptor, 5) == text[15:20]
        assert os.pread(descriptor, 10, 1 << 40) == b""
        with pytest.raises(OSError, match="Invalid argument"):
            os.lseek(descriptor, 0, os.SEEK_END)
        with pytest.raises(OSError, match="Invalid argument"):
            os.lseek(descriptor, -1, os.SEEK_SET)


@both
def test_fifty_readers_of_one_descriptor_see_the_same_whole_text(path: Path) -> None:
    def pieces(descriptor: int) -> bytes:
        text, at = b"", 0
        while part := os.pread(descriptor, 5000, at):
            text += part
            at += len(part)
        return text

    with (
        scene("crowd", 40, 3, 2, prefix=("unshare", "--uts")),
        opened(path) as descriptor,
        ThreadPoolExecutor(50) as pool,
    ):
        texts = set(pool.map(pieces, [descriptor] * 50))
    assert len(texts) == 1
    json.loads(texts.pop())


@both
def test_fifty_descriptors_read_at_once_are_each_whole(path: Path) -> None:
    def read(_: int) -> bytes:
        with opened(path) as descriptor:
            return whole(descriptor, 5000)

    with (
        scene("crowd", 40, 3, 2, prefix=("unshare", "--uts")) as crowd,
        ThreadPoolExecutor(50) as pool,
    ):
        texts = list(pool.map(read, range(50)))
    for text in texts:
        found = json.loads(text)
        rows = found["processes"] if path == host.SYSINFO else found
        assert {row["pid"] for row in rows} >= set(crowd.pids)


@both
def test_what_is_still_open_does_not_count_until_it_is_read(path: Path) -> None:
    with ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(opened(path))
        with opened(path) as descriptor:
            json.loads(whole(descriptor))


@both
def test_the_sixty_fifth_snapshot_is_refused_until_another_is_closed(path: Path) -> None:
    with ExitStack() as stack:
        held = [stack.enter_context(opened(path)) for _ in range(LIMIT)]
        for descriptor in held:
            assert os.read(descriptor, 1) in b"{["
        with opened(path) as late:
            for _ in range(3):
                with pytest.raises(OSError, match="busy") as refused:
                    os.read(late, 1)
                assert refused.value.errno == errno.EBUSY
            assert json.loads(whole(held[0])), "those that were taken stay readable"
            stack.close()
            json.loads(whole(late))


TAKE_ALL = """
import os, sys
if sys.argv[2]:
    open(sys.argv[2] + "/cgroup.procs", "w").write(str(os.getpid()))
if sys.argv[3]:
    user = int(sys.argv[3])
    os.setgroups([]); os.setgid(user); os.setuid(user)
held = []
try:
    for _ in range(1000):
        held.append(os.open(sys.argv[1], os.O_RDONLY))
        os.read(held[-1], 1)
except OSError as error:
    print(len(held) - 1, error.errno, flush=True)
sys.stdin.read()
"""


@contextmanager
def user_who_takes_all(
    path: Path,
    cgroup: Path | None = None,
    user: int | None = NOBODY,
    prefix: tuple[str, ...] = (),
) -> Iterator[tuple[int, int]]:
    """A user who opens and reads until refused, and keeps it: how many, and the error's number."""
    with subprocess.Popen(
        [*prefix, sys.executable, "-c", TAKE_ALL, path, str(cgroup or ""), str(user or "")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            taken, number = process.stdout.readline().split()
            yield int(taken), int(number)
        finally:
            process.stdin.close()


@both
def test_a_user_who_opens_a_thousand_gets_his_share_and_locks_nobody_out(path: Path) -> None:
    with user_who_takes_all(path) as (taken, number):
        assert (taken, number) == (SHARE, errno.EBUSY)
        json.loads(path.read_bytes())
        with user_who_takes_all(path, user=NOBODY - 1) as other:
            assert other == (SHARE, errno.EBUSY)


@both
def test_all_users_together_leave_an_eighth_to_the_privileged(path: Path) -> None:
    with ExitStack() as stack:
        users = [
            stack.enter_context(user_who_takes_all(path, user=NOBODY - number))
            for number in range(5)
        ]
        assert sum(taken for taken, _ in users) == OPEN_TO_ALL
        assert {number for _, number in users} == {errno.EBUSY}
        # These hold the limit from here on, whoever tries meanwhile on another CPU.
        for number in range(2):
            stack.enter_context(user_who_tries_without_end(path, NOBODY - number))
        for _ in range(300):
            with ExitStack() as ours:
                for _ in range(LIMIT // 8):
                    assert os.read(ours.enter_context(opened(path)), 1) in b"{["


@contextmanager
def user_who_tries_without_end(path: Path, user: int) -> Iterator[None]:
    """A user whose every read is refused, and who tries again at once."""
    code = """
import os, sys
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
descriptor = os.open(sys.argv[1], os.O_RDONLY)
print(flush=True)
while True:
    try:
        os.read(descriptor, 1)
    except OSError:
        pass
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, path, str(user)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        try:
            process.stdout.readline()
            yield
        finally:
            process.kill()


def test_the_users_of_a_user_namespace_share_what_its_maker_has() -> None:
    inside = (
        *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
        *("unshare", "--user", "--map-root-user"),
    )
    with (
        user_who_takes_all(host.SYSINFO) as (taken, _),
        user_who_takes_all(host.SYSINFO, user=None, prefix=inside) as namespaced,
    ):
        assert taken == SHARE
        assert namespaced == (0, errno.EBUSY)


def test_the_memory_of_a_snapshot_is_charged_to_its_reader_and_given_back() -> None:
    mounts = host.cgroup_hierarchies()
    figure = "memory.kmem.usage_in_bytes" if "memory" in mounts else "memory.current"
    directory = mounts["memory" if "memory" in mounts else ""] / "so1-test-charged"
    directory.mkdir()
    try:
        with scene("parked", 300):
            text = len(host.SYSINFO.read_bytes())
            with user_who_takes_all(host.SYSINFO, directory) as (taken, _):
                charged = int((directory / figure).read_text())
                in_use = snapshots_in_slab()
            # Charges of a CPU are batched, so some of it may not show yet.
            assert charged > taken * text * 9 // 10
            assert text > 50_000
            host.eventually(lambda: _assert(snapshots_in_slab() < in_use - taken * text * 8 // 10))
    finally:
        directory.rmdir()


def snapshots_in_slab() -> int:
    """Bytes of unreclaimable kernel memory of the host, in which chunks of a snapshot count."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("SUnreclaim:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no SUnreclaim in /proc/meminfo")


def _assert(condition: bool) -> None:
    assert condition


@both
def test_a_reader_in_another_pid_namespace_is_refused(path: Path) -> None:
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", "cat", path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "Permission denied" in done.stderr


@both
def test_an_unprivileged_user_namespace_is_refused(path: Path) -> None:
    unshare = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]
    done = as_nobody(*unshare, "cat", str(path))
    assert (done.returncode, done.stdout) == (1, "")
    assert "Permission denied" in done.stderr


def test_a_container_is_refused_unless_it_shares_the_hosts_pids(images: Images) -> None:
    read = ["docker", "run", "--rm"], [images.alpine, "cat", str(host.SYSINFO), str(host.CONTINFO)]
    private, shared = (
        subprocess.run([*read[0], *options, *read[1]], capture_output=True, text=True, check=False)
        for options in ([], ["--pid=host"])
    )
    assert private.stdout == ""
    assert private.stderr.count("Permission denied") == 2
    assert shared.returncode == 0
    assert shared.stdout.startswith('{"total_ram"')
    assert shared.stdout.endswith("]\n")


@both
def test_any_user_of_the_host_may_read(path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o444
    json.loads(as_nobody("cat", str(path)).stdout)


def as_nobody(*command: str, groups: str = "--clear-groups") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", groups, *command],
        capture_output=True,
        text=True,
        check=False,
    )


@both
def test_a_procfs_with_hidepid_lets_in_whom_the_kernel_would_let_into_another_s_directory(
    path: Path, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    entry = tmp_path / path.name
    for option in ("hidepid=1", "hidepid=2", "hidepid=4"):
        subprocess.run(["mount", "-t", "proc", "-o", f"{option},gid=7", "p", tmp_path], check=True)
        try:
            for groups in ("--clear-groups", "--groups=7"):
                # The kernel's own answer, about a process of another user.
                kernel = as_nobody("stat", f"{tmp_path}/1/stat", groups=groups)
                done = as_nobody("cat", str(entry), groups=groups)
                assert done.returncode == kernel.returncode, (option, groups, done.stderr)
                if done.returncode:
                    assert done.stdout == ""
                    assert "Permission denied" in done.stderr
                else:
                    json.loads(done.stdout)
            assert done.returncode == (1 if option == "hidepid=4" else 0)
            json.loads(entry.read_bytes())
        finally:
            subprocess.run(["umount", tmp_path], check=True)


def test_nothing_can_be_written() -> None:
    descriptor = os.open(host.SYSINFO, os.O_RDWR)
    try:
        with pytest.raises(OSError, match=r".") as refused:
            os.write(descriptor, b"x")
        assert refused.value.errno in (errno.EIO, errno.EINVAL, errno.EBADF)
    finally:
        os.close(descriptor)
