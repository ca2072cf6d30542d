/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What threads have counted and not yet handed in to their address space, where
 * a kernel counts resident memory that way (up to 6.1; see so1_rss_member()).
 *
 * Several processes may share an address space (vfork, CLONE_VM), and nothing
 * leads from an mm to its users. So where a process has fewer threads in it than
 * it has users, all threads are walked once, and the sums of each shared mm are
 * kept for the rest of the snapshot: one walk, whatever the number of processes.
 *
 * Locking: a thread's counts are read under RCU, its mm pointer only compared.
 * The table is one snapshot's own. An mm in it has a reference to its structure
 * (not its pages), so that no other can come to lie at its address meanwhile.
 */
#ifndef SO1_SHARED_MM_H
#define SO1_SHARED_MM_H

#include <linux/bits.h>
#include <linux/hash.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>

#include "compat.h"

#define SO1_IDS_PER_SECTION 128

/*
 * Returns what a walk of this reader has to end with, 0 to go on: -EINTR where he
 * is being killed, -EIO where the module is being removed, which procfs lets wait
 * for him.
 */
static int so1_interrupted(void)
{
	if (fatal_signal_pending(current))
		return -EINTR;
	return module_is_live(THIS_MODULE) ? 0 : -EIO;
}

#ifdef SO1_HAVE_TASK_RSS_STAT
#define SO1_SHARED_BITS 10
#define SO1_SHARED_SLOTS BIT(SO1_SHARED_BITS)

/* So many shared address spaces are exact; of more, a process has its own part. */
#define SO1_SHARED_MAX (SO1_SHARED_SLOTS / 4 * 3)

struct so1_shared_mm {
	struct mm_struct *mm;	/* NULL: the slot is free */
	long pages[NR_MM_COUNTERS];
};

struct so1_shared {
	unsigned int used;
	struct so1_shared_mm slots[SO1_SHARED_SLOTS];
};

/* The slot of @mm, or the free one where it goes. There is always a free one. */
static struct so1_shared_mm *so1_shared_slot(struct so1_shared *shared,
					     const struct mm_struct *mm)
{
	u32 at = hash_ptr(mm, SO1_SHARED_BITS);

	while (shared->slots[at].mm && shared->slots[at].mm != mm)
		at = (at + 1) % SO1_SHARED_SLOTS;
	return &shared->slots[at];
}

/* Adds the counts of the threads that use @mm, and returns how many do. Under RCU. */
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
 * Returns the address space of a process with a reference to its structure, and
 * how many users it has; NULL where it has none. Under RCU.
 */
static struct mm_struct *so1_grab_mm(struct task_struct *process, int *users)
{
	struct mm_struct *mm = NULL;
	struct task_struct *t;

	for_each_thread(process, t) {
		task_lock(t);
		/* A kernel thread only borrows one (kthread_use_mm). */
		if (t->mm && !(t->flags & PF_KTHREAD)) {
			mm = t->mm;
			mmgrab(mm);
			*users = atomic_read(&mm->mm_users);
		}
		task_unlock(t);
		if (mm)
			break;
	}
	return mm;
}

/* Adds the counts of a process to those of its mm, where others share it. Under RCU. */
static void so1_shared_note(struct so1_shared *shared, struct task_struct *process)
{
	long pages[NR_MM_COUNTERS] = {};
	struct so1_shared_mm *slot;
	struct mm_struct *mm;
	int users, i;

	mm = so1_grab_mm(process, &users);
	if (!mm)
		return;
	slot = so1_shared_slot(shared, mm);
	if (so1_rss_add_threads(process, mm, pages) < users && !slot->mm &&
	    shared->used < SO1_SHARED_MAX) {
		mmgrab(mm);
		slot->mm = mm;
		shared->used++;
	}
	for (i = 0; slot->mm && i < NR_MM_COUNTERS; i++)
		slot->pages[i] += pages[i];
	mmdrop(mm);
}

/* Walks all threads. Returns NULL where there is no memory for it. May sleep. */
static struct so1_shared *so1_shared_take(void)
{
	struct so1_shared *shared;
	unsigned int ids = 0;
	struct pid *pid;
	pid_t next = 1;

	shared = kvzalloc(sizeof(*shared), GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
	if (!shared)
		return NULL;
	rcu_read_lock();
	while ((pid = so1_pid_ge(next))) {
		struct task_struct *leader = pid_task(pid, PIDTYPE_TGID);

		next = pid_nr_ns(pid, &init_pid_ns) + 1;
		if (leader)
			so1_shared_note(shared, leader);
		if (++ids % SO1_IDS_PER_SECTION == 0) {
			rcu_read_unlock();
			if (so1_interrupted())
				return shared;
			cond_resched();
			rcu_read_lock();
		}
	}
	rcu_read_unlock();
	return shared;
}

/* May sleep. */
static void so1_shared_free(struct so1_shared *shared)
{
	int i;

	for (i = 0; shared && i < SO1_SHARED_SLOTS; i++)
		if (shared->slots[i].mm)
			mmdrop(shared->slots[i].mm);
	kvfree(shared);
}

/*
 * Adds to @pages what the threads that use @mm have not yet handed in. Returns
 * false where that takes so1_shared_take() first, unless it was @tried. @users is
 * mm->mm_users. Under RCU.
 */
static bool so1_rss_cached(struct task_struct *process,
			   const struct mm_struct *mm, int users,
			   struct so1_shared *shared, bool tried, long *pages)
{
	long own[NR_MM_COUNTERS] = {};
	const long *cached = own;
	int i;

	if (so1_rss_add_threads(process, mm, own) < users) {
		if (!tried)
			return false;
		if (shared && so1_shared_slot(shared, mm)->mm)
			cached = so1_shared_slot(shared, mm)->pages;
	}
	for (i = 0; i < NR_MM_COUNTERS; i++)
		pages[i] += cached[i];
	return true;
}
#else
struct so1_shared;

static struct so1_shared *so1_shared_take(void)
{
	return NULL;
}

static void so1_shared_free(struct so1_shared *shared)
{
}

static bool so1_rss_cached(struct task_struct *process,
			   const struct mm_struct *mm, int users,
			   struct so1_shared *shared, bool tried, long *pages)
{
	return true;
}
#endif

#endif /* SO1_SHARED_MM_H */
