"""The host's memory between two ticks, from files as the kernel writes them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent.errors import SourceError
from agent.sources import memory_pressure
from agent.sources.memory_pressure import MemorySampler, PressureTrigger, why_missing

MEMINFO = "MemTotal:        4022308 kB\nMemFree:  100 kB\nMemAvailable:    {kb} kB\nBuffers: 1 kB\n"
PSI = (
    "some avg10=12.50 avg60=3.10 avg300=0.80 total=9876543\n"
    "full avg10=7.00 avg60=1.00 avg300=0.10 total=1234567\n"
)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "meminfo").write_text(MEMINFO.format(kb=409600))
    (tmp_path / "pressure").mkdir()
    (tmp_path / "pressure/memory").write_text(PSI)
    (tmp_path / "cmdline").write_text("root=/dev/vda quiet\n")
    return tmp_path


@pytest.fixture
def sampler(proc: Path) -> Iterator[MemorySampler]:
    made = MemorySampler(SimpleNamespace(boot_ns=lambda: 77), proc)
    yield made
    made.close()


def has(option: bool | None) -> object:
    return lambda _name: option


def test_both_files_are_read_and_some_not_full_counts(sampler: MemorySampler) -> None:
    reading = sampler.read(pressure=True)
    assert (reading.read_ns, reading.available_kb) == (77, 409600)
    assert (reading.pressure, reading.stalled_us) == (12.5, 9876543)


def test_pressure_is_left_alone_where_nobody_asks_for_it(sampler: MemorySampler) -> None:
    reading = sampler.read(pressure=False)
    assert (reading.available_kb, reading.pressure) == (409600, None)


def test_each_reading_is_a_fresh_one(proc: Path, sampler: MemorySampler) -> None:
    sampler.read(pressure=True)
    (proc / "meminfo").write_text(MEMINFO.format(kb=7))
    assert sampler.read(pressure=True).available_kb == 7


@pytest.mark.parametrize("text", ["", "MemAvailable: x kB\n", "\0\xff", "some avg10=x total=1\n"])
def test_texts_that_are_none_of_the_kernels_are_unknown(
    proc: Path, sampler: MemorySampler, text: str
) -> None:
    for name in ("meminfo", "pressure/memory"):
        (proc / name).write_text(text)
    reading = sampler.read(pressure=True)
    assert (reading.available_kb, reading.pressure, reading.stalled_us) == (None, None, None)


def test_a_file_that_comes_later_is_read_then(proc: Path, sampler: MemorySampler) -> None:
    (proc / "meminfo").rename(proc / "aside")
    assert sampler.read(pressure=False).available_kb is None
    (proc / "aside").rename(proc / "meminfo")
    assert sampler.read(pressure=False).available_kb == 409600


def test_where_pressure_can_be_read_nothing_is_missing(proc: Path) -> None:
    assert why_missing(proc) is None


@pytest.mark.parametrize(
    ("words", "option", "reason"),
    [
        ("quiet psi=0", True, "psi=0"),
        ("psi=off", None, "psi=0"),
        ("quiet", False, "built without PSI"),
        ("psi=1", False, "built without PSI"),
        ("quiet", True, "unless it is asked to"),
        ("quiet", None, "unless it is asked to"),
        ("psi=1", True, "though psi=1 was given"),
        ("nopsi=0x", True, "unless it is asked to"),
    ],
)
@pytest.mark.parametrize("older", [True, False])
def test_why_there_is_no_pressure(
    proc: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    option: bool | None,
    reason: str,
    older: bool,
) -> None:
    """Older kernels have the file and refuse its reading, newer ones have none."""
    (proc / "cmdline").write_text(words + "\n")
    if older:
        refuse(monkeypatch, proc, errno.EOPNOTSUPP)
    else:
        (proc / "pressure/memory").unlink()
    found = why_missing(proc, has(option))  # type: ignore[arg-type]
    assert found is not None
    assert reason in found.reason
    assert found.remedy.endswith(".")


def refuse(monkeypatch: pytest.MonkeyPatch, proc: Path, number: int) -> None:
    real = Path.open

    def opened(path: Path, *words: object, **more: object) -> object:
        if path == proc / "pressure/memory":
            raise OSError(number, os.strerror(number))
        return real(path, *words, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", opened)


class Kernel:
    """What writes of a trigger meet."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *refusals: int) -> None:
        self.written: list[bytes] = []
        self._refusals = list(refusals)
        monkeypatch.setattr("os.write", self._write)

    def _write(self, _descriptor: int, words: bytes) -> int:
        self.written.append(words)
        if self._refusals and (number := self._refusals.pop(0)):
            raise OSError(number, os.strerror(number))
        return len(words)


def test_a_trigger_is_set_on_a_second_and_closed(
    proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Kernel(monkeypatch)
    trigger = PressureTrigger.set(15, proc)
    assert kernel.written == [b"some 150000 1000000\0"]
    os.fstat(trigger.fileno())
    trigger.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(trigger.fileno())


def test_without_the_right_the_window_is_two_seconds(
    proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Kernel(monkeypatch, errno.EINVAL)
    trigger = PressureTrigger.set(15, proc)
    assert kernel.written[1:] == [b"some 300000 2000000\0"]
    assert trigger.window_us == 2_000_000
    trigger.close()


@pytest.mark.parametrize(
    ("refusals", "reason"),
    [
        ((errno.EPERM,), "the right CAP_SYS_RESOURCE is missing"),
        ((errno.EINVAL, errno.EINVAL), "the right CAP_SYS_RESOURCE is missing"),
        ((errno.ENOMEM,), "Cannot allocate memory"),
    ],
)
def test_why_there_is_no_trigger(
    proc: Path, monkeypatch: pytest.MonkeyPatch, refusals: tuple[int, ...], reason: str
) -> None:
    Kernel(monkeypatch, *refusals)
    with pytest.raises(SourceError, match=reason) as told:
        PressureTrigger.set(15, proc)
    assert "each second" in told.value.hint


def test_no_trigger_without_pressure_says_why_there_is_none(
    proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (proc / "pressure/memory").unlink()
    (proc / "cmdline").write_text("psi=0\n")
    monkeypatch.setattr(memory_pressure, "kernel_option", lambda _name: True)
    with pytest.raises(SourceError, match="psi=0"):
        PressureTrigger.set(15, proc)


def test_all_of_a_window_is_the_most_that_a_trigger_asks_for(
    proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Kernel(monkeypatch)
    PressureTrigger.set(100, proc).close()
    PressureTrigger.set(0, proc).close()
    assert kernel.written == [b"some 1000000 1000000\0", b"some 1 1000000\0"]
