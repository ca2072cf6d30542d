"""The database's files on disk: a safe place for them, whose they are, and their quarantine.

Nothing here opens SQLite. Root writes these files, so every directory on the way must be one that
nobody else can change; and a file that is not this agent's is never touched, damaged or not.
"""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime
from enum import Enum, auto
from pathlib import Path

from agent.errors import StoreError
from agent.util.files import create

APPLICATION_ID = 0x536F3141
"""`So1A` in SQLite's header, which tells our databases from all others."""

DEFAULT_NAME = "metrics.db"
INSTALLATION_FILE = "installation"

DIRECTORY_MODE = 0o750
FILE_MODE = 0o640

HEADER_BYTES = 100

_MAGIC = b"SQLite format 3\0"
_SIDE_SUFFIXES = ("-wal", "-shm", "-journal")


class FileKind(Enum):
    """What lies at the database's path, as far as its first bytes tell."""

    ABSENT = auto()
    EMPTY = auto()
    OURS = auto()
    DAMAGED = auto()
    """Ours by its place, but not a database any more."""
    FOREIGN = auto()


def side_file(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def prepare_directory(path: Path) -> None:
    """Makes the directory of the database `path` (0750, root's), or checks the one that is there.

    Raises StoreError for a symbolic link anywhere in the path, and for a directory that somebody
    other than root (and the caller) owns or may write: they could put another file in its place.
    """
    for directory in reversed(path.parents):
        try:
            found = directory.lstat()
        except FileNotFoundError:
            _make_directory(directory)
            continue
        except OSError as error:
            raise StoreError(f"{directory} cannot be looked at: {error.strerror}.") from error
        _refuse_link(directory, found, path)
        if not stat.S_ISDIR(found.st_mode):
            raise StoreError(
                f"{directory} is not a directory, so no database can be kept in it.",
                "Name another path with --database.",
            )
        _refuse_others(directory, found, is_last=directory == path.parent)
    for candidate in (path, *(side_file(path, suffix) for suffix in _SIDE_SUFFIXES)):
        try:
            found = candidate.lstat()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise StoreError(f"{candidate} cannot be looked at: {error.strerror}.") from error
        _refuse_link(candidate, found, path)
        if not stat.S_ISREG(found.st_mode):
            raise StoreError(
                f"{candidate} is not a file, so it cannot be the database.",
                "Move it away, or name another path with --database.",
            )


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(DIRECTORY_MODE)
        directory.chmod(DIRECTORY_MODE)
        if os.geteuid() == 0:
            os.chown(directory, 0, 0)
    except OSError as error:
        raise StoreError(
            f"The directory {directory} cannot be made: {error.strerror}.",
            "Name a database elsewhere with --database.",
        ) from error


def _refuse_link(component: Path, found: os.stat_result, path: Path) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise StoreError(
            f"{component} is a symbolic link, and the database's path must not contain one.",
            f"Name the real path: --database {os.path.realpath(path)}",
        )


def _refuse_others(directory: Path, found: os.stat_result, *, is_last: bool) -> None:
    trusted = {0, os.geteuid()}
    if found.st_uid not in trusted:
        raise StoreError(
            f"{directory} belongs to user {found.st_uid}, who could replace the database in it.",
            "Name a path with --database whose directories are all root's.",
        )
    by_group = found.st_mode & stat.S_IWGRP and found.st_gid not in {0, os.getegid()}
    by_others = found.st_mode & stat.S_IWOTH
    # /tmp: others may write, but its sticky bit keeps them from replacing what is not theirs.
    sticky = found.st_mode & stat.S_ISVTX and not is_last
    if (by_group or by_others) and not sticky:
        raise StoreError(
            f"{directory} may be written by others, who could replace the database in it.",
            f"Take that right away (chmod go-w {directory}), or name another path with --database.",
        )


def create_file(path: Path) -> None:
    """An empty 0640 file at `path`, whatever the umask. Raises StoreError."""
    try:
        os.close(create(path, FILE_MODE))
    except OSError as error:
        raise StoreError(
            f"The database {path} cannot be made: {error.strerror}.",
            "See the directory's mode and the room on its disk (df).",
        ) from error


def narrow_mode(path: Path) -> None:
    """Takes away what 0640 does not give. Raises StoreError."""
    try:
        mode = stat.S_IMODE(path.lstat().st_mode)
        if mode & ~FILE_MODE:
            path.chmod(mode & FILE_MODE)
    except OSError as error:
        raise StoreError(f"The mode of {path} cannot be set: {error.strerror}.") from error


def kind(path: Path) -> FileKind:
    """What lies at `path`. Raises StoreError where it cannot be read.

    A file whose first bytes are SQLite's is ours by its application id alone. One that begins with
    anything else is taken for a damaged database of ours only where its place says so: the default
    name, or an installation's id beside it. So a wrong `--database` never moves a stranger's file.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEADER_BYTES)
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        return FileKind.ABSENT
    except OSError as error:
        raise StoreError(
            f"The database {path} cannot be read: {error.strerror}.", "See its mode and its disk."
        ) from error
    in_our_place = path.name == DEFAULT_NAME or (path.parent / INSTALLATION_FILE).is_file()
    if size == 0:
        # A file cut to nothing beside a log that still has rows: SQLite would drop the log.
        return FileKind.DAMAGED if _has_content(side_file(path, "-wal")) else FileKind.EMPTY
    if head.startswith(_MAGIC) and len(head) >= 72:
        marked = int.from_bytes(head[68:72], "big") == APPLICATION_ID
        return FileKind.OURS if marked else FileKind.FOREIGN
    return FileKind.DAMAGED if in_our_place else FileKind.FOREIGN


def remove_unused_log(path: Path) -> None:
    """Removes an empty log beside a database that does not use one: a start died in between.

    No connection may be open. Raises StoreError.
    """
    log = side_file(path, "-wal")
    if not log.exists() or _has_content(log):
        return
    try:
        with path.open("rb") as file:
            uses_log = file.read(HEADER_BYTES)[18:19] == b"\2"
        if not uses_log:
            log.unlink()
            side_file(path, "-shm").unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{log} cannot be removed: {error.strerror}.") from error


def _has_content(path: Path) -> bool:
    try:
        return path.lstat().st_size > 0
    except OSError:
        return False


def quarantine(path: Path, wall_ns: int, *, log_only: bool = False) -> Path | None:
    """Renames the database with its side files to `NAME.damaged-<UTC time>` and gives that path.

    The side files keep their endings, so that SQLite still finds them. None where there was
    nothing. `log_only` leaves the database where it is. Raises StoreError where a rename fails.
    """
    stamp = datetime.fromtimestamp(wall_ns / 10**9, UTC).strftime("%Y%m%dT%H%M%SZ")
    names = [path.name + suffix for suffix in ("", *_SIDE_SUFFIXES)]
    present = [name for name in names if os.path.lexists(path.with_name(name))]
    if log_only and path.name in present:
        present.remove(path.name)
    if not present:
        return None
    number = 0
    while True:
        mark = f".damaged-{stamp}" + (f".{number}" if number else "")
        targets = {
            name: path.with_name(path.name + mark + name[len(path.name) :]) for name in names
        }
        if not any(os.path.lexists(target) for target in targets.values()):
            break
        number += 1
    try:
        for name in present:
            path.with_name(name).rename(targets[name])
    except OSError as error:
        raise StoreError(
            f"The damaged database {path} cannot be quarantined: {error.strerror}.",
            f"Move it away by hand: sudo mv {path} {targets[path.name]}",
        ) from error
    return targets[path.name]
