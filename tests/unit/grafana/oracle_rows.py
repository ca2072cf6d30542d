"""What the oracles of both dashboards share: a table, and the order of a ranking."""

from __future__ import annotations

from typing import Any

Table = list[tuple[Any, ...]]


def by_value(pair: tuple[str, float]) -> tuple[float, str]:
    return (-round(pair[1], 9), pair[0])
