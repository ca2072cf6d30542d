/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Who may open an entry, and who may know the number of another's namespace: the
 * kernel's own rules for /proc/PID, which modules cannot call (ptrace_may_access()
 * is not exported). Security modules are therefore not asked; where one of them
 * forbids what these rules allow, an entry's mode= keeps it closed.
 */
#ifndef SO1_ACCESS_H
#define SO1_ACCESS_H

#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/fs.h>
#include <linux/pid_namespace.h>
#include <linux/proc_fs.h>
#include <linux/sched.h>
#include <linux/user_namespace.h>

#include "compat.h"

/*
 * A procfs of another PID namespace is a container's, and every procfs shows a
 * module's entry. One mounted with hidepid= hides other users' processes from
 * those without a privilege, and so must this; its gid= group is let in, except
 * with hidepid=ptraceable (has_pid_permissions() in fs/proc/base.c). For the
 * current process, which opens @inode.
 */
static int so1_may_open(struct inode *inode)
{
	struct proc_fs_info *info = proc_sb_info(inode->i_sb);

	if (proc_pid_ns(inode->i_sb) != &init_pid_ns)
		return -EACCES;
	if (info->hide_pid == HIDEPID_OFF)
		return 0;
	if (info->hide_pid != HIDEPID_NOT_PTRACEABLE && in_group_p(info->pid_gid))
		return 0;
	return ns_capable_noaudit(&init_user_ns, CAP_SYS_PTRACE) ? 0 : -EACCES;
}

/* Whether @cred has CAP_SYS_PTRACE in @ns, as cap_capable() has it. Under RCU. */
static bool so1_may_trace_in(const struct cred *cred,
			     const struct user_namespace *ns)
{
	for (; ns->level > cred->user_ns->level; ns = ns->parent)
		if (ns->parent == cred->user_ns && uid_eq(ns->owner, cred->euid))
			return true;
	return ns == cred->user_ns &&
	       cap_raised(cred->cap_effective, CAP_SYS_PTRACE);
}

static bool so1_same_user(const struct cred *reader, const struct cred *other)
{
	return uid_eq(reader->fsuid, other->euid) &&
	       uid_eq(reader->fsuid, other->suid) &&
	       uid_eq(reader->fsuid, other->uid) &&
	       gid_eq(reader->fsgid, other->egid) &&
	       gid_eq(reader->fsgid, other->sgid) &&
	       gid_eq(reader->fsgid, other->gid);
}

/*
 * Whether @reader could read the links in /proc/PID/ns of @leader, as
 * __ptrace_may_access() of kernel/ptrace.c has it, but that a process that is not
 * dumpable takes CAP_SYS_PTRACE on the host. Under RCU, and under task_lock() of a
 * thread that uses @mm, which may be NULL.
 */
static bool so1_may_see_namespaces(const struct cred *reader,
				   struct task_struct *leader,
				   struct mm_struct *mm)
{
	const struct cred *other;

	if (so1_may_trace_in(reader, &init_user_ns))
		return true;
	other = __task_cred(leader);
	if (!so1_same_user(reader, other) &&
	    !so1_may_trace_in(reader, other->user_ns))
		return false;
	/* Pairs with the barrier in commit_creds(): rights first, then this. */
	smp_rmb();
	return so1_dumpable(leader, mm);
}

#endif /* SO1_ACCESS_H */
