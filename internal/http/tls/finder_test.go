//go:build linux

package tls

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http/tls/site"
)

// waitVariable makes this program wait until its standard input ends: the tests examine copies of it.
const waitVariable = "EBPFRECEIVER_TEST_WAIT"

func TestMain(m *testing.M) {
	if os.Getenv(waitVariable) != "" {
		os.Stdout.WriteString("runs")
		io.Copy(io.Discard, os.Stdin)
		return
	}
	goleak.VerifyTestMain(m)
}

// recorder keeps what was to be attached.
type recorder struct {
	targets []Target
	closed  int
	refuse  error
}

func (r *recorder) Attach(target Target) (io.Closer, error) {
	if r.refuse != nil {
		return nil, r.refuse
	}
	r.targets = append(r.targets, target)
	return r, nil
}

func (r *recorder) Close() error {
	r.closed++
	return nil
}

// copyProgram copies this program, which uses crypto/tls.
func copyProgram(t *testing.T, path string) {
	own, err := os.Executable()
	require.NoError(t, err)
	content, err := os.ReadFile(own)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, content, 0o700))
}

// run starts a program that does nothing until the test or the returned function ends it.
func run(t *testing.T, path string) (pid uint32, end func()) {
	command := exec.Command(path)
	command.Env = append(os.Environ(), waitVariable+"=1")
	input, err := command.StdinPipe()
	require.NoError(t, err)
	output, err := command.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, command.Start())
	_, err = io.ReadFull(output, make([]byte, len("runs"))) // until then it may not be mapped yet
	require.NoError(t, err)
	ended := false
	end = func() {
		if !ended {
			ended = true
			input.Close()
			require.NoError(t, command.Wait())
		}
	}
	t.Cleanup(end)
	return uint32(command.Process.Pid), end
}

func requireArchitecture(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the machine code of this machine is not read")
	}
}

func examine(t *testing.T, finder *Finder, pid uint32, now time.Time) bool {
	observed, err := finder.Examine(pid, now)
	require.NoError(t, err)
	return observed
}

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestFinderAttachesOncePerFile(t *testing.T) {
	requireArchitecture(t)
	path := filepath.Join(t.TempDir(), "program")
	copyProgram(t, path)
	attacher := &recorder{}
	finder := NewFinder(Config{Linger: time.Minute, TLS: attacher}, nil)

	first, endFirst := run(t, path)
	assert.True(t, examine(t, finder, first, start))
	require.Len(t, attacher.targets, 1)
	target := attacher.targets[0]
	assert.Equal(t, path, target.Name)
	assert.Equal(t, runtime.Version(), target.GoVersion)
	assert.Len(t, target.Sites, 2, "%v", target.Sites)

	second, endSecond := run(t, path)
	assert.True(t, examine(t, finder, second, start))
	assert.Len(t, attacher.targets, 1, "the file is known")

	// The same name, another file: both are in use.
	require.NoError(t, os.Remove(path))
	copyProgram(t, path)
	third, _ := run(t, path)
	assert.True(t, examine(t, finder, third, start))
	require.Len(t, attacher.targets, 2)

	endFirst()
	detached, err := finder.Sweep(start)
	require.NoError(t, err)
	assert.Zero(t, detached)
	endSecond()
	detached, err = finder.Sweep(start.Add(time.Second))
	require.NoError(t, err)
	assert.Zero(t, detached, "it may be used again soon")
	detached, err = finder.Sweep(start.Add(2 * time.Minute))
	require.NoError(t, err)
	assert.Equal(t, 1, detached)
	assert.Equal(t, 1, attacher.closed)
	assert.True(t, examine(t, finder, third, start.Add(2*time.Minute)))

	require.NoError(t, finder.Close())
	assert.Equal(t, 2, attacher.closed)
	_, err = finder.Examine(third, start)
	require.ErrorIs(t, err, ErrClosed)
}

func TestFinderOfADeletedProgram(t *testing.T) {
	requireArchitecture(t)
	path := filepath.Join(t.TempDir(), "program")
	copyProgram(t, path)
	pid, _ := run(t, path)
	require.NoError(t, os.Remove(path))
	attacher := &recorder{}
	finder := NewFinder(Config{TLS: attacher}, nil)
	assert.True(t, examine(t, finder, pid, start))
	assert.Len(t, attacher.targets, 1)
}

func TestFinderLooksAgainLater(t *testing.T) {
	requireArchitecture(t)
	command := exec.Command("/bin/sleep", "60")
	require.NoError(t, command.Start())
	defer func() {
		require.NoError(t, command.Process.Kill())
		require.Error(t, command.Wait())
	}()
	pid := uint32(command.Process.Pid)
	finder := NewFinder(Config{TLS: &recorder{}}, nil)
	for _, after := range []time.Duration{0, time.Second / 2, time.Second, 2 * time.Second, 3 * time.Second} {
		assert.False(t, examine(t, finder, pid, start.Add(after)))
	}
	stats := finder.Stats("http")
	assert.Equal(t, "tls_process_examined", stats.Events[0].Kind)
	assert.EqualValues(t, 3, stats.Events[0].Count, "at 0, 1 and 3 seconds")
}

func TestFinderOfARefusedProgram(t *testing.T) {
	requireArchitecture(t)
	finder := NewFinder(Config{TLS: &recorder{refuse: errors.New("no uprobes")}}, nil)
	assert.False(t, examine(t, finder, uint32(os.Getpid()), start))
	assert.Contains(t, lossesOf(finder), "tls_attach_refused")
	require.NoError(t, finder.Close())
}

func TestFinderOfAProcessThatHasGone(t *testing.T) {
	finder := NewFinder(Config{TLS: &recorder{}}, nil)
	_, err := finder.Examine(1<<30, start)
	require.Error(t, err)
	assert.Empty(t, lossesOf(finder), "it has nothing more to lose")
}

func TestFinderIsBounded(t *testing.T) {
	requireArchitecture(t)
	attacher := &recorder{}
	finder := NewFinder(Config{MaxFiles: 2, TLS: attacher}, nil)
	assert.True(t, examine(t, finder, uint32(os.Getpid()), start))
	assert.LessOrEqual(t, len(finder.files), 2)

	finder = NewFinder(Config{MaxFileBytes: 4096, TLS: attacher}, nil)
	assert.False(t, examine(t, finder, uint32(os.Getpid()), start))
	assert.Contains(t, lossesOf(finder), "tls_file_too_large")
}

func TestAffordable(t *testing.T) {
	finder := NewFinder(Config{AllowCost: site.Emulated}, nil)
	target := finder.affordable(Target{Sites: []site.Site{
		{Function: "SSL_read", Event: site.ReadCall, Cost: site.Emulated},
		{Function: "SSL_read", Event: site.ReadReturn, Cost: site.SteppedReturn},
		{Function: "SSL_write", Event: site.WriteCall, Cost: site.Emulated},
	}})
	require.Len(t, target.Sites, 1)
	assert.Equal(t, "SSL_write", target.Sites[0].Function)
}

func lossesOf(finder *Finder) (reasons []string) {
	for _, loss := range finder.Stats("http").Losses {
		if loss.Count > 0 {
			reasons = append(reasons, loss.Reason)
		}
	}
	return reasons
}

func ownPID() uint32 { return uint32(os.Getpid()) }
