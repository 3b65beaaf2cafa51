// A program that stops itself deep in a stack with all that makes walking one difficult, for TestWalk.
#include <alloca.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline))

static volatile int sink;
static volatile int stopped;

NOINLINE int stop(int number)
{
	kill(getpid(), SIGSTOP);
	return number + sink;
}

NOINLINE void handler(int signal)
{
	sink += stop(signal);
}

NOINLINE int interrupted(int number)
{
	raise(SIGUSR1);
	return sink + number;
}

NOINLINE int compare(const void *a, const void *b)
{
	if (!stopped) {
		stopped = 1;
		sink += interrupted(3);
	}
	return *(const int *)a - *(const int *)b;
}

NOINLINE int sorter(int number)
{
	int values[3] = {number + 3, number + 2, number + sink};
	qsort(values, 3, sizeof(values[0]), compare);
	return values[0] + number;
}

NOINLINE int recurse(int number);

// The stack pointer is not known while compiling.
NOINLINE int variable(int number)
{
	volatile char *buffer = alloca(16 * number + 16);
	buffer[0] = (char)number;
	return recurse(number - 1) + buffer[0];
}

// The stack pointer is aligned to more than the calling convention does.
NOINLINE int aligned(int number)
{
	volatile char buffer[256] __attribute__((aligned(128)));
	memset((char *)buffer, number, sizeof(buffer));
	volatile char *more = alloca(16 * number + 16);
	more[0] = 1;
	return recurse(number - 1) + buffer[0] + more[0];
}

NOINLINE int large(int number)
{
	volatile char buffer[100000];
	buffer[number] = 1;
	return recurse(number - 1) + buffer[number];
}

NOINLINE int recurse(int number)
{
	switch (number == 0 ? -1 : number % 3) {
	case -1:
		return sorter(number) + 1;
	case 0:
		return variable(number) + 1;
	case 1:
		return aligned(number) + 1;
	default:
		return large(number) + 1;
	}
}

int main(void)
{
	struct sigaction action = {.sa_handler = handler};
	sigaction(SIGUSR1, &action, NULL);
	return recurse(20) == 12345;
}
