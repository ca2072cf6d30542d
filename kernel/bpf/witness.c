// SPDX-License-Identifier: GPL-2.0-only
/*
 * Which cgroup each process is in, what each cgroup's ended processes cost, and who they were.
 *
 * Here are the maps and how a record is found, made and cleared; the programs are in births.c,
 * ends.c, snapshot.c, cgroups.c and oom.c, all compiled as one behind this file.
 *
 * A history of its own: a child starts with its parent's recorded cgroup, a move takes the
 * destination that the kernel told; the task's own pointer is only the check. Processes that were
 * there before come from one pass of the task iterator, which never overwrites what an event told.
 * CPU is settled when a thread switches for the last time; sched_process_free only clears.
 *
 * Programs may run at the same time on several CPUs, and on the newest kernels may be preempted:
 * nothing relies on more than single loads, single stores and atomics. on_switch() runs with the
 * run queue locked, so it only looks maps up and wakes nobody.
 */
#include "records.h"
#include "typed.h"
#include "untyped.h"

/* include/uapi/linux/bpf.h */
#define NO_WAKEUP 1
#define BPF_F_MMAPABLE 1024

/*
 * A process's record is at its pid modulo SLOTS. Where another process has that place the record is
 * in `spilled`, which is bounded by SPILLED; when that is full too the new process has no record (it
 * stays unverified) and lost_processes counts it.
 */
BPF_F_TABLE("array", u32, struct process_record, slots, SLOTS, BPF_F_MMAPABLE);
BPF_F_TABLE("hash", struct process_key, struct process_record, spilled, SPILLED, 0);

/* Of every SLOT_BLOCK slots how often one of them changed: the reader looks at those alone. */
BPF_F_TABLE("array", u32, u64, generations, SLOTS / SLOT_BLOCK, BPF_F_MMAPABLE);

/*
 * Bounded by MAX_CGROUPS. The reader deletes records of removed directories once it has read
 * them. When it is full the new cgroup's events are not counted and lost_cgroups says how many.
 */
BPF_F_TABLE("hash", u64, struct cgroup_record, cgroups, MAX_CGROUPS, 0);

/*
 * Bounded by EXIT_PAGES. When it is full the record is dropped; its sequence number is not given
 * again, and `exits` of its CPU says how many there were.
 */
BPF_RINGBUF_OUTPUT(exits, EXIT_PAGES);

BPF_PERCPU_ARRAY(counters, struct cpu_counters, 1);
BPF_ARRAY(controls, struct control, 1);

static __always_inline struct cpu_counters *this_cpu(void)
{
	int zero = 0;

	return counters.lookup(&zero);
}

#define COUNT(field) do {						\
	struct cpu_counters *__cpu = this_cpu();			\
									\
	if (__cpu)							\
		ADD(__cpu->field, 1);					\
} while (0)

/* --- records of processes ---------------------------------------------------------------- */

static __always_inline struct process_record *slot_of(u32 pid)
{
	u32 place = pid & (SLOTS - 1);

	return slots.lookup(&place);
}

/* After every change of a record, and after the change alone: the reader compares, then reads. */
static __always_inline void changed(u32 pid)
{
	u32 block = (pid & (SLOTS - 1)) / SLOT_BLOCK;
	u64 *generation = generations.lookup(&block);

	if (generation) {
		u64 before = FETCH_ADD(*generation, 1);

		/* Used, so that it stays an atomic that orders. */
		asm volatile("" : : "r"(before));
	}
}

static __always_inline struct process_record *find(u32 pid, u64 start_ns)
{
	struct process_record *record = slot_of(pid);

	if (record && record->start_ns == start_ns && record->pid == pid)
		return record;

	if (!record || !record->spills)
		return 0;

	struct process_key key = { .pid = pid, .start_ns = start_ns };

	return spilled.lookup(&key);
}

/* Whether the record's place can be had: nobody is there, or nobody any more. */
static __always_inline bool take(struct process_record *slot, u32 pid)
{
	if (!XCHG(slot->claimed, 1))
		return true;
	if (slot->pid == pid) {
		/* The pid is used again, so whoever had it has been freed, and nobody told. */
		if (!slot->ended)
			COUNT(lost_processes);
		else if (!slot->released)
			COUNT(late);
		return true;
	}
	return XCHG(slot->released, 0);
}

/* Makes the record of a process that has none. False where there is no room. */
static __always_inline bool make(struct process_record *fresh)
{
	struct process_record *slot = slot_of(fresh->pid);

	if (slot && take(slot, fresh->pid)) {
		slot->cgroup_id = 0;
		slot->start_ns = 0;
		slot->pid = fresh->pid;
		slot->pointer_id = fresh->pointer_id;
		slot->base_cpu_ns = fresh->base_cpu_ns;
		slot->threads_cpu_ns = fresh->threads_cpu_ns;
		slot->exit_cpu_ns = 0;
		slot->ended = fresh->ended;
		slot->released = 0;
		slot->seen_event = fresh->seen_event;
		slot->seen_snapshot = fresh->seen_snapshot;
		slot->moved = fresh->moved;
		slot->base_partial = fresh->base_partial;
		slot->cgroup_id = fresh->cgroup_id;
		asm volatile("" : : : "memory");
		slot->start_ns = fresh->start_ns;
		changed(fresh->pid);
		return true;
	}

	struct process_key key = { .pid = fresh->pid, .start_ns = fresh->start_ns };

	/* Counted first: whoever looks for the record must not be kept from it. */
	if (slot)
		__sync_fetch_and_add(&slot->spills, 1);
	if (!spilled.insert(&key, fresh)) {
		changed(fresh->pid);
		return true;
	}
	if (slot)
		__sync_fetch_and_add(&slot->spills, -1);
	return false;
}

static __always_inline void clear(struct process_record *record, u32 pid, u64 start_ns)
{
	struct process_record *slot = slot_of(pid);

	/* Not by the pointer: a record in `spilled` looks the same. */
	if (slot && slot->start_ns == start_ns && slot->pid == pid) {
		slot->cgroup_id = 0;
		asm volatile("" : : : "memory");
		slot->start_ns = 0;
		slot->pid = 0;
		changed(pid);
		XCHG(slot->claimed, 0);
		return;
	}

	struct process_key key = { .pid = pid, .start_ns = start_ns };

	if (!spilled.delete(&key) && slot)
		__sync_fetch_and_add(&slot->spills, -1);
	changed(pid);
}

/* --- records of cgroups ------------------------------------------------------------------ */

static __always_inline struct cgroup_record *cgroup_record(u64 id, kptr cgroup)
{
	struct cgroup_record *record = cgroups.lookup(&id);

	if (!record && id) {
		struct cgroup_record fresh = {};

		if (cgroup)
			fresh.parent_id = cgroup_parent_id(cgroup);
		cgroups.insert(&id, &fresh);
		record = cgroups.lookup(&id);
	}
	if (!record)
		COUNT(lost_cgroups);
	return record;
}
