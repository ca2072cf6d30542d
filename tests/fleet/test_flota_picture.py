"""«Monitor de Flota» draws, where a program that draws dashboards is at hand.

It reads SQLite only, so the centre's answers are put into one, a table a panel. `SO1_PICTURES`
names a directory that keeps what was drawn.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.fleet.flota_oracle import Seen
from tests.fleet.flota_world import HOUR, Fleet
from tests.fleet.test_flota import expand, fleet, load, reader
from tests.unit.grafana.plugin import interval_ms

if TYPE_CHECKING:
    from pathlib import Path

    import psycopg

VIEWER = os.environ.get("SO1_DASHBOARD_VIEWER", "")
SQLITE = {"type": "frser-sqlite-datasource", "uid": "so1-sqlite"}

__all__ = ["fleet", "reader"]

pytestmark = pytest.mark.skipif(
    not VIEWER, reason="needs SO1_DASHBOARD_VIEWER, a program that draws dashboards"
)


@pytest.mark.parametrize("language", ["dashboards", "dashboards-en"])
def test_every_panel_draws(
    language: str, reader: psycopg.Connection[Any], fleet: Fleet, tmp_path: Path
) -> None:
    database, picture = tmp_path / "answers.db", tmp_path / "picture.png"
    content = load(language)
    with sqlite3.connect(database) as into:
        into.execute("CREATE TABLE now (timestamp)")
        into.execute("INSERT INTO now VALUES (?)", (fleet.now_ms,))
        for panel in content["panels"]:
            if panel["type"] != "row":
                _copy(panel, reader, into, fleet)
        for variable in content["templating"]["list"]:
            if variable["type"] == "query":
                found = reader.execute(variable["query"]).fetchall()
                into.execute("CREATE TABLE hosts (__text, __value)")
                into.executemany("INSERT INTO hosts VALUES (?, ?)", found)
                variable["query"] = "SELECT * FROM hosts"
                variable["datasource"] = SQLITE
    dashboard = tmp_path / "dashboard.json"
    text = json.dumps(content).replace("${__field.name}", "${__field.labels.metric}")
    dashboard.write_text(text)
    done = subprocess.run(
        [VIEWER, str(dashboard), str(database), "--now", "data", "--out", str(picture)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    if kept := os.environ.get("SO1_PICTURES"):
        shutil.copy(picture, f"{kept}/flota-{language}.png")


def _copy(
    panel: dict[str, Any],
    reader: psycopg.Connection[Any],
    into: sqlite3.Connection,
    fleet: Fleet,
) -> None:
    span = 6 * HOUR
    interval = interval_ms(span, panel.get("maxDataPoints") or 1500)
    seen = Seen(fleet, fleet.now_ms - span, fleet.now_ms, interval)
    (target,) = panel["targets"]
    cursor = reader.execute(expand(target["rawSql"], seen))
    names = [one.name for one in cursor.description or ()]
    columns = ", ".join(f'"{name}"' for name in names)
    into.execute(f"CREATE TABLE p{panel['id']} ({columns})")
    into.executemany(
        f"INSERT INTO p{panel['id']} VALUES ({', '.join('?' * len(names))})",
        [[getattr(value, "timestamp", lambda v=value: v)() for value in row] for row in cursor],
    )
    times = [name for name in names if name == "time" or name in ("La última", "The last")]
    sql = f"SELECT * FROM p{panel['id']}"
    panel["datasource"] = SQLITE
    panel["targets"] = [
        {
            "datasource": SQLITE,
            "refId": "A",
            "rawQueryText": sql,
            "queryText": sql,
            "queryType": target["format"].replace("_", " "),
            "timeColumns": times,
        }
    ]
