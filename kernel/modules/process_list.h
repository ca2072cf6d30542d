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
	u64 total_kb;		/* of RAM */
	char name[TASK_COMM_LEN * SO1_ESCAPED_MAX + 1];
	char text[1024];
	size_t len;
};

/* Writes one JSON object for line->proc. Each module has its own. */
static void so1_format(struct so1_line *line);

static void so1_put(struct so1_line *line, const char *key, u64 value)
{
	line->len += scnprintf(line->text + line->len,
			       sizeof(line->text) - line->len,
			       ",\"%s\":%llu", key, value);
}

/* Opens the object with what names the process. */
static void so1_put_identity(struct so1_line *line)
{
	const struct so1_proc *p = &line->proc;

	so1_json_escape(line->name, p->comm, strnlen(p->comm, TASK_COMM_LEN));
	line->len = scnprintf(line->text, sizeof(line->text),
			      "{\"pid\":%d,\"name\":\"%s\"", p->pid, line->name);
}

static void so1_put_usage(struct so1_line *line)
{
	const struct so1_proc *p = &line->proc;

	so1_put(line, "rss", p->rss_kb);
	so1_put(line, "mem_percent",
		div64_u64(p->rss_kb * 100, max_t(u64, line->total_kb, 1)));
	so1_put(line, "vsz", p->vsz_kb);
	so1_put(line, "cpu", p->cpu_percent);
	so1_put(line, "start_ns", p->start_ns);
	so1_put(line, "cpu_ns", p->cpu_ns);
	so1_put(line, "rss_anon", p->rss_anon_kb);
	so1_put(line, "rss_shmem", p->rss_shmem_kb);
	so1_put(line, "mm_id", p->mm_id);
	so1_put(line, "cgroup_id", p->cgroup_id);
	so1_put(line, "cgroup1_id", p->cgroup1_id);
}

static int so1_append_process(struct so1_text *text, struct so1_line *line,
			      bool first)
{
	int err = so1_text_append(text, first ? "\n" : ",\n", first ? 1 : 2);

	if (err)
		return err;
	so1_format(line);
	err = so1_text_append(text, line->text, line->len);
	return err ?: so1_text_append(text, "}", 1);
}

/* Returns 0, -ENOMEM, or -EINTR where the reader is being killed. May sleep. */
static int so1_append_processes(struct so1_text *text, bool only_foreign)
{
	struct so1_walk walk;
	struct so1_line *line;
	bool first = true;
	int err;

	line = kmalloc(sizeof(*line), GFP_KERNEL_ACCOUNT);
	if (!line)
		return -ENOMEM;
	line->total_kb = so1_kb(totalram_pages());
	so1_walk_start(&walk, only_foreign);
	err = so1_text_append(text, "[", 1);
	while (!err && so1_walk_next(&walk, &line->proc)) {
		err = so1_append_process(text, line, first);
		first = false;
		if (fatal_signal_pending(current))
			err = -EINTR;
		cond_resched();
	}
	kfree(line);
	return err ?: so1_text_append(text, "\n]", 2);
}

#endif /* SO1_PROCESS_LIST_H */
