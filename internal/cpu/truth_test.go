//go:build linux

package cpu

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

// truthful is a program that tells what its functions have taken.
type truthful struct {
	*program
	input io.WriteCloser
	began time.Time
}

// runTruthful starts a program that begins when it is told to. It has been sampled before.
func runTruthful(t *testing.T, path string, duration time.Duration) *truthful {
	t.Helper()
	command := exec.Command(path, strconv.FormatFloat(duration.Seconds(), 'f', -1, 64))
	input, err := command.StdinPipe()
	require.NoError(t, err)
	p := &truthful{program: runCommand(t, command), input: input}
	require.Equal(t, "ready", p.line())
	return p
}

// measure lets the program do its work, and takes what it says of it: the seconds of each function.
func (p *truthful) measure(t *testing.T) map[string]float64 {
	t.Helper()
	p.began = time.Now()
	_, err := fmt.Fprintln(p.input, "begin")
	require.NoError(t, err)
	said := map[string]float64{}
	for {
		line := p.line()
		if line == "end" {
			return said
		}
		name, seconds, _ := strings.Cut(line, " ")
		said[name], err = strconv.ParseFloat(seconds, 64)
		require.NoError(t, err)
	}
}

// TestTruthOfCPU compares with the CPU time that a program has measured of itself.
func TestTruthOfCPU(t *testing.T) {
	duration, frequency := 10*time.Second, 499
	if os.Getenv("EBPFRECEIVER_TEST_LONG") != "" {
		duration, frequency = time.Minute, 99
	}
	path := build(t, "gcc", "shares.c", optimized("-pthread")...)
	o := observe(t, func(config *Config) { config.Frequency = frequency })
	subject := runTruthful(t, path, duration)
	said := subject.measure(t)
	o.stop()
	samples := o.seen(subject.pid)
	compareShares(t, samples, said, 2)
	assert.GreaterOrEqual(t, share(samples, complete), 0.97, "with those of its first moments\n%s",
		folded(withoutComplete(samples), 10))
}

func offCPU(config *Config) {
	config.Frequency = 0
	config.OffCPU = OffCPUConfig{Enabled: true, MinDuration: time.Millisecond, SamplesPerSecond: 10000}
}

// rungs are the two ways in which waits are sampled.
var rungs = map[string]bool{"when a thread has a CPU again": false, "when it gives it up": true}

// observeWaits starts a probe of the waits of a program.
func observeWaits(t *testing.T, path string, whenOff bool, change func(*Config)) *observer {
	t.Helper()
	selection := workload.Selection{Include: []workload.Rule{{Executable: path}}}
	o := prepare(t, selection, func(config *Config) {
		offCPU(config)
		if change != nil {
			change(config)
		}
	})
	if !whenOff && !o.kernel.HasTracepoint(onTracepoint) {
		t.Skipf("needs the tracepoint %s", onTracepoint)
	}
	o.walksWhenOff = whenOff
	o.start()
	return o
}

func TestTruthOfWaits(t *testing.T) {
	path := build(t, "gcc", "waits.c", optimized("-pthread")...)
	for name, whenOff := range rungs {
		t.Run(name, func(t *testing.T) {
			o := observeWaits(t, path, whenOff, nil)
			subject := runTruthful(t, path, 5*time.Second)
			said := subject.measure(t)
			o.stop()
			samples := o.seen(subject.pid)
			compareShares(t, samples, said, 2)
			for function, seconds := range said {
				got := time.Duration(total(filter(samples, within(function)))).Seconds()
				assert.InEpsilon(t, seconds, got, 0.05, function)
			}
			assert.GreaterOrEqual(t, share(samples, complete), 0.95, "%s", folded(withoutComplete(samples), 10))
			waits := filter(samples, func(s observed) bool { return s.has("sleeps_20ms") })
			assert.Zero(t, share(waits, func(s observed) bool { return s.kind == "off_cpu" }), "each says why")
			assert.GreaterOrEqual(t, share(waits, func(s observed) bool { return s.kind == "wait" }), 0.98)
			t.Logf("\n%s", folded(samples, 5))
		})
	}
}

func filter(samples []observed, fits func(observed) bool) []observed {
	var found []observed
	for _, sample := range samples {
		if fits(sample) {
			found = append(found, sample)
		}
	}
	return found
}

// TestWaitsAreWeighted lets far fewer waits be sampled than there are.
func TestWaitsAreWeighted(t *testing.T) {
	path := build(t, "gcc", "waits.c", optimized("-pthread")...)
	for name, whenOff := range rungs {
		t.Run(name, func(t *testing.T) {
			o := observeWaits(t, path, whenOff, func(config *Config) { config.OffCPU.SamplesPerSecond = 50 })
			subject := runTruthful(t, path, 10*time.Second)
			walks := o.counted("walk")
			said := subject.measure(t)
			walks = o.counted("walk") - walks
			o.stop()
			cpus := uint64(runtime.NumCPU())
			assert.Less(t, walks, cpus*50*10*3/2, "about 50 a second on each CPU")
			compareShares(t, o.seen(subject.pid), said, 10)
			want, got := 0.0, 0.0
			for function, seconds := range said {
				want += seconds
				got += time.Duration(total(filter(o.seen(subject.pid), within(function)))).Seconds()
			}
			t.Logf("%d walks; %.2f s of %.2f s", walks, got, want)
			assert.InEpsilon(t, want, got, 0.15)
		})
	}
}

func TestShortWaitsAreLeftOut(t *testing.T) {
	path := build(t, "gcc", "waits.c", optimized("-pthread")...)
	for name, whenOff := range rungs {
		t.Run(name, func(t *testing.T) {
			o := observeWaits(t, path, whenOff, func(config *Config) { config.OffCPU.MinDuration = 15 * time.Millisecond })
			subject := runTruthful(t, path, 2*time.Second)
			said := subject.measure(t)
			o.stop()
			samples := o.seen(subject.pid)
			long := time.Duration(total(filter(samples, within("sleeps_20ms")))).Seconds()
			short := time.Duration(total(filter(samples, within("sleeps_5ms")))).Seconds()
			assert.InEpsilon(t, said["sleeps_20ms"], long, 0.1)
			assert.Less(t, short, 0.1*said["sleeps_5ms"], "but for what took longer")
		})
	}
}

// TestPreemption has two threads on one CPU that never wait.
func TestPreemption(t *testing.T) {
	path := buildCalls(t)
	for name, whenOff := range rungs {
		t.Run(name, func(t *testing.T) {
			o := observeWaits(t, path, whenOff, nil)
			command := exec.Command("taskset", "-c", "0", path, "threads")
			subject := runCommand(t, command)
			o.await(subject.pid, "of the first thread", within("first_thread"))
			o.await(subject.pid, "of the second thread", within("second_thread"))
			samples := o.watch(subject.pid, 2*time.Second)
			spinning := filter(samples, within("spin"))
			preempted := share(spinning, func(s observed) bool { return s.kind == "preempted" })
			assert.GreaterOrEqual(t, preempted, 0.99, "%s", folded(spinning, 10))
			// Of two threads one is always off, and both are where others run.
			assert.Greater(t, time.Duration(total(spinning)).Seconds(), 1.5)
		})
	}
}
