/* SPDX-License-Identifier: GPL-2.0 */
/* Scenes of memory: exact sizes, and address spaces that processes share. */

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
