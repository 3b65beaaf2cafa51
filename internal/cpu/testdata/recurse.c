/* recurse DEPTH: works with so many frames of recurse on the stack. */
#include "program.h"

static volatile unsigned long sink;

NOINLINE void spin(void)
{
	WORK(1000000);
	BARRIER;
}

NOINLINE void recurse(int depth)
{
	if (depth > 1)
		recurse(depth - 1);
	else
		for (;;)
			spin();
	sink++;
	BARRIER;
}

int main(int argc, char **argv)
{
	ready();
	recurse(argc > 1 ? atoi(argv[1]) : 1);
	return 0;
}
