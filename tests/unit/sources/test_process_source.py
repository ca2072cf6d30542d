"""Which source a snapshot comes from when the modules come and go, and what is said of it."""

from __future__ import annotations

import gc
import itertools
import logging
import weakref
from pathlib import Path

import pytest

from agent.config import SourceChoice
from agent.errors import ModulesError, SourceError
from agent.model.host import Memory
from agent.model.process import Snapshot, Source
from agent.sources import modules as proc_modules
from agent.sources.process_source import ProcessReader

MINUTE_NS = 60 * 10**9
GONE = "/proc/sysinfo is not there."
NO_HEADERS = "The headers are missing."


class Host:
    """Modules that may be loaded or not, loadable or not, and a clock that is set."""

    def __init__(self, *, loadable: bool = True, loaded: bool = False) -> None:
        self.loadable = loadable
        self.loaded = loaded
        self.readable = True
        self.now_ns = 0
        self.loads = 0

    def wall_ns(self) -> int:
        return self.now_ns

    def boot_ns(self) -> int:
        return self.now_ns

    def load(self) -> None:
        self.loads += 1
        if not self.loadable:
            raise ModulesError(NO_HEADERS, "Install them.")
        self.loaded = True

    def modules(self) -> Snapshot:
        if not self.loaded or not self.readable:
            raise SourceError(GONE, "Load it.")
        return self._snapshot(Source.MODULES)

    def psutil(self) -> Snapshot:
        return self._snapshot(Source.PSUTIL)

    def _snapshot(self, source: Source) -> Snapshot:
        return Snapshot(source, self.now_ns, Memory(1, 1, 0, 1), (), ())

    def reader(self, choice: SourceChoice) -> ProcessReader:
        return ProcessReader(
            choice,
            read_modules=self.modules,
            read_psutil=self.psutil,
            load_modules=self.load,
            clock=self,
        )


def test_the_modules_are_the_source_where_they_can_be_loaded() -> None:
    host = Host()
    reader = host.reader(SourceChoice.AUTO)
    reader.load()
    assert reader.read().source is Source.MODULES
    assert (reader.problem, host.loads) == ("", 1)


def test_psutil_is_the_source_where_they_cannot_and_the_reason_stays_told() -> None:
    host = Host(loadable=False)
    reader = host.reader(SourceChoice.AUTO)
    reader.load()
    for _ in range(3):
        assert reader.read().source is Source.PSUTIL
        assert NO_HEADERS in reader.problem


def test_modules_that_were_asked_for_and_cannot_be_loaded_are_an_error() -> None:
    reader = Host(loadable=False).reader(SourceChoice.MODULES)
    with pytest.raises(ModulesError):
        reader.load()


def test_psutil_that_was_asked_for_touches_no_module() -> None:
    host = Host()
    reader = host.reader(SourceChoice.PSUTIL)
    reader.load()
    assert reader.read().source is Source.PSUTIL
    assert (host.loads, reader.problem) == (0, "")


def test_a_module_that_somebody_removed_is_loaded_again_within_the_same_reading() -> None:
    host = Host()
    reader = host.reader(SourceChoice.AUTO)
    reader.load()
    reader.read()
    host.loaded = False
    assert reader.read().source is Source.MODULES
    assert host.loads == 2


def test_loading_is_tried_again_with_growing_pauses_and_never_given_up() -> None:
    host = Host(loadable=False)
    reader = host.reader(SourceChoice.AUTO)
    reader.load()
    at_minute = []
    for minute in range(12 * 60):
        host.now_ns = minute * MINUTE_NS
        before = host.loads
        reader.read()
        if host.loads > before:
            at_minute.append(minute)
    assert at_minute[:5] == [1, 3, 7, 15, 31]
    pauses = [later - earlier for earlier, later in itertools.pairwise(at_minute)]
    assert max(pauses) == 60
    assert pauses[-1] == 60


def test_the_modules_are_the_source_again_once_they_can_be_loaded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    host = Host(loadable=False)
    reader = host.reader(SourceChoice.AUTO)
    with caplog.at_level(logging.INFO, "agent.sources.process_source"):
        reader.load()
        reader.read()
        host.loadable = True
        host.now_ns = MINUTE_NS
        assert reader.read().source is Source.MODULES
    assert reader.problem == ""
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_a_module_loaded_by_hand_is_taken_up_at_the_next_reading() -> None:
    host = Host(loadable=False)
    reader = host.reader(SourceChoice.AUTO)
    reader.load()
    reader.read()
    host.loaded = True
    assert reader.read().source is Source.MODULES


def test_a_change_is_said_once_and_not_at_each_tick(caplog: pytest.LogCaptureFixture) -> None:
    host = Host(loadable=False)
    reader = host.reader(SourceChoice.AUTO)
    reader.load()
    for _ in range(5):
        reader.read()
    assert len(caplog.records) == 1


def test_modules_that_were_asked_for_and_went_are_an_error_of_that_reading_alone() -> None:
    host = Host()
    reader = host.reader(SourceChoice.MODULES)
    reader.load()
    host.readable = False
    with pytest.raises(SourceError):
        reader.read()
    assert GONE in reader.problem
    host.readable = True
    assert reader.read().source is Source.MODULES
    assert reader.problem == ""


def test_a_module_loaded_but_unreadable_is_told_as_that() -> None:
    host = Host()
    reader = host.reader(SourceChoice.AUTO)
    reader.load()
    host.readable = False
    assert reader.read().source is Source.PSUTIL
    assert GONE in reader.problem


def test_readings_without_the_modules_keep_nothing_of_the_ticks_before(tmp_path: Path) -> None:
    host = Host(loadable=False)
    absent = tmp_path / "absent"
    reader = ProcessReader(
        SourceChoice.AUTO,
        read_modules=lambda: proc_modules.read(absent, absent, host),
        read_psutil=host.psutil,
        load_modules=host.load,
        clock=host,
    )
    reader.load()
    kept: list[weakref.ref[Host]] = []

    def tick() -> None:
        held = Host()  # what a tick holds while it reads
        kept.append(weakref.ref(held))
        assert reader.read().source is Source.PSUTIL

    gc.disable()  # a cycle would wait for the collector, which is not asked often
    try:
        for _ in range(3):
            tick()
        assert [one() for one in kept] == [None, None, None]
    finally:
        gc.enable()
    assert NO_HEADERS in reader.problem
