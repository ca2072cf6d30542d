// SPDX-License-Identifier: GPL-2.0-only
/*
 * Does what its words say, one after the other, and ends:
 *   name WORD     what it is called from now on
 *   adj NUMBER    its own oom_score_adj
 *   grow MB       so much more memory, touched page by page
 *   wait FILE     until the file is there
 *   make FILE     makes it
 *   fork N        N children do the words that follow; the parent waits for them all
 *   spawn         one child does the words up to "also", the parent those behind it
 *   pause         until a signal comes
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static void grow(long mb)
{
	long page = sysconf(_SC_PAGESIZE);
	char *memory;
	long at;

	while (mb--) {
		memory = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (memory == MAP_FAILED)
			exit(3);
		for (at = 0; at < 1 << 20; at += page)
			memory[at] = 1;
	}
}

static void adjust(const char *to)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY);

	if (fd < 0 || write(fd, to, strlen(to)) < 0)
		exit(4);
	close(fd);
}

static char **after_also(char **words)
{
	while (*words && strcmp(*words, "also"))
		words++;
	if (*words)
		*words++ = NULL;
	return words;
}

int main(int count, char **words)
{
	char **rest;
	int left;

	(void)count;
	for (words++; *words; words++) {
		if (!strcmp(*words, "name")) {
			prctl(PR_SET_NAME, *++words);
		} else if (!strcmp(*words, "adj")) {
			adjust(*++words);
		} else if (!strcmp(*words, "grow")) {
			grow(atol(*++words));
		} else if (!strcmp(*words, "wait")) {
			words++;
			while (access(*words, F_OK))
				usleep(10000);
		} else if (!strcmp(*words, "make")) {
			close(open(*++words, O_CREAT | O_WRONLY, 0644));
		} else if (!strcmp(*words, "fork")) {
			for (left = atoi(*++words); left; left--)
				if (!fork())
					break;
			if (!left) {
				while (wait(NULL) > 0)
					;
				return 0;
			}
		} else if (!strcmp(*words, "spawn")) {
			rest = after_also(words);
			if (fork())
				words = rest - 1;
		} else if (!strcmp(*words, "pause")) {
			pause();
		} else {
			fprintf(stderr, "eater: %s is no word of mine\n", *words);
			return 2;
		}
	}
	return 0;
}
