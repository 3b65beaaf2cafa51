//go:build linux

package e2e

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// patience is how long a test waits for anything. What it waits for takes milliseconds, on a busy machine seconds.
const patience = 20 * time.Second

// tick is how often it looks.
const tick = 25 * time.Millisecond

// process is a program that a test has started. The test's end kills it.
type process struct {
	*exec.Cmd
	name   string
	input  io.WriteCloser
	lines  chan string // of the standard output
	ended  chan struct{}
	result error

	mutex  sync.Mutex
	errors bytes.Buffer
}

// start runs a command. When the test ends, the process is killed if it still runs.
func start(t *testing.T, name string, command []string, prepare ...func(*exec.Cmd)) *process {
	t.Helper()
	p := &process{
		Cmd:   exec.Command(command[0], command[1:]...),
		name:  name,
		lines: make(chan string, 1<<16),
		ended: make(chan struct{}),
	}
	p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	for _, change := range prepare {
		change(p.Cmd)
	}
	var err error
	p.input, err = p.StdinPipe()
	require.NoError(t, err)
	output, err := p.StdoutPipe()
	require.NoError(t, err)
	p.Stderr = p
	require.NoError(t, p.Start(), "start %s", name)

	go func() {
		scanner := bufio.NewScanner(output)
		scanner.Buffer(nil, 1<<20)
		for scanner.Scan() {
			p.lines <- scanner.Text()
		}
		close(p.lines)
		p.result = p.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("errors of %s:\n%s", name, last(p.stderr(), 4096))
		}
	})
	return p
}

// Write takes what the process writes to its standard error.
func (p *process) Write(text []byte) (int, error) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.errors.Write(text)
}

func (p *process) stderr() string {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.errors.String()
}

// line waits for the next line of output.
func (p *process) line(t *testing.T) string {
	t.Helper()
	select {
	case line, open := <-p.lines:
		require.True(t, open, "%s has ended:\n%s", p.name, p.stderr())
		return line
	case <-time.After(patience):
		require.Fail(t, "no output", "%s\n%s", p.name, p.stderr())
		return ""
	}
}

// tell writes a line to the process.
func (p *process) tell(t *testing.T, line string) {
	t.Helper()
	_, err := io.WriteString(p.input, line+"\n")
	require.NoError(t, err, "tell %s", p.name)
}

// wait waits until the process has ended well.
func (p *process) wait(t *testing.T) {
	t.Helper()
	select {
	case <-p.ended:
		require.NoError(t, p.result, "%s:\n%s", p.name, p.stderr())
	case <-time.After(patience):
		require.Fail(t, "still runs", "%s\n%s", p.name, p.stderr())
	}
}

// stop asks the process to end with a signal.
func (p *process) stop(t *testing.T, signal os.Signal) {
	t.Helper()
	require.NoError(t, p.Process.Signal(signal), "stop %s", p.name)
	p.wait(t)
}

func (p *process) kill() {
	_ = p.Process.Kill()
	select {
	case <-p.ended:
	case <-time.After(patience):
	}
}

func (p *process) pid() int { return p.Process.Pid }

// output runs a command to its end and returns what it printed.
func output(t *testing.T, command ...string) string {
	t.Helper()
	text, err := exec.Command(command[0], command[1:]...).CombinedOutput()
	require.NoError(t, err, "%s\n%s", strings.Join(command, " "), text)
	return string(text)
}

func last(text string, size int) string {
	return text[max(0, len(text)-size):]
}
