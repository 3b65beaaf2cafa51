//go:build linux

package e2e

import (
	"fmt"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// assertEnd compares the record of one end of a connection with what the program there counted.
func assertEnd(t *testing.T, e *exports, role string, serversPort, clientsPort int, own account) flow {
	t.Helper()
	end := e.only(t, connection(clientsPort, serversPort), func(f flow) bool { return f.role() == role }, ends)
	where := fmt.Sprintf("%s of the connection from port %d", role, clientsPort)
	assert.Equal(t, "network.flow", end.event, where)
	assert.Equal(t, own.Sent, end.number("tcp.sent.bytes"), where)
	assert.Equal(t, own.Received, end.number("tcp.received.bytes"), where)
	assert.Equal(t, own.PID, end.number("process.pid"), where)
	return end
}

// Servers and clients of several languages and kinds: each end has its bytes, its process and its addresses.
func TestPrograms(t *testing.T) {
	tests := []struct {
		name                     string
		server                   language
		listen                   string
		workers                  int
		client                   language
		connect                  string
		networkType, peerAddress string
	}{
		{"Python", inPython, "127.0.0.1", 0, inPython, "127.0.0.1", "ipv4", "127.0.0.1"},
		{"Go", inGo, "127.0.0.1", 0, inGo, "127.0.0.1", "ipv4", "127.0.0.1"},
		{"Go server, Python client", inGo, "127.0.0.1", 0, inPython, "127.0.0.1", "ipv4", "127.0.0.1"},
		{"IPv6", inPython, "::1", 0, inGo, "::1", "ipv6", "::1"},
		{"IPv4 to a server of both", inPython, "::", 0, inPython, "127.0.0.1", "ipv4", "127.0.0.1"},
		{"server that forked its workers", inPython, "127.0.0.1", 3, inGo, "127.0.0.1", "ipv4", "127.0.0.1"},
	}
	c := startCollector(t, setup{})
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			sizes := []int{1, 10, 1000, 54_321, 1, 2, 3, 4, 5, 6}
			server, port := serve(t, test.server, test.listen, strconv.Itoa(test.workers))
			clientAccounts := exchange(t, test.client, test.connect, port, sizes...)
			serverAccounts := server.accounts(t, "closed", len(sizes))
			c.waitFlows(t, 2*len(sizes), serverPort(port), ends)

			for _, own := range clientAccounts {
				end := assertEnd(t, c.exports, "client", port, own.LocalPort, own)
				assert.Equal(t, test.networkType, end.text("network.type"))
				assert.Equal(t, test.peerAddress, end.text("server.address"))
				assert.Equal(t, test.peerAddress, end.text("network.peer.address"))
				assert.Equal(t, own.LocalPort, end.number("network.local.port"))
				assert.Equal(t, port, end.number("network.peer.port"))
				assert.Positive(t, end.seconds("tcp.handshake.duration"))
				assert.Less(t, end.seconds("tcp.handshake.duration"), end.seconds("network.flow.duration")+1)
			}
			path := executable(t, server.pid())
			for _, own := range serverAccounts {
				end := assertEnd(t, c.exports, "server", port, own.PeerPort, own)
				assert.Equal(t, test.networkType, end.text("network.type"))
				assert.Equal(t, test.peerAddress, end.text("client.address"))
				assert.Equal(t, path, end.text("process.executable.path"))
				assert.Equal(t, filepath.Base(path), end.resource.text("process.executable.name"))
				assert.False(t, end.has("process.inferred"), "the process was seen to serve")
				if test.workers > 0 {
					assert.Equal(t, server.pid(), parent(t, end.number("process.pid")), "a worker serves, not its parent")
				}
			}
		})
	}
}

// A web server that we did not write.
func TestPythonWebServer(t *testing.T) {
	port := freePort(t)
	server := start(t, "http.server", []string{
		"python3", "-m", "http.server", "--bind", "127.0.0.1", "--directory", "testdata", strconv.Itoa(port),
	})
	url := fmt.Sprintf("http://127.0.0.1:%d/peer.py", port)
	require.Eventually(t, func() bool { _, err := fetch(url); return err == nil }, patience, tick)
	c := startCollector(t, setup{})
	for range 20 {
		request, err := fetch(url)
		require.NoError(t, err)
		c.waitFlows(t, 2, connection(request.LocalPort, port), ends)
		client := c.only(t, connection(request.LocalPort, port), role("client"), ends)
		assert.Equal(t, request.sent(), client.number("tcp.sent.bytes"))
		assert.Equal(t, request.received(), client.number("tcp.received.bytes"))
		accepted := c.only(t, connection(request.LocalPort, port), role("server"), ends)
		assert.Equal(t, request.received(), accepted.number("tcp.sent.bytes"))
		assert.Equal(t, request.sent(), accepted.number("tcp.received.bytes"))
		assert.Equal(t, server.pid(), accepted.number("process.pid"))
		assert.Equal(t, executable(t, server.pid()), accepted.text("process.executable.path"))
	}
}

// A connection that is refused is a failure of the client, with the error that the client got.
func TestRefusedConnections(t *testing.T) {
	c := startCollector(t, setup{})
	port := freePort(t)
	const attempts = 5
	pids := map[int]bool{}
	for range attempts {
		client := start(t, "client", inPython(t, "fail", "127.0.0.1", port))
		failed := client.account(t, "failed")
		require.Equal(t, "ECONNREFUSED", failed.Error)
		pids[failed.PID] = true
		client.wait(t)
	}
	for _, end := range c.waitFlows(t, attempts, serverPort(port)) {
		assert.Equal(t, "client", end.role())
		assert.Equal(t, "end", end.report())
		assert.Equal(t, "ECONNREFUSED", end.text("error.type"))
		assert.Equal(t, "syn_sent", end.text("network.connection.state"))
		assert.Equal(t, 1, end.number("tcp.resets.received"))
		assert.True(t, pids[end.number("process.pid")])
		assert.NotEmpty(t, end.text("process.executable.path"))
	}
	c.shutdown(t)
	failed := c.points(t, onPort(port), named("system.network.tcp.connections.failed"))
	assert.Equal(t, attempts, cumulative(failed))
	for _, p := range failed {
		assert.Equal(t, "ECONNREFUSED", p.text("error.type"))
	}
	assert.Zero(t, cumulative(c.points(t, onPort(port), named("system.network.tcp.connections.opened"))))
	assert.Zero(t, cumulative(c.points(t, onPort(port), named("system.network.tcp.connections.closed"))))
}

// A listener that ends is neither a connection nor a failure.
func TestListener(t *testing.T) {
	c := startCollector(t, setup{})
	server, port := serve(t, inGo, "127.0.0.1")
	exchange(t, inGo, "127.0.0.1", port, 1)
	c.waitFlows(t, 2, serverPort(port), ends)
	server.kill()
	c.shutdown(t)
	assertTotals(t, c.exports, port, 1, 1, 2)
	assert.NotEmpty(t, c.points(t, onPort(port), named("system.network.tcp.listener.backlog.limit")))
}
