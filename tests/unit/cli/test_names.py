"""How a container is called where there are pods and several engines."""

from __future__ import annotations

from dataclasses import dataclass

from agent.cli.views.names import shown_names


@dataclass(frozen=True, slots=True)
class Named:
    container_name: str
    engine: str = "docker"
    pod: str = ""


def names(*rows: Named) -> list[str]:
    return list(shown_names(rows).values())


def test_on_a_host_of_one_engine_a_name_is_the_name() -> None:
    assert names(Named("web"), Named("db")) == ["web", "db"]
    assert names(Named("web", "podman")) == ["web"]


def test_where_there_are_several_each_name_has_its_engine() -> None:
    found = names(Named("web"), Named("web", "podman"), Named("till", "podman", "shop"))
    assert found == ["docker: web", "podman: web", "podman: shop/till"]


def test_a_name_of_kubernetes_has_its_pod_once() -> None:
    pod = "default/shop"
    found = names(Named("default/shop/till", "k8s", pod), Named("till", "k8s", pod))
    assert found == ["default/shop/till"] * 2


def test_what_steers_a_terminal_is_escaped_in_pods_too() -> None:
    (found,) = names(Named("web", pod="a\x1b[2J"))
    assert "\x1b" not in found
    assert found.endswith("/web")
