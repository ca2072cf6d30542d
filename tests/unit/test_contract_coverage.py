"""Everything that the contract lets a row, a decision or an exit status say is compared by a test.

Read from the tests' own source text: a new verdict, basis, outcome, setting or command that no test
compares with a value makes this one fail. It says nothing of how well it is tested.
"""

from __future__ import annotations

import ast
import re
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from agent import config, errors
from agent.cli.app import app
from agent.doctor import State, judge
from agent.model import attribution, container, notification, process, proof, removal
from agent.store.tables import ALL_TABLES, columns, table_name
from tests.unit.doctor.doctor_host import GOOD

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = Path(__file__).resolve().parents[1]
VALUES = (
    attribution.Verified,
    attribution.Basis,
    container.Tier,
    removal.Reason,
    removal.Outcome,
    notification.Event,
    notification.AlertState,
    proof.BudgetName,
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
def trees() -> tuple[ast.Module, ...]:
    return tuple(
        ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(TESTS.rglob("*.py"))
        if path.name not in NOT_TESTS
    )


@cache
def named() -> frozenset[str]:
    """What tests compare with a value: names and whole strings inside a comparison.

    A string is not split into words, but for a query, whose columns are what is compared. Rows of
    a parametrised test and fields of a value that is built for a comparison count as well.
    """
    found: set[str] = set()
    for tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Compare):
                found.update(words_of(node))
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("parametrize"):
                for rows in node.args[1:]:
                    found.update(words_of(rows))
    return frozenset(found)


def words_of(node: ast.AST) -> Iterator[str]:
    for one in ast.walk(node):
        if isinstance(one, ast.Attribute):
            yield ast.unparse(one)
            yield one.attr
        elif isinstance(one, ast.keyword) and one.arg:
            yield one.arg
        elif isinstance(one, ast.Constant) and isinstance(one.value, str):
            yield one.value
            if one.value.lstrip().casefold().startswith("select "):
                yield from re.findall(r"\w+", one.value)


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
        node.id for tree in trees() for node in ast.walk(tree) if isinstance(node, ast.Name)
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
