"""What a stop and a clean-up remove: this installation's containers, whatever one of them does."""

from __future__ import annotations

import itertools

import pytest

from agent.actions.remover import remove_installation
from agent.errors import EngineUnavailableError
from agent.model.removal import Outcome, Reason
from tests.unit.actions.removal_engine import ID, Answer, RemovalEngine, about

OURS = "0123456789abcdef" * 2


@pytest.mark.parametrize("listing", ["nonsense", "{}", "null", '"x"'])
def test_a_list_that_is_none_stops_the_clean_up_with_a_sentence(
    engine: RemovalEngine, listing: str
) -> None:
    engine.kinds["list"] = lambda n: (200, listing)
    with pytest.raises(EngineUnavailableError, match="does not answer"):
        remove_installation(engine.host, OURS, progress=print)
    assert engine.count("delete") == 0


@pytest.mark.parametrize("entry", ['{"Id": 7}', "null", '{"id": "x"}', '"x"'])
def test_an_entry_without_an_id_keeps_no_other_from_the_clean_up_and_is_failed(
    engine: RemovalEngine, entry: str
) -> None:
    labelled = {"Image": "alpine", "Labels": {"so1.installation": OURS}}
    listing = f'[{entry}, {{"Id": "{ID}"}}]'
    engine.kinds["list"] = lambda n: (200, listing)
    engine.kinds["look"] = lambda n: (200, about(Config=labelled))
    told = remove_installation(engine.host, OURS, progress=print)
    assert [(one.decision.container_name, one.outcome) for one in told] == [
        ("so1_contenedor_1", Outcome.REMOVED),
        ("entry 1", Outcome.FAILED),
    ]


@pytest.mark.parametrize(
    "broken",
    [
        (500, {"message": "layer does not exist"}),
        (200, about(Id="cd" * 32, Created="yesterday")),
        (200, "no JSON"),
    ],
    ids=["a failure", "no time", "no JSON"],
)
def test_one_that_docker_cannot_describe_keeps_no_other_from_the_clean_up(
    engine: RemovalEngine, broken: Answer
) -> None:
    labelled = {"Image": "alpine", "Labels": {"so1.installation": OURS}}
    looks = itertools.count()
    engine.kinds["list"] = lambda n: (200, [{"Id": "cd" * 32}, {"Id": ID}])
    # Two looks a round, and one before the removal in between.
    engine.kinds["look"] = lambda n: (
        broken if next(looks) in (0, 3) else (200, about(Config=labelled))
    )
    told = remove_installation(engine.host, OURS, progress=print)
    assert [(one.decision.container_id, one.outcome) for one in told] == [
        (ID, Outcome.REMOVED),
        ("cd" * 32, Outcome.FAILED),
    ]
    assert "does not describe" in told[1].error


def test_the_clean_up_leaves_the_container_that_it_runs_in(
    engine: RemovalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled = {"Image": "alpine", "Labels": {"so1.installation": OURS}}
    engine.kinds["list"] = lambda n: (200, [{"Id": ID}])
    engine.kinds["look"] = lambda n: (200, about(Config=labelled))
    monkeypatch.setattr("agent.engine_api.own_container.own_ids", lambda: frozenset({ID}))
    said: list[str] = []
    assert remove_installation(engine.host, OURS, progress=said.append) == ()
    assert "the agent runs in it" in said[0]
    assert engine.count("delete") == 0


def test_the_clean_up_looks_again_for_one_that_docker_was_still_making(
    engine: RemovalEngine,
) -> None:
    ids = [f"{n:064x}" for n in range(3)]
    labelled = {"Image": "alpine", "Labels": {"so1.installation": OURS}}
    looks = itertools.count()
    order = [ids[0], ids[0], ids[1], ids[1]]
    engine.kinds["list"] = lambda n: (200, [{"Id": ids[n]}] if n < 2 else [])
    engine.kinds["look"] = lambda n: (200, about(Id=order[next(looks)], Config=labelled))
    told = remove_installation(engine.host, OURS, progress=print)
    assert [one.decision.container_id for one in told] == ids[:2]
    assert {one.outcome for one in told} == {Outcome.REMOVED}
    assert {one.decision.reason for one in told} == {Reason.STOP}
