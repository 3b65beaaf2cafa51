//go:build linux

package e2e

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A connection that stood before the Collector is followed from then on, and its owner is known.
func TestStandingConnection(t *testing.T) {
	server, port := serve(t, inPython, "127.0.0.1")
	client := start(t, "client", inGo(t, "connect", "127.0.0.1", port))
	own := client.account(t, "connected")
	client.tell(t, "5000")
	client.account(t, "answered")

	c := startCollector(t, setup{})
	client.tell(t, "700")
	client.account(t, "answered")
	c.waitFlows(t, 2, connection(own.LocalPort, port), role("client"), snapshots)
	client.tell(t, "11")
	require.NoError(t, client.input.Close())
	client.account(t, "answered")
	closed := client.account(t, "closed")
	require.Equal(t, 5711, closed.Sent)
	accepted := server.account(t, "closed")
	c.waitFlows(t, 2, connection(own.LocalPort, port), ends)

	for _, end := range []flow{
		assertEnd(t, c.exports, "client", port, own.LocalPort, closed),
		assertEnd(t, c.exports, "server", port, own.LocalPort, accepted),
	} {
		assert.True(t, end.is("network.flow.preexisting"))
		assert.False(t, end.has("network.flow.start"), "nobody saw it")
		assert.False(t, end.has("tcp.handshake.duration"), "nobody saw it")
		assert.NotEmpty(t, end.text("network.flow.id"))
	}
	c.shutdown(t)
	for _, side := range []struct {
		role           string
		sent, received int
	}{{"client", 711, 2 * 711}, {"server", 2 * 711, 711}} {
		sent, received := 0, 0
		for _, report := range c.flows(t, connection(own.LocalPort, port), role(side.role)) {
			sent += report.number("tcp.sent.bytes.delta")
			received += report.number("tcp.received.bytes.delta")
		}
		assert.Equal(t, side.sent, sent, side.role)
		assert.Equal(t, side.received, received, side.role)
		total := func(direction string) int {
			return cumulative(c.points(t, onPort(port), named("system.network.tcp.io"), func(p point) bool {
				return p.text("network.flow.role") == side.role && p.text("network.io.direction") == direction
			}))
		}
		assert.Equal(t, side.sent, total("transmit"), side.role)
		assert.Equal(t, side.received, total("receive"), side.role)
	}
	assert.Zero(t, cumulative(c.points(t, onPort(port), named("system.network.tcp.connections.opened"))), "nobody saw it open")
	assert.Equal(t, 2, cumulative(c.points(t, onPort(port), named("system.network.tcp.connections.closed"))))
}
