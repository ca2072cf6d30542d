// SPDX-License-Identifier: GPL-2.0-only
/*
 * Ends: a process's CPU is settled, its exit is told, its record is cleared.
 */

/* include/linux/sched.h */
#define TASK_DEAD 0x80

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
