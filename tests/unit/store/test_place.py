"""Where the database may be: a safe directory, a file of ours, and nothing of anybody else's."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from agent.errors import StoreError
from agent.store import installation
from agent.store.installation import existing_installation_id, installation_id
from tests.unit.store.builders import (
    START_NS,
    FakeClock,
    a_tick,
    ask,
    count,
    open_store,
)

ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="needs root, to give files to another user")
STAMP = "20251124T160000Z"
"""START_NS, in UTC."""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest) -> object:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_directory_and_files_get_their_modes_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "so1" / "metrics.db"
    with open_store(path) as store:
        store.write_tick(a_tick())
        modes = {one.name: oct(mode(one)) for one in path.parent.iterdir()}

    assert oct(mode(path.parent)) == "0o750"
    assert modes == {
        "metrics.db": "0o640",
        "metrics.db-wal": "0o640",
        "metrics.db-shm": "0o640",
    }


@needs_root
def test_what_is_made_is_roots_also_in_a_directory_that_hands_its_group_on(tmp_path: Path) -> None:
    parent = tmp_path / "shared"
    parent.mkdir()
    os.chown(parent, 0, 12345)
    parent.chmod(0o2755)
    with open_store(parent / "so1" / "metrics.db") as store:
        store.write_tick(a_tick())
        owners = {(one.stat().st_uid, one.stat().st_gid) for one in (parent / "so1").iterdir()}

    assert owners == {(0, 0)}
    assert ((parent / "so1").stat().st_uid, (parent / "so1").stat().st_gid) == (0, 0)


def test_a_file_with_a_wider_mode_is_narrowed(tmp_path: Path) -> None:
    path = tmp_path / "metrics.db"
    open_store(path).close()
    path.chmod(0o666)
    open_store(path).close()

    assert mode(path) == 0o640


@pytest.mark.parametrize("place", ["file", "directory", "ancestor", "wal"])
def test_a_symbolic_link_in_the_path_is_refused_and_nothing_is_made_behind_it(
    tmp_path: Path, place: str
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "so1").mkdir()
    path = {
        "file": tmp_path / "metrics.db",
        "directory": tmp_path / "link" / "metrics.db",
        "ancestor": tmp_path / "link" / "so1" / "metrics.db",
        "wal": tmp_path / "metrics.db",
    }[place]
    link = {
        "file": path,
        "wal": tmp_path / "metrics.db-wal",
    }.get(place, tmp_path / "link")
    link.symlink_to(target / "victim" if place in ("file", "wal") else target)

    with pytest.raises(StoreError, match="symbolic link") as refused:
        open_store(path)

    assert str(link) in refused.value.message
    assert "--database" in refused.value.hint
    assert [one.name for one in target.iterdir()] == ["so1"]
    assert list((target / "so1").iterdir()) == []


@pytest.mark.parametrize("bits", [0o757, 0o1777], ids=oct)
def test_a_directory_that_others_may_write_is_refused(tmp_path: Path, bits: int) -> None:
    directory = tmp_path / "open"
    directory.mkdir()
    directory.chmod(bits)

    with pytest.raises(StoreError, match="written by others") as refused:
        open_store(directory / "metrics.db")

    assert f"chmod go-w {directory}" in refused.value.hint
    assert list(directory.iterdir()) == []


@needs_root
@pytest.mark.parametrize("which", ["owner", "group", "ancestor"])
def test_a_directory_that_another_user_can_change_is_refused(tmp_path: Path, which: str) -> None:
    home = tmp_path / "home"
    directory = home / "so1"
    directory.mkdir(parents=True)
    if which == "owner":
        os.chown(directory, 12345, 0)
    elif which == "group":
        os.chown(directory, 0, 12345)
        directory.chmod(0o770)
    else:
        os.chown(home, 12345, 12345)

    with pytest.raises(StoreError, match=r"belongs to user 12345|written by others"):
        open_store(directory / "metrics.db")

    assert list(directory.iterdir()) == []


@pytest.mark.parametrize("thing", ["directory", "fifo"])
def test_what_is_not_a_file_is_not_a_database(tmp_path: Path, thing: str) -> None:
    path = tmp_path / "metrics.db"
    path.mkdir() if thing == "directory" else os.mkfifo(path)

    with pytest.raises(StoreError, match="is not a file"):
        open_store(path)


def test_a_path_through_a_file_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("x")
    with pytest.raises(StoreError, match="not a directory"):
        open_store(tmp_path / "plain" / "metrics.db")


@pytest.mark.parametrize("name", ["passwd", "aliases.db"])
def test_a_strangers_file_is_refused_and_left_byte_for_byte(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"root:x:0:0:root:/root:/bin/bash\n" * 50)
    before = path.read_bytes(), path.stat().st_mtime_ns, mode(path)

    with pytest.raises(StoreError, match="not the agent's database"):
        open_store(path)

    assert (path.read_bytes(), path.stat().st_mtime_ns, mode(path)) == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["grafana.db", "metrics.db"])
def test_another_programs_database_is_refused_also_under_our_name(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE metrics (id INTEGER PRIMARY KEY, timestamp INTEGER)")
    connection.close()
    before = path.read_bytes()

    with pytest.raises(StoreError, match="not the agent's database"):
        open_store(path)

    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def noise(path: Path) -> None:
    path.write_bytes(bytes((n * 7919 + n // 251) % 256 for n in range(20_000)))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 + 100)


def cut_short(path: Path) -> None:
    os.truncate(path, 50)


def noise_inside(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))


def a_table_is_gone(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE container_totals")
    connection.close()


@pytest.mark.parametrize("damage", [noise, cut, cut_short, noise_inside, a_table_is_gone])
def test_a_damaged_database_is_quarantined_said_and_a_new_one_begun(
    tmp_path: Path, damage: object, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metrics.db"
    with open_store(path) as store:
        for number in range(50):
            store.write_tick(a_tick(START_NS + number * 10**9, 20))
    damage(path)  # type: ignore[operator]
    found = path.read_bytes()

    with open_store(path, FakeClock()) as store:
        kept_as = store.quarantined
        assert store.state.quarantined == kept_as
        store.write_tick(a_tick())

    assert kept_as == tmp_path / f"metrics.db.damaged-{STAMP}"
    assert kept_as.read_bytes() == found
    assert f"database=damaged path={path} kept_as={kept_as}" in caplog.text
    assert count(path, "metrics") == 1


def test_a_log_beside_a_database_cut_to_nothing_is_kept_with_it(tmp_path: Path) -> None:
    path = tmp_path / "metrics.db"
    running = open_store(path)
    running.write_tick(a_tick())
    log = path.with_name("metrics.db-wal").read_bytes()
    running.close()
    path.write_bytes(b"")
    path.with_name("metrics.db-wal").write_bytes(log)

    with open_store(path) as store:
        assert store.quarantined is not None
        kept = store.quarantined.with_name(store.quarantined.name + "-wal")

    assert kept.read_bytes() == log


def test_side_files_without_their_database_are_kept_and_not_replayed(tmp_path: Path) -> None:
    path = tmp_path / "metrics.db"
    running = open_store(path)
    running.write_tick(a_tick())
    log = path.with_name("metrics.db-wal").read_bytes()
    running.close()
    path.unlink()
    path.with_name("metrics.db-wal").write_bytes(log)

    with open_store(path) as store:
        store.write_tick(a_tick(START_NS + 10**9))

    assert count(path, "metrics") == 1
    assert tmp_path.joinpath(f"metrics.db.damaged-{STAMP}-wal").read_bytes() == log


def test_a_second_damage_in_the_same_second_keeps_both(tmp_path: Path) -> None:
    path = tmp_path / "metrics.db"
    for content in (b"first" * 100, b"second" * 100):
        path.write_bytes(content)
        open_store(path).close()

    assert {one.read_bytes() for one in tmp_path.glob("*.damaged-*")} == {
        b"first" * 100,
        b"second" * 100,
    }


def test_noise_under_another_name_is_ours_where_an_installation_is_beside_it(
    tmp_path: Path,
) -> None:
    installation_id(tmp_path)
    path = tmp_path / "history.sqlite"
    path.write_bytes(b"noise" * 100)
    with open_store(path) as store:
        assert store.quarantined is not None


def test_an_empty_file_is_filled(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    path.touch()
    with open_store(path) as store:
        store.write_tick(a_tick())
        assert store.quarantined is None

    assert ask(path, "PRAGMA auto_vacuum") == [(2,)]


def test_an_installations_id_is_made_once_random_and_kept(tmp_path: Path) -> None:
    directory = tmp_path / "so1"
    assert existing_installation_id(directory) is None
    made = installation_id(directory)

    assert installation_id(directory) == existing_installation_id(directory) == made
    assert len(made) == 32
    assert int(made, 16)
    assert installation_id(tmp_path / "other") != made
    assert mode(directory / "installation") == 0o640
    assert mode(directory) == 0o750
    assert [one.name for one in directory.iterdir()] == ["installation"]


@pytest.mark.parametrize(
    "content",
    [b"", b"x" * 32, b"A" * 32, b"a" * 31, b"a" * 33, b"a" * 32 + b"\nb", b"\0" * 32, b"a" * 10**6],
    ids=["empty", "letters", "capitals", "short", "long", "two lines", "zeros", "huge"],
)
def test_an_installations_file_with_anything_else_in_it_is_refused_and_kept(
    tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "installation"
    file.write_bytes(content)
    file.chmod(0o640)

    for look in (installation_id, existing_installation_id):
        with pytest.raises(StoreError, match="does not hold an installation's id") as refused:
            look(tmp_path)
        assert str(file) in refused.value.hint
    assert file.read_bytes() == content


@pytest.mark.parametrize("thing", ["link", "fifo", "directory", "writable"])
def test_an_installations_file_that_others_could_steer_is_refused(
    tmp_path: Path, thing: str
) -> None:
    file = tmp_path / "installation"
    if thing == "link":
        (tmp_path / "elsewhere").write_text("a" * 32)
        file.symlink_to(tmp_path / "elsewhere")
    elif thing == "fifo":
        os.mkfifo(file)
    elif thing == "directory":
        file.mkdir()
    else:
        file.write_text("a" * 32)
        file.chmod(0o666)

    with pytest.raises(StoreError):
        installation_id(tmp_path)


def test_of_two_that_make_an_id_at_once_both_get_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = installation._create
    quicker: list[str] = []

    def create(path: Path, value: str) -> None:
        if not quicker:
            quicker.append("b" * 32)
            real(path, "b" * 32)
        real(path, value)

    monkeypatch.setattr(installation, "_create", create)
    assert installation_id(tmp_path) == "b" * 32
    assert [one.name for one in tmp_path.iterdir()] == ["installation"]


def test_what_a_killed_maker_of_an_id_left_goes_at_the_next_start(tmp_path: Path) -> None:
    half = tmp_path / ".installation.0123456789abcdef"
    half.write_bytes(b"")
    made = installation_id(tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["installation"]
    half.write_bytes(b"")
    assert installation_id(tmp_path) == made
    assert not half.exists()
