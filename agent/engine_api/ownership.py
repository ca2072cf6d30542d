"""Whose a container is, by its labels: this installation's, or our Grafana's. Pure.

A container inherits the labels of its image. Somebody may make an image of one of ours, so a label
that the image has too proves nothing, and neither does one whose image is gone.
"""

from __future__ import annotations

from collections.abc import Mapping

INSTALLATION_LABEL = "so1.installation"
COMPOSE_PROJECT_LABEL = "com.docker.compose.project"
GRAFANA_PROJECT = "so1-grafana"
GRAFANA_FILTER = f"{COMPOSE_PROJECT_LABEL}={GRAFANA_PROJECT}"
"""For the engine's lists: what compose made for our Grafana."""


def claimed(labels: Mapping[str, str]) -> str:
    """The installation that these labels name, "" for none: a container's claim, or an image's."""
    return labels.get(INSTALLATION_LABEL, "")


def own_installation(of_container: str, of_image: str | None) -> str:
    """The installation that made the container, "" where its label does not prove one.

    Both are what `claimed` gives. `of_image` is None where there is no image to look at.
    """
    return "" if of_image is None or of_image == of_container else of_container


def own_labels(of_container: Mapping[str, str], of_image: Mapping[str, str]) -> Mapping[str, str]:
    """Those of a container's labels that its image does not have with the same value."""
    return {key: value for key, value in of_container.items() if of_image.get(key) != value}


def installation_filter(installation: str) -> str:
    """For the engine's lists: containers that claim this installation, by whatever way."""
    return f"{INSTALLATION_LABEL}={installation}"


def is_our_grafana(labels: Mapping[str, str]) -> bool:
    """Whether compose made it for our Grafana; one that only has the name is not ours."""
    return labels.get(COMPOSE_PROJECT_LABEL) == GRAFANA_PROJECT
