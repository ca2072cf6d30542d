"""`agent bpf check`: what each witness says of every containerised process, once.

Starts probes of its own, so it works alone and beside a running agent, and loads no module: where
the modules are not loaded `/proc` is the first witness, which is said.
"""

from __future__ import annotations

import sys

import msgspec

from agent.cli.views.tables import aligned
from agent.clock import Clock
from agent.config import Config
from agent.daemon.watch import bpf_of, cgroups_of, watching
from agent.model.attribution import AttributedProcess, Verified
from agent.model.process import Source
from agent.model.tick import Tick
from agent.util import streams
from agent.util.terminal import Say, printable

CONFLICT = 1


def check(config: Config, clock: Clock, *, as_json: bool) -> int:
    """Prints the table. 1 where a conflict stands, else 0. Raises AgentError."""
    say = Say(sys.stderr)
    with watching(config, clock, say) as watch:
        seen = watch.look()
        partial = watch.witness.state
    if partial.reason:
        say(f"BPF: {partial.reason} {partial.hint}".rstrip())
    if watch.problem:
        say(f"First witness: /proc instead of the modules. {watch.problem}")
    if as_json:
        streams.out(streams.json_text(_document(seen)))
    else:
        streams.out("\n".join(_text(seen)))
    return CONFLICT if seen.attribution.counts.conflict else 0


def _rows(seen: Tick) -> list[dict[str, object]]:
    rows = [_row(seen, row) for row in seen.attribution.rows]
    return sorted(rows, key=lambda row: (str(row["container"]), str(row["pid"]).zfill(9)))


def _row(seen: Tick, row: AttributedProcess) -> dict[str, object]:
    process = row.process
    by_bpf = bpf_of(seen).cgroup_ids.get(process.key)
    if by_bpf is None and seen.sample.snapshot.source is Source.PSUTIL:
        by_bpf = next(
            (value for key, value in bpf_of(seen).cgroup_ids.items() if key.pid == process.pid),
            None,
        )
    candidate = next(
        (one for one in seen.sample.snapshot.candidates if one.key == process.key), None
    )
    spaces = []
    if candidate is not None and candidate.pid_ns != cgroups_of(seen).host_pid_ns:
        spaces.append("pid")
    if candidate is not None and candidate.uts_ns != cgroups_of(seen).host_uts_ns:
        spaces.append("uts")
    return {
        "pid": process.pid,
        "name": process.name,
        "start_ns": process.start_ns,
        "container": row.container_name,
        "container_id": row.container_id,
        "source_cgroup": cgroups_of(seen).hierarchy.of(process),
        "bpf_cgroup": by_bpf,
        "namespaces": "+".join(spaces) or "host",
        "verified": str(row.verified),
        "bpf_container": row.bpf_container_id,
        "basis": str(row.basis),
    }


def _document(seen: Tick) -> dict[str, object]:
    return {
        "source": str(seen.sample.snapshot.source),
        "hierarchy": str(cgroups_of(seen).hierarchy),
        "rows": _rows(seen),
        "counts": msgspec.to_builtins(seen.attribution.counts),
        "seam": msgspec.to_builtins(bpf_of(seen).seam),
        "lost": bpf_of(seen).lost,
        "corrected": bpf_of(seen).corrected,
        "late": bpf_of(seen).late,
        "missed": bpf_of(seen).missed,
        "long_names": bpf_of(seen).long_names,
    }


def _text(seen: Tick) -> list[str]:
    source = "MODULE" if seen.sample.snapshot.source is Source.MODULES else "PROC"
    table = [("PID", "COMM", source, "BPF", "NS", "VERIFIED", "BASIS", "CONTAINER")]
    for row in _rows(seen):
        told = str(row["container"])
        if row["verified"] == str(Verified.CONFLICT):
            told += f" (BPF: {str(row['bpf_container'] or 'none')[:12]})"
        by_bpf = "-" if row["bpf_cgroup"] is None else row["bpf_cgroup"]
        table.append(
            (
                str(row["pid"]),
                printable(str(row["name"])),
                str(row["source_cgroup"]),
                str(by_bpf),
                str(row["namespaces"]),
                str(row["verified"]),
                str(row["basis"]),
                printable(told),
            )
        )
    lines = aligned(table, right=frozenset({0, 2, 3}), least=(7, 15, 8, 8, 7, 10, 7), gap=1)
    counts, seam = seen.attribution.counts, bpf_of(seen).seam
    of = len({row.container_id for row in seen.attribution.rows})
    lines.append(
        f"{len(seen.attribution.rows)} processes of {of} containers: {counts.agree} agree, "
        f"{counts.conflict} conflict, {counts.unverified} unverified; {counts.dropped} candidates "
        "are no container's."
    )
    lines.append(
        f"Seam: {seam.snapshot_only} by the snapshot alone, {seam.event_only} by events alone, "
        f"{seam.both} by both. Lost: {bpf_of(seen).lost}; corrected: {bpf_of(seen).corrected}."
    )
    if long_names := bpf_of(seen).long_names:
        lines.append(f"{long_names} cgroups were made with longer names than any engine gives.")
    return lines
