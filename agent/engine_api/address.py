"""Where an engine listens, and what kind it is: who words an error has to know both."""

from __future__ import annotations

from typing import Self

DOCKER_KIND = "docker"
PODMAN_KIND = "podman"
CRI_KIND = "cri"


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
    names = {PODMAN_KIND: "podman", CRI_KIND: "The CRI runtime"}
    return names.get(kind_of(address), "Docker")


def start_remedy(address: str) -> str:
    """What starts it."""
    if kind_of(address) == PODMAN_KIND:
        return "Start it: `sudo systemctl start podman.socket` (a user's: without sudo, --user)."
    if kind_of(address) == CRI_KIND:
        return "Start it: `sudo systemctl start containerd` (or crio)."
    return "Start it: `sudo systemctl start docker`."


def look_remedy(address: str) -> str:
    """Where to look at what it does."""
    if kind_of(address) == PODMAN_KIND:
        return "Look at `systemctl status podman.socket podman` and `journalctl -u podman`."
    if kind_of(address) == CRI_KIND:
        return "Look at `sudo systemctl status containerd` (or crio) and `sudo crictl info`."
    return "Look at `sudo systemctl status docker` and `sudo journalctl -u docker`."


def listing_command(kind: str) -> str:
    """What lists every container of an engine of this kind, for a person."""
    return "crictl ps -a" if kind == CRI_KIND else f"{kind} ps -a"
