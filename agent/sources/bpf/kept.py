"""The compiled BPF programs of this kernel, kept on disk so that a later start compiles nothing.

The kernel's verifier protects nothing here: instructions that were made for another kernel load
without an error and read the wrong fields. So a file is used only when everything that went into
it is the same to the byte, when it is whole, and when nobody but root could have written it;
anything else is reported, refused and made fresh.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import platform
import stat
import sys
from contextlib import suppress
from pathlib import Path

import msgspec

from agent.errors import SourceError
from agent.model.container import Hierarchy
from agent.sources.bpf.btf import BTF_PATH
from agent.sources.bpf.offsets import hierarchy_number
from agent.sources.bpf.programs import Compiled, Order
from agent.sources.bpf.support import PACKAGE, SOURCES

log = logging.getLogger(__name__)

DIRECTORY = Path("/var/lib/so1/bpf")

_MAGIC = b"so1 bpf 1\n"
_MOST_BYTES = 4 << 20
_COMPILER = ("btf", "compiler", "offsets", "programs", "records")
"""The modules below `agent/sources/bpf` that decide what a compile yields."""


class KeptError(SourceError):
    """A kept file is not to be used; the message says why."""


class OutdatedError(KeptError):
    """The file is whole and was made for something else: the ordinary case after an update."""


class _KeptFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    made_for: dict[str, str]
    compiled: Compiled


def made_for(order: Order, btf_path: Path = BTF_PATH) -> dict[str, str]:
    """Everything that the instructions depend on. Raises SourceError."""
    uname = os.uname()
    try:
        with btf_path.open("rb") as file:  # megabytes that are not to be kept
            btf = hashlib.file_digest(file, "sha256").hexdigest()
        notes = Path("/sys/kernel/notes").read_bytes()
        texts = [path for path in sorted(SOURCES.rglob("*")) if path.is_file()]
        texts += [PACKAGE / "sources" / "bpf" / f"{name}.py" for name in _COMPILER]
        sources = hashlib.sha256()
        for path in texts:
            content = path.read_bytes()
            sources.update(f"{path.name} {len(content)}\n".encode() + content)
    except OSError as error:
        raise SourceError(f"{error.filename} cannot be read: {error.strerror}.") from error
    hierarchy = Hierarchy(order.hierarchy)
    return {
        "kernel's type information": btf,
        "kernel": f"{uname.release} {uname.version}",
        "kernel's build id": hashlib.sha256(notes).hexdigest(),
        "machine": f"{platform.machine()} {sys.byteorder} {os.sysconf('SC_PAGE_SIZE')}",
        "programs": order.programs,
        "hierarchy": f"{hierarchy} {hierarchy_number(hierarchy)}",
        "sources": sources.hexdigest(),
        "BCC": _bcc_version(),
    }


def _bcc_version() -> str:
    """What BCC says of itself, without importing it (a second, and 100 MB)."""
    with suppress(ImportError, ValueError, OSError):
        spec = importlib.util.find_spec("bcc")
        for place in (spec.submodule_search_locations if spec else None) or ():
            return Path(place, "version.py").read_text(encoding="utf-8", errors="replace").strip()
    return ""


def file_name(order: Order) -> str:
    return f"{order.programs}-{order.hierarchy}"


def read(directory: Path, order: Order, wanted: dict[str, str]) -> Compiled | None:
    """What is kept for `wanted`; None where nothing is. Raises KeptError, saying why."""
    name = file_name(order)
    try:
        holder = _open_directory(directory)
    except FileNotFoundError:
        return None
    try:
        raw = _read_file(holder, name, directory)
    except FileNotFoundError:
        return None
    finally:
        os.close(holder)
    digest, payload = raw[len(_MAGIC) : len(_MAGIC) + 32], raw[len(_MAGIC) + 32 :]
    if not raw.startswith(_MAGIC) or hashlib.sha256(payload).digest() != digest:
        raise KeptError(f"{directory / name} is cut or changed.")
    try:
        file = msgspec.msgpack.decode(payload, type=_KeptFile)
    except msgspec.MsgspecError as error:
        raise KeptError(f"{directory / name} has another form: {error}.") from error
    differs = sorted(
        part
        for part in wanted.keys() | file.made_for.keys()
        if wanted.get(part) != file.made_for.get(part)
    )
    if differs:
        raise OutdatedError(f"{directory / name} was made for other {', '.join(differs)}.")
    return file.compiled


def write(directory: Path, order: Order, wanted: dict[str, str], compiled: Compiled) -> None:
    """Keeps it, whole or not at all. Raises KeptError where that is refused."""
    name = file_name(order)
    payload = msgspec.msgpack.encode(_KeptFile(wanted, compiled))
    content = _MAGIC + hashlib.sha256(payload).digest() + payload
    fresh = f".{name}.{os.getpid()}"
    try:
        directory.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            directory.mkdir(mode=0o700)
        holder = _open_directory(directory)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with suppress(FileNotFoundError):
                os.unlink(fresh, dir_fd=holder)
            with open(os.open(fresh, flags, 0o600, dir_fd=holder), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.rename(fresh, name, src_dir_fd=holder, dst_dir_fd=holder)
        finally:
            os.close(holder)
    except OSError as error:
        raise KeptError(f"{directory / name} cannot be written: {error.strerror}.") from error


def _open_directory(directory: Path) -> int:
    """Its descriptor. Raises FileNotFoundError, KeptError where others could write below it."""
    real = Path(os.path.realpath(directory))
    for place in (real, *real.parents):
        status = place.lstat()
        trusted = status.st_uid in (0, os.geteuid()) and stat.S_ISDIR(status.st_mode)
        open_to_others = status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX
        if not trusted or open_to_others or (place == real and status.st_mode & 0o022):
            raise KeptError(f"{place} could be written by others than root.")
    return os.open(real, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _read_file(holder: int, name: str, directory: Path) -> bytes:
    try:
        fd = os.open(
            name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=holder
        )
    except FileNotFoundError:
        raise
    except OSError as error:
        raise KeptError(f"{directory / name} cannot be opened: {error.strerror}.") from error
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise KeptError(f"{directory / name} is no plain file of its own.")
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise KeptError(f"{directory / name} could be written by others than root.")
        if status.st_size > _MOST_BYTES:
            raise KeptError(f"{directory / name} is too large.")
        return file.read()
