/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Reading the few kernel fields that the programs need.
 *
 * No kernel header is included: the offsets come as macros (TASK_PID, CGROUP_KN ...) that the
 * loader took from this kernel's own BTF, so one source serves every kernel and a moved field can
 * not be misread. Every read goes through bpf_probe_read_kernel(), which yields 0 for an address
 * that cannot be read.
 */
#ifndef SO1_TASK_H
#define SO1_TASK_H

#define READ(type, base, offset) ({						\
	type __value = 0;							\
	bpf_probe_read_kernel(&__value, sizeof(__value), (void *)(base) + (offset));	\
	__value;								\
})

#define BOOT_NS() bpf_ktime_get_boot_ns()

/* Both ids in one read where the kernel has them side by side, which is everywhere so far. */
static __always_inline u64 task_ids(void *task)
{
#if TASK_TGID == TASK_PID + 4 && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	return READ(u64, task, TASK_PID);
#else
	return (u64)READ(u32, task, TASK_TGID) << 32 | READ(u32, task, TASK_PID);
#endif
}

#define ids_tgid(ids) ((u32)((ids) >> 32))
#define ids_is_leader(ids) ((u32)(ids) == (u32)((ids) >> 32))

/* `leader` has to be a group's leader: the start of a process is the leader's. */
static __always_inline struct process_key leader_key(void *leader, u64 ids)
{
	struct process_key key = {};

	key.pid = ids_tgid(ids);
	key.start_ns = READ(u64, leader, TASK_START);
	return key;
}

/*
 * The task's cgroup in the one hierarchy that identifies containers on this host: the default one,
 * or with V1_SUBSYS the hierarchy of that controller.
 */
static __always_inline void *task_cgroup(void *task)
{
	void *set = READ(void *, task, TASK_CGROUPS);
#ifdef V1_SUBSYS
	void *css = READ(void *, set, CSS_SET_SUBSYS + V1_SUBSYS * sizeof(void *));

	return READ(void *, css, CSS_CGROUP);
#else
	return READ(void *, set, CSS_SET_DFL_CGRP);
#endif
}

static __always_inline u64 cgroup_id(void *cgroup)
{
	void *node = READ(void *, cgroup, CGROUP_KN);

	return READ(u64, node, KERNFS_ID);
}

static __always_inline u64 cgroup_parent_id(void *cgroup)
{
	void *css = READ(void *, cgroup, CGROUP_SELF + CSS_PARENT);

	return css ? cgroup_id(css - CGROUP_SELF) : 0;
}

/* Events of other hierarchies come through the same tracepoints. */
static __always_inline bool cgroup_is_ours(void *cgroup)
{
	void *root = READ(void *, cgroup, CGROUP_ROOT);

	return READ(s32, root, ROOT_HIERARCHY_ID) == HIERARCHY_ID;
}

/*
 * Whether the thread that runs sched_process_exit is its process's last. Before 6.16 two threads that
 * end at once may both look like it: then whoever tells of the exit has to see to it that one does.
 */
static __always_inline bool is_last_thread(struct bpf_raw_tracepoint_args *ctx, void *signal)
{
#ifdef GROUP_DEAD_ARG
	return (u8)ctx->args[1];
#else
	return !READ(s32, signal, SIGNAL_LIVE);
#endif
}

/* As wait(2) will have it (kernel/exit.c: wait_task_zombie). */
static __always_inline s32 group_exit_code(void *leader, void *signal)
{
	/* SIGNAL_GROUP_EXIT, include/linux/sched/signal.h */
	if (READ(u32, signal, SIGNAL_FLAGS) & 0x4)
		return READ(s32, signal, SIGNAL_EXIT_CODE);
	return READ(s32, leader, TASK_EXIT_CODE);
}

/*
 * The OOM killer puts the victim's mm into its signal_struct (mm/oom_kill.c: mark_oom_victim). A
 * task that was ending anyway is marked too, and was not killed.
 */
static __always_inline bool was_oom_killed(void *signal, s32 exit_code)
{
	return (exit_code & 0x7f) == 9 && READ(void *, signal, SIGNAL_OOM_MM);
}

#endif
