// SPDX-License-Identifier: GPL-2.0
/* Who may look into a task is kept with the task, no longer with its mm. */
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/sched/exec_state.h>

int so1_probe(struct task_struct *task);

int so1_probe(struct task_struct *task)
{
	return rcu_dereference(task->exec_state)->dumpable;
}
