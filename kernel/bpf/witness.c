// SPDX-License-Identifier: GPL-2.0-only
/*
 * Which cgroup each process is in, and what each cgroup's ended processes cost: the second witness.
 *
 * The record of a process is made at fork, checked at exec, changed by a move between cgroups and
 * removed when the kernel frees the leader. Processes that were there before come from one pass of
 * the task iterator, which never overwrites what an event told. Raw tracepoints run with
 * preemption disabled and cannot sleep; nothing here sends anything to user space.
 */
#include "records.h"
#include "task.h"
#include "exit_once.h"

/*
 * Bounded by MAX_PROCESSES living processes; memory is taken a record at a time. When it is full a
 * new process has no record (it stays unverified) and lost_processes counts it.
 */
BPF_F_TABLE("hash", struct process_key, struct process_record, processes, MAX_PROCESSES,
	    BPF_F_NO_PREALLOC);

/*
 * Bounded by MAX_CGROUPS. The reader deletes records of removed directories once it has read
 * them. When it is full the new cgroup's events are not counted and lost_cgroups says how many.
 */
BPF_F_TABLE("hash", u64, struct cgroup_record, cgroups, MAX_CGROUPS, BPF_F_NO_PREALLOC);

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
		__cpu->field++;						\
} while (0)

#define ADD(target, amount) __sync_fetch_and_add(&(target), (amount))

#define EEXIST 17

static __always_inline struct cgroup_record *cgroup_record(u64 id, void *cgroup)
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

int on_fork(struct bpf_raw_tracepoint_args *ctx)
{
	void *child = (void *)ctx->args[1];
	u64 ids = task_ids(child);

	if (!ids_is_leader(ids))
		return 0;

	struct process_key key = leader_key(child, ids);
	void *cgroup = task_cgroup(child);
	struct process_record fresh = { .cgroup_id = cgroup_id(cgroup), .seen_event = 1 };
	struct cgroup_record *totals = cgroup_record(fresh.cgroup_id, cgroup);
	int error = processes.insert(&key, &fresh);

	/* A move between the child's birth and this event has made the record, and knows better. */
	if (error && error != -EEXIST)
		COUNT(lost_processes);
	if (totals)
		ADD(totals->forks, 1);
	return 0;
}

/* After de_thread(): the caller is the leader, with the old leader's pid and start. */
int on_exec(struct bpf_raw_tracepoint_args *ctx)
{
	void *task = (void *)ctx->args[0];
	u64 ids = task_ids(task);
	struct process_key key = leader_key(task, ids);
	void *cgroup = task_cgroup(task);
	u64 id = cgroup_id(cgroup);
	struct process_record *record = processes.lookup(&key);
	struct cgroup_record *totals = cgroup_record(id, cgroup);

	if (!record) {
		struct process_record fresh = { .cgroup_id = id, .seen_event = 1 };

		if (processes.insert(&key, &fresh))
			COUNT(lost_processes);
	} else if (record->cgroup_id != id) {
		record->cgroup_id = id;
		COUNT(mended);
	}
	if (totals)
		ADD(totals->execs, 1);
	return 0;
}

/*
 * A process's exit is told once, when its last thread ends. What it cost is known only when the
 * scheduler has seen the last of it: see on_free().
 */
int on_exit(struct bpf_raw_tracepoint_args *ctx)
{
	void *task = (void *)ctx->args[0];
	void *signal = READ(void *, task, TASK_SIGNAL);

	if (!is_last_thread(ctx, signal))
		return 0;

	void *leader = READ(void *, task, TASK_GROUP_LEADER);
	struct process_key key = leader_key(leader, task_ids(leader));

	if (is_told_already(&key, signal))
		return 0;

	struct process_record *record = processes.lookup(&key);
	void *cgroup = task_cgroup(leader);
	struct cgroup_record *totals = cgroup_record(record ? record->cgroup_id : cgroup_id(cgroup), cgroup);

	if (record) {
		int zero = 0;
		struct control *control = controls.lookup(&zero);

		if (control && key.start_ns > control->mark_ns)
			record->short_lived = 1;
		record->exit_cpu_ns = READ(u64, signal, SIGNAL_RUNTIME) + READ(u64, leader, TASK_RUNTIME);
		if (task != leader)
			record->exit_cpu_ns += READ(u64, task, TASK_RUNTIME);
		record->exited = 1;
	}
	if (totals) {
		ADD(totals->exits, 1);
		if (was_oom_killed(signal, group_exit_code(leader, signal)))
			ADD(totals->oom_kills, 1);
	}
	return 0;
}

/*
 * Called once a task after its last switch (kernel/exit.c: delayed_put_task_struct), so its
 * runtime is final: at sched_process_exit a process of less than a scheduler tick reads 0. Threads
 * are gathered in their process's record; the leader, freed last as a rule, settles the account. A
 * thread that comes after it adds to the cgroup directly.
 */
int on_free(struct bpf_raw_tracepoint_args *ctx)
{
	void *task = (void *)ctx->args[0];
	u64 ids = task_ids(task);
	u64 cpu = READ(u64, task, TASK_RUNTIME);
	bool is_leader = ids_is_leader(ids);
	void *leader = is_leader ? task : READ(void *, task, TASK_GROUP_LEADER);
	struct process_key key = leader_key(leader, ids);
	struct process_record *record = processes.lookup(&key);

	if (record && !is_leader) {
		ADD(record->threads_cpu_ns, cpu);
		return 0;
	}

	void *cgroup = task_cgroup(task);
	struct cgroup_record *totals = cgroup_record(record ? record->cgroup_id : cgroup_id(cgroup), cgroup);
	bool short_lived = false;

	if (record) {
		cpu += record->threads_cpu_ns;
		cpu = cpu > record->base_cpu_ns ? cpu - record->base_cpu_ns : 0;
		short_lived = record->short_lived;
		if (processes.delete(&key))
			COUNT(lost_processes);
	}
	if (totals) {
		if (short_lived)
			ADD(totals->cpu_short_ns, cpu);
		else
			ADD(totals->cpu_ended_ns, cpu);
	}
	return 0;
}

/* After the migration (kernel/cgroup/cgroup.c: cgroup_attach_task), under cgroup_mutex. */
int on_attach(struct bpf_raw_tracepoint_args *ctx)
{
	void *destination = (void *)ctx->args[0];
	void *task = (void *)ctx->args[2];

	if (!cgroup_is_ours(destination))
		return 0;

	/* A single thread of a threaded cgroup may move; a process is where its leader is. */
	void *leader = READ(void *, task, TASK_GROUP_LEADER);
	struct process_key key = leader_key(leader, task_ids(leader));
	void *cgroup = task_cgroup(leader);
	u64 id = cgroup_id(cgroup);
	struct process_record *record = processes.lookup(&key);
	u64 dead_threads = READ(u64, READ(void *, leader, TASK_SIGNAL), SIGNAL_RUNTIME);
	u64 spent = READ(u64, leader, TASK_RUNTIME) + dead_threads;
	struct cgroup_record *totals;

	if (record && record->cgroup_id == id)
		return 0;
	if (record) {
		/* What it spent where it was is settled there; what follows is the new cgroup's. */
		totals = cgroup_record(record->cgroup_id, NULL);
		if (totals) {
			ADD(totals->moved_out, 1);
			if (spent > record->base_cpu_ns)
				ADD(totals->cpu_ended_ns, spent - record->base_cpu_ns);
		}
		record->cgroup_id = id;
		record->base_cpu_ns = spent;
		record->seen_event = 1;
		record->moved = 1;
	} else {
		struct process_record fresh = {
			.cgroup_id = id,
			.base_cpu_ns = spent,
			.threads_cpu_ns = dead_threads,
			.seen_event = 1,
			.moved = 1,
		};

		if (processes.update(&key, &fresh))
			COUNT(lost_processes);
	}
	totals = cgroup_record(id, cgroup);
	if (totals)
		ADD(totals->moved_in, 1);
	return 0;
}

int on_mkdir(struct bpf_raw_tracepoint_args *ctx)
{
	void *cgroup = (void *)ctx->args[0];

	if (!cgroup_is_ours(cgroup))
		return 0;

	struct cgroup_record *record = cgroup_record(cgroup_id(cgroup), cgroup);

	if (record)
		record->born = 1;
	return 0;
}

int on_rmdir(struct bpf_raw_tracepoint_args *ctx)
{
	void *cgroup = (void *)ctx->args[0];

	if (!cgroup_is_ours(cgroup))
		return 0;

	u64 id = cgroup_id(cgroup);
	struct cgroup_record *record = cgroups.lookup(&id);

	if (record)
		record->gone = 1;
	return 0;
}

/* kernel/bpf/task_iter.c; the structure's tag has to be the iterator's. */
struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

/*
 * Runs in an RCU read section, so a task that is not dead *after* its record was made is freed, and
 * the record removed by on_free(), only after this returns.
 */
BPF_ITER(task)
{
	void *task = (void *)ctx->task;

	if (!task)
		return 0;

	u64 ids = task_ids(task);

	if (!ids_is_leader(ids))
		return 0;

	struct process_key key = leader_key(task, ids);
	struct process_record *record = processes.lookup(&key);

	if (record) {
		record->seen_snapshot = 1;
		COUNT(seam_both);
		return 0;
	}

	struct process_record fresh = {
		.cgroup_id = cgroup_id(task_cgroup(task)),
		.threads_cpu_ns = READ(u64, READ(void *, task, TASK_SIGNAL), SIGNAL_RUNTIME),
		.seen_snapshot = 1,
	};
	int error = processes.insert(&key, &fresh);

	if (error == -EEXIST)
		COUNT(seam_both);
	else if (error)
		COUNT(lost_processes);
	else
		COUNT(seam_snapshot);
	/* EXIT_DEAD, include/linux/sched.h */
	if (READ(u32, task, TASK_EXIT_STATE) & 0x10)
		processes.delete(&key);
	return 0;
}
