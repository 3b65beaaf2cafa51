// Command cgoprogram calls C, which calls Go again.
package main

/*
void in_go(void);
static void __attribute__((noinline)) spin_in_c(void)
{
	for (volatile unsigned long round = 0; round < 5000000; round++)
		;
}
static void __attribute__((noinline)) in_c(void)
{
	spin_in_c();
	in_go();
	__asm__ volatile("" ::: "memory");
}
*/
import "C"

import "fmt"

var sink uint64

//export in_go
func in_go() { spinInGo() }

//go:noinline
func spinInGo() {
	for range 5_000_000 {
		sink++
	}
}

//go:noinline
func callC() { C.in_c() }

func main() {
	fmt.Println("ready")
	for {
		callC()
	}
}
