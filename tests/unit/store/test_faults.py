"""What the store does when its file or its directory is damaged, deleted or replaced under it.

In each case: the tick that cannot be stored is counted and said, what is stored stays readable (in
place or quarantined), no half tick is ever seen, and storing goes on by itself.
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
from tests.unit.store.writer import Writer, assert_whole, noise, quarantined


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "so1" / "metrics.db"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def writer(path: Path, clock: FakeClock) -> Iterator[Writer]:
    with open_store(path, clock) as store:
        yield Writer(store, clock)


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
def test_a_file_damaged_in_mid_run_is_quarantined_and_that_very_tick_is_stored(
    path: Path, writer: Writer, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    writer.tick(120)
    damage(path)
    writer.tick(5)

    assert writer.store.unstored_ticks == 0
    assert writer.store.state.ok
    assert assert_whole(path) == 5
    assert quarantined(path) == [writer.store.quarantined]
    assert caplog.text.count("database=damaged") == 1


def test_a_damaged_file_is_kept_as_it_was_found_with_its_log(path: Path, writer: Writer) -> None:
    writer.tick(120)
    log = path.with_name("metrics.db-wal").read_bytes()
    noise(path, 0, path.stat().st_size)
    found = path.read_bytes()
    writer.tick()

    kept = writer.store.quarantined
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
    assert quarantined(path) == []
    assert path.with_name("metrics.db-wal").exists()


def test_a_cut_log_costs_at_most_the_ticks_in_it(path: Path, writer: Writer) -> None:
    writer.tick(200)
    os.truncate(path.with_name("metrics.db-wal"), 0)
    writer.tick(3)

    assert writer.store.unstored_ticks == 0
    assert assert_whole(path) >= 3
    everywhere = sum(count(one, "metrics") for one in [path, *quarantined(path)])
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
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 0.05)
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
    assert quarantined(path) == []


def test_another_programs_checkpoint_is_no_damage(path: Path, writer: Writer) -> None:
    writer.tick(20)
    other = sqlite3.connect(path)
    assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    other.close()
    writer.tick(2)

    assert assert_whole(path) == 22
    assert quarantined(path) == []
