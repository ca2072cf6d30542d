/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A /proc entry of which one open is one snapshot.
 *
 * The text is produced whole at the first read of a descriptor and does not
 * change until it is closed, so reads of any size, seeks and pread() agree
 * (docs/decisions/why-one-snapshot-an-open.md says why it is no seq_file). How
 * many there may be, and how large, is bounded (budget.h), and each is charged to
 * its reader's memory cgroup.
 *
 * Locking: snap->lock serialises the readers of one descriptor while the text is
 * produced; once snap->ready is set the text is read without a lock. procfs holds
 * off the entry's removal while a call runs, and itself calls so1_release() for
 * what is still open then, after which a read gives EIO. So a call must end:
 * producing the text stops once the module is going, and what may wait for a user
 * for ever, the copy to his memory, is done with the module held (so1_copy()).
 */
#ifndef SO1_SNAPSHOT_H
#define SO1_SNAPSHOT_H

#include <linux/ctype.h>
#include <linux/fs.h>
#include <linux/list.h>
#include <linux/magic.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/mutex.h>
#include <linux/namei.h>
#include <linux/proc_fs.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

#include "access.h"
#include "budget.h"
#include "compat.h"
#include "json_out.h"

#define SO1_MODE_MAX 0444
#define SO1_SNAPSHOTS 64
#define SO1_SNAPSHOTS_MAX 4096
#define SO1_MB 64
#define SO1_MB_MAX 4096

struct so1_line;

/* What makes one module. */
struct so1_ops {
	const char *name;	/* the module's */
	/*
	 * Writes the whole text for @reader, whose processes the list may tell
	 * more of. Returns 0 or an error. May sleep.
	 */
	int (*walk)(const struct so1_ops *ops, struct so1_text *text,
		    const struct cred *reader);
	/* Writes the fields of line->proc, but for the closing brace. */
	void (*format)(struct so1_line *line);
};

struct so1_entry {
	const struct so1_ops *ops;

	/* The module's parameters. */
	char *name;
	unsigned short mode;
	unsigned int max_snapshots;
	unsigned int max_mb;

	struct so1_budget budget;
	spinlock_t copies_lock;		/* a leaf */
	struct list_head copies;	/* of struct so1_copying */
};

/* A reader whose memory a text is copied to. */
struct so1_copying {
	struct list_head list;
	pid_t pid;			/* of the host */
};

struct so1_snapshot {
	struct so1_entry *entry;
	struct mutex lock;	/* held while the text is produced */
	bool ready;		/* text is whole and does not change any more */
	struct so1_text text;
};

/* Returns 0 once the text is there. May sleep. */
static int so1_snapshot_take(struct so1_snapshot *snap, const struct cred *reader)
{
	const struct so1_ops *ops = snap->entry->ops;
	struct so1_budget *budget = &snap->entry->budget;
	int err = 0;

	/* Pairs with the release below: who sees it set sees the whole text. */
	if (smp_load_acquire(&snap->ready))
		return 0;
	if (mutex_lock_killable(&snap->lock))
		return -EINTR;
	if (snap->ready)
		goto unlock;
	if (!so1_budget_take(budget, &snap->text.hold)) {
		err = -EBUSY;
		goto unlock;
	}
	err = ops->walk(ops, &snap->text, reader);
	if (err) {
		so1_text_free(&snap->text);
		so1_budget_put(budget, &snap->text.hold);
		so1_text_init(&snap->text, budget);
		goto unlock;
	}
	/* Pairs with the acquire above. */
	smp_store_release(&snap->ready, true);
unlock:
	mutex_unlock(&snap->lock);
	return err;
}

/*
 * Copies to the reader, as so1_text_copy() does. A page of his may never come: that
 * of a file whose server he is himself (FUSE) or that does not answer any more.
 * While he waits for it, the module is in use, so rmmod refuses at once and says
 * so, where it would wait with procfs for this call, unkillably, for ever; and
 * holders= names him. Once the module is going, it cannot be taken any more.
 */
static ssize_t so1_copy(struct so1_snapshot *snap, loff_t pos,
			struct iov_iter *to)
{
	struct so1_entry *entry = snap->entry;
	struct so1_copying copying;
	ssize_t done;

	if (!try_module_get(THIS_MODULE))
		return -EIO;
	copying.pid = task_tgid_nr_ns(current, &init_pid_ns);
	spin_lock(&entry->copies_lock);
	list_add_tail(&copying.list, &entry->copies);
	spin_unlock(&entry->copies_lock);

	done = so1_text_copy(&snap->text, pos, to);

	spin_lock(&entry->copies_lock);
	list_del(&copying.list);
	spin_unlock(&entry->copies_lock);
	/* procfs keeps the module's code until this call has returned. */
	module_put(THIS_MODULE);
	return done;
}

static ssize_t so1_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	struct file *file = iocb->ki_filp;
	struct so1_snapshot *snap = file->private_data;
	ssize_t done;
	int err;

	if (!iov_iter_count(to))
		return 0;
	/* With the rights of who opened it, whoever reads. */
	err = so1_snapshot_take(snap, file->f_cred);
	if (err)
		return err;
	done = so1_copy(snap, iocb->ki_pos, to);
	if (done > 0)
		iocb->ki_pos += done;
	return done;
}

static int so1_open(struct inode *inode, struct file *file)
{
	struct so1_entry *entry = so1_pde_data(inode);
	struct so1_snapshot *snap;
	int err = so1_may_open(inode);

	if (err)
		return err;
	snap = kzalloc(sizeof(*snap), GFP_KERNEL_ACCOUNT);
	if (!snap)
		return -ENOMEM;
	snap->entry = entry;
	mutex_init(&snap->lock);
	so1_text_init(&snap->text, &entry->budget);
	snap->text.hold.uid = so1_host_user(file->f_cred);
	snap->text.hold.trusted = ns_capable_noaudit(&init_user_ns,
						     CAP_SYS_RESOURCE);
	file->private_data = snap;
	return 0;
}

static int so1_release(struct inode *inode, struct file *file)
{
	struct so1_snapshot *snap = file->private_data;

	if (snap->ready)
		so1_budget_put(&snap->entry->budget, &snap->text.hold);
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

/* The parameter holders=: the PIDs of who is being copied to, a blank between. */
static int so1_holders_get(char *buffer, const struct kernel_param *kp)
{
	struct so1_entry *entry = kp->arg;
	const struct so1_copying *copying;
	int len = 0;

	spin_lock(&entry->copies_lock);
	list_for_each_entry(copying, &entry->copies, list)
		len += scnprintf(buffer + len, PAGE_SIZE - 1 - len, "%s%d",
				 len ? " " : "", copying->pid);
	spin_unlock(&entry->copies_lock);
	return len + scnprintf(buffer + len, PAGE_SIZE - len, "\n");
}

static const struct kernel_param_ops so1_holders_ops = { .get = so1_holders_get };

/*
 * A name of the kernel's own would make procfs warn; none of those begins with
 * ours.
 */
static bool so1_entry_valid(const struct so1_entry *entry)
{
	const char *name = entry->name;
	size_t i, own = strlen(entry->ops->name);

	if (strncmp(name, entry->ops->name, own) || strlen(name) > NAME_MAX)
		return false;
	for (i = own; name[i]; i++)
		if (!isalnum(name[i]) && name[i] != '_' && name[i] != '-')
			return false;
	return true;
}

/*
 * Whether /proc has the name already, as far as whoever loads the module sees it.
 * procfs itself would warn, with a stack trace.
 */
static bool __init so1_entry_taken(const struct so1_entry *entry)
{
	char *name = kasprintf(GFP_KERNEL, "/proc/%s", entry->name);
	bool taken = false;
	struct path path;

	if (name && !kern_path(name, 0, &path)) {
		taken = path.dentry->d_sb->s_magic == PROC_SUPER_MAGIC;
		path_put(&path);
	}
	kfree(name);
	return taken;
}

static int __init so1_entry_check(const struct so1_entry *entry)
{
	const char *own = entry->ops->name;

	if (!so1_entry_valid(entry)) {
		pr_err("%s: entry= takes %s and letters, digits, _ or - after it\n",
		       own, own);
		return -EINVAL;
	}
	/* procfs takes a mode of 0 for its default. */
	if (!entry->mode || entry->mode & ~SO1_MODE_MAX) {
		pr_err("%s: mode= takes 0400, 0440 or 0444\n", own);
		return -EINVAL;
	}
	if (!entry->max_snapshots || entry->max_snapshots > SO1_SNAPSHOTS_MAX) {
		pr_err("%s: max_snapshots= takes 1 to %d\n", own,
		       SO1_SNAPSHOTS_MAX);
		return -EINVAL;
	}
	if (!entry->max_mb || entry->max_mb > SO1_MB_MAX) {
		pr_err("%s: max_mb= takes 1 to %d\n", own, SO1_MB_MAX);
		return -EINVAL;
	}
	if (so1_entry_taken(entry)) {
		pr_err("%s: /proc/%s is there already, of another module: unload that one, or give another entry=\n",
		       own, entry->name);
		/* -EEXIST says that this very module is loaded, which modprobe calls a success. */
		return -EBUSY;
	}
	return 0;
}

static int __init so1_entry_create(struct so1_entry *entry)
{
	int err = so1_entry_check(entry);

	if (err)
		return err;
	so1_budget_init(&entry->budget, entry->max_snapshots,
			(size_t)entry->max_mb << 20);
	if (!proc_create_data(entry->name, S_IFREG | entry->mode, NULL,
			      &so1_proc_ops, entry)) {
		pr_err("%s: /proc/%s cannot be made: no memory, or the name is taken (then the lines above say so)\n",
		       entry->ops->name, entry->name);
		return -ENOMEM;
	}
	pr_info("Modulo %s cargado.\n", entry->ops->name);
	return 0;
}

static void __exit so1_entry_remove(struct so1_entry *entry)
{
	remove_proc_entry(entry->name, NULL);
	pr_info("Modulo %s descargado.\n", entry->ops->name);
}

#endif /* SO1_SNAPSHOT_H */
