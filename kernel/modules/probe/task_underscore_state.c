// SPDX-License-Identifier: GPL-2.0
/* Before 5.14 (2f064a59a11f) a task's state is called state, not __state. */
#include <linux/sched.h>

unsigned int so1_probe(struct task_struct *task);

unsigned int so1_probe(struct task_struct *task)
{
	return task->__state;
}
