// SPDX-License-Identifier: GPL-2.0-only
/*
 * Births, execs and moves: which cgroup a process is in from then on.
 */

/* include/linux/sched.h */
#define PF_EXITING 0x4

/* More threads than this are not walked at a move: base_partial says so. */
#define MOST_THREADS 64

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

		/* Counted at its fork, as in on_exec(). */
		make(&fresh);
	}
	totals = cgroup_record(id, destination);
	if (totals)
		ADD(totals->moved_in, 1);
	return 0;
}
