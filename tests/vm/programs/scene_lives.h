/* SPDX-License-Identifier: GPL-2.0 */
/* Scenes of lives: who burns, waits, has threads, calls itself something, ends or is replaced. */

/* parked N: N children that do nothing, fewer pages than this process. */
static void parked(char **args)
{
	int i, n = atoi(args[0]);

	for (i = 0; i < n; i++)
		printf("%d\n", child(park_child, NULL));
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
