"""What the budgets remember, each change as a row, and what somebody wants by hand."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from pathlib import Path

import pytest

from agent.errors import StoreError
from agent.model.proof import ARMED, ArmingWord, BudgetName, ByHand, CanaryResult, ProofState
from agent.store import by_hand, proof_state
from agent.store.queries import History
from tests.unit.store.builders import a_tick, ask, open_store

PROJECT = Path(__file__).resolve().parents[3]
SPENT = ProofState(
    True, 1000, "the budget loss is spent", (BudgetName.LOSS,), (True, True), CanaryResult(5, 0.0)
)
DISARMED = ArmingWord(False, 1000, "the budget loss is spent")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.db"


def test_the_state_is_stored_with_a_tick_and_there_after_a_restart(path: Path) -> None:
    with open_store(path) as store:
        assert store.ask(proof_state.read) == ProofState()
        store.kept.append(proof_state.ProofRows(lambda: (SPENT, DISARMED)))
        store.write_tick(a_tick())
    with open_store(path) as store:
        assert store.ask(proof_state.read) == SPENT


def test_each_change_is_one_row_and_the_newest_is_what_readers_are_told(path: Path) -> None:
    now = [ARMED]
    with open_store(path) as store:
        store.kept.append(proof_state.ProofRows(lambda: (SPENT, now[0])))
        for word in (ARMED, ARMED, DISARMED, DISARMED, ArmingWord(True, 2000), DISARMED):
            now[0] = word
            store.write_tick(a_tick())
        assert ask(path, "SELECT timestamp, armed FROM policy_arming ORDER BY id") == [
            (1000, 0),
            (2000, 1),
            (1000, 0),
        ]
        with History.open(path) as history:
            assert history.arming() == DISARMED


def test_a_history_without_any_change_or_of_before_is_armed(path: Path) -> None:
    with open_store(path) as store:
        store.write_tick(a_tick())
    with History.open(path) as history:
        assert history.arming() == ARMED
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE policy_arming")
        connection.execute("UPDATE proof_state SET payload = '{'")
    with History.open(path) as history:
        assert history.arming() == ARMED


def test_noise_in_the_state_is_a_fresh_one(path: Path) -> None:
    with open_store(path) as store:
        store.kept.append(proof_state.ProofRows(lambda: (SPENT, DISARMED)))
        store.write_tick(a_tick())
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE proof_state SET payload = x'ff'")
    with open_store(path) as store:
        assert store.ask(proof_state.read) == ProofState()


def test_the_dashboard_says_so_too(path: Path) -> None:
    text = (PROJECT / "grafana/dashboards/monitor-de-sistema.json").read_text(encoding="utf-8")
    found = json.loads(f'"{_query(text)}"')
    for word, shown in ((DISARMED, "desarmada"), (ArmingWord(True, 2000), "armada")):
        with open_store(path) as store:
            store.kept.append(proof_state.ProofRows(lambda word=word: (SPENT, word)))  # type: ignore[misc]
            store.write_tick(a_tick())
        ((*_, told),) = ask(path, found.replace("$__from", "0").replace("$__to", str(2**62)))
        assert told == shown


def _query(text: str) -> str:
    match = re.search(
        r'"(?:rawQueryText|queryText)": "((?:[^"\\]|\\.)*policy_arming(?:[^"\\]|\\.)*)"', text
    )
    assert match
    return match[1]


def test_by_hand_is_kept_beside_the_database(tmp_path: Path) -> None:
    assert by_hand.read(tmp_path) is None
    for wanted in (ByHand(False, 7, "maintenance"), ByHand(True, 9)):
        by_hand.write(tmp_path, wanted)
        assert by_hand.read(tmp_path) == wanted
    assert (tmp_path / by_hand.FILE_NAME).stat().st_mode & 0o777 == 0o600
    with pytest.raises(StoreError, match="cannot be written"):
        by_hand.write(tmp_path / "none", ByHand(True, 1))


def broken(path: Path) -> None:
    path.write_text('{"armed": tr')


def foreign_mode(path: Path) -> None:
    path.chmod(0o666)


def a_link(path: Path) -> None:
    path.rename(path.with_name("other"))
    path.symlink_to(path.with_name("other"))


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


@pytest.mark.parametrize("spoil", [broken, foreign_mode, a_link, a_pipe])
def test_what_cannot_be_trusted_counts_as_disarmed(tmp_path: Path, spoil: object) -> None:
    by_hand.write(tmp_path, ByHand(True, 7))
    spoil(tmp_path / by_hand.FILE_NAME)  # type: ignore[operator]
    found = by_hand.read(tmp_path)
    assert found is not None
    assert not found.armed
    assert found.why
