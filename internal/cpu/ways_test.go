//go:build linux

package cpu

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

// buildCalls compiles calls.c with its library.
func buildCalls(t *testing.T) string {
	t.Helper()
	tiny := build(t, "gcc", "tiny.c", "-O2", "-shared", "-fPIC")
	library := filepath.Join(filepath.Dir(tiny), "libtiny.so")
	require.NoError(t, os.Rename(tiny, library))
	return build(t, "gcc", "calls.c", optimized(library, "-Wl,-rpath,"+filepath.Dir(library), "-Wl,-z,lazy", "-pthread")...)
}

// TestWays walks stacks that are not made of calls alone.
func TestWays(t *testing.T) {
	calls := buildCalls(t)
	tests := []struct {
		way string
		// on is the functions that samples are to have, one behind the other with others between, the outermost first; share
		// is how many of them at least.
		on    []string
		share float64
	}{
		{"signal", []string{"_start", "main", "handled", "interrupted", "handle", "spin"}, 0.97},
		{"ticks", []string{"_start", "main", "ticking", "tick"}, 0.01},
		{"plt", []string{"_start", "main", "linked"}, 0.99},
		{"plt", []string{"_start", "main", "linked", "tiny"}, 0.001},
		{"vdso", []string{"_start", "main", "clocked", "clock_gettime", "clock_gettime"}, 0.3},
		{"kernel", []string{"_start", "main", "calling", "read", "entry_SYSCALL_64_after_hwframe", "ksys_read"}, 0.2},
		{"threads", []string{"clone3", "first_thread", "spin"}, 0.05},
		{"threads", []string{"clone3", "second_thread", "spin"}, 0.05},
	}
	watched := map[string][]observed{}
	for _, test := range tests {
		t.Run(test.way+" "+test.on[len(test.on)-1], func(t *testing.T) {
			samples, known := watched[test.way]
			if !known {
				subject := run(t, calls, test.way)
				o := observe(t, func(config *Config) { config.Frequency = 499 })
				o.warm(subject.pid)
				o.await(subject.pid, "in "+test.on[len(test.on)-1], within(test.on[len(test.on)-1]))
				samples = o.watch(subject.pid, time.Second)
				watched[test.way] = samples
			}
			assert.GreaterOrEqual(t, share(samples, complete), 0.99, "%s", folded(withoutComplete(samples), 10))
			found := share(samples, func(s observed) bool { return leads(s, test.on) })
			assert.GreaterOrEqual(t, found, test.share, "%s", folded(samples, 10))
		})
	}
}

// leads says that the functions are on the stack in this order, the outermost first.
func leads(s observed, functions []string) bool {
	for i := len(s.frames) - 1; i >= 0 && len(functions) > 0; i-- {
		if s.frames[i].function == functions[0] {
			functions = functions[1:]
		}
	}
	return len(functions) == 0
}

func TestChildWithoutExec(t *testing.T) {
	parent := run(t, buildCalls(t), "fork")
	o := observe(t, func(config *Config) { config.Frequency = 499 })
	child, err := strconv.ParseUint(parent.line(), 10, 32)
	require.NoError(t, err)
	t.Cleanup(func() {
		if process, err := os.FindProcess(int(child)); err == nil {
			_ = process.Kill()
		}
	})
	time.Sleep(time.Second)
	o.stop()
	samples := o.seen(uint32(child))
	require.NotEmpty(t, samples)
	assert.GreaterOrEqual(t, share(samples, complete), 0.99, "from the first one: it has what its parent had\n%s",
		folded(samples, 10))
	working := share(samples, func(s observed) bool { return leads(s, []string{"main", "forking", "child", "spin"}) })
	assert.GreaterOrEqual(t, working, 0.9)
}

func TestExec(t *testing.T) {
	other := build(t, "gcc", "recurse.c", optimized()...)
	subject := run(t, buildCalls(t), "exec", other, "7")
	o := observe(t, nil)
	o.await(subject.pid, "of the first program", within("executing"))
	require.Equal(t, "ready", subject.line())
	o.await(subject.pid, "of the second program", within("recurse"))
	samples := o.watch(subject.pid, time.Second)
	assert.GreaterOrEqual(t, share(samples, complete), 0.99, "%s", folded(samples, 10))
	assert.GreaterOrEqual(t, share(samples, func(s observed) bool { return s.count("recurse") == 7 }), 0.95)
	for _, sample := range samples {
		assert.Equal(t, "recurse", sample.resource["process.executable.name"])
	}
	for _, sample := range o.seen(subject.pid) {
		if sample.has("recurse") {
			assert.Equal(t, "recurse", sample.resource["process.executable.name"])
		}
	}
}

// buildLibrary compiles a library whose function work_in_library calls another one.
func buildLibrary(t *testing.T, function string, frame int) string {
	t.Helper()
	output := build(t, "gcc", "library.c", optimized("-shared", "-fPIC", "-DNAME="+function, "-DFRAME="+strconv.Itoa(frame))...)
	return output
}

func TestLibraryThatIsOpenedLate(t *testing.T) {
	subject := run(t, buildCalls(t), "load", buildLibrary(t, "opened_late", 100))
	o := observe(t, func(config *Config) { config.Frequency = 499 })
	o.warm(subject.pid)
	subject.line()
	o.await(subject.pid, "in the library", func(s observed) bool { return s.end == "" && s.has("opened_late") })
	samples := o.watch(subject.pid, time.Second)
	assert.GreaterOrEqual(t, share(samples, complete), 0.99, "%s", folded(samples, 10))
	assert.GreaterOrEqual(t, share(samples, func(s observed) bool {
		return leads(s, []string{"_start", "main", "loading", "call_library", "work_in_library", "opened_late"})
	}), 0.95, "%s", folded(samples, 10))
}

// TestLibraryThatTakesAnothersPlace has two libraries of the same size, one after the other at the same address.
func TestLibraryThatTakesAnothersPlace(t *testing.T) {
	subject := run(t, buildCalls(t), "load", buildLibrary(t, "first_there", 100), buildLibrary(t, "second_there", 3000))
	o := prepare(t, workload.Selection{}, func(config *Config) { config.Frequency = 499 })
	o.recheckInterval = time.Second
	o.start()
	first := subject.line()
	o.await(subject.pid, "in the first library", within("first_there"))
	if second := subject.line(); first != second {
		t.Skipf("the second library is not where the first was: %s, %s", first, second)
	}
	o.await(subject.pid, "in the second library", func(s observed) bool { return s.end == "" && s.has("second_there") })
	samples := o.watch(subject.pid, time.Second)
	assert.GreaterOrEqual(t, share(samples, complete), 0.99, "%s", folded(samples, 10))
	assert.GreaterOrEqual(t, share(samples, within("second_there")), 0.99, "%s", folded(samples, 10))
	assert.Zero(t, share(samples, within("first_there")))
}

// TestFiles runs a program from files that are not simply there.
func TestFiles(t *testing.T) {
	copied := func(t *testing.T) string {
		t.Helper()
		return build(t, "gcc", "recurse.c", optimized()...)
	}
	tests := map[string]func(t *testing.T) *program{
		"deleted": func(t *testing.T) *program {
			path := copied(t)
			subject := run(t, path, "20")
			require.NoError(t, os.Remove(path))
			return subject
		},
		"replaced": func(t *testing.T) *program {
			path := copied(t)
			subject := run(t, path, "20")
			other, err := exec.LookPath("gcc")
			require.NoError(t, err)
			content, err := os.ReadFile(other)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(path+".new", content, 0o755))
			require.NoError(t, os.Rename(path+".new", path))
			return subject
		},
		"only in its mount namespace": func(t *testing.T) *program {
			path, hidden := copied(t), t.TempDir()
			script := `mount -t tmpfs none "$1" && cp "$2" "$1/hidden" && exec "$1/hidden" 20`
			return runCommand(t, exec.Command("unshare", "-m", "sh", "-c", script, "sh", hidden, path))
		},
		"static": func(t *testing.T) *program {
			return run(t, build(t, "gcc", "recurse.c", optimized("-static")...), "20")
		},
		"static and independent of its place": func(t *testing.T) *program {
			return run(t, build(t, "gcc", "recurse.c", optimized("-static-pie")...), "20")
		},
		"at a fixed place": func(t *testing.T) *program {
			return run(t, build(t, "gcc", "recurse.c", optimized("-no-pie")...), "20")
		},
		"with hidden addresses in clang": func(t *testing.T) *program {
			return run(t, build(t, "clang-19", "recurse.c", "-O2", "-fomit-frame-pointer"), "20")
		},
	}
	for name, start := range tests {
		t.Run(name, func(t *testing.T) {
			subject := start(t)
			o := observe(t, func(config *Config) { config.Frequency = 499 })
			o.warm(subject.pid)
			samples := o.watch(subject.pid, time.Second)
			assert.GreaterOrEqual(t, share(samples, complete), 0.99, "%s", folded(withoutComplete(samples), 10))
			assert.GreaterOrEqual(t, share(samples, func(s observed) bool {
				return s.count("recurse") == 20 && leads(s, []string{"_start", "main", "recurse"})
			}), 0.99, "%s", folded(samples, 10))
			assert.Zero(t, o.lost("process_unreadable"))
		})
	}
}

func TestDeepStackIsTruncated(t *testing.T) {
	subject := run(t, build(t, "gcc", "recurse.c", optimized()...), "1000")
	o := observe(t, nil)
	o.await(subject.pid, "that is deep", func(s observed) bool { return len(s.frames) > 500 })
	samples := o.watch(subject.pid, time.Second)
	assert.GreaterOrEqual(t, share(samples, func(s observed) bool {
		return s.end == "truncated" && s.count("recurse") > 500 && !s.has("main")
	}), 0.99, "%s", folded(samples, 10))
	assert.Positive(t, o.counted("walk_truncated"))
}

func TestNarrowProgram(t *testing.T) {
	path := build(t, "gcc", "narrow.c", "-m32", "-O2", "-static", "-nostdlib", "-ffreestanding", "-fno-pie", "-no-pie")
	subject := launch(t, exec.Command(path))
	o := observe(t, nil)
	o.await(subject.pid, "that says so", func(s observed) bool { return s.end == "narrow_program" })
	samples := o.watch(subject.pid, time.Second)
	require.NotEmpty(t, samples)
	assert.Equal(t, 1.0, share(samples, func(s observed) bool { return s.end == "narrow_program" }), "%s", folded(samples, 10))
}

func TestMangledNames(t *testing.T) {
	tests := map[string]struct {
		start func(t *testing.T) *program
		has   string
	}{
		"C++": {func(t *testing.T) *program {
			return run(t, build(t, "clang++-19", "names.cc", optimized()...))
		}, "shop::Basket<int>::total"},
		"Rust": {func(t *testing.T) *program {
			return run(t, build(t, "rustc", "names.rs", "-O"))
		}, "::Basket<"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			subject := test.start(t)
			o := observe(t, nil)
			o.warm(subject.pid)
			samples := o.watch(subject.pid, time.Second)
			assert.GreaterOrEqual(t, share(samples, complete), 0.99, "%s", folded(withoutComplete(samples), 10))
			assert.GreaterOrEqual(t, share(samples, func(s observed) bool {
				return strings.Contains(strings.Join(s.names(), ";"), test.has)
			}), 0.95, "%s", folded(samples, 10))
			for _, sample := range samples {
				for _, frame := range sample.frames {
					assert.False(t, strings.HasPrefix(frame.function, "_Z") || strings.HasPrefix(frame.function, "_R"), frame.function)
				}
			}
		})
	}
}

// TestNamesOfCodeOutliveItsProcess has profiles made when the process has ended.
func TestNamesOfCodeOutliveItsProcess(t *testing.T) {
	subject := runNode(t, "10")
	o := observe(t, func(config *Config) { config.Interval = time.Hour })
	for end := time.Now().Add(patience); o.counted("stack") == 0 && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
	}
	time.Sleep(4 * time.Second)
	subject.end()
	time.Sleep(time.Second)
	o.stop()
	samples := o.seen(subject.pid)
	assert.GreaterOrEqual(t, share(samples, within("recurse")), 0.5, "%s", folded(samples, 10))
}

func TestGoPrograms(t *testing.T) {
	tests := map[string]struct {
		start func(t *testing.T) *program
		on    []string
	}{
		"stripped": {func(t *testing.T) *program {
			return run(t, buildGo(t, "goprogram", nil, "-ldflags=-s -w"), "50")
		}, []string{"runtime.goexit", "main.main.func1", "main.recurse", "main.spin"}},
		"independent of its place": {func(t *testing.T) *program {
			return run(t, buildGo(t, "goprogram", nil, "-buildmode=pie"), "50")
		}, []string{"runtime.goexit", "main.main.func1", "main.recurse", "main.spin"}},
		"with C": {func(t *testing.T) *program {
			return run(t, buildGo(t, "cgoprogram", []string{"CGO_ENABLED=1"}))
		}, []string{"runtime.goexit", "main.main", "main.callC"}},
		"on the stack of the system": {func(t *testing.T) *program {
			return run(t, buildGo(t, "goprogram", nil), "1", "collect")
		}, []string{"runtime.goexit", "runtime.gcBgMarkWorker", "runtime.systemstack"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			subject := test.start(t)
			o := observe(t, func(config *Config) { config.Frequency = 499 })
			o.warm(subject.pid)
			samples := o.watch(subject.pid, 2*time.Second)
			// Where C calls Go, the registers of C are saved where no frame pointer leads to. Such a stack says so.
			assert.GreaterOrEqual(t, share(samples, func(s observed) bool {
				return complete(s) || s.has("crosscall2") && s.end != ""
			}), 0.99, "%s", folded(withoutComplete(samples), 10))
			found := share(samples, func(s observed) bool { return leads(s, test.on) })
			assert.Positive(t, found, "%s", folded(samples, 10))
			t.Logf("%.1f %% of the stacks have %v\n%s", 100*found, test.on, folded(samples, 10))
			for _, sample := range samples {
				for _, frame := range sample.frames {
					if !strings.HasPrefix(frame.function, "main.") || frame.frameType != "go" {
						continue
					}
					require.Contains(t, []string{"main.go", "_cgo_gotypes.go"}, filepath.Base(frame.file), frame.function)
					require.Positive(t, frame.line, frame.function)
				}
			}
		})
	}
}
