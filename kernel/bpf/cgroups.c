// SPDX-License-Identifier: GPL-2.0-only
/*
 * The making and removing of cgroups, and the names that they were made with.
 *
 * A container's cgroup may be gone before anybody looks at its directory, so its name is kept from
 * the moment of its making, with who made it: a name alone proves nothing. A directory's own name
 * will do, whatever its path is: the records of cgroups have the parent's id. A later name
 * (cgroup_rename, cgroup v1) is nobody's business: a cgroup stays whose it was made for.
 */

/*
 * Bounded by NAME_PAGES. When it is full the record is dropped; its sequence number is not given
 * again, and `names` of its CPU says how many there were.
 */
BPF_RINGBUF_OUTPUT(names, NAME_PAGES);

/* Where the history has it, else by its own pointer. */
static __always_inline u64 id_of(u32 pid, u64 start_ns, kptr leader)
{
	struct process_record *record = find(pid, start_ns);

	return record ? record->cgroup_id : untyped_id(untyped_cgroup(leader));
}

int on_mkdir(void *ctx)
{
	kptr cgroup = ARG(ctx, 0);

	if (!cgroup_is_ours(cgroup))
		return 0;

	struct cgroup_record *record = cgroup_record(cgroup_id(cgroup), cgroup);

	if (record)
		record->born = 1;
	return 0;
}

int on_rmdir(void *ctx)
{
	kptr cgroup = ARG(ctx, 0);

	if (!cgroup_is_ours(cgroup))
		return 0;

	u64 id = cgroup_id(cgroup);
	struct cgroup_record *record = cgroups.lookup(&id);

	if (record)
		record->gone = 1;
	return 0;
}

/*
 * Beside on_mkdir(), which does without it. A name that is too short for a container's id costs a
 * look at its first bytes and no place in the buffer. One that does not fit is no engine's (its
 * longest are some 150 characters), so it is counted and not given, rather than cut.
 */
int on_name(void *ctx)
{
	kptr cgroup = ARG(ctx, 0);

	if (!cgroup_is_ours(cgroup))
		return 0;

	kptr name = LOAD64(LOAD64(cgroup, CGROUP_KN), KERNFS_NAME);
	char start[CONTAINER_ID + 1];

	/* The length with its final NUL, which is there in any case. */
	if (bpf_probe_read_kernel_str(start, sizeof(start), (void *)name) <= CONTAINER_ID)
		return 0;

	struct cpu_counters *cpu = this_cpu();

	if (!cpu)
		return 0;

	struct cgroup_name *made = names.ringbuf_reserve(sizeof(struct cgroup_name));

	if (!made) {
		ADD(cpu->names, 1);
		return 0;
	}


	long length = bpf_probe_read_kernel_str(made->name, sizeof(made->name), (void *)name);
	u8 next = 0;

	/* Full: either to its last character, or cut there. */
	if (length == sizeof(made->name))
		bpf_probe_read_kernel(&next, 1, (void *)(name + sizeof(made->name) - 1));
	if (next) {
		ADD(cpu->long_names, 1);
		names.ringbuf_discard(made, NO_WAKEUP);
		return 0;
	}

	kptr current = bpf_get_current_task();
	kptr leader = READ(current + TASK_GROUP_LEADER);

	made->sequence = FETCH_ADD(cpu->names, 1) + 1;
	made->cgroup_id = cgroup_id(cgroup);
	made->maker_id = id_of(READ32(leader + TASK_TGID), READ(leader + TASK_START), leader);
	made->cpu = bpf_get_smp_processor_id();
	made->uid = (u32)bpf_get_current_uid_gid();
	names.ringbuf_submit(made, NO_WAKEUP);
	return 0;
}
