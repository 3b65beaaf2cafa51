//go:build linux

package symbol

import (
	"bytes"
	"debug/elf"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ebpfreceiver/ebpfreceiver/internal/unwind"
)

// TestVDSO names functions of the code that the kernel lends to this process.
func TestVDSO(t *testing.T) {
	mappings, err := unwind.Mappings("/proc", uint32(os.Getpid()))
	require.NoError(t, err)
	var contents []byte
	for _, mapping := range mappings {
		if mapping.Kind == unwind.MappingVDSO {
			contents, err = mapping.ReadImage("/proc", uint32(os.Getpid()))
			require.NoError(t, err)
		}
	}
	if contents == nil {
		t.Skip("this process has no vDSO")
	}
	file, err := elf.NewFile(bytes.NewReader(contents))
	require.NoError(t, err)
	symbols, err := file.DynamicSymbols()
	require.NoError(t, err)
	names := map[uint64][]string{}
	for _, symbol := range symbols {
		if elf.ST_TYPE(symbol.Info) == elf.STT_FUNC {
			names[symbol.Value] = append(names[symbol.Value], symbol.Name)
		}
	}
	require.NotEmpty(t, names)
	s := New(Config{Now: time.Now})
	t.Cleanup(s.Shutdown)
	image, err := s.OpenMemory("[vdso]", contents)
	require.NoError(t, err)
	again, err := s.OpenMemory("[vdso]", bytes.Clone(contents))
	require.NoError(t, err)
	assert.Same(t, image, again, "processes share it")
	for address, either := range names {
		frames, err := image.Lookup(address, nil)
		require.NoError(t, err, either)
		assert.Contains(t, either, frames[0].Function)
	}
	image.Close()
	again.Close()
	_, err = s.OpenMemory("[vdso]", []byte("nothing"))
	require.ErrorIs(t, err, ErrUnsupported)
	_, err = s.OpenMemory("[vdso]", []byte("nothing"))
	require.ErrorIs(t, err, ErrUnsupported, "that is remembered")
}

// TestMapOutlivesItsProcess reads a map that was kept when its process cannot be found any more.
func TestMapOutlivesItsProcess(t *testing.T) {
	directory := t.TempDir()
	root := filepath.Join(directory, "root")
	require.NoError(t, os.MkdirAll(filepath.Join(root, "tmp"), 0o755))
	status := "Uid:\t0\t" + strconv.Itoa(os.Geteuid()) + "\t0\t0\nNSpid:\t1000\t7\n"
	require.NoError(t, os.WriteFile(filepath.Join(directory, "status"), []byte(status), 0o600))
	path := filepath.Join(root, "tmp", "perf-7.map")
	now := time.Unix(1000, 0)
	s := New(Config{Now: func() time.Time { return now }})
	t.Cleanup(s.Shutdown)
	process := Process{Directory: directory, Start: 1}
	require.ErrorIs(t, s.KeepProcess(process), ErrNoSymbols, "it has no map yet")
	require.NoError(t, os.WriteFile(path, []byte("1000 10 early\n"), 0o600))
	require.NoError(t, s.KeepProcess(process))
	require.NoError(t, s.KeepProcess(process), "once more does nothing")
	added, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = added.WriteString("2000 10 late\n")
	require.NoError(t, err)
	require.NoError(t, added.Close())
	require.NoError(t, os.RemoveAll(directory))

	for address, want := range map[uint64]string{0x1004: "early", 0x2004: "late"} {
		frames, err := s.LookupProcess(process, address, nil)
		require.NoError(t, err)
		require.Len(t, frames, 1)
		assert.Equal(t, want, frames[0].Function)
	}
	s.ForgetProcess(process)
	_, err = s.LookupProcess(process, 0x1004, nil)
	assert.Error(t, err)
}
