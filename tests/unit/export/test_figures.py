"""What is shown of a tick: in base units, the largest within the bound, hostile names made fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from agent.analysis.counters import LastingCounters
from agent.export.figures import OTHERS, ExportedFigures, figures_of
from agent.model.container import ContainerCgroup, ContainerState
from tests.unit.store.builders import a_container, a_process, a_tick, totals


def of(record: Any, **changed: Any) -> ExportedFigures:
    values: dict[str, Any] = {
        "version": "1.2.3",
        "interval_s": 20.0,
        "max_containers": 500,
        "max_commands": 20,
        "exemplars": {},
        "armed": True,
        "stored": True,
    }
    return figures_of(record, LastingCounters(), **(values | changed))


def containers(count: int) -> tuple[Any, ...]:
    return tuple(
        totals(a_container(f"c{number}", f"{number:064x}"), held_kb=number)
        for number in range(count)
    )


def test_beyond_the_bound_the_largest_are_shown_and_the_others_reported() -> None:
    figures = of(a_tick(totals=containers(10)), max_containers=3)
    assert sorted(one.name for one in figures.containers) == ["c7", "c8", "c9"]
    assert figures.left_out == 7
    assert figures.left_out_held_bytes == sum(range(7)) * 1024


def test_containers_that_do_not_run_have_no_series_and_are_counted() -> None:
    ended = replace(a_container("b", "b" * 64), state=ContainerState.EXITED)
    figures = of(a_tick(totals=(totals(), totals(ended))))
    assert [one.name for one in figures.containers] == ["so1_contenedor_1"]
    assert figures.containers_by_state == {("docker", "running"): 1, ("docker", "exited"): 1}
    assert of(a_tick(totals=(), container_count=None)).containers_by_state is None


def test_a_container_is_named_by_its_cgroups_path_and_never_twice() -> None:
    two = containers(2)
    cgroups = {
        one.container.key: ContainerCgroup(one.container.key, "/docker/same", frozenset())
        for one in two
    }
    shown = of(a_tick(totals=two, cgroups=cgroups)).containers
    assert [one.id for one in shown] == ["/docker/same", two[1].container.id]
    assert of(a_tick(totals=two)).containers[0].id == two[0].container.id


def test_commands_are_summed_by_name_and_the_rest_is_one_line() -> None:
    processes = (
        a_process(1, "large", rss_kb=1000, cpu=0),
        a_process(2, "busy", rss_kb=1, cpu=150),
        a_process(3, "small", rss_kb=10, cpu=1),
        a_process(4, "small", rss_kb=20, cpu=2),
    )
    shown = {one.command: one for one in of(a_tick(processes=processes), max_commands=1).commands}
    assert set(shown) == {"large", "busy", OTHERS}
    assert (shown["busy"].rss_bytes, shown["busy"].cpu_ratio) == (1024, 1.5)
    rest = shown[OTHERS]
    assert (rest.processes, rest.rss_bytes, rest.cpu_ratio) == (2, 30 * 1024, 0.03)


def test_names_that_become_equal_when_made_fit_are_one_series() -> None:
    processes = (a_process(1, "x" * 300), a_process(2, "x" * 299))
    (one,) = of(a_tick(processes=processes)).commands
    assert (one.command, one.processes) == ("x" * 85 + "…" + "x" * 169, 2)


def test_a_hostile_name_is_valid_text_of_bounded_length() -> None:
    hostile = 'a\ud800"\n\x1b[2J\\' + "y" * 10_000
    figures = of(a_tick(totals=(totals(a_container(hostile)),)))
    name = figures.containers[0].name
    assert name.isprintable()
    assert name.encode("utf-8")
    assert "\\xd800" in name
    assert len(name) < 300
