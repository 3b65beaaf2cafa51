// Spends its time at the bottom of so many frames, and says how often it was there and what processor time it has used.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

volatile unsigned long sink;

__attribute__((noinline)) unsigned long leaf(unsigned long rounds)
{
	unsigned long sum = 0;

	for (unsigned long i = 0; i < rounds; i++)
		sum += i * i ^ sum >> 3;
	sink = sum;
	return sum;
}

__attribute__((noinline)) unsigned long recurse(int depth, unsigned long rounds)
{
	char kept[48];
	unsigned long result;

	memset(kept, depth, sizeof(kept));
	sink += kept[depth % sizeof(kept)];
	result = depth <= 1 ? leaf(rounds) : recurse(depth - 1, rounds);
	sink += kept[3];
	return result + kept[1];
}

int main(int count, char **arguments)
{
	int depth = count > 1 ? atoi(arguments[1]) : 50;
	struct timespec used, now, told = {0};

	for (unsigned long units = 1;; units++) {
		recurse(depth, 100000);
		clock_gettime(CLOCK_MONOTONIC, &now);
		if ((now.tv_sec - told.tv_sec) * 1000 + (now.tv_nsec - told.tv_nsec) / 1000000 < 50)
			continue;
		told = now;
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
		printf("%lu %ld\n", units, used.tv_sec * 1000000000 + used.tv_nsec);
		fflush(stdout);
	}
}
