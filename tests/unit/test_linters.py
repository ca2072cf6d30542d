"""The linters are tests: strict in CI; elsewhere what is not installed is skipped and said."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
LONGEST_MODULE = 400
pytestmark = pytest.mark.allow_subprocess


def tracked(*patterns: str) -> list[Path]:
    """The checkout's files that match, without what git ignores where there is a git."""
    if (PROJECT / ".git").exists() and shutil.which("git"):
        done = subprocess.run(
            [
                *("git", "-c", f"safe.directory={PROJECT}", "-C", str(PROJECT), "ls-files", "-z"),
                *("--cached", "--others", "--exclude-standard", "--", *patterns),
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        names = {name for name in done.stdout.split("\0") if name}
    else:
        names = {
            str(path.relative_to(PROJECT))
            for pattern in patterns
            for path in PROJECT.rglob(pattern)
        }
    return [PROJECT / name for name in sorted(names) if (PROJECT / name).is_file()]


def bash_scripts() -> list[Path]:
    by_name = tracked("*.sh")
    by_first_line = [
        path
        for path in tracked("bash/*", ".ci/*")
        if path not in by_name and path.read_bytes()[:64].split(b"\n")[0].endswith(b"bash")
    ]
    return by_name + by_first_line


def lint(*command: str) -> None:
    """Run a linter over the checkout; what it says is the failure's text."""
    if command[0] != sys.executable and shutil.which(command[0]) is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{command[0]} is not installed")
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.fail(f"{' '.join(command)[:200]}\n{done.stdout}{done.stderr}", pytrace=False)


def python_modules() -> list[str]:
    return [str(path.relative_to(PROJECT)) for path in tracked("*.py")]


def test_ruff_has_nothing_to_say() -> None:
    lint(sys.executable, "-m", "ruff", "check", "--no-cache", *python_modules())


def test_ruff_would_format_nothing_anew() -> None:
    lint(sys.executable, "-m", "ruff", "format", "--no-cache", "--check", *python_modules())


def test_everything_is_typed_strictly(tmp_path: Path) -> None:
    lint(sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path / "cache"))


def test_shellcheck_has_nothing_to_say() -> None:
    scripts = [str(path.relative_to(PROJECT)) for path in bash_scripts()]
    assert "bash/test.sh" in scripts
    lint("shellcheck", "-x", *scripts)


@pytest.mark.parametrize("path", bash_scripts(), ids=lambda path: path.name)
def test_a_bash_script_stops_at_the_first_error(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if not text.startswith("#!") or path.is_relative_to(PROJECT / "tests"):
        return  # sourced by one that does; a guest's own goes on, to report what failed
    assert "set -euo pipefail" in text


@pytest.mark.parametrize(
    "path", tracked("agent/*.py", "tests/lab/*.py"), ids=lambda path: path.name
)
def test_a_module_says_what_it_is_for_and_fits_on_a_few_screens(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") < LONGEST_MODULE
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), "no module docstring"


@pytest.mark.parametrize(
    "path", tracked("kernel/*.c", "kernel/*.h"), ids=lambda path: str(path.relative_to(PROJECT))
)
def test_a_c_file_opens_with_its_licence(path: Path) -> None:
    assert "SPDX-License-Identifier: GPL-2.0" in path.read_text(encoding="utf-8").split("\n")[0]


@pytest.mark.parametrize("path", tracked("*.json"), ids=lambda path: path.name)
def test_a_json_file_is_json(path: Path) -> None:
    json.loads(path.read_text(encoding="utf-8"))


def test_requirements_are_pinned_with_hashes_and_name_no_registry() -> None:
    for path in tracked("requirements/*.txt"):
        text = path.read_text(encoding="utf-8")
        assert "--hash=sha256:" in text
        assert "://" not in text
        assert "--index-url" not in text
        assert "--find-links" not in text
