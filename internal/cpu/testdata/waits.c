/*
 * waits SECONDS: threads that wait in several ways, each in a function of its own that measures how long it takes.
 * Begins when a line is read, says what each has waited, and ends.
 */
#define _GNU_SOURCE
#include "program.h"
#include <poll.h>
#include <pthread.h>
#include <unistd.h>

static double seconds, end;
static int pipes[2];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;

static void wait_for(double long_)
{
	struct timespec duration = {.tv_nsec = (long)(long_ * 1e9)};

	nanosleep(&duration, NULL);
}

#define WAITS(name, wait)                                                                                              \
	static double name##_waited;                                                                                   \
	NOINLINE void name(void)                                                                                       \
	{                                                                                                              \
		double begin = clock_seconds(CLOCK_MONOTONIC);                                                         \
		wait;                                                                                                  \
		name##_waited += clock_seconds(CLOCK_MONOTONIC) - begin;                                               \
		BARRIER;                                                                                               \
	}                                                                                                              \
	NOINLINE void *name##_thread(void *argument)                                                                   \
	{                                                                                                              \
		while (clock_seconds(CLOCK_MONOTONIC) < end)                                                           \
			name();                                                                                        \
		return argument;                                                                                       \
	}

static char byte;

WAITS(sleeps_5ms, wait_for(0.005))
WAITS(sleeps_20ms, wait_for(0.020))
WAITS(waits_for_condition, pthread_mutex_lock(&mutex); pthread_cond_wait(&condition, &mutex);
      pthread_mutex_unlock(&mutex))
WAITS(polls, poll(NULL, 0, 10))
WAITS(reads, if (read(pipes[0], &byte, 1) < 0) return)

/* Wakes the others. */
NOINLINE void *wakes(void *argument)
{
	while (clock_seconds(CLOCK_MONOTONIC) < end + 0.1) {
		wait_for(0.007);
		pthread_mutex_lock(&mutex);
		pthread_cond_broadcast(&condition);
		pthread_mutex_unlock(&mutex);
		if (write(pipes[1], "", 1) < 0)
			break;
	}
	return argument;
}

int main(int argc, char **argv)
{
	void *(*const ways[])(void *) = {
		wakes, sleeps_5ms_thread, sleeps_20ms_thread, waits_for_condition_thread, polls_thread, reads_thread};
	enum { WAYS = sizeof(ways) / sizeof(ways[0]) };
	pthread_t threads[WAYS];
	char line[16];

	seconds = argc > 1 ? atof(argv[1]) : 1;
	if (pipe(pipes))
		return 1;
	ready();
	/* So that the probe has looked into the process before. */
	for (double until = clock_seconds(CLOCK_MONOTONIC) + 2; clock_seconds(CLOCK_MONOTONIC) < until;)
		wait_for(0.003);
	ready();
	if (!fgets(line, sizeof(line), stdin))
		return 1;
	end = clock_seconds(CLOCK_MONOTONIC) + seconds;
	for (int i = 0; i < WAYS; i++)
		pthread_create(&threads[i], NULL, ways[i], NULL);
	for (int i = 0; i < WAYS; i++)
		pthread_join(threads[i], NULL);
	printf("sleeps_5ms %f\nsleeps_20ms %f\nwaits_for_condition %f\npolls %f\nreads %f\nend\n", sleeps_5ms_waited,
	       sleeps_20ms_waited, waits_for_condition_waited, polls_waited, reads_waited);
	fflush(stdout);
	for (;;)
		pause();
}
