"""`/metrics` before real scrapers: what they hold is what the database holds, killed or not."""

from __future__ import annotations

import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import pytest

from tests.fleet.programs import PROJECT, fetch, free_port, program, query, running, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HOSTILE = ['q"uote', "new\nline", "back\\slash", "sur\udcffrogate", "{}=,#", "\x00\r\x1b", "ñ容"]


@dataclass(slots=True)
class Exporter:
    """The process of `tests/fleet/exporter.py`."""

    database: Path
    port: int
    containers: int = 2
    process: subprocess.Popen[str] = field(init=False)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.fleet.exporter", str(self.database)),
                *(str(self.port), str(self.containers)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
        )

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(20)
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                stream.close()

    def tick(self, cpu_s: int, living_s: int = 1, names: list[str] | None = None) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        tick = {"cpu_ns": cpu_s * 10**9, "living_ns": living_s * 10**9, "names": names}
        self.process.stdin.write(json.dumps(tick) + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline().strip() == str(self.port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/metrics"


@pytest.fixture
def exporter(tmp_path: Path) -> Iterator[Exporter]:
    with Exporter(tmp_path / "so1.db", free_port()) as one:
        yield one


def prometheus(stack: ExitStack, where: Path, target: int) -> str:
    port = free_port()
    shutil.copytree(PROJECT / "grafana/prometheus", where)
    config = where / "prometheus.yaml"
    text = config.read_text(encoding="utf-8")
    assert "127.0.0.1:9436" in text
    text = text.replace("127.0.0.1:9436", f"127.0.0.1:{target}").replace("20s", "1s")
    config.write_text(text, encoding="utf-8")
    stack.enter_context(
        running(
            [
                program("prometheus"),
                f"--config.file={config}",
                f"--storage.tsdb.path={where}/data",
                f"--web.listen-address=127.0.0.1:{port}",
                "--enable-feature=exemplar-storage",
            ],
            where / "log",
        )
    )
    return f"http://127.0.0.1:{port}"


def victoria_metrics(stack: ExitStack, where: Path, target: int) -> str:
    port = free_port()
    where.mkdir()
    config = where / "scrape.yaml"
    config.write_text(
        "scrape_configs: [{job_name: so1, scrape_interval: 1s, static_configs: "
        f"[{{targets: ['127.0.0.1:{target}']}}]}}]\n",
        encoding="utf-8",
    )
    stack.enter_context(
        running(
            [
                program("victoria-metrics"),
                f"-promscrape.config={config}",
                f"-storageDataPath={where}/data",
                f"-httpListenAddr=127.0.0.1:{port}",
                "-search.latencyOffset=0s",
            ],
            where / "log",
        )
    )
    return f"http://127.0.0.1:{port}"


def values(base: str, expression: str, label: str = "name") -> dict[str, float]:
    return {one["metric"].get(label, ""): float(one["value"][1]) for one in query(base, expression)}


@pytest.mark.parametrize("start", [prometheus, victoria_metrics], ids=lambda one: one.__name__)
def test_a_real_scraper_holds_what_the_database_holds_and_sees_no_reset_by_a_kill(
    tmp_path: Path, exporter: Exporter, start: Callable[[ExitStack, Path, int], str]
) -> None:
    with ExitStack() as stack:
        base = start(stack, tmp_path / "scraper", exporter.port)
        for second in range(1, 4):
            exporter.tick(cpu_s=10 * second, living_s=second)

        living = 'so1_container_cpu_seconds_total{part="living"}'
        expected = dict.fromkeys(("so1_contenedor_0", "so1_contenedor_1"), 6.0)
        wait_until(lambda: values(base, living) == expected, "the third tick at the scraper")
        with sqlite3.connect(exporter.database) as connection:
            stored = connection.execute("SELECT living_ns FROM container_counters").fetchall()
            held = dict(
                connection.execute(
                    "SELECT container_name, held_mb * 1048576 FROM container_totals"
                    " WHERE timestamp = (SELECT max(timestamp) FROM metrics)"
                )
            )
        assert stored == [(6 * 10**9,)] * 2
        assert values(base, "so1_container_held_bytes") == held
        assert values(base, "container_cpu_usage_seconds_total") == dict.fromkeys(held, 30.0)

        exporter.kill()
        exporter.start()
        exporter.tick(cpu_s=40, living_s=1)

        expected = dict.fromkeys(expected, 7.0)
        wait_until(lambda: values(base, living) == expected, "the tick after the kill")
        assert set(values(base, f"resets({living}[5m])").values()) == {0.0}
        assert set(values(base, "resets(so1_ticks_total[5m])").values()) == {0.0}
        assert values(base, "so1_ticks_total") == {"": 4.0}


@pytest.mark.parametrize("start", [prometheus, victoria_metrics], ids=lambda one: one.__name__)
def test_hostile_names_cost_a_real_scraper_no_series(
    tmp_path: Path, exporter: Exporter, start: Callable[[ExitStack, Path, int], str]
) -> None:
    exporter.tick(cpu_s=1, names=HOSTILE)
    with ExitStack() as stack:
        base = start(stack, tmp_path / "scraper", exporter.port)
        wait_until(
            lambda: len(query(base, "so1_container_held_bytes")) == len(HOSTILE), "all series"
        )
        names = values(base, "so1_container_held_bytes")
        assert {'q"uote', "back\\slash", "{}=,#", "ñ容"} <= set(names)
        assert values(base, "up") == {"": 1.0}


def test_promtool_finds_nothing_to_say_of_the_page(exporter: Exporter) -> None:
    exporter.tick(cpu_s=1, names=[one for one in HOSTILE if "\0" not in one])
    text = fetch(exporter.url)
    done = subprocess.run(
        [program("promtool"), "check", "metrics"], input=text, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_rules_that_are_shipped_say_what_they_are_for(tmp_path: Path) -> None:
    promtool = program("promtool")
    where = shutil.copytree(PROJECT / "grafana/prometheus", tmp_path / "rules")
    shutil.copy(PROJECT / "tests/fleet/rules_test.yaml", where)
    for words in (("check", "config", "prometheus.yaml"), ("test", "rules", "rules_test.yaml")):
        done = subprocess.run([promtool, *words], cwd=where, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_metric_of_a_rule_is_on_the_page(exporter: Exporter) -> None:
    exporter.tick(cpu_s=1)
    text = fetch(exporter.url) or ""
    shown = set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))
    rules = "\n".join(
        path.read_text(encoding="utf-8")
        for path in sorted((PROJECT / "grafana/prometheus").glob("so1-*.yaml"))
    )
    expressions = "\n".join(
        line for line in rules.splitlines() if not line.strip().startswith(("summary", "descr"))
    )
    used = set(re.findall(r"(?<![:\w])(?:so1|container)_\w+", expressions))
    # There once the policy has budgets.
    assert used - shown == {"so1_proof_spent"}


def test_500_containers_are_shown_within_the_bound(tmp_path: Path) -> None:
    with Exporter(tmp_path / "so1.db", free_port(), containers=501) as exporter:
        exporter.tick(cpu_s=1)
        text = fetch(exporter.url) or ""
    lines = text.splitlines()
    assert len([line for line in lines if line.startswith("so1_container_held_bytes{")]) == 500
    assert "so1_metrics_left_out_containers 1.0" in lines
    assert "so1_metrics_left_out_held_bytes 1024.0" in lines
