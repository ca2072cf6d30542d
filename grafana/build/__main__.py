"""Writes the dashboards' JSON, in both languages; `--check` only says whether it is the same."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from grafana.build import contenedores, flota, sistema
from grafana.build.language import translated
from grafana.build.layout import content, text

GRAFANA = Path(__file__).resolve().parents[1]

SPANISH, ENGLISH = "dashboards", "dashboards-en"


def generated() -> dict[str, str]:
    """The JSON of each dashboard by its file's path below `grafana`."""
    made = {}
    for place, name, dashboard in (
        ("", "monitor-de-sistema.json", sistema.dashboard()),
        ("", "monitor-de-contenedores.json", contenedores.dashboard()),
        ("fleet/", "monitor-de-flota.json", flota.fleet_dashboard()),
    ):
        spanish = content(dashboard)
        made[f"{place}{SPANISH}/{name}"] = text(spanish)
        made[f"{place}{ENGLISH}/{name}"] = text(translated(spanish))
    return made


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m grafana.build", description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; status 1 if they differ"
    )
    parser.add_argument("--into", type=Path, default=GRAFANA, metavar="DIR")
    given = parser.parse_args()
    stale = 0
    for name, wanted in generated().items():
        file = given.into / name
        if file.is_file() and file.read_text(encoding="utf-8") == wanted:
            continue
        stale += 1
        if given.check:
            print(f"{file} is not what the generator makes", file=sys.stderr)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(wanted, encoding="utf-8")
            print(file)
    return 1 if given.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
