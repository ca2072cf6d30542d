// SPDX-License-Identifier: GPL-2.0-only
/*
 * Which cgroup each process is in, what each cgroup's ended processes cost, and who they were.
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

/* include/linux/sched.h */
#define TASK_DEAD 0x80
#define EXIT_DEAD 0x10
#define EXIT_ZOMBIE 0x20
#define PF_EXITING 0x4

/* More threads than this are not walked at a move: base_partial says so. */
#define MOST_THREADS 64

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

/* --- births, execs and moves ------------------------------------------------------------- */

/*
 * Runs after the child can run (kernel/fork.c: kernel_clone), so a move of either may have come
 * before. A child whose pointer is not its parent's record was made inside another cgroup
 * (CLONE_INTO_CGROUP, which no event tells of) if the parent's own pointer is what its record says;
 * else the parent's history is missing something, and the child's goes on with it.
 */
int on_fork(void *ctx)
{
	kptr child = ARG(ctx, 1);
	u32 pid = LOAD32(child, TASK_PID);

	if (pid != LOAD32(child, TASK_TGID))
		return 0;

	kptr cgroup = task_cgroup(child);
	u64 id = cgroup_id(cgroup);
	kptr parent = ARG(ctx, 0);
	kptr leader = LOAD64(parent, TASK_GROUP_LEADER);
	struct process_record *of_parent = find(LOAD32(parent, TASK_TGID), LOAD64(leader, TASK_START));
	struct process_record fresh = {
		.start_ns = LOAD64(child, TASK_START),
		.cgroup_id = id,
		.pid = pid,
		.seen_event = 1,
	};

	if (of_parent && of_parent->cgroup_id && of_parent->cgroup_id != id &&
	    of_parent->cgroup_id != cgroup_id(task_cgroup(leader))) {
		fresh.cgroup_id = of_parent->cgroup_id;
		fresh.pointer_id = id;
		COUNT(corrected);
	}

	/* A move or the iterator may have met it before this event. */
	struct process_record *record = find(pid, fresh.start_ns);

	if (record)
		record->seen_event = 1;
	else if (!make(&fresh))
		COUNT(lost_processes);

	struct cgroup_record *totals = cgroup_record(fresh.cgroup_id, cgroup);

	if (totals)
		ADD(totals->forks, 1);
	return 0;
}

/*
 * After de_thread(): the caller is the leader, with the old leader's pid and start. A move may be
 * under way, its pointer set and its event still to come, so the record is not touched.
 */
int on_exec(void *ctx)
{
	kptr task = ARG(ctx, 0);
	u32 pid = LOAD32(task, TASK_TGID);
	u64 start_ns = LOAD64(task, TASK_START);
	kptr cgroup = task_cgroup(task);
	u64 id = cgroup_id(cgroup);
	struct process_record *record = find(pid, start_ns);

	if (!record) {
		kptr signal = LOAD64(task, TASK_SIGNAL);
		struct process_record fresh = {
			.start_ns = start_ns,
			.cgroup_id = id,
			.threads_cpu_ns = LOAD64(signal, SIGNAL_RUNTIME),
			.pid = pid,
			.seen_event = 1,
		};

		/* Where there is no room now there was none at its fork, which has counted it. */
		make(&fresh);
	} else if (record->cgroup_id != id) {
		if (record->pointer_id != id) {
			record->pointer_id = id;
			COUNT(corrected);
			changed(pid);
		}
		id = record->cgroup_id;
		cgroup = 0;
	}

	struct cgroup_record *totals = cgroup_record(id, cgroup);

	if (totals)
		ADD(totals->execs, 1);
	return 0;
}

/* What all threads of a process have run, those that are gone included. */
static __always_inline u64 group_cpu(kptr leader, kptr signal, u8 *is_partial)
{
	u64 spent = LOAD64(signal, SIGNAL_RUNTIME);
	u64 head = (u64)signal + SIGNAL_THREAD_HEAD;
	u64 node = READ(head);
	int i;

#pragma clang loop unroll(disable)
	for (i = 0; i < MOST_THREADS; i++) {
		if (!node || node == head)
			return spent;
		spent += READ(node - TASK_THREAD_NODE + TASK_RUNTIME);
		node = READ(node);
	}
	*is_partial = 1;
	return spent;
}

/*
 * After the migration (kernel/cgroup/cgroup.c: cgroup_attach_task), still with forks and exits of
 * the process shut out. It is told of tasks that are on their way out too, which are not moved.
 */
int on_attach(void *ctx)
{
	kptr destination = ARG(ctx, 0);

	if (!cgroup_is_ours(destination))
		return 0;

	kptr task = ARG(ctx, 2);
	kptr leader = LOAD64(task, TASK_GROUP_LEADER);
	u32 pid = LOAD32(task, TASK_TGID);

	/* A single thread of a threaded cgroup may move; a process is where its leader is. */
	if (LOAD32(task, TASK_PID) != pid || LOAD32(leader, TASK_FLAGS) & PF_EXITING)
		return 0;

	u64 start_ns = LOAD64(leader, TASK_START);
	u64 id = cgroup_id(destination);
	struct process_record *record = find(pid, start_ns);
	kptr signal = LOAD64(leader, TASK_SIGNAL);
	struct cgroup_record *totals;

	if (record && record->cgroup_id == id) {
		record->pointer_id = 0;
		return 0;
	}

	u8 is_partial = 0;
	u64 spent = group_cpu(leader, signal, &is_partial);

	if (record) {
		/* What it spent where it was is settled there; what follows is the new cgroup's. */
		totals = cgroup_record(record->cgroup_id, 0);
		if (totals) {
			ADD(totals->moved_out, 1);
			if (spent > record->base_cpu_ns)
				ADD(totals->cpu_ended_ns, spent - record->base_cpu_ns);
		}
		record->base_cpu_ns = spent;
		record->base_partial = is_partial;
		record->pointer_id = 0;
		record->seen_event = 1;
		record->moved = 1;
		record->cgroup_id = id;
		changed(pid);
	} else {
		struct process_record fresh = {
			.start_ns = start_ns,
			.cgroup_id = id,
			.base_cpu_ns = spent,
			.threads_cpu_ns = LOAD64(signal, SIGNAL_RUNTIME),
			.pid = pid,
			.seen_event = 1,
			.moved = 1,
			.base_partial = is_partial,
		};

		if (!make(&fresh))
			COUNT(lost_processes);
	}
	totals = cgroup_record(id, destination);
	if (totals)
		ADD(totals->moved_in, 1);
	return 0;
}

/* --- ends ---------------------------------------------------------------------------------- */

static __always_inline void copy_comm(char *to, kptr task)
{
	*(u64 *)to = LOAD64(task, TASK_COMM);
	*(u64 *)(to + 8) = LOAD64(task, TASK_COMM + 8);
}

/*
 * Puts what the process's threads have run since into its cgroup's account, and gives its exit
 * record. The first call is the process's end. Threads that end together may each call it: each
 * takes what is there at that moment and nobody takes it twice.
 */
static __always_inline void settle(struct process_record *record, kptr leader, kptr signal)
{
	u64 spent = XCHG(record->threads_cpu_ns, 0);
	u64 base = XCHG(record->base_cpu_ns, 0);
	bool is_first = !XCHG(record->ended, 1);
	u64 charged = 0;
	int zero = 0;
	struct control *control = controls.lookup(&zero);
	u8 is_short = control && record->start_ns > control->mark_ns;
	u64 id = record->cgroup_id;
	struct cgroup_record *totals = cgroups.lookup(&id);
	s32 exit_code = group_exit_code(leader, signal);
	u8 is_oom = was_oom_killed(signal, exit_code);

	if (!is_first && !spent)
		return;
	if (spent > base)
		charged = spent - base;
	else if (base > spent)
		ADD(record->base_cpu_ns, base - spent);
	ADD(record->exit_cpu_ns, spent);
	if (totals) {
		if (is_first) {
			ADD(totals->exits, 1);
			if (is_short)
				ADD(totals->short_exits, 1);
			if (is_oom)
				ADD(totals->oom_kills, 1);
		}
		if (is_short)
			ADD(totals->cpu_short_ns, charged);
		else
			ADD(totals->cpu_ended_ns, charged);
	} else {
		COUNT(lost_cgroups);
	}
	changed(record->pid);

	struct cpu_counters *cpu = this_cpu();

	if (!cpu)
		return;

	u64 sequence = FETCH_ADD(cpu->exits, 1) + 1;
	struct exit_record *exit = exits.ringbuf_reserve(sizeof(struct exit_record));

	if (!exit)
		return;

	kptr parent = LOAD64(leader, TASK_REAL_PARENT);

	exit->sequence = sequence;
	exit->start_ns = record->start_ns;
	exit->parent_start_ns = LOAD64(parent, TASK_START);
	exit->cgroup_id = id;
	exit->ended_ns = BOOT_NS();
	exit->cpu_ns = spent;
	exit->charged_ns = charged;
	exit->max_rss_pages = LOAD64(signal, SIGNAL_MAXRSS);
	exit->cpu = bpf_get_smp_processor_id();
	exit->pid = record->pid;
	exit->ppid = LOAD32(parent, TASK_TGID);
	exit->exit_code = exit_code;
	exit->kind = is_first ? EXIT_WHOLE : EXIT_REST;
	exit->oom = is_oom;
	exit->short_lived = is_short;
	exit->moved = record->moved;
	exit->reserved = 0;
	copy_comm(exit->comm, leader);
	copy_comm(exit->parent_comm, parent);

	exits.ringbuf_submit(exit, NO_WAKEUP);
}

/*
 * A dead task's last switch (kernel/sched/core.c: do_task_dead): its runtime is final. At
 * sched_process_exit a process of less than a scheduler tick reads 0. Whoever finds no living
 * thread behind it settles the process's account.
 */
int on_switch(void *ctx)
{
	kptr task = ARG(ctx, 1);

#ifdef SWITCH_STATE_ARG
	if ((u32)ARG(ctx, 3) != TASK_DEAD)
		return 0;
#else
	if (LOAD32(task, TASK_STATE) != TASK_DEAD)
		return 0;
#endif
	u32 pid = LOAD32(task, TASK_TGID);
	bool is_leader = LOAD32(task, TASK_PID) == pid;
	/* May have been freed by now, where it is not the task itself: then its start tells. */
	kptr leader = LOAD64(task, TASK_GROUP_LEADER);
	kptr signal = LOAD64(task, TASK_SIGNAL);
	u64 cpu_ns = LOAD64(task, TASK_RUNTIME);
	struct process_record *record = find(pid, LOAD64(leader, TASK_START));

	if (record) {
		u64 before = FETCH_ADD(record->threads_cpu_ns, cpu_ns);

		asm volatile("" : : "r"(before));
		if (!LOAD32(signal, SIGNAL_LIVE))
			settle(record, leader, signal);
		return 0;
	}

	u64 id = cgroup_id(task_cgroup(task));
	struct cgroup_record *totals = cgroups.lookup(&id);

	if (totals) {
		ADD(totals->cpu_ended_ns, cpu_ns);
		if (is_leader)
			ADD(totals->exits, 1);
	}
	return 0;
}

/*
 * Called once a task after its last switch and a grace period (kernel/exit.c:
 * delayed_put_task_struct).
 */
int on_free(void *ctx)
{
	kptr task = ARG(ctx, 0);
	u32 pid = LOAD32(task, TASK_PID);

	if (pid != LOAD32(task, TASK_TGID))
		return 0;

	u64 start_ns = LOAD64(task, TASK_START);
	struct process_record *record = find(pid, start_ns);

	if (!record)
		return 0;
	if (!record->ended) {
		/* Its last switch was not seen: the kernel's own sum is what is left of it. */
		kptr signal = LOAD64(task, TASK_SIGNAL);
		u64 spent = LOAD64(signal, SIGNAL_RUNTIME);

		if (record->threads_cpu_ns < spent)
			record->threads_cpu_ns = spent;
		settle(record, task, signal);
		COUNT(late);
	}
	clear(record, pid, start_ns);
	return 0;
}

/* --- what ran before ------------------------------------------------------------------------- */

/*
 * The task iterator (kernel/bpf/task_iter.c). Runs in an RCU read section, so a task that is not
 * dead *after* its record was made is freed, and the record cleared by on_free(), only after this
 * returns.
 */
int on_task(void *ctx)
{
	kptr task = LOAD64(ctx, 8);

	if (!task)
		return 0;

	u32 pid = LOAD32(task, TASK_PID);

	if (pid != LOAD32(task, TASK_TGID))
		return 0;

	u64 start_ns = LOAD64(task, TASK_START);
	struct process_record *record = find(pid, start_ns);

	if (record) {
		record->seen_snapshot = 1;
		COUNT(seam_both);
		return 0;
	}

	kptr cgroup = task_cgroup(task);
	kptr signal = LOAD64(task, TASK_SIGNAL);
	struct process_record fresh = {
		.start_ns = start_ns,
		.cgroup_id = cgroup_id(cgroup),
		.threads_cpu_ns = LOAD64(signal, SIGNAL_RUNTIME),
		/* What a zombie cost was spent before anybody looked. */
		.ended = LOAD32(task, TASK_EXIT_STATE) == EXIT_ZOMBIE && !LOAD32(signal, SIGNAL_LIVE),
		.pid = pid,
		.seen_snapshot = 1,
	};

	cgroup_record(fresh.cgroup_id, cgroup);
	if (make(&fresh))
		COUNT(seam_snapshot);
	else
		COUNT(lost_processes);
	if (LOAD32(task, TASK_EXIT_STATE) & EXIT_DEAD)
		clear(&fresh, pid, start_ns);
	return 0;
}
