"""`python -m bench`: prints one table of ratios from one run, and its JSON where asked for.

Needs root, Docker and the loaded modules (`bash/load_modules.sh`); in a guest:

    python3 -m tests.lab run debian12 --memory 8192 -- bash bench/run.sh
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import agent_cost, containers, processes
from bench.measure import Row

SECTIONS = "abcdefg"


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--sections", default=SECTIONS, help="letters of the sections to run")
    parser.add_argument("--quick", action="store_true", help="small counts, to try it out")
    parser.add_argument(
        "--image", default="so1-alpine-standin:local", help="a local image with sleep"
    )
    parser.add_argument("--json", type=Path, help="where the figures go, to compare later")
    parser.add_argument("--seconds", type=int, default=120, help="how long section e watches")
    words = parser.parse_args()
    command = (
        [shutil.which("agent") or ""] if shutil.which("agent") else [sys.executable, "-m", "agent"]
    )
    rows: list[Row] = []
    quick = words.quick
    counts = processes.COUNTS[:2] if quick else processes.COUNTS
    plan: dict[str, Callable[[], list[Row]]] = {
        "a": lambda: processes.measure(counts, 3 if quick else 9),
        "b": lambda: containers.measure_figures(words.image, (3,) if quick else (10, 50), 5),
        "c": lambda: agent_cost.measure_tick(command, 3 if quick else 15),
        "d": lambda: agent_cost.measure_storm(command, 200 if quick else 2000, 1 if quick else 3),
        "e": lambda: agent_cost.measure_cost(command, 10 if quick else words.seconds),
        "f": lambda: containers.measure_removal(words.image),
        "g": lambda: agent_cost.measure_start(command, 2 if quick else 5),
    }
    for section in words.sections:
        print(f"section {section} …", file=sys.stderr, flush=True)
        rows += plan[section]()
    machine = {
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
    }
    _show(rows, machine)
    if words.json:
        document = {"machine": machine, "rows": [row.as_dict() for row in rows]}
        words.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


def _show(rows: list[Row], machine: dict[str, object]) -> None:
    table = Table(title=" · ".join(f"{name} {value}" for name, value in machine.items()))
    for heading in ("", "what", "median ms", "min…max ms", "CPU ms", "ratio"):
        table.add_column(heading, justify="left" if heading in ("", "what") else "right")
    for row in rows:
        timing = row.timing
        times = f"{row.ratio:.1f} x {row.against}" if row.ratio is not None else row.figure
        table.add_row(
            row.section,
            row.what,
            f"{timing.wall_ms:.1f}" if timing else "",
            f"{timing.wall_min_ms:.1f}…{timing.wall_max_ms:.1f}" if timing else "",
            f"{timing.cpu_ms:.1f}" if timing and timing.cpu_ms else "",
            times,
        )
    Console(width=None if sys.stdout.isatty() else 120).print(table)


if __name__ == "__main__":
    sys.exit(main())
