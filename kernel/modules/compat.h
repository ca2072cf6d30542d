/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What differs between kernels. Each difference is decided by whether a file
 * under probe/ compiles (see Kbuild) or a macro is there, never by a version
 * number, because distributions backport.
 */
#ifndef SO1_COMPAT_H
#define SO1_COMPAT_H

#include <linux/atomic.h>
#include <linux/cred.h>
#include <linux/idr.h>
#include <linux/kernel.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/percpu_counter.h>
#include <linux/pid.h>
#include <linux/pid_namespace.h>
#include <linux/proc_fs.h>
#include <linux/sched.h>
#include <linux/sched/coredump.h>

#ifdef SO1_HAVE_TASK_EXEC_STATE
#include <linux/sched/exec_state.h>
#endif

/* The counters that make a process's resident memory; the others are not read. */
static const int so1_rss_members[] = { MM_FILEPAGES, MM_ANONPAGES, MM_SHMEMPAGES };

/*
 * Exact resident pages of one kind.
 *
 * Up to 6.1 every thread keeps counts of its own (but in a kernel for few CPUs),
 * which mm->rss_stat does not have yet: shared_mm.h adds them. Since 6.2
 * (f1a7941243c1 "mm: convert mm's rss stats into percpu_counter") the counter is
 * per CPU and get_mm_counter() reads it without its CPUs' shares; summing them is
 * exact.
 *
 * The mm must not go away: the caller holds task_lock() of a task that uses it.
 */
static long so1_rss_member(struct mm_struct *mm, int member)
{
#if defined(SO1_HAVE_MM_COUNTER_SUM)
	return get_mm_counter_sum(mm, member);
#elif defined(SO1_HAVE_MM_RSS_ATOMIC)
	return atomic_long_read(&mm->rss_stat.count[member]);
#else
	return percpu_counter_sum(&mm->rss_stat[member]);
#endif
}

/* Fills @pages by kind, each as so1_rss_member() has it. */
static void so1_rss_shared(struct mm_struct *mm, long *pages)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(so1_rss_members); i++)
		pages[so1_rss_members[i]] =
			so1_rss_member(mm, so1_rss_members[i]);
}

/* As __task_state_index() has it: a frozen task counts as uninterruptible. */
static unsigned int so1_task_state(const struct task_struct *task)
{
#ifdef SO1_HAVE_UNDERSCORE_STATE
	unsigned int state = READ_ONCE(task->__state);
#else
	unsigned int state = READ_ONCE(task->state);
#endif

	/* Since 6.1 (f5d39b020809); before, the freezer makes it uninterruptible. */
#ifdef TASK_FROZEN
	if (state & TASK_FROZEN)
		state |= TASK_UNINTERRUPTIBLE;
#endif
	/* Of PREEMPT_RT's locks, since 5.16. */
#ifdef TASK_RTLOCK_WAIT
	if (state & TASK_RTLOCK_WAIT)
		state |= TASK_UNINTERRUPTIBLE;
#endif
	return state | READ_ONCE(task->exit_state);
}

/*
 * The first PID from @nr on, or NULL. Under RCU. It is find_ge_pid(), which
 * modules cannot call before 6.1.
 */
static struct pid *so1_pid_ge(pid_t nr)
{
	return idr_get_next(&init_pid_ns.idr, &nr);
}

static void *so1_pde_data(const struct inode *inode)
{
#ifdef SO1_HAVE_PDE_DATA
	return pde_data(inode);
#else
	return PDE_DATA(inode);
#endif
}

/*
 * Whether whoever has the same user may look into @task, as task_still_dumpable()
 * of kernel/ptrace.c has it. Under RCU, and under task_lock() of a thread that
 * uses @mm, which may be NULL.
 */
static bool so1_dumpable(struct task_struct *task, struct mm_struct *mm)
{
#ifdef SO1_HAVE_TASK_EXEC_STATE
	const struct task_exec_state *state = rcu_dereference(task->exec_state);

	return state && READ_ONCE(state->dumpable) == TASK_DUMPABLE_OWNER;
#else
	return !mm || get_dumpable(mm) == SUID_DUMP_USER;
#endif
}

#endif /* SO1_COMPAT_H */
