//go:build linux

package e2e

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// namespace is a network namespace of the test's own.
type namespace struct {
	path  string
	inode int
}

var namespaces int

func newNamespace(t *testing.T) namespace {
	t.Helper()
	namespaces++
	name := fmt.Sprintf("e2e-%d-%d", os.Getpid(), namespaces)
	output(t, "ip", "netns", "add", name)
	t.Cleanup(func() { output(t, "ip", "netns", "del", name) })
	n := namespace{path: "/run/netns/" + name}
	var status syscall.Stat_t
	require.NoError(t, syscall.Stat(n.path, &status))
	n.inode = int(status.Ino)
	output(t, n.command("ip", "link", "set", "lo", "up")...)
	return n
}

// command runs a command in the namespace. Other than `ip netns exec`, it leaves the mounts alone.
func (n namespace) command(command ...string) []string {
	return append([]string{"nsenter", "--net=" + n.path, "--"}, command...)
}

// Connections within and between network namespaces are seen by the one Collector of the host.
func TestNetworkNamespaces(t *testing.T) {
	c := startCollector(t, setup{})
	inside, other := newNamespace(t), newNamespace(t)
	output(t, inside.command("ip", "link", "add", "e2e0", "type", "veth", "peer", "name", "e2e1", "netns", other.path)...)
	output(t, inside.command("ip", "addr", "add", "192.0.2.1/24", "dev", "e2e0")...)
	output(t, inside.command("ip", "link", "set", "e2e0", "up")...)
	output(t, other.command("ip", "addr", "add", "192.0.2.2/24", "dev", "e2e1")...)
	output(t, other.command("ip", "link", "set", "e2e1", "up")...)

	for _, test := range []struct {
		name                     string
		client                   namespace
		address                  string
		clientAddress            string
		serverBytes, clientBytes int
	}{
		{"within", inside, "127.0.0.1", "127.0.0.1", 2468, 1234},
		{"between", other, "192.0.2.1", "192.0.2.2", 200_000, 100_000},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := start(t, "server", inside.command(inPython(t, "serve", test.address, 0)...))
			port := server.account(t, "listening").LocalPort
			client := start(t, "client", test.client.command(inGo(t, "each", test.address, port)...))
			client.tell(t, strconv.Itoa(test.clientBytes))
			require.NoError(t, client.input.Close())
			own, accepted := client.account(t, "closed"), server.account(t, "closed")
			c.waitFlows(t, 2, connection(own.LocalPort, port), ends)

			from := assertEnd(t, c.exports, "client", port, own.LocalPort, own)
			to := assertEnd(t, c.exports, "server", port, own.LocalPort, accepted)
			assert.Equal(t, test.serverBytes, to.number("tcp.sent.bytes"))
			assert.Equal(t, test.client.inode, from.number("network.namespace.id"))
			assert.Equal(t, inside.inode, to.number("network.namespace.id"))
			assert.Equal(t, test.clientAddress, to.text("client.address"))
			assert.Equal(t, test.address, from.text("server.address"))
			assert.Equal(t, from.text("network.flow.id"), to.text("network.flow.id"), "both ends have one id")
		})
	}
}
