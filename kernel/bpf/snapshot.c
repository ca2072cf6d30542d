// SPDX-License-Identifier: GPL-2.0-only
/*
 * What ran before the probes: one pass of the task iterator.
 */

/* include/linux/sched.h */
#define EXIT_DEAD 0x10
#define EXIT_ZOMBIE 0x20

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
