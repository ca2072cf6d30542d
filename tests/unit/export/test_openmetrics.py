"""The page's text: every figure under its name, whatever a workload is called."""

from __future__ import annotations

from dataclasses import replace

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as om_families
from prometheus_client.parser import text_string_to_metric_families as families

from agent.analysis.counters import ContainerCounters
from agent.export.figures import Budget, ExportedFigures
from agent.export.openmetrics import render
from agent.model.attribution import AttributionCounts
from agent.model.container import ContainerCgroup
from agent.model.host import HostFigures
from tests.unit.export.test_figures import of
from tests.unit.store.builders import ID_A, KEY_A, a_container, a_tick, totals

HOSTILE = [
    'q"uote',
    "new\nline",
    "back\\slash",
    "sur\udcffrogate",
    "{}=,",
    "\x00\r\x1b[2J",
    "ñ 容器",
]
CGROUP = ContainerCgroup(
    KEY_A,
    f"/docker/{ID_A}",
    frozenset({1}),
    cpu_ns=1_500_000_000,
    oom_kills=2,
    anon_kb=10,
    file_kb=20,
    limit_kb=30,
)


def shown(**changed: object) -> ExportedFigures:
    one = replace(a_container(), started_ns=1_700_000_000 * 10**9)
    record = a_tick(
        totals=(totals(one),),
        cgroups={KEY_A: CGROUP},
        checks=AttributionCounts(agree=4, conflict=1, moved=2),
    )
    figures = of(record)
    counters = ContainerCounters(2_000_000_000, 500_000_000, -250_000_000, 7, 6)
    containers = tuple(replace(one, counters=counters) for one in figures.containers)
    return replace(figures, containers=containers, **changed)  # type: ignore[arg-type]


def samples(figures: ExportedFigures) -> dict[tuple[str, ...], float]:
    """By name and the labels that are not the container's own."""
    text = render(figures, as_openmetrics=False)[1].decode("utf-8")
    found = {}
    for family in families(text):
        for sample in family.samples:
            own = [
                value
                for key, value in sorted(sample.labels.items())
                if key not in ("id", "name", "image", "engine")
            ]
            key = (sample.name, *own)
            assert key not in found, key
            found[key] = sample.value
    return found


def test_every_figure_of_a_container_has_its_name_and_unit() -> None:
    found = samples(shown())
    assert found["container_cpu_usage_seconds_total", "total"] == 1.5
    assert found["container_memory_rss",] == 10 * 1024
    assert found["container_memory_cache",] == 20 * 1024
    assert found["container_spec_memory_limit_bytes",] == 30 * 1024
    assert found["container_oom_events_total",] == 2
    assert found["container_start_time_seconds",] == 1_700_000_000
    assert found["container_last_seen",] == 1_764_000_000
    assert found["so1_container_held_bytes",] == 3072 * 1024
    assert found["so1_container_rss_bytes",] == 2048 * 1024
    assert found["so1_container_cache_bytes",] == 512 * 1024
    assert found["so1_container_processes",] == 1
    assert found["so1_container_governed",] == 1
    assert found["so1_container_info", "cgroup2", "low"] == 1
    assert found["so1_container_cpu_seconds_total", "living"] == 2
    assert found["so1_container_cpu_seconds_total", "short_lived"] == 0.5
    assert found["so1_container_cpu_unexplained_seconds",] == -0.25
    assert found["so1_container_starts_total",] == 7
    assert found["so1_container_exits_total",] == 6


def test_every_figure_of_the_host_has_its_name_and_unit() -> None:
    counters = {
        ("ticks",): 9,
        ("bpf_events_lost",): 3,
        ("oom_kills",): 1,
        ("oom_victims", "limit"): 2,
        ("oom_victims", "host"): 1,
        ("removals", "original", "exited", "removed"): 5,
    }
    budgets = (Budget("agreement", 0.25, spent=False), Budget("loss", 1.5, spent=True))
    found = samples(shown(host_counters=counters, budgets=budgets, armed=False))
    expected = {
        ("so1_build_info", "modules", "1.2.3"): 1,
        ("so1_last_tick_timestamp_seconds",): 1_764_000_000,
        ("so1_tick_interval_seconds",): 20,
        ("so1_tick_duration_seconds",): 0.045,
        ("so1_ticks_total",): 9,
        ("so1_store_ok",): 1,
        ("so1_metrics_left_out_containers",): 0,
        ("so1_metrics_left_out_held_bytes",): 0,
        ("so1_host_memory_total_bytes",): 8_000_000 * 1024,
        ("so1_host_memory_available_bytes",): 6_000_000 * 1024,
        ("so1_host_memory_free_bytes",): 3_000_000 * 1024,
        ("so1_host_cpu_usage_ratio",): 0.125,
        ("so1_host_cpus",): 4,
        ("so1_host_load1",): 0.75,
        ("so1_host_pressure_ratio", "memory"): 0.001,
        ("so1_host_processes",): 3,
        ("so1_oom_kills_total",): 1,
        ("so1_oom_victims_total", "limit"): 2,
        ("so1_oom_victims_total", "host"): 1,
        ("so1_command_processes", "proc-1"): 1,
        ("so1_command_rss_bytes", "proc-1"): 4096 * 1024,
        ("so1_command_cpu_usage_ratio", "proc-1"): 0.005,
        ("so1_attribution_processes", "agree"): 4,
        ("so1_attribution_processes", "conflict"): 1,
        ("so1_attribution_processes", "unverified"): 0,
        ("so1_attribution_unusual_processes", "moved"): 2,
        ("so1_bpf_events_lost_total",): 3,
        ("so1_policy_armed",): 0,
        ("so1_removals_total", "removed", "exited", "original"): 5,
        ("so1_proof_spent", "loss"): 1,
        ("so1_proof_used_ratio", "agreement"): 0.25,
        ("so1_containers", "running"): 1,
    }
    assert {key: pytest.approx(found[key]) for key in expected} == expected


def test_a_figure_that_is_not_known_has_no_series() -> None:
    record = a_tick(
        totals=(replace(totals(), cache_kb=None),),
        cgroups={},
        container_count=None,
        host=HostFigures(0.0, 1, 0.0, None, None),
    )
    names = {key[0] for key in samples(of(record))}
    assert names.isdisjoint(
        {
            *("container_cpu_usage_seconds_total", "container_oom_events_total"),
            *("container_start_time_seconds", "container_memory_rss", "container_memory_cache"),
            *("so1_container_cache_bytes", "so1_container_cpu_seconds_total", "so1_containers"),
            *("so1_container_starts_total", "so1_host_pressure_ratio", "so1_proof_spent"),
        }
    )


def test_equal_names_of_two_engines_are_two_series() -> None:
    twin = replace(a_container("web", ID_A), engine="podman")
    record = a_tick(totals=(totals(a_container("web", ID_A)), totals(twin, held_kb=9)))
    text = render(of(record), as_openmetrics=False)[1].decode("utf-8")
    named = [one for family in families(text) for one in family.samples if "name" in one.labels]
    held = {
        (one.labels["engine"], one.labels["name"]): one.value
        for one in named
        if one.name == "so1_container_held_bytes"
    }

    assert held == {("docker", "web"): 3072 * 1024, ("podman", "web"): 9 * 1024}
    assert {one.labels.get("engine") for one in named} == {"docker", "podman"}
    assert {
        one.labels["engine"]: one.value
        for family in families(text)
        for one in family.samples
        if one.name == "so1_containers"
    } == {"docker": 1, "podman": 1}


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
@pytest.mark.parametrize("as_openmetrics", [False, True])
def test_a_hostile_name_is_one_label_and_loses_nothing_else(
    name: str, as_openmetrics: bool
) -> None:
    record = a_tick(totals=(totals(replace(a_container(name), image=name)),))
    text = render(of(record), as_openmetrics)[1].decode("utf-8")
    parse = om_families if as_openmetrics else families
    found = [
        sample.labels
        for family in parse(text)
        for sample in family.samples
        if sample.name == "so1_container_held_bytes"
    ]
    plain = render(of(a_tick()), as_openmetrics)[1].decode("utf-8")
    assert len(found) == 1
    assert found[0]["name"] == found[0]["image"]
    assert len(text.splitlines()) == len(plain.splitlines())


def test_openmetrics_names_the_decision_and_no_moment_of_creation() -> None:
    key = ("removals", "original", "exited", "removed")
    figures = shown(host_counters={key: 5}, exemplars={key: "abc123"})
    content_type, text = render(figures, as_openmetrics=True)
    assert content_type.startswith("application/openmetrics-text")
    lines = text.decode("utf-8").splitlines()
    (removals,) = [line for line in lines if line.startswith("so1_removals_total{")]
    assert '# {decision="abc123"} 1.0' in removals
    assert not [line for line in lines if "_created" in line]
    assert lines[-1] == "# EOF"


def test_the_text_format_has_no_exemplar() -> None:
    key = ("removals", "original", "exited", "removed")
    figures = shown(host_counters={key: 5}, exemplars={key: "abc123"})
    content_type, text = render(figures, as_openmetrics=False)
    assert content_type.startswith("text/plain; version=0.0.4")
    assert b"abc123" not in text
