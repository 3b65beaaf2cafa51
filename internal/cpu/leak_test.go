//go:build linux

package cpu

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

// held is what a probe must not have more and more of.
type held struct {
	descriptors, goroutines  int
	processes, mappings      uint64
	tables, tableBytes       uint64
	heapBytes, residentPages int64
}

func (o *observer) held() held {
	o.t.Helper()
	debug.FreeOSMemory()
	descriptors, err := os.ReadDir("/proc/self/fd")
	require.NoError(o.t, err)
	statistics, err := os.ReadFile("/proc/self/statm")
	require.NoError(o.t, err)
	resident, err := strconv.ParseInt(strings.Fields(string(statistics))[1], 10, 64)
	require.NoError(o.t, err)
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	now := held{
		descriptors: len(descriptors), goroutines: runtime.NumGoroutine(),
		heapBytes: int64(memory.HeapAlloc), residentPages: resident,
		processes: o.usage("processes"), mappings: o.usage("mappings"),
		tables: o.usage("unwind_tables"), tableBytes: o.usage("unwind_table_bytes"),
	}
	o.t.Logf("%+v", now)
	return now
}

// forgetSamples drops what was handed over, so that only the probe's memory grows.
func (o *observer) forgetSamples() {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	o.observed = nil
}

func TestShortLivedProcessesLeaveNothing(t *testing.T) {
	seconds := 20
	if long := os.Getenv("EBPFRECEIVER_TEST_SOAK_SECONDS"); long != "" {
		var err error
		seconds, err = strconv.Atoi(long)
		require.NoError(t, err)
	}
	spawner := build(t, "gcc", "spawn.c", "-O2")
	brief := build(t, "gcc", "brief.c", optimized()...)
	content, err := os.ReadFile(brief)
	require.NoError(t, err)
	arguments := []string{"200", strconv.Itoa(seconds)}
	// Files of their own, as containers have: the same table is for all of them.
	for i := range 50 {
		path := filepath.Join(filepath.Dir(brief), "brief"+strconv.Itoa(i))
		require.NoError(t, os.WriteFile(path, content, 0o755))
		arguments = append(arguments, path)
	}
	o := observeOnly(t, filepath.Dir(brief)+"/*", func(config *Config) { config.Frequency = 499 })
	subject := run(t, spawner, arguments...)
	time.Sleep(5 * time.Second)
	o.forgetSamples()
	begin := o.held()
	wait := time.Duration(seconds)*time.Second + patience
	ended := make(chan string, 1)
	go func() { ended <- subject.line() }()
	ticks := time.NewTicker(500 * time.Millisecond)
	defer ticks.Stop()
	samples := int64(0)
	for waiting := true; waiting; {
		select {
		case line := <-ended:
			started, err := strconv.Atoi(line)
			require.NoError(t, err)
			assert.Greater(t, started, 100*seconds, "processes were started")
			waiting = false
		case <-ticks.C:
			samples += total(o.seen(0))
			o.forgetSamples()
		case <-time.After(wait):
			t.Fatal("the processes did not end")
		}
	}
	assert.Greater(t, samples, int64(10*seconds), "they were seen")
	time.Sleep(2 * rareChecks)
	o.forgetSamples()
	end := o.held()
	assert.LessOrEqual(t, end.descriptors, begin.descriptors+5)
	assert.LessOrEqual(t, end.goroutines, begin.goroutines)
	// What ended while it was looked into is forgotten by the next sweep.
	assert.Less(t, end.processes, begin.processes+50)
	assert.Less(t, end.mappings, begin.mappings+500)
	assert.LessOrEqual(t, end.tables, begin.tables+2)
	assert.Less(t, end.heapBytes-begin.heapBytes, int64(4<<20))
	assert.Less(t, (end.residentPages-begin.residentPages)*int64(os.Getpagesize()), int64(10<<20))
	for _, reason := range []string{"processes_full", "stacks_full", "ring_full", "storage_full", "unwind_tables_full"} {
		assert.Zero(t, o.lost(reason), reason)
	}
	entries := 0
	var pid uint32
	var entry bpfProcess
	for all := o.collection.Maps["processes"].Iterate(); all.Next(&pid, &entry); {
		entries++
	}
	// Other processes of the host were looked at, to find that they are not selected.
	assert.InDelta(t, end.processes, entries, 20, "user space knows what the kernel side has")
}

func TestProbeStartsAndStopsAgainAndAgain(t *testing.T) {
	o := prepare(t, workload.Selection{}, offCPU)
	o.config.Frequency = 99
	count := func() (descriptors, goroutines int) {
		entries, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		return len(entries), runtime.NumGoroutine()
	}
	var descriptors, goroutines int
	for round := range 20 {
		probe := New(o.config, o.kernel, o.workloads, nil, o.sinks, o.logger)
		require.NoError(t, probe.Start())
		time.Sleep(50 * time.Millisecond)
		require.NoError(t, probe.Shutdown(context.Background()))
		require.NoError(t, probe.Shutdown(context.Background()), "once more does nothing")
		if round == 1 {
			descriptors, goroutines = count()
		}
	}
	after, running := count()
	assert.LessOrEqual(t, after, descriptors)
	assert.LessOrEqual(t, running, goroutines)
}

// TestNewProcessesAreSoonKnown counts the samples of a new process that are not complete: each is a millisecond of its life.
func TestNewProcessesAreSoonKnown(t *testing.T) {
	path := build(t, "gcc", "recurse.c", optimized("-lm")...)
	o := observeOnly(t, path, func(config *Config) { config.Frequency = 999 })
	time.Sleep(500 * time.Millisecond)
	subject := run(t, path, "20")
	time.Sleep(1500 * time.Millisecond)
	o.stop()
	samples := o.seen(subject.pid)
	late := filter(samples, func(s observed) bool { return s.end != "" })
	ends := map[string]int64{}
	for _, sample := range late {
		ends[sample.end] += sample.value
	}
	t.Logf("%d of %d samples: %v", total(late), total(samples), ends)
	assert.Less(t, total(late), int64(250), "so many milliseconds")
}
