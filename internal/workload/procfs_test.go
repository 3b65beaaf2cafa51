//go:build linux

package workload

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
)

// fakeProc is a directory that looks like a proc file system.
type fakeProc struct {
	t    testing.TB
	root string
}

func newFakeProc(t testing.TB) fakeProc {
	proc := fakeProc{t: t, root: t.TempDir()}
	proc.write("self", "stat", statLine("self", "R", 0, 0, 1, 1))
	proc.write("self", "mountinfo", "")
	return proc
}

func (p fakeProc) write(pid any, name, content string) {
	p.t.Helper()
	path := filepath.Join(p.root, fmt.Sprint(pid), name)
	require.NoError(p.t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(p.t, os.WriteFile(path, []byte(content), 0o600))
}

func (p fakeProc) link(pid any, target string) {
	p.t.Helper()
	path := filepath.Join(p.root, fmt.Sprint(pid), "exe")
	require.NoError(p.t, os.MkdirAll(filepath.Dir(path), 0o755))
	// Replaced at once, as the kernel does: there is never no link.
	require.NoError(p.t, os.Symlink(target, path+".new"))
	require.NoError(p.t, os.Rename(path+".new", path))
}

func (p fakeProc) table(config Config) *Table {
	p.t.Helper()
	config.ProcFS = p.root
	config.CgroupFS = p.t.TempDir()
	table, err := NewTable(config, nil, nil)
	require.NoError(p.t, err)
	p.t.Cleanup(func() { require.NoError(p.t, table.Close()) })
	return table
}

// ticks is a start time that /proc shows as so many clock ticks, with nanoseconds that it does not show.
func ticks(count uint64) uint64 { return count*clockTickNs + 7_654_321 }

func TestStartTicksTruncate(t *testing.T) {
	proc := newProcFS(t.TempDir())
	for ns, want := range map[uint64]uint64{0: 0, 9_999_999: 0, 10_000_000: 1, 19_999_999: 1, 123_456_789_012: 12345} {
		assert.Equal(t, want, proc.startTicks(ns))
		assert.Equal(t, want, proc.startTicks(proc.startBootNs(want)))
	}
	proc.bootTimeOffsetNs = -5_000_000_000
	assert.Equal(t, uint64(500), proc.startTicks(10_000_000_000))
	assert.Equal(t, uint64(10_000_000_000), proc.startBootNs(500))
}

func TestTimeNamespaceOffsetIsRead(t *testing.T) {
	fake := newFakeProc(t)
	fake.write("self", "timens_offsets", "monotonic 0 0\nboottime 100 5\n")
	assert.Equal(t, int64(100*1e9+5), newProcFS(fake.root).bootTimeOffsetNs)
}

func TestReadOfMalformedProc(t *testing.T) {
	good := statLine("app", "S", 1, 0, 1, 500)
	tests := []struct {
		name    string
		prepare func(fakeProc)
		check   func(t *testing.T, table *Table, w *Workload)
	}{
		{"everything there", func(p fakeProc) {
			p.write(10, "stat", good)
			p.link(10, "/opt/app")
			p.write(10, "cmdline", "/opt/app\x00--x\x00")
			p.write(10, "environ", "OTEL_SERVICE_NAME=shop\x00")
			p.write(10, "cgroup", "0::/system.slice/app.service\n")
		}, func(t *testing.T, _ *Table, w *Workload) {
			assert.True(t, w.Complete)
			assert.Equal(t, "/opt/app --x", w.CommandLine)
			assert.Equal(t, "/system.slice/app.service", w.CgroupPath)
			assert.Equal(t, "shop", w.Service.Name)
		}},
		{"only stat and exe", func(p fakeProc) {
			p.write(10, "stat", good)
			p.link(10, "/opt/app")
		}, func(t *testing.T, _ *Table, w *Workload) {
			assert.True(t, w.Complete)
			assert.Equal(t, "app", w.Service.Name)
		}},
		{"huge files", func(p fakeProc) {
			p.write(10, "stat", good+strings.Repeat("9 ", 1<<20))
			p.link(10, "/opt/app")
			p.write(10, "cmdline", strings.Repeat("x", 1<<20))
			p.write(10, "environ", strings.Repeat("A=1\x00", 1<<18)+"OTEL_SERVICE_NAME=late\x00")
			p.write(10, "cgroup", strings.Repeat("1:cpu:/a\n", 1<<17))
		}, func(t *testing.T, table *Table, w *Workload) {
			assert.Len(t, w.CommandLine, maxCommandLineBytes)
			assert.Equal(t, "app", w.Service.Name, "beyond the bound nothing is read")
			assert.Equal(t, uint64(3), loss(t, table, "read_truncated"))
		}},
		{"a variable that is cut off", func(p fakeProc) {
			p.write(10, "stat", good)
			p.link(10, "/opt/app")
			before := strings.Repeat("x", maxEnvironFileBytes-len("OTEL_SERVICE_NAME=sh\x00")) + "\x00"
			p.write(10, "environ", before+"OTEL_SERVICE_NAME=shop\x00")
		}, func(t *testing.T, table *Table, w *Workload) {
			assert.Equal(t, "app", w.Service.Name)
			assert.Equal(t, uint64(1), loss(t, table, "read_truncated"))
		}},
		{"binary", func(p fakeProc) {
			p.write(10, "stat", good)
			p.link(10, "/opt/\xff\xfe")
			for _, name := range []string{"cmdline", "environ", "cgroup"} {
				p.write(10, name, strings.Repeat("\xff\xfe\x00\x01\n:/", 1000))
			}
		}, func(t *testing.T, _ *Table, w *Workload) {
			assert.Equal(t, "\uFFFD", w.ExecutableName)
		}},
		{"empty files", func(p fakeProc) {
			p.write(10, "stat", good)
			p.link(10, "/opt/app")
			for _, name := range []string{"cmdline", "environ", "cgroup"} {
				p.write(10, name, "")
			}
		}, func(t *testing.T, _ *Table, w *Workload) {
			assert.Equal(t, "app", w.ExecutableName)
			assert.Empty(t, w.CgroupPath)
		}},
		{"directories in place of files", func(p fakeProc) {
			p.write(10, "stat", good)
			p.link(10, "/opt/app")
			for _, name := range []string{"cmdline", "environ", "cgroup"} {
				p.write(10, name+"/x", "")
			}
		}, func(t *testing.T, _ *Table, w *Workload) {
			assert.Equal(t, "app", w.ExecutableName)
		}},
		{"kernel thread", func(p fakeProc) {
			p.write(10, "stat", statLine("nfsd/0", "S", 2, kernelThreadFlag, 1, 500))
		}, func(t *testing.T, _ *Table, w *Workload) {
			assert.True(t, w.KernelThread)
			assert.True(t, w.Complete)
			assert.Equal(t, "nfsd", w.Service.Name)
		}},
		{"zombie", func(p fakeProc) {
			p.write(10, "stat", statLine("dead", "Z", 2, 0, 1, 500))
			p.write(10, "cgroup", "0::/system.slice/app.service\n")
		}, func(t *testing.T, _ *Table, w *Workload) {
			assert.False(t, w.Complete)
			assert.Equal(t, "dead", w.Service.Name)
			assert.Equal(t, "/system.slice/app.service", w.CgroupPath)
		}},
		{"exe is no link", func(p fakeProc) {
			p.write(10, "stat", good)
			p.write(10, "exe", "x")
		}, func(t *testing.T, table *Table, w *Workload) {
			assert.False(t, w.Complete)
			assert.Equal(t, "app", w.Service.Name)
			assert.Equal(t, uint64(1), loss(t, table, "process_denied"))
		}},
		{"stat is broken", func(p fakeProc) {
			p.write(10, "stat", "\x00\xff(((")
		}, func(t *testing.T, table *Table, w *Workload) {
			assert.False(t, w.Complete)
			assert.Equal(t, "hint", w.Service.Name)
			assert.Equal(t, uint64(1), loss(t, table, "read_failed"))
		}},
		{"no stat", func(p fakeProc) {
			p.link(10, "/opt/app")
		}, func(t *testing.T, table *Table, w *Workload) {
			assert.False(t, w.Complete)
			assert.Equal(t, "hint", w.Service.Name)
			assert.Equal(t, uint64(1), loss(t, table, "process_gone"))
		}},
		{"another process has the pid", func(p fakeProc) {
			p.write(10, "stat", statLine("other", "S", 1, 0, 1, 501))
			p.link(10, "/opt/other")
		}, func(t *testing.T, _ *Table, w *Workload) {
			assert.False(t, w.Complete)
			assert.Equal(t, "hint", w.Service.Name)
			assert.Empty(t, w.ExecutablePath)
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			proc := newFakeProc(t)
			test.prepare(proc)
			table := proc.table(Config{})
			w := table.Lookup(Key{PID: 10, StartBootNs: ticks(500)}, Hint{Comm: "hint"})
			require.NotNil(t, w)
			assert.Equal(t, uint32(10), w.PID)
			test.check(t, table, w)
		})
	}
}

func TestLookupWithoutAProcess(t *testing.T) {
	proc := newFakeProc(t)
	proc.write(10, "stat", statLine("app", "S", 1, 0, 1, 500))
	proc.link(10, "/opt/app")
	table := proc.table(Config{})

	unowned := table.Lookup(Key{}, Hint{Comm: "swapper/0", KernelThread: true})
	assert.Equal(t, "swapper", unowned.Service.Name)
	assert.Same(t, unowned, table.Lookup(Key{}, Hint{Comm: "swapper/0", KernelThread: true}))
	assert.Equal(t, "unknown_service", table.Lookup(Key{}, Hint{}).Service.Name)

	byPID := table.Lookup(Key{PID: 10}, Hint{})
	assert.Equal(t, "app", byPID.Service.Name)
	assert.Same(t, byPID, table.Lookup(Key{PID: 10, StartBootNs: ticks(500)}, Hint{}))
	assert.Equal(t, "gone", table.Lookup(Key{PID: 11}, Hint{Comm: "gone"}).Service.Name)

	_, err := table.KeyOf(11)
	assert.ErrorIs(t, err, errGone)
}

func TestReadingsAgeWithoutEvents(t *testing.T) {
	proc := newFakeProc(t)
	proc.write(10, "stat", statLine("sh", "S", 1, 0, 1, 500))
	proc.link(10, "/bin/sh")
	table := proc.table(Config{RefreshInterval: time.Second})
	now := time.Now()
	table.now = func() time.Time { return now }
	key := Key{PID: 10, StartBootNs: ticks(500)}
	shell := table.Lookup(key, Hint{})
	require.Equal(t, "sh", shell.ExecutableName)

	proc.link(10, "/usr/bin/server")
	now = now.Add(900 * time.Millisecond)
	assert.Same(t, shell, table.Lookup(key, Hint{}))
	now = now.Add(200 * time.Millisecond)
	server := table.Lookup(key, Hint{})
	assert.Equal(t, "server", server.ExecutableName)

	require.NoError(t, os.RemoveAll(filepath.Join(proc.root, "10")))
	now = now.Add(time.Hour)
	assert.Same(t, server, table.Lookup(key, Hint{}), "what was known of a process is kept when it has ended")
}

func TestFullTable(t *testing.T) {
	proc := newFakeProc(t)
	for pid := 1; pid <= 20; pid++ {
		proc.write(pid, "stat", statLine(fmt.Sprint("app", pid), "S", 1, 0, 1, 500))
		proc.link(pid, fmt.Sprint("/opt/app", pid))
	}
	table := proc.table(Config{MaxProcesses: 8})
	lookup := func(pid int) *Workload {
		return table.Lookup(Key{PID: uint32(pid), StartBootNs: ticks(500)}, Hint{})
	}
	for pid := 1; pid <= 8; pid++ {
		lookup(pid)
	}
	assert.Zero(t, loss(t, table, "table_full"))
	first := lookup(1)

	// One that has ended goes before one that lives, however long that was not asked for.
	table.mutex.Lock()
	id := processID{pid: 5, startTicks: 500}
	known, _ := table.processes.Peek(id)
	table.end(id, known)
	table.mutex.Unlock()
	lookup(9)
	assert.Equal(t, uint64(1), loss(t, table, "table_full"))
	assert.False(t, table.processes.Contains(id))
	for pid := 10; pid <= 16; pid++ {
		lookup(pid)
	}
	assert.Equal(t, 8, table.processes.Len())
	assert.Equal(t, uint64(8), loss(t, table, "table_full"))
	assert.Equal(t, first.Service, lookup(1).Service, "what was forgotten is read again")
	assert.Empty(t, table.exits)
	for _, usage := range table.Stats().Maps {
		if usage.Map == "processes" {
			assert.Equal(t, kernel.MapUsage{Probe: "process", Map: "processes", Entries: 8, Capacity: 8}, usage)
		}
	}
}

// Whatever exec events come while a process is read, the last program is what stays.
func TestExecsDuringLookups(t *testing.T) {
	proc := newFakeProc(t)
	proc.write(10, "stat", statLine("app", "S", 1, 0, 1, 0))
	proc.link(10, "/opt/app0")
	table := proc.table(Config{RefreshInterval: time.Hour})
	key := Key{PID: 10, StartBootNs: 5_000}
	bucket := newLimiter(1, 1, table.now())
	stop := make(chan struct{})
	var running sync.WaitGroup
	for range 4 {
		running.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					workload := table.Lookup(key, Hint{})
					assert.True(t, strings.HasPrefix(workload.ExecutableName, "app"), workload.ExecutableName)
					table.Stats()
				}
			}
		})
	}
	const last = 300
	for i := 1; i <= last; i++ {
		path := fmt.Sprint("/opt/app", i)
		proc.link(10, path)
		sample := execSample(path, "app", "", "", 0)
		(*bpfProcessEvent)(unsafe.Pointer(unsafe.SliceData(sample))).Pid = 10
		table.handle(sample, bucket)
	}
	close(stop)
	running.Wait()
	assert.Equal(t, fmt.Sprint("/opt/app", last), table.Lookup(key, Hint{}).ExecutablePath)
	assert.Equal(t, uint64(last), count(t, table, "exec"))
	table.handle([]byte("short"), bucket)
	assert.Equal(t, uint64(1), loss(t, table, "malformed_event"))
}

func TestNewTableWithoutProc(t *testing.T) {
	_, err := NewTable(Config{ProcFS: t.TempDir()}, nil, nil)
	assert.ErrorContains(t, err, "mount the host's proc file system")
}

func BenchmarkLookupHit(b *testing.B) {
	table, err := NewTable(Config{RefreshInterval: time.Hour}, nil, nil)
	require.NoError(b, err)
	defer table.Close()
	key, err := table.KeyOf(uint32(os.Getpid()))
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		if table.Lookup(key, Hint{Comm: "workload.test"}) == nil {
			b.Fatal("nothing")
		}
	}
}

func BenchmarkReadProcess(b *testing.B) {
	table, err := NewTable(Config{RefreshInterval: time.Nanosecond}, nil, nil)
	require.NoError(b, err)
	defer table.Close()
	key, err := table.KeyOf(uint32(os.Getpid()))
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		table.Lookup(key, Hint{})
	}
}
