"""Faults of the database under a running agent: its disk, its file, and the file's permissions.

What was stored stays readable, what could not be stored is counted and said once, a damaged file is
quarantined and kept, and storing goes on by itself.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.agent_process import run_agent
from tests.vm.faults import support
from tests.vm.faults.support import Agent, assert_books_close, assert_no_leak, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.containers import Containers
    from tests.vm.faults.support import Town

    Record = Callable[[str, object], None]

_DISK_MB = 48
_NOISE = random.Random(1).randbytes(1 << 20)


class Disk:
    """An ext4 of its own in a file, on a loop device, for the database alone."""

    def __init__(self, image: Path, mount: Path) -> None:
        self.image, self.mount = image, mount
        self.filler = mount / "filler"

    def attach(self) -> None:
        run("mount", "-o", "loop,errors=remount-ro", str(self.image), str(self.mount))

    def fill(self) -> None:
        """Writes until not one more block is to be had."""
        with self.filler.open("wb", buffering=0) as file:
            for size in (1 << 20, 4096):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    continue
            os.fsync(file.fileno())

    def break_down(self) -> None:
        """Has the kernel find an error in the file system, which makes it read-only at once.

        What it had not written by then is lost, as with a cut of power: so it is written before.
        """
        run("sync", "-f", str(self.mount))
        device = run("findmnt", "-n", "-o", "SOURCE", str(self.mount)).strip()
        trigger = Path("/sys/fs/ext4", Path(device).name, "trigger_fs_error")
        trigger.write_text("a test's", encoding="ascii")

    def mend(self) -> None:
        """What a person does then: unmount, check, mount."""
        run("umount", str(self.mount))
        done = subprocess.run(["e2fsck", "-p", "-f", str(self.image)], capture_output=True)
        assert done.returncode < 4, done.stdout
        self.attach()


@pytest.fixture
def disk(place: Path) -> Iterator[Disk]:
    made = Disk(place / "disk.img", place / "db")
    made.mount.mkdir(mode=0o750)
    with made.image.open("wb") as file:
        file.truncate(_DISK_MB << 20)
    run("mkfs.ext4", "-q", "-m", "0", "-F", str(made.image))
    made.attach()
    yield made
    run("umount", "--lazy", str(made.mount))


def status_of(config: Path) -> dict[str, object]:
    done = run_agent("status", "--json", "--config", str(config))
    assert done.returncode == 0, done.stderr
    status: dict[str, object] = json.loads(done.stdout)["status"]
    return status


def assert_told_once_and_counted(agent: Agent) -> int:
    """One line when it began, one when it was over with the very number of lost ticks."""
    lost = agent.count("not stored")
    assert agent.count("database=failing") == 1, agent.output
    back = [line for line in agent.lines if "database=back" in line]
    assert len(back) == 1, agent.output
    assert back[0].endswith(f"unstored_ticks={lost}")
    return lost


def quarantined(database: Path) -> list[Path]:
    return sorted(database.parent.glob("*.damaged-*"))


@pytest.mark.full
def test_a_full_disk_costs_its_ticks_and_storing_resumes_when_there_is_room(
    disk: Disk, config: Path, database: Path, town: Town, mine: Containers, record: Record
) -> None:
    with Agent(config) as agent:
        agent.warm()
        disk.fill()
        agent.more_ticks(3, "not stored")
        said = status_of(config)
        assert "is full" in str(said["problems"])
        support.wait_gone(support.surplus(mine, 2))  # while nothing can be stored
        agent.more_ticks(2, "not stored")
        disk.filler.unlink()
        agent.stored_again()
        assert_told_once_and_counted(agent)
        assert_no_leak(agent, record)
        problems = status_of(config)["problems"]
        assert isinstance(problems, list)
        # Natively the kernel may take no modules, and that stays said.
        assert [one for one in problems if not one.startswith("modules: ")] == []
        agent.end()
    assert_books_close(database, [agent])
    assert [row["outcome"] for row in support.removed(database)] == ["removed"] * 2
    assert sum(row["deleted_count"] for row in support.metrics(database)) == 2
    assert quarantined(database) == []
    town.assert_unharmed()


@pytest.mark.full
def test_a_file_system_that_breaks_and_turns_read_only_is_taken_up_when_it_is_mended(
    disk: Disk, config: Path, database: Path, town: Town, record: Record
) -> None:
    with Agent(config) as agent:
        agent.warm()
        disk.break_down()
        agent.more_ticks(3, "not stored")
        with agent.frozen_between_ticks(database):
            disk.mend()
        agent.stored_again()
        assert_told_once_and_counted(agent)
        assert_no_leak(agent, record)
        agent.end()
    assert_books_close(database, [agent])
    assert quarantined(database) == []
    town.assert_unharmed()


def truncate_to_half(database: Path) -> None:
    os.truncate(database, database.stat().st_size // 2 // 4096 * 4096)


def truncate_to_nothing(database: Path) -> None:
    os.truncate(database, 0)


def noise_over_the_header(database: Path) -> None:
    overwrite(database, 0, 4096)


def noise_over_the_middle(database: Path) -> None:
    size = database.stat().st_size
    overwrite(database, size // 4, size // 2)


def noise_over_all(database: Path) -> None:
    for path in (database, log_of(database), index_of(database)):
        overwrite(path, 0, path.stat().st_size)


def overwrite(path: Path, offset: int, size: int) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        for at in range(offset, offset + size, len(_NOISE)):
            os.pwrite(descriptor, _NOISE[: offset + size - at], at)
    finally:
        os.close(descriptor)


def log_of(database: Path) -> Path:
    return database.with_name(database.name + "-wal")


def index_of(database: Path) -> Path:
    return database.with_name(database.name + "-shm")


full = pytest.mark.full


@pytest.mark.any_kernel
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(truncate_to_half, marks=full),
        pytest.param(truncate_to_nothing, marks=full),
        pytest.param(noise_over_the_header, marks=full),
        pytest.param(noise_over_the_middle, marks=full),
        noise_over_all,
    ],
    ids=lambda damage: damage.__name__,
)
def test_a_damaged_file_is_quarantined_and_kept_and_every_later_tick_is_stored(
    config: Path, database: Path, town: Town, record: Record, damage: Callable[[Path], None]
) -> None:
    with Agent(config) as agent:
        agent.warm()
        with agent.frozen_between_ticks(database):
            checkpoint(database)
            before = agent.stored_ticks
            damage(database)
            inode = database.stat().st_ino
        agent.stored_again()
        assert agent.count("not stored") == 0, agent.output
        assert agent.count("database=damaged") == 1
        kept = [one for one in quarantined(database) if one.stat().st_ino == inode]
        assert len(kept) == 1, quarantined(database)
        assert_no_leak(agent, record)
        agent.end()
    assert len(support.whole_ticks(database)) == agent.stored_ticks - before
    town.assert_unharmed()


def checkpoint(database: Path) -> None:
    """Brings the log into the file, so that damage to the file is damage to rows."""
    run("sqlite3", str(database), "PRAGMA wal_checkpoint(TRUNCATE)")


def delete_the_file(database: Path) -> None:
    database.unlink()


def delete_all_three(database: Path) -> None:
    for path in (database, log_of(database), index_of(database)):
        path.unlink()


def delete_the_directory(database: Path) -> None:
    shutil.rmtree(database.parent)


@pytest.mark.any_kernel
@pytest.mark.parametrize(
    "delete",
    [
        delete_the_file,
        pytest.param(delete_all_three, marks=full),
        pytest.param(delete_the_directory, marks=full),
    ],
    ids=lambda delete: delete.__name__,
)
def test_a_file_that_somebody_deletes_is_begun_anew_at_the_next_tick(
    config: Path, database: Path, town: Town, record: Record, delete: Callable[[Path], None]
) -> None:
    with Agent(config) as agent:
        agent.warm()
        with agent.frozen_between_ticks(database):
            before, last_ms = agent.stored_ticks, support.whole_ticks(database)[-1][0]
            delete(database)
        agent.stored_again()
        assert agent.count("not stored") == 0, agent.output
        assert agent.count("database=deleted") == 1
        assert_no_leak(agent, record)
        agent.end()
    ticks = support.whole_ticks(database)
    assert len(ticks) == agent.stored_ticks - before
    assert ticks[0][0] > last_ms
    town.assert_unharmed()


@contextmanager
def immutable(*paths: Path) -> Iterator[None]:
    names = [str(path) for path in paths]
    if subprocess.run(["chattr", "+i", *names], capture_output=True).returncode:
        pytest.skip("needs a file system that takes `chattr +i`")
    try:
        yield
    finally:
        run("chattr", "-i", *names)


@pytest.mark.full
@pytest.mark.parametrize("which", ["the file", "the file and its log", "all of them"])
def test_a_file_made_read_only_costs_its_ticks_and_is_written_again_afterwards(
    config: Path, database: Path, town: Town, record: Record, which: str
) -> None:
    paths = {
        "the file": [database],
        "the file and its log": [database, log_of(database)],
        "all of them": [database, log_of(database), index_of(database), database.parent],
    }[which]
    with Agent(config) as agent:
        agent.warm()
        with agent.frozen_between_ticks(database):
            before = len(support.whole_ticks(database))
        with immutable(*paths):
            # The log alone takes what is written as long as it has room: no tick need be lost.
            agent.more_ticks(4, " · " if which == "the file" else "not stored")
            assert len(support.whole_ticks(database)) >= before
        agent.stored_again()
        if agent.count("not stored"):
            assert_told_once_and_counted(agent)
        assert_no_leak(agent, record)
        agent.end()
    assert_books_close(database, [agent])
    assert quarantined(database) == []
    town.assert_unharmed()


@pytest.mark.full
def test_a_reader_that_never_ends_costs_no_tick(
    config: Path, database: Path, record: Record
) -> None:
    with Agent(config) as agent:
        agent.warm()
        reader = subprocess.Popen(
            ["sqlite3", "-readonly", str(database)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert reader.stdin is not None
            assert reader.stdout is not None
            reader.stdin.write("BEGIN; SELECT count(*) > 0 FROM metrics;\n")
            reader.stdin.flush()
            assert reader.stdout.readline().strip() == "1"
            agent.more_ticks(8)
            assert_no_leak(agent, record)
            agent.end()
        finally:
            reader.kill()
            reader.wait()
    assert agent.count("not stored") == 0
    assert_books_close(database, [agent])
