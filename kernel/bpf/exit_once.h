/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A process's exit is told once. Each program file that includes this has a table of its own; its
 * text is put in place of the #include before BCC sees it (agent/sources/bpf/compiler.py).
 */
#ifndef SO1_EXIT_ONCE_H
#define SO1_EXIT_ONCE_H

#include "records.h"
#include "task.h"

/*
 * Before 6.16 the last two threads of a process may both find nobody alive behind them; the first to
 * insert the key tells of the exit. The second may come so late that the first has been released and
 * it looks like the only thread there ever was, so that it has to ask as well. Least recently used
 * keys make room: they matter for as long as a thread is held up between two lines of do_exit().
 */
#ifndef GROUP_DEAD_ARG
#define KEY_IS_THERE (-17) /* -EEXIST */
BPF_F_TABLE("lru_hash", struct process_key, u8, ended, 1024, 0);
#endif

static __always_inline bool is_told_already(struct process_key *key, void *signal)
{
#ifndef GROUP_DEAD_ARG
	u8 one = 1;

	if (READ(s32, signal, SIGNAL_NR_THREADS) > 1)
		return ended.insert(key, &one) == KEY_IS_THERE;
	return ended.lookup(key) != NULL;
#else
	return false;
#endif
}

#endif
