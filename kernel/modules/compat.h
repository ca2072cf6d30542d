/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What differs between kernels. Each difference is decided by whether a file
 * under probe/ compiles (see Kbuild), never by a version number, because
 * distributions backport.
 */
#ifndef SO1_COMPAT_H
#define SO1_COMPAT_H

#include <linux/atomic.h>
#include <linux/kernel.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/percpu_counter.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>

/* The counters that make a process's resident memory; the others are not read. */
static const int so1_rss_members[] = { MM_FILEPAGES, MM_ANONPAGES, MM_SHMEMPAGES };

/*
 * Exact resident pages of one kind.
 *
 * Up to 6.1 every thread keeps counts of its own, which mm->rss_stat does not
 * have yet: the caller adds them with so1_rss_cached(). Since 6.2 (f1a7941243c1
 * "mm: convert mm's rss stats into percpu_counter") the counter is per CPU and
 * get_mm_counter() reads it without its CPUs' shares; summing them is exact.
 *
 * The mm must not go away: the caller holds task_lock() of a task that uses it.
 */
static long so1_rss_member(struct mm_struct *mm, int member)
{
#if defined(SO1_HAVE_MM_COUNTER_SUM)
	return get_mm_counter_sum(mm, member);
#elif defined(SO1_HAVE_TASK_RSS_STAT)
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

#ifdef SO1_HAVE_TASK_RSS_STAT
/*
 * Other processes may share the address space (vfork, CLONE_VM) and their
 * threads have counts of it too. Nothing leads from an mm to its users, so they
 * are looked for among all processes, and only so often a snapshot that no
 * number of such processes makes it long.
 */
#define SO1_SHARED_SCANS 64

/* Adds the counts of the threads that use @mm, and returns how many do. */
static int so1_rss_add_threads(struct task_struct *process,
			       const struct mm_struct *mm, long *pages)
{
	struct task_struct *t;
	int found = 0, i, member;

	for_each_thread(process, t) {
		if (READ_ONCE(t->mm) != mm)
			continue;
		for (i = 0; i < ARRAY_SIZE(so1_rss_members); i++) {
			member = so1_rss_members[i];
			pages[member] += READ_ONCE(t->rss_stat.count[member]);
		}
		found++;
	}
	return found;
}

/*
 * Adds what the threads have not yet handed in. @mm is only compared, so no
 * lock is needed. Runs under RCU. @users is mm->mm_users, @scans what is left of
 * SO1_SHARED_SCANS.
 */
static void so1_rss_cached(struct task_struct *process,
			   const struct mm_struct *mm, int users,
			   unsigned int *scans, long *pages)
{
	struct task_struct *other;

	if (so1_rss_add_threads(process, mm, pages) >= users || !*scans)
		return;
	(*scans)--;
	for_each_process(other)
		if (other->signal != process->signal)
			so1_rss_add_threads(other, mm, pages);
}
#else
#define SO1_SHARED_SCANS 0

static void so1_rss_cached(struct task_struct *process,
			   const struct mm_struct *mm, int users,
			   unsigned int *scans, long *pages)
{
}
#endif

#endif /* SO1_COMPAT_H */
