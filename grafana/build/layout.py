"""Where panels stand on a dashboard, and the JSON that all of it becomes."""

from __future__ import annotations

import json
from typing import Any

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard

from grafana.build.panels import MARKED, OOM_KILLS, REMOVALS, Panel


class Grid:
    """Places panels from left to right and row by row in Grafana's 24 columns."""

    def __init__(self, into: build.Dashboard) -> None:
        self._into = into
        self._x = self._y = self._height = 0

    def add(self, panel: Panel, width: int, height: int) -> None:
        if self._x + width > 24:
            self._break()
        place = dashboard.GridPos(x=self._x, y=self._y, w=width, h=height)
        self._into.with_panel(panel.grid_pos(place))
        self._x += width
        self._height = max(self._height, height)

    def heading(self, title: str) -> None:
        """A row's title; what follows stands below it."""
        self._break()
        place = dashboard.GridPos(x=0, y=self._y, w=24, h=1)
        self._into.with_row(build.Row(title).grid_pos(place))
        self._y += 1

    def _break(self) -> None:
        self._y += self._height
        self._x = self._height = 0


def content(made: build.Dashboard) -> dict[str, Any]:
    """The dashboard's JSON, with panels numbered in their order and removals marked in one."""
    found: dict[str, Any] = json.loads(json.dumps(made.build(), cls=JSONEncoder))
    for number, panel in enumerate(found["panels"], start=1):
        panel["id"] = number
    marked = [panel["id"] for panel in found["panels"] if panel["title"] == MARKED]
    for annotation in found["annotations"].get("list", ()):
        if annotation["name"] in (REMOVALS, OOM_KILLS):
            annotation["filter"] = {"exclude": False, "ids": marked}
    return found


def text(found: dict[str, Any]) -> str:
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"
