// SPDX-License-Identifier: GPL-2.0
/* Compiles on every kernel: where it does not, no other probe says anything. */
#include <linux/mm.h>
#include <linux/sched.h>

int so1_probe(struct task_struct *task);

int so1_probe(struct task_struct *task)
{
	return task->pid;
}
