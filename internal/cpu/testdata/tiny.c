/* A function in a library, too short to be more than its call. */
unsigned long tiny(unsigned long value)
{
	return value + 1;
}
