"""A container of Kubernetes is `namespace/pod/container` wherever it is shown.

From a runtime's answer through the history to what a person, a program and a dashboard read: two
pods have a container of one name, which without the pod would be one line.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.analysis.counters import LastingCounters
from agent.cli.views import report, top, trace
from agent.cli.views import report_figures as reports
from agent.config import PolicySettings
from agent.engine_api.cri import CriHelper
from agent.export.figures import figures_of
from agent.export.openmetrics import render
from agent.model.attribution import Basis, Verified
from agent.model.container import Container, Tier
from agent.model.record import ContainerProcessUsage
from agent.sources.engine.cri import CriEngine
from agent.store.queries import History
from tests.unit.engine_api.fake_helper import FakeHelpers, answers
from tests.unit.grafana import plugin
from tests.unit.grafana.plugin import View
from tests.unit.sources.engine.fake_engine import Clock
from tests.unit.store.builders import SECOND_NS, START_NS, a_tick, open_store, totals

MINUTE_MS = 60_000
LONG = "x" * 253
"""The longest name that a pod can have."""
PODS = {"a" * 64: ("default", "shop-1"), "b" * 64: ("kube-system", LONG)}
WANTED = {
    f"{namespace}/{pod}/{name}"
    for namespace, pod in PODS.values()
    for name in ("till", "(sandbox)")
}


def answer() -> Iterator[dict[str, Any]]:
    for number, (sandbox, (namespace, pod)) in enumerate(PODS.items()):
        about = {"id": sandbox, "name": pod, "namespace": namespace, "uid": pod, "running": True}
        yield {"sandbox": about}
        labels = {
            "io.kubernetes.container.name": "till",
            "io.kubernetes.pod.name": pod,
            "io.kubernetes.pod.namespace": namespace,
        }
        state = {"state": "running", "running": True, "labels": labels, "image": "shop:1"}
        yield {"container": {"id": f"{number}" * 64, "sandbox": sandbox, "name": "till", **state}}


@pytest.fixture(scope="module")
def containers() -> tuple[Container, ...]:
    helper = CriHelper("unix:///c.sock", "/opt/so1/cri", Clock(), FakeHelpers(answers(*answer())))
    engine = CriEngine(helper, Clock(), "k8s")
    try:
        return engine.list().containers
    finally:
        engine.close()


def the_tick(containers: tuple[Container, ...], wall_ns: int = START_NS) -> Any:
    return a_tick(
        wall_ns,
        totals=tuple(replace(totals(one), tier=Tier.NONE, governed=False) for one in containers),
        container_processes=tuple(
            ContainerProcessUsage(
                one.key, one.name, pid, "sleep", 1, 1.0, Verified.UNVERIFIED, Basis.CGROUP
            )
            for pid, one in enumerate(containers, 10)
        ),
        container_count=len(containers),
    )


@pytest.fixture(scope="module")
def file(containers: tuple[Container, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kubernetes") / "metrics.db"
    store = open_store(path)
    for number in range(3):
        store.write_tick(the_tick(containers, START_NS + number * 20 * SECOND_NS))
    store.close()
    return path


def test_the_rows_have_it_and_the_pod_stays_a_column_of_its_own(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        for table in ("container_totals", "container_stats"):
            found = connection.execute(f"SELECT container_name FROM {table}").fetchall()
            assert {name for (name,) in found} == WANTED
        pods = connection.execute("SELECT DISTINCT pod FROM container_totals").fetchall()
    assert {pod for (pod,) in pods} == {"/".join(one) for one in PODS.values()}


def test_top_and_report_show_it(file: Path) -> None:
    now_ms = (START_NS + 60 * SECOND_NS) // 10**6
    last = top.read(file, PolicySettings())
    assert last is not None
    shown = top.plain(last, top.Choice(), now_ms)
    with History.open(file) as history:
        built = reports.build(history, 3_600_000, now_ms)
    assert built is not None
    told = report.plain(built)
    for name in WANTED:
        assert shown.split().count(name) == 1
        # At the last tick, by what was held, and by CPU.
        assert told.split().count(name) == 3


def test_each_panel_that_names_containers_names_each_pods(file: Path) -> None:
    begin = START_NS // 10**6
    view = View(begin - MINUTE_MS, begin + MINUTE_MS)
    asked = 0
    with closing(sqlite3.connect(file)) as connection:
        for panel in plugin.panels():
            if "container_name" not in panel.sql:
                continue
            shown = json.dumps(plugin.ask(connection, panel.sql, view, panel.interval(view)).rows)
            if "till" in shown:
                asked += 1
                assert {name for name in WANTED if f'"{name}"' in shown} >= {
                    name for name in WANTED if name.endswith("till")
                }, panel
    assert asked >= 4


def test_a_metrics_name_keeps_both_ends_of_what_is_too_long_for_a_label(
    containers: tuple[Container, ...],
) -> None:
    figures = figures_of(
        the_tick(containers),
        LastingCounters(),
        version="1",
        interval_s=20.0,
        max_containers=500,
        max_commands=20,
        exemplars={},
        armed=True,
        stored=True,
    )
    names = {one.name for one in figures.containers}
    assert len(names) == len(WANTED)
    assert "default/shop-1/till" in names
    (long,) = (name for name in names if len(name) > 100 and name.endswith("/till"))
    assert long.startswith("kube-system/xxx")
    assert len(long) == 255
    text = render(figures, as_openmetrics=False)[1].decode()
    assert 'name="default/shop-1/till"' in text
    assert 'name="default/shop-1/(sandbox)"' in text


def test_a_line_of_the_trace_has_both_ends_and_its_json_all(
    containers: tuple[Container, ...],
) -> None:
    names = trace.Names()
    names.learn_names({one.id: one.name for one in containers})
    lines = set()
    for one in containers:
        names.learn_cgroup(7, 1, f"cri-containerd-{one.id}.scope")
        found, name = names.of(7)
        assert (found, name) == (one.id, one.name)
        assert trace.Filter(frozenset({one.name})).passes(event_of(one))
        lines.add(trace.line(event_of(one)))
    assert len(lines) == len(WANTED)


def event_of(one: Container) -> trace.TraceEvent:
    return trace.TraceEvent(
        time_ns=10**9, event=trace.Kind.EXEC, container=one.name, container_id=one.id
    )
