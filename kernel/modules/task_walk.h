/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The walk over all thread groups, and the figures of one.
 *
 * Locking: everything about one process is read inside one RCU read section, in
 * which no task, PID, cgroup or namespace reached from a live pointer is freed;
 * so no reference is taken and none can be lost. Within it task_lock() pins a
 * thread's mm and nsproxy, and signal->stats_lock makes the times of dead and
 * living threads one sum. Nothing sleeps until the section is left, which happens
 * after each process, and after SO1_IDS_PER_SECTION ids that are none.
 */
#ifndef SO1_TASK_WALK_H
#define SO1_TASK_WALK_H

#include <linux/cgroup.h>
#include <linux/math64.h>
#include <linux/nsproxy.h>
#include <linux/pid.h>
#include <linux/pid_namespace.h>
#include <linux/random.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/sched/cputime.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/siphash.h>
#include <linux/timekeeping.h>
#include <linux/utsname.h>

#include "access.h"
#include "compat.h"
#include "shared_mm.h"

/* What /proc/PID/stat has a letter for (TASK_REPORT in linux/sched.h). */
#define SO1_STATE_MASK 0x7f

/* mm_id stays exact in a double, which is what jq and JavaScript have. */
#define SO1_MM_ID_BITS 53

struct so1_proc {
	char comm[TASK_COMM_LEN];
	pid_t pid;
	pid_t ppid;
	pid_t ns_pid;		/* the PID in its own namespace */
	int threads;
	unsigned int state;
	unsigned int pid_ns;	/* namespace numbers, 0: has none any more, */
	unsigned int uts_ns;	/* or it is not for this reader to know */
	bool foreign;		/* UTS or PID namespace is not init's */
	u64 start_ns;		/* boot clock */
	u64 cpu_ns;
	u64 cpu_percent;	/* of one CPU, over its life */
	u64 rss_kb;
	u64 rss_anon_kb;
	u64 rss_shmem_kb;
	u64 vsz_kb;
	u64 mm_id;
	u64 cgroup_id;
	u64 cgroup1_id;
};

struct so1_walk {
	pid_t next;		/* the lowest id not yet looked at */
	bool only_foreign;
	const struct cred *reader;
	siphash_key_t mm_key;	/* of this walk alone: see so1_mm_id() */
	struct so1_shared *shared;	/* see shared_mm.h; NULL where not needed */
	bool shared_wanted;
	bool shared_tried;
};

static void so1_walk_start(struct so1_walk *walk, const struct cred *reader,
			   bool only_foreign)
{
	memset(walk, 0, sizeof(*walk));
	walk->next = 1;
	walk->only_foreign = only_foreign;
	walk->reader = reader;
	get_random_bytes(&walk->mm_key, sizeof(walk->mm_key));
}

/* May sleep. */
static void so1_walk_end(struct so1_walk *walk)
{
	so1_shared_free(walk->shared);
	memzero_explicit(&walk->mm_key, sizeof(walk->mm_key));
}

static u64 so1_kb(long pages)
{
	return pages > 0 ? (u64)pages << (PAGE_SHIFT - 10) : 0;
}

/*
 * Never 0: that stands for no address space. The key is drawn for each walk, so
 * that nobody can follow an address over time, or compare two that he cannot see
 * at once.
 */
static u64 so1_mm_id(const struct so1_walk *walk, const struct mm_struct *mm)
{
	u64 id = siphash_1u64((unsigned long)mm, &walk->mm_key);

	return (id >> (64 - SO1_MM_ID_BITS)) ?: 1;
}

/*
 * Returns, with its task_lock() held, the thread that speaks for the group: the
 * leader, or one that still has the address space where the leader has ended
 * before its threads (it is then a zombie without mm, namespaces or a cgroup
 * that anybody would still move). Under RCU.
 */
static struct task_struct *so1_lock_speaker(struct task_struct *leader)
	__acquires(&t->alloc_lock)
{
	struct task_struct *t;

	for_each_thread(leader, t) {
		task_lock(t);
		if (t->mm)
			return t;
		task_unlock(t);
	}
	task_lock(leader);
	return leader;
}

/* Dead threads' time and the living ones', under RCU and stats_lock. */
static u64 so1_cpu_sum(struct task_struct *leader)
{
	u64 sum = leader->signal->sum_sched_runtime;
	struct task_struct *t;

	for_each_thread(leader, t)
		sum += READ_ONCE(t->se.sum_exec_runtime);
	return sum;
}

/*
 * Exact scheduler time of the group, as thread_group_cputime() of
 * kernel/sched/cputime.c has it, which modules cannot call: without the lock
 * first, with it where a thread ended meanwhile. Under RCU.
 */
static u64 so1_cpu_ns(struct task_struct *leader)
{
	struct signal_struct *sig = leader->signal;
	unsigned int seq = read_seqbegin(&sig->stats_lock);
	u64 sum = so1_cpu_sum(leader);
	unsigned long flags;

	if (!read_seqretry(&sig->stats_lock, seq))
		return sum;
	read_seqlock_excl_irqsave(&sig->stats_lock, flags);
	sum = so1_cpu_sum(leader);
	read_sequnlock_excl_irqrestore(&sig->stats_lock, flags);
	return sum;
}

/* Under RCU, which keeps the css_set and the cgroups it points to. */
static void so1_cgroups(struct so1_proc *p, struct task_struct *t)
{
	p->cgroup_id = cgroup_id(task_dfl_cgroup(t));
	p->cgroup1_id = 0;
#ifdef CONFIG_MEMCG
	{
		struct cgroup *cgrp = task_cgroup(t, memory_cgrp_id);

		if (cgrp->root != &cgrp_dfl_root)
			p->cgroup1_id = cgroup_id(cgrp);
	}
#endif
}

/*
 * Fills @p for @leader. Returns false where the walk does not want it, where it is
 * being released, or where walk->shared is wanted first. Under RCU.
 */
static bool so1_fill(struct so1_proc *p, struct task_struct *leader,
		     struct so1_walk *walk)
{
	struct pid_namespace *pid_ns = task_active_pid_ns(leader);
	struct mm_struct *mm = NULL;
	struct task_struct *speaker;
	long pages[NR_MM_COUNTERS];
	int users = 0;
	u64 life_ns;

	if (!pid_ns)
		return false;
	memset(p, 0, sizeof(*p));
	memset(pages, 0, sizeof(pages));

	speaker = so1_lock_speaker(leader);
	if (speaker->nsproxy)
		p->uts_ns = speaker->nsproxy->uts_ns->ns.inum;
	p->pid_ns = pid_ns->ns.inum;
	p->foreign = pid_ns != &init_pid_ns ||
		     (p->uts_ns && p->uts_ns != init_uts_ns.ns.inum);
	if (walk->only_foreign && !p->foreign) {
		task_unlock(speaker);
		return false;
	}
	/* A kernel thread may borrow a process's address space (kthread_use_mm). */
	if (speaker->mm && !(speaker->flags & PF_KTHREAD)) {
		mm = speaker->mm;
		users = atomic_read(&mm->mm_users);
		so1_rss_shared(mm, pages);
		p->vsz_kb = so1_kb(READ_ONCE(mm->total_vm));
		p->mm_id = so1_mm_id(walk, mm);
	}
	if (!so1_may_see_namespaces(walk->reader, leader, mm)) {
		p->pid_ns = 0;
		p->uts_ns = 0;
	}
	task_unlock(speaker);

	if (mm && !so1_rss_cached(leader, mm, users, walk->shared,
				  walk->shared_tried, pages)) {
		walk->shared_wanted = true;
		return false;
	}
	p->rss_anon_kb = so1_kb(pages[MM_ANONPAGES]);
	p->rss_shmem_kb = so1_kb(pages[MM_SHMEMPAGES]);
	p->rss_kb = so1_kb(pages[MM_FILEPAGES]) + p->rss_anon_kb + p->rss_shmem_kb;

	get_task_comm(p->comm, leader);
	p->state = so1_task_state(leader) & SO1_STATE_MASK;
	p->ppid = task_ppid_nr_ns(leader, &init_pid_ns);
	p->ns_pid = task_tgid_nr_ns(leader, pid_ns);
	p->threads = get_nr_threads(leader);
	p->start_ns = leader->start_boottime;
	p->cpu_ns = so1_cpu_ns(leader);
	life_ns = ktime_get_boottime_ns() - p->start_ns;
	p->cpu_percent = div64_u64(p->cpu_ns, max_t(u64, life_ns / 100, 1));
	so1_cgroups(p, speaker);
	return true;
}

/* Leaves the RCU section of so1_walk_next() for what may sleep. */
static void so1_walk_pause(struct so1_walk *walk)
	__releases(RCU) __acquires(RCU)
{
	rcu_read_unlock();
	if (walk->shared_wanted) {
		walk->shared = so1_shared_take();
		walk->shared_wanted = false;
		walk->shared_tried = true;
	}
	cond_resched();
	rcu_read_lock();
}

/*
 * Takes the next process into @p, in the order of their PIDs. Returns 1, 0 where
 * there is none left, or what so1_interrupted() has. A process that lives through
 * the whole walk is met exactly once; one that is reaped meanwhile is left out,
 * never half shown. May sleep.
 */
static int so1_walk_next(struct so1_walk *walk, struct so1_proc *p)
{
	int err = so1_interrupted();
	unsigned int ids = 0;
	struct pid *pid;

	rcu_read_lock();
	while (!err && (pid = so1_pid_ge(walk->next))) {
		pid_t nr = pid_nr_ns(pid, &init_pid_ns);
		struct task_struct *leader = pid_task(pid, PIDTYPE_TGID);
		bool found = leader && so1_fill(p, leader, walk);

		if (walk->shared_wanted) {
			so1_walk_pause(walk);
			err = so1_interrupted();
			continue;
		}
		/*
		 * exec() of another thread than the leader gives the PID to that
		 * thread (de_thread() in fs/exec.c) and the old leader, perhaps
		 * just read, is released: read the new one. Where the process
		 * is gone there is no task for the PID, and the id is passed.
		 */
		if (leader && pid_task(pid, PIDTYPE_TGID) != leader)
			continue;

		walk->next = nr + 1;
		if (found) {
			p->pid = nr;
			rcu_read_unlock();
			return 1;
		}
		if (++ids % SO1_IDS_PER_SECTION == 0) {
			so1_walk_pause(walk);
			err = so1_interrupted();
		}
	}
	rcu_read_unlock();
	return err;
}

#endif /* SO1_TASK_WALK_H */
