"""A start of the probes on this machine's kernel: from what is kept, or from a fresh compile."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from agent.clock import SystemClock
from agent.sources.bpf import kept, witness
from agent.sources.bpf.loader import LoadError, load
from agent.sources.bpf.programs import Compiled, Order
from agent.sources.bpf.startup import Startup
from agent.sources.bpf.support import probe_support
from agent.sources.cgroup import reader
from tests.containers import wait_until

if TYPE_CHECKING:
    from agent.sources.bpf.programs import Handover

PROJECT = Path(__file__).resolve().parents[2]
ORDER = Order("witness", str(reader.detect().hierarchy))


CODE = """
import sys, msgspec
from agent.sources.bpf.compiler import compile_order
from agent.sources.bpf.programs import Order
compiled = compile_order(msgspec.json.decode(sys.argv[1], type=Order))
sys.stdout.buffer.write(msgspec.msgpack.encode(compiled))
"""


def compile_order(order: Order) -> Compiled:
    """In a process of its own, as BCC stays in the one that uses it."""
    words = [sys.executable, "-c", CODE, msgspec.json.encode(order).decode()]
    done = subprocess.run(words, cwd=PROJECT, stdout=subprocess.PIPE, check=True)
    return msgspec.msgpack.decode(done.stdout, type=Compiled)


@pytest.fixture(autouse=True)
def _able() -> None:
    if problem := probe_support().problem:
        pytest.skip(f"needs BPF: {problem[0]}")
    if os.geteuid() != 0:
        pytest.skip("needs root")


def started(directory: Path) -> Handover:
    """How the witness came to be ready."""
    one = witness.Witness.start(reader.detect().hierarchy, SystemClock(), directory=directory)
    try:
        wait_until(lambda: one.poll().status != "starting", "the probes are there", timeout_s=300)
        assert one.state.status == "ready", one.state
        assert one.probes is not None
        return one.probes.handover
    finally:
        one.close()


def refuse_to_compile(self: Startup) -> Compiled:
    raise AssertionError(f"compiled although {self} was kept")


def test_what_was_compiled_once_is_loaded_by_every_later_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = started(tmp_path / "bpf")
    assert (first.kept, first.compile_ms > 0) == (False, True)
    monkeypatch.setattr(Startup, "_compile", refuse_to_compile)
    second = started(tmp_path / "bpf")
    assert (second.kept, second.compile_ms) == (True, 0)


def test_a_changed_file_is_refused_and_made_fresh(tmp_path: Path) -> None:
    started(tmp_path / "bpf")
    file = tmp_path / "bpf" / kept.file_name(ORDER)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert not started(tmp_path / "bpf").kept
    assert started(tmp_path / "bpf").kept


def test_what_another_kernel_made_is_made_fresh_without_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    other = {**kept.made_for(ORDER), "kernel": "6.1.0-50-amd64 #1"}
    kept.write(tmp_path / "bpf", ORDER, other, compile_order(ORDER))
    assert not started(tmp_path / "bpf").kept
    told = {
        record.levelno for record in caplog.records if "was made for other kernel" in record.message
    }
    assert told == {logging.INFO}


def test_instructions_that_see_nothing_are_refused_though_the_kernel_takes_them(
    tmp_path: Path,
) -> None:
    """As if the key had missed a difference: a start is read from where none is."""
    blind = compile_order(
        Order(ORDER.programs, ORDER.hierarchy, macros=("-UTASK_START", "-DTASK_START=TASK_RUNTIME"))
    )
    with pytest.raises(LoadError, match="do not see this kernel's processes"):
        load(blind, ORDER, kept=True)
    kept.write(tmp_path / "bpf", ORDER, kept.made_for(ORDER), blind)
    assert not started(tmp_path / "bpf").kept
    assert started(tmp_path / "bpf").kept
