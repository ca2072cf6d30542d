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


def test_dockers_client_works_without_tls_and_its_objects(tmp_path: Path) -> None:
    fake = FakeEngine(tmp_path)
    fake.answers["/containers/json"] = [{"Names": ["/web"]}]
    done = python(
        "from agent.util import memory_tuning\n"
        "memory_tuning.leave_out_tls(); memory_tuning.leave_out_objects()\n"
        "import sys, docker, hashlib\n"
        f"client = docker.APIClient(base_url={fake.host!r}, version='1.41')\n"
        "print(client.containers())\n"
        "print([name for name in ('ssl', '_ssl', '_hashlib', 'docker.client') "
        "if name in sys.modules])\n"
        "import pathlib; print('libcrypto' in pathlib.Path('/proc/self/maps').read_text())\n"
        "print(hashlib.sha256(b'').hexdigest()[:8], hashlib.new('md5', b'').hexdigest()[:8])\n"
        "import ssl, docker.client\n"
        "print(ssl.create_default_context().verify_mode.name)\n"
        "print(docker.client.DockerClient.__name__)\n"
    )
    fake.stop()
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "[{'Names': ['/web']}]",
        "[]",
        "False",
        # Of nothing, by RFC 6234 and RFC 1321.
        "e3b0c442 d41d8cd9",
        "CERT_REQUIRED",
        "DockerClient",
    ]


def test_where_python_has_no_hashes_of_its_own_openssls_stay() -> None:
    done = python(
        "import sys; sys.modules['_md5'] = None\n"
        "import importlib.util as util; found = util.find_spec\n"
        "util.find_spec = lambda name: None if name == '_md5' else found(name)\n"
        "from agent.util import memory_tuning; memory_tuning.leave_out_tls()\n"
        "import hashlib, http.client\n"
        "print(hashlib.md5(b'').hexdigest()[:8], hasattr(http.client, 'HTTPSConnection'))\n"
    )
    assert (done.stdout, done.stderr) == ("d41d8cd9 True\n", "")


def test_a_started_agent_has_neither_the_command_lines_library_nor_tls(tmp_path: Path) -> None:
    """Its words are parsed, all is imported, and it ends where it may not run."""
    done = python(
        "import sys, os; os.geteuid = lambda: 1000\n"
        "from agent.__main__ import _status\n"
        f"sys.argv = ['agent', 'start', '--once', '--database', {str(tmp_path / 'x.db')!r}]\n"
        "print(_status())\n"
        "print([name for name in ('typer', 'ssl', 'playhouse.migrations', 'statistics', "
        "'agent.cli.app') if name in sys.modules])\n"
        "print('agent.daemon.composition' in sys.modules)\n"
    )
    assert "sudo" in done.stderr
    assert done.stdout.splitlines()[1:] == ["[]", "True"]


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
