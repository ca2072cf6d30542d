"""What the loader of the modules is told, and whether one is at work."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from agent.actions import kernel_modules
from agent.config import ModulesSettings

if TYPE_CHECKING:
    from pathlib import Path


def test_the_loader_makes_the_entries_that_are_read() -> None:
    settings = ModulesSettings(sysinfo_path="/proc/sysinfo_mine")
    assert kernel_modules.entries(settings) == {
        "SO1_SYSINFO_ENTRY": "sysinfo_mine",
        "SO1_CONTINFO_ENTRY": "continfo_so1_202300539",
    }


def test_a_path_that_is_no_entry_of_proc_names_none() -> None:
    settings = ModulesSettings(sysinfo_path="/tmp/sysinfo", continfo_path="/proc/a/b")
    assert kernel_modules.entries(settings) == {}


def test_a_loader_is_at_work_while_it_or_what_it_runs_holds_its_turn(tmp_path: Path) -> None:
    turn = tmp_path / "modules.lock"
    assert not kernel_modules._is_at_work(turn)
    held = os.open(turn, os.O_RDWR | os.O_CREAT)
    assert not kernel_modules._is_at_work(turn)
    fcntl.flock(held, fcntl.LOCK_EX)
    inherited = os.dup(held)
    os.close(held)
    assert kernel_modules._is_at_work(turn)
    os.close(inherited)
    assert not kernel_modules._is_at_work(turn)
