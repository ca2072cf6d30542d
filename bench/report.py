"""A run's JSON as a page of Markdown: `python -m bench.report bench.json TITLE > page.md`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from bench.machine import in_words

SECTIONS = {
    "a": "A whole process snapshot, same fields",
    "b": "CPU and RAM of containers",
    "c": "The whole tick by stage, a second apart, BPF on",
    "d": "What the probes cost others",
    "e": "A running agent at the default interval",
    "f": "From excess to the policy held",
    "h": "What a trace holds",
    "g": "From start to the first row",
}


def page(document: dict[str, Any], title: str) -> str:
    """The whole page; milliseconds are medians with smallest and largest of the repetitions."""
    lines = [f"# {title}", "", f"Machine: {in_words(document['machine'])}.", ""]
    for section, heading in SECTIONS.items():
        rows = [row for row in document["rows"] if row["section"] == section]
        failed = document["failed"].get(section)
        if not rows and not failed:
            continue
        lines += [f"## {heading}", ""]
        if failed:
            lines += [f"Not whole: {failed.splitlines()[0]}", ""]
        if rows:
            lines += [
                "| | median ms | smallest … largest | CPU ms | |",
                "| --- | ---: | ---: | ---: | --- |",
            ]
            lines += [_line(row) for row in rows]
            lines.append("")
    return "\n".join(lines)


def _line(row: dict[str, Any]) -> str:
    timing = row["timing"]
    notes = [row["figure"]] if row["figure"] else []
    if row["ratio"] is not None:
        notes.append(f"{row['ratio']:.3g} x {row['against']}")
    if timing is None:
        return f"| {row['what']} | | | | {', '.join(notes)} |"
    cpu = f"{timing['cpu_ms']:.1f}" if timing["cpu_ms"] else ""
    return (
        f"| {row['what']} | {timing['wall_ms']:.1f} | {timing['wall_min_ms']:.1f} … "
        f"{timing['wall_max_ms']:.1f} ({timing['repetitions']}) | {cpu} | {', '.join(notes)} |"
    )


if __name__ == "__main__":
    file, heading = sys.argv[1:3]
    print(page(json.loads(Path(file).read_text(encoding="utf-8")), heading))
