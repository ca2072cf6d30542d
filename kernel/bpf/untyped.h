/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Reading kernel fields behind pointers that the verifier knows no type of: current, and what it has.
 *
 * Included behind typed.h, whose READ() and kptr it uses. What cannot be read is 0.
 */
#ifndef SO1_UNTYPED_H
#define SO1_UNTYPED_H

#define READ32(address) ({							\
	u32 __value = 0;							\
	bpf_probe_read_kernel(&__value, sizeof(__value), (void *)(address));	\
	__value;								\
})

/* As typed.h's, of a task that the verifier knows no type of. */
static __always_inline kptr untyped_cgroup(kptr task)
{
	kptr set = READ(task + TASK_CGROUPS);
#ifdef V1_SUBSYS
	return READ(READ(set + CSS_SET_SUBSYS + V1_SUBSYS * 8) + CSS_CGROUP);
#else
	return READ(set + CSS_SET_DFL_CGRP);
#endif
}

static __always_inline u64 untyped_id(kptr cgroup)
{
	return READ(READ(cgroup + CGROUP_KN) + KERNFS_ID);
}

static __always_inline void copy_name(char *to, u32 size, kptr cgroup)
{
	kptr name = READ(READ(cgroup + CGROUP_KN) + KERNFS_NAME);

	if (bpf_probe_read_kernel_str(to, size, (void *)name) < 0)
		to[0] = 0;
}

#endif
