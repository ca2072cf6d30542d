"""The mistakes that the debug kernel has to report still fit the modules' sources."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.vm.kernel_debug.planted import MODULES, PLANTED, Planted, plant

PROJECT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("mistake", PLANTED, ids=lambda one: one.name)
def test_a_mistake_changes_the_file_it_names(mistake: Planted, tmp_path: Path) -> None:
    shutil.copytree(PROJECT / MODULES, tmp_path / MODULES)
    plant(mistake, tmp_path)
    changed = (tmp_path / MODULES / mistake.file).read_text(encoding="utf-8")
    assert changed != (PROJECT / MODULES / mistake.file).read_text(encoding="utf-8")
