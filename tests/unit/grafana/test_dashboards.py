"""The committed dashboards and provisioning are the generator's, complete and consistent."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.unit.grafana import plugin

GRAFANA = Path(__file__).resolve().parents[3] / "grafana"
DATA_SOURCE = {"type": "frser-sqlite-datasource", "uid": "so1-sqlite"}
UNITS = {"mbytes", "kbytes", "percent", "s", "ms", "none"}

ALL = [(name, panel) for name in plugin.NAMES for panel in plugin.raw_panels(name)]
RAW = [pytest.param(name, panel, id=f"{name}: {panel['title']}") for name, panel in ALL]


def test_the_committed_json_is_what_the_generator_makes() -> None:
    pytest.importorskip(
        "grafana_foundation_sdk", reason="needs grafana-foundation-sdk (requirements/test.txt)"
    )
    from grafana.build.__main__ import generated

    for name, content in generated().items():
        assert (GRAFANA / name).read_text(encoding="utf-8") == content, (
            f"{name} is stale: run `python -m grafana.build`"
        )


@pytest.mark.parametrize("name", plugin.NAMES)
def test_a_dashboard_is_valid_by_grafana_s_own_schema(name: str) -> None:
    models = pytest.importorskip(
        "grafana_foundation_sdk.models.dashboard",
        reason="needs grafana-foundation-sdk (requirements/test.txt)",
    )

    read = models.Dashboard.from_json(plugin.load(name))

    assert read.schema_version == 42
    assert len(read.panels) == len(plugin.load(name)["panels"])


def test_no_dashboard_is_committed_that_nothing_makes() -> None:
    assert {file.stem for file in (GRAFANA / "dashboards").iterdir()} == set(plugin.NAMES)


@pytest.mark.parametrize(
    ("name", "uid", "title"),
    [
        ("monitor-de-sistema", "so1-sistema", "Monitor de Sistema"),
        ("monitor-de-contenedores", "so1-contenedores", "Monitor de Contenedores"),
    ],
)
def test_a_dashboard_keeps_its_identity_and_refreshes(name: str, uid: str, title: str) -> None:
    content = plugin.load(name)

    assert (content["uid"], content["title"]) == (uid, title)
    assert content["refresh"] == "5s"
    assert content["time"] == {"from": "now-1h", "to": "now"}
    assert content.get("id") is None


def test_each_dashboard_links_to_the_other_and_keeps_the_time() -> None:
    uids = {name: plugin.load(name)["uid"] for name in plugin.NAMES}

    for name in plugin.NAMES:
        (link,) = plugin.load(name)["links"]
        (other,) = set(uids.values()) - {uids[name]}
        assert link["url"] == f"/d/{other}"
        assert link["keepTime"] is True


@pytest.mark.parametrize(
    ("name", "variables"),
    [
        ("monitor-de-sistema", {"top", "proceso"}),
        ("monitor-de-contenedores", {"contenedor", "nivel", "top"}),
    ],
)
def test_every_variable_that_a_query_uses_is_there(name: str, variables: set[str]) -> None:
    content = plugin.load(name)
    used = set()
    for panel in plugin.raw_panels(name):
        sql = panel["targets"][0]["rawQueryText"]
        used |= set(re.findall(r"\$\{?(\w+)", sql)) - {"__from", "__to", "__interval_ms"}

    assert {one["name"] for one in content["templating"]["list"]} == variables
    assert used == variables


@pytest.mark.parametrize("name", plugin.NAMES)
def test_removals_and_restarts_are_marked(name: str) -> None:
    marks = {one["name"]: one for one in plugin.load(name)["annotations"]["list"]}

    assert set(marks) == {
        *("Eliminaciones", "Reinicios del agente", "Muertes por falta de memoria"),
    }
    assert marks["Reinicios del agente"]["target"]["timeColumns"] == ["time", "timeEnd"]
    (marked,) = marks["Eliminaciones"]["filter"]["ids"]
    titles = {panel["id"]: panel["title"] for panel in plugin.load(name)["panels"]}
    assert titles[marked] == "Uso de RAM en el Tiempo"


@pytest.mark.parametrize("name", plugin.NAMES)
def test_panels_have_numbers_of_their_own_and_do_not_overlap(name: str) -> None:
    panels = plugin.load(name)["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells

    assert len({panel["id"] for panel in panels}) == len(panels)


@pytest.mark.parametrize(("name", "panel"), RAW)
def test_a_panel_says_what_it_measures_and_what_no_data_means(
    name: str, panel: dict[str, Any]
) -> None:
    assert len(panel["description"]) > 60
    assert panel["fieldConfig"]["defaults"]["noValue"].startswith("Sin ")


@pytest.mark.parametrize(("name", "panel"), RAW)
def test_a_panel_has_units_and_its_axes_say_of_what(name: str, panel: dict[str, Any]) -> None:
    units = {
        prop["value"]
        for override in panel["fieldConfig"]["overrides"]
        for prop in override["properties"]
        if prop["id"] == "unit"
    }
    if panel["type"] not in ("table", "state-timeline"):
        units.add(panel["fieldConfig"]["defaults"]["unit"])

    assert units <= UNITS
    assert units or panel["type"] == "state-timeline"
    if panel["type"] == "timeseries":
        assert panel["fieldConfig"]["defaults"]["custom"]["axisLabel"]


@pytest.mark.parametrize(("name", "panel"), RAW)
def test_a_query_is_stored_as_the_plugin_wants_it(name: str, panel: dict[str, Any]) -> None:
    (target,) = panel["targets"]

    assert target["datasource"] == panel["datasource"] == DATA_SOURCE
    assert target["queryText"] == target["rawQueryText"]
    assert target["queryType"] in ("table", "time series")
    assert target["timeColumns"] == ["time"]
    # The plugin's only macro, by the pattern with which it looks for macros.
    assert not re.search(r"\$__\w+\(", target["rawQueryText"])


@pytest.mark.parametrize(("name", "panel"), RAW)
def test_a_query_keeps_to_the_time_range_and_a_series_is_thinned(
    name: str, panel: dict[str, Any]
) -> None:
    sql = panel["targets"][0]["rawQueryText"]

    assert "$__to" in sql
    # The age of the last tick looks back without a limit, or a stopped agent would show nothing.
    assert "$__from" in sql or panel["title"] == "Último Tick"
    if panel["type"] in ("timeseries", "state-timeline"):
        assert "$__interval_ms" in sql
        assert panel["maxDataPoints"] <= 500


def test_thresholds_warn_and_alarm() -> None:
    dials = [panel for _, panel in ALL if panel["type"] == "gauge"]

    assert len(dials) == 3
    for panel in dials:
        steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        assert [step["value"] for step in steps] == [None, 70, 90]


def test_provisioning_gives_the_data_source_that_the_dashboards_ask() -> None:
    text = (GRAFANA / "provisioning" / "datasources" / "so1.yaml").read_text(encoding="utf-8")

    for line in (
        "apiVersion: 1",
        f"uid: {DATA_SOURCE['uid']}",
        f"type: {DATA_SOURCE['type']}",
        'pathPrefix: "file:"',
        "path: /var/lib/so1/$SO1_DATABASE_FILE",
        "pathOptions: _pragma=busy_timeout(5000)",
        "editable: false",
    ):
        assert line in text


def test_compose_mounts_what_provisioning_names() -> None:
    compose = (GRAFANA / "docker-compose.yml").read_text(encoding="utf-8")
    dashboards = (GRAFANA / "provisioning" / "dashboards" / "so1.yaml").read_text(encoding="utf-8")
    path = re.search(r"path: (\S+)", dashboards)

    assert path
    assert f"target: {path[1]}" in compose
    assert "source: ${SO1_GRAFANA_DASHBOARDS:-./dashboards}\n" in compose
    assert "target: /var/lib/so1\n" in compose
    home = re.search(r"DEFAULT_HOME_DASHBOARD_PATH=(\S+)", compose)
    assert home
    for language in ("dashboards", "dashboards-en"):
        assert (GRAFANA / language / Path(home[1]).name).is_file()


def test_the_image_that_the_agent_looks_for_is_the_one_that_compose_starts() -> None:
    from agent.actions.grafana import CONTAINER, IMAGE

    compose = (GRAFANA / "docker-compose.yml").read_text(encoding="utf-8")

    assert f"image: ${{SO1_GRAFANA_IMAGE:-{IMAGE}}}" in compose
    assert f"container_name: {CONTAINER}\n" in compose
    assert re.fullmatch(r"grafana/grafana:13\.\d+\.\d+", IMAGE)
