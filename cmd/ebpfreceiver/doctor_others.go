//go:build !linux

package main

import (
	"fmt"
	"io"
	"runtime"
)

func examine(_ string, _, stderr io.Writer) int {
	fmt.Fprintf(stderr, "ebpfreceiver doctor: eBPF needs Linux; this is %s. Run it on the host that the Collector runs on.\n",
		runtime.GOOS)
	return exitBad
}
