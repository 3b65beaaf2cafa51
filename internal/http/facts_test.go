//go:build linux

package http

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Whatever the last exchange of the connection was, the next one says what it says by itself.
func TestFactsAreOfTheExchange(t *testing.T) {
	changes := []func(*Exchange){
		func(e *Exchange) { e.Method = "GET" },
		func(e *Exchange) { e.Method, e.Target = "CONNECT", "other.example:443" },
		func(e *Exchange) { e.Target = "/orders/17/items?page=3&token=x" },
		func(e *Exchange) { e.Target = "/users/anna" },
		func(e *Exchange) { e.Target = "https://proxied.example/a?b" },
		func(e *Exchange) { e.Target = "" },
		func(e *Exchange) { e.Host = "other.example" },
		func(e *Exchange) { e.Host = "" },
		func(e *Exchange) { e.Secure = true },
		func(e *Exchange) { e.Local = netip.MustParseAddrPort("192.0.2.7:81") },
		func(e *Exchange) { e.Peer = netip.MustParseAddrPort("[2001:db8::7]:82") },
		func(e *Exchange) { e.Local, e.Peer = netip.AddrPort{}, netip.AddrPort{} },
		func(e *Exchange) { e.GRPC, e.MajorVersion, e.GRPCStatus, e.Target = true, 2, 0, "/shop.Cart/Add" },
	}
	random := rand.New(rand.NewPCG(1, 2))
	known := &facts{}
	routes, err := newRouteTable([]string{"/users/{id}"}, "")
	require.NoError(t, err)
	for range 2000 {
		role := RoleServer
		if random.IntN(2) == 0 {
			role = RoleClient
		}
		change := changes[random.IntN(len(changes))]
		more := changes[random.IntN(len(changes))]
		alone := exampleExchange(t, role, change, more)
		next := exampleExchange(t, role, change, more)
		next.known = known
		route := routes.route(alone)
		require.Equal(t, route, routes.route(next))
		require.Equal(t, alone.spanName(route), next.spanName(route))
		require.Equal(t, alone.rpcMethod(), next.rpcMethod())
		var want, got attributeList
		alone.describe(&want, route, addressTexts{})
		next.describe(&got, route, addressTexts{})
		require.Equal(t, rawOf(&want), rawOf(&got))
		assert.Equal(t, alone.scheme(), known.scheme)
		assert.Equal(t, alone.server(), known.server)
	}
}
