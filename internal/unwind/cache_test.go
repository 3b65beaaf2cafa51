//go:build linux

package unwind

import (
	"debug/elf"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// fakeProcess writes what a proc file system shows of a process that maps files, by their paths.
func fakeProcess(t *testing.T, procfs string, pid int, paths ...string) {
	directory := filepath.Join(procfs, strconv.Itoa(pid))
	require.NoError(t, os.MkdirAll(filepath.Join(directory, "map_files"), 0o700))
	_ = os.Symlink("/", filepath.Join(directory, "root"))
	maps := ""
	for index, path := range paths {
		var status unix.Stat_t
		require.NoError(t, unix.Stat(path, &status))
		span := strconv.FormatInt(int64(index+1)<<32, 16) + "-" + strconv.FormatInt(int64(index+1)<<32+codeBytes, 16)
		maps += span + " r-xp 00001000 " + strconv.FormatUint(uint64(unix.Major(status.Dev)), 16) + ":" +
			strconv.FormatUint(uint64(unix.Minor(status.Dev)), 16) + " " + strconv.FormatUint(status.Ino, 10) + " " + path + "\n"
		require.NoError(t, os.Symlink(path, filepath.Join(directory, "map_files", span)))
	}
	require.NoError(t, os.WriteFile(filepath.Join(directory, "maps"), []byte(maps), 0o600))
}

// program writes a file with so many functions, each with rows of its own.
func program(t *testing.T, directory, name string, functions int, content byte) string {
	var written frames
	common := written.amd64Common()
	for number := range functions {
		written.function(common, testCode+uint64(number)*8, 8, 0x0e, 16+8*byte(number%8), 0x41, 0x0e, 8*content)
	}
	written.data.Write(make([]byte, 4))
	note := []byte("\x04\x00\x00\x00\x04\x00\x00\x00\x03\x00\x00\x00GNU\x00same")
	path := filepath.Join(directory, name)
	sections := []testSection{written.inFile(), {name: ".note.gnu.build-id", kind: elf.SHT_NOTE, data: note}}
	data := elfFile(elf.EM_X86_64, sections, nil)
	require.NoError(t, os.WriteFile(path, data, 0o600))
	return path
}

func cacheOf(t *testing.T, config CacheConfig) *Cache {
	cache := NewCache(config)
	t.Cleanup(cache.Close)
	return cache
}

func load(t *testing.T, cache *Cache, pid uint32) *Process {
	process, err := cache.Load(pid)
	require.NoError(t, err)
	for _, place := range process.Places {
		if place.Entry != nil {
			<-place.Entry.Done()
		}
	}
	return process
}

func TestProcessesShareTables(t *testing.T) {
	procfs, files := t.TempDir(), t.TempDir()
	one, two := program(t, files, "one", 4, 3), program(t, files, "two", 8, 3)
	copied := program(t, files, "copied", 4, 3)
	poisoned := program(t, files, "poisoned", 4, 5) // It has the build id of the others, and head and tail too.
	fakeProcess(t, procfs, 1, one, two)
	fakeProcess(t, procfs, 2, one, copied, poisoned)
	cache := cacheOf(t, CacheConfig{ProcFS: procfs, Workers: 2})
	first, second := load(t, cache, 1), load(t, cache, 2)
	assert.Same(t, first.Places[0].Entry, second.Places[0].Entry)

	table := func(place Place) *Table {
		file, err := place.Entry.File()
		require.NoError(t, err)
		return file.Table
	}
	assert.Same(t, table(first.Places[0]), table(second.Places[1]), "a copy has the same table")
	assert.NotSame(t, table(first.Places[0]), table(second.Places[2]), "a build id alone is no proof")
	bias, ok := first.Places[1].Bias()
	assert.True(t, ok)
	assert.EqualValues(t, 2<<32-testCode, bias)

	stats := cache.Statistics()
	assert.Equal(t, 4, stats.Files)
	assert.Equal(t, 3, stats.Tables)
	assert.EqualValues(t, 3, stats.Built)
	assert.EqualValues(t, 1, stats.Shared)
	assert.Equal(t, 4+8+4, stats.Counts.Functions)
	assert.Equal(t, 4*int64(entryBytes)+table(first.Places[0]).Bytes()+table(first.Places[1]).Bytes()+
		table(second.Places[2]).Bytes(), stats.Bytes)
	first.Close()
	first.Close()
	second.Close()
	assert.Equal(t, stats, cache.Statistics(), "what nobody uses stays as long as there is room")
	assert.Zero(t, stats.Failures)
}

func TestFilesThatFailAreNotReadAgain(t *testing.T) {
	procfs, files := t.TempDir(), t.TempDir()
	script := filepath.Join(files, "script")
	require.NoError(t, os.WriteFile(script, []byte("#!/bin/sh\n"), 0o600))
	fakeProcess(t, procfs, 1, script)
	cache := cacheOf(t, CacheConfig{ProcFS: procfs})
	for range 3 {
		process := load(t, cache, 1)
		_, err := process.Places[0].Entry.File()
		assert.Equal(t, ReasonNotELF, ReasonOf(err))
		_, ok := process.Places[0].Bias()
		assert.False(t, ok)
		process.Close()
	}
	assert.EqualValues(t, 1, cache.Statistics().Failures[ReasonNotELF])

	// One that changes is another file.
	require.NoError(t, os.Remove(script))
	fakeProcess(t, procfs, 2, program(t, files, "script", 4, 3))
	_, err := load(t, cache, 2).Places[0].Entry.File()
	assert.NoError(t, err)

	_, err = cache.Load(99)
	assert.Equal(t, ReasonGone, ReasonOf(err))
	assert.EqualValues(t, 1, cache.Statistics().Failures[ReasonGone])
}

func TestTablesThatNobodyUsesAreEvicted(t *testing.T) {
	procfs, files := t.TempDir(), t.TempDir()
	paths := []string{program(t, files, "a", 100, 3), program(t, files, "b", 100, 4), program(t, files, "c", 100, 5)}
	for index, path := range paths {
		fakeProcess(t, procfs, index+1, path)
	}
	var mutex sync.Mutex
	var dropped []*Table
	one := readPath(t, paths[0]).Table.Bytes()
	cache := cacheOf(t, CacheConfig{ProcFS: procfs, MaxBytes: 3*entryBytes + 2*one + 100, Dropped: func(table *Table) {
		mutex.Lock()
		defer mutex.Unlock()
		dropped = append(dropped, table)
	}})
	tableOf := func(p *Process) *Table {
		file, err := p.Places[0].Entry.File()
		require.NoError(t, err)
		return file.Table
	}
	first, second := load(t, cache, 1), load(t, cache, 2)
	tables := []*Table{tableOf(first), tableOf(second)}

	// There is no room, and everything is in use.
	third := load(t, cache, 3)
	file, err := third.Places[0].Entry.File()
	assert.Equal(t, ReasonBudget, ReasonOf(err))
	assert.Equal(t, "73616d65", file.BuildID.GNU, "what else is known of it stays known")
	assert.Empty(t, file.Table.Rows)
	bias, ok := third.Places[0].Bias()
	assert.True(t, ok)
	assert.EqualValues(t, 1<<32-testCode, bias)
	third.Close()
	assert.Empty(t, dropped)
	assert.Equal(t, 2, cache.Statistics().Files, "it is tried again when it is needed again")

	// The one that was used last stays.
	first.Close()
	second.Close()
	load(t, cache, 1).Close()
	third = load(t, cache, 3)
	tableOf(third)
	assert.Equal(t, []*Table{tables[1]}, dropped)
	assert.EqualValues(t, 1, cache.Statistics().Evicted)
	assert.Same(t, tables[0], tableOf(load(t, cache, 1)))
	assert.LessOrEqual(t, cache.Statistics().Bytes, 3*entryBytes+2*one+100)
}

func TestMoreFilesThanAreRemembered(t *testing.T) {
	procfs, files := t.TempDir(), t.TempDir()
	for index, name := range []string{"a", "b", "c"} {
		fakeProcess(t, procfs, index+1, program(t, files, name, 4, byte(index+3)))
	}
	cache := cacheOf(t, CacheConfig{ProcFS: procfs, MaxFiles: 2})
	first, _ := load(t, cache, 1), load(t, cache, 2)
	third := load(t, cache, 3)
	assert.Equal(t, ReasonBudget, ReasonOf(third.Places[0].Err))
	assert.Nil(t, third.Places[0].Entry)
	first.Close()
	third = load(t, cache, 3)
	require.NoError(t, third.Places[0].Err)
	assert.Equal(t, 2, cache.Statistics().Files)
}

func TestTooManyFilesWait(t *testing.T) {
	procfs, files := t.TempDir(), t.TempDir()
	var paths []string
	for number := range 40 {
		paths = append(paths, program(t, files, strconv.Itoa(number), 4, byte(number+3)))
	}
	fakeProcess(t, procfs, 1, paths...)
	cache := cacheOf(t, CacheConfig{ProcFS: procfs, MaxPending: 1})
	// While the lock is held nobody takes a file off the queue for long.
	process := load(t, cache, 1)
	busy := 0
	for _, place := range process.Places {
		if place.Err != nil {
			assert.Equal(t, ReasonBusy, ReasonOf(place.Err))
			busy++
		}
	}
	assert.EqualValues(t, busy, cache.Statistics().Failures[ReasonBusy])
	for range 1000 {
		if next := load(t, cache, 1); next.Places[len(paths)-1].Err == nil {
			return
		}
	}
	t.Fatal("a file that had to wait is read later")
}

func TestClose(t *testing.T) {
	procfs, files := t.TempDir(), t.TempDir()
	fakeProcess(t, procfs, 1, program(t, files, "a", 4, 3))
	cache := NewCache(CacheConfig{ProcFS: procfs})
	cache.Close()
	cache.Close()
	process, err := cache.Load(1)
	require.NoError(t, err)
	assert.Equal(t, ReasonClosed, ReasonOf(process.Places[0].Err))
	process.Close()
}

// Many goroutines load and close the same processes while little fits.
func TestConcurrentUse(t *testing.T) {
	procfs, files := t.TempDir(), t.TempDir()
	var paths []string
	for number := range 8 {
		paths = append(paths, program(t, files, strconv.Itoa(number), 50, byte(number+3)))
	}
	for pid := range 8 {
		fakeProcess(t, procfs, pid+1, paths[pid], paths[(pid+1)%8], paths[(pid+3)%8])
	}
	var dropped atomic.Int64
	cache := cacheOf(t, CacheConfig{
		ProcFS: procfs, Workers: 3, MaxBytes: 12 * entryBytes, Dropped: func(*Table) { dropped.Add(1) },
	})
	var wait sync.WaitGroup
	for worker := range 4 {
		wait.Go(func() {
			for round := range 100 {
				process, err := cache.Load(uint32((worker+round)%8 + 1))
				if !assert.NoError(t, err) {
					return
				}
				for _, place := range process.Places {
					if place.Entry == nil {
						continue
					}
					if file, err := place.Entry.File(); err == nil {
						assert.NotEmpty(t, file.Table.Rows)
					} else {
						assert.Equal(t, ReasonBudget, ReasonOf(err))
					}
				}
				process.Close()
			}
		})
	}
	wait.Wait()
	stats := cache.Statistics()
	assert.LessOrEqual(t, stats.Bytes, int64(12*entryBytes))
	assert.Zero(t, stats.Pending)
	assert.EqualValues(t, int64(stats.Built)-int64(stats.Tables), dropped.Load(), "every table is dropped once")
	assert.Positive(t, dropped.Load())
}

// Everything that is executed on this machine can be loaded.
func TestProcessesOfThisMachine(t *testing.T) {
	cache := cacheOf(t, CacheConfig{Workers: 2})
	entries, err := os.ReadDir("/proc")
	require.NoError(t, err)
	processes, known, outside := 0, 0, 0
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		process, err := cache.Load(uint32(pid))
		if err != nil {
			continue // It has ended, or is not ours.
		}
		for _, place := range process.Places {
			if place.Err != nil {
				t.Logf("%d %s: %v", pid, place.Path, place.Err)
			}
			if place.Entry == nil {
				continue
			}
			file, err := place.Entry.File()
			if err != nil {
				t.Logf("%d %s: %v", pid, place.Path, err)
				continue
			}
			checkTable(t, file.Table)
			known++
			if _, ok := place.Bias(); !ok { // Somebody may map a program as data, executable at that.
				t.Logf("%d: %+v lies in no segment of %+v", pid, place.Mapping, file.Segments)
				outside++
			}
		}
		if len(process.Places) > 0 {
			processes++
		}
		process.Close()
	}
	t.Logf("%d processes: %+v", processes, cache.Statistics())
	assert.Positive(t, processes)
	assert.Less(t, 20*outside, known)
}

func TestPythonTrampolines(t *testing.T) {
	code := []byte{0x48, 0x83, 0xec, 0x08, 0xff, 0xd1, 0x48, 0x83, 0xc4, 0x08, 0xc3}
	assert.True(t, isPythonTrampoline(code))
	assert.True(t, isPythonTrampoline(append([]byte{0xf3, 0x0f, 0x1e, 0xfa}, code...)))
	assert.False(t, isPythonTrampoline(code[:10]))
	assert.False(t, isPythonTrampoline(nil))
	file := pythonTrampolines()
	assert.Equal(t, row(0, RuleStack, 2, kept), file.Table.Lookup(0x1234))
}

func BenchmarkReadFile(b *testing.B) {
	for name, pattern := range map[string]string{
		"libc": "/lib*/*/libc.so.6", "node": "/usr/bin/node", "libpython": "/usr/lib/*/libpython3.*.so.1.0",
	} {
		paths, _ := filepath.Glob(pattern)
		if len(paths) == 0 {
			continue
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var table *Table
			for b.Loop() {
				table = readPath(b, paths[0]).Table
			}
			b.ReportMetric(float64(table.Bytes()), "table-bytes")
		})
	}
}
