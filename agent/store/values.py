"""How one value is made fit to be stored: units, precision, and text that SQLite can hold.

MB are KB divided by 1024, CPU is rounded to a thousandth of a percent, and text that SQLite cannot
hold (lone surrogates) or nobody can read (a megabyte of name) is cut or replaced.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeVar

from agent.model.container import Unknown

T = TypeVar("T")

_TEXT_LIMIT = 1024
_NAME_LIMIT = 255
_NAMES = 512
"""Thousands of rows a tick share few names."""


def clean(text: str, limit: int = _TEXT_LIMIT) -> str:
    """`text` as SQLite can hold it: valid UTF-8, without NUL, at most `limit` characters."""
    cut = text[:limit]
    if cut.isascii() and "\0" not in cut:
        return cut
    return cut.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")


@lru_cache(_NAMES)
def process_name(text: str) -> str:
    return clean(text, _NAME_LIMIT)


def percent(value: float) -> float:
    # Most processes rest.
    return round(value, 3) if value else 0.0


def percent_or_none(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def mb(kb: float) -> float:
    return kb / 1024


def mb_or_none(kb: float | None) -> float | None:
    return None if kb is None else kb / 1024


def known(figure: T | Unknown) -> T | None:
    """NULL for what is not known, whatever the reason."""
    return None if isinstance(figure, Unknown) else figure
