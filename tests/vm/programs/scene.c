// SPDX-License-Identifier: GPL-2.0
/*
 * Scenes of processes for the tests of the kernel modules, in C because Python is
 * slow in an emulated guest. `scene NAME ARGS…` sets one up, prints a line for
 * each process it is about (its PID and what the scene knows of it), then `ready`,
 * and keeps it until its standard input ends. All that it made dies with it.
 */
#include "scene.h"
#include "scene_memory.h"
#include "scene_lives.h"
#include "scene_fuzz.h"

static const struct {
	const char *name;
	void (*set_up)(char **args);
	int args;
} scenes[] = {
	{ "parked", parked, 1 },
	{ "hold", hold, 2 },
	{ "ended-threads", ended_threads, 2 },
	{ "burning", burning, 0 },
	{ "shared-mm", shared_mm, 0 },
	{ "vfork-pairs", vfork_pairs, 1 },
	{ "zombies", zombies, 1 },
	{ "dead-leader", dead_leader, 0 },
	{ "threads", threads, 1 },
	{ "named", named, 1 },
	{ "exec-loop", exec_loop, 0 },
	{ "crowd", crowd, 3 },
	{ "fuzz", fuzz, 2 },
};

int main(int argc, char **argv)
{
	size_t i;

	for (i = 0; argc > 1 && i < sizeof(scenes) / sizeof(*scenes); i++) {
		if (strcmp(argv[1], scenes[i].name) || argc - 2 < scenes[i].args)
			continue;
		scenes[i].set_up(argv + 2);
		ready();
		until_stdin_ends();
		return 0;
	}
	fprintf(stderr, "usage: scene NAME ARGS...\n");
	return 2;
}
