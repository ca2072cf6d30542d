"""The words that somebody sees on a dashboard, and the same dashboard in English.

Dashboards are written in Spanish, with the original's titles. What is seen are texts of panels,
variables, links and marks, and in queries the names of columns and the literals. One table
(`grafana.build.english`) has all of them; names of variables and identities of dashboards stay, so
that a link opens the same place in either language.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from grafana.build.english import NEUTRAL, TABLE

_TEXTS = frozenset(
    ("title", "description", "noValue", "displayName", "label", "tooltip", "text", "axisLabel")
)
"""Keys of JSON whose strings are read by people."""
_PROPERTIES = frozenset(("displayName", "noValue", "custom.axisLabel", "custom.fillBelowTo"))
_QUERIES = frozenset(("rawQueryText", "queryText", "rawSql", "query", "definition"))
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
_LETTERS = re.compile(r"[A-Za-zÁÉÍÓÚÑáéíóúñ]{2}")

Change = Callable[[str], str]


class UntranslatedError(Exception):
    """A text is in neither table of `grafana.build.english`."""


def translated(content: Any) -> Any:
    """The dashboard's JSON in English. Raises UntranslatedError for a text that no table has."""
    return _Walk(english, codes(content)).walk(content)


def visible(content: Any) -> Iterator[str]:
    """Every text of a dashboard that people read."""
    found: list[str] = []

    def keep(text: str) -> str:
        found.append(text)
        return text

    _Walk(keep, codes(content)).walk(content)
    return iter(found)


def codes(content: Any) -> frozenset[str]:
    """Values in queries that a panel shows as other texts: nobody reads them."""
    found: set[str] = set()
    for panel in content["panels"]:
        for override in panel.get("fieldConfig", {}).get("overrides", ()):
            for prop in override["properties"]:
                if prop["id"] == "mappings":
                    found |= {value for one in prop["value"] for value in one["options"]}
    return frozenset(found)


def english(text: str) -> str:
    if text in TABLE:
        return TABLE[text]
    if text in NEUTRAL or not _LETTERS.search(text):
        return text
    raise UntranslatedError(text)


class _Walk:
    """Goes through a dashboard's JSON and changes what people read."""

    def __init__(self, change: Change, kept: frozenset[str]) -> None:
        self._change = change
        self._kept = kept

    def walk(self, value: Any, key: str = "") -> Any:
        if isinstance(value, list):
            return [self.walk(one, key) for one in value]
        if isinstance(value, str):
            return self._text(value, key)
        if not isinstance(value, dict):
            return value
        made = {name: self.walk(one, name) for name, one in value.items()}
        kind = value.get("id")
        if kind == "byName":
            made["options"] = self._change(value["options"])
        elif kind == "byRegexp":
            made["options"] = re.sub(r"\w{2,}", lambda one: self._change(one[0]), value["options"])
        elif kind in _PROPERTIES:
            made["value"] = self._change(value["value"])
        elif "iconColor" in value:
            made["name"] = self._change(value["name"])
        elif value.get("type") == "custom" and "query" in value:
            made["query"] = self._choices(value["query"])
        return made

    def _text(self, value: str, key: str) -> str:
        if key in _QUERIES:
            return _QUOTED.sub(self._quoted, value)
        return self._change(value) if key in _TEXTS else value

    def _quoted(self, match: re.Match[str]) -> str:
        quote, text = match[0][0], match[0][1:-1]
        kept = quote == "'" and text in self._kept
        return quote + (text if kept else self._change(text)) + quote

    def _choices(self, query: str) -> str:
        """A custom variable's `name : value, …`."""
        parts = [part.split(" : ", 1) for part in query.split(", ")]
        return ", ".join(" : ".join((self._change(part[0]), *part[1:])) for part in parts)
