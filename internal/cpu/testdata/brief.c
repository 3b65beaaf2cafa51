/* Works for a few milliseconds, and ends. */
#include "program.h"

NOINLINE void work_briefly(void)
{
	for (double end = clock_seconds(CLOCK_MONOTONIC) + 0.003; clock_seconds(CLOCK_MONOTONIC) < end;)
		WORK(10000);
}

int main(void)
{
	work_briefly();
	return 0;
}
