"""What panels of «Monitor de Flota» have in common: the centre's data source and its targets."""

from __future__ import annotations

from grafana_foundation_sdk.cog import variants
from grafana_foundation_sdk.models import common

from grafana.build import panels as p
from grafana.build.layout import Grid

SOURCE = common.DataSourceRef(type_val="grafana-postgresql-datasource", uid="so1-fleet")
NO_ROWS = "Sin datos: ningún equipo envió nada de este rango"


class _FleetTarget(variants.Dataquery):
    """A target as Grafana's PostgreSQL data source stores it."""

    def __init__(self, sql: str, kind: str) -> None:
        self._json = {
            "datasource": SOURCE,
            "refId": "A",
            "format": kind,
            "editorMode": "code",
            "rawQuery": True,
            "rawSql": sql,
        }

    def to_json(self) -> dict[str, object]:
        return dict(self._json)


class FleetQuery(p.Query):
    """`kind` is `table` or `time_series`."""

    def __init__(self, sql: str, kind: str = "table") -> None:
        super().__init__(sql, kind)
        self._query = _FleetTarget(sql.strip(), kind)


def rows(sql: str) -> FleetQuery:
    return FleetQuery(sql)


def series(sql: str) -> FleetQuery:
    return FleetQuery(sql, "time_series")


class FleetGrid(Grid):
    """Panels that ask the centre."""

    def add(self, panel: p.Panel, width: int, height: int, no_rows: str = NO_ROWS) -> None:
        super().add(panel.datasource(SOURCE).no_value(no_rows), width, height)
