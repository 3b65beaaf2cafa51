// Command goprogram works with so many frames of recurse on the stack, and now and then on the stack of the system.
package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
)

var sink [4]uint64

//go:noinline
func spin(number int) {
	for range 1_000_000 {
		sink[number]++
	}
}

//go:noinline
func recurse(number, depth int) {
	if depth > 1 {
		recurse(number, depth-1)
		sink[number]++
		return
	}
	for {
		spin(number)
		small(number)
	}
}

// small is inlined.
func small(number int) {
	for range 200_000 {
		sink[number] ^= uint64(number)
	}
}

// collect lets the garbage collector run: on the stack of the system, on its own goroutines.
//
//go:noinline
func collect() {
	var kept [][]byte
	for {
		kept = append(kept, make([]byte, 64<<10))
		if len(kept) == 256 {
			kept = nil
			runtime.GC()
		}
	}
}

func main() {
	depth, err := strconv.Atoi(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("ready")
	if len(os.Args) > 2 {
		collect()
	}
	var all sync.WaitGroup
	all.Go(func() { recurse(0, depth) })
	all.Wait()
}
