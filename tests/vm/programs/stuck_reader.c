// SPDX-License-Identifier: GPL-2.0
/*
 * A read() that never returns: `stuck_reader FILE DIRECTORY` mounts a FUSE file
 * system on DIRECTORY whose one file gives no page, and has a child, as the user
 * nobody, read FILE into a page of it. Once the kernel waits for that page, it
 * prints the child's PID and `ready`, and keeps it until its standard input ends;
 * then the child's read comes back with an error.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/fuse.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define FILE_NODE 2
#define NOBODY 65534

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void reply(int fuse, const struct fuse_in_header *in, int error,
		  void *data, size_t size)
{
	struct fuse_out_header out = {
		.len = sizeof(out) + size, .error = error, .unique = in->unique,
	};
	struct iovec parts[] = { { &out, sizeof(out) }, { data, size } };

	if (writev(fuse, parts, size ? 2 : 1) < 0 && errno != ENOENT)
		die("answer to the kernel");
}

static struct fuse_attr attributes(uint64_t node)
{
	struct fuse_attr attr = {
		.ino = node, .nlink = 1, .blksize = 4096,
		.mode = node == FILE_NODE ? S_IFREG | 0444 : S_IFDIR | 0555,
		.size = node == FILE_NODE ? 4096 : 0,
	};

	return attr;
}

/* Returns whether the kernel wants the page. */
static int serve(int fuse)
{
	static char buffer[1 << 18];
	struct fuse_in_header *in = (void *)buffer;
	struct fuse_init_out init = {
		.major = FUSE_KERNEL_VERSION, .minor = 31, .max_write = 4096,
	};
	struct fuse_attr_out attr = { .attr_valid = 60 };
	struct fuse_entry_out entry = {
		.nodeid = FILE_NODE, .entry_valid = 60, .attr_valid = 60,
		.attr = attributes(FILE_NODE),
	};
	struct fuse_open_out opened = { .fh = 1 };

	if (read(fuse, buffer, sizeof(buffer)) < 0) {
		if (errno == EINTR || errno == ENOENT)
			return 0;
		die("request of the kernel");
	}
	switch (in->opcode) {
	case FUSE_INIT:
		reply(fuse, in, 0, &init, sizeof(init));
		break;
	case FUSE_LOOKUP:
		reply(fuse, in, 0, &entry, sizeof(entry));
		break;
	case FUSE_GETATTR:
		attr.attr = attributes(in->nodeid);
		reply(fuse, in, 0, &attr, sizeof(attr));
		break;
	case FUSE_OPEN:
		reply(fuse, in, 0, &opened, sizeof(opened));
		break;
	case FUSE_READ:
		return 1;
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT:
		break;
	default:
		reply(fuse, in, -ENOSYS, NULL, 0);
	}
	return 0;
}

static void read_into_it(const char *file, const char *page_file, int fuse)
{
	char *page;
	int fd, of;

	/* The connection ends with the last descriptor of it: the server's alone. */
	close(fuse);
	if (setgroups(0, NULL) || setgid(NOBODY) || setuid(NOBODY))
		die("nobody");
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	of = open(page_file, O_RDONLY);
	fd = open(file, O_RDONLY);
	if (of < 0 || fd < 0)
		die("open");
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, of, 0);
	if (page == MAP_FAILED)
		die("mmap");
	_exit(read(fd, page, 4096) < 0);
}

int main(int argc, char **argv)
{
	char options[128], page_file[4096];
	struct pollfd in[2] = { { .fd = 0, .events = POLLIN } };
	int fuse, wanted = 0;
	pid_t pid;
	char c;

	if (argc != 3)
		return 2;
	fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (fuse < 0)
		die("/dev/fuse");
	snprintf(options, sizeof(options),
		 "fd=%d,rootmode=40555,user_id=0,group_id=0,allow_other", fuse);
	if (mount("stuck", argv[2], "fuse", MS_NODEV | MS_NOSUID, options))
		die("mount");
	snprintf(page_file, sizeof(page_file), "%s/page", argv[2]);
	pid = fork();
	if (pid < 0)
		die("fork");
	if (pid == 0)
		read_into_it(argv[1], page_file, fuse);
	in[1] = (struct pollfd){ .fd = fuse, .events = POLLIN };
	while (poll(in, 2, -1) > 0) {
		if (in[0].revents && read(0, &c, 1) == 0)
			break;
		if (in[1].revents & POLLIN && serve(fuse) && !wanted++) {
			printf("%d\nready\n", pid);
			fflush(stdout);
		}
	}
	/* With the server's descriptor the page is refused. */
	umount2(argv[2], MNT_DETACH);
	return 0;
}
