"""`[[engine]]`: which engines there are, and what no file may say of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config import Config, EngineKind, decode_config, with_overrides
from agent.errors import ConfigError


def engine(name: str, socket: str = "", **more: str) -> str:
    lines = [f'name = "{name}"', f'socket = "{socket or f"unix:///run/{name}.sock"}"']
    lines += [f"{key} = {value}" for key, value in more.items()]
    return "\n".join(["[[engine]]", *lines, ""])


def test_without_any_there_is_dockers_alone_and_governed() -> None:
    (one,) = Config().engines
    assert (one.name, one.socket) == ("docker", "unix:///var/run/docker.sock")
    assert (one.kind, one.governed) == (EngineKind.DOCKER, True)


def test_docker_host_stays_the_engine_docker_beside_others() -> None:
    text = 'docker_host = "unix:///run/mine.sock"\n' + engine("p", kind='"podman"') + engine("two")
    found = decode_config(text, "x").engines
    assert [(one.name, one.socket) for one in found] == [
        ("docker", "unix:///run/mine.sock"),
        ("p", "unix:///run/p.sock"),
        ("two", "unix:///run/two.sock"),
    ]


def test_podman_is_governed_only_where_that_is_written() -> None:
    text = (
        engine("p", kind='"podman"')
        + engine("q", kind='"podman"', govern="true")
        + engine("d")
        + engine("e", govern="false")
    )
    governed = {one.name: one.governed for one in decode_config(text, "x").engines}
    assert governed == {"docker": True, "p": False, "q": True, "d": True, "e": False}


def test_kubernetes_containers_are_observed_only() -> None:
    text = engine("k", kind='"cri"') + engine("l", kind='"cri"', govern="false")
    assert [one.governed for one in decode_config(text, "x").engine] == [False, False]


def test_a_host_may_have_podman_alone() -> None:
    found = decode_config('docker_host = ""\n' + engine("podman"), "x").engines
    assert [one.name for one in found] == ["podman"]


def test_engines_survive_the_command_line() -> None:
    before = decode_config(engine("podman", kind='"podman"'), "x")
    assert with_overrides(before, interval_s=7.0).engines == before.engines


REFUSED = {
    "docker's name": (engine("docker"), "docker cannot be used: it is that of docker_host"),
    "a runtime's name": (engine("libpod"), "libpod cannot be used"),
    "a name twice": (engine("a") + engine("a", "unix:///b"), "a cannot be used: two engines"),
    "a name with a blank": (engine("a b"), "a letter and at most 31"),
    "a name that is an option": (engine("-a"), "a letter and at most 31"),
    "a name with a line end": (engine("a\\n"), "a letter and at most 31"),
    "an empty name": (engine(""), "a letter and at most 31"),
    "a long name": (engine("a" * 33), "a letter and at most 31"),
    "no name": ('[[engine]]\nsocket = "unix:///a"', "name"),
    "no socket": ('[[engine]]\nname = "a"', "socket"),
    "a socket by TCP": (engine("a", "tcp://1.2.3.4:2375"), "unix:// and an absolute path"),
    "a kind that is none": (engine("a", kind='"lxc"'), "$.engine[0].kind"),
    "Kubernetes' containers governed": (
        engine("k", kind='"cri"', govern="true"),
        "govern = true cannot be used for the engine k",
    ),
    "an unknown key": (engine("a", sockets='"x"'), "sockets"),
    "docker_host's socket": (engine("a", "unix:///var/run/docker.sock"), "docker and a have the"),
    "a socket twice": (engine("a", "unix:///s") + engine("b", "unix:///./s"), "a and b have the"),
    "no engine at all": ('docker_host = ""', "there is no [[engine]]"),
    "too many": ("".join(engine(f"e{number}") for number in range(17)), "engine"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_meant_of_engines_is_one_sentence(what: str) -> None:
    text, named = REFUSED[what]
    with pytest.raises(ConfigError) as caught:
        decode_config(text, "agent.toml")
    assert named in caught.value.message
    assert "regex" not in caught.value.message
    assert "\n" not in caught.value.message


def test_two_names_of_one_socket_are_one_socket(tmp_path: Path) -> None:
    (tmp_path / "real.sock").touch()
    (tmp_path / "link.sock").symlink_to(tmp_path / "real.sock")
    text = engine("a", f"unix://{tmp_path}/real.sock") + engine("b", f"unix://{tmp_path}/link.sock")
    with pytest.raises(ConfigError, match="a and b have the same socket"):
        decode_config(text, "x")
