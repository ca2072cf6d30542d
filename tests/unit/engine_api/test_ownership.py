"""Whose a container is: by a label of its own, never by one that its image has too."""

from __future__ import annotations

import pytest

from agent.engine_api import ownership

OURS, OTHERS = "1" * 32, "2" * 32


@pytest.mark.parametrize(
    ("of_container", "of_image", "own"),
    [
        (OURS, "", OURS),
        (OURS, OTHERS, OURS),
        (OURS, OURS, ""),
        (OURS, None, ""),
        ("", "", ""),
        ("", OURS, ""),
        ("", None, ""),
    ],
)
def test_only_a_label_that_the_image_does_not_have_proves_whose_a_container_is(
    of_container: str, of_image: str | None, own: str
) -> None:
    assert ownership.own_installation(of_container, of_image) == own


def test_labels_that_name_no_installation_claim_none() -> None:
    assert ownership.claimed({"so1.protect": "true"}) == ""
    assert ownership.claimed({"so1.installation": OURS}) == OURS


@pytest.mark.parametrize(
    ("labels", "ours"),
    [
        ({"com.docker.compose.project": "so1-grafana"}, True),
        ({"com.docker.compose.project": "grafana"}, False),
        ({"com.docker.compose.service": "so1-grafana"}, False),
        ({}, False),
    ],
)
def test_our_grafana_is_known_by_its_compose_project_alone(
    labels: dict[str, str], *, ours: bool
) -> None:
    assert ownership.is_our_grafana(labels) is ours
