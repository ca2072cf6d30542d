"""The queries in the documentation run, and find something where there is something to find."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from tests.unit.grafana.make_db import make
from tests.unit.grafana.world import Plan

PAGE = Path(__file__).resolve().parents[3] / "docs" / "grafana.md"
QUERIES = re.findall(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("docs") / "metrics.db"
    make(file, Plan(hours=1.2, processes=40))
    return file


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.split("FROM")[0][:40])
def test_a_documented_query_gives_rows(query: str, history: Path) -> None:
    connection = sqlite3.connect(f"file:{history}?mode=ro", uri=True)
    try:
        assert connection.execute(query).fetchall()
    finally:
        connection.close()


def test_the_documented_queries_are_found_and_pictures_are_there() -> None:
    assert len(QUERIES) >= 6
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", PAGE.read_text(encoding="utf-8"))
    assert len(pictures) == 2
    for picture in pictures:
        assert (PAGE.parent / picture).read_bytes().startswith(b"\x89PNG")
