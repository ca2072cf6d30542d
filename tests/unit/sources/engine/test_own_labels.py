"""Which labels a container itself carries, and Docker's word on its health."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from agent.sources.engine.inventory import Engine, health
from tests.unit.sources.engine.fake_engine import Clock, FakeEngine, inspected, listed, reply

if TYPE_CHECKING:
    from collections.abc import Mapping

LABELS = {"job": "7", "team": "db"}
IMAGE = "/images/sha256:" + "1" * 64 + "/json"


def own(fake: FakeEngine, image: Any, *, all_labels: bool = True) -> Mapping[str, str]:
    fake.answers["/containers/json"] = [listed("a", Labels=LABELS)]
    config = {"Image": "alpine", "Labels": LABELS}
    fake.answers["/containers/" + "a" * 64 + "/json"] = inspected("a", Config=config)
    fake.answers[IMAGE] = image
    source = Engine(fake.host, Clock(), deadline_s=1.0, all_labels=all_labels)
    try:
        (one,) = source.list().containers
    finally:
        source.close()
    assert one.labels == LABELS
    return one.own_labels


@pytest.mark.parametrize(
    ("inherited", "expected"),
    [
        (None, LABELS),
        ({"job": "7"}, {"team": "db"}),
        ({"job": "8"}, LABELS),
        (LABELS, {}),
    ],
)
def test_a_label_that_the_image_has_too_is_not_the_container_s_own(
    fake: FakeEngine,
    inherited: dict[str, str] | None,
    expected: dict[str, str],
) -> None:
    assert own(fake, {"Config": {"Labels": inherited}}) == expected


@pytest.mark.parametrize(
    "answer",
    [
        reply({"message": "no such image"}, "404 Not Found"),
        reply({"message": "layer does not exist"}, "500 Internal Server Error"),
        {"Config": {"Labels": 7}},
    ],
    ids=["gone", "broken", "odd"],
)
def test_where_the_image_tells_nothing_no_label_is_its_own(
    fake: FakeEngine,
    answer: Any,
) -> None:
    assert own(fake, answer) == {}


def test_images_are_asked_only_while_a_rule_needs_to_know(fake: FakeEngine) -> None:
    assert own(fake, {"Config": None}, all_labels=False) == {}
    assert fake.asked(IMAGE) == 0


def test_what_is_known_without_labels_is_asked_for_again_once_a_rule_needs_them(
    fake: FakeEngine,
    engine: Engine,
) -> None:
    own(fake, {"Config": None}, all_labels=False)
    found = []
    for wanted in (False, True, True, False):
        engine.ask_all_labels(wanted)
        found.append(bool(engine.list().containers[0].own_labels))
    assert found == [False, True, True, False]
    assert fake.asked(IMAGE) == 1


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("Up 2 hours (unhealthy)", "unhealthy"),
        ("Up 2 hours (healthy)", "healthy"),
        ("Up 3 seconds (health: starting)", "starting"),
        ("Up 2 hours", ""),
        ("Up 2 hours (Paused)", ""),
        ("Exited (0) 5 minutes ago", ""),
        ("(unhealthy) Up", ""),
    ],
)
def test_the_health_is_what_docker_s_status_ends_with(status: str, expected: str) -> None:
    assert health(status) == expected
