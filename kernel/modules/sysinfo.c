// SPDX-License-Identifier: GPL-2.0
/*
 * /proc/sysinfo_so1_202300539: the host's memory and every process, as one JSON
 * object. docs/kernel.md has the fields; the locking is described in
 * task_walk.h (processes) and snapshot.h (the entry).
 */
#include <linux/init.h>
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/timekeeping.h>

#include "process_list.h"
#include "snapshot.h"

static int so1_format(struct so1_line *line)
{
	const struct so1_proc *p = &line->proc;

	return scnprintf(line->text, sizeof(line->text),
			 "{\"pid\":%d,\"name\":\"%s\",\"state\":%u,\"rss\":%llu,"
			 "\"mem_percent\":%llu,\"vsz\":%llu,\"cpu\":%llu,"
			 "\"ppid\":%d,\"threads\":%d,\"start_ns\":%llu,"
			 "\"cpu_ns\":%llu,\"rss_anon\":%llu,\"rss_shmem\":%llu,"
			 "\"mm_id\":%llu,\"cgroup_id\":%llu,\"cgroup1_id\":%llu}",
			 p->pid, line->name, p->state, p->rss_kb,
			 line->mem_percent, p->vsz_kb, p->cpu_percent, p->ppid,
			 p->threads, p->start_ns, p->cpu_ns, p->rss_anon_kb,
			 p->rss_shmem_kb, p->mm_id, p->cgroup_id, p->cgroup1_id);
}

static int so1_append_memory(struct so1_text *text)
{
	u64 snapshot_ns = ktime_get_boottime_ns();
	struct sysinfo info;
	char head[256];
	u64 total, avail;
	int len;

	si_meminfo(&info);
	total = so1_kb(info.totalram);
	avail = so1_kb(si_mem_available());
	len = scnprintf(head, sizeof(head),
			"{\"total_ram\":%llu,\"free_ram\":%llu,\"used_ram\":%llu,"
			"\"available_ram\":%llu,\"snapshot_ns\":%llu,\n"
			"\"processes\":", total, so1_kb(info.freeram),
			total - so1_kb(info.freeram), avail, snapshot_ns);
	return so1_text_append(text, head, len);
}

static int so1_build(struct so1_text *text)
{
	int err = so1_append_memory(text);

	if (!err)
		err = so1_append_processes(text, false);
	return err ?: so1_text_append(text, "}\n", 2);
}

static int __init sysinfo_init(void)
{
	return so1_entry_create();
}
module_init(sysinfo_init);

static void __exit sysinfo_exit(void)
{
	so1_entry_remove();
}
module_exit(sysinfo_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Every process as JSON in /proc");
MODULE_VERSION("1.0.0");
