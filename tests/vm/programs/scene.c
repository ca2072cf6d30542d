// SPDX-License-Identifier: GPL-2.0
/*
 * Scenes of processes for the tests of the kernel modules, in C because Python is
 * slow in an emulated guest. `scene NAME ARGS…` sets one up, prints a line for
 * each process it is about (its PID and what the scene knows of it), then `ready`,
 * and keeps it until its standard input ends. All that it made dies with it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NS 1000000000ull

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static uint64_t now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * NS + t.tv_nsec;
}

static void ready(void)
{
	printf("ready\n");
	fflush(stdout);
}

static int stdin_ended(int wait_ms)
{
	struct pollfd in = { .fd = 0, .events = POLLIN };
	char c;

	return poll(&in, 1, wait_ms) > 0 && read(0, &c, 1) == 0;
}

static void until_stdin_ends(void)
{
	while (!stdin_ended(-1))
		;
}

static void park(void)
{
	for (;;)
		pause();
}

/* A child that dies with its parent. */
static pid_t child(void (*body)(void *), void *argument)
{
	pid_t parent = getpid();
	pid_t pid = fork();

	if (pid < 0)
		die("fork");
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	body(argument);
	_exit(0);
}

static void park_child(void *unused)
{
	(void)unused;
	park();
}

static void *park_thread(void *unused)
{
	(void)unused;
	park();
	return NULL;
}

static void start_thread(void *(*body)(void *), void *argument, pthread_t *thread)
{
	pthread_attr_t attr;
	pthread_t own;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 64 * 1024);
	if (pthread_create(thread ? thread : &own, &attr, body, argument))
		die("pthread_create");
	pthread_attr_destroy(&attr);
}

/* parked N: N children that do nothing, fewer pages than this process. */
static void parked(char **args)
{
	int i, n = atoi(args[0]);

	for (i = 0; i < n; i++)
		printf("%d\n", child(park_child, NULL));
}

/* hold ANON_KB SHMEM_KB FILE PATH_KB: exactly that much of each kind, touched. */
static void hold(char **args)
{
	size_t anon = atol(args[0]) * 1024ul, shmem = atol(args[1]) * 1024ul;
	char *a, *s;

	a = mmap(NULL, anon, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	s = mmap(NULL, shmem, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (a == MAP_FAILED || s == MAP_FAILED)
		die("mmap");
	memset(a, 1, anon);
	memset(s, 1, shmem);
	printf("%d\n", getpid());
}

static void *burn(void *ms)
{
	uint64_t end = now(CLOCK_THREAD_CPUTIME_ID) + (uintptr_t)ms * 1000000;

	while (now(CLOCK_THREAD_CPUTIME_ID) < end)
		;
	return NULL;
}

/* ended-threads N MS: N threads one after the other that each burn MS and end. */
static void ended_threads(char **args)
{
	int i, n = atoi(args[0]);
	pthread_t thread;

	for (i = 0; i < n; i++) {
		start_thread(burn, (void *)(uintptr_t)atol(args[1]), &thread);
		pthread_join(thread, NULL);
	}
	printf("%d\n", getpid());
}

static void burn_for_ever(void *unused)
{
	(void)unused;
	for (;;)
		;
}

/* burning: a child that never rests. */
static void burning(char **args)
{
	(void)args;
	printf("%d\n", child(burn_for_ever, NULL));
}

static int park_clone(void *unused)
{
	(void)unused;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	park();
	return 0;
}

/* Touches new pages of the shared address space in the child, which counts them. */
static char *shared_pages;

static int touch_and_park(void *unused)
{
	memset(shared_pages, 1, 50 * 4096);
	return park_clone(unused);
}

/*
 * shared-mm: this process, a CLONE_VM child, and a child in vfork() with its own
 * child between vfork and exec: two address spaces, two processes in each.
 */
static void vfork_pair(void *out)
{
	int fd = *(int *)out;
	pid_t self = getpid(), pid;

	pid = vfork();
	if (pid == 0) {
		pid_t both[2] = { self, getpid() };

		if (write(fd, both, sizeof(both)) != sizeof(both))
			_exit(1);
		park();
	}
	if (pid < 0)
		die("vfork");
}

static void shared_mm(char **args)
{
	static char stack[64 * 1024];
	pid_t pair[2], pid;
	int out[2];

	(void)args;
	shared_pages = mmap(NULL, 50 * 4096, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pid = clone(touch_and_park, stack + sizeof(stack), CLONE_VM | SIGCHLD, NULL);
	if (pid < 0)
		die("clone");
	printf("%d\n%d\n", getpid(), pid);
	if (pipe(out))
		die("pipe");
	child(vfork_pair, &out[1]);
	if (read(out[0], pair, sizeof(pair)) != sizeof(pair))
		die("vfork child");
	printf("%d\n%d\n", pair[0], pair[1]);
	/* The vfork's child is not ours: its parent's end does not end it. */
	fflush(stdout);
	ready();
	until_stdin_ends();
	kill(pair[1], SIGKILL);
	kill(pair[0], SIGKILL);
	kill(pid, SIGKILL);
	_exit(0);
}

static void touching_vfork_pair(void *out)
{
	char *pages = mmap(NULL, 20 * 4096, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int fd = *(int *)out;
	pid_t self = getpid(), pid;

	if (pages == MAP_FAILED)
		die("mmap");
	pid = vfork();
	if (pid == 0) {
		pid_t both[2] = { self, getpid() };

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		memset(pages, 1, 20 * 4096);
		if (write(fd, both, sizeof(both)) != sizeof(both))
			_exit(1);
		park();
	}
	if (pid < 0)
		die("vfork");
}

/*
 * vfork-pairs N: N processes in vfork(), each with its child before exec, which
 * has touched 20 pages of the address space that it shares.
 */
static void vfork_pairs(char **args)
{
	int i, n = atoi(args[0]), out[2];
	pid_t pair[2];

	if (pipe(out))
		die("pipe");
	for (i = 0; i < n; i++) {
		child(touching_vfork_pair, &out[1]);
		if (read(out[0], pair, sizeof(pair)) != sizeof(pair))
			die("vfork child");
		printf("%d\n%d\n", pair[0], pair[1]);
	}
}

static void nothing(void *unused)
{
	(void)unused;
}

/* zombies N: N children that ended and that nobody waits for. */
static void zombies(char **args)
{
	int i, n = atoi(args[0]);
	siginfo_t info;

	for (i = 0; i < n; i++) {
		pid_t pid = child(nothing, NULL);

		waitid(P_PID, pid, &info, WEXITED | WNOWAIT);
		printf("%d\n", pid);
	}
}

static void *touch_thread(void *pages)
{
	memset(pages, 1, 1 << 20);
	printf("%d\n", getpid());
	ready();
	until_stdin_ends();
	_exit(0);
}

/* dead-leader: the main thread ends, another lives on and holds 1 MiB more. */
static void dead_leader(char **args)
{
	void *pages = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)args;
	start_thread(touch_thread, pages, NULL);
	pthread_exit(NULL);
}

/* threads N: this process with N threads more. */
static void threads(char **args)
{
	int i, n = atoi(args[0]);

	for (i = 0; i < n; i++)
		start_thread(park_thread, NULL, NULL);
	printf("%d\n", getpid());
}

static void take_name(void *hex)
{
	char name[16] = "";
	unsigned int byte;
	size_t i;

	for (i = 0; i < 15 && sscanf((char *)hex + 2 * i, "%2x", &byte) == 1; i++)
		name[i] = byte;
	prctl(PR_SET_NAME, name);
}

static void named_child(void *name)
{
	take_name(((void **)name)[0]);
	/* Parked under that name only now. */
	if (write(((int *)((void **)name)[1])[1], "", 1) != 1)
		_exit(1);
	park();
}

/* named HEX…: a child for each name, given in hexadecimal. */
static void named(char **args)
{
	int done[2];
	char c;

	if (pipe(done))
		die("pipe");
	for (; *args; args++) {
		void *both[] = { *args, done };

		printf("%d %s\n", child(named_child, both), *args);
		if (read(done[0], &c, 1) != 1)
			die("named child");
	}
}

static void *exec_thread(void *argv)
{
	char **args = argv;

	execv("/proc/self/exe", args);
	die("exec");
	return NULL;
}

/*
 * exec-loop [COUNT]: a thread that is not the leader executes this program again,
 * which gives it the leader's PID, again and again.
 */
static void exec_loop(char **args)
{
	char count[16];
	char *again[] = { "scene", "exec-loop", count, NULL };
	int n = args[0] ? atoi(args[0]) : 0;

	if (n == 0) {
		printf("%d\n", getpid());
		ready();
	}
	if (stdin_ended(0))
		_exit(0);
	snprintf(count, sizeof(count), "%d", n + 1);
	start_thread(exec_thread, again, NULL);
	park();
}

static void *brief_thread(void *unused)
{
	(void)unused;
	return NULL;
}

static void churn_child(void *steady)
{
	for (;;) {
		pid_t pid = fork();
		pthread_t thread;

		if (pid == 0) {
			if (pthread_create(&thread, NULL, brief_thread, NULL) == 0)
				pthread_join(thread, NULL);
			_exit(0);
		}
		if (pid > 0)
			waitpid(pid, NULL, 0);
		if (getppid() != *(pid_t *)steady)
			_exit(0);
	}
}

/*
 * crowd PARKED THREADS CHURNING: that many parked children (their PIDs are
 * printed), a process with that many threads, and that many children that fork
 * and wait without end.
 */
static void crowd(char **args)
{
	pid_t self = getpid();
	int i, n;

	parked(args);
	for (i = 0, n = atoi(args[2]); i < n; i++)
		child(churn_child, &self);
	threads(args + 1);
}

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
