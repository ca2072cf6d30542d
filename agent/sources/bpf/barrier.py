"""Reads of memory that the kernel writes at the same time, in the order in which they are written.

x86 and s390 never let a read overtake an earlier one. Others do, and Python has no barrier of its
own: a futex(2) wake-up of nobody goes through a full one in the kernel (kernel/futex/waitwake.c:
futex_wake, futex_hb_waiters_pending).
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable

_FUTEX = {"aarch64": 98, "riscv64": 98, "loongarch64": 98, "ppc64le": 221}
_WAKE_PRIVATE = 1 | 128

_libc = ctypes.CDLL(None)
_word = ctypes.c_int(0)


def _nothing() -> None:
    """The machine keeps the order by itself."""


def _full_barrier(number: int) -> Callable[[], None]:
    def barrier() -> None:
        _libc.syscall(
            ctypes.c_long(number), ctypes.byref(_word), ctypes.c_int(_WAKE_PRIVATE), ctypes.c_int(1)
        )

    return barrier


def for_machine(machine: str) -> Callable[[], None]:
    """What to call between two reads whose order matters."""
    number = _FUTEX.get(machine)
    return _nothing if number is None else _full_barrier(number)


read_barrier = for_machine(platform.machine())
"""Reads before it are done before reads after it."""
