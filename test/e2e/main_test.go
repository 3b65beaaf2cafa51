//go:build linux

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel/kerneltest"
)

// collectorVariable names the Collector to test. Unset, the lean distribution is built.
const collectorVariable = "OTELCOL_EBPF"

// programs are the executables that the tests start, built once.
type programs struct {
	collector string
	peer      string
}

var build = sync.OnceValues(func() (programs, error) {
	root, err := filepath.Abs("../..")
	if err != nil {
		return programs{}, err
	}
	run := func(name string, arguments ...string) error {
		command := exec.Command(name, arguments...)
		command.Dir = root
		if output, err := command.CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w\n%s", command, err, output)
		}
		return nil
	}
	built := programs{
		collector: os.Getenv(collectorVariable),
		peer:      filepath.Join(root, "_build/peer"),
	}
	if built.collector == "" {
		built.collector = filepath.Join(root, "_build/otelcol-ebpf-lean/otelcol-ebpf-lean")
		if err := run("make", "otelcol-lean"); err != nil {
			return programs{}, err
		}
	}
	return built, run("go", "build", "-o", built.peer, "./test/e2e/peer")
})

// prepare is what every test here begins with.
func prepare(t *testing.T) programs {
	t.Helper()
	kerneltest.RequireRoot(t)
	built, err := build()
	require.NoError(t, err)
	return built
}
