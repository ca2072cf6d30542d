"""A piece of a map's memory, there for as long as it is looked at.

All pages of a map are resident as soon as they are mapped, whether anybody touches them or not: the
witness's maps were 8 MB of the agent. To map what a reading needs takes some microseconds.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager

from agent.sources.bpf.syscall import BpfCallError

PAGE = os.sysconf("SC_PAGE_SIZE")


def pages(size: int) -> int:
    """`size` in whole pages, in bytes."""
    return -(-size // PAGE) * PAGE


@contextmanager
def mapped(
    fd: int, begin: int, size: int, *, writable: bool = False
) -> Iterator[tuple[mmap.mmap, int]]:
    """Memory that has the `size` bytes from `begin` on, and where in it they begin.

    Raises BpfCallError where it cannot be mapped.
    """
    skipped = begin % PAGE
    access = mmap.PROT_READ | mmap.PROT_WRITE if writable else mmap.PROT_READ
    try:
        memory = mmap.mmap(fd, pages(skipped + size), prot=access, offset=begin - skipped)
    except OSError as error:
        raise BpfCallError("mmap", error.errno or 0) from error
    with memory:
        yield memory, skipped
