"""The host's memory between two ticks: `MemAvailable`, memory pressure (PSI), and its triggers.

Both files stay open, so that a reading takes microseconds and opens nothing while memory is short.
What a trigger is and why one may be missing: Documentation/accounting/psi.rst.
"""

from __future__ import annotations

import errno
import os
import re
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent.clock import Clock
from agent.errors import SourceError
from agent.model.host import MemoryReading

PRESSURE = "pressure/memory"
"""Below `/proc`."""

_AVAILABLE = re.compile(rb"^MemAvailable:\s*(\d{1,15}) kB$", re.MULTILINE)
_SOME = re.compile(rb"^some avg10=(\d{1,3}(?:\.\d{1,6})?) .*\btotal=(\d{1,19})$", re.MULTILINE)
_OFF = re.compile(r"(?:^|\s)psi=(?:0|n|no|off|false)(?=\s|$)", re.IGNORECASE)
_ON = re.compile(r"(?:^|\s)psi=(?:1|y|yes|on|true)(?=\s|$)", re.IGNORECASE)
_READ_BYTES = 8192

_WINDOW_US = 1_000_000
_WINDOW_FOR_ALL_US = 2_000_000
"""Shorter ones need CAP_SYS_RESOURCE; multiples of this one do not, since Linux 6.5."""


class MemorySampler:
    """Reads the two files as often as it is asked."""

    def __init__(self, clock: Clock, proc: Path = Path("/proc")) -> None:
        self._clock = clock
        self._meminfo = _RereadFile(proc / "meminfo")
        self._pressure = _RereadFile(proc / PRESSURE)

    def read(self, *, pressure: bool) -> MemoryReading:
        """One reading; what cannot be read is None in it. `pressure`: also that."""
        available = _AVAILABLE.search(self._meminfo.read())
        some = _SOME.search(self._pressure.read()) if pressure else None
        return MemoryReading(
            read_ns=self._clock.boot_ns(),
            available_kb=int(available[1]) if available else None,
            pressure=float(some[1]) if some else None,
            stalled_us=int(some[2]) if some else None,
        )

    def close(self) -> None:
        self._meminfo.close()
        self._pressure.close()


class _RereadFile:
    """A file of `/proc` that is read again and again from its beginning."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def read(self) -> bytes:
        """Its text; empty where it cannot be read."""
        try:
            if self._descriptor is None:
                self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            return os.pread(self._descriptor, _READ_BYTES, 0)
        except OSError:
            self.close()
            return b""

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):
                os.close(descriptor)


class PressureTrigger:
    """Wakes who polls for POLLPRI once so much of a window was lost to waiting for memory."""

    def __init__(self, descriptor: int, window_us: int) -> None:
        self._descriptor = descriptor
        self.window_us = window_us

    @classmethod
    def set(cls, percent: float, proc: Path = Path("/proc")) -> PressureTrigger:
        """One that fires at `percent` of a window of a second, of two seconds without the right.

        Raises SourceError with the reason why there can be none.
        """
        path = proc / PRESSURE
        refused: OSError | None = None
        for window_us in (_WINDOW_US, _WINDOW_FOR_ALL_US):
            stall_us = min(window_us, max(1, round(percent * window_us / 100)))
            try:
                return cls(_set(path, f"some {stall_us} {window_us}"), window_us)
            except OSError as error:
                refused = error
                if error.errno != errno.EINVAL:
                    break
        assert refused is not None  # noqa: S101
        missing = why_missing(proc)
        if missing is not None:
            raise SourceError(missing.reason, missing.remedy) from refused
        raise SourceError(
            "no trigger can be set on memory pressure: "
            + (
                "the right CAP_SYS_RESOURCE is missing"
                if refused.errno in (errno.EPERM, errno.EACCES, errno.EINVAL, errno.EROFS)
                else os.strerror(refused.errno or 0)
            ),
            "Nothing is lost but time: pressure is read each second instead.",
        ) from refused

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        with suppress(OSError):
            os.close(self._descriptor)


def why_no_trigger(proc: Path = Path("/proc")) -> str:
    """Why no trigger can be set by this process, "" where one can; it is tried."""
    try:
        PressureTrigger.set(100, proc).close()
    except SourceError as error:
        return error.message
    return ""


def _set(path: Path, words: str) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        # The kernel puts a NUL over the last byte.
        os.write(descriptor, words.encode() + b"\0")
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


@dataclass(frozen=True, slots=True)
class MissingPressure:
    """Why this host tells no memory pressure."""

    reason: str
    """A clause."""
    remedy: str
    """A sentence."""

    @property
    def sentence(self) -> str:
        return f"{self.reason[:1].upper()}{self.reason[1:]}. {self.remedy}"


def why_missing(
    proc: Path = Path("/proc"), kernel_has: Callable[[str], bool | None] | None = None
) -> MissingPressure | None:
    """Why there is no memory pressure to read, None where there is.

    With `psi=0`, or where the kernel has it off by default, older kernels have the file and refuse
    its reading (EOPNOTSUPP), newer ones have no file; without CONFIG_PSI there is none either.
    """
    path = proc / PRESSURE
    try:
        with path.open("rb") as file:
            if _SOME.search(file.read(_READ_BYTES)):
                return None
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EOPNOTSUPP):
            return MissingPressure(
                f"{path} cannot be read ({error.strerror})", f"Look at it as root: cat {path}."
            )
    words = _text(proc / "cmdline")
    if _OFF.search(words):
        return MissingPressure(
            "it is turned off (psi=0 on the kernel's command line)",
            "Take psi=0 away and boot again, or use available_mb.",
        )
    has = kernel_has or kernel_option
    if has("CONFIG_PSI") is False:
        return MissingPressure(
            "this kernel is built without PSI (CONFIG_PSI)",
            "Use available_mb, or a kernel that has it.",
        )
    if not _ON.search(words):
        return MissingPressure(
            "this kernel tells no memory pressure unless it is asked to",
            "Boot with psi=1 on the kernel's command line, or use available_mb.",
        )
    return MissingPressure(f"there is no {path}, though psi=1 was given", "Use available_mb.")


def _unzipped(data: bytes) -> bytes:
    """Raises zlib.error for what is no gzip's. zlib is loaded anyway, the module gzip is not."""
    return zlib.decompress(data, wbits=16 + zlib.MAX_WBITS)


def kernel_option(option: str) -> bool | None:
    """Whether the kernel was built with `option`, None where its configuration is not readable."""
    for path in (Path("/proc/config.gz"), Path("/boot") / f"config-{os.uname().release}"):
        try:
            data = path.read_bytes()
            text = _unzipped(data) if path.suffix == ".gz" else data
        except (OSError, EOFError, zlib.error):
            continue
        return f"\n{option}=y\n".encode() in b"\n" + text
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
