//go:build linux

package symbol

import (
	"bufio"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPerfNames(t *testing.T) {
	for name, expected := range map[string]Frame{
		"py::A.method.<locals>.<genexpr>:/srv/app/t.py":    {Function: "A.method.<locals>.<genexpr>", File: "/srv/app/t.py", Type: CPython},
		"py::_find_and_load:<frozen importlib._bootstrap>": {Function: "_find_and_load", File: "<frozen importlib._bootstrap>", Type: CPython},
		"JS:*hot /srv/app/node.js:1:13":                    {Function: "hot", File: "/srv/app/node.js", StartLine: 1, Type: V8JS},
		"JS:~ /srv/app/node.js:3:102":                      {Function: "(anonymous)", File: "/srv/app/node.js", StartLine: 3, Type: V8JS},
		"JS:^processTicksAndRejections node:internal/process/task_queues:67:35": {
			Function: "processTicksAndRejections", File: "node:internal/process/task_queues", StartLine: 67, Type: V8JS},
		"JS:^get name file:///srv/a%20b.mjs:7:9": {Function: "get name", File: "file:///srv/a%20b.mjs", StartLine: 7, Type: V8JS},
		"JS:+hot /srv/with blank/node.js:2:1":    {Function: "hot", File: "/srv/with blank/node.js", StartLine: 2, Type: V8JS},
		"LazyCompile:*old /srv/app.js:10:2":      {Function: "old", File: "/srv/app.js", StartLine: 10, Type: V8JS},
		"Builtin:ArrayMap":                       {Function: "Builtin:ArrayMap", Type: V8JS},
		"RegExp:ab+c":                            {Function: "RegExp:ab+c", Type: V8JS},
		"int T.hot(int)":                         {Function: "T.hot", Type: JVM},
		"java.lang.Object jdk.internal.misc.Unsafe.getReferenceVolatile(java.lang.Object, long)": {
			Function: "jdk.internal.misc.Unsafe.getReferenceVolatile", Type: JVM},
		"Ljava/lang/String;::hashCode":              {Function: "java.lang.String.hashCode", Type: JVM},
		"void [app] Program::Main(string[])[Tier0]": {Function: "Program::Main", Module: "app", Type: Dotnet},
		"instance void [System.Private.CoreLib] System.Threading.Thread::StartCallback()[PreJIT]": {
			Function: "System.Threading.Thread::StartCallback", Module: "System.Private.CoreLib", Type: Dotnet},
		"$lists:map/2":               {Function: "lists:map/2", Type: Beam},
		"Interpreter":                {Function: "Interpreter", Type: Native},
		"something else (of a kind)": {Function: "something else (of a kind)", Type: Native},
		"py::":                       {Function: "py::", Type: Native},
	} {
		if expected.Function != name {
			expected.Linkage = name
		}
		assert.Equal(t, expected, perfFrame(name), name)
	}
}

// mapOf is a map that reads a file.
func mapOf(path string) *perfMap {
	return &perfMap{open: func() (*os.File, error) { return os.Open(path) }}
}

func TestPerfMapGrows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "map")
	file, err := os.Create(path)
	require.NoError(t, err)
	defer file.Close()
	write := func(text string) {
		_, err := file.WriteString(text)
		require.NoError(t, err)
	}
	now := time.Unix(1000, 0)
	m := mapOf(path)
	check := func(address uint64, expected string) {
		t.Helper()
		frame, err := m.lookup(address, now)
		if expected == "" {
			require.ErrorIs(t, err, ErrNoSymbol)
			return
		}
		require.NoError(t, err)
		assert.Equal(t, expected, frame.Function)
	}
	write("1000 100 first\n2000 100 second\n0x3000 0x10 third\nbroken\n5000 0 empty\nffffffffffffffff 10 overflow\n" +
		"4000 10 unfin")
	check(0x0fff, "")
	check(0x1000, "first")
	check(0x10ff, "first")
	check(0x1100, "")
	check(0x300f, "third")
	check(0x4000, "")
	assert.Equal(t, 3, m.skipped)

	write("ished\n1080 10 inner\n1ff0 20 over\n")
	check(0x4000, "") // It was looked at just now.
	now = now.Add(perfReadAtMost)
	check(0x4000, "unfinished")
	check(0x107f, "first")
	check(0x1080, "inner")
	check(0x1090, "first")
	check(0x1ff0, "over")
	check(0x200f, "over")
	check(0x2010, "second")

	// A newer entry hides older ones that it covers, and a piece of it can be hidden again.
	write("0 10000 all\n2000 1 again\n")
	now = now.Add(perfReadAtMost)
	check(0x1080, "all")
	check(0x2000, "again")
	check(0x2001, "all")
	check(0xffff, "all")

	// A new file takes the place of the old one.
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.WriteFile(path, []byte("1000 100 new\n"), 0o600))
	now = now.Add(perfReadAtMost)
	check(0x1000, "new")
	check(0x2000, "")
}

// TestPerfMapOverlaps compares with a search through all lines, the last first.
func TestPerfMapOverlaps(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	type line struct{ start, size uint64 }
	var lines []line
	m := &perfMap{}
	for range 20 {
		var text strings.Builder
		for range 50 {
			l := line{random.Uint64N(2000), 1 + random.Uint64N(100)}
			fmt.Fprintf(&text, "%x %x n%d\n", l.start, l.size, len(lines))
			lines = append(lines, l)
		}
		require.NoError(t, m.readFrom(strings.NewReader(text.String())))
		for address := range uint64(2200) {
			expected := ""
			for index, l := range lines {
				if address >= l.start && address-l.start < l.size {
					expected = "n" + strconv.Itoa(index)
				}
			}
			m.checked = time.Unix(1000, 0)
			frame, _ := m.lookup(address, m.checked)
			require.Equal(t, expected, frame.Function, "%#x", address)
		}
	}
}

func TestPerfMapBounded(t *testing.T) {
	m := &perfMap{}
	reader := strings.NewReader(strings.Repeat("x", 1<<20) +
		"\n1000 10 " + strings.Repeat("y", 2*maxPerfNameBytes) + "\n2000 10 z\n")
	require.NoError(t, m.readFrom(reader))
	assert.Len(t, m.entries, 1)
	var text strings.Builder
	for index := range maxPerfEntries + 10 {
		fmt.Fprintf(&text, "%x 1 n\n", 0x10000+index)
	}
	require.NoError(t, m.readFrom(strings.NewReader(text.String())))
	assert.True(t, m.full)
	assert.ErrorIs(t, m.limit(), ErrTooLarge)
	assert.LessOrEqual(t, len(m.entries), maxPerfEntries)
}

// TestPerfMapRefused does not believe what the process's user has not written.
func TestPerfMapRefused(t *testing.T) {
	directory := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(directory, "root/tmp"), 0o755))
	status := "Name:\tx\nPid:\t77\nUid:\t%d\t%d\t0\t0\nNSpid:\t77\t5\n"
	write := func(user int) {
		require.NoError(t, os.WriteFile(filepath.Join(directory, "status"), fmt.Appendf(nil, status, user, user), 0o600))
	}
	path := filepath.Join(directory, "root/tmp/perf-5.map")
	s := symbolizer(t, Config{})
	write(os.Getuid())
	lookup := func(start uint64) error {
		_, err := s.LookupProcess(Process{directory, start}, 0x1000, nil)
		return err
	}
	require.ErrorIs(t, lookup(1), ErrNoSymbols)
	require.NoError(t, os.WriteFile(path, []byte("1000 10 name\n"), 0o600))
	require.NoError(t, lookup(2))
	if os.Getuid() == 0 {
		require.NoError(t, os.Chown(path, 1234, 1234))
		require.ErrorIs(t, lookup(3), ErrRefused)
		write(1234)
		require.NoError(t, lookup(4))
	}
	require.NoError(t, os.Remove(path))
	require.NoError(t, exec.Command("mkfifo", path).Run())
	require.ErrorIs(t, lookup(5), ErrRefused)
	// A link leads to where the process sees it, not to a file of the host.
	require.NoError(t, os.Remove(path))
	outside := filepath.Join(t.TempDir(), "outside")
	require.NoError(t, os.WriteFile(outside, []byte("1000 10 name\n"), 0o600))
	require.NoError(t, os.Symlink(outside, path))
	require.ErrorIs(t, lookup(6), ErrNoSymbols)
	assert.Equal(t, 6, s.Stats().ProcessMaps)
	s.ForgetProcess(Process{directory, 6})
	assert.Equal(t, 5, s.Stats().ProcessMaps)
}

// interpret runs a program that compiles code, waits until it has told of it, and returns its process.
func interpret(t *testing.T, name string, arguments ...string) (process Process, path string) {
	t.Helper()
	command := exec.Command(name, arguments...)
	command.Dir = t.TempDir() // node leaves a log where it runs.
	output, err := command.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, command.Start())
	path = "/tmp/perf-" + strconv.Itoa(command.Process.Pid) + ".map"
	t.Cleanup(func() {
		command.Process.Kill()
		command.Wait()
		os.Remove(path)
	})
	_, err = bufio.NewReader(output).ReadString('\n')
	require.NoError(t, err)
	return Process{Directory: "/proc/" + strconv.Itoa(command.Process.Pid), Start: 1}, path
}

func checkProcess(t *testing.T, process Process, path, mark string, expected Frame) {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	s := symbolizer(t, Config{})
	checked := 0
	for line := range strings.Lines(string(text)) {
		fields := strings.SplitN(strings.TrimSpace(line), " ", 3)
		if len(fields) != 3 || !strings.Contains(fields[2], mark) {
			continue
		}
		address, err := strconv.ParseUint(fields[0], 16, 64)
		require.NoError(t, err)
		frames, err := s.LookupProcess(process, address, nil)
		require.NoError(t, err)
		require.Len(t, frames, 1)
		frames[0].Linkage = ""
		assert.Equal(t, expected, frames[0])
		checked++
	}
	assert.Positive(t, checked, "lines with %s in %s", mark, path)
}

func TestNode(t *testing.T) {
	t.Parallel()
	script := filepath.Join(t.TempDir(), "script.js")
	require.NoError(t, os.WriteFile(script, []byte(
		"\nfunction hot(n) { let s = 0; for (let i = 0; i < n; i++) s += i % 7; return s; }\n"+
			"for (let i = 0; i < 20000; i++) hot(100);\nconsole.log('ready');\nsetTimeout(() => {}, 60000);\n"), 0o600))
	process, path := interpret(t, tool(t, "node"), "--perf-basic-prof", script)
	checkProcess(t, process, path, "*hot ", Frame{Function: "hot", File: script, StartLine: 2, Type: V8JS})
}

func TestPython(t *testing.T) {
	t.Parallel()
	script := filepath.Join(t.TempDir(), "script.py")
	require.NoError(t, os.WriteFile(script, []byte(
		"import sys, time\ndef hot(n):\n    return sum(range(n))\nhot(10)\nprint('ready', flush=True)\ntime.sleep(60)\n"), 0o600))
	python := ""
	names := []string{"python3"}
	if home, err := os.UserHomeDir(); err == nil {
		managed, err := filepath.Glob(filepath.Join(home, ".pyenv/versions/3.1[2-9]*/bin/python3"))
		require.NoError(t, err)
		names = append(names, managed...)
	}
	for _, name := range names {
		code := "import sys; sys.activate_stack_trampoline('perf')"
		if path, err := exec.LookPath(name); err == nil && exec.Command(path, "-c", code).Run() == nil {
			output, err := exec.Command(path, "-c", "import sys; print(sys.executable)").Output()
			require.NoError(t, err)
			python = strings.TrimSpace(string(output))
			break
		}
	}
	if python == "" {
		t.Skip("no Python with -X perf")
	}
	process, path := interpret(t, python, "-X", "perf", script)
	checkProcess(t, process, path, "py::hot:", Frame{Function: "hot", File: script, Type: CPython})
}

func FuzzPerfMap(f *testing.F) {
	f.Add([]byte("1000 100 first\n1080 10 py::f:/a.py\n0 ffffffffffffffff JS:*f a.js:1:2\n"), uint64(0x1080))
	f.Add([]byte("fffffffffffffff0 f void [a] B::C(int)[Tier0]\n$a:b/1\n"), uint64(math.MaxUint64))
	f.Fuzz(func(t *testing.T, text []byte, address uint64) {
		m := &perfMap{checked: time.Unix(1000, 0)}
		if err := m.readFrom(strings.NewReader(string(text))); err != nil {
			t.Fatal(err)
		}
		_, _ = m.lookup(address, m.checked)
		for index, entry := range m.entries {
			if entry.start >= entry.end || index > 0 && m.entries[index-1].end > entry.start {
				t.Fatal("entries overlap")
			}
			perfFrame(string(m.name(entry)))
		}
	})
}

func BenchmarkPerfMap(b *testing.B) {
	var text strings.Builder
	for index := range 100_000 {
		fmt.Fprintf(&text, "%x 80 JS:*function%d /srv/app/node_modules/some/file.js:%d:2\n",
			0x7f0000000000+index*128, index, index)
	}
	b.Run("read-100000", func(b *testing.B) {
		for b.Loop() {
			m := &perfMap{}
			require.NoError(b, m.readFrom(strings.NewReader(text.String())))
			b.ReportMetric(float64(m.retained()), "retained-bytes")
		}
	})
	m := &perfMap{checked: time.Unix(1000, 0)}
	require.NoError(b, m.readFrom(strings.NewReader(text.String())))
	b.Run("lookup", func(b *testing.B) {
		index := uint64(0)
		for b.Loop() {
			_, err := m.lookup(0x7f0000000000+index%100_000*128+5, m.checked)
			require.NoError(b, err)
			index += 101
		}
	})
}
