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

static int so1_format(struct so1_line *line)
{
	const struct so1_proc *p = &line->proc;

	return scnprintf(line->text, sizeof(line->text),
			 "{\"pid\":%d,\"name\":\"%s\",\"rss\":%llu,"
			 "\"mem_percent\":%llu,\"vsz\":%llu,\"cpu\":%llu,"
			 "\"start_ns\":%llu,\"cpu_ns\":%llu,\"rss_anon\":%llu,"
			 "\"rss_shmem\":%llu,\"mm_id\":%llu,\"cgroup_id\":%llu,"
			 "\"cgroup1_id\":%llu,\"ns_pid\":%d,\"pid_ns\":%u,"
			 "\"uts_ns\":%u}",
			 p->pid, line->name, p->rss_kb, line->mem_percent,
			 p->vsz_kb, p->cpu_percent, p->start_ns, p->cpu_ns,
			 p->rss_anon_kb, p->rss_shmem_kb, p->mm_id, p->cgroup_id,
			 p->cgroup1_id, p->ns_pid, p->pid_ns, p->uts_ns);
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
