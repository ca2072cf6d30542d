"""The host's sums, from files as the kernel writes them."""

from __future__ import annotations

from pathlib import Path

from agent.analysis.held_memory import HostMemory
from agent.sources import host_memory

MEMINFO = """MemTotal:        4022308 kB
SwapCached:          204 kB
SwapTotal:       1048572 kB
SwapFree:         648572 kB
Zswap:             81920 kB
Zswapped:         307200 kB
HugePages_Surp:       64
"""
SWAPS = """Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority
/dev/zram0                              partition\t1048572\t\t400000\t\t100
/var/swap                               file\t\t1048572\t\t0\t\t-2
"""


def host(tmp_path: Path) -> tuple[Path, Path]:
    proc, sys = tmp_path / "proc", tmp_path / "sys"
    proc.mkdir()
    (proc / "meminfo").write_text(MEMINFO)
    (proc / "swaps").write_text(SWAPS)
    for size, pages in ((2048, 64), (1048576, 0)):
        pool = sys / f"kernel/mm/hugepages/hugepages-{size}kB"
        pool.mkdir(parents=True)
        (pool / "surplus_hugepages").write_text(f"{pages}\n")
    for number in range(2):
        device = sys / f"block/zram{number}"
        device.mkdir(parents=True)
        (device / "mm_stat").write_text("409600000 204800000 209715200 0 210000000 1 0 0 0\n")
    return proc, sys


def test_surplus_pages_swap_zram_and_zswap_are_read(tmp_path: Path) -> None:
    """The second zram device is no swap."""
    assert host_memory.read(*host(tmp_path)) == HostMemory(
        surplus_kb={2048: 131_072},
        swap_used_kb=400_000,
        zram_kb=204_800,
        zswap_kb=81_920,
        zswapped_kb=307_200,
    )


def test_a_host_without_any_of_it_has_zeros(tmp_path: Path) -> None:
    assert host_memory.read(tmp_path / "proc", tmp_path / "sys") == HostMemory()


def test_texts_that_are_none_of_the_kernels_are_zeros(tmp_path: Path) -> None:
    proc, sys = host(tmp_path)
    (proc / "meminfo").write_bytes(b"SwapTotal: x kB\n\xff\n:\nZswap:\n")
    (sys / "block/zram0/mm_stat").write_text("1 2\n")
    (sys / "kernel/mm/hugepages/hugepages-2048kB/surplus_hugepages").write_text("-3\n")
    assert host_memory.read(proc, sys) == HostMemory()
