/* A 32-bit program without a C library. */
void _start(void)
{
	for (;;)
		__asm__ volatile("" ::: "memory");
}
