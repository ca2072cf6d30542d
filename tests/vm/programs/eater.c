// SPDX-License-Identifier: GPL-2.0
/*
 * Eats memory: `eater MB_PER_S LEFT_MB [MOST_MB [half]]` takes what the host has down to
 * LEFT_MB of MemAvailable as fast as it can, prints `eating`, and then MB_PER_S a second
 * until it is killed or has MOST_MB in all. With 0 a second it keeps what it has.
 * LEFT_MB 0 with MOST_MB: takes MOST_MB at once. What it writes does not compress; with
 * `half` every second word is 0.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MB (1UL << 20)
#define STEP_MB 4

static uint64_t state = 88172645463325252ULL;
static int half;

static void take(unsigned long mb)
{
	uint64_t *at = mmap(NULL, mb * MB, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED)
		exit(3);
	for (unsigned long word = 0; word < mb * MB / sizeof(*at); word++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		at[word] = half && word % 2 ? 0 : state;
	}
}

static unsigned long available_mb(void)
{
	char line[256];
	unsigned long kb = 0;
	FILE *file = fopen("/proc/meminfo", "r");

	if (!file)
		exit(4);
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "MemAvailable: %lu kB", &kb) == 1)
			break;
	fclose(file);
	return kb / 1024;
}

static double now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	unsigned long rate, left, most, held = 0;
	double began;

	if (argc < 3)
		return 2;
	rate = strtoul(argv[1], NULL, 10);
	left = strtoul(argv[2], NULL, 10);
	most = argc > 3 ? strtoul(argv[3], NULL, 10) : ~0UL;
	half = argc > 4;
	while (held < most && (left == 0 ? argc > 3 : available_mb() > left)) {
		take(STEP_MB);
		held += STEP_MB;
	}
	printf("eating %lu\n", held);
	fflush(stdout);
	began = now_s();
	for (unsigned long eaten = 0;;) {
		double due = rate ? began + (double)(eaten + STEP_MB) / rate : now_s() + 3600;
		double wait = due - now_s();

		if (wait > 0)
			usleep(wait < 1 ? (useconds_t)(wait * 1e6) : 1000000);
		if (!rate || held >= most || now_s() < due)
			continue;
		take(STEP_MB);
		eaten += STEP_MB;
		held += STEP_MB;
	}
}
