//go:build linux

package symbol

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// KernelSymbols names functions of the kernel, of its modules and of BPF programs, from /proc/kallsyms. They are read when
// the first address is looked up, and again for addresses that are not found, as modules and BPF programs come and go.
type KernelSymbols struct {
	path string
	now  func() time.Time

	mutex sync.Mutex
	table *kernelTable
	read  time.Time
	err   error
}

// The file is read again at most so often, and at least so often while addresses are looked up that may get another
// meaning: a BPF program can be loaded where another one was.
const (
	kernelReadAtMost  = 10 * time.Second
	kernelReadAtLeast = 5 * time.Minute
)

// NewKernelSymbols reads the symbols in a file such as /proc/kallsyms.
func NewKernelSymbols(path string, now func() time.Time) *KernelSymbols {
	return &KernelSymbols{path: path, now: now}
}

// Lookup names the function at an address. Where there is none, the error wraps ErrNoSymbol, ErrHidden or what failed when
// the symbols were read.
func (k *KernelSymbols) Lookup(address uint64) (Frame, error) {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	now := k.now()
	age := now.Sub(k.read)
	if k.table == nil && (k.err == nil || age >= kernelReadAtMost) {
		k.load(now)
		age = 0
	}
	if k.table == nil {
		return Frame{Type: Kernel}, k.err
	}
	frame, ok := k.table.lookup(address)
	if !ok && age >= kernelReadAtMost || frame.Module != "" && age >= kernelReadAtLeast {
		k.load(now)
		if k.table == nil {
			return Frame{Type: Kernel}, k.err
		}
		frame, ok = k.table.lookup(address)
	}
	if !ok {
		return Frame{Type: Kernel}, fmt.Errorf("look up %#x in %s: %w", address, k.path, ErrNoSymbol)
	}
	return frame, nil
}

// RetainedBytes is how much memory the symbols take.
func (k *KernelSymbols) RetainedBytes() int64 {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	if k.table == nil {
		return 0
	}
	return k.table.retained()
}

// load keeps an older table if there is no newer one.
func (k *KernelSymbols) load(now time.Time) {
	k.read = now
	opened, err := os.Open(k.path)
	if err != nil {
		k.err = fmt.Errorf("open the kernel's symbols: %w", err)
		return
	}
	defer opened.Close()
	table, err := parseKernel(opened)
	if k.err = err; err != nil {
		k.err = fmt.Errorf("read %s: %w", k.path, err)
		if !errors.Is(err, ErrHidden) {
			return
		}
	}
	k.table = table
}

// kernelTable holds functions only, sorted by address, with their names one behind the other.
type kernelTable struct {
	symbols []kernelSymbol
	names   []byte
	modules []string
}

type kernelSymbol struct {
	address uint64
	name    uint32 // place in names
	module  uint16 // 0: none
	length  uint8  // of the name; 0: here functions end
	rank    uint8
}

const (
	maxKernelSymbols = 2 << 20
	maxKernelNames   = 64 << 20
	maxKernelLine    = 4096
	maxModules       = 1<<16 - 2
	// maxKernelFunction is how far behind its start an address may be of a function: the file does not tell where functions
	// end.
	maxKernelFunction = 1 << 20
)

// parseKernel reads lines of "address type name", and "[module]" behind a tab for modules and BPF programs
// (kernel/kallsyms.c).
func parseKernel(reader io.Reader) (*kernelTable, error) {
	t := &kernelTable{modules: []string{""}}
	numbers := map[string]uint16{"": 0}
	scanner := bufio.NewScanner(reader)
	scanner.Buffer(make([]byte, 64<<10), 64<<10)
	lines, zero := 0, 0
	for scanner.Scan() {
		line := scanner.Bytes()
		address, rest, ok := hexadecimal(line)
		if !ok || len(rest) < 4 || rest[0] != ' ' || rest[2] != ' ' || len(line) > maxKernelLine {
			continue
		}
		if lines++; address == 0 {
			zero++
			continue // Offsets of variables that each processor has, or addresses that are hidden.
		}
		kind, name := rest[1], rest[3:]
		name, module, _ := bytes.Cut(name, []byte("\t["))
		module = bytes.TrimSuffix(module, []byte("]"))
		var rank uint8
		switch kind {
		case 'T':
		case 't':
			rank = 1
		case 'W', 'w':
			rank = 2
		default:
			continue
		}
		if len(name) == 0 || len(name) > 255 || mark(name) {
			continue
		}
		length := uint8(len(name))
		if string(name) == "_etext" || string(name) == "_einittext" {
			length = 0
		}
		number, known := numbers[string(module)]
		if !known {
			if len(t.modules) > maxModules {
				return nil, fmt.Errorf("more than %d modules: %w", maxModules, ErrTooLarge)
			}
			number = uint16(len(t.modules))
			text := string(module)
			numbers[text], t.modules = number, append(t.modules, text)
		}
		if len(t.symbols) == maxKernelSymbols || len(t.names) > maxKernelNames {
			return nil, fmt.Errorf("more than %d symbols: %w", len(t.symbols), ErrTooLarge)
		}
		t.symbols = append(t.symbols, kernelSymbol{address, uint32(len(t.names)), number, length, rank})
		if length != 0 {
			t.names = append(t.names, name...)
		}
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("after %d symbols: %w", lines, err)
	}
	if lines > 0 && zero == lines {
		return nil, fmt.Errorf("all %d are zero: reading them needs CAP_SYSLOG, and kernel.kptr_restrict below 2: %w",
			lines, ErrHidden)
	}
	if len(t.symbols) == 0 {
		return nil, fmt.Errorf("no function: %w", ErrNoSymbols)
	}
	slices.SortStableFunc(t.symbols, func(a, b kernelSymbol) int {
		return cmp.Or(cmp.Compare(a.address, b.address), cmp.Compare(a.rank, b.rank))
	})
	// One name is enough for each address. What was read has grown step by step: keep no more than there is.
	t.symbols = slices.Clone(slices.CompactFunc(t.symbols, func(a, b kernelSymbol) bool { return a.address == b.address }))
	t.names = slices.Clone(t.names)
	return t, nil
}

// mark tells whether a symbol is where a section begins, which is a function's address too.
func mark(name []byte) bool {
	switch string(name) {
	case "_text", "_stext", "_sinittext", "__text_start", "__irqentry_text_start", "__softirqentry_text_start",
		"__entry_text_start", "__noinstr_text_start", "__sched_text_start", "__cpuidle_text_start", "__lock_text_start",
		"__kprobes_text_start", "__init_begin":
		return true
	}
	return false
}

func hexadecimal(text []byte) (value uint64, rest []byte, ok bool) {
	index := 0
	for ; index < len(text); index++ {
		digit := text[index]
		switch {
		case digit >= '0' && digit <= '9':
			digit -= '0'
		case digit >= 'a' && digit <= 'f':
			digit -= 'a' - 10
		case digit >= 'A' && digit <= 'F':
			digit -= 'A' - 10
		default:
			return value, text[index:], index > 0 && index <= 16
		}
		value = value<<4 | uint64(digit)
	}
	return value, nil, index > 0 && index <= 16
}

func (t *kernelTable) lookup(address uint64) (Frame, bool) {
	index, found := slices.BinarySearchFunc(t.symbols, address, func(symbol kernelSymbol, address uint64) int {
		return cmp.Compare(symbol.address, address)
	})
	if !found {
		index--
	}
	if index < 0 {
		return Frame{Type: Kernel}, false
	}
	symbol := t.symbols[index]
	if symbol.length == 0 || address-symbol.address >= maxKernelFunction {
		return Frame{Type: Kernel}, false
	}
	return Frame{
		Type:     Kernel,
		Function: string(t.names[symbol.name : symbol.name+uint32(symbol.length)]),
		Module:   strings.Clone(t.modules[symbol.module]),
	}, true
}

func (t *kernelTable) retained() int64 {
	return int64(cap(t.symbols))*16 + int64(cap(t.names)) + int64(len(t.modules))*64
}
