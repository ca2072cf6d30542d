/* SPDX-License-Identifier: GPL-2.0 */
/* What every scene's file needs: children that die with their parent, threads, waits. */

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
