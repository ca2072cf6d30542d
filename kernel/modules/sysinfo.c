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

static void so1_format(struct so1_line *line)
{
	so1_put_identity(line);
	so1_put(line, "state", line->proc.state);
	so1_put_usage(line);
	so1_put(line, "ppid", line->proc.ppid);
	so1_put(line, "threads", line->proc.threads);
}

static int so1_append_memory(struct so1_text *text)
{
	u64 snapshot_ns = ktime_get_boottime_ns();
	struct sysinfo info;
	char head[256];
	u64 total, unused;
	int len;

	si_meminfo(&info);
	total = so1_kb(info.totalram);
	unused = so1_kb(info.freeram);
	len = scnprintf(head, sizeof(head),
			"{\"total_ram\":%llu,\"free_ram\":%llu,\"used_ram\":%llu,\n"
			"\"available_ram\":%llu,\"snapshot_ns\":%llu,\n\"processes\":",
			total, unused, total - unused,
			so1_kb(si_mem_available()), snapshot_ns);
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
