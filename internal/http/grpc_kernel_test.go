//go:build linux

package http

import (
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"google.golang.org/grpc/codes"
)

// calls gives the spans of a port that have a method of gRPC, by their kind.
func (o *observation) calls(port int) (clients, servers []ptrace.Span) {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	for _, span := range o.spans {
		if _, ok := span.Attributes().Get(attrRPCMethod); !ok {
			continue
		}
		switch {
		case span.Kind() == ptrace.SpanKindClient && number(span, attrPeerPort) == int64(port):
			clients = append(clients, span)
		case span.Kind() == ptrace.SpanKindServer && number(span, attrLocalPort) == int64(port):
			servers = append(servers, span)
		}
	}
	return clients, servers
}

// Every call of gRPC is seen on both ends, with its method and status: unary ones, 16 at once, and all kinds of streams.
func TestGRPC(t *testing.T) {
	const count, streams = 1000, 3
	o := observe(t)
	server := start(t, []string{programVariable + "=serve gRPC"}, executable(t))
	port := server.record(t).Port
	client := start(t, []string{programVariable + "=call gRPC"}, executable(t), strconv.Itoa(port), strconv.Itoa(count), "16")
	client.finish(t)

	var clients, servers []ptrace.Span
	require.Eventually(t, func() bool {
		clients, servers = o.calls(port)
		return len(clients) >= count+streams && len(servers) >= count+streams
	}, patience, patience/1000, "lost %v", o.losses())
	require.Len(t, clients, count+streams)
	require.Len(t, servers, count+streams)

	want := map[string]int{
		"grpc.testing.TestService/StreamingOutputCall OK": 1,
		"grpc.testing.TestService/StreamingInputCall OK":  1,
		"grpc.testing.TestService/FullDuplexCall OK":      1,
	}
	for call := range count {
		method := "UnaryCall"
		if call%10 == 9 {
			method = "UnimplementedCall"
		}
		want["grpc.testing.TestService/"+method+" "+statusText(askedStatus(call))]++
	}
	byID := map[string]ptrace.Span{}
	for _, spans := range [][]ptrace.Span{clients, servers} {
		got := map[string]int{}
		for _, span := range spans {
			method := text(span, attrRPCMethod)
			if method == methodOther {
				method = text(span, attrRPCMethodOther)
			}
			got[method+" "+text(span, attrRPCStatus)]++
			assert.Equal(t, "2", text(span, attrProtocolVersion))
			byID[span.SpanID().String()] = span
		}
		assert.Equal(t, want, got, spans[0].Kind())
	}
	for _, served := range servers {
		require.Contains(t, byID, served.ParentSpanID().String(), "the call has its client's span as parent")
		o.checkLink(byID[served.ParentSpanID().String()], served)
	}
	assert.Empty(t, o.losses())
}

// statusText is a status as gRPC's list of them spells it, NOT_FOUND.
func statusText(code codes.Code) string {
	if code == codes.OK {
		return code.String()
	}
	var b strings.Builder
	for i, letter := range code.String() {
		if i > 0 && letter >= 'A' && letter <= 'Z' {
			b.WriteByte('_')
		}
		b.WriteRune(letter)
	}
	if code == codes.Canceled {
		return "CANCELLED"
	}
	return strings.ToUpper(b.String())
}
