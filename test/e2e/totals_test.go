//go:build linux

package e2e

import (
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// mixture is what the clients of one server counted.
type mixture struct {
	connections, sent, received int
}

// runMixture starts a server of each language, and clients of both that make connections of random sizes; some stay
// open over several snapshots. It returns what they counted by the server's port.
func runMixture(t *testing.T, random *rand.Rand, connections, standing int) map[int]*mixture {
	t.Helper()
	results := map[int]*mixture{}
	for _, in := range []language{inPython, inGo} {
		_, port := serve(t, in, "127.0.0.1")
		result := &mixture{connections: connections + standing}
		results[port] = result

		var long []*process
		for range standing {
			client := start(t, "standing client", inGo(t, "connect", "127.0.0.1", port))
			client.account(t, "connected")
			long = append(long, client)
		}
		left := connections
		for _, clients := range []language{inPython, inGo, inPython, inGo} {
			sizes := make([]int, min(left, connections/4+1))
			left -= len(sizes)
			for i := range sizes {
				sizes[i] = 1 + random.IntN(1<<random.IntN(18))
			}
			for _, own := range exchange(t, clients, "127.0.0.1", port, sizes...) {
				result.sent += own.Sent
				result.received += own.Received
			}
			for _, client := range long {
				client.tell(t, strconv.Itoa(1+random.IntN(100_000)))
				client.account(t, "answered")
			}
			time.Sleep(250 * time.Millisecond) // a snapshot
		}
		for _, client := range long {
			require.NoError(t, client.input.Close())
			own := client.account(t, "closed")
			result.sent += own.Sent
			result.received += own.Received
			client.wait(t)
		}
	}
	return results
}

// The metrics add up to what the applications wrote and read, to the byte, across snapshots and ends, and so do the
// deltas of the flow records.
func TestTotals(t *testing.T) {
	c := startCollector(t, setup{})
	results := runMixture(t, rand.New(rand.NewPCG(1, 2)), 200, 4)
	for port, result := range results {
		c.waitFlows(t, 2*result.connections, serverPort(port), ends)
	}
	c.shutdown(t)
	for port, result := range results {
		assertTotals(t, c.exports, port, result.connections, result.sent, result.received)
		sent, received := map[string]int{}, map[string]int{}
		for _, report := range c.flows(t, serverPort(port)) {
			sent[report.role()] += report.number("tcp.sent.bytes.delta")
			received[report.role()] += report.number("tcp.received.bytes.delta")
		}
		assert.Equal(t, map[string]int{"client": result.sent, "server": result.received}, sent)
		assert.Equal(t, map[string]int{"client": result.received, "server": result.sent}, received)
		assert.NotEmpty(t, c.flows(t, serverPort(port), snapshots), "the standing connections reported while they stood")
	}
}

// Metrics tell nothing that grows with the number of connections: no attribute has a client's port.
func TestMetricsHaveNoEphemeralPort(t *testing.T) {
	c := startCollector(t, setup{})
	_, port := serve(t, inGo, "127.0.0.1")
	ephemeral := map[int]bool{}
	for _, own := range exchange(t, inGo, "127.0.0.1", port, make([]int, 100)...) {
		ephemeral[own.LocalPort] = true
	}
	c.waitFlows(t, 200, serverPort(port), ends)
	c.shutdown(t)
	points := c.points(t)
	require.NotEmpty(t, points)
	series := map[string]bool{}
	for _, p := range points {
		for key, value := range p.fields {
			if number, isNumber := value.(int64); isNumber {
				assert.Equal(t, "server.port", key, "the only attribute with a number")
				assert.False(t, ephemeral[int(number)], "%s: %s", p.metric, key)
			}
		}
		assert.False(t, p.has("client.port"))
		if p.number("server.port") == port && p.metric == "system.network.tcp.connections.opened" {
			series[canonical(p.resource)+canonical(p.fields)] = true
		}
	}
	assert.Len(t, series, 2, "one of the clients and one of the server")
}

// Two Collectors see the same, and neither disturbs the other.
func TestTwoCollectors(t *testing.T) {
	first, second := startCollector(t, setup{}), startCollector(t, setup{})
	results := runMixture(t, rand.New(rand.NewPCG(3, 4)), 50, 2)
	for port, result := range results {
		first.waitFlows(t, 2*result.connections, serverPort(port), ends)
	}
	first.shutdown(t)
	for port, result := range results {
		second.waitFlows(t, 2*result.connections, serverPort(port), ends)
	}
	second.shutdown(t)
	for port, result := range results {
		assertTotals(t, first.exports, port, result.connections, result.sent, result.received)
		assertTotals(t, second.exports, port, result.connections, result.sent, result.received)
	}
}

// What else happens in the kernel disturbs nothing: here, other programs are attached to the same hooks and detached
// again, which interrupts ours in the middle of a state change, and timers then change the state of other sockets.
//
// Every end is told of, or counted as unseen: a kernel may run no programs at all while a certain process is current.
func TestInterruptions(t *testing.T) {
	c := startCollector(t, setup{})
	_, port := serve(t, inGo, "127.0.0.1")
	const rounds, each = 5, 3000
	for range rounds {
		client := start(t, "client", inGo(t, "each", "127.0.0.1", port))
		client.tell(t, strings.TrimSuffix(strings.Repeat("0\n", each), "\n"))
		require.NoError(t, client.input.Close())
		startCollector(t, setup{receivers: map[string]string{"ebpf": " {}"}}).shutdown(t)
		client.accounts(t, "closed", each)
		client.wait(t)
	}
	const want = 2 * rounds * each
	var told, unseen int
	for deadline := time.Now().Add(3 * time.Second); told+unseen < want && time.Now().Before(deadline); time.Sleep(tick) {
		told, unseen = len(c.flows(t, serverPort(port), ends)), c.lost(t, "tcp", "end_unseen")
	}
	assert.LessOrEqual(t, told, want)
	assert.GreaterOrEqual(t, told+unseen, want, "ends that are told of, and those that are counted as unseen")
	assert.Greater(t, told, want-want/100, "ends that are told of")
	if unseen > 0 {
		t.Logf("the kernel ran no program at %d ends", unseen)
	}
	c.shutdown(t)
	for _, counted := range []string{"connections.closed", "connection.duration"} {
		assert.Equal(t, told, cumulative(c.points(t, onPort(port), named("system.network.tcp."+counted))), counted)
	}
}

// The Collector's own connections are not reported: its exports would cause exports.
func TestCollectorDoesNotObserveItself(t *testing.T) {
	c := startCollector(t, setup{})
	for range 5 {
		c.ownMetrics(t)
	}
	telemetry := number(t, portOf(c.telemetry))
	// This process is the client of the Collector's own endpoint: it is seen, the server is not.
	reader := c.waitFlows(t, 1, serverPort(telemetry), role("client"))
	assert.Equal(t, os.Getpid(), reader[0].number("process.pid"))
	c.shutdown(t)
	assert.Empty(t, c.flows(t, serverPort(telemetry), role("server")))
}
