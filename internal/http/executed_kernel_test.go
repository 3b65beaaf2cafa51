//go:build linux

package http

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// Programs that make one request in TLS as soon as they run, and end: of one that is known nothing is missed. Of one that
// was never seen, it is a matter of who is faster: the kernel takes some milliseconds to attach the first uprobes to a file.
func TestRequestsOfProgramsThatHaveJustStarted(t *testing.T) {
	server, port := serveGoTLS(t)
	o := observe(t, func(p *Probe) { p.selector = nil })
	o.attached(server)
	content, err := os.ReadFile(executable(t))
	require.NoError(t, err)
	directory := t.TempDir()
	fresh := func(name string) string {
		path := filepath.Join(directory, name)
		require.NoError(t, os.WriteFile(path, content, 0o700))
		return path
	}
	requests := 0
	seen := func(program string, pause time.Duration) bool {
		requests++
		path := fmt.Sprintf("/first/%d", requests)
		fetch(t, program, pause, plan{AtOnce: 1, Insecure: true, Requests: []planned{{Method: "GET", URL: securely(port, path)}}})
		require.Len(t, o.wait(1, ptrace.SpanKindServer, port, path), 1)
		for since := time.Now(); time.Since(since) < 200*time.Millisecond; time.Sleep(time.Millisecond) {
			if len(o.find(ptrace.SpanKindClient, port, path)) == 1 {
				return true
			}
		}
		return false
	}
	missed := func(count int, pause time.Duration, program func(number int) string) (missed int) {
		for number := range count {
			if path := program(number); !seen(path, pause) {
				missed++
			}
		}
		return missed
	}

	known := fresh("known")
	require.True(t, sooner(func(int) bool { return seen(known, 0) }))
	assert.Zero(t, missed(20, 0, func(int) string { return known }), "of a program that is known")
	later := missed(10, 250*time.Millisecond, func(number int) string { return fresh(fmt.Sprint("later", number)) })
	assert.Zero(t, later, "of programs that were never seen, and have something to do before")
	first := missed(10, 0, func(number int) string { return fresh(fmt.Sprint("first", number)) })
	t.Logf("of 10 programs that were never seen, %d made their first request too soon to be seen", first)
}

// A program need not be seen to speak TLS.
func TestProgramsAreObservedWhenTheyAreExecuted(t *testing.T) {
	o := observe(t)
	o.attached()
	attached := func() uint64 {
		for _, event := range o.inspector.stats().Events {
			if event.Kind == "tls_file_attached" {
				return event.Count
			}
		}
		return 0
	}
	before := attached()
	content, err := os.ReadFile(executable(t))
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "program")
	require.NoError(t, os.WriteFile(path, content, 0o700))
	start(t, []string{programVariable + "=serve"}, path, "tcp", "127.0.0.1:0").record(t)
	require.Eventually(t, func() bool { return attached() > before }, patience, time.Millisecond)
}
