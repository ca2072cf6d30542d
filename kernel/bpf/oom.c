// SPDX-License-Identifier: GPL-2.0-only
/*
 * Whom the OOM killer chose, who made it choose, and whose limit it was. Compiled as one with the
 * other files of the witness, whose counters and history of processes it uses.
 *
 * mark_victim (mm/oom_kill.c: mark_oom_victim) runs in whoever asked for memory, with the victim's
 * memory still whole: at its exit there is nothing left of it. What follows from the figures (a kill
 * or a mark of one that was ending anyway, whose limit) is the reader's to say, from the call stack
 * and the counters of the memory cgroups above the victim.
 */

/*
 * Bounded by OOM_PAGES. When it is full the record is dropped; its sequence number is not given
 * again, and `ooms` of its CPU says how many there were.
 */
BPF_RINGBUF_OUTPUT(ooms, OOM_PAGES);

/* mm/oom_kill.c prints the plain counters too: of each CPU up to a batch of pages is not in them. */
#define RSS_FILE 0
#define RSS_ANON 1
#define RSS_SWAP 2
#define RSS_SHMEM 3

#ifdef OOM_TASK_ARG
#ifdef MEMORY_SUBSYS
/* Every memory cgroup from the victim's up, below the root. */
static __always_inline void copy_levels(struct oom_record *oom, kptr task)
{
	kptr set = READ(task + TASK_CGROUPS);
	kptr css = READ(set + CSS_SET_SUBSYS + MEMORY_SUBSYS * 8);
	int i;

#pragma clang loop unroll(disable)
	for (i = 0; i < OOM_LEVELS; i++) {
		struct oom_level *level = &oom->level[i];
		kptr above = css ? READ(css + CSS_PARENT) : 0;

		if (!above)
			break;

		kptr cgroup = READ(css + CSS_CGROUP);
		kptr group = css - MEMCG_CSS;

		level->cgroup_id = untyped_id(cgroup);
		level->used_pages = READ(group + MEMCG_MEMORY + COUNTER_USAGE);
		level->max_pages = READ(group + MEMCG_MEMORY + COUNTER_MAX);
		level->memsw_used_pages = READ(group + MEMCG_MEMSW + COUNTER_USAGE);
		level->memsw_max_pages = READ(group + MEMCG_MEMSW + COUNTER_MAX);
		level->oom_events = READ(group + MEMCG_EVENTS_LOCAL + 8 * MEMCG_OOM_EVENT);
		copy_name(level->name, sizeof(level->name), cgroup);
		oom->levels = i + 1;
		css = above;
	}
}
#endif

static __always_inline void copy_memory(struct oom_record *oom, kptr mm)
{
	if (!mm)
		return;
#ifdef RSS_STRIDE
	oom->file_pages = READ(mm + MM_RSS + RSS_FILE * RSS_STRIDE);
	oom->anon_pages = READ(mm + MM_RSS + RSS_ANON * RSS_STRIDE);
	oom->swap_pages = READ(mm + MM_RSS + RSS_SWAP * RSS_STRIDE);
	oom->shmem_pages = READ(mm + MM_RSS + RSS_SHMEM * RSS_STRIDE);
	oom->known |= OOM_KNOWS_MEMORY;
#endif
}
#endif

int on_oom(void *ctx)
{
	struct cpu_counters *cpu = this_cpu();

	if (!cpu)
		return 0;

	u64 sequence = FETCH_ADD(cpu->ooms, 1) + 1;
	struct oom_record *oom = ooms.ringbuf_reserve(sizeof(struct oom_record));

	if (!oom)
		return 0;
	__builtin_memset(oom, 0, OOM_HEAD);
	oom->sequence = sequence;
	oom->marked_ns = BOOT_NS();
	oom->cpu = bpf_get_smp_processor_id();

	kptr current = bpf_get_current_task();
	kptr current_leader = READ(current + TASK_GROUP_LEADER);
	kptr current_cgroup = untyped_cgroup(current_leader);

	oom->trigger_pid = READ32(current + TASK_TGID);
	oom->trigger_start_ns = READ(current_leader + TASK_START);
	oom->trigger_cgroup_id = id_of(oom->trigger_pid, oom->trigger_start_ns, current_leader);
	bpf_probe_read_kernel(oom->trigger_comm, EVENT_COMM, (void *)(current_leader + TASK_COMM));
	copy_name(oom->trigger_cgroup, sizeof(oom->trigger_cgroup), current_cgroup);

#ifdef OOM_TASK_ARG
	kptr task = ARG(ctx, 0);
	kptr leader = READ(task + TASK_GROUP_LEADER);
	kptr signal = READ(task + TASK_SIGNAL);

	oom->pid = READ32(task + TASK_TGID);
	oom->start_ns = READ(leader + TASK_START);
	oom->cgroup_id = id_of(oom->pid, oom->start_ns, leader);
	oom->exit_code = READ32(signal + SIGNAL_EXIT_CODE);
	oom->oom_score_adj = (s16)READ32(signal + SIGNAL_OOM_ADJ);
	bpf_probe_read_kernel(oom->comm, EVENT_COMM, (void *)(leader + TASK_COMM));
	oom->known |= OOM_KNOWS_VICTIM;
	copy_memory(oom, READ(task + TASK_MM));
#ifdef MEMORY_SUBSYS
	copy_levels(oom, task);
	oom->known |= OOM_KNOWS_LEVELS;
#endif
#else
	/* The victim's number is all that is told: the history has the rest of it. */
	u32 pid = ARG(ctx, 0);
	struct process_record *record = slot_of(pid);

	oom->pid = pid;
	if (record && record->pid == pid) {
		oom->start_ns = record->start_ns;
		oom->cgroup_id = record->cgroup_id;
	}
#endif
	long got = bpf_get_stack(ctx, oom->stack, sizeof(oom->stack), 0);

	oom->frames = got > 0 ? (u32)got / 8 : 0;
	ooms.ringbuf_submit(oom, NO_WAKEUP);
	return 0;
}
