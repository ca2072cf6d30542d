"""Both program files on this machine's kernel, also as kernels before 6.16 need them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent.sources.bpf.btf import Btf
from agent.sources.bpf.compiler import source_text
from agent.sources.bpf.offsets import macros
from agent.sources.bpf.programs import SETS
from agent.sources.bpf.support import SOURCES, probe_support
from agent.sources.cgroup import reader
from tests.docker.engine_tree import OTHERS, engine_tree

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


COMPILE_ALONE = """
import os, sys
sources, text, *flags = sys.argv[1:]
os.environ["BCC_KERNEL_SOURCE"] = f"{sources}/headers"
import bcc
made = bcc.BPF(text=open(text, "rb").read(), cflags=flags)
print(sum(len(made.dump_func(name)) > 0 for name in sys.stdin.read().split()))
"""
"""BCC and nothing of the agent, whose packages another suite's tree has not got."""


@pytest.mark.full
@pytest.mark.parametrize("suite", OTHERS)
@pytest.mark.parametrize("programs", ["witness", "trace"])
def test_other_suites_compilers_take_them_too(suite: str, programs: str, tmp_path: Path) -> None:
    shutil.copytree(SOURCES, tmp_path / "bpf")
    text = tmp_path / "text.c"
    text.write_bytes(source_text(SETS[programs]))
    flags = [f"-I{tmp_path}/bpf", *macros(Btf.of_kernel(), reader.detect().hierarchy)]
    names = [probe.function for probe in SETS[programs].probes]
    with engine_tree(suite, tmp_path) as inside:
        done = subprocess.run(
            inside.words(
                *("/usr/bin/python3", "-c", COMPILE_ALONE, f"{tmp_path}/bpf", str(text), *flags)
            ),
            input=" ".join(names),
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(names)
