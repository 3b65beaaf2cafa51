/* spawn RATE SECONDS PROGRAM...: starts so many processes a second, of each program in turn. Says how many at the end.
 */
#define _GNU_SOURCE
#include "program.h"
#include <spawn.h>
#include <sys/wait.h>

extern char **environ;

int main(int argc, char **argv)
{
	double interval = 1 / atof(argv[1]), begin = clock_seconds(CLOCK_MONOTONIC), end = begin + atof(argv[2]);
	int started = 0;

	ready();
	for (double next = begin; next < end; next += interval) {
		char *program = argv[3 + started % (argc - 3)];
		char *const arguments[] = {program, NULL};
		double wait = next - clock_seconds(CLOCK_MONOTONIC);
		pid_t pid;

		if (wait > 0) {
			struct timespec duration = {.tv_sec = (time_t)wait,
						    .tv_nsec = (long)((wait - (time_t)wait) * 1e9)};

			nanosleep(&duration, NULL);
		}
		if (!posix_spawn(&pid, program, NULL, NULL, arguments, environ))
			started++;
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
	while (wait(NULL) > 0)
		;
	printf("%d\n", started);
	fflush(stdout);
	return 0;
}
