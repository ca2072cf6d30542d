"""Wheels are unpacked as the format says, and none reaches out of site-packages."""

from __future__ import annotations

import importlib.util
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from tests.packages.conftest import PROJECT


@pytest.fixture(scope="module")
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "unpack_wheels", PROJECT / "packaging/unpack_wheels.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_packages_and_data_of_site_go_there_and_programs_do_not(
    program: ModuleType, tmp_path: Path
) -> None:
    made = tmp_path / "x-1-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as archive:
        for name in ("x/__init__.py", "x-1.data/platlib/x/y.py", "x-1.data/scripts/x"):
            archive.writestr(name, name)
    program.unpack(made, tmp_path / "site")
    found = {
        str(path.relative_to(tmp_path / "site")): path.read_text()
        for path in (tmp_path / "site").rglob("*")
        if path.is_file()
    }
    assert found == {"x/__init__.py": "x/__init__.py", "x/y.py": "x-1.data/platlib/x/y.py"}


@pytest.mark.parametrize("name", ["../x.py", "/etc/x", "x-1.data/purelib/../../../x"])
def test_a_member_that_leads_out_ends_it(program: ModuleType, tmp_path: Path, name: str) -> None:
    made = tmp_path / "x-1-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(name, "planted")
    with pytest.raises(ValueError, match="leads out"):
        program.unpack(made, tmp_path / "site")
    assert not list(tmp_path.rglob("x.py"))


def test_two_wheels_that_bring_different_files_of_one_name_end_it(
    program: ModuleType, tmp_path: Path
) -> None:
    for number in (1, 2):
        made = tmp_path / f"x-{number}-py3-none-any.whl"
        with zipfile.ZipFile(made, "w") as archive:
            archive.writestr("shared.py", str(number))
        if number == 1:
            program.unpack(made, tmp_path / "site")
    with pytest.raises(SystemExit, match=r"brings another shared\.py"):
        program.unpack(made, tmp_path / "site")
