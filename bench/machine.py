"""The machine that figures come from: what a report has to name so that it can be compared."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def machine() -> dict[str, object]:
    """CPU model, CPUs, memory, kernel and Python, and whether the CPU is emulated."""
    found: dict[str, object] = {
        "cpu": _cpu_model(),
        "cpus": os.cpu_count(),
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
    if _is_emulated():
        found["emulated"] = "QEMU TCG: ratios count, milliseconds do not"
    return found


def in_words(named: dict[str, object]) -> str:
    """One line for a heading."""
    return " · ".join(f"{name.replace('_', ' ')} {value}" for name, value in named.items())


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _is_emulated() -> bool:
    return "QEMU TCG" in _cpu_model() or "TCG CPU" in _cpu_model()
