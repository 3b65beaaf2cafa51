//go:build linux

package cpu

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

// cpuTime is the CPU time that a process has used, with all threads that it has had.
func cpuTime(t *testing.T, pid uint32) time.Duration {
	t.Helper()
	// MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED) of include/linux/posix-timers_types.h.
	clock := int32(^pid<<3 | 2)
	var now unix.Timespec
	require.NoError(t, unix.ClockGettime(clock, &now))
	return time.Duration(now.Nano())
}

func TestFrequency(t *testing.T) {
	path := build(t, "gcc", "recurse.c", optimized()...)
	for _, frequency := range []int{19, 99, 999} {
		t.Run(fmt.Sprint(frequency), func(t *testing.T) {
			subject := run(t, path, "3")
			o := observeOnly(t, path, func(config *Config) { config.Frequency = frequency })
			before := cpuTime(t, subject.pid)
			time.Sleep(2 * time.Second)
			spent := cpuTime(t, subject.pid) - before
			o.stop()
			want := spent.Seconds() * float64(frequency)
			assert.InDelta(t, want, total(o.seen(subject.pid)), max(4, 0.07*want), "after %s of CPU time", spent)
		})
	}
}

func TestFrequencyZeroTakesNoSamples(t *testing.T) {
	subject := run(t, build(t, "gcc", "recurse.c", optimized()...), "3")
	o := observe(t, func(config *Config) { config.Frequency = 0 })
	time.Sleep(500 * time.Millisecond)
	o.stop()
	assert.Empty(t, o.seen(subject.pid))
	assert.Zero(t, o.counted("stack"))
}

func TestSelection(t *testing.T) {
	wanted, unwanted := build(t, "gcc", "recurse.c", optimized()...), build(t, "gcc", "recurse.c", optimized()...)
	in, out := run(t, wanted, "3"), run(t, unwanted, "3")
	tests := map[string]workload.Selection{
		"exclude an executable": {Exclude: []workload.Rule{{Executable: unwanted}}},
		"include an executable": {Include: []workload.Rule{{Executable: wanted}}},
		"exclude a process":     {Exclude: []workload.Rule{{PID: out.pid}}},
		"include a process":     {Include: []workload.Rule{{PID: in.pid}}},
	}
	for name, selection := range tests {
		t.Run(name, func(t *testing.T) {
			o := prepare(t, selection, nil)
			o.start()
			o.warm(in.pid)
			time.Sleep(time.Second)
			o.stop()
			assert.NotEmpty(t, o.seen(in.pid))
			assert.Empty(t, o.seen(out.pid))
			if len(selection.Include) > 0 {
				others := slices.DeleteFunc(o.seen(0), func(s observed) bool { return s.pid == in.pid })
				assert.Empty(t, others)
			}
		})
	}
}

// TestSelectionAfterExec has programs that are selected, or not, only when another one has executed them.
func TestSelectionAfterExec(t *testing.T) {
	path := build(t, "gcc", "recurse.c", optimized()...)
	o := observeOnly(t, path, nil)
	for range 10 {
		// The shell works for a moment, so that it is sampled before it executes the program.
		subject := runCommand(t, exec.Command("sh", "-c", `i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done; exec "$0" 3`, path))
		o.await(subject.pid, "of what is selected", within("recurse"))
		assert.Zero(t, share(o.seen(subject.pid), func(s observed) bool { return !s.has("main") && s.end == "" }))
		subject.end()
	}
}

// TestUnselectedIsNotWalked has a process that is not selected, and not even looked at.
func TestUnselectedIsNotWalked(t *testing.T) {
	path := build(t, "gcc", "recurse.c", optimized()...)
	subject := run(t, path, "3")
	o := observeOnly(t, "/nowhere", func(config *Config) { config.Frequency = 999 })
	require.Eventually(t, func() bool { return o.counted("sample_unselected") > 100 }, patience, 10*time.Millisecond)
	before := o.counted("sample_unselected")
	time.Sleep(time.Second)
	assert.Greater(t, o.counted("sample_unselected")-before, uint64(100))
	o.mutex.Lock()
	defer o.mutex.Unlock()
	assert.Empty(t, o.observed)
	assert.NotZero(t, subject.pid)
}

func TestThreadsAndCPUs(t *testing.T) {
	calls := buildCalls(t)
	command := exec.Command("taskset", "-c", "1", calls, "threads")
	if online, err := os.ReadFile(onlineFile); err != nil || !strings.Contains(string(online), "1") {
		t.Skipf("needs two CPUs: %v", err)
	}
	subject := runCommand(t, command)
	for _, told := range []bool{true, false} {
		t.Run(fmt.Sprint(told), func(t *testing.T) {
			o := observe(t, func(config *Config) { config.Threads, config.CPUs = told, told })
			o.await(subject.pid, "of the first thread", within("first_thread"))
			o.await(subject.pid, "of the second thread", within("second_thread"))
			o.stop()
			threads := map[string]map[uint32]bool{}
			for _, sample := range o.seen(subject.pid) {
				if threads[sample.comm] == nil {
					threads[sample.comm] = map[uint32]bool{}
				}
				threads[sample.comm][sample.thread] = true
				if told {
					assert.EqualValues(t, 1, sample.cpu)
				} else {
					assert.EqualValues(t, -1, sample.cpu)
				}
				if sample.has("first_thread") && told {
					assert.Equal(t, "first", sample.comm)
				}
			}
			if told {
				assert.Len(t, threads["first"], 1)
				assert.Len(t, threads["second"], 1)
				assert.NotEqual(t, threads["first"], threads["second"])
			} else {
				assert.Equal(t, map[string]map[uint32]bool{"": {0: true}}, threads)
			}
		})
	}
}

func TestKernelThreads(t *testing.T) {
	o := observe(t, func(config *Config) { config.Frequency = 999 })
	isKernelThread := func(s observed) bool { return s.has("ret_from_fork_asm") && s.has("kthread") }
	// What is written to a disk is work for threads of the kernel.
	for end := time.Now().Add(patience); time.Now().Before(end) && !slices.ContainsFunc(o.seen(0), isKernelThread); {
		write := exec.Command("dd", "if=/dev/zero", "of="+filepath.Join(t.TempDir(), "file"), "bs=1M", "count=64", "conv=fsync")
		require.NoError(t, write.Run())
	}
	o.stop()
	found := 0
	for _, sample := range o.seen(0) {
		if !isKernelThread(sample) {
			continue
		}
		found++
		assert.Empty(t, sample.end)
		for _, frame := range sample.frames {
			assert.Equal(t, "kernel", frame.frameType, "%v", sample.names())
		}
	}
	assert.Positive(t, found)
}

// TestClocksFollowCPUs lets CPUs come and go as the kernel's list says.
func TestClocksFollowCPUs(t *testing.T) {
	o := prepare(t, workload.Selection{}, nil)
	require.NoError(t, o.load())
	t.Cleanup(func() { assert.NoError(t, o.release()) })
	list, failure := "0\n", error(nil)
	running := newClocks(o.collection.Programs["cpu_sample"], 19)
	running.online = func() ([]byte, error) { return []byte(list), failure }
	t.Cleanup(func() { assert.NoError(t, running.Close()) })
	here := func() []int {
		var cpus []int
		for cpu := range running.running {
			cpus = append(cpus, cpu)
		}
		slices.Sort(cpus)
		return cpus
	}
	require.NoError(t, running.follow())
	assert.Equal(t, []int{0}, here())
	first := running.running[0]
	online, err := os.ReadFile(onlineFile)
	require.NoError(t, err)
	if cpus, err := parseCPUs(string(online)); err != nil || !slices.Contains(cpus, 1) {
		t.Skip("needs two CPUs")
	}
	list = "0-1\n"
	require.NoError(t, running.follow())
	assert.Equal(t, []int{0, 1}, here())
	assert.Same(t, first, running.running[0], "what runs goes on")
	list = "0\n"
	require.NoError(t, running.follow())
	assert.Equal(t, []int{0}, here())
	list = "nonsense\n"
	require.Error(t, running.follow())
	assert.Equal(t, []int{0}, here(), "what runs goes on")
	list = fmt.Sprintf("0,%d\n", maxCPU-1)
	require.Error(t, running.follow(), "there is no such CPU")
	require.Error(t, running.follow(), "it is tried again")
	assert.Equal(t, []int{0}, here())
	failure = errors.New("no such file")
	require.ErrorIs(t, running.follow(), failure)
	require.NoError(t, running.Close())
	assert.Empty(t, here())
	failure, list = nil, "0\n"
	require.NoError(t, running.follow(), "after Close all begins anew")
	assert.Equal(t, []int{0}, here())
}

// TestCPUGoesAndComes takes a CPU away for a moment, which is not for every machine.
func TestCPUGoesAndComes(t *testing.T) {
	const switchFile = "/sys/devices/system/cpu/cpu1/online"
	if os.Getenv("EBPFRECEIVER_TEST_HOTPLUG") == "" {
		t.Skip("takes CPU 1 away for some seconds: set EBPFRECEIVER_TEST_HOTPLUG")
	}
	subject := run(t, buildCalls(t), "threads")
	o := observe(t, func(config *Config) { config.CPUs = true })
	onCPU := func(cpu int64) func(observed) bool { return func(s observed) bool { return s.cpu == cpu } }
	o.await(subject.pid, "on CPU 1", onCPU(1))
	require.NoError(t, os.WriteFile(switchFile, []byte("0"), 0))
	t.Cleanup(func() { assert.NoError(t, os.WriteFile(switchFile, []byte("1"), 0)) })
	time.Sleep(2 * rareChecks)
	require.NoError(t, os.WriteFile(switchFile, []byte("1"), 0))
	back := time.Now()
	o.await(subject.pid, "on CPU 1 again", func(s observed) bool { return s.cpu == 1 && s.from.After(back) })
}

// shares compares how much of the samples is within functions with how much of the time they say they have taken.
func compareShares(t *testing.T, samples []observed, said map[string]float64, points float64) {
	t.Helper()
	sum, all := 0.0, int64(0)
	found := map[string]int64{}
	for function, seconds := range said {
		sum += seconds
		for _, sample := range samples {
			if sample.has(function) {
				found[function] += sample.value
				all += sample.value
			}
		}
	}
	require.Positive(t, all, "%s", folded(samples, 10))
	for function, seconds := range said {
		got, want := 100*float64(found[function])/float64(all), 100*seconds/sum
		t.Logf("%s: %.2f %% of the samples, %.2f %% of %.2f s", function, got, want, sum)
		assert.Less(t, math.Abs(got-want), points, function)
	}
}
