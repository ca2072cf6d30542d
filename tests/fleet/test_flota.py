"""Every query of «Monitor de Flota», on a real PostgreSQL, against an oracle of its own."""

from __future__ import annotations

import json
import math
import re
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from agent.fleet.streams import BY_NAME
from tests.fleet import flota_oracle as oracle
from tests.fleet import flota_oracle_minutes as close_up
from tests.fleet.flota_oracle import Seen
from tests.fleet.flota_world import DAY, HOUR, Fleet, fill_centre, make_fleet
from tests.fleet.programs import PROJECT
from tests.unit.grafana.plugin import interval_ms

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fleet.conftest import Centre


def load(language: str) -> dict[str, Any]:
    file = PROJECT / "grafana/fleet" / language / "monitor-de-flota.json"
    found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return found


SPANISH = load("dashboards")
PANELS = {panel["title"]: panel for panel in SPANISH["panels"] if panel["type"] != "row"}
RANGES = {"1 h": HOUR, "6 h": 6 * HOUR, "30 h": 30 * HOUR, "7 d": 7 * DAY, "40 d": 40 * DAY}
ONE_HOST = ("b" * 32,)


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    return make_fleet(time.time_ns() // 10**6)


@pytest.fixture(scope="module")
def reader(lasting_centre: Centre, fleet: Fleet) -> Iterator[psycopg.Connection[Any]]:
    """As Grafana logs in."""
    with psycopg.connect(lasting_centre.dsn(), autocommit=True) as boss:
        fill_centre(fleet, boss)
        boss.execute("CREATE ROLE grafana_test LOGIN IN ROLE so1_reader")
    try:
        with psycopg.connect(lasting_centre.dsn("grafana_test"), autocommit=True) as connection:
            yield connection
    finally:
        lasting_centre.ask("DROP ROLE grafana_test")


@pytest.fixture(params=RANGES)
def span_ms(request: pytest.FixtureRequest) -> int:
    return RANGES[request.param]


@pytest.fixture(params=[(), ONE_HOST], ids=["all hosts", "one host"])
def chosen(request: pytest.FixtureRequest) -> tuple[str, ...]:
    found: tuple[str, ...] = request.param
    return found


def expand(sql: str, seen: Seen) -> str:
    """What Grafana's browser side puts in; nothing is left for the plugin's macros."""
    hosts = ",".join(f"'{one}'" for one in seen.chosen) or "'*'"
    values = {"__from": seen.from_ms, "__to": seen.to_ms, "__interval_ms": seen.interval_ms}
    sql = sql.replace("${equipo:sqlstring}", hosts)
    sql = re.sub(r"\$(\w+)", lambda one: str({**values, "top": seen.top}[one[1]]), sql)
    assert "$" not in sql
    return sql


def show(
    title: str,
    reader: psycopg.Connection[Any],
    fleet: Fleet,
    span: int,
    chosen: tuple[str, ...] = (),
) -> tuple[Seen, list[tuple[Any, ...]]]:
    panel = PANELS[title]
    interval = interval_ms(span, panel.get("maxDataPoints") or 1500)
    seen = Seen(fleet, fleet.now_ms - span, fleet.now_ms, interval, chosen)
    return seen, ask(reader, panel["targets"][0]["rawSql"], seen)


def ask(reader: psycopg.Connection[Any], sql: str, seen: Seen) -> list[tuple[Any, ...]]:
    found = reader.execute(expand(sql, seen)).fetchall()
    return [tuple(_plain(value) for value in row) for row in found]


def _plain(value: Any) -> Any:
    return round(value.timestamp() * 1000) if isinstance(value, datetime) else value


def close(found: list[tuple[Any, ...]], expected: list[tuple[Any, ...]]) -> None:
    assert len(found) == len(expected)
    assert expected
    for one, other in zip(found, expected, strict=True):
        assert len(one) == len(other)
        for value, wanted in zip(one, other, strict=True):
            if isinstance(wanted, float) and value is not None:
                assert math.isclose(value, wanted, rel_tol=1e-9, abs_tol=1e-9), (one, other)
            else:
                assert value == wanted, (one, other)


ORACLES = {
    "Equipos": oracle.states,
    "Sucesos del Rango": oracle.events,
    "La Flota Ahora": oracle.totals,
    "RAM por Equipo en el Tiempo": oracle.ram,
    "CPU por Equipo en el Tiempo": oracle.cpu,
    "Top $top Contenedores de la Flota por RAM": lambda seen: oracle.top(seen, 0),
    "Top $top Contenedores de la Flota por CPU": lambda seen: oracle.top(seen, 2),
    "Eliminaciones en el Tiempo": oracle.removals_over_time,
    "Muertes por OOM en el Tiempo": oracle.kills_over_time,
    "Atribución de la Flota en el Tiempo": oracle.agreement,
    "Conflictos y Pérdidas en el Tiempo": lambda seen: oracle.over_time(
        seen, "host", "conflict_ticks", "events_lost"
    ),
    "RAM Retenida por Contenedor en el Tiempo": oracle.held,
    "CPU y RAM por Minuto": close_up.hosts,
    "RAM Retenida por Contenedor y Minuto": close_up.held,
    "CPU por Proceso en el Tiempo": close_up.process_cpu,
}
BY_HAND = {
    *("Lista de Equipos", "Retraso", "Contenedores Mayores", "Eliminaciones por Equipo y Regla"),
    *("Muertes por OOM", "Bifurcaciones y Huecos", "Tamaño por Flujo", "Crecimiento por Día"),
    *("Paradas del Agente", "Registro de Eliminaciones", "Procesos Mayores"),
}


def test_every_panel_has_an_oracle() -> None:
    assert PANELS.keys() == ORACLES.keys() | BY_HAND


@pytest.mark.parametrize("title", ORACLES)
def test_a_panel_shows_what_the_rows_add_up_to(
    title: str,
    reader: psycopg.Connection[Any],
    fleet: Fleet,
    span_ms: int,
    chosen: tuple[str, ...],
) -> None:
    seen, found = show(title, reader, fleet, span_ms, chosen)
    close(found, ORACLES[title](seen))


def test_hosts_are_listed_with_state_and_trust_the_worst_first(
    reader: psycopg.Connection[Any], fleet: Fleet, span_ms: int
) -> None:
    seen, found = show("Lista de Equipos", reader, fleet, span_ms)
    expected = oracle.trust(seen)
    shown = {row[-1]: (row[1], row[2], *row[4:11]) for row in found}
    assert shown.keys() == expected.keys()
    for installation, row in expected.items():
        for value, wanted in zip(shown[installation], row, strict=True):
            assert value == (pytest.approx(wanted) if isinstance(wanted, float) else wanted)
    assert {row[0] for row in found[:2]} == {"db-1", "new-1"}
    assert [row[0] for row in found[2:]] == ["web bbbbbbbb", "web aaaaaaaa"]
    ages = {row[-1]: row[3] for row in found}
    assert ages["c" * 32] == pytest.approx(7200, abs=600)


def test_the_lag_is_that_of_the_last_bucket(reader: psycopg.Connection[Any], fleet: Fleet) -> None:
    _, found = show("Retraso", reader, fleet, HOUR)
    last = fleet.members[0].hosts[-1]["timestamp"]
    expected = time.time() - last / 1000 - 300
    # Two hosts with the same last bucket; the silent and the unseen are not among them.
    assert found[0] == (pytest.approx(expected, abs=30), pytest.approx(expected, abs=30))


def test_the_largest_containers_are_listed(
    reader: psycopg.Connection[Any], fleet: Fleet, span_ms: int
) -> None:
    seen, found = show("Contenedores Mayores", reader, fleet, span_ms)
    expected = oracle.container_figures(seen)
    keys = [(row[0], row[1], row[8]) for row in found]
    close([row[4:8] for row in found], [tuple(map(float, expected[key])) for key in keys])
    assert set(keys) == expected.keys()
    assert [row[4] for row in found] == sorted((row[4] for row in found), reverse=True)


def test_the_largest_processes_are_listed(
    reader: psycopg.Connection[Any], fleet: Fleet, span_ms: int, chosen: tuple[str, ...]
) -> None:
    seen, found = show("Procesos Mayores", reader, fleet, span_ms, chosen)
    expected = close_up.processes(seen)
    assert {row[:3] for row in found} == expected.keys()
    close([row[3:7] for row in found], [expected[row[:3]] for row in found])
    assert [row[3] for row in found] == sorted((row[3] for row in found), reverse=True)


def test_minutes_and_processes_of_a_host_that_ships_none_are_no_rows(
    reader: psycopg.Connection[Any], fleet: Fleet
) -> None:
    silent = fleet.members[2].installation
    for title in ("CPU y RAM por Minuto", "RAM Retenida por Contenedor y Minuto"):
        assert show(title, reader, fleet, DAY, (silent,))[1] == []
    for title in ("Procesos Mayores", "CPU por Proceso en el Tiempo"):
        assert show(title, reader, fleet, DAY, (silent,))[1] == []
    assert show("RAM Retenida por Contenedor en el Tiempo", reader, fleet, DAY, (silent,))[1]


def test_removals_are_counted_by_host_and_rule(
    reader: psycopg.Connection[Any], fleet: Fleet, span_ms: int, chosen: tuple[str, ...]
) -> None:
    seen, found = show("Eliminaciones por Equipo y Regla", reader, fleet, span_ms, chosen)
    expected = oracle.removals_by_kind(seen)
    assert {row[:5] for row in found} == expected.keys()
    for row in found:
        count, held_mb, last = expected[row[:5]]
        assert row[5:] == (count, pytest.approx(held_mb), last)


def test_oom_kills_are_listed_by_who_was_killed_where(
    reader: psycopg.Connection[Any], fleet: Fleet, span_ms: int, chosen: tuple[str, ...]
) -> None:
    seen, found = show("Muertes por OOM", reader, fleet, span_ms, chosen)
    expected = oracle.kills_by_kind(seen)
    assert {row[:5] for row in found} == expected.keys()
    for row in found:
        count, held_mb, last = expected[row[:5]]
        assert row[5:8] == (count, held_mb and pytest.approx(held_mb), last)
    if span_ms == 7 * DAY and not chosen:
        # Records of two hosts, counts of the older one, and a process of no container.
        assert {row[0] for row in found} == {"web aaaaaaaa", "web bbbbbbbb", "db-1"}
        assert {row[4] for row in found} == {"limit", "host", "unknown"}


def test_forks_and_gaps_are_listed(
    reader: psycopg.Connection[Any], fleet: Fleet, chosen: tuple[str, ...]
) -> None:
    seen, found = show("Bifurcaciones y Huecos", reader, fleet, HOUR, chosen)
    names = {one.installation: seen.name(one) for one in seen.members()}
    expected = {
        (
            when,
            names[who],
            what,
            stream,
            first,
            last,
            last - first + 1 if last and first else None,
            who,
        )
        for who, when, what, stream, first, last in fleet.breaks
        if who in names
    }
    assert set(found) == expected


def test_sizes_and_growth_are_those_of_the_partitions(
    reader: psycopg.Connection[Any], fleet: Fleet, lasting_centre: Centre
) -> None:
    tables = dict(
        lasting_centre.ask(
            "SELECT relname, pg_total_relation_size(oid) FROM pg_class"
            " WHERE relnamespace = 'so1'::regnamespace AND relkind = 'r' AND relispartition"
        )
    )
    _, sizes = show("Tamaño por Flujo", reader, fleet, HOUR)
    by_stream: dict[str, int] = {}
    for name, size in tables.items():
        stream = name.rpartition("_")[0]
        by_stream[stream] = by_stream.get(stream, 0) + size
    assert {row[0]: row[1] for row in sizes} == by_stream
    _, growth = show("Crecimiento por Día", reader, fleet, 5 * DAY)
    today = fleet.now_ms // DAY
    for at, stream, size in growth:
        days = BY_NAME[stream].partition_ms // DAY
        assert size == tables[f"{stream}_{at // DAY}"] // days
        assert at // DAY <= today
    assert {at // DAY for at, stream, _ in growth if stream == "host_5m"} >= {
        today - number for number in range(5)
    }


def test_stops_and_the_log_of_the_chosen_hosts(
    reader: psycopg.Connection[Any], fleet: Fleet, chosen: tuple[str, ...]
) -> None:
    seen, found = show("Paradas del Agente", reader, fleet, 2 * DAY, chosen)
    expected = {
        (row["timestamp"], seen.name(member), 90.0)
        for member in seen.members()
        for row in member.stops
        if seen.inside(row["timestamp"])
    }
    assert set(found) == expected
    seen, found = show("Registro de Eliminaciones", reader, fleet, 6 * HOUR, chosen)
    rows = sorted(
        ((row["timestamp"], seen.name(member), row["decision"]) for member, row in seen.removals()),
        reverse=True,
    )[:200]
    assert sorted(((row[0], row[1], row[8]) for row in found), reverse=True) == rows


def test_the_variable_offers_every_host_by_a_name_of_its_own(
    reader: psycopg.Connection[Any], fleet: Fleet
) -> None:
    (variable,) = (one for one in SPANISH["templating"]["list"] if one["name"] == "equipo")
    seen = Seen(fleet, 0, fleet.now_ms, 1000)
    found = ask(reader, variable["query"], seen)
    assert found == sorted((seen.name(one), one.installation) for one in fleet.members)


def test_both_languages_ask_the_same(reader: psycopg.Connection[Any], fleet: Fleet) -> None:
    english = {panel["id"]: panel for panel in load("dashboards-en")["panels"]}
    seen = Seen(fleet, fleet.now_ms - 6 * HOUR, fleet.now_ms, 300_000, ONE_HOST)
    for title, panel in PANELS.items():
        other = english[panel["id"]]["targets"][0]["rawSql"]
        mine = ask(reader, panel["targets"][0]["rawSql"], seen)
        theirs = ask(reader, other, seen)
        if title in ("Retraso", "Lista de Equipos"):  # they have ages in them
            assert len(mine) == len(theirs)
        else:
            assert bool(mine) == bool(theirs), title
            # The server adds up in whatever order its rows come.
            if mine:
                close([tuple(map(_word, row)) for row in mine], theirs)


def _word(value: Any) -> Any:
    return "(others)" if value == "(otros)" else value
