"""What the list tells of each container, and what is asked again for the next one."""

from __future__ import annotations

import pytest

from agent.config import Scope
from agent.engine_api import schema
from agent.model.container import ContainerState
from agent.policy import governance
from agent.sources.engine.inventory import Engine
from tests.unit.sources.engine.fake_engine import (
    SECOND,
    Clock,
    FakeEngine,
    inspected,
    listed,
    offer,
)


def test_a_container_is_told_with_all_that_is_known_of_it(fake: FakeEngine, engine: Engine) -> None:
    offer(fake, (listed("a"), inspected("a")))
    listing = engine.list()
    (one,) = listing.containers
    assert one.id == "a" * 64
    assert (one.name, one.image, one.state) == ("name-a", "alpine:latest", ContainerState.RUNNING)
    assert one.created_ns == 1_795_533_165_123_456_789
    assert one.first_pid == 4321
    assert one.labels == {"a": "b"}
    assert one.own_installation == ""
    assert listing.read_ns == 1000 * SECOND


def test_the_image_is_the_one_named_at_creation(fake: FakeEngine, engine: Engine) -> None:
    # The list shows an id once the tag has moved on.
    offer(fake, (listed("a", Image="sha256:9999"), inspected("a")))
    assert engine.list().containers[0].image == "alpine:latest"


@pytest.mark.parametrize("state", list(ContainerState))
def test_states_are_told_and_only_running_ones_have_a_first_pid(
    fake: FakeEngine, engine: Engine, state: ContainerState
) -> None:
    offer(fake, (listed("a", State=str(state)), inspected("a")))
    (one,) = engine.list().containers
    assert one.state is state
    assert one.first_pid == (4321 if state.is_running else 0)


def test_a_state_that_docker_does_not_have_is_unknown(fake: FakeEngine, engine: Engine) -> None:
    offer(fake, (listed("a", State="hibernating"), inspected("a")))
    assert engine.list().containers[0].state is ContainerState.UNKNOWN


def test_one_that_vanishes_between_list_and_look_is_left_out(
    fake: FakeEngine, engine: Engine
) -> None:
    offer(fake, (listed("a"), inspected("a")), (listed("b"), inspected("b")))
    del fake.answers[f"/containers/{'a' * 64}/json"]
    assert [one.name for one in engine.list().containers] == ["name-b"]


@pytest.mark.parametrize(
    ("names", "name"),
    [
        (["/other/alias", "/mine"], "mine"),
        ([], "name-a"),
        (None, "name-a"),
        (["/evil\x1b[2J\u202e"], "evil\\x1b[2J\\x202e"),
        (["/" + "n" * 400], "n" * 400),
    ],
)
def test_the_name_is_the_one_without_links_and_steers_no_terminal(
    fake: FakeEngine, engine: Engine, names: list[str] | None, name: str
) -> None:
    offer(fake, (listed("a", Names=names), inspected("a")))
    assert engine.list().containers[0].name == name


def test_a_container_without_any_name_goes_by_its_id(fake: FakeEngine, engine: Engine) -> None:
    offer(fake, (listed("a", Names=None), inspected("a", Name="")))
    assert engine.list().containers[0].name == "a" * 12


def test_labels_are_whole_and_steer_no_terminal(fake: FakeEngine, engine: Engine) -> None:
    labels = {f"k{number}": "v" for number in range(1500)} | {"k\n1": "\x07" + "v" * 9000}
    offer(fake, (listed("a", Labels=labels), inspected("a")))
    found = engine.list().containers[0].labels
    assert len(found) == 1501
    assert found["k\\x0a1"] == "\\x07" + "v" * 9000


def test_one_protected_behind_a_thousand_labels_is_protected(
    fake: FakeEngine, engine: Engine
) -> None:
    labels = {f"k{number}": "v" for number in range(1000)} | {"so1.protect": "true"}
    offer(fake, (listed("a", Labels=labels), inspected("a")))
    (one,) = engine.list().containers
    assert not governance.classify(one, "", Scope.ALL).governed


@pytest.mark.parametrize(
    "values",
    [
        {"name": "so1_contenedor_" + "n" * 400, "image": "alpine"},
        {"name": "so1_contenedor_1", "image": "x" * 5000 + "alpine"},
        {"name": "so1_contenedor_\u202e\u00e9" + "n" * 300, "image": "y" * 5000},
    ],
    ids=["a long name", "a long image", "a long name with escapes"],
)
def test_what_is_decided_on_is_what_is_found_before_the_removal(
    fake: FakeEngine, engine: Engine, values: dict[str, str]
) -> None:
    """Nothing is cut on one of the two ways only."""
    config = {"Image": values["image"], "Labels": {"a": "b"}}
    about = inspected("a", Name="/" + values["name"], Config=config)
    offer(fake, (listed("a", Names=["/" + values["name"]]), about))
    (decided,) = engine.list().containers
    now = schema.inspected({**about, "State": {"Status": "running"}}).container()
    assert (decided.name, decided.image, decided.labels) == (now.name, now.image, now.labels)
    assert decided.created_ns == now.created_ns


@pytest.mark.parametrize(
    ("value", "text"), [(1, "1"), (True, "True"), (None, ""), ("", ""), (1.5, "1.5")]
)
def test_a_label_that_is_no_text_is_taken_for_the_text_it_would_be(
    fake: FakeEngine, engine: Engine, value: object, text: str
) -> None:
    offer(fake, (listed("a", Labels={"so1.protect": value}), inspected("a")))
    (one,) = engine.list().containers
    assert one.labels == {"so1.protect": text}
    assert governance.protection(one)


def test_null_labels_are_none(fake: FakeEngine, engine: Engine) -> None:
    offer(fake, (listed("a", Labels=None), inspected("a")))
    assert engine.list().containers[0].labels == {}


@pytest.mark.parametrize(
    ("own", "image", "proves"),
    [
        ("mine", {"x": "y"}, "mine"),
        ("mine", None, "mine"),
        ("mine", {"so1.installation": "mine"}, ""),
        ("mine", {"so1.installation": "other"}, "mine"),
        ("", {"so1.installation": "mine"}, ""),
    ],
)
def test_the_installations_label_counts_only_where_the_image_does_not_carry_it(
    fake: FakeEngine, engine: Engine, own: str, image: dict[str, str] | None, proves: str
) -> None:
    labels = {"so1.installation": own} if own else {}
    config = {"Image": "alpine:latest", "Labels": labels}
    offer(fake, (listed("a", Labels=labels), inspected("a", Config=config)))
    fake.answers["/images/sha256:" + "1" * 64 + "/json"] = {"Config": {"Labels": image}}
    assert engine.list().containers[0].own_installation == proves


def test_the_label_proves_nothing_where_the_image_is_gone(fake: FakeEngine, engine: Engine) -> None:
    labels = {"so1.installation": "mine"}
    config = {"Image": "alpine:latest", "Labels": labels}
    offer(fake, (listed("a", Labels=labels), inspected("a", Config=config)))
    assert engine.list().containers[0].own_installation == ""


def test_one_that_has_been_up_longer_than_we_know_it_is_not_looked_at_again(
    fake: FakeEngine, engine: Engine, clock: Clock
) -> None:
    look = f"/containers/{'a' * 64}/json"
    offer(fake, (listed("a", Status="Up 5 minutes"), inspected("a")))
    engine.list()
    clock.now_ns += 20 * SECOND
    engine.list()
    assert fake.asked(look) == 1
    clock.now_ns += 300 * SECOND
    engine.list()
    assert fake.asked(look) == 2


def test_a_restart_between_two_lists_is_seen_though_the_words_are_the_same(
    fake: FakeEngine, engine: Engine, clock: Clock
) -> None:
    offer(fake, (listed("a", Status="Up 5 seconds"), inspected("a")))
    assert engine.list().containers[0].first_pid == 4321
    clock.now_ns += 20 * SECOND
    fresh = inspected("a", State={"Pid": 99})
    offer(fake, (listed("a", Status="Up 5 seconds"), fresh))
    assert engine.list().containers[0].first_pid == 99


@pytest.mark.parametrize(
    ("said", "started_ns"),
    [
        ("2026-11-24T15:12:45.5Z", 1_795_533_165_500_000_000),
        ("0001-01-01T00:00:00Z", 0),
        ("soon", 0),
    ],
)
def test_when_it_started_is_known_or_0(
    fake: FakeEngine, engine: Engine, said: str, started_ns: int
) -> None:
    offer(fake, (listed("a"), inspected("a", State={"Pid": 4321, "StartedAt": said})))
    assert engine.list().containers[0].started_ns == started_ns


def test_a_stopped_one_is_looked_at_once(fake: FakeEngine, engine: Engine, clock: Clock) -> None:
    for status in ("Exited (0) 2 seconds ago", "Exited (0) 22 seconds ago"):
        offer(fake, (listed("a", State="exited", Status=status), inspected("a")))
        assert engine.list().containers[0].first_pid == 0
        clock.now_ns += 20 * SECOND
    assert fake.asked(f"/containers/{'a' * 64}/json") == 1


def test_a_changed_state_is_looked_at_again(fake: FakeEngine, engine: Engine) -> None:
    offer(fake, (listed("a", State="exited", Status="Exited (0) 1 hour ago"), inspected("a")))
    engine.list()
    offer(fake, (listed("a"), inspected("a", State={"Pid": 77})))
    assert engine.list().containers[0].first_pid == 77


def test_a_new_name_is_told_without_another_look(fake: FakeEngine, engine: Engine) -> None:
    offer(fake, (listed("a", Status="Up 2 hours"), inspected("a")))
    engine.list()
    offer(fake, (listed("a", Status="Up 2 hours", Names=["/new"]), inspected("a")))
    assert engine.list().containers[0].name == "new"
    assert fake.asked(f"/containers/{'a' * 64}/json") == 1


def test_what_was_known_of_one_that_went_is_forgotten(fake: FakeEngine, engine: Engine) -> None:
    offer(fake, (listed("a", Status="Up 2 hours"), inspected("a")))
    engine.list()
    offer(fake)
    assert engine.list().containers == ()
    offer(fake, (listed("a", Status="Up 2 hours"), inspected("a")))
    engine.list()
    assert fake.asked(f"/containers/{'a' * 64}/json") == 2
