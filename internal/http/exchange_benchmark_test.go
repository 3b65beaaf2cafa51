//go:build linux

package http

import (
	"context"
	"os"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http/http2/http2test"
	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

// recorded are the samples of many connections, of which each has the same exchanges, on both ends.
type recorded struct {
	exchanges   int
	described   []*sample   // what comes before, once
	connections [][]*sample // by connection, in the order of time
}

// sample is a message as the ring has it.
type sample struct {
	bytes []byte
	*message
}

// describing makes the sample that describes the connection of a message, as the kernel side has it before that.
func describing(m message, head *messageHead) *sample {
	m.Kind = uint8(bpfMessageKindMESSAGE_CONNECTION)
	m.Length = 0
	return layOut(m, head, nil)
}

// layOut makes a sample.
func layOut(m message, head *messageHead, data []byte) *sample {
	m.Captured = uint16(len(data))
	size := messageSize + len(data)
	if head != nil {
		size += messageHeadSize
	}
	words := make([]uint64, (size+7)/8) // aligned
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), size)
	s := &sample{bytes, (*message)(unsafe.Pointer(&bytes[0]))}
	*s.message = m
	at := messageSize
	if head != nil {
		*(*messageHead)(unsafe.Pointer(&bytes[at])) = *head
		at += messageHeadSize
	}
	copy(bytes[at:], data)
	return s
}

const recordedConnections = 32

// ownerOf describes an end of a connection as one of the process with the key.
func ownerOf(head *messageHead, key workload.Key, connection int, role Role) *messageHead {
	port := 40_000 + uint16(connection)
	head.Pid, head.StartBootNs = key.PID, key.StartBootNs
	head.LocalSequence += uint32(connection) * 1000
	head.RemoteSequence += uint32(connection) * 1000
	if role == RoleClient {
		head.LocalPort = port
	} else {
		head.PeerPort = port
	}
	return head
}

// playHTTP1 has one exchange on each connection, of which more are made by moving its offsets on.
func playHTTP1(key workload.Key) *recorded {
	r := &recorded{exchanges: 1}
	text := "GET /cart/items?page=3 HTTP/1.1\r\nHost: shop.example:8080\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n" +
		"Accept: */*\r\nAccept-Encoding: gzip\r\n\r\n"
	answer := "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: Sun, 22 Nov 2026 18:00:00 GMT\r\nContent-Length: 5\r\n\r\nhello"
	for i := range recordedConnections {
		var samples [4]*sample
		for _, role := range []Role{RoleClient, RoleServer} {
			messages := newWire(role).play(request(text), response(answer)).messages
			for j, m := range messages {
				m.Cookie = uint64(2*i) + uint64(role)
				if j == 0 {
					r.described = append(r.described, describing(m.message, ownerOf(m.head, key, i, role)))
				}
				place := 1 + j // the client sends, the server receives and sends, the client receives
				if role == RoleClient {
					place = 3 * j
				}
				samples[place] = layOut(m.message, nil, m.data)
			}
		}
		r.connections = append(r.connections, samples[:])
	}
	return r
}

// playGRPC has so many calls on each connection, each of two sends a direction; then the connection begins anew.
func playGRPC(key workload.Key) *recorded {
	r := &recorded{exchanges: 200}
	for i := range recordedConnections {
		calls := grpcCalls(r.exchanges)
		var samples []*sample
		compactors := [2][2]http2test.Compactor{{{}, {NoPreface: true}}, {{}, {NoPreface: true}}} // by end, and who sends
		for number, call := range calls {
			for end, role := range []Role{RoleClient, RoleServer} {
				fromClient := call.direction == requestsOf(RoleServer)
				sender := 1
				if fromClient {
					sender = 0
				}
				event := compactors[end][sender].Call(call.bytes, call.timeNs)
				m := message{
					TimeNs: call.timeNs, Cookie: uint64(2*i) + uint64(role), Offset: event.Offset, Length: event.Length,
					FrameLeft: event.FrameLeft, Kind: uint8(bpfMessageKindMESSAGE_FRAMES), SrttUs: 50,
					Direction: uint8(requestsOf(role)),
				}
				if !fromClient {
					m.Direction = 1 - m.Direction
				}
				if event.Preface > 0 {
					m.Flags |= uint8(bpfMessageFlagMESSAGE_BEGINNING)
				}
				if number == 0 {
					head := ownerOf((&wire{cookie: 1, role: role}).describe(), key, i, role)
					samples = append(samples, describing(m, head))
				}
				samples = append(samples, layOut(m, nil, event.Captured))
			}
		}
		for _, role := range []Role{RoleClient, RoleServer} {
			samples = append(samples, layOut(message{
				TimeNs: calls[len(calls)-1].timeNs + 1, Cookie: uint64(2*i) + uint64(role), Kind: uint8(bpfMessageKindMESSAGE_END),
			}, nil, nil))
		}
		r.connections = append(r.connections, samples)
	}
	return r
}

// grpcCalls is the traffic of a connection, as its server has it.
func grpcCalls(count int) []moved {
	f := newFrames(RoleServer)
	for i := range count {
		id := uint32(2*i + 1)
		f.headers(true, id, ":method: POST", ":scheme: http", ":path: /shop.Cart/AddItem", ":authority: cart:8080",
			"content-type: application/grpc", "user-agent: grpc-go/1.83.2", "te: trailers").data(true, id, 50, true)
		f.answer(id, ":status: 200", "content-type: application/grpc").data(false, id, 50, false)
		f.answer(id, "grpc-status: 0", "grpc-message: ", "end")
	}
	return f.calls
}

// benchmarkedProbe is a probe without a kernel side, and the key of the process that it tells of.
func benchmarkedProbe(b *testing.B, traces bool) (*Probe, workload.Key) {
	b.Helper()
	table, err := workload.NewTable(workload.Config{}, nil, nil)
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, table.Close()) })
	key, err := table.KeyOf(uint32(os.Getpid()))
	require.NoError(b, err)
	sinks := Sinks{Metrics: func(context.Context, pmetric.Metrics) error { return nil }}
	if traces {
		sinks.Traces = func(context.Context, ptrace.Traces) error { return nil }
	}
	p, err := New(Config{
		MaxConnections: 10_000, MaxSeries: 10_000, Sampling: Sampling{Ratio: 1}, Propagators: []string{PropagatorTraceContext},
		MetricsInterval: time.Hour, ExcludeInstrumented: true, Scope: exampleScope,
	}, nil, table, nil, sinks, zap.NewNop())
	require.NoError(b, err)
	return p, key
}

// userTime is the processor time that the process has used, that of the garbage collector's threads included.
func userTime(b *testing.B) time.Duration {
	b.Helper()
	var used unix.Rusage
	require.NoError(b, unix.Getrusage(unix.RUSAGE_SELF, &used))
	return time.Duration(used.Utime.Nano())
}

// BenchmarkExchange measures the whole way of an exchange in user space, both of its ends: from the samples of the ring to
// metrics, and to spans where there are traces, that could be handed over.
func BenchmarkExchange(b *testing.B) {
	for _, test := range []struct {
		name   string
		record func(workload.Key) *recorded
		traces bool
	}{
		{"HTTP1", playHTTP1, true}, {"gRPC", playGRPC, true},
		{"HTTP1Metrics", playHTTP1, false}, {"gRPCMetrics", playGRPC, false},
	} {
		b.Run(test.name, func(b *testing.B) {
			// The heap that a Collector has besides: the less there is, the more often it is collected.
			collector := make([]byte, 32<<20)
			defer runtime.KeepAlive(collector)
			p, key := benchmarkedProbe(b, test.traces)
			r := test.record(key)
			for _, s := range r.described {
				p.handle(s.bytes)
			}
			b.ReportAllocs()
			b.ResetTimer()
			before := userTime(b)
			done, spans := 0, 0
			for connection := 0; done < b.N; connection++ {
				samples := r.connections[connection%len(r.connections)]
				for _, s := range samples {
					p.handle(s.bytes)
					if r.exchanges == 1 {
						s.Offset += s.Length
					}
				}
				if done += r.exchanges; p.spans.count >= 1000 { // about what 10 ms have
					spans += p.spans.count
					p.spans.take()
				}
			}
			b.StopTimer()
			spent := userTime(b) - before
			spans += p.spans.count
			if test.traces {
				require.Equal(b, 2*done, spans, "drops %v", p.pairing.drops)
			}
			require.EqualValues(b, done, p.counters.server.Load())
			require.EqualValues(b, done, p.counters.client.Load())
			b.ReportMetric(float64(spent.Nanoseconds())/float64(done), "user-ns/exchange")
		})
	}
}
