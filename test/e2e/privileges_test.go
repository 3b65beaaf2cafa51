//go:build linux

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const nobody = 65534

// as runs a command as nobody, with some capabilities.
func as(capabilities ...string) []string {
	keep := ""
	for _, capability := range capabilities {
		keep += ",+" + capability
	}
	return []string{
		"setpriv", fmt.Sprintf("--reuid=%d", nobody), fmt.Sprintf("--regid=%d", nobody), "--clear-groups",
		"--inh-caps=-all" + keep, "--ambient-caps=-all" + keep, "--bounding-set=-all" + keep, "--no-new-privs",
	}
}

// Without privileges the Collector works on, and says once what is missing.
func TestWithoutPrivileges(t *testing.T) {
	c := startCollector(t, setup{wrapper: as(), user: nobody})
	time.Sleep(time.Second) // nothing may follow
	log := c.stderr()
	var faults []string
	for line := range strings.Lines(log) {
		if strings.Contains(line, "\terror\t") {
			faults = append(faults, line)
		}
	}
	require.Len(t, faults, 1, log)
	for _, expected := range []string{"Cannot observe this host", "CAP_BPF", "CAP_PERFMON", "setcap", "securityContext"} {
		assert.Contains(t, faults[0], expected)
	}
	assert.NotContains(t, log, "runtime.main", "a refusal is no matter for a stack trace")
	assert.Contains(t, c.ownMetrics(t), "otelcol_process_uptime", "the rest of the Collector works")
	c.shutdown(t)
}

// Two capabilities and no root are enough to see every connection with its process and the path of its program.
func TestLeastPrivileges(t *testing.T) {
	server, port := serve(t, inGo, "127.0.0.1") // runs before the Collector does: no event tells of it
	c := startCollector(t, setup{wrapper: as("bpf", "perfmon"), user: nobody})
	accounts := exchange(t, inPython, "127.0.0.1", port, 100, 200)
	c.waitFlows(t, 4, serverPort(port), ends)
	for _, own := range accounts {
		end := assertEnd(t, c.exports, "client", port, own.LocalPort, own)
		assert.Contains(t, end.text("process.executable.path"), "python3", "started later: the kernel told its path")
		accepted := c.only(t, connection(own.LocalPort, port), role("server"), ends)
		assert.Equal(t, server.pid(), accepted.number("process.pid"))
		assert.Equal(t, "peer", accepted.resource.text("process.executable.name"))
	}
	c.shutdown(t)
	sent, received := 300, 600
	assertTotals(t, c.exports, port, 2, sent, received)
}
