"""What the store does when its file, its directory or its disk is taken from under it.

In each case: the tick that cannot be stored is counted and said, what is stored stays readable (in
place or set aside), no half tick is ever seen, and storing goes on by itself.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.errors import StoreError
from agent.store import database as sqlite
from agent.store.store import Store
from tests.unit.store.builders import (
    SECOND_NS,
    START_NS,
    FakeClock,
    a_pass,
    a_tick,
    ask,
    count,
    open_store,
)

ROWS = 40


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "so1" / "metrics.db"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


class Writer:
    """Ticks of one size, 20 s apart."""

    def __init__(self, store: Store, clock: FakeClock) -> None:
        self.store = store
        self.clock = clock

    def tick(self, times: int = 1, rows: int = ROWS) -> None:
        for _ in range(times):
            self.clock.pass_time(20 * SECOND_NS)
            self.store.write_tick(a_tick(self.clock.wall_ns(), rows))


@pytest.fixture
def writer(path: Path, clock: FakeClock) -> Iterator[Writer]:
    with open_store(path, clock) as store:
        yield Writer(store, clock)


def assert_whole(path: Path) -> int:
    """Every tick of `metrics` has all its rows, and no row is without its tick. Gives the ticks."""
    counted = ask(
        path,
        """SELECT process_count, (SELECT count(*) FROM process_stats p
                WHERE p.timestamp = m.timestamp) FROM metrics m""",
    )
    assert all(said == stored for said, stored in counted), counted
    assert count(path, "process_stats") == sum(stored for _, stored in counted)
    assert ask(path, "PRAGMA integrity_check") == [("ok",)]
    return len(counted)


def asides(path: Path) -> list[Path]:
    return sorted(one for one in path.parent.glob("*.damaged-*") if one.name[-4:-3] != "-")


def noise(path: Path, begin: int, length: int) -> None:
    with path.open("r+b") as file:
        file.seek(begin)
        file.write(bytes((n * 7919 + n // 251 + 7) % 256 for n in range(length)))


def cut_to_nothing(path: Path) -> None:
    os.truncate(path, 0)


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def all_noise(path: Path) -> None:
    noise(path, 0, path.stat().st_size)


def noise_in_the_middle(path: Path) -> None:
    noise(path, 3 * 4096, path.stat().st_size - 3 * 4096)


def shifted(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(b"\n" + content)


@pytest.mark.parametrize(
    "damage", [cut_to_nothing, cut_in_half, all_noise, noise_in_the_middle, shifted]
)
def test_a_file_damaged_in_mid_run_is_set_aside_and_that_very_tick_is_stored(
    path: Path, writer: Writer, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    writer.tick(120)
    damage(path)
    writer.tick(5)

    assert writer.store.unstored_ticks == 0
    assert writer.store.state.ok
    assert assert_whole(path) == 5
    assert asides(path) == [writer.store.set_aside]
    assert caplog.text.count("database=damaged") == 1


def test_a_damaged_file_is_kept_as_it_was_found_with_its_log(path: Path, writer: Writer) -> None:
    writer.tick(120)
    log = path.with_name("metrics.db-wal").read_bytes()
    noise(path, 0, path.stat().st_size)
    found = path.read_bytes()
    writer.tick()

    kept = writer.store.set_aside
    assert kept is not None
    assert kept.read_bytes() == found
    assert kept.with_name(kept.name + "-wal").read_bytes() == log


@pytest.mark.parametrize("with_side_files", [False, True])
def test_a_file_deleted_in_mid_run_is_begun_anew_and_timestamps_go_on(
    path: Path, writer: Writer, with_side_files: bool, caplog: pytest.LogCaptureFixture
) -> None:
    writer.tick(3)
    path.unlink()
    if with_side_files:
        path.with_name("metrics.db-wal").unlink()
        path.with_name("metrics.db-shm").unlink()
    writer.clock.step_wall(-60 * SECOND_NS)
    writer.tick(2)

    assert writer.store.unstored_ticks == 0
    assert assert_whole(path) == 2
    before_ms = (START_NS + 60 * SECOND_NS) // 10**6
    assert ask(path, "SELECT min(timestamp) FROM metrics") == [(before_ms + 1,)]
    assert "database=deleted" in caplog.text
    kept_logs = list(path.parent.glob("*.damaged-*-wal"))
    assert len(kept_logs) == (0 if with_side_files else 1)


def test_a_directory_deleted_in_mid_run_is_made_again(path: Path, writer: Writer) -> None:
    writer.tick(3)
    shutil.rmtree(path.parent)
    writer.tick(2)

    assert assert_whole(path) == 2
    assert path.parent.stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize("lost", [("-wal",), ("-shm",), ("-wal", "-shm")], ids="".join)
def test_a_lost_log_costs_no_tick(path: Path, writer: Writer, lost: tuple[str, ...]) -> None:
    writer.tick(3)
    for suffix in lost:
        path.with_name(path.name + suffix).unlink()
    writer.tick(2)

    assert assert_whole(path) == 5
    assert asides(path) == []
    assert path.with_name("metrics.db-wal").exists()


def test_a_cut_log_costs_at_most_the_ticks_in_it(path: Path, writer: Writer) -> None:
    writer.tick(200)
    os.truncate(path.with_name("metrics.db-wal"), 0)
    writer.tick(3)

    assert writer.store.unstored_ticks == 0
    assert assert_whole(path) >= 3
    everywhere = sum(count(one, "metrics") for one in [path, *asides(path)])
    assert everywhere > 3


@pytest.mark.allow_subprocess
def test_a_cut_index_does_not_kill_the_agent(path: Path) -> None:
    code = """
        import os, sys
        from pathlib import Path
        from tests.unit.store.builders import *
        path = Path(sys.argv[1])
        clock = FakeClock()
        with open_store(path, clock) as store:
            for number in range(10):
                if number == 5:
                    os.truncate(path.with_name("metrics.db-shm"), 0)
                clock.pass_time(SECOND_NS)
                store.write_tick(a_tick(clock.wall_ns(), 40))
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(path)], check=True)

    assert assert_whole(path) == 10


def test_a_backup_moved_into_place_is_taken_up_without_the_log_of_the_one_before(
    path: Path, writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    backup = path.with_name("backup.db")
    writer.tick(4)
    source, target = sqlite3.connect(path), sqlite3.connect(backup)
    source.backup(target)
    source.close()
    target.close()
    writer.tick(30)
    backup.rename(path)
    writer.tick(2)

    assert writer.store.unstored_ticks == 0
    assert assert_whole(path) == 6
    assert "database=replaced" in caplog.text


def test_somebody_elses_file_in_its_place_is_left_alone_until_it_is_gone(
    path: Path, writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    writer.tick(3)
    kept = path.with_name("kept.db")
    path.rename(kept)
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (id INTEGER)")
    other.close()
    content = path.read_bytes()
    for _ in range(3):
        with pytest.raises(StoreError, match="not the agent's database"):
            writer.tick()
    assert path.read_bytes() == content
    assert writer.store.unstored_ticks == 3
    assert "not the agent's database" in writer.store.state.problem
    assert caplog.text.count("database=failing") == 1
    path.unlink()
    writer.tick(2)

    assert writer.store.state.ok
    assert assert_whole(path) == 2
    assert "database=back unstored_ticks=3" in caplog.text


def test_a_link_put_in_the_directorys_place_is_not_followed(path: Path, writer: Writer) -> None:
    writer.tick(2)
    moved = path.parent.with_name("moved")
    path.parent.rename(moved)
    victim = path.parent.with_name("victim")
    victim.mkdir()
    path.parent.symlink_to(victim)
    with pytest.raises(StoreError, match="symbolic link"):
        writer.tick()
    assert list(victim.iterdir()) == []
    path.parent.unlink()
    moved.rename(path.parent)
    writer.tick(2)

    assert assert_whole(path) == 4


def test_a_lock_held_by_somebody_costs_ticks_and_no_more(
    path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_BUSY_TIMEOUT_S", 0.05)
    with open_store(path, clock) as store:
        writer = Writer(store, clock)
        writer.tick(2)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        for _ in range(2):
            with pytest.raises(StoreError, match="locked"):
                writer.tick()
        other.execute("ROLLBACK")
        other.close()
        writer.tick()

    assert store.unstored_ticks == 2
    assert assert_whole(path) == 3


def test_removals_that_could_not_be_stored_are_stored_when_it_works_again(
    path: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.tick()
    blocked = path.parent.with_name("blocked")
    path.parent.rename(blocked)
    path.parent.write_text("in the way")
    with pytest.raises(StoreError):
        writer.store.write_removals(a_pass(), writer.clock.wall_ns() + SECOND_NS)
    with pytest.raises(StoreError):
        writer.store.write_tick(a_tick(writer.clock.wall_ns() + 20 * SECOND_NS, passes=(a_pass(),)))
    path.parent.unlink()
    blocked.rename(path.parent)
    writer.clock.pass_time(20 * SECOND_NS)
    writer.tick()

    stored = [at for (at,) in ask(path, "SELECT timestamp FROM deletions ORDER BY id")]
    first = ask(path, "SELECT min(timestamp) FROM metrics")[0][0]
    assert stored == [first + 1000, first + 20_000]


def test_no_descriptor_is_lost_by_faults(path: Path, writer: Writer) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    faults = (
        path.unlink,
        lambda: cut_to_nothing(path),
        lambda: all_noise(path),
        lambda: os.utime(path),
        path.with_name("metrics.db-wal").unlink,
    )
    seen = []
    for _ in range(6):
        for fault in faults:
            fault()
            writer.tick()
        seen.append(descriptors())

    # SQLite keeps a reader's descriptor for the next reader: closing it would drop the locks.
    assert len(set(seen[1:])) == 1, seen


def test_touching_the_file_is_no_damage(path: Path, writer: Writer) -> None:
    writer.tick(2)
    os.utime(path)
    writer.tick(2)

    assert assert_whole(path) == 4
    assert asides(path) == []


def test_another_programs_checkpoint_is_no_damage(path: Path, writer: Writer) -> None:
    writer.tick(20)
    other = sqlite3.connect(path)
    assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    other.close()
    writer.tick(2)

    assert assert_whole(path) == 22
    assert asides(path) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB of its own."""
    mount = tmp_path / "disk"
    mount.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m,mode=0755", "tmpfs", str(mount)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"needs root and the right to mount a tmpfs: {done.stderr.strip()}")
    yield mount
    subprocess.run(["umount", "--lazy", str(mount)], check=True)


def fill(disk: Path) -> Path:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 4096):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return filler


@pytest.mark.allow_subprocess
def test_a_full_disk_costs_its_ticks_and_nothing_that_is_stored(
    small_disk: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    path = small_disk / "metrics.db"
    with open_store(path, clock) as store:
        writer = Writer(store, clock)
        writer.tick(10)
        filler = fill(small_disk)
        failed = 0
        for _ in range(40):
            try:
                writer.tick(rows=300)
            except StoreError as error:
                failed += 1
                assert "full" in error.message
                assert "df" in error.hint
        assert failed > 20
        assert store.unstored_ticks == failed
        assert not store.state.ok
        stored = assert_whole(path)
        assert stored == 50 - failed
        assert caplog.text.count("database=failing") <= 2
        filler.unlink()
        writer.tick(5)
        assert store.state.ok

    assert assert_whole(path) == stored + 5
    assert asides(path) == []


@pytest.mark.allow_subprocess
def test_a_disk_that_we_fill_ourselves_is_used_to_its_end_and_not_beyond(
    small_disk: Path, clock: FakeClock
) -> None:
    path = small_disk / "metrics.db"
    with open_store(path, clock) as store:
        writer = Writer(store, clock)
        with pytest.raises(StoreError, match="full"):
            writer.tick(200, rows=1000)
        assert assert_whole(path) > 5
    assert assert_whole(path) > 5


@pytest.mark.allow_subprocess
def test_a_full_disk_at_start_is_one_sentence(small_disk: Path, clock: FakeClock) -> None:
    fill(small_disk)
    with pytest.raises(StoreError, match=r"full|cannot be made"):
        open_store(small_disk / "so1" / "metrics.db", clock)


@pytest.mark.allow_subprocess
def test_a_mount_made_read_only_fails_ticks_until_it_is_writable_again(
    small_disk: Path, clock: FakeClock
) -> None:
    path = small_disk / "metrics.db"

    def remount(how: str) -> None:
        # Root's own writer keeps its files open for writing: only a bind mount can be made
        # read-only under it, so the disk is told by force.
        subprocess.run(["mount", "-o", f"remount,{how}", str(small_disk)], check=True)

    with open_store(path, clock) as store:
        writer = Writer(store, clock)
        writer.tick(3)
        seen = path.stat()
        store._leave(wait=False)
        remount("ro")
        for _ in range(2):
            with pytest.raises(StoreError, match=r"not written|cannot be made|cannot be set"):
                writer.tick()
        assert path.stat().st_ino == seen.st_ino
        remount("rw")
        writer.tick(2)

    assert assert_whole(path) == 5
    assert store.unstored_ticks == 2


@pytest.mark.allow_subprocess
def test_an_immutable_file_at_start_is_one_sentence_and_nothing_is_changed(path: Path) -> None:
    open_store(path).close()
    done = subprocess.run(["chattr", "+i", str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"needs root and a file system with attributes: {done.stderr.strip()}")
    try:
        with pytest.raises(StoreError, match="not written") as refused:
            open_store(path)
        assert "lsattr" in refused.value.hint
    finally:
        subprocess.run(["chattr", "-i", str(path)], check=True)
    assert asides(path) == []


@pytest.mark.allow_subprocess
def test_an_index_made_immutable_in_mid_run_does_not_kill_the_agent(path: Path) -> None:
    code = """
        import os, subprocess, sys
        from pathlib import Path
        from agent.errors import StoreError
        from tests.unit.store.builders import *
        path = Path(sys.argv[1])
        index = path.with_name("metrics.db-shm")
        clock = FakeClock()
        with open_store(path, clock) as store:
            for number in range(8):
                if number == 3:
                    os.sync()  # what is written back is asked for anew at the next write
                    if subprocess.run(["chattr", "+i", index], capture_output=True).returncode:
                        sys.exit(77)
                if number == 6:
                    subprocess.run(["chattr", "-i", index], check=True)
                clock.pass_time(SECOND_NS)
                try:
                    store.write_tick(a_tick(clock.wall_ns(), 40))
                except StoreError as error:
                    assert "immutable" in error.message, error
            assert store.unstored_ticks == 3
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(path)], check=False)
    index = path.with_name("metrics.db-shm")
    if index.exists():
        subprocess.run(["chattr", "-i", str(index)], check=False, capture_output=True)
    if done.returncode == 77:
        pytest.skip("needs root and a file system with attributes")
    assert done.returncode == 0
    assert assert_whole(path) == 5


@pytest.mark.allow_subprocess
def test_a_stop_while_the_index_is_immutable_ends_well_and_the_log_is_taken_up(path: Path) -> None:
    code = """
        import os, subprocess, sys
        from pathlib import Path
        from tests.unit.store.builders import *
        path = Path(sys.argv[1])
        with open_store(path) as store:
            store.write_tick(a_tick())
            os.sync()  # what is written back is asked for anew at the next write
            index = path.with_name("metrics.db-shm")
            if subprocess.run(["chattr", "+i", index], capture_output=True).returncode:
                sys.exit(77)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(path)], check=False, capture_output=True
    )
    index = path.with_name("metrics.db-shm")
    try:
        if done.returncode == 77:
            pytest.skip("needs root and a file system with attributes")
        assert done.returncode == 0
        assert b"left-open" in done.stderr
        with open_store(path) as store:
            with pytest.raises(StoreError, match="immutable"):
                store.write_tick(a_tick(START_NS + SECOND_NS))
            subprocess.run(["chattr", "-i", str(index)], check=True)
            with pytest.raises(StoreError, match="not written"):
                store.write_tick(a_tick(START_NS + 2 * SECOND_NS))  # opened to read alone
            store.write_tick(a_tick(START_NS + 3 * SECOND_NS))
    finally:
        subprocess.run(["chattr", "-i", str(index)], check=False, capture_output=True)
    assert assert_whole(path) == 2


def test_a_file_system_that_turns_read_only_is_let_go_of_before_it_takes_a_row(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def held() -> list[str]:
        links = (os.readlink(one) for one in Path("/proc/self/fd").iterdir() if one.is_symlink())
        return [link for link in links if link.startswith(str(path))]

    with open_store(path) as store:
        store.write_tick(a_tick())
        assert held()
        with monkeypatch.context() as patch:
            patch.setattr("agent.store.watch.is_on_read_only", lambda _: True)
            with pytest.raises(StoreError, match="read but not written"):
                store.write_tick(a_tick(START_NS + SECOND_NS))
        assert not held()
        store.write_tick(a_tick(START_NS + 2 * SECOND_NS))
        assert store.unstored_ticks == 1
    assert count(path, "metrics") == 2


@pytest.mark.allow_subprocess
def test_a_write_that_the_system_refuses_is_tried_again(path: Path) -> None:
    code = """
        import os, resource, sys
        from pathlib import Path
        from agent.errors import StoreError
        from tests.unit.store.builders import *
        path = Path(sys.argv[1])
        clock = FakeClock()
        unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
        with open_store(path, clock) as store:
            for number in range(30):
                if number == 10:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, unlimited[1]))
                if number == 20:
                    resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
                clock.pass_time(SECOND_NS)
                try:
                    store.write_tick(a_tick(clock.wall_ns(), 400))
                except StoreError as error:
                    print(error.message)
                    # A disk that has to be unmounted to be mended is not held until then.
                    links = [f"/proc/self/fd/{one}" for one in os.listdir("/proc/self/fd")]
                    held = [os.readlink(one) for one in links if os.path.lexists(one)]
                    assert not [one for one in held if str(path) in one], held
        print("unstored", store.unstored_ticks, "ok", store.state.ok)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(path)],
        check=True,
        capture_output=True,
        text=True,
    )

    assert done.stdout.splitlines()[-1] == "unstored 10 ok True", done.stdout
    assert assert_whole(path) == 20
