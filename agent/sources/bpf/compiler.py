"""The process that compiles the BPF programs with BCC, writes their instructions down and ends.

BCC keeps some 140 MB resident after a compile and gives none of it back, so the long-running agent
never loads it. What this process writes is loaded by the agent itself (`loader`) and kept for
later starts (`kept`).
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from agent.errors import AgentError, SourceError
from agent.model.container import Hierarchy
from agent.sources.bpf.btf import Btf
from agent.sources.bpf.offsets import macros
from agent.sources.bpf.programs import ITERATOR, SETS, Compiled, MapSpec, Order, Program, ProgramSet
from agent.sources.bpf.support import SOURCES

TABLE_HEADERS = ("exit_once.h",)
"""Those below `kernel/bpf` that hold a BPF table."""

_INSTRUCTION = struct.Struct("=BBhi")
_LOAD_WIDE = 0x18
_MAP_REFERENCE = 1
"""BPF_PSEUDO_MAP_FD: the instruction's number is a map's descriptor."""


class HelperError(SourceError):
    """The programs could not be compiled."""


def main(arguments: Sequence[str]) -> int:
    """`FD ORDER`: the descriptor of a file to write a Compiled to, and an Order as JSON."""
    order = msgspec.json.decode(arguments[1].encode(), type=Order)
    try:
        compiled = compile_order(order)
    except AgentError as error:
        compiled = Compiled(failure=error.message, hint=error.hint)
    with open(int(arguments[0]), "wb") as file:
        file.write(msgspec.msgpack.encode(compiled))
    return 0


def compile_order(order: Order) -> Compiled:
    """The whole program set for the running kernel. Raises AgentError."""
    programs = SETS[order.programs]
    btf = Btf.of_kernel()
    flags = [f"-I{SOURCES}", *macros(btf, Hierarchy(order.hierarchy)), *order.macros]
    bcc = _import_bcc()
    began = time.monotonic()
    module, headers = _compile(bcc, programs, flags)
    _declare(bcc.lib)
    tables = range(bcc.lib.bpf_num_tables(module.module))
    maps = [_map(bcc, module, table) for table in tables]
    places = {bcc.lib.bpf_table_fd_id(module.module, table): table for table in tables}
    made = [
        _program(
            module,
            probe.function,
            probe.tracepoint,
            btf.typedef(f"btf_trace_{probe.tracepoint}") if probe.typed else 0,
            places,
        )
        for probe in programs.probes
    ]
    if programs.iterator:
        made.append(
            _program(module, programs.iterator, ITERATOR, btf.function("bpf_iter_task"), places)
        )
    return Compiled(
        maps=tuple(maps),
        programs=tuple(made),
        bcc=getattr(bcc, "__version__", "?"),
        headers=headers,
        compile_ms=int((time.monotonic() - began) * 1000),
    )


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
    """The program files as one, with the header that holds a table put in its place.

    BCC rewrites calls of a table's methods in the text that it is given and in no file that this
    includes: there they stay calls through a pointer, which the kernel refuses (opcode 8d).
    """
    text = b"".join((SOURCES / name).read_bytes() for name in programs.sources)
    for name in TABLE_HEADERS:
        text = text.replace(b'#include "%s"\n' % name.encode(), (SOURCES / name).read_bytes())
    return text


def _declare(library: Any) -> None:
    """The functions of libbcc that BCC's own Python leaves undeclared."""
    library.bpf_num_tables.argtypes = (ctypes.c_void_p,)
    library.bpf_num_tables.restype = ctypes.c_size_t
    library.bpf_table_fd_id.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    library.bpf_table_fd_id.restype = ctypes.c_int
    library.bpf_table_name.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    library.bpf_table_name.restype = ctypes.c_char_p


def _map(bcc: Any, module: Any, table: int) -> MapSpec:
    of = {
        what: int(getattr(bcc.lib, f"bpf_table_{what}_id")(module.module, table))
        for what in ("type", "key_size", "leaf_size", "max_entries", "flags")
    }
    name = bcc.lib.bpf_table_name(module.module, table).decode("ascii")
    return MapSpec(
        name, of["type"], of["key_size"], of["leaf_size"], of["max_entries"], of["flags"]
    )


def _program(
    module: Any, function: str, tracepoint: str, btf_id: int, places: dict[int, int]
) -> Program:
    code = bytes(module.dump_func(function.encode()))
    references = []
    for place, (opcode, registers, _, number) in enumerate(_INSTRUCTION.iter_unpack(code)):
        if opcode == _LOAD_WIDE and _source(registers) == _MAP_REFERENCE:
            if number not in places:
                raise HelperError(f"The program {function} names a map that BCC does not have.")
            references.append((place, places[number]))
    return Program(function, tracepoint, btf_id, code, tuple(references))


def _source(registers: int) -> int:
    """The source register of an instruction: which half of the byte depends on the byte order."""
    return registers >> 4 if sys.byteorder == "little" else registers & 0xF


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
