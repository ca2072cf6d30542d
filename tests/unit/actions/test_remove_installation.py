"""What a stop and a clean-up remove: this installation's containers, whatever one of them does."""

from __future__ import annotations

import itertools
from typing import Any

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


@pytest.mark.parametrize("installation", ["", "x", "a" * 65, OURS.upper(), "*", "../"])
def test_what_is_no_installation_s_id_asks_docker_for_nothing(
    engine: RemovalEngine, installation: str
) -> None:
    assert remove_installation(engine.host, installation, progress=print) == ()
    assert engine.order == []


def test_an_engine_that_refuses_the_list_is_a_sentence(engine: RemovalEngine) -> None:
    engine.kinds["list"] = lambda n: (403, {"message": "not you"})
    with pytest.raises(EngineUnavailableError, match="refuses: not you"):
        remove_installation(engine.host, OURS, progress=print)


@pytest.mark.parametrize(
    ("labels", "image", "goes"),
    [
        ({"so1.installation": OURS}, {"Labels": {"other": "x"}}, True),
        ({"so1.installation": OURS}, {"Labels": {"so1.installation": OURS}}, False),
        ({"so1.installation": OURS, "so1.protect": "true"}, {"Labels": None}, False),
        ({"so1.installation": "f" * 32}, {"Labels": None}, False),
        (None, {"Labels": None}, False),
    ],
    ids=["its own", "its image's too", "protected", "another's", "none"],
)
def test_only_a_label_of_the_container_s_own_proves_it_ours(
    engine: RemovalEngine, labels: dict[str, str] | None, image: dict[str, Any], goes: bool
) -> None:
    engine.kinds["list"] = lambda n: (200, [{"Id": ID}])
    engine.kinds["look"] = lambda n: (200, about(Config={"Image": "alpine", "Labels": labels}))
    engine.kinds["image"] = lambda n: (200, {"Config": image})
    ended = remove_installation(engine.host, OURS, progress=print)
    assert [one.outcome for one in ended] == ([Outcome.REMOVED] if goes else [])
    assert engine.count("delete") == goes


def test_one_whose_image_is_gone_proves_nothing_and_is_said_once(engine: RemovalEngine) -> None:
    labelled = {"Image": "alpine", "Labels": {"so1.installation": OURS}}
    ids = [ID, "cd" * 32]
    engine.kinds["list"] = lambda n: (200, [{"Id": one} for one in ids])
    looks = itertools.cycle(ids)
    engine.kinds["look"] = lambda n: (200, about(Id=next(looks), Config=labelled))
    engine.kinds["image"] = lambda n: (404, {"message": "No such image"})
    said: list[str] = []
    assert remove_installation(engine.host, OURS, progress=said.append) == ()
    assert len(said) == 2
    assert all("its image is gone" in line and "sudo docker rm -f" in line for line in said)
