"""One tick's figures as text: Prometheus' own format, or OpenMetrics where that is asked for.

Pure, and the one place that knows `prometheus_client`. cAdvisor's names stand where the meaning is
cAdvisor's; everything else is `so1_…`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.samples import Exemplar

from agent.analysis import counters as names
from agent.export.figures import ContainerMetrics, ExportedFigures, label

_ID = ("id", "name", "image", "engine")


def render(figures: ExportedFigures, as_openmetrics: bool) -> tuple[str, bytes]:
    """All of `figures`, with the content type: OpenMetrics, or Prometheus' text format."""
    page = _RenderedText(figures)
    if as_openmetrics:
        text = openmetrics.generate_latest(page)  # type: ignore[no-untyped-call]
        return str(openmetrics.CONTENT_TYPE_LATEST), bytes(text)
    return str(CONTENT_TYPE_PLAIN_0_0_4), bytes(generate_latest(page))


class _RenderedText:
    """What prometheus_client takes for a registry."""

    def __init__(self, figures: ExportedFigures) -> None:
        self._figures = figures

    def collect(self) -> Iterable[Metric]:
        yield from _agent(self._figures)
        yield from _host(self._figures)
        yield from _attribution(self._figures)
        yield from _policy(self._figures)
        yield from _containers(self._figures)


def _gauge(name: str, text: str, value: float | None) -> Iterator[Metric]:
    if value is not None:
        yield GaugeMetricFamily(name, text, value=value)


def _gauges(
    name: str, text: str, labels: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], float]]
) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values:
        family.add_metric(key, value)
    return family


def _agent(figures: ExportedFigures) -> Iterator[Metric]:
    yield _gauges(
        "so1_build_info",
        "The agent's version and where it reads processes.",
        ("version", "source"),
        [((figures.version, figures.source), 1)],
    )
    yield from _gauge(
        "so1_last_tick_timestamp_seconds",
        "Wall clock of the tick that all other figures are of.",
        figures.tick_s,
    )
    yield from _gauge(
        "so1_tick_interval_seconds", "Time from tick to tick as it is set.", figures.interval_s
    )
    yield from _gauge(
        "so1_tick_duration_seconds",
        "How long the tick took until it was stored.",
        figures.tick_duration_s,
    )
    yield CounterMetricFamily(
        "so1_ticks", "Ticks that were stored.", value=figures.host_counters.get(names.TICKS, 0)
    )
    yield from _gauge(
        "so1_store_ok",
        "1 while the database takes ticks; counters stand still while it does not.",
        figures.stored,
    )
    yield from _gauge(
        "so1_metrics_left_out_containers",
        "Running containers beyond metrics.containers: the smallest, without series of their own.",
        figures.left_out,
    )
    yield from _gauge(
        "so1_metrics_left_out_held_bytes",
        "Memory held by the containers that are left out.",
        figures.left_out_held_bytes,
    )


def _host(figures: ExportedFigures) -> Iterator[Metric]:
    memory, host = figures.memory, figures.host
    yield from _gauge("so1_host_memory_total_bytes", "The host's memory.", memory.total_kb * 1024)
    yield from _gauge(
        "so1_host_memory_available_bytes",
        "What programs can still get without swapping.",
        memory.available_kb * 1024,
    )
    yield from _gauge(
        "so1_host_memory_free_bytes", "Memory without any use.", memory.free_kb * 1024
    )
    yield from _gauge(
        "so1_host_cpu_usage_ratio",
        "CPU used since the tick before, of all CPUs together.",
        host.cpu_usage_percent / 100,
    )
    yield from _gauge("so1_host_cpus", "CPUs of the host.", host.cpu_count)
    yield from _gauge("so1_host_load1", "Load average of a minute.", host.load1)
    pressure = (("memory", host.psi_memory_some_avg10), ("cpu", host.psi_cpu_some_avg10))
    yield _gauges(
        "so1_host_pressure_ratio",
        "Share of the last 10 s in which some task waited for the resource.",
        ("resource",),
        [((resource,), value / 100) for resource, value in pressure if value is not None],
    )
    yield from _gauge("so1_host_processes", "Processes that the tick read.", figures.processes)
    yield CounterMetricFamily(
        "so1_oom_kills",
        "OOM kills that ticks saw in containers.",
        value=figures.host_counters.get(names.OOM_KILLS, 0),
    )
    victims = CounterMetricFamily(
        "so1_oom_victims",
        "Processes that the kernel killed for lack of memory, on the whole host.",
        labels=("cause",),
    )
    for key, value in sorted(figures.host_counters.items()):
        if key[0] == names.OOM_VICTIMS:
            victims.add_metric(key[1:], value)
    yield victims
    commands = [(one, (one.command,)) for one in figures.commands]
    yield _gauges(
        "so1_command_processes",
        "Processes of a name; the name is the workload's own word.",
        ("command",),
        [(key, one.processes) for one, key in commands],
    )
    yield _gauges(
        "so1_command_rss_bytes",
        "Resident memory of the processes of a name; pages that they share count for each.",
        ("command",),
        [(key, one.rss_bytes) for one, key in commands],
    )
    yield _gauges(
        "so1_command_cpu_usage_ratio",
        "CPU of the processes of a name since the tick before; 1 is one CPU.",
        ("command",),
        [(key, one.cpu_ratio) for one, key in commands],
    )


def _attribution(figures: ExportedFigures) -> Iterator[Metric]:
    checks = figures.checks
    verdicts = ("agree", "conflict", "unverified")
    yield _gauges(
        "so1_attribution_processes",
        "Processes that are containers', by whether the witnesses agree.",
        ("verdict",),
        [((verdict,), getattr(checks, verdict)) for verdict in verdicts],
    )
    yield _gauges(
        "so1_attribution_unusual_processes",
        "Processes whose cgroup and namespaces do not name the same container.",
        ("basis",),
        [((basis,), getattr(checks, basis)) for basis in ("added", "strayed", "moved")],
    )
    yield CounterMetricFamily(
        "so1_bpf_events_lost",
        "Records and events that the probes could not keep.",
        value=figures.host_counters.get(names.EVENTS_LOST, 0),
    )


def _policy(figures: ExportedFigures) -> Iterator[Metric]:
    yield from _gauge(
        "so1_policy_armed",
        "1 while removals are carried out, 0 while they are only recorded.",
        figures.armed,
    )
    yield _decisions(
        figures,
        names.REMOVALS,
        "Removals that ended, by the rule that decided them, its reason, and how they ended.",
        ("rule", "reason", "outcome"),
    )
    yield _decisions(
        figures,
        names.ACTIONS,
        "What rules did other than remove: stops, restarts, pauses and notifications.",
        ("rule", "action", "outcome"),
    )
    if figures.budgets:
        yield _gauges(
            "so1_proof_spent",
            "1 where a budget of trust is spent: removals are notified, not carried out.",
            ("budget",),
            [((label(one.name),), one.spent) for one in figures.budgets],
        )
        yield _gauges(
            "so1_proof_used_ratio",
            "How much of a budget of trust is used.",
            ("budget",),
            [((label(one.name),), one.used_ratio) for one in figures.budgets],
        )


def _decisions(
    figures: ExportedFigures, name: str, help_text: str, labels: tuple[str, ...]
) -> Metric:
    """A counter of what decisions came to, with the id of the last one as its exemplar."""
    family = CounterMetricFamily(f"so1_{name}", help_text, labels=labels)
    for key, value in sorted(figures.host_counters.items()):
        if key[0] == name and len(key) == 1 + len(labels):
            decision = figures.exemplars.get(key)
            family.add_metric(
                [label(part) for part in key[1:]],
                value,
                exemplar=Exemplar({"decision": label(decision)}, 1) if decision else None,
            )
    return family


def _containers(figures: ExportedFigures) -> Iterator[Metric]:
    if figures.containers_by_state is not None:
        yield _gauges(
            "so1_containers",
            "Containers that the engine lists, by their state.",
            ("engine", "state"),
            sorted(figures.containers_by_state.items()),
        )
    of = _Containers(figures.containers)
    yield of.gauge(
        "container_last_seen",
        "When the container was last seen, Unix seconds.",
        lambda _one: figures.tick_s,
    )
    yield of.gauge(
        "container_start_time_seconds",
        "When the container last started, Unix seconds.",
        lambda one: one.started_s,
    )
    yield of.gauge(
        "container_memory_rss",
        "Anonymous memory that the container is charged for, in bytes.",
        lambda one: one.anon_bytes,
    )
    yield of.gauge(
        "container_memory_cache",
        "Page cache that the container is charged for, tmpfs and shared memory in it, in bytes.",
        lambda one: one.file_bytes,
    )
    yield of.gauge(
        "container_spec_memory_limit_bytes",
        "The container's own memory limit; 0 for none.",
        lambda one: one.limit_bytes or 0,
    )
    yield of.counter(
        "container_cpu_usage_seconds",
        "CPU that the container used, by its cgroup.",
        lambda one: None if one.cpu_ns is None else one.cpu_ns / 10**9,
        ("cpu", "total"),
    )
    yield of.counter(
        "container_oom_events",
        "OOM kills in the container since it started.",
        lambda one: one.oom_kills,
    )
    yield of.gauge(
        "so1_container_held_bytes",
        "Memory that the container's end gives back.",
        lambda one: one.held_bytes,
    )
    yield of.gauge(
        "so1_container_rss_bytes",
        "Resident pages of the container's distinct address spaces.",
        lambda one: one.rss_bytes,
    )
    yield of.gauge(
        "so1_container_cache_bytes",
        "Page cache that the container is charged for, without tmpfs and shared memory.",
        lambda one: one.cache_bytes,
    )
    yield of.gauge(
        "so1_container_processes", "Processes of the container.", lambda one: one.processes
    )
    yield of.gauge(
        "so1_container_governed",
        "1 where the policy may remove the container.",
        lambda one: one.governed,
    )
    yield of.info("so1_container_info", "What else is known of the container.")
    yield of.cpu()
    yield of.gauge(
        "so1_container_cpu_unexplained_seconds",
        "CPU that no process accounts for, since the agent first saw the container; a difference, "
        "which may be negative.",
        lambda one: None if one.counters is None else one.counters.unexplained_ns / 10**9,
    )
    yield of.counter(
        "so1_container_starts",
        "Processes born in the container; its first one, and those of `docker exec`, only enter.",
        lambda one: None if one.counters is None else one.counters.starts,
    )
    yield of.counter(
        "so1_container_exits",
        "Processes that ended in the container.",
        lambda one: None if one.counters is None else one.counters.exits,
    )


class _Containers:
    """Families with one series a container; a figure that is not known has none."""

    def __init__(self, containers: tuple[ContainerMetrics, ...]) -> None:
        self._keyed = [((one.id, one.name, one.image, one.engine), one) for one in containers]

    def gauge(
        self, name: str, text: str, figure: Callable[[ContainerMetrics], float | None]
    ) -> Metric:
        values = [(key, figure(one)) for key, one in self._keyed]
        return _gauges(name, text, _ID, [(key, one) for key, one in values if one is not None])

    def counter(
        self,
        name: str,
        text: str,
        figure: Callable[[ContainerMetrics], float | None],
        more: tuple[str, str] | None = None,
    ) -> Metric:
        labels = (*_ID, more[0]) if more else _ID
        family = CounterMetricFamily(name, text, labels=labels)
        for key, one in self._keyed:
            value = figure(one)
            if value is not None:
                family.add_metric((*key, more[1]) if more else key, value)
        return family

    def info(self, name: str, text: str) -> Metric:
        labels = (*_ID, "tier", "held_basis")
        values = [((*key, one.tier, one.held_basis), 1) for key, one in self._keyed]
        return _gauges(name, text, labels, values)

    def cpu(self) -> Metric:
        family = CounterMetricFamily(
            "so1_container_cpu_seconds",
            "The container's CPU by whose it was: processes that a tick saw, and ones that lived "
            "less than a tick.",
            labels=(*_ID, "part"),
        )
        for key, one in self._keyed:
            if one.counters is not None:
                family.add_metric((*key, "living"), one.counters.living_ns / 10**9)
                family.add_metric((*key, "short_lived"), one.counters.short_lived_ns / 10**9)
        return family
