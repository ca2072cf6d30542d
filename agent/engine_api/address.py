"""Where an engine listens, and what kind it is: who words an error has to know both."""

from __future__ import annotations

from typing import Self

DOCKER_KIND = "docker"
PODMAN_KIND = "podman"


class Address(str):
    """`unix:///path` of an engine that is not Docker; a plain `str` is Docker's."""

    __slots__ = ("kind",)
    kind: str

    def __new__(cls, value: str, kind: str) -> Self:
        made = super().__new__(cls, value)
        made.kind = kind
        return made


def kind_of(address: str) -> str:
    """What listens there, as configured."""
    return address.kind if isinstance(address, Address) else DOCKER_KIND


def product(address: str) -> str:
    """What listens there, at the beginning of a sentence."""
    return "podman" if kind_of(address) == PODMAN_KIND else "Docker"


def start_remedy(address: str) -> str:
    """What starts it."""
    if kind_of(address) == PODMAN_KIND:
        return "Start it: `sudo systemctl start podman.socket` (a user's: without sudo, --user)."
    return "Start it: `sudo systemctl start docker`."


def look_remedy(address: str) -> str:
    """Where to look at what it does."""
    if kind_of(address) == PODMAN_KIND:
        return "Look at `systemctl status podman.socket podman` and `journalctl -u podman`."
    return "Look at `sudo systemctl status docker` and `sudo journalctl -u docker`."
