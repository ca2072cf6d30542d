"""What every panel of both dashboards has in common: source, words for «no data», colours, units.

A thin layer over grafana-foundation-sdk's builders. A panel is made with its query and its
description, and placed by `layout.Grid`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grafana_foundation_sdk.builders import (
    barchart,
    bargauge,
    gauge,
    stat,
    statetimeline,
    timeseries,
)
from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import table as table_builders
from grafana_foundation_sdk.cog import builder as cog
from grafana_foundation_sdk.cog import variants
from grafana_foundation_sdk.models import common, dashboard

SOURCE = common.DataSourceRef(type_val="frser-sqlite-datasource", uid="so1-sqlite")

NO_TICKS = "Sin datos: el agente no escribió nada en este rango"
NO_DOCKER = "Docker no responde"
NO_DETAIL = "Sin detalle por proceso en este rango (se guarda 24 h)"
REMOVALS = "Eliminaciones"
OOM_KILLS = "Muertes por falta de memoria"
OTHERS = "(otros)"
"""The series of all that have none of their own."""
MARKED = "Uso de RAM en el Tiempo"
"""The panel that shows the marks of removals; on all they would hide the lines."""

# One meaning, one colour, on both dashboards.
USED, FREE, AVAILABLE, TOTAL = "#F2994A", "#4C566A", "#56A64B", "#8AB8FF"
GOOD, WARN, BAD, QUIET, ACCENT = "#56A64B", "#F2CC0C", "#E02F44", "#7B8087", "#5794F2"

MIB, KIB, PERCENT, SECONDS, MILLIS, COUNT = "mbytes", "kbytes", "percent", "s", "ms", "none"

Panel = Any
"""The SDK's panel builders share their methods but no base class."""


class _Query(variants.Dataquery):
    """A target as frser-sqlite-datasource stores it; both texts alike, as alerts use the second."""

    def __init__(self, sql: str, kind: str, ref: str, times: Sequence[str]) -> None:
        self._json = {
            "datasource": SOURCE,
            "refId": ref,
            "queryType": kind,
            "rawQueryText": sql,
            "queryText": sql,
            "timeColumns": list(times),
        }

    def to_json(self) -> dict[str, object]:
        return dict(self._json)


class Query(cog.Builder[variants.Dataquery]):
    """`kind` is `table` or `time series`."""

    def __init__(
        self, sql: str, kind: str = "table", ref: str = "A", times: Sequence[str] = ("time",)
    ) -> None:
        self._query: variants.Dataquery = _Query(sql.strip(), kind, ref, times)

    def build(self) -> variants.Dataquery:
        return self._query


def rows(sql: str, ref: str = "A", times: Sequence[str] = ("time",)) -> Query:
    return Query(sql, "table", ref, times)


def series(sql: str, ref: str = "A") -> Query:
    return Query(sql, "time series", ref)


def thresholds(*steps: tuple[float | None, str]) -> build.ThresholdsConfig:
    """Colours from a value on; the first step has no value."""
    return (
        build.ThresholdsConfig()
        .mode(dashboard.ThresholdsMode.ABSOLUTE)
        .steps([dashboard.Threshold(value=value, color=color) for value, color in steps])
    )


def color(mode: str, fixed: str | None = None) -> build.FieldColor:
    made = build.FieldColor().mode(dashboard.FieldColorModeId(mode))
    return made.fixed_color(fixed) if fixed else made


def prop(name: str, value: object) -> dashboard.DynamicConfigValue:
    return dashboard.DynamicConfigValue(id_val=name, value=value)


def fixed(shade: str) -> dashboard.DynamicConfigValue:
    return prop("color", {"mode": "fixed", "fixedColor": shade})


def words(**options: tuple[str, str]) -> dashboard.DynamicConfigValue:
    """Texts and colours for a field's values, as an override."""
    return prop(
        "mappings",
        [
            {
                "type": "value",
                "options": {
                    value.replace("_", "-"): {"text": text, "color": shade, "index": place}
                    for place, (value, (text, shade)) in enumerate(options.items())
                },
            }
        ],
    )


def dashed(shade: str) -> list[dashboard.DynamicConfigValue]:
    """A limit, not a series: dashed, thin, unfilled, outside the stack."""
    return [
        fixed(shade),
        prop("custom.lineStyle", {"fill": "dash", "dash": [8, 8]}),
        prop("custom.fillOpacity", 0),
        prop("custom.lineWidth", 1),
        prop("custom.stacking", {"mode": "none", "group": "B"}),
    ]


def legend(mode: str = "list", place: str = "bottom", calcs: Sequence[str] = ()) -> Any:
    """A table is sorted by its last column, the largest first."""
    made = (
        common_builders.VizLegendOptions()
        .show_legend(True)
        .display_mode(common.LegendDisplayMode(mode))
        .placement(common.LegendPlacement(place))
        .calcs(list(calcs))
    )
    return made.sort_by("Max").sort_desc(True) if mode == "table" else made


def no_legend() -> Any:
    """For a panel with a single series, which its title names."""
    return legend().show_legend(False)


def _tooltip() -> Any:
    return (
        common_builders.VizTooltipOptions()
        .mode(common.TooltipDisplayMode.MULTI)
        .sort(common.SortOrder.DESCENDING)
    )


def _last(values: bool = False, fields: str = "") -> Any:
    made = common_builders.ReduceDataOptions().calcs(["lastNotNull"]).values(values)
    return made.fields(fields) if fields else made


def _common(panel: Panel, title: str, what: str, query: Query) -> Panel:
    return (
        panel.title(title)
        .description(what)
        .datasource(SOURCE)
        .no_value(NO_TICKS)
        .with_target(query)
        .interval("1s")
    )


def lines(title: str, what: str, query: Query, unit: str = COUNT) -> Panel:
    """Lines over time, with room below them and gaps kept."""
    return (
        _common(timeseries.Panel(), title, what, query)
        .unit(unit)
        .min(0)
        .line_width(2)
        .fill_opacity(8)
        .gradient_mode(common.GraphGradientMode.OPACITY)
        .show_points(common.VisibilityMode.AUTO)
        .point_size(4)
        .span_nulls(False)
        .legend(legend(calcs=["lastNotNull", "max"]))
        .tooltip(_tooltip())
        .max_data_points(500)
    )


def with_worst(title: str, what: str, query: Query, unit: str = COUNT) -> Panel:
    """The series «Media» as a line, with a band above it up to «Máximo»."""
    return (
        lines(title, what, query, unit)
        .override_by_name(
            "Máximo",
            [
                fixed(USED),
                prop("custom.lineWidth", 0),
                prop("custom.fillOpacity", 35),
                prop("custom.fillBelowTo", "Media"),
                prop("custom.gradientMode", "none"),
            ],
        )
        .override_by_name("Media", [fixed(ACCENT), prop("custom.fillOpacity", 15)])
    )


def areas(title: str, what: str, query: Query, unit: str = COUNT) -> Panel:
    """Stacked areas over time: the parts and, as their height, the whole."""
    return (
        lines(title, what, query, unit)
        # No outline: of a part that is 0 it would be all there is to see.
        .line_width(0)
        .fill_opacity(75)
        .gradient_mode(common.GraphGradientMode.NONE)
        .show_points(common.VisibilityMode.NEVER)
        .stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    )


def bars(title: str, what: str, query: Query, unit: str = COUNT) -> Panel:
    """Stacked bars over time, for what is counted in each interval."""
    return (
        areas(title, what, query, unit)
        .draw_style(common.GraphDrawStyle.BARS)
        .fill_opacity(85)
        .line_width(0)
        .bar_width_factor(0.8)
        .legend(legend(calcs=["sum"]))
        .max_data_points(60)
    )


def figures(title: str, what: str, query: Query, unit: str = COUNT) -> Panel:
    """One large figure for each column of the query's last row."""
    return (
        _common(stat.Panel(), title, what, query)
        .unit(unit)
        .color_mode(common.BigValueColorMode.VALUE)
        .graph_mode(common.BigValueGraphMode.NONE)
        .text_mode(common.BigValueTextMode.VALUE_AND_NAME)
        .text(common_builders.VizTextDisplayOptions().title_size(14).value_size(26))
        .orientation(common.VizOrientation.HORIZONTAL)
        .reduce_options(_last(fields="/.*/"))
        .thresholds(thresholds((None, ACCENT)))
    )


def trend(title: str, what: str, query: Query, unit: str = COUNT) -> Panel:
    """The last value of a time series over its sparkline."""
    return (
        _common(stat.Panel(), title, what, query)
        .unit(unit)
        .color_mode(common.BigValueColorMode.VALUE)
        .graph_mode(common.BigValueGraphMode.AREA)
        .text_mode(common.BigValueTextMode.VALUE)
        # The last value and not the last known one: what is unknown now is no figure.
        .reduce_options(common_builders.ReduceDataOptions().calcs(["last"]).values(False))
        .thresholds(thresholds((None, ACCENT)))
        .max_data_points(120)
    )


def dial(title: str, what: str, query: Query) -> Panel:
    """A gauge from 0 to 100 %."""
    return (
        _common(gauge.Panel(), title, what, query)
        .unit(PERCENT)
        .min(0)
        .max(100)
        .decimals(1)
        .show_threshold_markers(True)
        .show_threshold_labels(False)
        .reduce_options(_last(fields="/.*/"))
        .thresholds(thresholds((None, GOOD), (70, WARN), (90, BAD)))
    )


def ranking(title: str, what: str, query: Query, unit: str, scale: str) -> Panel:
    """Horizontal bars, one a row: the first column names, the second is the length."""
    return (
        _common(bargauge.Panel(), title, what, query)
        .unit(unit)
        .min(0)
        .decimals(1)
        .orientation(common.VizOrientation.HORIZONTAL)
        .display_mode(common.BarGaugeDisplayMode.GRADIENT)
        .text(common_builders.VizTextDisplayOptions().title_size(13).value_size(18))
        .value_mode(common.BarGaugeValueMode.TEXT)
        .name_placement(common.BarGaugeNamePlacement.LEFT)
        .show_unfilled(True)
        .reduce_options(_last(values=True))
        # A single row would go without its name.
        .display_name("${__data.fields.nombre}")
        .color_scheme(color(scale))
    )


def columns(title: str, what: str, query: Query, unit: str, x: str) -> Panel:
    """A bar for each row, with a part for each column beside `x`."""
    return (
        _common(barchart.Panel(), title, what, query)
        .unit(unit)
        .min(0)
        .x_field(x)
        .decimals(1)
        .fill_opacity(80)
        .line_width(0)
        .bar_width(0.75)
        .group_width(0.8)
        .legend(legend())
        .tooltip(_tooltip())
        .show_value(common.VisibilityMode.AUTO)
    )


def states(title: str, what: str, query: Query) -> Panel:
    """Which state held when."""
    return (
        _common(statetimeline.Panel(), title, what, query)
        .color_scheme(color("thresholds"))
        .fill_opacity(80)
        .line_width(0)
        .row_height(0.7)
        .merge_values(True)
        .show_value(common.VisibilityMode.AUTO)
        .legend(legend())
        .max_data_points(300)
    )


def table(title: str, what: str, query: Query) -> Panel:
    return (
        _common(table_builders.Panel(), title, what, query)
        .show_header(True)
        .cell_height(common.TableCellHeight.SM)
        # Of a table without rows the panel's own words are shown; of an empty cell these.
        .override_by_regexp("/.*/", [prop("noValue", "-")])
    )


def labelled(panel: Panel) -> Panel:
    """Series called by their label, each name in the same colour everywhere."""
    return (
        panel.display_name("${__field.labels.metric}")
        .color_scheme(color("palette-classic-by-name"))
        .legend(legend("table", "right", ["lastNotNull", "max"]))
        .override_by_name(OTHERS, [fixed(QUIET)])
        .max_data_points(300)
    )


def alarm(shade: str) -> dict[str, object]:
    """Quiet at 0, `shade` from 1 on."""
    return {
        "mode": "absolute",
        "steps": [{"color": QUIET, "value": None}, {"color": shade, "value": 1}],
    }
