/* What the programs of the tests share. */
#ifndef PROGRAM_H
#define PROGRAM_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NOINLINE __attribute__((noinline, noclone))
/* Behind a call, so that it is no jump. */
#define BARRIER __asm__ volatile("" ::: "memory")

static inline double clock_seconds(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Works for so many rounds; 1,000,000 take about a millisecond. */
#define WORK(rounds)                                                                                                   \
	do {                                                                                                           \
		for (volatile unsigned long round_ = 0; round_ < (rounds); round_++)                                   \
			;                                                                                              \
	} while (0)

/* Tells the test that the program has begun. */
static inline void ready(void)
{
	puts("ready");
	fflush(stdout);
}

#endif
