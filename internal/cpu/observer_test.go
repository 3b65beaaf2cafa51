//go:build linux

package cpu

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pprofile"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel/kerneltest"
	"github.com/ebpfreceiver/ebpfreceiver/internal/ring"
	"github.com/ebpfreceiver/ebpfreceiver/internal/signal/profile/profilecheck"
	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

// testInterval is how often the probe of a test hands its profiles over.
const testInterval = 200 * time.Millisecond

// patience is how long tests wait for what should take far less.
const patience = 20 * time.Second

// observer is a running probe and what it has handed over.
type observer struct {
	*Probe
	t        *testing.T
	stopped  bool
	mutex    sync.Mutex
	observed []observed
}

// observed is a sample that was handed over.
type observed struct {
	from, to time.Time
	kind     string // the type, or why a thread was off its CPU
	pid      uint32
	thread   uint32
	comm     string
	cpu      int64 // -1: not told
	end      string
	value    int64
	frames   []observedFrame // the innermost first
	resource map[string]any
}

// observedFrame is a function. Calls that were inlined are frames of their own.
type observedFrame struct {
	function, system, file, mapping, frameType string
	line                                       int64
	address                                    uint64
}

func testConfig() Config {
	return Config{
		Frequency: 199, Interval: testInterval, MaxProcesses: 1024, MaxStacks: 16384, TableBytes: 64 << 20, SymbolBytes: 64 << 20,
		OffCPU: OffCPUConfig{MinDuration: time.Millisecond, SamplesPerSecond: 100},
		ProcFS: "/proc", Ring: ring.Config{},
		Scope: func(scope pcommon.InstrumentationScope) { scope.SetName("test") },
	}
}

// prepare makes an observer of what a selection has, that has not been started.
func prepare(t *testing.T, selection workload.Selection, change func(*Config)) *observer {
	t.Helper()
	kerneltest.RequireRoot(t)
	noErrors := zap.Hooks(func(entry zapcore.Entry) error {
		if entry.Level >= zapcore.ErrorLevel {
			t.Errorf("the probe logged an error: %s", entry.Message)
		}
		return nil
	})
	logger := zaptest.NewLogger(t, zaptest.Level(zapcore.InfoLevel), zaptest.WrapOptions(noErrors))
	kern, err := kernel.Open(kernel.Options{}, logger)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, kern.Close()) })
	workloads, err := workload.NewTable(workload.Config{ExitGrace: time.Second}, kern, logger)
	require.NoError(t, err)
	require.NoError(t, workloads.Start())
	t.Cleanup(func() { assert.NoError(t, workloads.Close()) })
	selector, err := selection.Compile()
	require.NoError(t, err)
	config := testConfig()
	if change != nil {
		change(&config)
	}
	o := &observer{t: t}
	o.Probe = New(config, kern, workloads, selector, Sinks{Profiles: o.take}, logger)
	return o
}

// observe starts a probe for all processes.
func observe(t *testing.T, change func(*Config)) *observer {
	t.Helper()
	o := prepare(t, workload.Selection{}, change)
	o.start()
	return o
}

// observeOnly starts a probe for the processes of an executable.
func observeOnly(t *testing.T, executable string, change func(*Config)) *observer {
	t.Helper()
	o := prepare(t, workload.Selection{Include: []workload.Rule{{Executable: executable}}}, change)
	o.start()
	return o
}

func (o *observer) start() {
	o.t.Helper()
	require.NoError(o.t, o.Start())
	o.t.Cleanup(o.stop)
}

// stop ends the probe, so that everything is handed over.
func (o *observer) stop() {
	if !o.stopped {
		o.stopped = true
		assert.NoError(o.t, o.Shutdown(context.Background()))
	}
}

// take is the sink. Every message has to follow the rules.
func (o *observer) take(_ context.Context, profiles pprofile.Profiles) error {
	for _, violation := range profilecheck.Check(profiles) {
		o.t.Errorf("a message breaks a rule: %v", violation)
	}
	read := readProfiles(profiles)
	o.mutex.Lock()
	defer o.mutex.Unlock()
	o.observed = append(o.observed, read...)
	return nil
}

// seen are the samples of a process so far; of all processes where pid is 0.
func (o *observer) seen(pid uint32) []observed {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	return slices.Collect(func(yield func(observed) bool) {
		for _, sample := range o.observed {
			if (pid == 0 || sample.pid == pid) && !yield(sample) {
				return
			}
		}
	})
}

// await waits until a process has a sample that fits.
func (o *observer) await(pid uint32, what string, fits func(observed) bool) {
	o.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if slices.ContainsFunc(o.seen(pid), fits) {
			return
		}
	}
	o.t.Fatalf("process %d had no sample %s for %s; it had:\n%s", pid, what, patience, folded(o.seen(pid), 20))
}

// warm waits until stacks of a process are complete: its files have been read by then.
func (o *observer) warm(pid uint32) {
	o.t.Helper()
	o.await(pid, "that is complete", func(s observed) bool { return s.end == "" && len(s.frames) > 1 })
}

// watch gives the samples of a process in the time that comes.
func (o *observer) watch(pid uint32, duration time.Duration) []observed {
	from := time.Now()
	// Intervals that lie within: the first may begin, and the last may be handed over, one interval later.
	time.Sleep(duration + 3*testInterval)
	return slices.DeleteFunc(o.seen(pid), func(s observed) bool {
		return s.from.Before(from) || s.to.After(from.Add(duration+2*testInterval))
	})
}

func (o *observer) lost(reason string) uint64 {
	o.t.Helper()
	for _, loss := range o.Stats().Losses {
		if loss.Reason == reason {
			return loss.Count
		}
	}
	o.t.Fatalf("there is no loss reason %q", reason)
	return 0
}

func (o *observer) counted(kind string) uint64 {
	o.t.Helper()
	for _, event := range o.Stats().Events {
		if event.Kind == kind {
			return event.Count
		}
	}
	o.t.Fatalf("there is no kind of events %q", kind)
	return 0
}

func (o *observer) usage(name string) uint64 {
	o.t.Helper()
	for _, usage := range o.Stats().Maps {
		if usage.Map == name {
			return usage.Entries
		}
	}
	o.t.Fatalf("there is no map %q", name)
	return 0
}

// readProfiles takes a message apart.
func readProfiles(profiles pprofile.Profiles) []observed {
	var read []observed
	dictionary := profiles.Dictionary()
	texts := dictionary.StringTable()
	for _, resource := range profiles.ResourceProfiles().All() {
		attributes := resource.Resource().Attributes().AsRaw()
		for _, scope := range resource.ScopeProfiles().All() {
			for _, profile := range scope.Profiles().All() {
				from := profile.Time().AsTime()
				for _, sample := range profile.Samples().All() {
					one := observed{
						from: from, to: from.Add(time.Duration(profile.DurationNano())), cpu: -1, resource: attributes,
						kind: texts.At(int(profile.SampleType().TypeStrindex())),
					}
					for _, value := range sample.Values().All() {
						one.value += value
					}
					for _, index := range sample.AttributeIndices().All() {
						one.describe(dictionary, index)
					}
					for _, index := range dictionary.StackTable().At(int(sample.StackIndex())).LocationIndices().All() {
						one.frames = append(one.frames, readLocation(dictionary, index)...)
					}
					read = append(read, one)
				}
			}
		}
	}
	return read
}

func (o *observed) describe(dictionary pprofile.ProfilesDictionary, index int32) {
	attribute := dictionary.AttributeTable().At(int(index))
	value := attribute.Value()
	switch dictionary.StringTable().At(int(attribute.KeyStrindex())) {
	case "process.pid":
		o.pid = uint32(value.Int())
	case "thread.id":
		o.thread = uint32(value.Int())
	case "thread.name":
		o.comm = value.Str()
	case "cpu.logical_number":
		o.cpu = value.Int()
	case "profile.stack.incomplete":
		o.end = value.Str()
	case "profile.off_cpu.reason":
		o.kind = value.Str()
	}
}

func readLocation(dictionary pprofile.ProfilesDictionary, index int32) []observedFrame {
	texts := dictionary.StringTable()
	location := dictionary.LocationTable().At(int(index))
	frame := observedFrame{address: location.Address()}
	if mapping := location.MappingIndex(); mapping != 0 {
		frame.mapping = texts.At(int(dictionary.MappingTable().At(int(mapping)).FilenameStrindex()))
	}
	for _, index := range location.AttributeIndices().All() {
		attribute := dictionary.AttributeTable().At(int(index))
		if texts.At(int(attribute.KeyStrindex())) == "profile.frame.type" {
			frame.frameType = attribute.Value().Str()
		}
	}
	if location.Lines().Len() == 0 {
		return []observedFrame{frame}
	}
	var frames []observedFrame
	for _, line := range location.Lines().All() {
		function := dictionary.FunctionTable().At(int(line.FunctionIndex()))
		one := frame
		one.function = texts.At(int(function.NameStrindex()))
		one.system = texts.At(int(function.SystemNameStrindex()))
		one.file = texts.At(int(function.FilenameStrindex()))
		one.line = line.Line()
		frames = append(frames, one)
	}
	return frames
}

// names are the functions of a stack, the innermost first; what has no name is told by its file.
func (o observed) names() []string {
	names := make([]string, len(o.frames))
	for i, frame := range o.frames {
		if names[i] = frame.function; names[i] == "" {
			names[i] = "[" + filepath.Base(frame.mapping) + "]"
		}
	}
	return names
}

// count is how often a function is on the stack.
func (o observed) count(function string) int {
	count := 0
	for _, frame := range o.frames {
		if frame.function == function {
			count++
		}
	}
	return count
}

func (o observed) has(function string) bool { return o.count(function) > 0 }

// inKernel says that the innermost frame is the kernel's.
func (o observed) inKernel() bool { return len(o.frames) > 0 && o.frames[0].frameType == "kernel" }

func total(samples []observed) int64 {
	sum := int64(0)
	for _, sample := range samples {
		sum += sample.value
	}
	return sum
}

// share is how much of the samples fits, from 0 to 1.
func share(samples []observed, fits func(observed) bool) float64 {
	sum := int64(0)
	for _, sample := range samples {
		if fits(sample) {
			sum += sample.value
		}
	}
	return float64(sum) / float64(max(total(samples), 1))
}

func within(function string) func(observed) bool {
	return func(s observed) bool { return s.has(function) }
}

// longStack is of how many frames all are shown.
const longStack = 30

// folded writes the most frequent stacks, the outermost frame first.
func folded(samples []observed, most int) string {
	sums := map[string]int64{}
	for _, sample := range samples {
		names := sample.names()
		slices.Reverse(names)
		if len(names) > longStack {
			names = slices.Concat(names[:longStack/2], []string{"..."}, names[len(names)-longStack/2:])
		}
		sums[sample.kind+" ("+sample.end+") "+strings.Join(names, ";")] += sample.value
	}
	var lines []string
	for line := range sums {
		lines = append(lines, line)
	}
	slices.SortFunc(lines, func(a, b string) int { return int(sums[b] - sums[a]) })
	var text strings.Builder
	for _, line := range lines[:min(most, len(lines))] {
		fmt.Fprintln(&text, sums[line], line)
	}
	return text.String()
}

// program is one that runs for a test.
type program struct {
	t       *testing.T
	command *exec.Cmd
	pid     uint32
	lines   *bufio.Scanner
	ended   bool
}

// run starts a program and waits until it says that it is ready.
func run(t *testing.T, path string, arguments ...string) *program {
	t.Helper()
	return runCommand(t, exec.Command(path, arguments...))
}

func runCommand(t *testing.T, command *exec.Cmd) *program {
	t.Helper()
	p := launch(t, command)
	require.Equal(t, "ready", p.line(), "%v", command.Args)
	return p
}

// launch starts a program.
func launch(t *testing.T, command *exec.Cmd) *program {
	t.Helper()
	output, err := command.StdoutPipe()
	require.NoError(t, err)
	command.Stderr = os.Stderr
	require.NoError(t, command.Start())
	p := &program{t: t, command: command, pid: uint32(command.Process.Pid), lines: bufio.NewScanner(output)}
	// What node and Python write for perf.
	t.Cleanup(func() { _ = os.Remove(fmt.Sprintf("/tmp/perf-%d.map", p.pid)) })
	t.Cleanup(p.end)
	return p
}

// line reads what the program says next.
func (p *program) line() string {
	p.t.Helper()
	require.True(p.t, p.lines.Scan(), "%v has ended", p.command.Args)
	return p.lines.Text()
}

func (p *program) end() {
	if p.ended {
		return
	}
	p.ended = true
	_ = p.command.Process.Kill()
	_ = p.command.Wait()
}

// build compiles a source of testdata with a compiler, and gives the path of the program.
func build(t *testing.T, compiler, source string, flags ...string) string {
	t.Helper()
	path, err := exec.LookPath(compiler)
	if err != nil {
		t.Skipf("needs %s: %v", compiler, err)
	}
	output := filepath.Join(t.TempDir(), strings.TrimSuffix(source, filepath.Ext(source)))
	command := exec.Command(path, append([]string{"-o", output, filepath.Join("testdata", source)}, flags...)...)
	said, err := command.CombinedOutput()
	require.NoError(t, err, "%v: %s", command.Args, said)
	return output
}

// optimized are flags of C without frame pointers.
func optimized(more ...string) []string {
	return append([]string{"-O2", "-fomit-frame-pointer", "-g0"}, more...)
}

// buildGo compiles a program of testdata written in Go.
func buildGo(t *testing.T, directory string, environment []string, flags ...string) string {
	t.Helper()
	output := filepath.Join(t.TempDir(), directory)
	command := exec.Command("go", append(append([]string{"build", "-o", output}, flags...), ".")...)
	command.Dir = filepath.Join("testdata", directory)
	command.Env = append(os.Environ(), environment...)
	said, err := command.CombinedOutput()
	require.NoError(t, err, "%v: %s", command.Args, said)
	return output
}
