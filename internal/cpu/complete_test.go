//go:build linux

package cpu

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// bottoms are the functions that a stack can only begin with.
var bottoms = map[string]bool{
	"_start": true, "clone3": true, "__clone3": true, "_dl_start_user": true,
	"runtime.goexit": true, "runtime.goexit.abi0": true, "runtime.mstart": true, "runtime.mstart.abi0": true,
	// Go's scheduler, on the stack of the system: what the goroutine did before is on another stack.
	"runtime.mcall": true, "runtime.morestack": true,
	"runtime.rt0_go": true, "runtime.rt0_go.abi0": true, "_rt0_amd64_linux": true,
}

// complete says whether a stack is whole, as far as its names can tell.
func complete(s observed) bool {
	return s.end == "" && len(s.frames) > 0 && bottoms[s.frames[len(s.frames)-1].function]
}

func TestStacksAreComplete(t *testing.T) {
	tests := []struct {
		name  string
		start func(t *testing.T) *program
		least float64
		warm  func(observed) bool
		// settles is how long functions are compiled anew, whose names come a little later.
		settles time.Duration
		fits    func(t *testing.T, samples []observed)
	}{
		{name: "C at depth 50", least: 0.99, start: func(t *testing.T) *program {
			return run(t, build(t, "gcc", "recurse.c", optimized()...), "50")
		}, fits: recursesExactly("recurse", 50)},
		{name: "C at depth 200", least: 0.99, start: func(t *testing.T) *program {
			return run(t, build(t, "gcc", "recurse.c", optimized()...), "200")
		}, fits: recursesExactly("recurse", 200)},
		{name: "Go at depth 50", least: 0.99, start: func(t *testing.T) *program {
			return run(t, buildGo(t, "goprogram", nil), "50")
		}, fits: recursesExactly("main.recurse", 50)},
		{name: "Go that collects garbage", least: 0.99, start: func(t *testing.T) *program {
			return run(t, buildGo(t, "goprogram", nil), "1", "collect")
		}, fits: func(*testing.T, []observed) {}},
		{name: "Python", least: 0.99, start: func(t *testing.T) *program {
			return runCommand(t, exec.Command("python3", "testdata/program.py", "50"))
		}, fits: func(*testing.T, []observed) {}},
		{name: "Python that tells its functions", least: 0.99, start: func(t *testing.T) *program {
			return runCommand(t, exec.Command(pythonWithNames(t), "-X", "perf", "testdata/program.py", "50"))
		}, warm: within("recurse"), fits: func(t *testing.T, samples []observed) {
			recursesExactly("recurse", 50)(t, samples)
			assert.GreaterOrEqual(t, share(samples, func(s observed) bool {
				return slices.ContainsFunc(s.frames, func(frame observedFrame) bool {
					return frame.function == "spin" && frame.frameType == "cpython" && filepath.Base(frame.file) == "program.py"
				})
			}), 0.95)
		}},
		{name: "node", least: 0.98, start: func(t *testing.T) *program {
			return runNode(t, "50")
		}, warm: func(s observed) bool { return s.count("recurse") == 50 }, settles: 4 * time.Second, fits: func(t *testing.T, samples []observed) {
			// Those that are not compiled yet have the name of the interpreter.
			exact := share(samples, func(s observed) bool {
				return s.count("recurse")+s.count("Builtins_InterpreterEntryTrampoline") >= 50
			})
			assert.GreaterOrEqual(t, exact, 0.95)
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			subject := test.start(t)
			o := observe(t, func(config *Config) { config.Frequency = 499 })
			o.warm(subject.pid)
			if test.warm != nil {
				o.await(subject.pid, "that is wanted", test.warm)
			}
			time.Sleep(test.settles)
			samples := o.watch(subject.pid, 3*time.Second)
			assert.Greater(t, total(samples), int64(200), "of 1,500, where nothing else runs")
			whole := share(samples, complete)
			t.Logf("%d samples, %.2f %% complete, %.1f %% in the kernel",
				total(samples), 100*whole, 100*share(samples, observed.inKernel))
			t.Logf("%d ns a frame, %d frames a walk, on the whole host",
				o.counted("walk_nanosecond")/max(o.counted("frame"), 1), o.counted("frame")/max(o.counted("walk"), 1))
			assert.GreaterOrEqual(t, whole, test.least, "%s", folded(withoutComplete(samples), 20))
			test.fits(t, samples)
			if t.Failed() || testing.Verbose() {
				t.Logf("\n%s", folded(samples, 5))
			}
		})
	}
}

// pythonWithNames finds a Python that tells perf of its functions: 3.12 or later.
func pythonWithNames(t *testing.T) string {
	t.Helper()
	home, err := os.UserHomeDir()
	require.NoError(t, err)
	candidates, err := filepath.Glob(filepath.Join(home, ".pyenv/versions/3.*/bin/python3"))
	require.NoError(t, err)
	for _, candidate := range append([]string{"python3"}, candidates...) {
		if exec.Command(candidate, "-X", "perf", "-c", "import sys; sys.activate_stack_trampoline").Run() == nil {
			return candidate
		}
	}
	t.Skip("needs Python 3.12")
	return ""
}

// runNode runs program.js with a map of what is compiled at run time.
func runNode(t *testing.T, arguments ...string) *program {
	t.Helper()
	path, err := filepath.Abs("testdata/program.js")
	require.NoError(t, err)
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skipf("needs node: %v", err)
	}
	command := exec.Command(node, append([]string{"--perf-basic-prof", path}, arguments...)...)
	command.Dir = t.TempDir() // it writes a file there
	return runCommand(t, command)
}

func withoutComplete(samples []observed) []observed {
	var rest []observed
	for _, sample := range samples {
		if !complete(sample) {
			rest = append(rest, sample)
		}
	}
	return rest
}

// recursesExactly checks that nearly all samples have so many frames of a function.
func recursesExactly(function string, depth int) func(*testing.T, []observed) {
	return func(t *testing.T, samples []observed) {
		t.Helper()
		exact := share(samples, func(s observed) bool { return s.count(function) == depth })
		assert.GreaterOrEqual(t, exact, 0.99)
	}
}
