"""Keeps the agent itself able to act while memory is short: in memory, and not the kernel's choice.

An agent whose own pages have to come back from a disk first is late, and one that the OOM killer
took removes nobody. Only while a rule wants something done before that; children inherit neither
the lock (fork(2)) nor more than the service gives them anyway.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

OOM_SCORE_ADJ = -500
"""As `so1-agent.service` has it. Not -1000: an agent that itself eats the host's memory must go."""

_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
"""include/uapi/asm-generic/mman-common.h; the last since Linux 4.4. Without it every thread's whole
stack would be made resident."""


def lock_memory(lock: Callable[[int], int] | None = None) -> str:
    """Locks what is in memory now or comes there later. Why it could not, "" where it is done."""
    lock = lock or _mlockall
    number = lock(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT)
    return f"its memory is not locked: {os.strerror(number)}" if number else ""


def spare_from_oom_killer(path: Path = Path("/proc/self/oom_score_adj")) -> str:
    """Makes the kernel prefer others. Who is spared more already stays so. Why it could not, ""
    where it is done."""
    try:
        if int(path.read_text(encoding="ascii")) > OOM_SCORE_ADJ:
            path.write_text(f"{OOM_SCORE_ADJ}\n", encoding="ascii")
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else str(error)
        return f"the OOM killer may take the agent itself: {said}"
    return ""


def _mlockall(flags: int) -> int:
    """mlockall(2): 0, or the error's number."""
    libc = ctypes.CDLL(None, use_errno=True)
    return 0 if libc.mlockall(flags) == 0 else ctypes.get_errno()
