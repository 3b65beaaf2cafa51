//go:build linux

package main

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"sync"
	"syscall"
	"time"
)

const burnerLife = 10 * time.Minute

// burner is a program that computes all the time and says how much it has done.
type burner struct {
	name    string
	command *exec.Cmd

	mutex sync.Mutex
	done  progress
}

// progress is what a program has done, and the processor time that it took.
type progress struct {
	units, usedNs float64
}

// burnerKinds are the programs that are profiled; depth is that of the one in C.
func burnerKinds(directory string, depth int) map[string][]string {
	return map[string][]string{
		"c":      {filepath.Join(directory, "burn"), fmt.Sprint(depth)},
		"python": {"python3", filepath.Join(directory, "burn.py")},
		"node":   {"node", "--perf-basic-prof", filepath.Join(directory, "burn.mjs")},
		"go":     {ownBinary},
	}
}

// writeBurners writes the programs, and compiles the one in C without frame pointers.
func writeBurners() (directory string, err error) {
	directory, err = os.MkdirTemp("", "ebpfreceiver-bench-")
	if err != nil {
		return "", fmt.Errorf("make a directory for programs: %w", err)
	}
	for _, name := range []string{"burn.c", "burn.py", "burn.mjs"} {
		content, err := mixedPrograms.ReadFile("programs/" + name)
		if err != nil {
			return directory, err
		}
		if err := os.WriteFile(filepath.Join(directory, name), content, 0o644); err != nil {
			return directory, fmt.Errorf("write a program: %w", err)
		}
	}
	compile := exec.Command("gcc", "-O2", "-fomit-frame-pointer", "-fno-optimize-sibling-calls", "-o", "burn", "burn.c")
	compile.Dir = directory
	if output, err := compile.CombinedOutput(); err != nil {
		return directory, fmt.Errorf("compile a program, which needs gcc: %w: %s", err, output)
	}
	return directory, nil
}

func startBurner(directory, name string, command []string) (*burner, error) {
	b := &burner{name: name, command: exec.Command(command[0], command[1:]...)}
	if name == "go" {
		b.command.Env = append(os.Environ(), roleVariable+"="+burnerName, lifeVariable+"="+burnerLife.String())
	}
	b.command.Stderr = os.Stderr
	b.command.Dir = directory // node writes a log there
	output, err := b.command.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("make the output of %s: %w", name, err)
	}
	if err := b.command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go b.follow(output)
	return b, nil
}

func (b *burner) follow(output io.Reader) {
	for lines := bufio.NewScanner(output); lines.Scan(); {
		var done progress
		if _, err := fmt.Sscan(lines.Text(), &done.units, &done.usedNs); err != nil {
			continue // it ends in the middle of a line
		}
		b.mutex.Lock()
		b.done = done
		b.mutex.Unlock()
	}
}

func (b *burner) progress() progress {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.done
}

func (b *burner) stop() {
	_ = b.command.Process.Kill()
	_ = b.command.Wait()
}

// burnerRole does not wait to be asked.
func burnerRole() operations {
	if err := burn(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
	os.Exit(1)
	return nil
}

// burn is what the program of Go does.
func burn() error {
	used := func() int64 {
		var usage syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
		return usage.Utime.Nano() + usage.Stime.Nano()
	}
	var told time.Time
	for units := 1; ; units++ {
		outer := burnOuter(10)
		burnAllocations()
		sum := sha256.Sum256(make([]byte, 20_000))
		if outer < 0 || sum == [sha256.Size]byte{} {
			return errors.New("impossible")
		}
		if time.Since(told) >= 50*time.Millisecond {
			told = time.Now()
			fmt.Println(units, used())
		}
	}
}

//go:noinline
func burnInner(rounds int) int {
	total := 0
	for i := range rounds {
		total += i * i % 7
	}
	return total
}

//go:noinline
func burnOuter(depth int) int {
	if depth > 0 {
		return burnOuter(depth-1) + 1
	}
	return burnInner(20_000)
}

func burnAllocations() {
	values := map[string][]byte{}
	for i := range 100 {
		values[fmt.Sprint(i)] = make([]byte, 100)
	}
	keys := make([]string, 0, len(values))
	for key := range values {
		keys = append(keys, key)
	}
	sort.Strings(keys)
}
