"""Every text of the dashboards, Spanish to English, and what is the same in both.

A test holds that nothing is missing, nothing is left over, and no Spanish is left in the English.
"""

from __future__ import annotations

from grafana.build.english.contenedores import CONTENEDORES
from grafana.build.english.flota import FLOTA
from grafana.build.english.sistema import SISTEMA
from grafana.build.english.words import NEUTRAL, WORDS

TABLE: dict[str, str] = {**WORDS, **SISTEMA, **CONTENEDORES, **FLOTA}

__all__ = ["NEUTRAL", "TABLE"]
