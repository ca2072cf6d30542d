"""Loading compiled BPF programs with bpf(2) itself, attaching them, and proving that they see.

Needs neither BCC nor libbpf. What was made for another kernel loads without an error and reads the
wrong fields, so programs that keep records are held against `/proc` before anybody believes them.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from agent.clock import SystemClock
from agent.errors import SourceError
from agent.sources.bpf import proof, records
from agent.sources.bpf.programs import ITERATOR, SETS, Compiled, Handover, MapSpec, Order, Program
from agent.sources.bpf.syscall import (
    BpfCallError,
    Map,
    VerifierError,
    attach_iterator,
    attach_tracepoint,
    create_map,
    iterate,
    load_program,
    possible_cpus,
)
from agent.sources.bpf.table import ProcessTable

log = logging.getLogger(__name__)

_RAW_TRACEPOINT, _TRACING = 17, 26
"""`enum bpf_prog_type`."""
_TRACE_RAW_TP, _TRACE_ITER = 23, 28
"""`enum bpf_attach_type`."""
_LOG_BYTES = 1 << 20
_NUMBER = struct.Struct("=i")


class LoadError(SourceError):
    """The kernel refuses a program or a map; message and hint are for a person."""


@dataclass(frozen=True, slots=True)
class Probes:
    """The descriptors that keep the programs attached, and the maps behind them."""

    handover: Handover
    maps: Mapping[str, Map]
    programs: Mapping[str, int]
    descriptors: tuple[int, ...]

    def close(self) -> None:
        """The kernel detaches and frees all of it once nobody else holds it."""
        for fd in self.descriptors:
            os.close(fd)


def load(compiled: Compiled, order: Order, *, kept: bool) -> Probes:
    """Loads and attaches what `order` names and lets the iterator run once. Raises SourceError."""
    began = time.monotonic()
    held: list[int] = []
    try:
        maps, programs, seam, without = _load_all(compiled, order, held)
    except BaseException:
        for fd in held:
            os.close(fd)
        raise
    handover = Handover(
        bcc=compiled.bcc,
        headers=compiled.headers,
        compile_ms=0 if kept else compiled.compile_ms,
        attach_ms=int((time.monotonic() - began) * 1000),
        seam=seam,
        kept=kept,
        without=without,
    )
    return Probes(handover, maps, programs, tuple(held))


def _load_all(
    compiled: Compiled, order: Order, held: list[int]
) -> tuple[dict[str, Map], dict[str, int], tuple[int, int, int], tuple[str, ...]]:
    """The maps, the programs, the seam and the programs that it does without; every descriptor
    that is to stay open is in `held`."""
    sizes = SETS[order.programs].maps
    made = []
    for spec in compiled.maps:
        made.append(_create(spec))
        held.append(made[-1])
    maps = {
        spec.name: Map(fd, *sizes[spec.name])
        for spec, fd in zip(compiled.maps, made, strict=True)
        if spec.name in sizes
    }
    if maps.keys() != sizes.keys():
        raise LoadError("The BPF programs have other maps than this agent knows.")
    wanted = [
        one
        for one in compiled.programs
        if one.tracepoint == ITERATOR or not order.probes or one.function in order.probes
    ]
    loaded: dict[str, int] = {}
    without: list[str] = []
    for one in wanted:
        try:
            loaded[one.function] = _load(one, made)
        except LoadError as error:
            if one.function not in SETS[order.programs].optional:
                raise
            log.warning("bpf=partial without %s: %s", one.function, error)
            without.append(one.function)
            continue
        held.append(loaded[one.function])
    wanted = [one for one in wanted if one.function in loaded]
    if "controls" in maps:
        mark = records.CONTROL.pack(SystemClock().boot_ns())
        maps["controls"].update(bytes(4), mark)
    for one in wanted:
        if one.tracepoint == ITERATOR:
            continue
        try:
            held.append(_attach(one, loaded[one.function]))
        except LoadError as error:
            if one.function not in SETS[order.programs].optional:
                raise
            log.warning("bpf=partial without %s: %s", one.function, error)
            without.append(one.function)
    seam = (0, 0, 0)
    for one in wanted:
        if one.tracepoint == ITERATOR:
            iterator = loaded.pop(one.function)
            held.remove(iterator)
            try:
                seam = _look(maps, iterator)
            finally:
                os.close(iterator)
    return maps, loaded, seam, tuple(without)


def _look(maps: Mapping[str, Map], iterator: int) -> tuple[int, int, int]:
    """Lets the iterator run, holds what is known then against `/proc`, and gives the seam.

    Raises LoadError where the programs saw something else.
    """
    _iterate(iterator)
    table = ProcessTable(maps["slots"], maps["generations"], maps["spilled"])
    try:
        before = proof.processes()
        table.read()
        known: dict[int, set[int]] = {}
        for key in table.cgroup_ids:
            known.setdefault(key.pid, set()).add(key.start_ns // proof.TICK_NS)
        if problem := proof.problem(before, known, proof.processes()):
            raise LoadError(
                f"The BPF programs do not see this kernel's processes: {problem}.",
                "Rows stay unverified; report what `agent bpf check` says.",
            )
        return _seam(maps, table)
    finally:
        table.close()


def _create(spec: MapSpec) -> int:
    fields = (spec.kind, spec.key_size, spec.value_size, spec.max_entries, spec.flags)
    try:
        return create_map(spec.name, *fields)
    except BpfCallError as error:
        if error.errno != errno.EPERM:
            raise LoadError(f"The kernel refuses the BPF map {spec.name}: {error}") from error
    # Before 5.11 maps count as locked memory.
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY,) * 2)
    return create_map(spec.name, *fields)


def _load(program: Program, maps: list[int]) -> int:
    code = bytearray(program.code)
    for instruction, place in program.references:
        _NUMBER.pack_into(code, 8 * instruction + 4, maps[place])
    kind = _TRACING if program.btf_id else _RAW_TRACEPOINT
    attach_type = 0
    if program.btf_id:
        attach_type = _TRACE_ITER if program.tracepoint == ITERATOR else _TRACE_RAW_TP

    def load_it(log_bytes: int) -> int:
        return load_program(
            program.function,
            kind,
            bytes(code),
            attach_type=attach_type,
            btf_id=program.btf_id,
            log_bytes=log_bytes,
        )

    try:
        return load_it(0)
    except VerifierError as error:
        said = ""
        if error.errno in (errno.EACCES, errno.EINVAL, errno.E2BIG):
            said = _verifiers_reason(load_it)
        raise LoadError(
            f"This kernel refuses the BPF program {program.function}: {said or error}.",
            "Try `agent bpf check`, and report what it says.",
        ) from error


def _verifiers_reason(load_it: Callable[[int], int]) -> str:
    """The last line of the verifier's log that is not its statistics."""
    try:
        os.close(load_it(_LOG_BYTES))
    except VerifierError as error:
        lines = [line for line in error.said.splitlines() if line and line[0].isalpha()]
        reasons = [line for line in lines if not line.startswith(("processed ", "from "))]
        return (reasons or [""])[-1][:300]
    return ""


def _attach(program: Program, fd: int) -> int:
    try:
        return attach_tracepoint(fd, "" if program.btf_id else program.tracepoint)
    except BpfCallError as error:
        raise LoadError(
            f"The tracepoint {program.tracepoint} cannot be attached to: {error}"
        ) from error


def _iterate(program: int) -> None:
    try:
        link = attach_iterator(program, _TRACE_ITER)
    except BpfCallError as error:
        raise LoadError(f"The task iterator cannot be attached: {error}") from error
    try:
        iterate(link)
    finally:
        os.close(link)


def _seam(maps: Mapping[str, Map], table: ProcessTable) -> tuple[int, int, int]:
    """Who saw the processes that live when the iterator has run."""
    counted = read_counters(maps["counters"], possible_cpus())
    both = sum(one.seam_both for one in counted)
    snapshot = sum(one.seam_snapshot for one in counted)
    event = sum(one.seen_event and not one.seen_snapshot for one in table.whole())
    return both, snapshot, event


def read_counters(counters: Map, cpus: int) -> list[records.CpuCounters]:
    """What was counted, by CPU. Raises BpfCallError."""
    per_cpu = Map(counters.fd, counters.key_size, counters.value_size * cpus)
    raw = per_cpu.lookup(bytes(4)) or b""
    return [records.CpuCounters(*fields) for fields in records.CPU_COUNTERS.iter_unpack(raw)]
