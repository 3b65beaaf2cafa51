//go:build linux

package http

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// tap writes down what moves at one end of a connection.
type tap struct {
	net.Conn
	mutex *sync.Mutex
	calls *[]moved
}

func (t *tap) note(direction bpfMessageDirection, b []byte) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	*t.calls = append(*t.calls, moved{direction, append([]byte(nil), b...), uint64(len(*t.calls)+1) * stepNs})
}

func (t *tap) Read(b []byte) (int, error) {
	n, err := t.Conn.Read(b)
	if n > 0 {
		t.note(bpfMessageDirectionMESSAGE_RECEIVED, b[:n])
	}
	return n, err
}

func (t *tap) Write(b []byte) (int, error) {
	t.note(bpfMessageDirectionMESSAGE_SENT, b)
	return t.Conn.Write(b)
}

// recording is a connection as both of its ends moved it.
type recording struct {
	mutex          sync.Mutex
	client, server []moved
	listener       net.Listener
}

func (r *recording) Accept() (net.Conn, error) {
	connection, err := r.listener.Accept()
	if err != nil {
		return nil, err
	}
	return &tap{connection, &r.mutex, &r.server}, nil
}
func (r *recording) Close() error   { return r.listener.Close() }
func (r *recording) Addr() net.Addr { return r.listener.Addr() }

func (r *recording) dial(ctx context.Context) (net.Conn, error) {
	var dialer net.Dialer
	connection, err := dialer.DialContext(ctx, "tcp", r.listener.Addr().String())
	if err != nil {
		return nil, err
	}
	return &tap{connection, &r.mutex, &r.client}, nil
}

func newRecording(t *testing.T) *recording {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return &recording{listener: listener}
}

// truth is what an application knows of an exchange; its key is the request's id.
type truth struct {
	method, target string
	status         int
	request, body  int64
	grpc           int // -1: none
	reset          bool
}

// recordHTTP records net/http talking to itself.
func recordHTTP(t *testing.T) (*recording, map[string]truth) {
	r := newRecording(t)
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Protocols: protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		var number, size int
		_, _ = fmt.Sscanf(r.URL.RawQuery, "status=%d&size=%d", &number, &size)
		if size%2 == 1 {
			w.Header().Set("Trailer", "x-sum")
			w.WriteHeader(http.StatusEarlyHints)
		}
		w.WriteHeader(number)
		_, _ = w.Write(make([]byte, size))
		w.Header().Set("x-sum", "1")
	})}
	var group sync.WaitGroup
	group.Go(func() { _ = server.Serve(r) })
	transport := &http.Transport{
		Protocols:   protocols,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return r.dial(ctx) },
	}
	want, random := map[string]truth{}, rand.New(rand.NewPCG(1, 2))
	var clients sync.WaitGroup
	for i := range 60 {
		id := fmt.Sprintf("id-%d", i)
		exchange := truth{
			method: []string{"GET", "POST", "PUT", "PURGE"}[i%4], status: []int{200, 404, 500, 299}[i/4%4], grpc: -1,
			body: int64(random.IntN(100)),
		}
		if i%10 == 9 {
			exchange.body = 100_000
		}
		if exchange.method != "GET" {
			exchange.request = int64(random.IntN(30_000))
		}
		exchange.target = fmt.Sprintf("/path/%d?status=%d&size=%d", i%7, exchange.status, exchange.body)
		want[id] = exchange
		ask := func() {
			request, err := http.NewRequest(exchange.method, "http://shop.example"+exchange.target,
				io.LimitReader(zeros{}, exchange.request))
			assert.NoError(t, err)
			request.Header.Set("x-request-id", id)
			request.Header.Set("traceparent", fmt.Sprintf("00-%032x-%016x-01", i+1, i+1))
			response, err := transport.RoundTrip(request)
			if assert.NoError(t, err) {
				_, err = io.Copy(io.Discard, response.Body)
				assert.NoError(t, err)
				_ = response.Body.Close()
			}
		}
		if i%3 == 0 || i < 3 { // the first makes the connection
			ask()
		} else {
			clients.Go(ask)
		}
	}
	clients.Wait()
	transport.CloseIdleConnections()
	_ = server.Close()
	group.Wait()
	return r, want
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// recordGRPC records grpc-go talking to itself.
func recordGRPC(t *testing.T) (*recording, map[string]truth) {
	r := newRecording(t)
	server := grpc.NewServer()
	fail := func(code int32) error {
		if code == 0 {
			return nil
		}
		return grpcstatus.Error(codes.Code(code), "as asked")
	}
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "shop.Cart",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: "Unary",
			Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				in := &wrapperspb.Int32Value{}
				if err := decode(in); err != nil {
					return nil, err
				}
				return in, fail(in.GetValue())
			},
		}},
		Streams: []grpc.StreamDesc{{
			StreamName: "Stream", ClientStreams: true, ServerStreams: true,
			Handler: func(_ any, stream grpc.ServerStream) error {
				for {
					in := &wrapperspb.Int32Value{}
					if err := stream.RecvMsg(in); errors.Is(err, io.EOF) {
						return nil
					} else if err != nil {
						return err
					}
					if err := stream.SendMsg(in); err != nil {
						return err
					}
					if in.GetValue() > 0 {
						return fail(in.GetValue())
					}
				}
			},
		}},
	}, nil)
	var group sync.WaitGroup
	group.Go(func() { _ = server.Serve(r) })
	client, err := grpc.NewClient("passthrough:///shop:1", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return r.dial(ctx) }))
	require.NoError(t, err)
	want := map[string]truth{}
	for i := range 60 {
		id, code := fmt.Sprintf("id-%d", i), int32(i%17)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		ctx = metadata.AppendToOutgoingContext(ctx, "x-request-id", id, "x-b3-traceid", "a", "x-b3-spanid", "b", "x-b3-sampled", "1")
		exchange := truth{method: "POST", target: "/shop.Cart/Unary", status: 200, grpc: int(code), request: -1, body: -1}
		if i%3 == 0 {
			exchange.target = "/shop.Cart/Stream"
			stream, err := client.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, exchange.target)
			require.NoError(t, err)
			require.NoError(t, stream.SendMsg(wrapperspb.Int32(0)))
			require.NoError(t, stream.RecvMsg(&wrapperspb.Int32Value{}))
			if exchange.reset = i%2 == 0; exchange.reset {
				cancel()
				for {
					if err = stream.RecvMsg(&wrapperspb.Int32Value{}); err != nil {
						break
					}
				}
				assert.Equal(t, codes.Canceled, grpcstatus.Code(err))
			} else {
				require.NoError(t, stream.SendMsg(wrapperspb.Int32(code)))
				require.NoError(t, stream.CloseSend())
				for {
					if err = stream.RecvMsg(&wrapperspb.Int32Value{}); err != nil {
						break
					}
				}
			}
		} else {
			err := client.Invoke(ctx, exchange.target, wrapperspb.Int32(code), &wrapperspb.Int32Value{})
			assert.Equal(t, codes.Code(code), grpcstatus.Code(err))
		}
		cancel()
		want[id] = exchange
	}
	require.NoError(t, client.Close())
	server.Stop()
	group.Wait()
	return r, want
}

// eachRecording tests with the calls of both ends of what was recorded.
func eachRecording(t *testing.T, test func(t *testing.T, role Role, calls []moved, want map[string]truth)) {
	for name, record := range map[string]func(*testing.T) (*recording, map[string]truth){"net/http": recordHTTP, "gRPC": recordGRPC} {
		r, want := record(t)
		r.mutex.Lock()
		defer r.mutex.Unlock()
		t.Run(name+" client", func(t *testing.T) { test(t, RoleClient, r.client, want) })
		t.Run(name+" server", func(t *testing.T) { test(t, RoleServer, r.server, want) })
	}
}

// play plays the calls, of which lost says which are lost.
func play(o *streamObserver, calls []moved, lost func(int) bool) *observed {
	var last uint64
	for i, call := range calls {
		o.move(call, lost != nil && lost(i))
		last = call.timeNs
	}
	return o.end(last+stepNs, 0)
}

func TestRecordedStreams(t *testing.T) {
	eachRecording(t, func(t *testing.T, role Role, calls []moved, want map[string]truth) {
		whole := play(newStreamObserver(requestsOf(role)), calls, nil)
		assert.Zero(t, whole.drops)
		require.Len(t, whole.exchanges, len(want))
		for i := range whole.exchanges {
			e := &whole.exchanges[i]
			w, ok := want[e.RequestID]
			require.True(t, ok, e.RequestID)
			got := truth{method: e.Method, target: e.Target, status: e.Status, request: w.request, body: w.body, grpc: -1}
			if w.request >= 0 {
				got.request, got.body = e.RequestBodyBytes, e.ResponseBodyBytes
			}
			if e.GRPC {
				got.grpc = e.GRPCStatus
				assert.Equal(t, "a-b-1", e.B3)
			} else {
				assert.NotEmpty(t, e.TraceParent)
			}
			if w.reset {
				w.grpc, got.reset = -1, e.ErrorType == "CANCEL"
			} else {
				assert.Empty(t, e.ErrorType)
			}
			assert.Equal(t, w, got, e.RequestID)
			assert.Equal(t, role, e.Role)
			assert.LessOrEqual(t, e.StartNs, e.ResponseNs)
			assert.LessOrEqual(t, e.ResponseNs, e.EndNs)
		}
	})
}

// honest fails if something is told that is not true.
func honest(t *testing.T, whole, got *observed, lost string) {
	t.Helper()
	want := map[uint32]*Exchange{}
	for i := range whole.exchanges {
		want[whole.exchanges[i].RequestOffset] = &whole.exchanges[i]
	}
	for i := range got.exchanges {
		e := got.exchanges[i]
		w := want[e.RequestOffset]
		require.NotNil(t, w, lost)
		delete(want, e.RequestOffset) // each at most once
		text := func(got *string, want string) {
			if *got == "" {
				*got = want
			}
		}
		size := func(got *int64, want int64) {
			if *got < 0 {
				*got = want
			}
		}
		text(&e.Method, w.Method)
		text(&e.Target, w.Target)
		text(&e.Host, w.Host)
		text(&e.UserAgent, w.UserAgent)
		text(&e.TraceParent, w.TraceParent)
		text(&e.RequestID, w.RequestID)
		if strings.HasPrefix(w.B3, e.B3) { // the decision may not be known
			text(&e.B3, w.B3)
			e.B3 = w.B3
		}
		size(&e.RequestBodyBytes, w.RequestBodyBytes)
		size(&e.ResponseBodyBytes, w.ResponseBodyBytes)
		e.GRPC = e.GRPC || w.GRPC
		if e.GRPCStatus < 0 {
			e.GRPCStatus = w.GRPCStatus
		}
		if e.Status == 0 {
			e.Status = w.Status
		}
		if e.ResponseNs == 0 {
			e.ResponseNs = w.ResponseNs
		}
		assert.Equal(t, *w, e, lost)
	}
}

func TestStreamsInAnyCalls(t *testing.T) {
	eachRecording(t, func(t *testing.T, role Role, calls []moved, _ map[string]truth) {
		whole := play(newStreamObserver(requestsOf(role)), calls, nil)
		for seed := range uint64(8) {
			random := rand.New(rand.NewPCG(seed, 1))
			pieces := split(random, calls, []int{1, 3, 30, 3000}[seed%4])
			o := newStreamObserver(requestsOf(role))
			got := play(o, pieces, nil)
			require.Equal(t, whole.exchanges, got.exchanges, "seed %d", seed)
			require.Zero(t, got.drops)
		}
	})
}

func TestStreamsFindPreface(t *testing.T) {
	eachRecording(t, func(t *testing.T, role Role, calls []moved, _ map[string]truth) {
		whole := play(newStreamObserver(requestsOf(role)), calls, nil)
		o := newStreamObserver(requestsOf(role))
		o.compactors[o.client].HidePreface = true
		got := play(o, calls, nil)
		require.Equal(t, whole.exchanges, got.exchanges)
		require.Zero(t, got.drops)
	})
}

func TestLostStreamsAreNotInvented(t *testing.T) {
	eachRecording(t, func(t *testing.T, role Role, calls []moved, _ map[string]truth) {
		whole := play(newStreamObserver(requestsOf(role)), calls, nil)
		random := rand.New(rand.NewPCG(3, 3))
		told, runs := 0, 0
		for _, pieces := range [][]moved{calls, split(random, calls, 300)} {
			step := max(1, len(pieces)/400)
			for gone := 0; gone < len(pieces); gone += step {
				// A trace that ends with a loss cannot show it.
				got := play(newStreamObserver(requestsOf(role)), pieces, func(i int) bool { return i == gone && !tail(pieces, i) })
				honest(t, whole, got, fmt.Sprintf("call %d of %d is lost", gone, len(pieces)))
				require.Zero(t, got.drops[dropMalformed], "call %d is lost", gone)
				told += len(got.exchanges)
				runs++
			}
		}
		t.Logf("one event lost: %.2f of %d exchanges are told", float64(told)/float64(runs), len(whole.exchanges))
		for seed := range uint64(60) {
			random := rand.New(rand.NewPCG(seed, 4))
			pieces := split(random, calls, []int{30, 300, 100_000}[seed%3])
			chance := []float64{0.01, 0.1, 0.4}[seed/3%3]
			gone := make([]bool, len(pieces))
			for i := range gone {
				gone[i] = random.Float64() < chance && !tail(pieces, i)
			}
			got := play(newStreamObserver(requestsOf(role)), pieces, func(i int) bool { return gone[i] })
			honest(t, whole, got, fmt.Sprintf("seed %d", seed))
			require.Zero(t, got.drops[dropMalformed], "seed %d", seed)
		}
	})
}

func (o *observed) method(stream uint32) string {
	for i := range o.exchanges {
		if o.exchanges[i].RequestOffset == stream {
			return o.exchanges[i].Method
		}
	}
	return ""
}

// tail says whether no call of the same direction follows.
func tail(calls []moved, at int) bool {
	for _, call := range calls[at+1:] {
		if call.direction == calls[at].direction {
			return false
		}
	}
	return true
}

func TestTruncatedStreamsAreNotInvented(t *testing.T) {
	eachRecording(t, func(t *testing.T, role Role, calls []moved, _ map[string]truth) {
		whole := play(newStreamObserver(requestsOf(role)), calls, nil)
		for most := 1; most < 400; most += 7 {
			o := newStreamObserver(requestsOf(role))
			for i := range o.compactors {
				o.compactors[i].MaxCaptured = most
			}
			got := play(o, calls, nil)
			// What is cut short of the last calls may be an end.
			for i := range got.exchanges {
				if got.exchanges[i].ErrorType == errorConnectionClosed {
					t.Errorf("stream %d is said to have failed", got.exchanges[i].RequestOffset)
				}
			}
			honest(t, whole, got, fmt.Sprintf("%d bytes are captured", most))
			require.Zero(t, got.drops[dropMalformed])
		}
	})
}

func TestStreamsJoinedMidway(t *testing.T) {
	eachRecording(t, func(t *testing.T, role Role, calls []moved, _ map[string]truth) {
		whole := play(newStreamObserver(requestsOf(role)), calls, nil)
		pieces := split(rand.New(rand.NewPCG(5, 5)), calls, 2000)
		for _, pieces := range [][]moved{calls, pieces} {
			for from := 1; from < len(pieces); from++ {
				got := play(newStreamObserver(requestsOf(role)), pieces, func(i int) bool { return i < from })
				honest(t, whole, got, fmt.Sprintf("joined at call %d of %d", from, len(pieces)))
				require.Zero(t, got.drops[dropMalformed], "joined at call %d", from)
				for i := range got.exchanges {
					// Other methods are only in the dynamic table.
					if e := &got.exchanges[i]; e.Method == "" {
						method := whole.method(e.RequestOffset)
						require.True(t, method != "GET" && method != "POST", "the method %s is not known", method)
					}
				}
				if from < len(pieces)/2 {
					require.Greater(t, len(got.exchanges), len(whole.exchanges)/4, "joined at call %d", from)
				}
			}
		}
	})
}
