"""`python -m bench`: prints one table of ratios from one run, and its JSON where asked for.

Needs root, Docker and the loaded modules (`bash/load_modules.sh`); in a guest:

    python3 -m tests.lab run debian12 --memory 8192 -- bash bench/run.sh
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import agent_cost, containers, probe_cost, processes, trace_rate
from bench.machine import in_words, machine
from bench.measure import IncompleteError, Row
from tests.agent_process import agent_command

SECTIONS = "acefdpghb"


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--sections", default=SECTIONS, help="letters of the sections to run")
    parser.add_argument("--quick", action="store_true", help="small counts, to try it out")
    parser.add_argument(
        "--image", default="so1-alpine-standin:local", help="a local image with sleep"
    )
    parser.add_argument("--json", type=Path, help="where the figures go, to compare later")
    parser.add_argument("--seconds", type=int, default=120, help="how long section e watches")
    parser.add_argument(
        "--counts", type=_numbers, default=processes.COUNTS, help="processes of section a"
    )
    parser.add_argument(
        "--tick-counts", type=_numbers, default=(300, 10_000), help="processes of section c"
    )
    parser.add_argument(
        "--containers", type=_numbers, default=(10, 50), help="containers of section b"
    )
    parser.add_argument("--rounds", type=int, default=3, help="of section f")
    parser.add_argument("--pairs", type=int, default=20, help="of storms in section d")
    parser.add_argument(
        "--cold", action="store_true", help="section g also after dropping the host's caches"
    )
    words = parser.parse_args()
    command = agent_command()
    quick = words.quick
    counts = words.counts[:2] if quick else words.counts
    ticks = words.tick_counts[:1] if quick else words.tick_counts
    plan: dict[str, list[Callable[[], list[Row]]]] = {
        "a": [partial(processes.measure, one, 3 if quick else 5) for one in counts],
        "b": [
            partial(containers.measure_figures, words.image, one, 5)
            for one in ((3,) if quick else words.containers)
        ],
        "c": [partial(agent_cost.measure_tick, command, one, 3 if quick else 12) for one in ticks],
        "d": [
            partial(
                agent_cost.measure_storm,
                50 if quick else 150,
                3 if quick else words.pairs,
                3 if quick else 10,
            )
        ],
        "p": [partial(probe_cost.measure_probes, 200 if quick else 2000, 3 if quick else 7)],
        "e": [partial(agent_cost.measure_cost, command, 10 if quick else words.seconds)],
        "f": [
            partial(
                containers.measure_policy, command, words.image, rounds=1 if quick else words.rounds
            )
        ],
        "h": [partial(trace_rate.measure_rate, command, 200 if quick else 2000)],
        "g": [partial(agent_cost.measure_start, command, 2 if quick else 5, cold=words.cold)],
    }
    rows: list[Row] = []
    failed: dict[str, str] = {}
    named = machine()
    for section, work in ((letter, one) for letter in words.sections for one in plan[letter]):
        began = time.monotonic()
        try:
            rows += work()
        except IncompleteError as error:
            rows += error.rows
            failed[section] = str(error)
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            # What others have measured must not be lost with it.
            failed[section] = str(error)
        took = time.monotonic() - began
        said = f"section {section}: {took:.0f} s {failed.get(section, '')}"
        print(said, file=sys.stderr, flush=True)
        if words.json:
            document = {
                "machine": named,
                "rows": [row.as_dict() for row in rows],
                "failed": failed,
            }
            words.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    _show(rows, named)
    for section, why in failed.items():
        print(f"Section {section} is not whole: {why}", file=sys.stderr)
    return 1 if failed else 0


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(","))


def _show(rows: list[Row], named: dict[str, object]) -> None:
    table = Table(title=in_words(named))
    for heading in ("", "what", "median ms", "min…max ms", "CPU ms", "ratio"):
        table.add_column(heading, justify="left" if heading in ("", "what") else "right")
    for row in rows:
        timing = row.timing
        times = f"{row.ratio:.3g} x {row.against}" if row.ratio is not None else row.figure
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
