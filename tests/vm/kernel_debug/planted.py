"""Mistakes planted in the modules, each of which the debug kernel has to report.

Without them a run that reports nothing would prove nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MODULES = "kernel/modules"


@dataclass(frozen=True, slots=True)
class Planted:
    """Replace `old` by `new` everywhere in `file`; the kernel then says `report` (a regex)."""

    name: str
    file: str
    old: str
    new: str
    report: str


PLANTED = (
    Planted(
        "tasks read without RCU",
        "task_walk.h",
        "rcu_read_lock();",
        "",
        r"suspicious RCU usage",
    ),
    Planted(
        "sleeping under RCU",
        "task_walk.h",
        "	p->state = so1_task_state(leader) & SO1_STATE_MASK;",
        "	p->state = so1_task_state(leader) & SO1_STATE_MASK;\n"
        "	kvfree(kvmalloc(64, GFP_KERNEL));",
        r"sleeping function called from invalid context",
    ),
    Planted(
        "written past a chunk's end",
        "json_out.h",
        "kvmalloc(SO1_CHUNK,",
        "kvmalloc(SO1_CHUNK / 4,",
        r"KASAN: slab-out-of-bounds",
    ),
    Planted(
        "used after it was freed",
        "snapshot.h",
        "	kfree(snap);\n	return 0;",
        "	kfree(snap);\n	return READ_ONCE(snap->ready) ? 0 : -EIO;",
        r"KASAN: slab-use-after-free",
    ),
    Planted(
        "chunks not freed",
        "json_out.h",
        "	xa_for_each(&text->chunks, index, chunk)\n		kvfree(chunk);",
        "	xa_for_each(&text->chunks, index, chunk)\n		cond_resched();",
        r"new suspected memory leaks",
    ),
    Planted(
        "a lock kept on return",
        "snapshot.h",
        "unlock:\n	mutex_unlock(&snap->lock);",
        "unlock:",
        r"lock held when returning to user space",
    ),
    Planted(
        "task_lock taken twice",
        "task_walk.h",
        "	task_unlock(speaker);\n",
        "	get_task_comm(p->comm, speaker);\n	task_unlock(speaker);\n",
        r"possible recursive locking detected",
    ),
)


def plant(mistake: Planted, checkout: Path) -> None:
    """Make the mistake in a copy of the checkout."""
    path = checkout / MODULES / mistake.file
    text = path.read_text(encoding="utf-8")
    if mistake.old not in text:
        raise ValueError(f"«{mistake.name}» fits {mistake.file} no longer")
    text = text.replace(mistake.old, mistake.new)
    if mistake.old == "rcu_read_lock();":
        text = text.replace("rcu_read_unlock();", "")
    path.write_text(text, encoding="utf-8")
