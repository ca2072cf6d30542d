"""Every text of a dashboard is in the table, and nothing but the words differs in English."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from grafana.build.english import NEUTRAL, TABLE
from grafana.build.language import UntranslatedError, translated, visible
from tests.unit.grafana import plugin
from tests.unit.grafana.make_db import make
from tests.unit.grafana.world import Plan

GRAFANA = Path(__file__).resolve().parents[3] / "grafana"
FILES = {
    "sistema": "{}/monitor-de-sistema.json",
    "contenedores": "{}/monitor-de-contenedores.json",
    "flota": "fleet/{}/monitor-de-flota.json",
}
SPANISH_WORDS = frozenset(
    (
        *("el", "la", "los", "las", "un", "una", "unos", "unas", "de", "del", "que", "y", "por"),
        *("con", "sin", "en", "para", "cada", "su", "sus", "lo", "se", "al", "es", "ni", "como"),
        *("desde", "hasta", "entre", "cuando", "donde", "si", "ya", "procesos", "contenedores"),
    )
)
"""Words that hardly a Spanish sentence is without, and no English one has."""


def load(name: str, language: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GRAFANA / FILES[name].format(language)).read_text("utf-8"))
    return found


SPANISH = {name: load(name, "dashboards") for name in FILES}
ENGLISH = {name: load(name, "dashboards-en") for name in FILES}


@pytest.mark.parametrize("name", FILES)
def test_the_english_dashboard_is_the_spanish_one_translated(name: str) -> None:
    assert translated(SPANISH[name]) == ENGLISH[name]


@pytest.mark.parametrize("name", FILES)
def test_no_spanish_is_left_in_english(name: str) -> None:
    """By letters and words of the language, so that a wrong table is noticed too."""
    for text in visible(ENGLISH[name]):
        assert not re.search(r"[áéíóúñÁÉÍÓÚÑ¿¡«»]", text), text
        words = set(re.findall(r"(?<!\w)[a-z]+(?!\w)", text))
        assert not words & SPANISH_WORDS, text
        assert text not in TABLE or TABLE[text] == text or text in TABLE.values(), text


def test_the_table_has_every_text_and_nothing_else() -> None:
    shown = {text for found in SPANISH.values() for text in visible(found)}

    assert TABLE.keys() - shown == set()
    assert not TABLE.keys() & NEUTRAL
    for found in SPANISH.values():
        translated(found)


def test_a_text_that_the_table_has_not_is_named() -> None:
    with pytest.raises(UntranslatedError, match="Cosa nueva"):
        translated({"panels": [{"title": "Cosa nueva"}]})


@pytest.mark.parametrize("name", FILES)
def test_panels_variables_and_places_are_the_same(name: str) -> None:
    def shape(content: dict[str, Any]) -> Any:
        return (
            content["uid"],
            [one["name"] for one in content["templating"]["list"]],
            [
                (one["id"], one["type"], one["gridPos"], len(one.get("targets", ())))
                for one in content["panels"]
            ],
        )

    assert shape(ENGLISH[name]) == shape(SPANISH[name])


@pytest.mark.parametrize("name", FILES)
def test_what_a_panel_looks_for_is_what_its_query_gives(name: str) -> None:
    """An override by a name that no column or series has would do nothing, silently."""
    for content in (SPANISH[name], ENGLISH[name]):
        for panel in content["panels"]:
            texts = json.dumps(panel.get("targets", ()), ensure_ascii=False)
            for override in panel.get("fieldConfig", {}).get("overrides", ()):
                wanted = override["matcher"]["options"]
                if override["matcher"]["id"] == "byName" and wanted not in (
                    "time",
                    "valor",
                    "(otros)",
                    "(others)",
                ):
                    quoted = (f'\\"{wanted}\\"', f"'{wanted}'")
                    assert any(one in texts for one in quoted), (panel["title"], wanted)
                for one in override["properties"]:
                    if one["id"] == "mappings":
                        known = {key for mapping in one["value"] for key in mapping["options"]}
                        assert known


@pytest.mark.parametrize("name", ["sistema", "contenedores"])
def test_a_query_gives_the_same_rows_in_both_languages(name: str, tmp_path: Path) -> None:
    database = tmp_path / "metrics.db"
    make(database, Plan(hours=0.3, processes=20))
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    (to_ms,) = connection.execute("SELECT max(timestamp) FROM metrics").fetchone()
    view = plugin.View(to_ms - 600_000, to_ms)
    for spanish, english in zip(SPANISH[name]["panels"], ENGLISH[name]["panels"], strict=True):
        if "targets" not in spanish:
            continue
        found = [
            plugin.ask(connection, one["targets"][0]["rawQueryText"], view, 20_000)
            for one in (spanish, english)
        ]
        first, second = (list(map(_in_english, values)) for values in _table(found))
        assert first == second, spanish["title"]
    connection.close()


def _table(frames: list[plugin.Frame]) -> tuple[list[Any], list[Any]]:
    first, second = (
        [*one.columns, *(value for row in one.rows for value in row)] for one in frames
    )
    return first, second


def _in_english(value: Any) -> Any:
    return TABLE.get(value, value) if isinstance(value, str) else value
