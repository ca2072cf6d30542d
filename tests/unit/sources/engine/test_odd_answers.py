"""One container, image or entry that Docker describes oddly costs that alone."""

from __future__ import annotations

from typing import Any

import pytest

from agent.engine_api import schema
from agent.sources.engine.inventory import Engine
from tests.unit.sources.engine.fake_engine import (
    SECOND,
    FakeEngine,
    inspected,
    listed,
    offer,
    reply,
)


@pytest.mark.parametrize(
    "answer",
    [
        reply(b"{}"),
        reply(b"[]"),
        reply(b"no JSON"),
        reply(b"[" * 200_000),
        reply(inspected("b")),
        reply(inspected("a", Created="yesterday")),
        reply(inspected("a", Created=None)),
        reply({"message": "no"}, "500 Internal Server Error"),
        reply([], "500 Internal Server Error"),
    ],
    ids=[
        *("empty", "a list", "no JSON", "nested", "another container's", "no time", "null time"),
        *("a failure", "a failure without a word"),
    ],
)
def test_an_odd_look_at_one_hides_no_other_and_proves_nothing(
    fake: FakeEngine, engine: Engine, answer: Any
) -> None:
    offer(fake, (listed("a"), inspected("a")), (listed("b"), inspected("b")))
    fake.answers[f"/containers/{'a' * 64}/json"] = answer
    listing = engine.list()
    one, other = listing.containers
    assert (one.name, one.first_pid, one.own_installation) == ("name-a", 0, "")
    assert one.created_ns == 1_700_000_000 * SECOND
    assert other.first_pid == 4321
    assert listing.undescribed == 1


def test_a_pid_that_is_none_is_left_out_and_the_container_is_not(
    fake: FakeEngine, engine: Engine
) -> None:
    offer(fake, (listed("a"), inspected("a", State={"Pid": -1})))
    (one,) = engine.list().containers
    assert (one.first_pid, one.created_ns) == (0, 1_795_533_165_123_456_789)


@pytest.mark.parametrize(
    "changed",
    [
        {"Created": -62135596800},
        {"Created": "0001-01-01T00:00:00Z"},
        {"Created": 1 << 70},
        {"Image": 7},
        {"Status": None},
        {"ImageID": []},
    ],
    ids=str,
)
def test_an_odd_figure_of_one_entry_costs_that_figure_alone(
    fake: FakeEngine, engine: Engine, changed: dict[str, Any]
) -> None:
    """An exited container may be listed as created in the year 1."""
    offer(fake, (listed("a", **changed), inspected("a")), (listed("b"), inspected("b")))
    listing = engine.list()
    assert [one.name for one in listing.containers] == ["name-a", "name-b"]
    assert listing.containers[0].created_ns == 1_795_533_165_123_456_789
    assert (listing.left_out, listing.undescribed) == (0, 0)


def test_one_created_in_the_year_1_by_both_answers_is_the_same_at_its_removal(
    fake: FakeEngine, engine: Engine
) -> None:
    year_1 = "0001-01-01T00:00:00Z"
    about = inspected("a", Created=year_1)
    offer(fake, (listed("a", Created=-62135596800, State="exited"), about))
    (one,) = engine.list().containers
    assert one.created_ns == schema.inspected(about).container().created_ns


@pytest.mark.parametrize(
    "entry",
    [
        *(7, None, "x", [], {}),
        listed("g"),
        listed("a", Id="abc"),
        listed("a", Id=None),
        listed("a", Labels=["so1.protect"]),
        listed("a", Labels={"a": {}}),
        listed("a", Labels="so1.protect=true"),
    ],
    ids=lambda entry: str(entry)[-40:],
)
def test_an_entry_that_is_no_container_for_sure_is_left_out_alone_and_said_once(
    fake: FakeEngine, engine: Engine, entry: Any, caplog: pytest.LogCaptureFixture
) -> None:
    offer(fake, (listed("b"), inspected("b")))
    fake.answers["/containers/json"] = [entry, listed("b")]
    for _ in range(2):
        listing = engine.list()
        assert [one.name for one in listing.containers] == ["name-b"]
        assert listing.left_out == 1
    assert caplog.text.count("outcome=left-out") == 1


def test_one_image_that_docker_cannot_describe_hides_no_container(
    fake: FakeEngine, engine: Engine
) -> None:
    config = {"Image": "alpine:latest", "Labels": {"so1.installation": "mine"}}
    offer(fake, (listed("a"), inspected("a", Config=config)), (listed("b"), inspected("b")))
    image = "/images/sha256:" + "1" * 64 + "/json"
    for broken in (reply({"message": "no"}, "500 No"), reply({"Config": {"Labels": [1]}})):
        fake.answers[image] = broken
        listing = engine.list()
        assert [one.own_installation for one in listing.containers] == ["", ""]
        assert listing.undescribed == 1
    fake.answers[image] = {"Config": {"Labels": None}}
    assert engine.list().containers[0].own_installation == "mine"


def test_one_that_docker_cannot_describe_does_not_hide_the_others(
    fake: FakeEngine, engine: Engine
) -> None:
    offer(fake, (listed("a"), inspected("a")), (listed("b"), inspected("b")))
    broken = reply({"message": "layer does not exist"}, "500 Internal Server Error")
    fake.answers[f"/containers/{'a' * 64}/json"] = broken
    listing = engine.list()
    one, other = listing.containers
    assert (one.name, one.image, one.first_pid) == ("name-a", "alpine:latest", 0)
    assert one.created_ns == 1_700_000_000 * SECOND
    assert one.own_installation == ""
    assert other.first_pid == 4321
    assert listing.undescribed == 1
    fake.answers[f"/containers/{'a' * 64}/json"] = inspected("a")
    listing = engine.list()
    assert listing.containers[0].first_pid == 4321
    assert listing.undescribed == 0
