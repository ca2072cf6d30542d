"""The kernel modules taken from under a running agent, replaced, or made to say something else.

The agent loads them again by itself; until it may, psutil stands in, which is said and stored.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.agent_process import PROJECT, rows
from tests.vm.faults import support
from tests.vm.faults.support import Agent, assert_books_close, assert_no_leak

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.vm.faults.support import Town

    Record = Callable[[str, object], None]

ENTRIES = (Path("/proc/sysinfo_so1_202300539"), Path("/proc/continfo_so1_202300539"))
BY_MODULES = "· modules: "
BY_PSUTIL = "· psutil: "


def unload(*names: str) -> None:
    support.run("rmmod", *names)


def loaded() -> set[str]:
    return {name for name in ("sysinfo", "continfo") if Path("/sys/module", name).exists()}


def load(**environment: str) -> None:
    subprocess.run(
        ["bash", str(PROJECT / "bash/load_modules.sh")],
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
        timeout=600,
    )


def remove_one() -> None:
    unload("continfo")


def remove_both() -> None:
    unload("continfo", "sysinfo")


def replace_by_one_that_answers_elsewhere() -> None:
    unload("sysinfo")
    load(SO1_SYSINFO_ENTRY="sysinfo_elsewhere")


@pytest.mark.parametrize(
    "deed",
    [
        remove_both,
        pytest.param(remove_one, marks=pytest.mark.full),
        pytest.param(replace_by_one_that_answers_elsewhere, marks=pytest.mark.full),
    ],
    ids=lambda deed: deed.__name__,
)
def test_modules_that_go_under_the_agent_are_loaded_again_at_the_next_tick(
    only_guest: None,
    config: Path,
    database: Path,
    town: Town,
    record: Record,
    deed: Callable[[], None],
) -> None:
    with Agent(config) as agent:
        agent.warm()
        assert loaded() == {"sysinfo", "continfo"}
        with agent.frozen_between_ticks(database):
            deed()
        agent.more_ticks(3, BY_MODULES)
        assert agent.count(BY_PSUTIL) == 0, agent.output
        assert all(entry.exists() for entry in ENTRIES)
        assert not Path("/proc/sysinfo_elsewhere").exists()
        assert_no_leak(agent, record)
        agent.end()
    assert loaded() == set()
    assert rows(database, "SELECT DISTINCT source FROM metrics") == [{"source": "modules"}]
    assert_books_close(database, [agent])
    assert support.removed(database) == []
    town.assert_unharmed()


@contextmanager
def something_else_at(entry: Path, place: Path) -> Iterator[None]:
    """What the agent reads there is noise, as from a module that is not ours."""
    noise = place / "noise"
    noise.write_bytes(b'{"total_ram": -1, "processes": [{"pid": "x"}' + bytes(range(256)))
    support.run("mount", "--bind", str(noise), str(entry))
    try:
        yield
    finally:
        support.run("umount", str(entry))


@pytest.mark.full
def test_modules_that_say_something_else_are_not_believed_and_taken_up_when_they_are_right_again(
    only_guest: None, config: Path, place: Path, database: Path, town: Town, record: Record
) -> None:
    with Agent(config) as agent:
        agent.warm()
        with something_else_at(ENTRIES[0], place):
            agent.more_ticks(3, BY_PSUTIL)
        agent.more_ticks(3, BY_MODULES)
        assert agent.count("instead of the kernel modules") == 1, agent.output
        assert agent.count("the kernel modules are back") == 1
        assert_no_leak(agent, record)
        agent.end()
    assert loaded() == set()
    told = rows(database, "SELECT source, count(*) AS n FROM metrics GROUP BY source")
    assert {row["source"]: row["n"] for row in told} == {
        "modules": agent.count(BY_MODULES),
        "psutil": agent.count(BY_PSUTIL),
    }
    assert_books_close(database, [agent])
    assert support.removed(database) == []
    town.assert_unharmed()
