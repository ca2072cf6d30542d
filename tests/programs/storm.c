// SPDX-License-Identifier: GPL-2.0-only
/*
 * Processes in known numbers, for tests: serves one request a line from a FIFO and answers on
 * another, so that everything it starts is born in its own cgroup and nothing else is.
 *
 *   storm serve DIR     "fork N", "exec N", "threads N", "thread-exec N", "burn MS", "eat MB", "end"
 *   storm nop           ends at once
 *   storm burn MS       ends when it has used so much CPU more
 *   storm into DIR      a child made inside the cgroup DIR (CLONE_INTO_CGROUP), which sleeps
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define THREADS 8

static char *self;
static pthread_barrier_t together;

static void die(const char *what)
{
	fprintf(stderr, "storm: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void reap(pid_t pid)
{
	if (pid < 0)
		die("fork");
	if (waitpid(pid, NULL, 0) != pid)
		die("waitpid");
}

static void *end_together(void *unused)
{
	pthread_barrier_wait(&together);
	return unused;
}

/* All threads, the leader too, leave one by one and at the same moment. */
static void end_in_threads(void)
{
	pthread_t thread;
	int i;

	pthread_barrier_init(&together, NULL, THREADS);
	for (i = 1; i < THREADS; i++)
		if (pthread_create(&thread, NULL, end_together, NULL))
			die("pthread_create");
	pthread_barrier_wait(&together);
	pthread_exit(NULL);
}

static void *exec_nop(void *unused)
{
	execl(self, self, "nop", NULL);
	die("exec");
	return unused;
}

static void exec_in_thread(void)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, exec_nop, NULL))
		die("pthread_create");
	for (;;)
		pause();
}

static long spent_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void burn(long ms)
{
	while (spent_ms() < ms)
		;
}

static void eat(long mb)
{
	long i;

	for (i = 0; i < mb; i++)
		memset(malloc(1 << 20), 1, 1 << 20);
}

static void serve_one(const char *what, long number)
{
	if (!strcmp(what, "burn") || !strcmp(what, "eat")) {
		pid_t pid = fork();

		if (pid == 0) {
			if (*what == 'b')
				burn(number);
			else
				eat(number);
			_exit(0);
		}
		reap(pid);
		return;
	}
	while (number-- > 0) {
		pid_t pid = fork();

		if (pid == 0) {
			if (!strcmp(what, "exec"))
				exec_nop(NULL);
			else if (!strcmp(what, "threads"))
				end_in_threads();
			else if (!strcmp(what, "thread-exec"))
				exec_in_thread();
			_exit(0);
		}
		reap(pid);
	}
}

static int serve(const char *directory)
{
	char path[512], what[64];
	FILE *asked, *done;
	long number;

	snprintf(path, sizeof(path), "%s/ask", directory);
	asked = fopen(path, "r");
	snprintf(path, sizeof(path), "%s/done", directory);
	done = fopen(path, "w");
	if (!asked || !done)
		die(path);
	while (fscanf(asked, "%63s %ld", what, &number) == 2) {
		if (!strcmp(what, "end"))
			return 0;
		serve_one(what, number);
		fprintf(done, "%s\n", what);
		fflush(done);
	}
	return 0;
}

static int into(const char *directory)
{
	struct clone_args args = { .flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD };
	int fd = open(directory, O_RDONLY | O_DIRECTORY);
	pid_t pid;

	if (fd < 0)
		die(directory);
	args.cgroup = fd;
	pid = syscall(SYS_clone3, &args, sizeof(args));
	if (pid < 0)
		die("clone3");
	if (pid == 0) {
		/* Whoever reads what is printed below must see its end. */
		close(STDOUT_FILENO);
		close(STDERR_FILENO);
		for (;;)
			pause();
	}
	printf("%d\n", pid);
	return 0;
}

int main(int argc, char **argv)
{
	self = argv[0];
	if (argc == 2 && !strcmp(argv[1], "nop"))
		return 0;
	if (argc == 3 && !strcmp(argv[1], "serve"))
		return serve(argv[2]);
	if (argc == 3 && !strcmp(argv[1], "burn")) {
		burn(spent_ms() + atol(argv[2]));
		return 0;
	}
	if (argc == 3 && !strcmp(argv[1], "into"))
		return into(argv[2]);
	fprintf(stderr, "usage: storm serve DIR | nop | burn MS | into DIR\n");
	return 2;
}
