"""Everything that the contract lets a row, a decision or an exit status say is in some test.

Read from the tests' own source text: a new verdict, basis, outcome, setting or command that no test
names makes this one fail. It says nothing of how well it is tested.
"""

from __future__ import annotations

import ast
from enum import StrEnum
from functools import cache
from pathlib import Path

import msgspec
import pytest

from agent import config, errors
from agent.cli.app import app
from agent.doctor import State, judge
from agent.model import attribution, container, process, removal
from agent.store.tables import ALL_TABLES, columns, table_name
from tests.unit.doctor.doctor_host import GOOD

TESTS = Path(__file__).resolve().parents[1]
VALUES = (
    attribution.Verified,
    attribution.Basis,
    container.Tier,
    removal.Reason,
    removal.Outcome,
    process.Source,
    container.Hierarchy,
    container.HeldBasis,
    container.ContainerState,
    config.Scope,
    config.SourceChoice,
    State,
)
NOT_TESTS = {"builders.py", Path(__file__).name}
"""Builders name values without saying anything of them."""


@cache
def named() -> frozenset[str]:
    """`Name.ATTRIBUTE`, and every word of every string in the tests that is no docstring."""
    found: set[str] = set()
    for path in sorted(TESTS.rglob("*.py")):
        if path.name in NOT_TESTS:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                found.add(ast.unparse(node))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                if id(node) not in docstrings:
                    found.add(node.value)
                    found.update(word.strip(",;()'\"=") for word in node.value.split())
            elif isinstance(node, ast.keyword) and node.arg:
                found.update((node.arg, *node.arg.split("__")))
    return frozenset(found)


@pytest.mark.parametrize("values", VALUES, ids=lambda values: values.__name__)
def test_every_value_of_the_contract_is_named_by_a_test(values: type[StrEnum]) -> None:
    missing = [
        str(value)
        for value in values
        if f"{values.__name__}.{value.name}" not in named() and str(value) not in named()
    ]
    assert missing == []


def test_every_field_of_the_proc_files_is_named_by_a_test() -> None:
    for kind in (process.Process, process.Candidate):
        missing = [field for field in kind.__struct_encode_fields__ if field not in named()]
        assert missing == []


@pytest.mark.parametrize("table", ALL_TABLES, ids=table_name)
def test_every_table_and_column_is_named_by_a_test(table: object) -> None:
    assert table_name(table) in named()  # type: ignore[arg-type]
    assert [one for one in columns(table) if one not in named()] == []  # type: ignore[arg-type]


def test_every_command_is_named_by_a_test() -> None:
    missing = []
    for group in (app, *(one.typer_instance for one in app.registered_groups)):
        for command in group.registered_commands if group else ():
            word = command.name or getattr(command.callback, "__name__", "")
            if word not in named():
                missing.append(word)
    assert missing == []


def test_every_kind_of_error_has_a_status_of_its_own_and_a_test() -> None:
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.AgentError)
    ]
    statuses = [kind.exit_status for kind in kinds]
    assert len(set(statuses)) == len(statuses)
    missing = [kind.__name__ for kind in kinds if kind.__name__ not in " ".join(names_used())]
    assert missing == []


@cache
def names_used() -> frozenset[str]:
    return frozenset(
        node.id
        for path in TESTS.rglob("*.py")
        if path.name not in NOT_TESTS
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Name)
    )


def settings(section: type[msgspec.Struct], prefix: str = "") -> list[str]:
    found = []
    for field in msgspec.structs.fields(section):
        if isinstance(field.default, msgspec.Struct):
            found += settings(type(field.default), f"{prefix}{field.name}.")
        else:
            found.append(f"{prefix}{field.name}")
    return found


def test_every_setting_is_named_by_a_test() -> None:
    missing = [name for name in settings(config.Config) if name.split(".")[-1] not in named()]
    assert missing == []


def test_every_check_of_the_doctor_is_named_by_a_test() -> None:
    assert [one.name for one in judge(GOOD, config.Config()) if one.name not in named()] == []
