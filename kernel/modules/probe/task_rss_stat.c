// SPDX-License-Identifier: GPL-2.0
/* Threads keep counts of their own, where a kernel for many CPUs has atomic ones. */
#include <linux/mm.h>
#include <linux/sched.h>

long so1_probe(struct task_struct *task);

long so1_probe(struct task_struct *task)
{
	return task->rss_stat.count[MM_ANONPAGES];
}
