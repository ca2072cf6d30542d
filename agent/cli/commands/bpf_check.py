"""`agent bpf check`: what each witness says of every containerised process, once.

Starts probes of its own, so it works alone and beside a running agent, and loads no module: where
the modules are not loaded `/proc` is the first witness, which is said.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from agent.analysis.attribution import attribute
from agent.clock import Clock
from agent.config import Config
from agent.errors import SourceError
from agent.model.attribution import AttributedProcess, Attribution, Verified
from agent.model.bpf import BpfView
from agent.model.container import CgroupView, Container
from agent.model.process import Snapshot, Source
from agent.sources import modules as proc_modules
from agent.sources import psutil_source
from agent.sources.bpf import witness as bpf
from agent.sources.cgroup import reader
from agent.sources.engine.inventory import Engine
from agent.util import streams
from agent.util.terminal import Say, printable

CONFLICT = 1


@dataclass(frozen=True, slots=True)
class Seen:
    """What was read at one moment, and the answer."""

    snapshot: Snapshot
    containers: tuple[Container, ...]
    cgroups: CgroupView
    bpf: BpfView
    answer: Attribution


class Observer:
    """Reads all witnesses, as a tick of the agent does."""

    def __init__(
        self, config: Config, clock: Clock, layout: reader.CgroupLayout, witness: bpf.Witness
    ) -> None:
        self._config = config
        self._clock = clock
        self._layout = layout
        self._witness = witness
        self._engine = Engine(config.docker_host, clock)
        self._asked_for: frozenset[int] = frozenset()
        self.problem = ""
        """Why the modules are not the first witness."""

    def observe(self) -> Seen:
        """Raises AgentError where a witness or Docker cannot be read.

        As in a tick Docker is asked once more for cgroups that it did not explain: what it then
        still does not list is another engine's. A conflict is looked at twice, since a process may
        move between two readings.
        """
        seen = self._observe_once()
        unexplained = seen.answer.unknown_cgroups - self._asked_for
        self._asked_for = seen.answer.unknown_cgroups
        if unexplained or seen.answer.counts.conflict:
            seen = self._observe_once()
        if unexplained and seen.answer.counts.conflict:
            seen = self._observe_once()
        return seen

    def _observe_once(self) -> Seen:
        snapshot = self._snapshot()
        view = self._witness.witness(snapshot.snapshot_ns)
        containers = self._engine.list().containers
        cgroup_view = reader.read(self._layout, containers, self._asked_for)
        answer = attribute(snapshot, cgroup_view, containers, view.cgroup_ids, view.lost)
        return Seen(snapshot, containers, cgroup_view, view, answer)

    def _snapshot(self) -> Snapshot:
        modules = self._config.modules
        try:
            return proc_modules.read(
                Path(modules.sysinfo_path), Path(modules.continfo_path), self._clock
            )
        except SourceError as error:
            self.problem = str(error)
            return psutil_source.read(self._clock, self._layout)

    def close(self) -> None:
        self._engine.close()


@contextmanager
def watching(config: Config, clock: Clock) -> Iterator[tuple[Observer, bpf.Witness]]:
    """An observer with probes that are ready. Raises SourceError where there can be none."""
    layout = reader.detect()
    witness = bpf.Witness.start(layout.hierarchy, clock)
    observer = Observer(config, clock, layout, witness)
    try:
        while witness.poll().status == "starting":
            time.sleep(0.05)
        if witness.state.status != "ready":
            reason = witness.state.reason
            raise SourceError(reason[:1].upper() + reason[1:], witness.state.hint)
        yield observer, witness
    finally:
        observer.close()
        witness.close()


def check(config: Config, clock: Clock, *, as_json: bool) -> int:
    """Prints the table. 1 where a conflict stands, else 0. Raises AgentError."""
    with watching(config, clock) as (observer, _):
        seen = observer.observe()
    if observer.problem:
        Say(sys.stderr)(f"First witness: /proc instead of the modules. {observer.problem}")
    if as_json:
        streams.out(streams.json_text(_document(seen)))
    else:
        streams.out("\n".join(_text(seen)))
    return CONFLICT if seen.answer.counts.conflict else 0


def _rows(seen: Seen) -> list[dict[str, object]]:
    rows = [_row(seen, row) for row in seen.answer.rows]
    return sorted(rows, key=lambda row: (str(row["container"]), str(row["pid"]).zfill(9)))


def _row(seen: Seen, row: AttributedProcess) -> dict[str, object]:
    process = row.process
    by_bpf = seen.bpf.cgroup_ids.get(process.key)
    if by_bpf is None and seen.snapshot.source is Source.PSUTIL:
        by_bpf = next(
            (value for key, value in seen.bpf.cgroup_ids.items() if key.pid == process.pid), None
        )
    candidate = next((one for one in seen.snapshot.candidates if one.key == process.key), None)
    spaces = []
    if candidate is not None and candidate.pid_ns != seen.cgroups.host_pid_ns:
        spaces.append("pid")
    if candidate is not None and candidate.uts_ns != seen.cgroups.host_uts_ns:
        spaces.append("uts")
    return {
        "pid": process.pid,
        "name": process.name,
        "start_ns": process.start_ns,
        "container": row.container_name,
        "container_id": row.container_id,
        "source_cgroup": seen.cgroups.hierarchy.of(process),
        "bpf_cgroup": by_bpf,
        "namespaces": "+".join(spaces) or "host",
        "verified": str(row.verified),
        "bpf_container": row.bpf_container_id,
        "basis": str(row.basis),
    }


def _document(seen: Seen) -> dict[str, object]:
    return {
        "source": str(seen.snapshot.source),
        "hierarchy": str(seen.cgroups.hierarchy),
        "rows": _rows(seen),
        "counts": msgspec.to_builtins(seen.answer.counts),
        "seam": msgspec.to_builtins(seen.bpf.seam),
        "lost": seen.bpf.lost,
    }


def _text(seen: Seen) -> list[str]:
    source = "MODULE" if seen.snapshot.source is Source.MODULES else "PROC"
    header = ("COMM", source, "BPF", "NS", "VERIFIED", "BASIS", "CONTAINER")
    lines = ["{:>7} {:<15} {:>8} {:>8} {:<7} {:<10} {:<7} {}".format("PID", *header)]
    for row in _rows(seen):
        told = str(row["container"])
        if row["verified"] == str(Verified.CONFLICT):
            told += f" (BPF: {str(row['bpf_container'] or 'none')[:12]})"
        by_bpf = "-" if row["bpf_cgroup"] is None else row["bpf_cgroup"]
        lines.append(
            f"{row['pid']:>7} {printable(str(row['name'])):<15} {row['source_cgroup']:>8} "
            f"{by_bpf:>8} {row['namespaces']:<7} {row['verified']:<10} {row['basis']:<7} "
            f"{printable(told)}"
        )
    counts, seam = seen.answer.counts, seen.bpf.seam
    of = len({row.container_id for row in seen.answer.rows})
    lines.append(
        f"{len(seen.answer.rows)} processes of {of} containers: {counts.agree} agree, "
        f"{counts.conflict} conflict, {counts.unverified} unverified; {counts.dropped} candidates "
        "are no container's."
    )
    lines.append(
        f"Seam: {seam.snapshot_only} by the snapshot alone, {seam.event_only} by events alone, "
        f"{seam.both} by both. Lost: {seen.bpf.lost}."
    )
    return lines
