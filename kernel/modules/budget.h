/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How many snapshots of an entry are held at once, by whom, and of what size.
 *
 * Any user may hold snapshots open for as long as he likes. So their number is
 * bounded, with an eighth kept for readers with CAP_SYS_RESOURCE, whom nobody can
 * lock out; the bytes of all others together are bounded; and one user has a
 * quarter of either. A reader's only snapshot is as large as the host makes it:
 * bytes are refused only to who, or beside whom another, holds one already.
 *
 * Locking: budget->lock, a leaf. Nothing sleeps under it.
 */
#ifndef SO1_BUDGET_H
#define SO1_BUDGET_H

#include <linux/cred.h>
#include <linux/list.h>
#include <linux/minmax.h>
#include <linux/spinlock.h>
#include <linux/uidgid.h>
#include <linux/user_namespace.h>

struct so1_budget {
	spinlock_t lock;	/* of holds and what they count */
	unsigned int max_snapshots;
	size_t max_bytes;	/* of readers without CAP_SYS_RESOURCE */
	struct list_head holds;	/* one of each snapshot */
};

/* What one snapshot has of the budget. */
struct so1_hold {
	struct list_head list;
	kuid_t uid;
	bool trusted;		/* has CAP_SYS_RESOURCE */
	size_t bytes;
};

/* What is held, under budget->lock. */
struct so1_held {
	unsigned int all;
	unsigned int others;	/* of readers without CAP_SYS_RESOURCE */
	unsigned int own;	/* of these, of one user */
	size_t others_bytes;
	size_t own_bytes;
};

static void so1_budget_init(struct so1_budget *budget, unsigned int snapshots,
			    size_t bytes)
{
	spin_lock_init(&budget->lock);
	INIT_LIST_HEAD(&budget->holds);
	budget->max_snapshots = snapshots;
	budget->max_bytes = bytes;
}

/*
 * The user of the host who answers for @cred: in a user namespace, whoever made
 * it, however many users it has inside.
 */
static kuid_t so1_host_user(const struct cred *cred)
{
	const struct user_namespace *ns = cred->user_ns;
	kuid_t uid = cred->euid;

	for (; ns != &init_user_ns; ns = ns->parent)
		uid = ns->owner;
	return uid;
}

/* Under budget->lock. At most max_snapshots steps. */
static struct so1_held so1_held(const struct so1_budget *budget, kuid_t uid)
{
	const struct so1_hold *hold;
	struct so1_held held = {};

	list_for_each_entry(hold, &budget->holds, list) {
		held.all++;
		if (hold->trusted)
			continue;
		held.others++;
		held.others_bytes += hold->bytes;
		if (!uid_eq(hold->uid, uid))
			continue;
		held.own++;
		held.own_bytes += hold->bytes;
	}
	return held;
}

/* Returns whether one more snapshot may be taken, and then it counts. */
static bool so1_budget_take(struct so1_budget *budget, struct so1_hold *hold)
{
	unsigned int open = budget->max_snapshots - budget->max_snapshots / 8;
	struct so1_held held;
	bool fits;

	spin_lock(&budget->lock);
	held = so1_held(budget, hold->uid);
	if (hold->trusted)
		fits = held.all < budget->max_snapshots;
	else
		fits = held.all < open && held.own < max(open / 4, 1u);
	if (fits) {
		hold->bytes = 0;
		list_add(&hold->list, &budget->holds);
	}
	spin_unlock(&budget->lock);
	return fits;
}

/* Returns whether a snapshot that counts may have @bytes more. */
static bool so1_budget_charge(struct so1_budget *budget, struct so1_hold *hold,
			      size_t bytes)
{
	size_t most = budget->max_bytes;
	struct so1_held held;
	bool fits = true;

	spin_lock(&budget->lock);
	if (!hold->trusted) {
		held = so1_held(budget, hold->uid);
		if (held.others > 1 && held.others_bytes + bytes > most)
			fits = false;
		if (held.own > 1 && held.own_bytes + bytes > most / 4)
			fits = false;
	}
	if (fits)
		hold->bytes += bytes;
	spin_unlock(&budget->lock);
	return fits;
}

static void so1_budget_put(struct so1_budget *budget, struct so1_hold *hold)
{
	spin_lock(&budget->lock);
	list_del(&hold->list);
	spin_unlock(&budget->lock);
}

#endif /* SO1_BUDGET_H */
