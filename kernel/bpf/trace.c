// SPDX-License-Identifier: GPL-2.0-only
/*
 * Every event as it happens, for `agent bpf trace`; built and attached only while somebody looks.
 *
 * Raw tracepoints run with preemption disabled and cannot sleep. The reader polls: no event wakes
 * anybody, which keeps the cost of an event at that of its copy.
 */
#include "records.h"
#include "task.h"
#include "exit_once.h"

/*
 * Bounded by EVENT_PAGES, in the order in which places were taken. When it is full the event is
 * dropped and lost_events counts it on its CPU.
 */
BPF_RINGBUF_OUTPUT(events, EVENT_PAGES);

BPF_PERCPU_ARRAY(counters, struct cpu_counters, 1);

/* BPF_RB_NO_WAKEUP, include/uapi/linux/bpf.h */
#define NO_WAKEUP 1

static __always_inline struct event *reserve(u32 kind)
{
	struct event *event = events.ringbuf_reserve(sizeof(struct event));

	if (event) {
		__builtin_memset(event, 0, sizeof(*event));
		event->time_ns = BOOT_NS();
		event->kind = kind;
	} else {
		int zero = 0;
		struct cpu_counters *cpu = counters.lookup(&zero);

		if (cpu)
			cpu->lost_events++;
	}
	return event;
}

#ifdef FILTER_PID
#define is_wanted(pid, ppid) ((pid) == FILTER_PID || (ppid) == FILTER_PID)
#else
#define is_wanted(pid, ppid) true
#endif

static __always_inline u32 parent_pid(void *leader)
{
	return READ(u32, READ(void *, leader, TASK_REAL_PARENT), TASK_TGID);
}

/* Sends the event with the whole of `text`; nearly all of them are short, and cost no more. */
static __always_inline void submit_with(struct event *event, void *text)
{
	long length = bpf_probe_read_kernel_str(event->text, sizeof(event->text), text);

	if (length < (long)sizeof(event->text)) {
		events.ringbuf_submit(event, NO_WAKEUP);
		return;
	}

	struct long_event *whole = events.ringbuf_reserve(sizeof(struct long_event));

	if (!whole) {
		event->cut = 1;
		events.ringbuf_submit(event, NO_WAKEUP);
		return;
	}
	__builtin_memcpy(&whole->event, event, sizeof(*event));
	events.ringbuf_discard(event, NO_WAKEUP);
	length = bpf_probe_read_kernel_str((char *)whole + __builtin_offsetof(struct event, text),
					   EVENT_LONG_TEXT, text);
	whole->event.cut = length >= EVENT_LONG_TEXT;
	events.ringbuf_submit(whole, NO_WAKEUP);
}

static __always_inline void *cgroup_name(void *cgroup)
{
	return READ(void *, READ(void *, cgroup, CGROUP_KN), KERNFS_NAME);
}

static __always_inline void fill(struct event *event, void *leader, u32 pid, u32 ppid)
{
	event->pid = pid;
	event->ppid = ppid;
	event->start_ns = READ(u64, leader, TASK_START);
	event->cgroup_id = cgroup_id(task_cgroup(leader));
	bpf_probe_read_kernel(event->comm, sizeof(event->comm), leader + TASK_COMM);
}

int trace_fork(struct bpf_raw_tracepoint_args *ctx)
{
	void *child = (void *)ctx->args[1];
	u64 ids = task_ids(child);

	if (!ids_is_leader(ids))
		return 0;

	u32 ppid = parent_pid(child);

	if (!is_wanted(ids_tgid(ids), ppid))
		return 0;

	struct event *event = reserve(EVENT_FORK);

	if (!event)
		return 0;
	fill(event, child, ids_tgid(ids), ppid);
	events.ringbuf_submit(event, NO_WAKEUP);
	return 0;
}

int trace_exec(struct bpf_raw_tracepoint_args *ctx)
{
	void *task = (void *)ctx->args[0];
	u32 pid = ids_tgid(task_ids(task));
	u32 ppid = parent_pid(task);

	if (!is_wanted(pid, ppid))
		return 0;

	struct event *event = reserve(EVENT_EXEC);

	if (!event)
		return 0;
	fill(event, task, pid, ppid);
	submit_with(event, READ(void *, (void *)ctx->args[2], BPRM_FILENAME));
	return 0;
}

int trace_exit(struct bpf_raw_tracepoint_args *ctx)
{
	void *task = (void *)ctx->args[0];
	void *signal = READ(void *, task, TASK_SIGNAL);

	if (!is_last_thread(ctx, signal))
		return 0;

	void *leader = READ(void *, task, TASK_GROUP_LEADER);
	struct process_key key = leader_key(leader, task_ids(leader));
	u32 ppid = parent_pid(leader);

	if (!is_wanted(key.pid, ppid) || is_told_already(&key, signal))
		return 0;

	struct event *event = reserve(EVENT_EXIT);

	if (!event)
		return 0;
	fill(event, leader, key.pid, ppid);
	event->exit_code = group_exit_code(leader, signal);
	event->oom = was_oom_killed(signal, event->exit_code);
	events.ringbuf_submit(event, NO_WAKEUP);
	return 0;
}

int trace_attach(struct bpf_raw_tracepoint_args *ctx)
{
	void *destination = (void *)ctx->args[0];
	void *leader = READ(void *, (void *)ctx->args[2], TASK_GROUP_LEADER);
	u32 pid = ids_tgid(task_ids(leader));
	u32 ppid = parent_pid(leader);

	if (!cgroup_is_ours(destination) || !is_wanted(pid, ppid))
		return 0;

	struct event *event = reserve(EVENT_ATTACH);

	if (!event)
		return 0;
	fill(event, leader, pid, ppid);
	submit_with(event, cgroup_name(destination));
	return 0;
}

static __always_inline int cgroup_event(u32 kind, void *cgroup)
{
	if (!cgroup_is_ours(cgroup))
		return 0;

	struct event *event = reserve(kind);

	if (!event)
		return 0;
	event->cgroup_id = cgroup_id(cgroup);
	event->other_id = cgroup_parent_id(cgroup);
	submit_with(event, cgroup_name(cgroup));
	return 0;
}

int trace_mkdir(struct bpf_raw_tracepoint_args *ctx)
{
	return cgroup_event(EVENT_MKDIR, (void *)ctx->args[0]);
}

int trace_rmdir(struct bpf_raw_tracepoint_args *ctx)
{
	return cgroup_event(EVENT_RMDIR, (void *)ctx->args[0]);
}

/* Before 6.8 the victim's number is all that is told. */
int trace_oom(struct bpf_raw_tracepoint_args *ctx)
{
#ifdef OOM_TASK_ARG
	void *leader = READ(void *, (void *)ctx->args[0], TASK_GROUP_LEADER);
	u32 pid = ids_tgid(task_ids(leader));
	u32 ppid = parent_pid(leader);
#else
	u32 pid = (u32)ctx->args[0];
	u32 ppid = 0;
#endif
	if (!is_wanted(pid, ppid))
		return 0;

	struct event *event = reserve(EVENT_OOM);

	if (!event)
		return 0;
#ifdef OOM_TASK_ARG
	fill(event, leader, pid, ppid);
#else
	event->pid = pid;
#endif
	events.ringbuf_submit(event, NO_WAKEUP);
	return 0;
}
