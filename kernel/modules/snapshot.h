/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A /proc entry of which one open is one snapshot.
 *
 * The text is produced whole at the first read of a descriptor and does not
 * change until it is closed, so reads of any size, seeks and pread() agree.
 * (seq_file's single_open() would walk again for each doubling of its buffer and
 * after each seek.) How many there may be at once is bounded, and each is charged
 * to its reader's memory cgroup.
 *
 * Locking: snap->lock serialises the readers of one descriptor while the text is
 * produced; once snap->ready is set the text is read without a lock. procfs holds
 * off the entry's removal while a call runs, and itself calls so1_release() for
 * what is still open then, after which a read gives EIO.
 */
#ifndef SO1_SNAPSHOT_H
#define SO1_SNAPSHOT_H

#include <linux/atomic.h>
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/ctype.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pid_namespace.h>
#include <linux/proc_fs.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/user_namespace.h>

#include "json_out.h"
#include "task_walk.h"

#define SO1_MODE_MAX 0444
#define SO1_SNAPSHOTS_MAX 4096

static char *entry = KBUILD_MODNAME "_so1_202300539";
module_param(entry, charp, 0444);
MODULE_PARM_DESC(entry, "name in /proc, beginning with the module's own name");

static ushort mode = SO1_MODE_MAX;
module_param(mode, ushort, 0444);
MODULE_PARM_DESC(mode, "permissions, only to narrow the default (0444)");

static unsigned int max_snapshots = 64;
module_param(max_snapshots, uint, 0444);
MODULE_PARM_DESC(max_snapshots, "snapshots held at once before EBUSY (64); an eighth is kept for CAP_SYS_RESOURCE");

static atomic_t so1_snapshots = ATOMIC_INIT(0);

struct so1_snapshot {
	struct mutex lock;	/* held while the text is produced */
	bool ready;		/* text is whole and does not change any more */
	bool trusted;		/* may use what is kept for CAP_SYS_RESOURCE */
	struct so1_text text;
};

/* Writes the whole text. Each module has its own. May sleep. */
static int so1_build(struct so1_text *text);

static bool so1_take_slot(bool trusted)
{
	int limit = max_snapshots;

	/*
	 * Any user may hold snapshots open for as long as he likes; he must not
	 * lock out the agent.
	 */
	if (!trusted)
		limit -= limit / 8;
	if (atomic_inc_return(&so1_snapshots) <= limit)
		return true;
	atomic_dec(&so1_snapshots);
	return false;
}

/* Returns 0 once the text is there. May sleep. */
static int so1_snapshot_take(struct so1_snapshot *snap)
{
	int err = 0;

	/* Pairs with the release below: who sees it set sees the whole text. */
	if (smp_load_acquire(&snap->ready))
		return 0;
	if (mutex_lock_killable(&snap->lock))
		return -EINTR;
	if (snap->ready)
		goto unlock;
	if (!so1_take_slot(snap->trusted)) {
		err = -EBUSY;
		goto unlock;
	}
	err = so1_build(&snap->text);
	if (err) {
		so1_text_free(&snap->text);
		so1_text_init(&snap->text);
		atomic_dec(&so1_snapshots);
		goto unlock;
	}
	/* Pairs with the acquire above. */
	smp_store_release(&snap->ready, true);
unlock:
	mutex_unlock(&snap->lock);
	return err;
}

static ssize_t so1_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	struct so1_snapshot *snap = iocb->ki_filp->private_data;
	ssize_t done;
	int err;

	if (!iov_iter_count(to))
		return 0;
	err = so1_snapshot_take(snap);
	if (err)
		return err;
	done = so1_text_copy(&snap->text, iocb->ki_pos, to);
	if (done > 0)
		iocb->ki_pos += done;
	return done;
}

/*
 * A procfs of another PID namespace is a container's, and every procfs shows a
 * module's entry. One mounted with hidepid= hides other users' processes from
 * those without a privilege, and so must this.
 */
static int so1_may_open(struct inode *inode)
{
	struct proc_fs_info *info = proc_sb_info(inode->i_sb);

	if (proc_pid_ns(inode->i_sb) != &init_pid_ns)
		return -EACCES;
	if (info->hide_pid != HIDEPID_OFF && !in_group_p(info->pid_gid) &&
	    !ns_capable_noaudit(&init_user_ns, CAP_SYS_PTRACE))
		return -EACCES;
	return 0;
}

static int so1_open(struct inode *inode, struct file *file)
{
	struct so1_snapshot *snap;
	int err = so1_may_open(inode);

	if (err)
		return err;
	snap = kzalloc(sizeof(*snap), GFP_KERNEL_ACCOUNT);
	if (!snap)
		return -ENOMEM;
	mutex_init(&snap->lock);
	so1_text_init(&snap->text);
	snap->trusted = ns_capable_noaudit(&init_user_ns, CAP_SYS_RESOURCE);
	file->private_data = snap;
	return 0;
}

static int so1_release(struct inode *inode, struct file *file)
{
	struct so1_snapshot *snap = file->private_data;

	if (snap->ready)
		atomic_dec(&so1_snapshots);
	so1_text_free(&snap->text);
	mutex_destroy(&snap->lock);
	kfree(snap);
	return 0;
}

static const struct proc_ops so1_proc_ops = {
	.proc_open	= so1_open,
	.proc_read_iter	= so1_read_iter,
	/* As other /proc files: the length is not known before a read. */
	.proc_lseek	= no_seek_end_llseek,
	.proc_release	= so1_release,
};

/*
 * A name of the kernel's own would make procfs warn; none of those begins with
 * ours.
 */
static bool so1_entry_valid(const char *name)
{
	size_t i, own = strlen(KBUILD_MODNAME);

	if (strncmp(name, KBUILD_MODNAME, own) || strlen(name) > NAME_MAX)
		return false;
	for (i = own; name[i]; i++)
		if (!isalnum(name[i]) && name[i] != '_' && name[i] != '-')
			return false;
	return true;
}

static int __init so1_entry_create(void)
{
	if (!so1_entry_valid(entry)) {
		pr_err("%s: entry= takes %s and letters, digits, _ or - after it\n",
		       KBUILD_MODNAME, KBUILD_MODNAME);
		return -EINVAL;
	}
	/* procfs takes a mode of 0 for its default. */
	if (!mode || mode & ~SO1_MODE_MAX) {
		pr_err(KBUILD_MODNAME ": mode= takes 0400, 0440 or 0444\n");
		return -EINVAL;
	}
	if (!max_snapshots || max_snapshots > SO1_SNAPSHOTS_MAX) {
		pr_err(KBUILD_MODNAME ": max_snapshots= takes 1 to %d\n",
		       SO1_SNAPSHOTS_MAX);
		return -EINVAL;
	}
	get_random_bytes(&so1_mm_key, sizeof(so1_mm_key));
	if (!proc_create(entry, S_IFREG | mode, NULL, &so1_proc_ops))
		return -ENOMEM;
	pr_info("Modulo " KBUILD_MODNAME " cargado.\n");
	return 0;
}

static void __exit so1_entry_remove(void)
{
	remove_proc_entry(entry, NULL);
	pr_info("Modulo " KBUILD_MODNAME " descargado.\n");
}

#endif /* SO1_SNAPSHOT_H */
