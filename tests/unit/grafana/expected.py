"""The oracle of each panel by its title: rows for a table, points for a time series."""

from __future__ import annotations

from tests.unit.grafana.expected_containers import CONTAINERS
from tests.unit.grafana.expected_system import SYSTEM

ORACLES = {"monitor-de-sistema": SYSTEM, "monitor-de-contenedores": CONTAINERS}
