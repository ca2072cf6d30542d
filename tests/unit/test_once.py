"""What there shall be one of in `agent/`, read from its source text: a door, a path, a pattern.

A second one comes unnoticed, and then one of the two is fixed.
"""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "agent"
SOURCES = {
    str(path.relative_to(PACKAGE)): path.read_text(encoding="utf-8")
    for path in sorted(PACKAGE.rglob("*.py"))
}
TREES = {name: ast.parse(text) for name, text in SOURCES.items()}


def modules_with(text: str) -> list[str]:
    return [name for name, source in SOURCES.items() if text in source]


def modules_that_import(library: str) -> list[str]:
    """Those that import a top-level library, by either form of the statement."""
    found = set()
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            if any(one.split(".")[0] == library for one in names):
                found.add(name)
    return sorted(found)


def calls_of(*names: str) -> dict[str, list[str]]:
    """Module → which of the dotted names it calls."""
    found: dict[str, list[str]] = {}
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in names:
                found.setdefault(module, []).append(ast.unparse(node.func))
    return found


def test_other_programs_are_started_and_looked_for_by_one_module() -> None:
    """`agent fleet` starts none: its process becomes that of the fleet's own environment."""
    assert modules_that_import("subprocess") == ["util/subprocess.py"]
    assert calls_of("shutil.which") == {"util/subprocess.py": ["shutil.which"]}
    assert calls_of("os.system", "os.popen", "os.posix_spawn", "os.execve") == {}
    assert calls_of("os.execv") == {"fleet/environment.py": ["os.execv"]}


def test_there_is_one_path_for_programs() -> None:
    assert modules_with("/sbin:/") == ["util/subprocess.py"]


def test_files_are_made_and_replaced_by_one_module() -> None:
    """`store/files.py` renames too: a damaged database with its side files, which it writes not.

    `bpf/kept.py` writes below a descriptor of its directory, which nobody can swap meanwhile.
    """
    renaming = [name for name, text in SOURCES.items() if ".rename(" in text or "os.link(" in text]
    assert renaming == ["sources/bpf/kept.py", "store/files.py", "util/files.py"]
    assert modules_with("O_EXCL") == ["sources/bpf/kept.py", "util/files.py"]
    moves = calls_of("os.replace", "os.rename", "tempfile.mkstemp", "shutil.move")
    assert moves == {"sources/bpf/kept.py": ["os.rename"]}


def test_there_is_one_pattern_of_a_containers_id() -> None:
    assert modules_with("{64}") == []
    assert modules_with("== 64") == []
    assert modules_with(">= 64") == []
    assert modules_with("LENGTH = 64") == ["model/container_id.py"]


def test_the_labels_that_say_whose_a_container_is_are_read_by_one_module() -> None:
    for label in ('"so1.installation', '"com.docker.compose.project', '"so1-grafana"'):
        assert modules_with(label) == ["engine_api/ownership.py"], label


def test_no_class_has_the_name_of_another() -> None:
    """`Meta` is peewee's word for a table's settings."""
    places: dict[str, list[str]] = {}
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and node.name != "Meta":
                places.setdefault(node.name.lstrip("_"), []).append(module)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_tables_are_aligned_by_one_module_and_drawn_by_one() -> None:
    """A line of `agent bpf trace` is written before the next one is known, so it has widths."""
    assert modules_with("rich.table") == ["cli/views/drawing.py"]
    assert modules_with(".rjust(") == ["cli/views/tables.py"]
    assert [name for name, text in SOURCES.items() if ":>" in text] == ["cli/views/trace.py"]
