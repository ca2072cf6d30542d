"""Docker's answers: what a source takes of an odd one, and what is refused before a removal."""

from __future__ import annotations

import msgspec
import pytest

from agent.engine_api import schema

ID = "a" * 64
WHOLE = {
    "Id": ID,
    "Created": "2026-01-01T00:00:00Z",
    "Name": "/web",
    "Image": "sha256:1",
    "State": {"Status": "running", "Running": True, "Pid": 5},
    "Config": {"Image": "alpine", "Labels": {"so1.protect": "true"}},
}
ODD_PARTS = [
    {"State": None},
    {"State": ["running"]},
    {"State": {"Pid": -1}},
    {"State": {"Status": 7}},
    {"Config": None},
    {"Config": "alpine"},
    {"Config": {"Labels": ["so1.protect"]}},
    {"Name": 7},
]


def without(name: str) -> dict[str, object]:
    return {key: value for key, value in WHOLE.items() if key != name}


def test_both_ways_take_the_same_of_a_whole_answer() -> None:
    assert schema.inspected(WHOLE) == schema.take_inspected(WHOLE)
    container = schema.inspected(WHOLE).container()
    assert (container.id, container.name, container.image) == (ID, "web", "alpine")
    assert (container.first_pid, container.labels) == (5, {"so1.protect": "true"})


@pytest.mark.parametrize("part", ODD_PARTS, ids=str)
def test_before_a_removal_an_odd_part_is_refused_and_a_source_goes_on_without_it(
    part: dict[str, object],
) -> None:
    with pytest.raises(msgspec.ValidationError):
        schema.inspected({**WHOLE, **part})
    assert schema.take_inspected({**WHOLE, **part}).Id == ID


@pytest.mark.parametrize("name", ["State", "Config"])
def test_before_a_removal_an_answer_without_state_or_labels_is_refused(name: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        schema.inspected(without(name))
    assert schema.take_inspected(without(name)).Id == ID


@pytest.mark.parametrize("answer", [None, [], "x", {}, {**WHOLE, "Id": "web"}, without("Created")])
def test_an_answer_that_is_no_containers_is_refused_both_ways(answer: object) -> None:
    for take in (schema.inspected, schema.take_inspected):
        with pytest.raises(msgspec.ValidationError):
            take(answer)


@pytest.mark.parametrize("labels", [["a"], {"a": []}, "a=b"])
def test_labels_of_an_image_that_cannot_be_read_are_not_none(labels: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        schema.image_labels({"Config": {"Labels": labels}})


@pytest.mark.parametrize("answer", [{}, {"Config": None}, {"Config": {}}])
def test_an_image_without_labels_has_none(answer: object) -> None:
    assert schema.image_labels(answer) == {}


@pytest.mark.parametrize("text", ["", "Running", "hibernating"])
def test_a_state_that_docker_does_not_describe_is_unknown(text: str) -> None:
    assert schema.container_state(text) == "unknown"
