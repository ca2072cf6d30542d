"""When Docker's list is asked for again, and when the one before is as good."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import EngineUnavailableError
from agent.sources.engine.inventory import Engine
from agent.sources.engine.kept_list import LONGEST_NS, SETTLE_NS, KeptList
from tests.unit.sources.engine.fake_engine import (
    SECOND,
    Clock,
    FakeEngine,
    inspected,
    listed,
    offer,
    reply,
)

A, B = "a" * 64, "b" * 64


class World:
    """An engine with one container, a clock, and since when the events have been quiet."""

    def __init__(self, directory: Path) -> None:
        self.fake = FakeEngine(directory)
        self.clock = Clock()
        self.quiet_since_ns: int | None = self.clock.now_ns
        self.engine = Engine(self.fake.host, self.clock, deadline_s=1.0)
        self.kept = KeptList(self.engine, self.clock, lambda: self.quiet_since_ns)
        self.has(A)

    def has(self, *ids: str) -> None:
        offer(self.fake, *((listed(one[0]), inspected(one[0])) for one in ids))

    def ids(self, *, fresh: bool = False) -> set[str]:
        return {one.id for one in self.kept.list(fresh=fresh).containers}

    def later(self, ns: int) -> None:
        self.clock.now_ns += ns

    @property
    def asked(self) -> int:
        return self.fake.asked("/containers/json")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.engine.close()
    made.fake.stop()


def test_while_nothing_happens_the_list_is_asked_for_once(world: World) -> None:
    world.later(SETTLE_NS)
    assert world.ids() == {A}
    world.later(LONGEST_NS - 1)
    assert world.ids() == {A}
    assert world.asked == 1


def test_no_list_is_kept_longer_than_its_time(world: World) -> None:
    world.later(SETTLE_NS)
    world.ids()
    world.has(A, B)
    world.later(LONGEST_NS)
    assert world.ids() == {A, B}


def test_after_an_event_the_next_list_is_asked_for(world: World) -> None:
    world.later(SETTLE_NS)
    world.ids()
    world.has(B)
    world.later(SECOND)
    world.quiet_since_ns = world.clock.now_ns
    assert world.ids() == {B}


def test_a_list_read_right_after_an_event_is_not_kept(world: World) -> None:
    """Docker may tell of a change before its list shows it."""
    world.later(SETTLE_NS - 1)
    assert world.ids() == {A}
    world.has(B)
    world.later(1)
    assert world.ids() == {B}
    assert world.ids() == {B}
    assert world.asked == 2


def test_without_events_each_list_is_asked_for(world: World) -> None:
    world.later(SETTLE_NS)
    world.ids()
    world.quiet_since_ns = None
    world.has(B)
    assert world.ids() == {B}


def test_one_asked_for_fresh_takes_the_place_of_the_one_before(world: World) -> None:
    world.later(SETTLE_NS)
    world.ids()
    world.has(A, B)
    assert world.ids() == {A}
    assert world.ids(fresh=True) == {A, B}
    assert world.ids() == {A, B}
    assert world.asked == 2


def test_a_list_that_docker_does_not_give_leaves_none_behind(world: World) -> None:
    world.later(SETTLE_NS)
    world.ids()
    world.fake.drop()
    del world.fake.answers["/containers/json"]
    with pytest.raises(EngineUnavailableError):
        world.ids(fresh=True)
    with pytest.raises(EngineUnavailableError):
        world.ids()


def test_a_list_with_one_that_docker_did_not_describe_is_not_kept(world: World) -> None:
    world.later(SETTLE_NS)
    world.fake.answers[f"/containers/{A}/json"] = reply({"message": "no"}, "500 No")
    assert world.ids() == {A}
    assert world.ids() == {A}
    assert world.asked == 2
