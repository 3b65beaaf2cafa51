//go:build linux

package cpu

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/ebpfreceiver/ebpfreceiver/internal/symbol"
)

// TestNamesThatComeLater has a stack that is seen before the names of its functions are known.
func TestNamesThatComeLater(t *testing.T) {
	procfs := t.TempDir()
	symbols := symbol.New(symbol.Config{Now: time.Now})
	t.Cleanup(symbols.Shutdown)
	r := newResolver(Config{ProcFS: procfs}, symbols, zap.NewNop())
	now := time.Unix(1000, 0)
	table := filepath.Join(procfs, "kallsyms")
	r.kernel = symbol.NewKernelSymbols(table, func() time.Time { return now })
	known := "ffffffff81000000 T in_kernel\nffffffff81001000 T _etext\n"
	require.NoError(t, os.WriteFile(table, []byte(known), 0o600))
	seen := &stack{kernel: []uint64{0xffffffff81000010, 0xffffffffc0000020}}
	name := func() []string {
		r.batches++
		now = now.Add(15 * time.Second)
		var names []string
		for _, location := range r.AppendLocations(nil, seen) {
			function := ""
			if len(location.Lines) > 0 {
				function = location.Lines[0].Function
			}
			names = append(names, function)
		}
		return names
	}
	assert.Equal(t, []string{"in_kernel", ""}, name())
	assert.Equal(t, []string{"in_kernel", ""}, name())
	loaded := "ffffffffc0000000 t bpf_prog_1\t[bpf]\n"
	require.NoError(t, os.WriteFile(table, []byte(known+loaded), 0o600))
	require.Eventually(t, func() bool { return name()[1] == "bpf_prog_1" }, time.Second, time.Microsecond)
	assert.LessOrEqual(t, r.batches, uint64(10), "soon")
	assert.Zero(t, seen.retryAt, "all names are known")
	replaced := "ffffffffc0000000 t bpf_prog_2\t[bpf]\n"
	require.NoError(t, os.WriteFile(table, []byte(known+replaced), 0o600))
	now = now.Add(time.Hour)
	other := &stack{kernel: seen.kernel}
	assert.Equal(t, "bpf_prog_2", r.AppendLocations(nil, other)[1].Lines[0].Function, "another program is there now")
}
