//go:build linux

package symbol

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const fixedSymbols = `0000000000000000 A fixed_percpu_data
ffffffff81000000 T _stext
ffffffff81000000 T _text
ffffffff81000000 T startup_64
ffffffff81000100 t helper
ffffffff81000100 W alias
ffffffff81000200 T last_function
ffffffff81002000 T _etext
ffffffff82000000 D some_data
ffffffffc0000000 t module_function	[nf_tables]
ffffffffc0100010 t bpf_prog_d42e5213aded7c17_tcp_state	[bpf]
`

func TestKernelSymbols(t *testing.T) {
	table, err := parseKernel(strings.NewReader(fixedSymbols))
	require.NoError(t, err)
	for _, test := range []struct {
		address          uint64
		function, module string
	}{
		{0xffffffff81000000, "startup_64", ""},
		{0xffffffff810000ff, "startup_64", ""},
		{0xffffffff81000100, "helper", ""},
		{0xffffffff81001fff, "last_function", ""},
		{0xffffffff81002000, "", ""},
		{0xffffffff82000000, "", ""},
		{0xffffffff80ffffff, "", ""},
		{0xffffffffc0000123, "module_function", "nf_tables"},
		{0xffffffffc0100000, "", ""}, // Too far behind a function.
		{0xffffffffc0100020, "bpf_prog_d42e5213aded7c17_tcp_state", "bpf"},
		{0, "", ""},
	} {
		frame, ok := table.lookup(test.address)
		assert.Equal(t, test.function != "", ok, "%#x", test.address)
		assert.Equal(t, Frame{Function: test.function, Module: test.module, Type: Kernel}, frame, "%#x", test.address)
	}
	for text, expected := range map[string]error{
		"":                               ErrNoSymbols,
		"0000000000000000 T a\n0 t b\n":  ErrHidden,
		"ffffffff82000000 D some_data\n": ErrNoSymbols,
		"garbage\nffffffff82000000\nffffffff82000000 T\nffffffff82000000 T \n": ErrNoSymbols,
	} {
		_, err := parseKernel(strings.NewReader(text))
		assert.ErrorIs(t, err, expected, text)
	}
}

// TestKernelRefresh lets modules come and go.
func TestKernelRefresh(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kallsyms")
	write := func(text string) { require.NoError(t, os.WriteFile(path, []byte(text), 0o600)) }
	now := time.Unix(1000, 0)
	kernel := NewKernelSymbols(path, func() time.Time { return now })
	_, err := kernel.Lookup(0xffffffff81000010)
	require.ErrorIs(t, err, os.ErrNotExist)

	write(fixedSymbols)
	_, err = kernel.Lookup(0xffffffff81000010)
	require.ErrorIs(t, err, os.ErrNotExist, "it is not tried again at once")
	now = now.Add(kernelReadAtMost)
	frame, err := kernel.Lookup(0xffffffff81000010)
	require.NoError(t, err)
	assert.Equal(t, "startup_64", frame.Function)

	const added = 0xffffffffc0800000
	write(fixedSymbols + "ffffffffc0800000 t added\t[new]\n")
	_, err = kernel.Lookup(added)
	require.ErrorIs(t, err, ErrNoSymbol, "it was read just now")
	now = now.Add(kernelReadAtMost)
	frame, err = kernel.Lookup(added)
	require.NoError(t, err)
	assert.Equal(t, "added", frame.Function)

	write(strings.ReplaceAll(fixedSymbols, "tcp_state", "replaced"))
	now = now.Add(kernelReadAtLeast)
	frame, err = kernel.Lookup(0xffffffffc0100020)
	require.NoError(t, err)
	assert.Equal(t, "bpf_prog_d42e5213aded7c17_replaced", frame.Function)

	write("0000000000000000 T a\n")
	now = now.Add(kernelReadAtMost)
	_, err = kernel.Lookup(added)
	require.ErrorIs(t, err, ErrHidden)
}

// TestKernelOfThisHost compares with the plainest way to read the file.
func TestKernelOfThisHost(t *testing.T) {
	const path = "/proc/kallsyms"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Skip(err)
	}
	type plain struct {
		address uint64
		names   []string
	}
	byAddress := map[uint64][]string{}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		var address uint64
		code := slices.Contains([]string{"t", "T", "w", "W"}, fields[1])
		if _, err := fmt.Sscanf(fields[0], "%x", &address); err == nil && address != 0 && code {
			byAddress[address] = append(byAddress[address], fields[2])
		}
	}
	kernel := NewKernelSymbols(path, time.Now)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	started := time.Now()
	_, err = kernel.Lookup(1)
	took := time.Since(started)
	if errors.Is(err, ErrHidden) {
		t.Skip(err)
	}
	require.ErrorIs(t, err, ErrNoSymbol)
	runtime.GC()
	runtime.ReadMemStats(&after)
	retained := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("%d bytes, %d addresses: read in %v, %d bytes retained (counted: %d)",
		len(text), len(byAddress), took, retained, kernel.RetainedBytes())
	assert.Less(t, retained, int64(10<<20))

	var sorted []plain
	for address, names := range byAddress {
		sorted = append(sorted, plain{address, names})
	}
	slices.SortFunc(sorted, func(a, b plain) int { return cmp.Compare(a.address, b.address) })
	random := rand.New(rand.NewPCG(1, 2))
	found := 0
	for range 10000 {
		index := random.IntN(len(sorted) - 1)
		size := sorted[index+1].address - sorted[index].address
		if size > maxKernelFunction || slices.Contains(sorted[index].names, "_etext") ||
			slices.Contains(sorted[index].names, "_einittext") {
			continue
		}
		address := sorted[index].address + random.Uint64N(size)
		frame, err := kernel.Lookup(address)
		if frame.Module == "bpf" || strings.HasPrefix(sorted[index].names[0], "bpf_") {
			continue // Others load and unload BPF programs in the meantime.
		}
		require.NoError(t, err)
		require.Contains(t, sorted[index].names, frame.Function)
		found++
	}
	assert.Greater(t, found, 9000)
}

func FuzzKernel(f *testing.F) {
	f.Add([]byte(fixedSymbols))
	f.Add([]byte("ffffffffffffffff t a\t[\n00000000000000001 T b\t[]]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		table, err := parseKernel(strings.NewReader(string(text)))
		if err != nil {
			return
		}
		for _, symbol := range table.symbols {
			table.lookup(symbol.address)
			table.lookup(symbol.address - 1)
		}
	})
}

func BenchmarkKernel(b *testing.B) {
	kernel := NewKernelSymbols("/proc/kallsyms", time.Now)
	if _, err := kernel.Lookup(1); !errors.Is(err, ErrNoSymbol) {
		b.Skip(err)
	}
	addresses := kernel.table.symbols
	index := 0
	for b.Loop() {
		_, _ = kernel.Lookup(addresses[index%len(addresses)].address + 1)
		index += 101
	}
	b.ReportMetric(float64(kernel.RetainedBytes()), "retained-bytes")
}
