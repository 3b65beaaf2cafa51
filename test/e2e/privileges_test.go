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

// secureEnds lets programs of root speak HTTPS while a Collector runs that has some capabilities, and returns how many spans
// of which of them it has made. Of each two programs, one was started before the Collector and one after it.
func secureEnds(t *testing.T, capabilities ...string) (made map[string]int, c *collector) {
	t.Helper()
	const requests = 5
	server := startNginx(t, "127.0.0.1")
	answering, port := serve(t, inGoWith(certificate(t)), "127.0.0.1")
	c = startCollector(t, setup{
		receivers: quickPrograms("curl", "nginx", "peer"), wrapper: as(capabilities...), user: nobody,
	})
	c.looked(t)
	for range requests {
		_, err := fetch(fmt.Sprintf("https://127.0.0.1:%d/1000", server.securePort), "--http2")
		require.NoError(t, err)
	}
	client := start(t, "client", []string{answering.Path, "call", fmt.Sprintf("127.0.0.1:%d", port), "tls"})
	for range requests {
		client.tell(t, "1")
		client.account(t, "called")
		time.Sleep(200 * time.Millisecond) // the client is looked into meanwhile
	}
	require.NoError(t, client.input.Close())
	client.wait(t)
	time.Sleep(time.Second)
	made = map[string]int{}
	for _, s := range c.spans(t) {
		made[s.resource.text("process.executable.name")+" "+s.kind.String()]++
	}
	return made, c
}

func TestMeasure(t *testing.T) {
	for _, set := range [][]string{{"bpf", "perfmon"}, {"bpf", "perfmon", "sys_ptrace"}, {"bpf", "perfmon", "dac_read_search"},
		{"bpf", "perfmon", "sys_ptrace", "dac_read_search"}, {"bpf", "perfmon", "sys_ptrace", "dac_read_search", "checkpoint_restore"}, {"sys_admin"}} {
		t.Run(strings.Join(set, ","), func(t *testing.T) {
			made, c := secureEnds(t, set...)
			t.Log(made)
			t.Log(lostOf(c.losses(), "http"))
			for line := range strings.Lines(c.stderr()) {
				if strings.Contains(line, "TLS") || strings.Contains(line, "\twarn\t") || strings.Contains(line, "Observing this host") {
					t.Log(line)
				}
			}
			c.shutdown(t)
		})
	}
}
