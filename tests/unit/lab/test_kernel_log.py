"""Which lines of a kernel log fail a guest's run, tried on lines that real kernels wrote."""

from __future__ import annotations

import pytest

from tests.lab.kernel_log import complaints, emulators_fault

COMPLAINTS = [
    "WARNING: CPU: 1 PID: 412 at kernel/softirq.c:352 __local_bh_enable_ip+0x34/0x80",
    "WARNING: possible circular locking dependency detected",
    "WARNING: suspicious RCU usage",
    "WARNING: kernel/workqueue.c:3033 at __flush_work+0x1b/0x30, CPU#0: insmod/411",
    "BUG: unable to handle page fault for address: ffffffffc0a01000",
    "BUG: kernel NULL pointer dereference, address: 0000000000000008",
    "BUG: KASAN: slab-use-after-free in sysinfo_show+0x41/0x90 [sysinfo]",
    "BUG: sleeping function called from invalid context at mm/slab.h:494",
    "BUG: scheduling while atomic: cat/502/0x00000002",
    "kernel BUG at mm/slub.c:448!",
    "Oops: 0002 [#1] PREEMPT SMP NOPTI",
    "int3: 0000 [#1] PREEMPT SMP NOPTI",
    "invalid opcode: 0000 [#1] PREEMPT SMP",
    "general protection fault, probably for non-canonical address 0xdead000000000122",
    "Kernel panic - not syncing: Fatal exception",
    "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
    "rcu: INFO: rcu_preempt self-detected stall on CPU",
    "rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 1-.... }",
    "watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [cat:501]",
    "INFO: task rmmod:733 blocked for more than 120 seconds.",
    "list_del corruption, ffff8881 ->next is LIST_POISON1 (dead000000000100)",
    "refcount_t: underflow; use-after-free.",
    "ODEBUG: free active (active state 0) object: 0 object type: timer_list",
    "BUG: Bad page state in process cat  pfn:12345",
    "cat: page allocation failure: order:5, mode:0x40dc0",
    "kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
    "UBSAN: array-index-out-of-bounds in ./sysinfo.c:12:3",
    "proc_dir_entry '/proc/sysinfo_so1_202300539' already registered",
    "sysinfo: Unknown symbol cgroup_path_ns (err -2)",
    "Out of memory: Killed process 812 (stress) total-vm:140000kB",
]
ORDINARY = [
    "sysinfo: loading out-of-tree module taints kernel.",
    "sysinfo: module verification failed: signature and/or required key missing - tainting kernel",
    "Modulo sysinfo cargado.",
    "docker0: port 1(veth1c2) entered blocking state",
    "Memory cgroup out of memory: Killed process 901 (stress) total-vm:140000kB",
    "Out of memory: Killed process 812 (so1-oom-holder) total-vm:140000kB",
    "systemd[1]: Starting Debugfs warning collector...",
    "clocksource: Watchdog remote CPU 1 read timed out",
    "EXT4-fs (vda): warning: mounting unchecked fs, running e2fsck is recommended",
    "overlayfs: upper fs does not support tmpfile.",
]


@pytest.mark.parametrize("line", COMPLAINTS)
def test_a_line_in_which_the_kernel_complains_is_found(line: str) -> None:
    assert complaints([f"<4>[   12.345678] {line}"]) == [line]
    assert complaints([f"[   12.345678] {line}\n"]) == [line]


@pytest.mark.parametrize("line", ORDINARY)
def test_an_ordinary_line_is_no_complaint(line: str) -> None:
    assert complaints([f"<6>[   12.345678] {line}"]) == []


def test_a_line_that_both_logs_have_is_told_once() -> None:
    line = "BUG: Bad rss-counter state mm:ffff8881"
    assert complaints([f"[    3.1] {line}", f"<1>[    3.100000] {line}"]) == [line]


def test_what_a_test_provokes_on_purpose_is_allowed_and_nothing_else() -> None:
    lines = ["WARNING: CPU: 0 PID: 1 at a.c:1", "kernel BUG at b.c:2!"]
    assert complaints(lines, [r"at a\.c"]) == ["kernel BUG at b.c:2!"]


def test_only_a_log_that_begins_with_the_emulators_own_oops_is_the_emulators_fault() -> None:
    stale = "[    2.856671] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI"
    assert emulators_fault(["[    0.1] Linux version 6.12", stale])
    assert emulators_fault(["[    2.8] int3: 0000 [#1] PREEMPT SMP NOPTI"])
    assert not emulators_fault(["[    2.1] BUG: KASAN: out-of-bounds", stale])
    assert not emulators_fault(["[    2.1] Modulo sysinfo cargado."])
