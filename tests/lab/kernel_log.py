"""Tells which lines of a guest's kernel log are a complaint: a warning, a stall, an oops or worse.

A command that passed in a guest whose kernel complained did not pass. The patterns are the
kernel's own words for it, so they hold for any kernel and any module.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_PATTERNS = (
    # include/asm-generic/bug.h, kernel/panic.c
    r"\bWARNING: (?:CPU:|at |possible |suspicious |bad |inconsistent |lock held|.* at )",
    r"\bBUG: ",
    r"kernel BUG at",
    r"\bOops\b",
    r"Kernel panic",
    r"general protection fault",
    # arch/x86/kernel/dumpstack.c: any exception in the kernel, counted
    r": [0-9a-f]{4} \[#\d+\]",
    r"[Uu]nable to handle",
    r"stack-protector:",
    r"kernel stack (?:overflow|is corrupted)",
    # kernel/rcu/tree_stall.h, kernel/watchdog.c, kernel/hung_task.c
    r"detected (?:expedited )?stalls?\b",
    r"self-detected stall",
    r"(?:soft|hard) lockup",
    r"INFO: task .* blocked for more than",
    r"INFO: (?:possible|inconsistent|suspicious|trying to register non-static key)",
    # lib/list_debug.c, lib/refcount.c, lib/debugobjects.c, mm/
    r"list_(?:add|del)\S* corruption",
    r"refcount_t: ",
    r"ODEBUG: ",
    r"Bad page state|bad page map|[Bb]ad rss-counter state",
    r"page allocation failure",
    r"kernel memory leak|\d+ new suspected memory leaks",
    r"\bKASAN: |\bKCSAN: |\bKFENCE: |\bUBSAN: ",
    r"scheduling while atomic|sleeping function called from invalid context",
    r"DEBUG_LOCKS_WARN_ON",
    # A module of ours that cannot be used as it is.
    r"(?:sysinfo|continfo)\w*: (?:Unknown symbol|disagrees about version|no symbol version)",
    r"proc_dir_entry '.*' already registered|remove_proc_entry: removing non-empty",
    # The whole machine out of memory; a container's own limit is «Memory cgroup out of», and a
    # victim of a name that begins so is a test's.
    r"^(?!.*Memory cgroup)(?!.*Killed process \d+ \(so1-oom-).*\b[Oo]ut of memory: ",
)
_COMPLAINTS = re.compile("|".join(_PATTERNS))
_PREFIX = re.compile(r"^(?:<\d+>)?\s*(?:\[[\s\d.]+\]\s*)?")


# Before 8.1, QEMU's multi-threaded TCG may go on executing a breakpoint that the kernel had put
# into its own code for a moment (jump labels): every CPU's first word of it is this oops.
_EMULATOR_FAULT = re.compile(r"\bOops: int3\b|^int3: 0000 \[#1\]")


def emulators_fault(lines: Iterable[str]) -> bool:
    """Whether the first complaint is one that only the emulator can have caused."""
    for line in lines:
        message = _PREFIX.sub("", line.rstrip("\r\n"))
        if _EMULATOR_FAULT.search(message):
            return True
        if _COMPLAINTS.search(message):
            return False
    return False


def complaints(lines: Iterable[str], allowed: Sequence[str] = ()) -> list[str]:
    """The lines that complain, without level and time stamp, each once, in their order.

    `allowed` are regular expressions of lines that the caller provokes on purpose.
    """
    excused = [re.compile(pattern) for pattern in allowed]
    found: dict[str, None] = {}
    for line in lines:
        message = _PREFIX.sub("", line.rstrip("\r\n"))
        if _COMPLAINTS.search(message) and not any(e.search(message) for e in excused):
            found[message] = None
    return list(found)
