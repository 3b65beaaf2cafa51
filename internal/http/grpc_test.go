//go:build linux

package http

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
)

func TestContentTypesOfGRPC(t *testing.T) {
	for contentType, want := range map[string]bool{
		"application/grpc":                true,
		"application/grpc+proto":          true,
		"application/grpc; charset=utf-8": true,
		"application/grpc-web-text":       true,
		"Application/GRPC":                true,
		"application/grp":                 false,
		"application/json":                false,
		"text/application/grpc":           false,
		"":                                false,
	} {
		assert.Equal(t, want, isGRPC([]byte(contentType)), contentType)
	}
}

// The names are those that gRPC's own library takes.
func TestGRPCStatusNames(t *testing.T) {
	for status := range 17 {
		var code codes.Code
		require.NoError(t, code.UnmarshalJSON([]byte(`"`+grpcStatusName(status)+`"`)))
		assert.EqualValues(t, status, code)
	}
	assert.Equal(t, "UNKNOWN", grpcStatusName(17))
	assert.Equal(t, "UNKNOWN", grpcStatusName(1<<31-1))
	assert.Empty(t, grpcStatusName(-1))
}

func TestWhichGRPCStatusIsAnError(t *testing.T) {
	ofServer := map[string]bool{
		"UNKNOWN": true, "DEADLINE_EXCEEDED": true, "UNIMPLEMENTED": true, "INTERNAL": true, "UNAVAILABLE": true,
		"DATA_LOSS": true,
	}
	for status := range 20 {
		assert.Equal(t, ofServer[grpcStatusName(status)], grpcFailed(RoleServer, status), status)
		assert.Equal(t, status != 0, grpcFailed(RoleClient, status), status)
	}
}

// What HTTP/1 heads say of traces and of gRPC-Web reaches the exchange.
func TestPairingKeepsTraceContextsAndGRPC(t *testing.T) {
	const web = "POST /pkg.Service/Method HTTP/1.1\r\nContent-Type: application/grpc-web+proto\r\nContent-Length: 0\r\n"
	bothEnds(t, func(t *testing.T, role Role) {
		o := newObserver(10).take(newWire(role).play(
			request(web+"grpc-trace-bin: AAAA\r\nx-b3-traceid: a\r\nx-b3-spanid: b\r\nx-b3-sampled: 1\r\nx-request-id: 7\r\n\r\n"),
			response("HTTP/1.1 200 OK\r\ngrpc-status: 5\r\nContent-Length: 0\r\n\r\n"),
			request(web+"b3: 0\r\n\r\n"), response(ok(3)+"abc"),
			request(get("/")), response(ok(0)),
		).messages...)
		require.Len(t, o.exchanges, 3)
		first, second, third := o.exchanges[0], o.exchanges[1], o.exchanges[2]
		assert.Equal(t, []any{"AAAA", "a-b-1", "7", true, 5},
			[]any{first.TraceBin, first.B3, first.RequestID, first.GRPC, first.GRPCStatus})
		assert.Equal(t, []any{"", "0", "", true, -1},
			[]any{second.TraceBin, second.B3, second.RequestID, second.GRPC, second.GRPCStatus},
			"the status is in the body")
		assert.Equal(t, []any{"", "", "", false, -1},
			[]any{third.TraceBin, third.B3, third.RequestID, third.GRPC, third.GRPCStatus})
	})
}
