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

static void continfo_format(struct so1_line *line)
{
	so1_put_identity(line);
	so1_put_usage(line);
	so1_put(line, "ns_pid", line->proc.ns_pid);
	so1_put(line, "pid_ns", line->proc.pid_ns);
	so1_put(line, "uts_ns", line->proc.uts_ns);
}

static int continfo_walk(const struct so1_ops *ops, struct so1_text *text,
			 const struct cred *reader)
{
	int err = so1_append_processes(ops, text, reader, true);

	return err ?: so1_text_append(text, "\n", 1);
}

static const struct so1_ops continfo_ops = {
	.name	= KBUILD_MODNAME,
	.walk	= continfo_walk,
	.format	= continfo_format,
};

static struct so1_entry continfo_entry = {
	.ops		= &continfo_ops,
	.name		= KBUILD_MODNAME "_so1_202300539",
	.mode		= SO1_MODE_MAX,
	.max_snapshots	= SO1_SNAPSHOTS,
	.max_mb		= SO1_MB,
	.copies_lock	= __SPIN_LOCK_UNLOCKED(continfo_entry.copies_lock),
	.copies		= LIST_HEAD_INIT(continfo_entry.copies),
};

module_param_named(entry, continfo_entry.name, charp, 0444);
MODULE_PARM_DESC(entry, "name in /proc, beginning with the module's own name");

module_param_named(mode, continfo_entry.mode, ushort, 0444);
MODULE_PARM_DESC(mode, "permissions, only to narrow the default (0444)");

module_param_named(max_snapshots, continfo_entry.max_snapshots, uint, 0444);
MODULE_PARM_DESC(max_snapshots, "snapshots held at once before EBUSY (64); an eighth is kept for CAP_SYS_RESOURCE, a quarter of the rest is a user's");

module_param_named(max_mb, continfo_entry.max_mb, uint, 0444);
MODULE_PARM_DESC(max_mb, "MB of snapshots held at once by readers without CAP_SYS_RESOURCE (64); a quarter is a user's");

module_param_cb(holders, &so1_holders_ops, &continfo_entry, 0400);
MODULE_PARM_DESC(holders, "PIDs of readers who keep the module from being unloaded at this moment");

static int __init continfo_init(void)
{
	return so1_entry_create(&continfo_entry);
}
module_init(continfo_init);

static void __exit continfo_exit(void)
{
	so1_entry_remove(&continfo_entry);
}
module_exit(continfo_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Processes in namespaces of their own as JSON in /proc");
MODULE_VERSION("1.0.0");
