// Functions whose frames on arm64 differ in where the return address and the frame pointer are. See README.md.
int callee(int number, char *memory);
int other(int number);

int leaf(int number) { return number * 3; }

int leaf_with_frame(int number)
{
	volatile char memory[64];
	memory[number & 63] = 1;
	return memory[number & 31];
}

int caller(int number)
{
	char memory[64];
	return callee(number, memory) + other(number);
}

int variable(int number)
{
	char memory[number];
	return callee(number, memory) + 1;
}

int aligned(int number)
{
	char memory[256] __attribute__((aligned(128)));
	return callee(number, memory) + 1;
}

int large(int number)
{
	char memory[100000];
	return callee(number, memory) + 1;
}

int saves(int a, int b, int c, int d, int e, int f, int g, int h)
{
	char memory[16];
	int sum = callee(a, memory) * b + callee(b, memory) * c + callee(c, memory) * d;
	sum += callee(d, memory) * e + callee(e, memory) * f + callee(f, memory) * g + callee(g, memory) * h;
	return sum + a + b + c + d + e + f + g + h;
}

int shrink_wrapped(int number)
{
	if (number < 10)
		return number;
	char memory[16];
	return callee(number, memory) + other(number);
}

__attribute__((noreturn)) void never(int number);

void ends(int number)
{
	if (other(number))
		never(number);
	other(number + 1);
}
