//go:build linux

package e2e

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// sample is one line of the Prometheus text format.
type sample struct {
	name   string
	labels map[string]string
	value  float64
}

var (
	sampleLine = regexp.MustCompile(`^([a-zA-Z_:]+)\{(.*)\} (\S+)$`)
	labelText  = regexp.MustCompile(`([a-zA-Z_]+)="((?:[^"\\]|\\.)*)"`)
)

func parseSamples(t *testing.T, text string) []sample {
	t.Helper()
	var samples []sample
	for line := range strings.Lines(text) {
		match := sampleLine.FindStringSubmatch(strings.TrimSpace(line))
		if match == nil {
			continue
		}
		value, err := strconv.ParseFloat(match[3], 64)
		require.NoError(t, err)
		labels := map[string]string{}
		for _, label := range labelText.FindAllStringSubmatch(match[2], -1) {
			labels[label[1]] = label[2]
		}
		samples = append(samples, sample{match[1], labels, value})
	}
	return samples
}

// The Collector's own telemetry tells what the receiver has seen, and that it lost nothing.
func TestOwnTelemetry(t *testing.T) {
	c := startCollector(t, setup{receivers: map[string]string{"ebpf": quick + "\n    kernel: {program_stats: true}"}})
	_, port := serve(t, inGo, "127.0.0.1")
	const connections = 300
	exchange(t, inGo, "127.0.0.1", port, make([]int, connections)...)
	c.waitFlows(t, 2*connections, serverPort(port), ends)

	require.Eventually(t, func() bool {
		return len(c.points(t, onPort(port), named("system.network.tcp.listener.backlog.limit"))) > 0
	}, patience, tick, "no snapshot has met the server")
	samples := parseSamples(t, c.ownMetrics(t))
	total := func(name string, labels ...string) (sum float64, found int) {
		for _, s := range samples {
			matches := strings.TrimSuffix(s.name, "_total") == "otelcol_receiver_ebpf_"+name
			for i := 0; i < len(labels); i += 2 {
				matches = matches && s.labels[labels[i]] == labels[i+1]
			}
			if matches {
				assert.Equal(t, "ebpf", s.labels["receiver"], s)
				sum += s.value
				found++
			}
		}
		return sum, found
	}
	ended, _ := total("events", "probe", "tcp", "kind", "end")
	assert.GreaterOrEqual(t, ended, float64(2*connections))

	for _, reason := range []string{"ring_full", "storage_full", "consumer_blocked", "undecodable"} {
		lost, found := total("events_lost", "probe", "tcp", "reason", reason)
		assert.Equal(t, 1, found, reason)
		assert.Zero(t, lost, reason)
	}
	lost, found := total("events_lost", "probe", "process", "reason", "ring_full")
	assert.Equal(t, 1, found)
	assert.Zero(t, lost)

	for _, capability := range []string{
		"tcp.inet_sock_set_state", "tcp.tcp_rcv_space_adjust", "tcp.tcp_receive_reset", "tcp.tcp_send_reset",
		"tcp.tcp_retransmit_synack",
	} {
		value, found := total("capability", "capability", capability, "rung", "tp_btf")
		assert.Equal(t, 1, found, capability)
		assert.EqualValues(t, 1, value, capability)
	}
	open, _ := total("map_entries", "probe", "tcp", "map", "connections")
	assert.Positive(t, open)
	capacity, _ := total("map_capacity", "probe", "tcp", "map", "series")
	assert.EqualValues(t, 10_000, capacity)

	runs, found := total("program_runs", "probe", "tcp", "program", "tcp_state")
	assert.Equal(t, 1, found)
	assert.GreaterOrEqual(t, runs, float64(6*connections), "some state changes for each end")
	seconds, _ := total("program_run_time", "probe", "tcp", "program", "tcp_state")
	assert.Positive(t, seconds)
	assert.Less(t, seconds/runs, 100e-6, "mean run time in seconds")
}

// Every attribute of every flow record is in docs/flow-records.md.
func TestFlowRecordsAreDocumented(t *testing.T) {
	content, err := os.ReadFile("../../docs/flow-records.md")
	require.NoError(t, err)
	c := startCollector(t, setup{})
	_, port := serve(t, inPython, "127.0.0.1")
	exchange(t, inGo, "127.0.0.1", port, 1000)
	refused := freePort(t)
	start(t, "client", inPython(t, "fail", "127.0.0.1", refused)).wait(t)
	c.waitFlows(t, 2, serverPort(port), ends)
	c.waitFlows(t, 1, serverPort(refused))
	c.shutdown(t)
	for _, f := range c.flows(t) {
		for key := range f.fields {
			assert.Contains(t, string(content), "`"+key+"`")
		}
	}
}
