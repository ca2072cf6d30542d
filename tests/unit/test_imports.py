"""The layering that the documents promise, read from the source text itself.

Sources, actions and store do I/O and never know each other; the core knows no library of theirs;
one tick is composed in few places.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).resolve().parents[2]
PACKAGE = PROJECT / "agent"

IO_LAYERS = ("sources", "actions", "store", "export")
CORE = (*("errors", "doctor", "doctor.facts", "doctor.check", "doctor.kernel", "doctor.host"),)
FORBIDDEN_IN_CORE = {
    "docker",
    "bcc",
    "peewee",
    "playhouse",
    "os",
    "subprocess",
    "socket",
    "sqlite3",
    "psutil",
    "shutil",
    "threading",
    "time",
}
COMPOSERS = ("daemon", "cli", "fleet", "selftest", "doctor")
"""What may bring layers together; `doctor` looks at the same host as all of them do."""
PURE = ("model", "analysis", "policy")
"""Every module in these is of the core."""


def modules() -> dict[str, Path]:
    """Dotted name → file of everything in the package."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PROJECT).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imported(path: Path) -> set[str]:
    """Every dotted name that a file imports, wherever in it, type checking left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def offences(modules_of: str, forbidden: str) -> Iterator[str]:
    for name, path in modules().items():
        if within(name, modules_of):
            yield from (
                f"{name} imports {one}" for one in sorted(imported(path)) if within(one, forbidden)
            )


def test_the_package_is_found() -> None:
    names = modules()
    assert {"agent.model.process", "agent.daemon.tick", "agent.sources.modules"} <= names.keys()
    assert "agent.model.process" in imported(names["agent.analysis.usage"])


@pytest.mark.parametrize("layer", IO_LAYERS)
def test_a_layer_that_does_io_imports_no_other(layer: str) -> None:
    for other in IO_LAYERS:
        if other != layer:
            assert list(offences(f"agent.{layer}", f"agent.{other}")) == []


@pytest.mark.parametrize("layer", IO_LAYERS)
def test_a_layer_that_does_io_imports_nothing_that_composes_it(layer: str) -> None:
    for composer in COMPOSERS:
        assert list(offences(f"agent.{layer}", f"agent.{composer}")) == []


def core_modules() -> list[str]:
    """Dotted names of the core: whole rooms, and single modules of others."""
    return [
        name
        for name in modules()
        if name.removeprefix("agent.") in CORE or any(within(name, f"agent.{one}") for one in PURE)
    ]


@pytest.mark.parametrize("core", core_modules())
def test_the_core_imports_no_library_that_reaches_outside(core: str) -> None:
    names = imported(modules()[core])
    assert {name.split(".")[0] for name in names} & FORBIDDEN_IN_CORE == set()
    assert [name for name in names if any(within(name, f"agent.{io}") for io in IO_LAYERS)] == []


@pytest.mark.allow_subprocess
def test_the_core_loads_no_such_library_through_another_module_of_ours() -> None:
    code = (
        "import sys; before = set(sys.modules); "
        "import agent.analysis.attribution, agent.analysis.usage; "
        "import agent.policy.decide, agent.doctor; "
        "print(*sorted(n for n in set(sys.modules) - before "
        "if n.split('.')[0] in {'docker', 'bcc', 'peewee', 'psutil', 'requests'} "
        "or n.startswith(('agent.sources', 'agent.actions', 'agent.store'))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_only_the_composers_bring_two_layers_together() -> None:
    for name, path in modules().items():
        top = name.split(".")[1] if "." in name else ""
        if top in COMPOSERS:
            continue
        names = imported(path)
        layers = {io for io in IO_LAYERS if any(within(one, f"agent.{io}") for one in names)}
        assert len(layers) <= 1, f"{name} knows {sorted(layers)}"


def test_only_the_fleets_connection_knows_a_driver_for_postgresql() -> None:
    for name, path in modules().items():
        drivers = {one for one in imported(path) if within(one, "psycopg")}
        assert not drivers or name == "agent.fleet.connection", name


def test_only_cris_helper_knows_grpc_and_the_agent_does_not_know_the_helper() -> None:
    for name, path in modules().items():
        names = imported(path)
        if not within(name, "agent.cri"):
            known = ("grpc", "google", "agent.cri")
            assert [one for one in names if any(within(one, other) for other in known)] == [], name
        else:
            own = {one for one in names if within(one, "agent")}
            assert [one for one in own if not within(one, "agent.cri")] == [], name


FLEET_COMMANDS = ("agent.cli.commands.fleet", "agent.cli.views.fleet_top")


def test_the_agent_itself_imports_nothing_of_the_fleet() -> None:
    for name, path in modules().items():
        if within(name, "agent.fleet") or name in FLEET_COMMANDS:
            continue
        # What the last flush left, the check of a file, and the start of a flush, which is another
        # process's: none knows a driver before it is called.
        known = ("agent.fleet.local", "agent.fleet.secret", "agent.fleet.ship")
        found = {one for one in imported(path) if within(one, "agent.fleet")}
        assert [one for one in found if not one.startswith(known)] == [], name


def test_tests_that_are_oracles_import_nothing_of_the_agent() -> None:
    for path in (PROJECT / "tests/containers.py", PROJECT / "tests/agent_process.py"):
        assert [one for one in imported(path) if within(one, "agent")] == []
    for path in sorted((PROJECT / "tests/lab").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert "from agent" not in text, path
        assert "import agent" not in text, path
