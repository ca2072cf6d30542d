"""Files that are there whole or not at all, whatever ends their writer in between.

A file is written aside, in its own directory under a name that begins with a dot (which cron does
not read), and then takes its place in one step. What a killed writer has left aside is written
again by the next one. Everything here raises OSError; whoever calls knows what it means.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path


def aside_of(path: Path) -> Path:
    """Where `path` is written before it takes its place. One writer at a time."""
    return path.with_name(f".{path.name}.new")


def create(path: Path, mode: int) -> int:
    """Makes a file of ours, of this very mode whatever the umask, and gives its descriptor.

    Never through a link: FileExistsError for whatever has the name.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        user = os.geteuid()
        os.fchown(descriptor, user, os.getegid() if user else 0)
        os.fchmod(descriptor, mode)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def open_regular(path: str | Path, flags: int = 0) -> int:
    """A descriptor to read a file that somebody named; `flags` is for the `opener` of `open`.

    OSError for a pipe, which would hold whoever reads it, and a device, which need not end.
    """
    descriptor = os.open(path, flags | os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "it is no regular file", str(path))


def replace(path: Path, data: bytes, mode: int, *, durable: bool) -> None:
    """Puts `data` in the place of whatever file or link has this name.

    `durable`: once this returns, it outlives a loss of power.
    """
    aside = aside_of(path)
    _clear(aside)
    try:
        _write(aside, data, mode, durable=durable)
        aside.rename(path)
    except BaseException:
        with suppress(OSError):
            aside.unlink()
        raise
    if durable:
        _sync_directory(path.parent)


def put_new(path: Path, data: bytes, mode: int) -> bool:
    """Puts `data`, made durable, under a name that is free; False where somebody has it."""
    aside = aside_of(path)
    _clear(aside)
    try:
        _write(aside, data, mode, durable=True)
        try:
            os.link(aside, path)
        except FileExistsError:
            return False
        return True
    finally:
        aside.unlink(missing_ok=True)


def remove(path: Path, *, durable: bool = False) -> bool:
    """Removes the file, and what a killed writer of it left aside; whether it was there."""
    try:
        path.unlink()
        was_there = True
    except FileNotFoundError:
        was_there = False
    aside_of(path).unlink(missing_ok=True)
    if was_there and durable:
        _sync_directory(path.parent)
    return was_there


def _clear(aside: Path) -> None:
    """A link there is nobody's leftover, and refused."""
    try:
        found = aside.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISLNK(found.st_mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(aside))
    aside.unlink()


def _write(path: Path, data: bytes, mode: int, *, durable: bool) -> None:
    with os.fdopen(create(path, mode), "wb") as file:
        file.write(data)
        if durable:
            file.flush()
            os.fsync(file.fileno())


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
