"""The agent goes without the guessers of encodings, and Docker's client works without them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.sources.engine.fake_engine import FakeEngine

pytestmark = pytest.mark.allow_subprocess
PROJECT = Path(__file__).resolve().parents[3]


def python(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_dockers_client_works_without_the_guessers(tmp_path: Path) -> None:
    fake = FakeEngine(tmp_path)
    fake.answers["/containers/json"] = [{"Names": ["/ñandú"]}]
    done = python(
        "from agent.util import memory_tuning; memory_tuning.leave_out_detectors()\n"
        "import sys, docker\n"
        f"client = docker.APIClient(base_url={fake.host!r}, version='1.41')\n"
        "print(ascii(client.containers()))\n"
        "print([name for name in sys.modules if name in ('chardet', 'charset_normalizer')])\n"
    )
    fake.stop()
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["[{'Names': ['/\\xf1and\\xfa']}]", "[]"]


def test_an_older_requests_that_needs_a_guesser_gets_it(tmp_path: Path) -> None:
    (tmp_path / "requests").mkdir()
    (tmp_path / "requests/__init__.py").write_text("import chardet\n", encoding="utf-8")
    (tmp_path / "chardet.py").write_text("", encoding="utf-8")
    done = python(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from agent.util import memory_tuning; memory_tuning.leave_out_detectors()\n"
        "import requests; print(requests.chardet.__name__)\n"
    )
    assert (done.stdout, done.stderr) == ("chardet\n", "")


def test_the_database_library_loads_no_driver_that_is_installed(tmp_path: Path) -> None:
    for name in ("psycopg", "psycopg2", "pymysql"):
        (tmp_path / f"{name}.py").write_text("print('loaded')\n", encoding="utf-8")
    done = python(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from agent.util import memory_tuning; memory_tuning.leave_out_drivers()\n"
        "import peewee; print(peewee.psycopg, peewee.SqliteDatabase.__name__)\n"
        "from agent.daemon import composition\n"
        "print([name for name in sys.modules if name.startswith(('psycopg', 'pymysql'))])\n"
        "import psycopg\n"
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["None SqliteDatabase", "[]", "loaded"]


def test_a_settled_collector_leaves_a_tick_alone_and_still_finds_cycles() -> None:
    done = python(
        "import gc\n"
        "from agent.util import memory_tuning\n"
        "memory_tuning.settle_collector()\n"
        "runs = lambda: sum(one['collections'] for one in gc.get_stats())\n"
        "before = runs()\n"
        "held = [(number, number) for number in range(2_000)]\n"
        "print(runs() - before)\n"
        "for _ in range(20_000):\n"
        "    ring = []\n"
        "    ring.append(ring)\n"
        "print(gc.get_freeze_count() > 1_000, len(gc.get_objects()) < 20_000)\n"
    )
    assert (done.stdout, done.stderr) == ("0\nTrue True\n", "")
