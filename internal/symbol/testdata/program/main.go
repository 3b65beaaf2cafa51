// Program prints what the runtime itself knows of addresses in its own code: one line for each, with the frames from the
// innermost one, separated by tabs. It is built with several versions of Go, in several ways.
package main

import (
	"bufio"
	"debug/elf"
	"encoding/json"
	"fmt"
	"math/rand"
	"os"
	"runtime"
	"strconv"
	"strings"
	_ "unsafe" // For linkname.
)

// expand adds the calls that were inlined at the last address.
//
//go:linkname expand runtime/pprof.runtime_expandFinalInlineFrame
func expand(stack []uintptr) []uintptr

type numbers[T any] struct{ values []T }

//go:noinline
func (n *numbers[T]) add(value T) { n.values = append(n.values, value) }

func main() {
	var whole numbers[int]
	var parts numbers[float64]
	whole.add(1)
	parts.add(1)
	_, _ = json.Marshal(parts.values)

	text, _ := os.ReadFile("/proc/self/maps")
	executable, _ := os.Executable()
	var low, high, base uint64
	for _, line := range strings.Split(string(text), "\n") {
		fields := strings.Fields(line)
		if len(fields) < 6 || fields[5] != executable {
			continue
		}
		from, to, _ := strings.Cut(fields[0], "-")
		start, _ := strconv.ParseUint(from, 16, 64)
		if base == 0 && start > 1<<32 { // A program that can be loaded anywhere.
			base = start - first(executable)
		}
		if strings.Contains(fields[1], "x") {
			low = start
			high, _ = strconv.ParseUint(to, 16, 64)
		}
	}
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	random := rand.New(rand.NewSource(1))
	for count := 0; count < 10000; {
		address := low + uint64(random.Int63n(int64(high-low)))
		next := runtime.FuncForPC(uintptr(address) + 1)
		if runtime.FuncForPC(uintptr(address)) == nil || next == nil || next.Entry() == uintptr(address)+1 {
			continue // What is taken for a return address lies in another function than the call.
		}
		count++
		fmt.Fprintf(out, "%x", address-base)
		frames := runtime.CallersFrames(expand([]uintptr{uintptr(address + 1)}))
		for more := true; more; {
			var frame runtime.Frame
			frame, more = frames.Next()
			fmt.Fprintf(out, "\t%s\t%s\t%d", frame.Function, frame.File, frame.Line)
		}
		fmt.Fprintln(out)
	}
}

// first is the address in the file that the program's memory begins with.
func first(path string) uint64 {
	file, err := elf.Open(path)
	if err != nil {
		panic(err)
	}
	defer file.Close()
	for _, segment := range file.Progs {
		if segment.Type == elf.PT_LOAD {
			return segment.Vaddr
		}
	}
	return 0
}
