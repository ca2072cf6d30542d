/* SPDX-License-Identifier: GPL-2.0 */
/* The scene of chance: workers whose children do what a process can do, behind scene_lives.h. */

/* xorshift: the same seed does the same things, though not at the same time. */
static uint32_t draw(uint32_t *state, uint32_t below)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state % below;
}

static void random_name(uint32_t *state)
{
	char name[16] = "";
	uint32_t i, n = draw(state, 16);

	for (i = 0; i < n; i++)
		name[i] = 1 + draw(state, 255);
	prctl(PR_SET_NAME, name);
}

static void *fuzz_thread(void *seed)
{
	uint32_t state = (uintptr_t)seed | 1;

	random_name(&state);
	usleep(draw(&state, 2000));
	return NULL;
}

static int touch_and_end(void *pages)
{
	memset(pages, 1, 1 << 14);
	return 0;
}

static void fuzz_step(uint32_t *state, int depth);

static void fuzz_life(uint32_t *state, int depth)
{
	uint32_t n = 1 + draw(state, 6);

	while (n--)
		fuzz_step(state, depth);
}

static void fuzz_fork(uint32_t *state, int depth)
{
	uint32_t seed = draw(state, ~0u) | 1;
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		fuzz_life(&seed, depth + 1);
		_exit(0);
	}
	/* The others are left to whoever reaps orphans, or stay zombies for a while. */
	if (pid > 0 && draw(state, 2))
		waitpid(pid, NULL, 0);
}

static void fuzz_step(uint32_t *state, int depth)
{
	static const int kinds[] = {
		CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWNS, CLONE_NEWCGROUP,
		CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWUSER,
	};
	static char stack[1 << 16] __attribute__((aligned(16)));
	char *pages;
	pthread_t thread;
	uint32_t i;

	switch (draw(state, 10)) {
	case 0:
	case 1:
		random_name(state);
		break;
	case 2:
		for (i = draw(state, 8); i; i--)
			if (pthread_create(&thread, NULL, fuzz_thread,
					   (void *)(uintptr_t)draw(state, ~0u)) == 0)
				pthread_detach(thread);
		break;
	case 3:
		(void)!unshare(kinds[draw(state, 7)]);
		break;
	case 4:
	case 5:
		if (depth < 3)
			fuzz_fork(state, depth);
		break;
	case 6:
		pages = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE,
			     MAP_ANONYMOUS | (draw(state, 2) ? MAP_SHARED : MAP_PRIVATE), -1, 0);
		if (pages == MAP_FAILED)
			break;
		memset(pages, 1, 1 << 15);
		if (draw(state, 2))
			waitpid(clone(touch_and_end, stack + sizeof(stack),
				      CLONE_VM | CLONE_VFORK | SIGCHLD, pages), NULL, 0);
		break;
	case 7:
		usleep(draw(state, 3000));
		break;
	case 8:
		if (draw(state, 4) == 0)
			execl("/bin/true", "true", (char *)NULL);
		setsid();
		break;
	default:
		if (draw(state, 4) == 0)
			pthread_exit(NULL);
		if (draw(state, 4) == 0)
			raise(SIGKILL);
	}
}

static void fuzz_worker(void *argument)
{
	uint32_t state = *(uint32_t *)argument | 1;
	pid_t parent = getppid();

	prctl(PR_SET_CHILD_SUBREAPER, 1);
	while (getppid() == parent) {
		uint32_t seed = draw(&state, ~0u) | 1;
		uint64_t until;
		pid_t pid = fork();

		if (pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			fuzz_life(&seed, 0);
			_exit(0);
		}
		until = now(CLOCK_MONOTONIC) + NS / 10;
		while (pid > 0 && waitpid(-1, NULL, WNOHANG) != pid) {
			if (now(CLOCK_MONOTONIC) > until)
				kill(pid, SIGKILL);
			usleep(200);
		}
	}
}

/*
 * fuzz SEED WORKERS HEX…: a parked child for each name, and that many workers
 * whose children do at random what a process can do to what the modules tell.
 */
static void fuzz(char **args)
{
	uint32_t seed = strtoul(args[0], NULL, 10);
	int i, n = atoi(args[1]);

	named(args + 2);
	/* Or each child that ends by pthread_exit() prints them again. */
	fflush(stdout);
	for (i = 0; i < n; i++) {
		uint32_t own = seed + 7919 * i;

		child(fuzz_worker, &own);
	}
}
