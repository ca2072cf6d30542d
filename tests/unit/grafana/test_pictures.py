"""Every panel draws, where a program that draws dashboards is at hand.

`SO1_DASHBOARD_VIEWER` names it: `VIEWER DASHBOARD.json DATABASE --now data --out FILE.png` prints a
line a panel and ends with a status other than 0 where a query fails or a panel is empty.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.unit.grafana import plugin
from tests.unit.grafana.make_db import make
from tests.unit.grafana.world import Plan

VIEWER = os.environ.get("SO1_DASHBOARD_VIEWER", "")

pytestmark = [
    pytest.mark.allow_subprocess,
    pytest.mark.skipif(
        not VIEWER, reason="needs SO1_DASHBOARD_VIEWER, a program that draws dashboards"
    ),
]


@pytest.mark.parametrize("name", plugin.NAMES)
def test_every_panel_draws(name: str, tmp_path: Path) -> None:
    database, picture = tmp_path / "metrics.db", tmp_path / "picture.png"
    make(database, Plan(hours=1.2))

    dashboard = plugin.DASHBOARDS / f"{name}.json"
    done = subprocess.run(
        [VIEWER, str(dashboard), str(database), "--now", "data", "--out", str(picture)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    drawn = [line for line in done.stdout.splitlines() if line.startswith("ok    [")]
    assert len(drawn) == len(plugin.raw_panels(name))
    assert picture.read_bytes().startswith(b"\x89PNG")
