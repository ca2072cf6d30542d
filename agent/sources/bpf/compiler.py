"""The process that compiles the BPF programs with BCC, attaches them, hands them over and ends.

BCC keeps some 140 MB resident after a compile and gives none of it back, so the long-running agent
never loads it. This process sends the descriptors of maps, programs and attachments through a Unix
socket; with the last descriptor the kernel removes everything, because nothing is pinned.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from agent.clock import SystemClock
from agent.errors import AgentError, SourceError
from agent.model.container import Hierarchy
from agent.sources.bpf import records
from agent.sources.bpf.btf import Btf
from agent.sources.bpf.offsets import macros
from agent.sources.bpf.programs import SETS, Handover, Order, ProgramSet
from agent.sources.bpf.support import SOURCES
from agent.sources.bpf.syscall import Map, iterate, possible_cpus

TABLE_HEADERS = ("exit_once.h",)
"""Those below `kernel/bpf` that hold a BPF table."""


class HelperError(SourceError):
    """The programs could not be compiled, loaded or attached."""


def main(arguments: Sequence[str]) -> int:
    """`SOCKET ORDER`: the descriptor of a Unix socket and an Order as JSON. Status 0 when sent."""
    os.nice(5)
    channel = socket.socket(fileno=int(arguments[0]))
    order = msgspec.json.decode(arguments[1].encode(), type=Order)
    descriptors: list[int] = []
    try:
        handover, descriptors = prepare(order)
    except AgentError as error:
        handover = Handover(failure=error.message, hint=error.hint)
    try:
        socket.send_fds(channel, [msgspec.json.encode(handover)], descriptors)
    except OSError:
        return 1  # Whoever asked is gone: so are the probes, with this process.
    return 0


def prepare(order: Order) -> tuple[Handover, list[int]]:
    """Compiles, attaches, lets the iterator run once. Raises AgentError.

    The descriptors come in the order that Handover gives them. They live as long as this process.
    """
    programs = SETS[order.programs]
    flags = [f"-I{SOURCES}", *macros(Btf.of_kernel(), Hierarchy(order.hierarchy)), *order.macros]
    bcc = _import_bcc()
    began = time.monotonic()
    module, headers = _compile(bcc, programs, flags)
    compiled = time.monotonic()
    maps = {name: _map_fd(bcc, module, name) for name in programs.maps}
    wanted = [one for one in programs.probes if not order.probes or one.function in order.probes]
    loaded: dict[str, int] = {}
    for probe in wanted:
        loaded[probe.function] = _load(module, probe.function, bcc.BPF.RAW_TRACEPOINT)
    iterator = _load(module, programs.iterator, bcc.BPF.TRACING) if programs.iterator else -1
    if "controls" in programs.maps:
        mark = records.CONTROL.pack(SystemClock().boot_ns())
        _map(programs, maps, "controls").update(bytes(4), mark)
    links = {
        probe.tracepoint: _attach(bcc, probe.tracepoint, loaded[probe.function]) for probe in wanted
    }
    seam = (0, 0, 0)
    if iterator >= 0:
        link = bcc.lib.bcc_iter_attach(iterator, None, 0)
        if link < 0:
            raise HelperError("The task iterator cannot be attached.")
        iterate(link)
        os.close(link)
        seam = _seam(programs, maps)
    handover = Handover(
        maps=tuple(maps),
        programs=tuple(loaded),
        links=tuple(links),
        bcc=getattr(bcc, "__version__", "?"),
        headers=headers,
        compile_ms=int((compiled - began) * 1000),
        attach_ms=int((time.monotonic() - compiled) * 1000),
        seam=seam,
    )
    return handover, [*maps.values(), *loaded.values(), *links.values()]


def _import_bcc() -> Any:
    try:
        import bcc  # noqa: PLC0415
    except (ImportError, OSError, AttributeError) as error:
        raise HelperError(
            f"BCC cannot be used: {error}.", "Run `apt-get install python3-bpfcc`."
        ) from error
    return bcc


def _compile(bcc: Any, programs: ProgramSet, flags: list[str]) -> tuple[Any, str]:
    """BCC's module and which headers it took.

    First with the few headers of our own in place of the kernel's: that needs no headers package,
    cannot break on a kernel newer than BCC, and is many times faster. Then as BCC does it.
    """
    text = source_text(programs)
    for headers in ("own", "kernel"):
        if headers == "own":
            os.environ["BCC_KERNEL_SOURCE"] = str(SOURCES / "headers")
        else:
            os.environ.pop("BCC_KERNEL_SOURCE", None)
        try:
            return bcc.BPF(text=text, cflags=flags), headers
        except Exception as error:  # noqa: BLE001 - BCC raises nothing more precise
            print(f"compile with {headers} headers: {error}", file=sys.stderr, flush=True)
    version = getattr(bcc, "__version__", "?")
    raise HelperError(
        f"BCC {version} cannot compile the programs for Linux {os.uname().release}.",
        "Install a newer python3-bpfcc and the kernel's headers.",
    )


def source_text(programs: ProgramSet) -> bytes:
    """The program file with the header that holds a table put in its place.

    BCC rewrites calls of a table's methods in the text that it is given and in no file that this
    includes: there they stay calls through a pointer, which the kernel refuses (opcode 8d).
    """
    text = (SOURCES / programs.source).read_bytes()
    for name in TABLE_HEADERS:
        text = text.replace(b'#include "%s"\n' % name.encode(), (SOURCES / name).read_bytes())
    return text


def _load(module: Any, function: str, kind: int) -> int:
    try:
        return int(module.load_func(function.encode(), kind).fd)
    except Exception as error:
        raise HelperError(
            f"This kernel refuses the BPF program {function}: {error}.",
            "See the log for the verifier's reason.",
        ) from error


def _map_fd(bcc: Any, module: Any, name: str) -> int:
    fd = int(bcc.lib.bpf_table_fd(module.module, name.encode()))
    if fd < 0:
        raise HelperError(f"BCC made no map {name}.")
    return fd


def _map(programs: ProgramSet, maps: dict[str, int], name: str) -> Map:
    key, value = programs.maps[name]
    return Map(maps[name], key, value)


def _attach(bcc: Any, tracepoint: str, program: int) -> int:
    fd = int(bcc.lib.bpf_attach_raw_tracepoint(program, tracepoint.encode()))
    if fd < 0:
        raise HelperError(f"The tracepoint {tracepoint} cannot be attached to.")
    return fd


def _seam(programs: ProgramSet, maps: dict[str, int]) -> tuple[int, int, int]:
    """Who saw the processes that live when the iterator has run."""
    key, value = programs.maps["counters"]
    raw = Map(maps["counters"], key, value * possible_cpus()).lookup(bytes(4)) or b""
    both = snapshot = 0
    for fields in records.CPU_COUNTERS.iter_unpack(raw):
        counters = records.CpuCounters(*fields)
        both += counters.seam_both
        snapshot += counters.seam_snapshot
    event = 0
    for _, values in _map(programs, maps, "processes").chunks():
        for fields in records.PROCESS_RECORD.iter_unpack(values):
            record = records.ProcessRecord(*fields)
            event += record.seen_event and not record.seen_snapshot
    return both, snapshot, event


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
