/*
 * shares SECONDS: two threads that spend a tenth, two, three and four of their CPU time in four functions, by their own
 * clock, in pieces of different lengths. Begins when a line is read, says what each function really took, and is idle
 * then.
 */
#define _GNU_SOURCE
#include "program.h"
#include <pthread.h>
#include <unistd.h>

#define THREADS	  2
#define FUNCTIONS 4

static double spent[THREADS][FUNCTIONS];
static double seconds;

#define SPENDS(name, number)                                                                                           \
	NOINLINE void name(int thread, double piece)                                                                   \
	{                                                                                                              \
		double begin = clock_seconds(CLOCK_THREAD_CPUTIME_ID), now;                                            \
		do {                                                                                                   \
			WORK(20000);                                                                                   \
			now = clock_seconds(CLOCK_THREAD_CPUTIME_ID);                                                  \
		} while (now < begin + piece);                                                                         \
		spent[thread][number] += now - begin;                                                                  \
		BARRIER;                                                                                               \
	}

SPENDS(ten_percent, 0)
SPENDS(twenty_percent, 1)
SPENDS(thirty_percent, 2)
SPENDS(forty_percent, 3)

NOINLINE void *spend(void *argument)
{
	int thread = (int)(long)argument;
	unsigned seed = thread + 1;
	double end = clock_seconds(CLOCK_MONOTONIC) + seconds;

	while (clock_seconds(CLOCK_MONOTONIC) < end) {
		double unit = 0.0005 + rand_r(&seed) % 1000 * 0.000003;

		ten_percent(thread, unit);
		twenty_percent(thread, 2 * unit);
		thirty_percent(thread, 3 * unit);
		forty_percent(thread, 4 * unit);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	static const char *const names[FUNCTIONS] = {"ten_percent", "twenty_percent", "thirty_percent",
						     "forty_percent"};
	pthread_t threads[THREADS];
	char line[16];

	seconds = argc > 1 ? atof(argv[1]) : 1;
	ready();
	/* So that the probe has looked into the process before. */
	for (double end = clock_seconds(CLOCK_MONOTONIC) + 2; clock_seconds(CLOCK_MONOTONIC) < end;)
		WORK(20000);
	ready();
	if (!fgets(line, sizeof(line), stdin))
		return 1;
	for (long i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, spend, (void *)i);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < FUNCTIONS; i++)
		printf("%s %f\n", names[i], spent[0][i] + spent[1][i]);
	puts("end");
	fflush(stdout);
	for (;;)
		pause();
}
