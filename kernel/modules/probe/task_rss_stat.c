// SPDX-License-Identifier: GPL-2.0
/* Threads keep counts of their own, beside the atomic ones of the mm. */
#include <linux/atomic.h>
#include <linux/mm.h>
#include <linux/sched.h>

long so1_probe(struct task_struct *task, struct mm_struct *mm);

long so1_probe(struct task_struct *task, struct mm_struct *mm)
{
	return task->rss_stat.count[MM_ANONPAGES] +
	       atomic_long_read(&mm->rss_stat.count[MM_ANONPAGES]);
}
