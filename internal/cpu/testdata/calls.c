/* calls WAY: works in a way that is hard on whoever walks its stack. */
#define _GNU_SOURCE
#include "program.h"
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

/* In a library. */
unsigned long tiny(unsigned long value);

static volatile unsigned long sink;

NOINLINE void spin(void)
{
	WORK(1000000);
	BARRIER;
}

/* A handler of a signal that interrupts a function anywhere. */
NOINLINE void handle(int number)
{
	(void)number;
	for (;;)
		spin();
}

NOINLINE void interrupted(void)
{
	alarm(1);
	for (;;)
		sink++;
}

NOINLINE void handled(void)
{
	signal(SIGALRM, handle);
	interrupted();
	BARRIER;
}

/* A signal that comes again and again while a handler works. */
NOINLINE void tick(int number)
{
	(void)number;
	WORK(3000000);
}

NOINLINE void ticking(void)
{
	const struct timeval often = {.tv_usec = 5000};
	const struct itimerval timer = {often, often};

	signal(SIGALRM, tick);
	setitimer(ITIMER_REAL, &timer, NULL);
	for (;;)
		sink++;
}

/* Calls by way of the procedure linkage table, a few instructions each. */
NOINLINE void linked(void)
{
	for (;;)
		sink = tiny(sink);
}

NOINLINE void clocked(void)
{
	struct timespec now;

	for (;;)
		clock_gettime(CLOCK_MONOTONIC, &now);
}

/* System calls, so that most samples are in the kernel. */
NOINLINE void calling(void)
{
	char bytes[4096];
	FILE *zero = fopen("/dev/zero", "r");

	for (;;)
		sink += (unsigned long)read(fileno(zero), bytes, sizeof(bytes));
}

NOINLINE void *first_thread(void *argument)
{
	pthread_setname_np(pthread_self(), "first");
	for (;;)
		spin();
	return argument;
}

NOINLINE void *second_thread(void *argument)
{
	pthread_setname_np(pthread_self(), "second");
	for (;;)
		spin();
	return argument;
}

NOINLINE void threaded(void)
{
	pthread_t first, second;

	pthread_create(&first, NULL, first_thread, NULL);
	pthread_create(&second, NULL, second_thread, NULL);
	pthread_join(first, NULL);
	BARRIER;
}

NOINLINE void child(void)
{
	for (;;)
		spin();
}

NOINLINE void forking(void)
{
	pid_t forked;

	/* So that the parent is known before. */
	for (double end = clock_seconds(CLOCK_MONOTONIC) + 1; clock_seconds(CLOCK_MONOTONIC) < end;)
		spin();
	forked = fork();
	if (!forked)
		child();
	printf("%d\n", forked);
	fflush(stdout);
	waitpid(forked, NULL, 0);
	BARRIER;
}

NOINLINE void executing(char **argv)
{
	for (double end = clock_seconds(CLOCK_MONOTONIC) + 1; clock_seconds(CLOCK_MONOTONIC) < end;)
		spin();
	execv(argv[2], argv + 2);
	perror("execv");
	BARRIER;
}

/* Calls a function of a library that it opens after a while, then one of another library. */
NOINLINE void call_library(const char *path)
{
	void *library = dlopen(path, RTLD_NOW);
	void (*work)(double seconds);
	double seconds = 5;

	if (!library) {
		fprintf(stderr, "%s\n", dlerror());
		exit(1);
	}
	work = (void (*)(double))dlsym(library, "work_in_library");
	printf("%p\n", (void *)work);
	fflush(stdout);
	work(seconds);
	dlclose(library);
	BARRIER;
}

NOINLINE void loading(char **argv)
{
	for (double end = clock_seconds(CLOCK_MONOTONIC) + 2; clock_seconds(CLOCK_MONOTONIC) < end;)
		spin();
	for (argv += 2; *argv; argv++)
		call_library(*argv);
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	const char *way = argc > 1 ? argv[1] : "";

	ready();
	if (!strcmp(way, "signal"))
		handled();
	else if (!strcmp(way, "ticks"))
		ticking();
	else if (!strcmp(way, "plt"))
		linked();
	else if (!strcmp(way, "vdso"))
		clocked();
	else if (!strcmp(way, "kernel"))
		calling();
	else if (!strcmp(way, "threads"))
		threaded();
	else if (!strcmp(way, "fork"))
		forking();
	else if (!strcmp(way, "exec"))
		executing(argv);
	else if (!strcmp(way, "load"))
		loading(argv);
	return 1;
}
