"""Where images, trees and built modules are kept between runs, and who may use them now.

Everything is named by a hash of what it is made from, built aside and renamed, so that a name
that exists is whole. Nothing here is precious: the directory may be deleted at any time.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import LabError
from .process import run, say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_DEFAULT = Path("/var/cache/so1-lab")
_KEY_LENGTH = 16


def directory() -> Path:
    """The cache directory, made if absent: `SO1_LAB_CACHE` or /var/cache/so1-lab."""
    path = Path(os.environ.get("SO1_LAB_CACHE") or _DEFAULT)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LabError(
            f"the cache {path} cannot be made: {error.strerror}",
            "run as root, or set SO1_LAB_CACHE",
        ) from error
    return path


def key(parts: Iterable[str | bytes | Path]) -> str:
    """A short hash of `parts`: texts as they are, files and directories by name and content."""
    digest = hashlib.sha256()

    def add(data: bytes) -> None:
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)

    for part in parts:
        if isinstance(part, Path):
            for file in [part] if part.is_file() else sorted(part.rglob("*")):
                if file.is_file() and "__pycache__" not in file.parts:
                    add(file.name.encode())
                    add(file.read_bytes())
        else:
            add(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()[:_KEY_LENGTH]


def obtain(parent: Path, prefix: str, made_from: str, make: Callable[[Path], None]) -> Path:
    """The directory `parent/prefix-made_from`, made by `make(directory aside)` if absent.

    Directories of the same prefix with another key are removed once the new one stands.
    """
    target = parent / f"{prefix}-{made_from}"
    if target.is_dir():
        return target
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(f".making-{prefix}-*"):  # an interrupted build; we hold the lock
        remove_tree(left)
    aside = Path(tempfile.mkdtemp(prefix=f".making-{prefix}-", dir=parent))
    try:
        aside.chmod(0o755)
        make(aside)
        aside.rename(target)
    except BaseException:
        remove_tree(aside)
        raise
    for old in parent.glob(f"{prefix}-*"):
        if old != target:
            remove_tree(old)
    return target


def remove_tree(path: Path) -> None:
    """Remove a tree of ours, and nothing of another file system that is mounted in it."""
    run(["rm", "-rf", "--one-file-system", "--", path], timeout_s=600)
    shutil.rmtree(path, ignore_errors=True)


@contextmanager
def lock(name: str, purpose: str) -> Iterator[None]:
    """Hold the cache's lock `name`; while waiting, say once for whom and how long it took.

    The lock goes with the process that holds it, however it ends. The file says who that is.
    """
    path = directory() / f"{name}.lock"
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            say(f"waiting for another {name}: {file.read().strip() or 'unknown'}")
            begun = time.monotonic()
            fcntl.flock(file, fcntl.LOCK_EX)
            say(f"waited {time.monotonic() - begun:.0f} s")
        file.truncate(0)
        file.write(f"pid {os.getpid()}, {purpose}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)
