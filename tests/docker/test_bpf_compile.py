"""Both program files on this machine's kernel, also as kernels before 6.16 need them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.sources.bpf.support import probe_support
from agent.sources.cgroup import reader

PROJECT = Path(__file__).resolve().parents[2]
CODE = """
import sys
from agent.sources.bpf.compiler import compile_order
from agent.sources.bpf.loader import load
from agent.sources.bpf.programs import Order
order = Order(programs=sys.argv[1], hierarchy=sys.argv[2], macros=tuple(sys.argv[3:]))
print(*load(compile_order(order), order, kept=False).programs)
"""


@pytest.mark.parametrize(
    "macros",
    [(), ("-UGROUP_DEAD_ARG",), ("-USWITCH_STATE_ARG",)],
    ids=["as it is", "before 6.16", "before 5.18"],
)
@pytest.mark.parametrize(
    ("programs", "at_exit"), [("witness", "on_switch"), ("trace", "trace_exit")]
)
def test_the_kernel_takes_the_programs(
    programs: str, at_exit: str, macros: tuple[str, ...]
) -> None:
    if problem := probe_support().problem:
        pytest.skip(f"needs BPF: {problem[0]}")
    if os.geteuid() != 0:
        pytest.skip("needs root")
    words = [programs, str(reader.detect().hierarchy), *macros]
    done = subprocess.run(
        [sys.executable, "-c", CODE, *words], cwd=PROJECT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert at_exit in done.stdout.split()
