"""What the host keeps in memory on behalf of containers without saying for whom.

Surplus huge pages, and swap that stays in memory: compressed in zram, which is a swap device, or in
zswap, which is in front of one. All of it is the host's sum; `agent.analysis.held_memory` shares it
out.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from agent.analysis.held_memory import HostMemory
from agent.sources import procfs

_SIZE = re.compile(r"^hugepages-(\d+)kB$")
_ZRAM = re.compile(r"^/dev/(zram\d+)$")


def read(proc: Path, sys: Path) -> HostMemory:
    """One reading; what the kernel does not have is 0 or absent. Raises nothing."""
    info = _meminfo_kb(f"{proc}/meminfo")
    return HostMemory(
        surplus_kb=_surplus_kb(sys / "kernel/mm/hugepages"),
        swap_used_kb=max(0, info.get("SwapTotal", 0) - info.get("SwapFree", 0)),
        zram_kb=sum(_zram_kb(sys, device) for device in _zram_devices(f"{proc}/swaps")),
        zswap_kb=info.get("Zswap", 0),
        zswapped_kb=info.get("Zswapped", 0),
    )


def _meminfo_kb(path: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for line in _text(path).splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            found[name] = int(words[0])
    return found


def _surplus_kb(directory: Path) -> dict[int, int]:
    """By size of page in KB: those beyond the static pool, which go back to the host when freed
    (`free_huge_folio`, mm/hugetlb.c). Sizes without any are left out."""
    try:
        names = os.listdir(directory)
    except OSError:
        return {}
    found = {}
    for name in names:
        match = _SIZE.match(name)
        pages = _text(f"{directory}/{name}/surplus_hugepages").strip()
        if match and pages.isdigit() and int(pages):
            found[int(match[1])] = int(match[1]) * int(pages)
    return found


def _zram_devices(path: str) -> list[str]:
    words = (line.split() for line in _text(path).splitlines())
    return [match[1] for line in words if line and (match := _ZRAM.match(line[0]))]


def _zram_kb(sys: Path, device: str) -> int:
    """`mem_used_total`, the third figure of `mm_stat`: with what the allocator wastes."""
    figures = _text(f"{sys}/block/{device}/mm_stat").split()
    return int(figures[2]) // 1024 if len(figures) > 2 and figures[2].isdigit() else 0


def _text(path: str) -> str:
    try:
        return procfs.read(path).decode("ascii", "replace")
    except OSError:
        return ""
