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
#include "snapshot.h"
#include "task_walk.h"

/* The longest text of a process is about 600 bytes. */
#define SO1_LINE_MAX 1024

struct so1_line {
	struct so1_proc proc;
	u64 total_kb;		/* of RAM */
	char text[SO1_LINE_MAX];
	size_t len;
};

/* Whether @len bytes more have room; a line that is too long is a mistake here. */
static bool so1_has_room(const struct so1_line *line, size_t len)
{
	return !WARN_ON_ONCE(line->len + len > sizeof(line->text));
}

static void so1_put_text(struct so1_line *line, const char *text, size_t len)
{
	if (!so1_has_room(line, len))
		return;
	memcpy(line->text + line->len, text, len);
	line->len += len;
}

static void so1_put_number(struct so1_line *line, u64 value)
{
	if (so1_has_room(line, SO1_DIGITS_MAX))
		line->len += so1_decimal(line->text + line->len, value);
}

/* Inlined, so that the length is the compiler's to know. */
static __always_inline void so1_put_literal(struct so1_line *line,
					    const char *text)
{
	so1_put_text(line, text, strlen(text));
}

static __always_inline void so1_put_field(struct so1_line *line,
					  const char *opening, u64 value)
{
	so1_put_literal(line, opening);
	so1_put_number(line, value);
}

#define so1_put(line, key, value) so1_put_field(line, ",\"" key "\":", value)

/* Opens the object with what names the process. */
static void so1_put_identity(struct so1_line *line)
{
	const struct so1_proc *p = &line->proc;

	so1_put_literal(line, "{\"pid\":");
	so1_put_number(line, p->pid);
	so1_put_literal(line, ",\"name\":\"");
	if (so1_has_room(line, TASK_COMM_LEN * SO1_ESCAPED_MAX))
		line->len += so1_json_escape(line->text + line->len, p->comm,
					     strnlen(p->comm, TASK_COMM_LEN));
	so1_put_literal(line, "\"");
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

static int so1_append_process(const struct so1_ops *ops, struct so1_text *text,
			      struct so1_line *line, bool first)
{
	line->len = 0;
	if (!first)
		so1_put_literal(line, ",");
	so1_put_literal(line, "\n");
	ops->format(line);
	so1_put_literal(line, "}");
	return so1_text_append(text, line->text, line->len);
}

/* Returns 0, -ENOMEM, -EBUSY, or what so1_interrupted() has. May sleep. */
static int so1_append_processes(const struct so1_ops *ops, struct so1_text *text,
				const struct cred *reader, bool only_foreign)
{
	struct so1_walk walk;
	struct so1_line *line;
	bool first = true;
	int err;

	line = kmalloc(sizeof(*line), GFP_KERNEL_ACCOUNT);
	if (!line)
		return -ENOMEM;
	line->total_kb = so1_kb(totalram_pages());
	so1_walk_start(&walk, reader, only_foreign);
	err = so1_text_append(text, "[", 1);
	while (!err) {
		err = so1_walk_next(&walk, &line->proc);
		if (err <= 0)
			break;
		err = so1_append_process(ops, text, line, first);
		first = false;
		cond_resched();
	}
	so1_walk_end(&walk);
	kfree(line);
	return err ?: so1_text_append(text, "\n]", 2);
}

#endif /* SO1_PROCESS_LIST_H */
