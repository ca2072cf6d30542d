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
        self.builds_s = 0.0
        """How long a loading takes."""
        self.stopping = False
        self.loading: Build | None = None

    def wall_ns(self) -> int:
        return self.now_ns

    def boot_ns(self) -> int:
        return self.now_ns

    def load(self) -> Build:
        self.loads += 1
        self.loading = Build(self, self.now_ns + int(self.builds_s * 10**9))
        return self.loading

    def wait(self, _loading: object, seconds: float) -> bool:
        """Time passes until the build is done, or as long as was asked for."""
        assert self.loading is not None
        if not self.stopping:
            self.now_ns = int(min(self.loading.done_ns, self.now_ns + seconds * 10**9))
        return not self.stopping

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
            begin_loading=self.load,
            wait=self.wait,
            clock=self,
        )


class Build:
    """A loading in the background that is done at a moment of the host's clock."""

    def __init__(self, host: Host, done_ns: int) -> None:
        self.host = host
        self.done_ns = done_ns
        self.cancelled = False

    def fileno(self) -> int:
        return -1

    def poll(self) -> bool:
        if self.host.now_ns < self.done_ns:
            return False
        if not self.host.loadable:
            raise ModulesError(NO_HEADERS, "Install them.")
        self.host.loaded = True
        return True

    def cancel(self) -> None:
        self.cancelled = True


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
        begin_loading=host.load,
        wait=host.wait,
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


@pytest.fixture
def rebuilding() -> tuple[Host, ProcessReader]:
    """Modules that went, on a kernel for which they are not built: a build takes ten minutes."""
    host = Host()
    reader = host.reader(SourceChoice.AUTO)
    reader.load()
    host.loaded = False
    host.builds_s = 600
    return host, reader


def test_a_build_goes_on_in_the_background_and_psutil_is_the_source_meanwhile(
    rebuilding: tuple[Host, ProcessReader],
) -> None:
    host, reader = rebuilding
    assert reader.read().source is Source.PSUTIL
    assert host.now_ns <= 20 * 10**9  # and not the build's ten minutes
    assert "in the background" in reader.problem
    for minute in range(1, 10):
        host.now_ns = before = minute * MINUTE_NS
        assert reader.read().source is Source.PSUTIL
        assert host.now_ns == before  # no other reading waits for it
    assert host.loads == 2
    host.now_ns = 10 * MINUTE_NS
    assert reader.read().source is Source.MODULES
    assert reader.problem == ""


def test_a_build_that_fails_in_the_background_is_reported_and_tried_again_after_a_pause(
    rebuilding: tuple[Host, ProcessReader],
) -> None:
    host, reader = rebuilding
    reader.read()
    host.loadable = False
    host.now_ns = 10 * MINUTE_NS
    assert reader.read().source is Source.PSUTIL
    assert NO_HEADERS in reader.problem
    assert host.loads == 2
    host.now_ns += MINUTE_NS
    reader.read()
    assert host.loads == 3


def test_a_stop_waits_for_no_build_and_ends_it(rebuilding: tuple[Host, ProcessReader]) -> None:
    host, reader = rebuilding
    host.stopping = True
    assert reader.read().source is Source.PSUTIL
    assert host.now_ns == 0
    assert host.loading is not None
    reader.close()
    assert host.loading.cancelled


def test_a_stop_while_the_first_build_runs_ends_the_start() -> None:
    host = Host()
    host.builds_s = 600
    host.stopping = True
    reader = host.reader(SourceChoice.MODULES)
    reader.load()
    assert not host.loaded
    reader.close()
    assert host.loading is not None
    assert host.loading.cancelled
