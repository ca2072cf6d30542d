// SPDX-License-Identifier: GPL-2.0
/*
 * /proc/continfo_so1_202300539: the processes that may be a container's, as one
 * JSON array: those whose UTS or PID namespace is not init's. docs/kernel.md has
 * the fields; the locking is described in task_walk.h (processes) and snapshot.h
 * (the entry).
 */
#include <linux/init.h>
#include <linux/kernel.h>
#include <linux/module.h>

#include "process_list.h"
#include "snapshot.h"

static void so1_format(struct so1_line *line)
{
	so1_put_identity(line);
	so1_put_usage(line);
	so1_put(line, "ns_pid", line->proc.ns_pid);
	so1_put(line, "pid_ns", line->proc.pid_ns);
	so1_put(line, "uts_ns", line->proc.uts_ns);
}

static int so1_build(struct so1_text *text)
{
	int err = so1_append_processes(text, true);

	return err ?: so1_text_append(text, "\n", 1);
}

static int __init continfo_init(void)
{
	return so1_entry_create();
}
module_init(continfo_init);

static void __exit continfo_exit(void)
{
	so1_entry_remove();
}
module_exit(continfo_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Processes in namespaces of their own as JSON in /proc");
MODULE_VERSION("1.0.0");
