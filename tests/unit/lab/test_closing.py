"""The last lines of a test run: nothing that failed or did not run is lost in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.closing import Layer, closing, parse_layer
from tests.lab.errors import LabError


def report(
    directory: Path, name: str, *, passed: int = 0, failed: int = 0, skipped: int = 0
) -> Path:
    cases = ["<testcase classname='c' name='p'/>"] * passed
    cases += ["<testcase classname='c' name='f'><failure message='why'/></testcase>"] * failed
    cases += ["<testcase classname='c' name='s'><skipped message='no x'/></testcase>"] * skipped
    path = directory / f"{name}.xml"
    path.write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")
    return path


def test_the_last_line_counts_all_layers_and_skips_have_their_reason(tmp_path: Path) -> None:
    layers = [
        Layer("unit", 61, 0, report(tmp_path, "unit", passed=10)),
        Layer("vm-debian12", 600, 0, report(tmp_path, "vm", passed=5, skipped=1)),
    ]
    lines, well = closing(layers, strict=True)
    assert well
    assert lines[-1] == "15 passed, 0 failed, 1 skipped"
    assert "skipped: vm-debian12: c::s: no x" in lines
    assert any(line.split() == ["unit", "1:01", "10", "0", "0"] for line in lines)
    assert any(line.split() == ["all", "11:01"] for line in lines)


def test_what_a_test_measured_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "docker.xml"
    path.write_text(
        "<testsuites><testsuite><testcase classname='c' name='p'><properties>"
        "<property name='seconds_for_10' value='9.3'/></properties></testcase></testsuite>"
        "</testsuites>"
    )
    lines, _ = closing([Layer("docker", 1, 0, path)], strict=False)
    assert "docker: measured: c::p: seconds_for_10 9.3" in lines


def test_a_failed_test_fails_the_run(tmp_path: Path) -> None:
    lines, well = closing(
        [Layer("unit", 1, 1, report(tmp_path, "unit", passed=1, failed=2))], strict=False
    )
    assert (lines[-1], well) == ("1 passed, 2 failed, 0 skipped", False)


def test_a_layer_without_a_report_failed(tmp_path: Path) -> None:
    lines, well = closing([Layer("vm-sid", 9, 121, tmp_path / "none.xml")], strict=False)
    assert (lines[-1], well) == ("0 passed, 1 failed, 0 skipped", False)


@pytest.mark.parametrize("status", [1, 5, 123])
def test_a_layer_that_fell_over_although_its_tests_passed_failed(
    tmp_path: Path, status: int
) -> None:
    lines, well = closing(
        [Layer("vm-debian12", 9, status, report(tmp_path, "vm", passed=3))], strict=False
    )
    assert (lines[-1], well) == ("3 passed, 1 failed, 0 skipped", False)


@pytest.mark.parametrize(
    ("name", "strict", "expected"),
    [
        ("vm-debian12", True, False),
        ("vm-debian12", False, True),
        ("docker", True, True),
    ],
)
def test_only_ci_fails_for_a_vm_layer_that_could_not_run(
    name: str, strict: bool, expected: bool
) -> None:
    layer = parse_layer(f"{name},0,0,-,the packages it needs, alas, cannot be installed")
    lines, well = closing([layer], strict=strict)
    assert (lines[-1], well) == ("0 passed, 0 failed, 1 skipped", expected)
    assert any(line.endswith("the packages it needs, alas, cannot be installed") for line in lines)


def test_a_layer_that_cannot_be_read_is_an_error() -> None:
    with pytest.raises(LabError, match="is no layer"):
        parse_layer("unit,x,0,-")
