//go:build linux

package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/ptrace"
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

// secureEnds lets programs of root speak TLS while a Collector runs that has some capabilities, and checks how many spans it
// makes of each of their ends. The servers were started before the Collector; that of one of those in Go is a file in a
// directory that root alone may enter.
func secureEnds(t *testing.T, requests int, want map[string]int, capabilities ...string) *collector {
	t.Helper()
	server := startNginx(t, "127.0.0.1")
	hidden := filepath.Join(t.TempDir(), "peer")
	output(t, "cp", prepare(t).peer, hidden)
	require.NoError(t, os.Chmod(filepath.Dir(hidden), 0o700))
	_, port := serve(t, inGoWith(certificate(t)), "127.0.0.1")
	_, hiddenPort := serve(t, func(*testing.T, string, string, int, ...string) []string {
		return []string{hidden, "serve-grpc", "127.0.0.1:0", certificate(t)}
	}, "127.0.0.1")

	c := startCollector(t, setup{
		receivers: quickPrograms("curl", "nginx", "peer"), wrapper: as(capabilities...), user: nobody,
	})
	c.looked(t)
	for range requests {
		_, err := fetch(fmt.Sprintf("https://127.0.0.1:%d/1000", server.securePort), "--http2")
		require.NoError(t, err)
	}
	for _, port := range []int{port, hiddenPort} {
		client := start(t, "client", append(inGo(t, "call", "127.0.0.1", port), "tls"))
		client.tell(t, strconv.Itoa(requests))
		client.account(t, "called")
	}
	ends := map[string]func(span) bool{
		"nginx":               both(onServer(server.securePort), ofKind(ptrace.SpanKindServer)),
		"curl":                both(onServer(server.securePort), ofKind(ptrace.SpanKindClient)),
		"server in Go":        both(onServer(port), ofKind(ptrace.SpanKindServer)),
		"client in Go":        both(onServer(port), ofKind(ptrace.SpanKindClient)),
		"hidden server in Go": both(onServer(hiddenPort), ofKind(ptrace.SpanKindServer)),
	}
	seen := func() map[string]int {
		made := map[string]int{}
		for end, match := range ends {
			made[end] = len(c.spans(t, match))
		}
		return made
	}
	assert.Eventually(t, func() bool { return maps.Equal(want, seen()) }, patience, tick)
	time.Sleep(time.Second) // nothing may follow
	assert.Equal(t, want, seen(), lostOf(c.losses(), "http"))
	return c
}

func both(first, second func(span) bool) func(span) bool {
	return func(s span) bool { return first(s) && second(s) }
}

// What is seen of TLS depends on what may be read of other users' processes; what is not seen is counted, and told once.
func TestPrivilegesForTLS(t *testing.T) {
	const requests = 5
	for name, test := range map[string]struct {
		capabilities []string
		goes, hidden int
	}{
		"least":               {capabilities: []string{"bpf", "perfmon"}},
		"what may be entered": {capabilities: []string{"bpf", "perfmon", "sys_ptrace"}, goes: requests},
		"recommended": {
			capabilities: []string{"bpf", "perfmon", "sys_ptrace", "dac_read_search"}, goes: requests, hidden: requests,
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := secureEnds(t, requests, map[string]int{
				"nginx": requests, "curl": requests, // the host's own library
				"server in Go": test.goes, "client in Go": test.goes, "hidden server in Go": test.hidden,
			}, test.capabilities...)
			log := c.stderr()
			assert.NotContains(t, log, "Cannot observe TLS")
			assert.Zero(t, c.lost(t, "http", "tls_attach_refused"))
			if test.hidden == 0 {
				assert.Positive(t, c.lost(t, "http", "tls_file_denied"))
				assert.Equal(t, 1, strings.Count(log, "tls_file_denied counts them"), log)
			}
			c.shutdown(t)
		})
	}
}
