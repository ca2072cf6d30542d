"""The whole against a real Grafana, where `GRAFANA_URL` names one.

Bring one up with `sudo agent start` (or the compose file) and run

    GRAFANA_URL=http://127.0.0.1:3000 GRAFANA_PASSWORD=admin python -m pytest -m grafana tests/unit

Every panel's query goes through Grafana's own API to the plugin; with `GRAFANA_DATABASE`, the file
that this Grafana reads, the answers are compared with the rows.
"""

from __future__ import annotations

import base64
import json
import os
import sqlite3
import time
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.unit.grafana import plugin
from tests.unit.grafana.plugin import Panel, View

URL = os.environ.get("GRAFANA_URL", "").rstrip("/")
NEEDS = (
    "needs a real Grafana: set GRAFANA_URL (and GRAFANA_USER, GRAFANA_PASSWORD where they are not "
    "admin) to one that this project's compose file brought up"
)

pytestmark = [pytest.mark.grafana, pytest.mark.skipif(not URL, reason=NEEDS)]

PANELS = list(plugin.panels())
HOUR_MS = 3_600_000


def call(path: str, body: object = None) -> Any:
    user = os.environ.get("GRAFANA_USER", "admin")
    password = os.environ.get("GRAFANA_PASSWORD", "admin")
    token = base64.b64encode(f"{user}:{password}".encode()).decode()
    request = urllib.request.Request(
        URL + path,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Basic {token}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        pytest.fail(f"{path}: {error.code} {error.read().decode(errors='replace')[:500]}")


def ask(sql: str, view: View, interval: int, kind: str, times: list[str]) -> list[dict[str, Any]]:
    text = view.expand(sql, interval)
    query = {
        "refId": "A",
        "datasource": {"type": "frser-sqlite-datasource", "uid": "so1-sqlite"},
        "queryType": kind,
        "queryText": text,
        "rawQueryText": text,
        "timeColumns": times,
        "intervalMs": interval,
    }
    body = {"from": str(view.from_ms), "to": str(view.to_ms), "queries": [query]}
    result = call("/api/ds/query", body)["results"]["A"]
    assert "error" not in result, result["error"]
    frames: list[dict[str, Any]] = result["frames"]
    return frames


def last_hour() -> View:
    now_ms = time.time_ns() // 10**6
    return View(now_ms - HOUR_MS, now_ms)


def test_it_is_healthy_and_of_the_pinned_version() -> None:
    health = call("/api/health")

    assert health["database"] == "ok"
    assert health["version"].startswith("13.")


def test_nobody_reads_it_without_a_password() -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{URL}/api/dashboards/uid/so1-sistema", timeout=60)

    assert refused.value.code in (401, 403)


def test_the_data_source_is_provisioned_and_reaches_the_database() -> None:
    found = call("/api/datasources/uid/so1-sqlite")

    assert found["type"] == "frser-sqlite-datasource"
    assert found["readOnly"] is True
    assert call("/api/datasources/uid/so1-sqlite/health")["status"] == "OK"


@pytest.mark.parametrize("name", plugin.NAMES)
def test_a_dashboard_is_there_as_committed(name: str) -> None:
    committed = plugin.load(name)

    found = call(f"/api/dashboards/uid/{committed['uid']}")["dashboard"]

    assert found["title"] == committed["title"]
    assert [panel["title"] for panel in found["panels"]] == [
        panel["title"] for panel in committed["panels"]
    ]


@pytest.mark.parametrize("panel", PANELS, ids=str)
def test_a_panel_gets_its_answer_with_times_of_this_hour(panel: Panel) -> None:
    view = last_hour()

    frames = ask(panel.sql, view, panel.interval(view), panel.query_type, list(panel.time_columns))

    for frame in frames:
        for field, values in zip(frame["schema"]["fields"], frame["data"]["values"], strict=True):
            if field["type"] == "time":
                known = [value for value in values if value is not None]
                # The original's were of the year 1801.
                assert all(view.from_ms - HOUR_MS <= value <= view.to_ms for value in known)


@pytest.mark.parametrize(
    "panel", [panel for panel in PANELS if panel.query_type == "time series"], ids=str
)
def test_what_a_panel_gets_is_what_the_rows_say(panel: Panel) -> None:
    file = os.environ.get("GRAFANA_DATABASE")
    if not file:
        pytest.skip("needs GRAFANA_DATABASE, the file that this Grafana reads")
    view = last_hour()
    interval = panel.interval(view)
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=5)
    try:
        frame = plugin.ask(connection, panel.sql, view, interval)
    finally:
        connection.close()

    frames = ask(panel.sql, view, interval, panel.query_type, list(panel.time_columns))

    found = {}
    for one in frames:
        (_, field), (_, values) = one["schema"]["fields"], one["data"]["values"]
        name = field.get("labels", {}).get("metric", field["name"])
        found[name] = sorted(value for value in values if value is not None)
    expected = {
        name: sorted(value for _, value in points if value is not None)
        for name, points in plugin.series(frame).items()
    }
    # A tick may have come between the two questions: then the answers differ by its points.
    assert found.keys() >= {name for name, values in expected.items() if values}
    for name, values in expected.items():
        if values:
            assert sum(found[name]) == pytest.approx(sum(values), rel=0.1, abs=1)


@pytest.mark.parametrize("name", plugin.NAMES)
def test_marks_and_variables_are_answered(name: str) -> None:
    view = last_hour()
    content = plugin.load(name)

    for mark in content["annotations"]["list"]:
        target = mark["target"]
        ask(target["rawQueryText"], view, 60_000, "table", target["timeColumns"])
    for variable in content["templating"]["list"]:
        if variable["type"] == "query":
            ask(variable["query"], view, 60_000, "table", [])
