//go:build linux

package http

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"golang.org/x/sys/unix"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel/kerneltest"
)

// procFSVariable is where the tests find the host's processes; empty: in /proc.
const procFSVariable = "EBPFRECEIVER_TEST_PROCFS"

// A Collector in a container has the host's processes elsewhere than in /proc, which shows its own by other numbers.
func TestProcFSOfTheHost(t *testing.T) {
	kerneltest.RequireRoot(t)
	hosts := os.Getenv(procFSVariable)
	if hosts == "" {
		container := exec.Command(executable(t), "-test.run=^TestProcFSOfTheHost$", "-test.v")
		container.Env = append(os.Environ(), procFSVariable+"="+t.TempDir())
		container.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL,
		}
		said, err := container.CombinedOutput()
		require.NoError(t, err, "%s", said)
		return
	}
	require.Equal(t, 1, os.Getpid())
	require.NoError(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	require.NoError(t, unix.Mount("/proc", hosts, "", unix.MS_BIND|unix.MS_REC, ""))
	require.NoError(t, unix.Mount("proc", "/proc", "proc", 0, ""))

	// The probe reads its own process too: those that it observes have a program of their own.
	content, err := os.ReadFile(executable(t))
	require.NoError(t, err)
	program := filepath.Join(t.TempDir(), "program")
	require.NoError(t, os.WriteFile(program, content, 0o700))
	require.NoError(t, unix.Mount(program, executable(t), "", unix.MS_BIND, ""))

	o := observe(t)
	o.attached() // what is found in /proc by then is none of the host's
	t.Run("TLS", func(t *testing.T) {
		_, port := serveGoTLS(t)
		seen := func(number int) bool {
			path := fmt.Sprintf("/secure/%d", number)
			fetchGo(t, plan{AtOnce: 1, Insecure: true, Requests: []planned{{Method: "GET", URL: securely(port, path)}}})
			time.Sleep(50 * time.Millisecond)
			return len(o.find(ptrace.SpanKindServer, port, path)) == 1 && len(o.find(ptrace.SpanKindClient, port, path)) == 1
		}
		assert.True(t, sooner(seen), "both ends are seen from some request on")
	})
	t.Run("goroutines", func(t *testing.T) {
		_, target := serveGo(t)
		_, port := relayGo(t, "http1")
		seen := func(number int) bool {
			fetchGo(t, relays(number, 1, port, target, 1, 0))
			return o.checkTold(number, 1, port, target) == 1
		}
		assert.True(t, sooner(seen), "the client's parent is known from some request on")
	})
	assert.Empty(t, o.losses())
}

// sooner says whether something that is done again and again succeeds in time.
func sooner(done func(number int) bool) bool {
	for number, since := 0, time.Now(); time.Since(since) < patience/2; number++ {
		if done(number) {
			return true
		}
	}
	return false
}
