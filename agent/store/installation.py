"""This installation's id: random, made once, kept beside the database.

Containers carry it as the label `so1.installation`. It is what *stop* and *cleanup* go by, so a
file that does not hold exactly one id is refused rather than repaired.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.errors import StoreError
from agent.store.files import FILE_MODE, INSTALLATION_FILE, prepare_directory
from agent.util.files import put_new

_ID = re.compile(rb"[0-9a-f]{32}\n?")


def installation_id(directory: Path) -> str:
    """The id kept in `directory`, made where there is none: 32 hexadecimal digits.

    Raises StoreError for an unsafe directory, and for a file that is not ours to trust.
    """
    remove_leftovers(directory)
    found = existing_installation_id(directory)
    if found is not None:
        return found
    prepare_directory(Path(os.path.abspath(directory)) / INSTALLATION_FILE)
    with _alone(directory):
        _create(directory / INSTALLATION_FILE, secrets.token_hex(16))
    # Read back: another process may have been quicker.
    made = existing_installation_id(directory)
    if made is None:
        raise StoreError(
            f"{directory / INSTALLATION_FILE} vanished while it was made.", "Try again."
        )
    return made


def existing_installation_id(directory: Path) -> str | None:
    """The id kept in `directory`, None where there is none. Raises StoreError as above."""
    path = directory / INSTALLATION_FILE
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreError(
            f"The installation's id {path} cannot be read: {error.strerror}.",
            "It must be a plain file that root can read.",
        ) from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise StoreError(f"{path} is not a plain file.", _hint(path))
        if found.st_uid not in {0, os.geteuid()} or found.st_mode & 0o022:
            raise StoreError(f"{path} may be written by others than root.", _hint(path))
        content = os.read(descriptor, 64)
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}.", _hint(path)) from error
    finally:
        os.close(descriptor)
    if not _ID.fullmatch(content):
        raise StoreError(f"{path} does not hold an installation's id.", _hint(path))
    return content.strip().decode("ascii")


def remove_leftovers(directory: Path) -> None:
    """Removes what a process that was killed while it made an id has left. Raises StoreError."""
    left = [*directory.glob(f".{INSTALLATION_FILE}.*")]
    if left:
        with _alone(directory):
            for aside in left:
                try:
                    aside.unlink(missing_ok=True)
                except OSError as error:
                    raise StoreError(
                        f"{aside} cannot be removed: {error.strerror}.", "Remove it."
                    ) from error


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Nobody else makes an id in `directory`: a kill ends the lock, so what is left is nobody's."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StoreError(
            f"The directory {directory} cannot be locked: {error.strerror}.",
            "It must be on a disk of this host.",
        ) from error


def _create(path: Path, value: str) -> None:
    """The whole file or none: written aside, made durable, linked to its name if that is free."""
    try:
        put_new(path, value.encode("ascii") + b"\n", FILE_MODE)
    except OSError as error:
        raise StoreError(
            f"The installation's id {path} cannot be made: {error.strerror}.",
            "See the directory's mode and the room on its disk (df).",
        ) from error


def _hint(path: Path) -> str:
    return (
        f"If nothing of this installation runs (docker ps -a --filter label=so1.installation), "
        f"move it away and a new one is made: sudo mv {path} {path}.old"
    )
