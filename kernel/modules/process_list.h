/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The JSON array of processes that both entries hold; which fields of a process
 * a line has is each module's own.
 */
#ifndef SO1_PROCESS_LIST_H
#define SO1_PROCESS_LIST_H

#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "json_out.h"
#include "task_walk.h"

/* What one process takes; its longest text is about 600 bytes. */
struct so1_line {
	struct so1_proc proc;
	u64 mem_percent;	/* of total RAM */
	char name[TASK_COMM_LEN * SO1_ESCAPED_MAX + 1];
	char text[1024];
};

/* Writes line->text, one JSON object, and returns its length. */
static int so1_format(struct so1_line *line);

static int so1_append_process(struct so1_text *text, struct so1_line *line,
			      u64 total_kb, bool first)
{
	const struct so1_proc *p = &line->proc;
	int err;

	so1_json_escape(line->name, p->comm, strnlen(p->comm, TASK_COMM_LEN));
	line->mem_percent = div64_u64(p->rss_kb * 100, max_t(u64, total_kb, 1));
	err = so1_text_append(text, first ? "\n" : ",\n", first ? 1 : 2);
	if (err)
		return err;
	return so1_text_append(text, line->text, so1_format(line));
}

/* Returns 0, -ENOMEM, or -EINTR where the reader is being killed. May sleep. */
static int so1_append_processes(struct so1_text *text, bool only_foreign)
{
	u64 total_kb = so1_kb(totalram_pages());
	struct so1_walk walk;
	struct so1_line *line;
	bool first = true;
	int err;

	line = kmalloc(sizeof(*line), GFP_KERNEL_ACCOUNT);
	if (!line)
		return -ENOMEM;
	so1_walk_start(&walk, only_foreign);
	err = so1_text_append(text, "[", 1);
	while (!err && so1_walk_next(&walk, &line->proc)) {
		err = so1_append_process(text, line, total_kb, first);
		first = false;
		if (fatal_signal_pending(current))
			err = -EINTR;
		cond_resched();
	}
	kfree(line);
	return err ?: so1_text_append(text, "\n]", 2);
}

#endif /* SO1_PROCESS_LIST_H */
