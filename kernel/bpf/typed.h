/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Reading kernel fields in programs whose arguments the kernel knows by type (tp_btf).
 *
 * No kernel header is included: the offsets come as macros (TASK_PID, CGROUP_KN ...) from this
 * kernel's own BTF. A load of a typed pointer is one instruction and yields 0 for an address that
 * cannot be read. It is written in assembly, because BCC turns every dereference that it sees into a
 * call of bpf_probe_read_kernel(); the verifier checks each against the field's type.
 */
#ifndef SO1_TYPED_H
#define SO1_TYPED_H

#define LOAD64(base, offset) ({							\
	u64 __value;								\
	asm volatile("%0 = *(u64 *)(%1 + %2)"					\
		     : "=r"(__value) : "r"(base), "i"(offset));			\
	__value;								\
})

#define LOAD32(base, offset) ({							\
	u64 __value;								\
	asm volatile("%0 = *(u32 *)(%1 + %2)"					\
		     : "=r"(__value) : "r"(base), "i"(offset));			\
	(u32)__value;								\
})

#define ARG(ctx, number) LOAD64(ctx, 8 * (number))

/* A kernel pointer; only ever a base of the loads above. */
typedef u64 kptr;

/* What the verifier knows no type of; 0 for an address that cannot be read. */
#define READ(address) ({							\
	u64 __value = 0;							\
	bpf_probe_read_kernel(&__value, sizeof(__value), (void *)(address));	\
	__value;								\
})

/*
 * The next two order all memory accesses around them, on every architecture (atomics that fetch).
 * LLVM 21 as BCC runs it refuses the result of an addition; LLVM 14 does not know these instructions
 * by name; LLVM 19 takes the builtins.
 */
#if __clang_major__ >= 20
#define XCHG(where, value) ({							\
	u64 __value = (value);							\
	asm volatile("%0 = xchg_64(%1 + 0, %0)"					\
		     : "+r"(__value) : "r"(&(where)) : "memory");		\
	__value;								\
})
#define FETCH_ADD(where, value) ({						\
	u64 __value = (value);							\
	asm volatile("%0 = atomic_fetch_add((u64 *)(%1 + 0), %0)"		\
		     : "+r"(__value) : "r"(&(where)) : "memory");		\
	__value;								\
})
#else
#define XCHG(where, value) __sync_lock_test_and_set(&(where), (u64)(value))
#define FETCH_ADD(where, value) __sync_fetch_and_add(&(where), (u64)(value))
#endif
#define ADD(where, value) ((void)__sync_fetch_and_add(&(where), (u64)(value)))

#define BOOT_NS() bpf_ktime_get_boot_ns()

/*
 * The task's cgroup in the one hierarchy that identifies containers on this host: the default one,
 * or with V1_SUBSYS the hierarchy of that controller.
 */
static __always_inline kptr task_cgroup(kptr task)
{
	kptr set = LOAD64(task, TASK_CGROUPS);
#ifdef V1_SUBSYS
	kptr css = LOAD64(set, CSS_SET_SUBSYS + V1_SUBSYS * 8);

	return LOAD64(css, CSS_CGROUP);
#else
	return LOAD64(set, CSS_SET_DFL_CGRP);
#endif
}

static __always_inline u64 cgroup_id(kptr cgroup)
{
	kptr node = LOAD64(cgroup, CGROUP_KN);

	return LOAD64(node, KERNFS_ID);
}

static __always_inline u64 cgroup_parent_id(kptr cgroup)
{
	kptr css = LOAD64(cgroup, CGROUP_SELF + CSS_PARENT);

	if (!css)
		return 0;
	return cgroup_id(LOAD64(css, CSS_CGROUP));
}

/* Events of other hierarchies come through the same tracepoints. */
static __always_inline bool cgroup_is_ours(kptr cgroup)
{
	kptr root = LOAD64(cgroup, CGROUP_ROOT);

	return LOAD32(root, ROOT_HIERARCHY_ID) == HIERARCHY_ID;
}

/* As wait(2) will have it (kernel/exit.c: wait_task_zombie). */
static __always_inline s32 group_exit_code(kptr leader, kptr signal)
{
	/* SIGNAL_GROUP_EXIT, include/linux/sched/signal.h */
	if (LOAD32(signal, SIGNAL_FLAGS) & 0x4)
		return LOAD32(signal, SIGNAL_EXIT_CODE);
	return LOAD32(leader, TASK_EXIT_CODE);
}

/*
 * The OOM killer puts the victim's mm into its signal_struct (mm/oom_kill.c: mark_oom_victim). A
 * task that was ending anyway is marked too, and was not killed.
 */
static __always_inline bool was_oom_killed(kptr signal, s32 exit_code)
{
	return (exit_code & 0x7f) == 9 && LOAD64(signal, SIGNAL_OOM_MM);
}

#endif
