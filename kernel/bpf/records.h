/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the BPF programs and their reader in Python (agent/sources/bpf/records.py) share.
 *
 * Fixed-width types only, every hole named, so that both sides have the same layout on every
 * architecture; a test compiles this header and compares sizes and offsets.
 */
#ifndef SO1_RECORDS_H
#define SO1_RECORDS_H

/* One thread group for as long as the host is up: a pid alone is used again. */
struct process_key {
	__u32 pid;		/* tgid in the initial PID namespace */
	__u32 reserved;
	__u64 start_ns;		/* the leader's start_boottime */
};

/*
 * Where a process is and what it has cost. A record is readable from when its start is written,
 * which is last, to when its cgroup is set to 0, which is first. Flags are words and bytes of their
 * own, not bits of one word: different programs set them on different CPUs without a lock.
 */
struct process_record {
	__u64 start_ns;		/* the leader's start_boottime; 0 where nobody is */
	__u64 cgroup_id;	/* by its history, in the hierarchy the programs were built for */
	__u64 pointer_id;	/* what the task's own pointer said where that differed, else 0 */
	__u64 base_cpu_ns;	/* spent before it came into this cgroup by a move */
	__u64 threads_cpu_ns;	/* of its threads that have switched for the last time */
	__u64 exit_cpu_ns;	/* all of its CPU, once it has ended */
	__u64 claimed;		/* the place is taken */
	__u64 ended;		/* its threads are gone and its account is settled; not yet freed */
	__u64 released;		/* by the reader: it has ended and nobody will tell of its freeing */
	__u32 pid;
	__u32 spills;		/* of the place, not of who has it: records that found it taken */
	__u8 seen_event;	/* by fork, exec or attach */
	__u8 seen_snapshot;	/* by the task iterator */
	__u8 moved;
	__u8 base_partial;	/* it had more threads than a program walks when it was moved */
	__u8 reserved[4];
};

/* Everything is cumulative since the record was made. */
struct cgroup_record {
	__u64 parent_id;	/* 0 for the root and where it was not seen */
	__u64 forks;
	__u64 execs;
	__u64 exits;
	__u64 oom_kills;
	__u64 moved_in;
	__u64 moved_out;
	/* A stay is a process's life in this cgroup: from fork or move in to its end or move out. */
	__u64 cpu_short_ns;	/* of ended processes that began and ended between two marks */
	__u64 cpu_ended_ns;	/* of all other ended stays */
	__u64 short_exits;	/* of `exits` those that began and ended between two marks */
	__u32 born;		/* its making was seen: the record has all that ever happened in it */
	__u32 gone;		/* the directory was removed */
};

/* One a CPU. What could not be kept is counted here and nowhere else. */
struct cpu_counters {
	__u64 lost_processes;	/* no room for a process's record, or its end was never seen */
	__u64 lost_cgroups;	/* events of a cgroup whose record found no room */
	__u64 lost_events;	/* no room in the trace's ring buffer */
	__u64 corrected;	/* a task's own pointer said another cgroup than its history */
	__u64 late;		/* ended processes that were settled or cleared without their event */
	__u64 exits;		/* sequence number of the last exit record, given or not */
	__u64 seam_both;	/* the iterator met a process that an event had told of */
	__u64 seam_snapshot;	/* it met one that no event had told of */
	__u64 ooms;		/* sequence number of the last OOM record, given or not */
	__u64 names;		/* sequence number of the last cgroup's name, given or not */
	__u64 long_names;	/* names that are too long to be a container's, and were not given */
};

/* Written by the reader. */
struct control {
	__u64 mark_ns;		/* boot clock of its last snapshot of all processes */
};

enum exit_kind {
	EXIT_WHOLE = 1,
	EXIT_REST = 2,		/* more CPU of a process whose exit was given before */
};

#define EVENT_COMM 16

/* One process that ended. */
struct exit_record {
	__u64 sequence;		/* on its CPU, from 1, without gaps where nothing is lost */
	__u64 start_ns;		/* with pid: the process */
	__u64 parent_start_ns;	/* with ppid: whose child it was when it ended */
	__u64 cgroup_id;
	__u64 ended_ns;		/* boot clock */
	__u64 cpu_ns;		/* of all its life */
	__u64 charged_ns;	/* of it what its last cgroup's account got */
	__u64 max_rss_pages;
	__u32 cpu;
	__u32 pid;
	__u32 ppid;
	__s32 exit_code;	/* as wait(2) has it: status << 8 | signal */
	__u8 kind;		/* enum exit_kind */
	__u8 oom;		/* it was an OOM victim */
	__u8 short_lived;	/* began and ended between two marks */
	__u8 moved;
	__u32 reserved;
	char comm[EVENT_COMM];
	char parent_comm[EVENT_COMM];
};

#define OOM_LEVELS 8		/* memory cgroups above a victim; with more, the highest are left out */
#define OOM_FRAMES 24
#define OOM_NAME 80		/* as EVENT_TEXT */

/* What an OOM record has; the rest of it is 0. */
#define OOM_KNOWS_VICTIM 1	/* more of it than its number */
#define OOM_KNOWS_MEMORY 2
#define OOM_KNOWS_LEVELS 4

/* One memory cgroup at that moment. Pages; memsw (on v2: swap alone) as v1 counts it. */
struct oom_level {
	__u64 cgroup_id;
	__u64 used_pages;
	__u64 max_pages;
	__u64 memsw_used_pages;
	__u64 memsw_max_pages;
	__u64 oom_events;	/* how often it was out of memory itself */
	char name[OOM_NAME];	/* of its directory */
};

/* One victim of the OOM killer, as it was when it was chosen. */
struct oom_record {
	__u64 sequence;		/* on its CPU, from 1, without gaps where nothing is lost */
	__u64 marked_ns;	/* boot clock */
	__u64 start_ns;		/* with pid: the victim */
	__u64 cgroup_id;
	__u64 trigger_start_ns;	/* with trigger_pid: who asked for memory */
	__u64 trigger_cgroup_id;
	__s64 file_pages;	/* the four as the kernel's own line in its log has them */
	__s64 anon_pages;
	__s64 swap_pages;
	__s64 shmem_pages;
	__u32 cpu;
	__u32 pid;
	__u32 trigger_pid;
	__s32 oom_score_adj;
	__s32 exit_code;	/* what it is ending with, 9 where it was killed */
	__u32 known;
	__u32 levels;		/* that are filled */
	__u32 frames;		/* that are filled */
	char comm[EVENT_COMM];
	char trigger_comm[EVENT_COMM];
	char trigger_cgroup[OOM_NAME];
	__u64 stack[OOM_FRAMES];
	struct oom_level level[OOM_LEVELS];
};

#define OOM_HEAD (10 * 8 + 8 * 4 + 2 * EVENT_COMM + OOM_NAME)

#define CONTAINER_ID 64		/* hexadecimal digits */
#define CGROUP_NAME 256

/* One cgroup that was made with a name that may hold a container's id. */
struct cgroup_name {
	__u64 sequence;		/* on its CPU, from 1, without gaps where nothing is lost */
	__u64 cgroup_id;
	__u64 maker_id;		/* the cgroup of who made it */
	__u32 cpu;
	__u32 uid;		/* of who made it, in the initial user namespace */
	char name[CGROUP_NAME];	/* of its directory when it was made */
};

enum event_kind {
	EVENT_FORK = 1,
	EVENT_EXEC = 2,
	EVENT_EXIT = 3,
	EVENT_ATTACH = 4,
	EVENT_MKDIR = 5,
	EVENT_RMDIR = 6,
	EVENT_OOM = 7,
};

#define EVENT_TEXT 80		/* "docker-", 64 digits, ".scope" and a final NUL fit */
#define EVENT_LONG_TEXT 4160	/* PATH_MAX behind "/dev/fd/" and a number */

/* One line of the live trace. */
struct event {
	__u64 time_ns;		/* boot clock */
	__u64 start_ns;		/* with pid: the process; 0 for mkdir and rmdir */
	__u64 cgroup_id;	/* where it is, for attach: where it is now; else the cgroup itself */
	__u64 other_id;		/* mkdir, rmdir: the parent's id */
	__u32 kind;		/* enum event_kind */
	__u32 pid;
	__u32 ppid;
	__s32 exit_code;	/* as wait(2) has it: status << 8 | signal */
	__u32 oom;		/* exit: it was an OOM victim */
	__u32 cut;		/* text goes on, and there was no room for the rest */
	char comm[EVENT_COMM];
	char text[EVENT_TEXT];	/* exec: the file; mkdir, rmdir: the directory's name */
};

/* The same where text needs more: it goes on in rest. The reader tells the two by their length. */
struct long_event {
	struct event event;
	char rest[EVENT_LONG_TEXT - EVENT_TEXT];
};

#endif
