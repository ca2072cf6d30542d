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

static void sysinfo_format(struct so1_line *line)
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

static int sysinfo_walk(const struct so1_ops *ops, struct so1_text *text,
			const struct cred *reader)
{
	int err = so1_append_memory(text);

	if (!err)
		err = so1_append_processes(ops, text, reader, false);
	return err ?: so1_text_append(text, "}\n", 2);
}

static const struct so1_ops sysinfo_ops = {
	.name	= KBUILD_MODNAME,
	.walk	= sysinfo_walk,
	.format	= sysinfo_format,
};

static struct so1_entry sysinfo_entry = {
	.ops		= &sysinfo_ops,
	.name		= KBUILD_MODNAME "_so1_202300539",
	.mode		= SO1_MODE_MAX,
	.max_snapshots	= SO1_SNAPSHOTS,
	.max_mb		= SO1_MB,
	.copies_lock	= __SPIN_LOCK_UNLOCKED(sysinfo_entry.copies_lock),
	.copies		= LIST_HEAD_INIT(sysinfo_entry.copies),
};

module_param_named(entry, sysinfo_entry.name, charp, 0444);
MODULE_PARM_DESC(entry, "name in /proc, beginning with the module's own name");

module_param_named(mode, sysinfo_entry.mode, ushort, 0444);
MODULE_PARM_DESC(mode, "permissions, only to narrow the default (0444)");

module_param_named(max_snapshots, sysinfo_entry.max_snapshots, uint, 0444);
MODULE_PARM_DESC(max_snapshots, "snapshots held at once before EBUSY (64); an eighth is kept for CAP_SYS_RESOURCE, a quarter of the rest is a user's");

module_param_named(max_mb, sysinfo_entry.max_mb, uint, 0444);
MODULE_PARM_DESC(max_mb, "MB of snapshots held at once by readers without CAP_SYS_RESOURCE (64); a quarter is a user's");

module_param_cb(holders, &so1_holders_ops, &sysinfo_entry, 0400);
MODULE_PARM_DESC(holders, "PIDs of readers who keep the module from being unloaded at this moment");

static int __init sysinfo_init(void)
{
	return so1_entry_create(&sysinfo_entry);
}
module_init(sysinfo_init);

static void __exit sysinfo_exit(void)
{
	so1_entry_remove(&sysinfo_entry);
}
module_exit(sysinfo_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Every process as JSON in /proc");
MODULE_VERSION("1.0.0");
