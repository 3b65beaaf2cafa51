//go:build linux

package http

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

// buildNarrow builds the 32-bit program of the tests. A kernel that does not run such programs does not need to see them.
func buildNarrow(t *testing.T) string {
	t.Helper()
	architecture := map[string]string{"amd64": "386", "arm64": "arm"}[runtime.GOARCH]
	path := filepath.Join(t.TempDir(), "narrow")
	build := exec.Command("go", "build", "-o", path, filepath.Join("testdata", "programs", "narrow", "main.go"))
	build.Env = append(os.Environ(), "GOARCH="+architecture, "CGO_ENABLED=0")
	output, err := build.CombinedOutput()
	require.NoError(t, err, string(output))
	if err := exec.Command(path, "try").Run(); errors.Is(err, unix.ENOEXEC) {
		t.Skip("this kernel runs no 32-bit programs")
	}
	return path
}

// A 32-bit program has other numbers and structures for its calls, and other registers.
func TestNarrowProgram(t *testing.T) {
	path := buildNarrow(t)
	for _, test := range []struct{ send, receive string }{
		{"write", "read"},
		{"writev", "readv"},
		{"sendmsg", "recv"},
		{"sendmsg", "recvmsg"},
		{"write", "direct recvfrom"},
		{"write", "direct recvmsg"},
	} {
		t.Run(test.receive, func(t *testing.T) {
			selector, err := workload.Selection{Include: []workload.Rule{{Executable: path}}}.Compile()
			require.NoError(t, err)
			o := observe(t, func(p *Probe) { p.selector = selector })
			server := start(t, nil, path, "serve", test.receive, test.send)
			port := server.record(t).Port
			client := start(t, nil, path, "fetch", test.send, test.receive, strconv.Itoa(port), "/narrow", "100000", "200000")
			told, served := client.record(t), server.record(t)
			requested, accepted := o.ends(port, "/narrow")
			check(t, requested, told, false, false)
			check(t, accepted, served, false, false)
			assert.Empty(t, o.losses())
			client.finish(t)
		})
	}
}
