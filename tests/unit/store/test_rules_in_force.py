"""By which rules decisions were made: a row for each change, and a reader who knows older ones."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from agent.config import PolicySettings
from agent.policy.original import RulesInForce
from agent.policy.rules import Match, Rule
from agent.store import rules_in_force
from agent.store.rules_in_force import RuleRows
from tests.unit.store.builders import a_tick, ask, open_store

if TYPE_CHECKING:
    from pathlib import Path

FIRST = RulesInForce(1_000, PolicySettings())
SECOND = RulesInForce(2_000, PolicySettings(rule=(Rule("jobs", Match(name="job-*"), keep=2),)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.db"


def test_each_change_is_one_row_and_a_restart_is_none(path: Path) -> None:
    for times in ((FIRST, FIRST, SECOND), (RulesInForce(3_000, SECOND.settings), FIRST)):
        with open_store(path) as store:
            for one in times:
                store.kept[:] = [RuleRows(lambda one=one: one)]  # type: ignore[misc]
                store.write_tick(a_tick())
    assert ask(path, "SELECT timestamp FROM policy_rules ORDER BY id") == [
        (1_000,),
        (2_000,),
        (1_000,),
    ]
    with open_store(path) as store:
        found = store.ask(lambda database: rules_in_force.read(database, 1_500))
        assert found == (FIRST, FIRST)
        assert store.ask(lambda database: rules_in_force.read(database, 2_000))[1] == SECOND


@pytest.mark.parametrize("text", ["", "[]", '{"rule": [{"name": 7}]}', '{"scope": "moon"}'])
def test_rules_that_only_a_later_version_understands_end_what_is_known(
    path: Path, text: str
) -> None:
    with open_store(path) as store:
        store.kept.append(RuleRows(lambda: FIRST))
        store.write_tick(a_tick())
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO policy_rules (timestamp, rules) VALUES (1500, ?)", (text,))
    connection.close()
    with open_store(path) as store:
        store.kept.append(RuleRows(lambda: SECOND))
        store.write_tick(a_tick())
        assert store.ask(lambda database: rules_in_force.read(database, 5_000)) == (SECOND,)
