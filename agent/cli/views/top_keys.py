"""What a person may ask of `agent top`, and which keys of a terminal ask it.

Apart from the view itself, so that the command line can be read without loading it.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum


class Sort(StrEnum):
    """What the containers are sorted by, greatest first; names from a to z."""

    RAM = "ram"
    CPU = "cpu"
    PROCESSES = "processes"
    NAME = "name"


class Key(StrEnum):
    """What a person pressed."""

    UP = "up"
    DOWN = "down"
    OPEN = "open"
    BACK = "back"
    QUIT = "quit"
    BY_RAM = "by-ram"
    BY_CPU = "by-cpu"
    BY_PROCESSES = "by-processes"
    BY_NAME = "by-name"


_KEYS = {
    b"r": Key.BY_RAM,
    b"c": Key.BY_CPU,
    b"p": Key.BY_PROCESSES,
    b"n": Key.BY_NAME,
    b"q": Key.QUIT,
    b"k": Key.UP,
    b"j": Key.DOWN,
    b"\n": Key.OPEN,
    b"\r": Key.OPEN,
    b"\x7f": Key.BACK,
    b"\x1b": Key.BACK,
    b"\x1b[A": Key.UP,
    b"\x1b[B": Key.DOWN,
    b"\x1b[C": Key.OPEN,
    b"\x1b[D": Key.BACK,
    b"\x1bOA": Key.UP,
    b"\x1bOB": Key.DOWN,
}


def keys_in(data: bytes) -> Iterator[Key]:
    """The keys in what a terminal sent; anything unknown is nothing."""
    place = 0
    while place < len(data):
        length = 3 if data[place : place + 2] in (b"\x1b[", b"\x1bO") else 1
        key = _KEYS.get(data[place : place + length])
        if key is not None:
            yield key
        place += length
