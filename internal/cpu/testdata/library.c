/* A library to be opened: its function works for some time in another one, NAME, with FRAME bytes on the stack. */
#include "program.h"

NOINLINE void NAME(double seconds)
{
	volatile char bytes[FRAME];

	for (double end = clock_seconds(CLOCK_MONOTONIC) + seconds; clock_seconds(CLOCK_MONOTONIC) < end;) {
		bytes[FRAME - 1] = 1;
		WORK(1000000);
	}
	BARRIER;
}

void work_in_library(double seconds)
{
	NAME(seconds);
	BARRIER;
}
