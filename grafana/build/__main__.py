"""Writes the dashboards' JSON; `--check` only says whether the committed files are the same."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from grafana.build import contenedores, sistema
from grafana.build.layout import encode

DASHBOARDS = Path(__file__).resolve().parents[1] / "dashboards"


def generated() -> dict[str, str]:
    """The JSON of each dashboard by its file's name."""
    return {
        "monitor-de-sistema.json": encode(sistema.dashboard()),
        "monitor-de-contenedores.json": encode(contenedores.dashboard()),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m grafana.build", description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; status 1 if they differ"
    )
    parser.add_argument("--into", type=Path, default=DASHBOARDS, metavar="DIR")
    given = parser.parse_args()
    stale = 0
    for name, content in generated().items():
        file = given.into / name
        if file.is_file() and file.read_text(encoding="utf-8") == content:
            continue
        stale += 1
        if given.check:
            print(f"{file} is not what the generator makes", file=sys.stderr)
        else:
            file.write_text(content, encoding="utf-8")
            print(file)
    return 1 if given.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
