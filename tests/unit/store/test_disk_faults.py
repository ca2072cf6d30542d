"""What the store does when its disk is full, read-only or refuses, and when a file is immutable.

The tick that cannot be stored is counted and reported, what is stored stays readable, and storing
goes on by itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import StoreError
from tests.unit.store.builders import (
    SECOND_NS,
    START_NS,
    FakeClock,
    a_tick,
    count,
    open_store,
)
from tests.unit.store.writer import Writer, assert_whole, quarantined


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "so1" / "metrics.db"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


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
    assert quarantined(path) == []


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
    assert quarantined(path) == []


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
                    os.sync()  # what is written back is asked for again at the next write
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
            os.sync()  # what is written back is asked for again at the next write
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
                    # A disk that has to be unmounted to be repaired is not held until then.
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
