//go:build linux

package http

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"golang.org/x/sys/unix"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http/http2"
	"github.com/ebpfreceiver/ebpfreceiver/internal/http/http2/http2test"
	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

// moved is a call that moved bytes of an HTTP/2 connection.
type moved struct {
	direction bpfMessageDirection
	bytes     []byte
	timeNs    uint64
}

// observed is what comes of a connection.
type observed struct {
	exchanges []Exchange
	drops     [dropReasons]uint64
	pairing   *pairing
	streams   *streams
}

// streamObserver plays calls as the kernel side tells of them.
type streamObserver struct {
	role       Role // 0: to be found out
	client     bpfMessageDirection
	compactors [2]http2test.Compactor
	seen       observed
}

// newStreamObserver observes one end, at which requests move in the direction.
func newStreamObserver(requests bpfMessageDirection) *streamObserver {
	o := &streamObserver{client: requests}
	o.compactors[1-requests].NoPreface = true
	o.seen.pairing = newPairing(1, func(*messageHead, Role) (*workload.Workload, bool) { return nil, true }, func(e *Exchange) {
		o.seen.exchanges = append(o.seen.exchanges, *e)
	})
	return o
}

func requestsOf(role Role) bpfMessageDirection {
	if role == RoleServer {
		return bpfMessageDirectionMESSAGE_RECEIVED
	}
	return bpfMessageDirectionMESSAGE_SENT
}

// move tells of a call, unless it is lost. What the kernel side follows goes on all the same.
func (o *streamObserver) move(call moved, lost bool) {
	event := o.compactors[call.direction].Call(call.bytes, call.timeNs)
	if lost {
		return
	}
	if o.seen.streams == nil {
		o.seen.streams = newStreams(o.seen.pairing, o.role)
	}
	m := &message{TimeNs: call.timeNs, Cookie: 1, Direction: uint8(call.direction), SrttUs: 7, Retransmits: 1}
	head := (&wire{cookie: 1, role: RoleClient}).describe()
	o.seen.streams.handle(m, head, &event)
}

func (o *streamObserver) end(timeNs uint64, number int32) *observed {
	if o.seen.streams != nil {
		o.seen.streams.end(&message{TimeNs: timeNs, Error: number, SrttUs: 7})
	}
	o.seen.drops = o.seen.pairing.drops
	return &o.seen
}

// frames makes the frames of both ends.
type frames struct {
	role     Role
	nowNs    uint64
	calls    []moved
	encoders [2]*hpack.Encoder // of client and server
	block    bytes.Buffer
	begun    bool
}

func newFrames(role Role) *frames {
	f := &frames{role: role}
	for i := range f.encoders {
		f.encoders[i] = hpack.NewEncoder(&f.block)
	}
	return f
}

// send moves bytes in one call.
func (f *frames) send(client bool, bytes []byte) *frames {
	f.nowNs += stepNs
	direction := requestsOf(f.role)
	if !client {
		direction = 1 - direction
	} else if !f.begun {
		f.begun = true
		bytes = append([]byte(http2test.Preface+"\x00\x00\x00\x04\x00\x00\x00\x00\x00"), bytes...)
	}
	f.calls = append(f.calls, moved{direction, bytes, f.nowNs})
	return f
}

func (f *frames) write(client bool, write func(*xhttp2.Framer)) *frames {
	var b bytes.Buffer
	framer := xhttp2.NewFramer(&b, nil)
	framer.AllowIllegalWrites = true
	write(framer)
	return f.send(client, b.Bytes())
}

// headers sends a header block: "name: value" lines. The last one may be "end".
func (f *frames) headers(client bool, stream uint32, lines ...string) *frames {
	end := len(lines) > 0 && lines[len(lines)-1] == "end"
	if end {
		lines = lines[:len(lines)-1]
	}
	encoder := f.encoders[1]
	if client {
		encoder = f.encoders[0]
	}
	f.block.Reset()
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		_ = encoder.WriteField(hpack.HeaderField{Name: name, Value: value})
	}
	fragment := bytes.Clone(f.block.Bytes())
	return f.write(client, func(w *xhttp2.Framer) {
		_ = w.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: stream, BlockFragment: fragment, EndStream: end, EndHeaders: true})
	})
}

func (f *frames) ask(stream uint32, lines ...string) *frames {
	return f.headers(true, stream, append([]string{
		":method: GET", ":scheme: http", fmt.Sprintf(":path: /%d", stream), ":authority: shop",
	}, lines...)...)
}

func (f *frames) answer(stream uint32, lines ...string) *frames {
	return f.headers(false, stream, lines...)
}

func (f *frames) data(client bool, stream uint32, length int, end bool) *frames {
	return f.write(client, func(w *xhttp2.Framer) { _ = w.WriteData(stream, end, make([]byte, length)) })
}

func (f *frames) reset(client bool, stream uint32, code xhttp2.ErrCode) *frames {
	return f.write(client, func(w *xhttp2.Framer) { _ = w.WriteRSTStream(stream, code) })
}

func (f *frames) goAway(client bool, last uint32, code xhttp2.ErrCode) *frames {
	return f.write(client, func(w *xhttp2.Framer) { _ = w.WriteGoAway(last, code, nil) })
}

// brief says what tests are about.
func brief(e *Exchange) string {
	text := fmt.Sprintf("%d %s %s %d", e.RequestOffset, e.Method, e.Target, e.Status)
	if e.GRPC {
		text += fmt.Sprintf(" grpc %d", e.GRPCStatus)
	}
	if e.ErrorType != "" {
		text += " " + e.ErrorType
	}
	return fmt.Sprintf("%s %d/%d %d-%d-%d", text, e.RequestBodyBytes, e.ResponseBodyBytes,
		e.StartNs/stepNs, e.ResponseNs/stepNs, e.EndNs/stepNs)
}

func TestStreams(t *testing.T) {
	grpc := []string{":method: POST", ":scheme: http", ":path: /a.B/C", "content-type: application/grpc+proto"}
	for name, test := range map[string]struct {
		play  func(f *frames)
		lost  []int // calls
		error int32
		want  []string
		drops map[dropReason]uint64
	}{
		"an exchange": {
			play: func(f *frames) {
				f.ask(1, "end").answer(1, ":status: 200").data(false, 1, 10, false).data(false, 1, 5, true)
			},
			want: []string{"1 GET /1 200 0/15 1-2-4"},
		},
		"bodies, trailers of a request": {
			play: func(f *frames) {
				f.ask(1).data(true, 1, 7, false).headers(true, 1, "x-sum: 1", "end").answer(1, ":status: 204", "end")
			},
			want: []string{"1 GET /1 204 7/0 1-4-4"},
		},
		"responses in another order": {
			play: func(f *frames) {
				f.ask(1, "end").ask(3, "end").answer(3, ":status: 404", "end").answer(1, ":status: 500").data(false, 1, 1, true)
			},
			want: []string{"3 GET /3 404 0/0 2-3-3", "1 GET /1 500 0/1 1-4-5"},
		},
		"interim responses": {
			play: func(f *frames) {
				f.ask(1).answer(1, ":status: 100").data(true, 1, 3, true).answer(1, ":status: 103", "link: a")
				f.answer(1, ":status: 201", "end")
			},
			want: []string{"1 GET /1 201 3/0 1-5-5"},
		},
		"an early response": {
			play: func(f *frames) {
				f.ask(1).data(true, 1, 3, false).answer(1, ":status: 413", "end").reset(false, 1, xhttp2.ErrCodeNo)
				f.data(true, 1, 3, true)
			},
			want: []string{"1 GET /1 413 -1/0 1-3-3"},
		},
		"gRPC": {
			play: func(f *frames) {
				f.headers(true, 1, grpc...).data(true, 1, 9, true).answer(1, ":status: 200", "content-type: application/grpc")
				f.data(false, 1, 8, false).answer(1, "grpc-status: 5", "grpc-message: gone", "end")
			},
			want: []string{"1 POST /a.B/C 200 grpc 5 9/8 1-3-5"},
		},
		"gRPC with trailers only": {
			play: func(f *frames) {
				f.headers(true, 1, grpc...).data(true, 1, 9, true)
				f.answer(1, ":status: 200", "content-type: application/grpc", "grpc-status: 12", "end")
			},
			want: []string{"1 POST /a.B/C 200 grpc 12 9/0 1-3-3"},
		},
		"gRPC that a proxy refuses": {
			play: func(f *frames) { f.headers(true, 1, grpc...).answer(1, ":status: 503", "end") },
			want: []string{"1 POST /a.B/C 503 grpc -1 -1/0 1-2-2"},
		},
		"a client's cancel": {
			play: func(f *frames) {
				f.ask(1, "end").reset(true, 1, xhttp2.ErrCodeCancel).answer(1, ":status: 200", "end")
			},
			want: []string{"1 GET /1 0 CANCEL 0/-1 1-0-2"},
		},
		"a reset within a response": {
			play: func(f *frames) {
				f.ask(1, "end").answer(1, ":status: 200").data(false, 1, 5, false).reset(false, 1, xhttp2.ErrCodeInternal)
			},
			want: []string{"1 GET /1 200 INTERNAL_ERROR 0/-1 1-2-4"},
		},
		"an unknown error code": {
			play: func(f *frames) { f.ask(1, "end").reset(false, 1, 0xabc) },
			want: []string{"1 GET /1 0 0xabc 0/-1 1-0-2"},
		},
		"a server that goes away": {
			play: func(f *frames) {
				f.ask(1, "end").ask(3, "end").ask(5, "end").goAway(false, 1<<31-1, xhttp2.ErrCodeNo)
				f.goAway(false, 1, xhttp2.ErrCodeNo).ask(7, "end").answer(1, ":status: 200", "end")
			},
			want: []string{
				"3 GET /3 0 goaway 0/-1 2-0-5", "5 GET /5 0 goaway 0/-1 3-0-5", "7 GET /7 0 goaway 0/-1 6-0-6",
				"1 GET /1 200 0/0 1-7-7",
			},
		},
		"a server that is upset": {
			play: func(f *frames) { f.ask(1, "end").goAway(false, 0, xhttp2.ErrCodeEnhanceYourCalm) },
			want: []string{"1 GET /1 0 ENHANCE_YOUR_CALM 0/-1 1-0-2"},
		},
		"a client that goes away": {
			play: func(f *frames) { f.ask(1, "end").goAway(true, 0, xhttp2.ErrCodeNo).answer(1, ":status: 200", "end") },
			want: []string{"1 GET /1 200 0/0 1-3-3"},
		},
		"the connection ends": {
			play:  func(f *frames) { f.ask(3, "end").ask(1, "end").ask(5, "end").answer(3, ":status: 200") },
			error: int32(unix.ECONNRESET),
			want:  []string{"3 GET /3 200 ECONNRESET 0/-1 1-4-5", "5 GET /5 0 ECONNRESET 0/-1 3-0-5"},
		},
		"CONNECT": {
			play: func(f *frames) {
				f.headers(true, 1, ":method: CONNECT", ":authority: a:1").answer(1, ":status: 200").data(true, 1, 3, true)
				f.data(false, 1, 4, true)
			},
			want: []string{"1 CONNECT a:1 200 3/4 1-2-4"},
		},
		"extended CONNECT": {
			play: func(f *frames) {
				f.headers(true, 1, ":method: CONNECT", ":protocol: websocket", ":scheme: http", ":path: /chat")
				f.answer(1, ":status: 200").data(false, 1, 4, true).data(true, 1, 3, true)
			},
			want: []string{"1 CONNECT /chat 200 3/4 1-2-4"},
		},
		"CONNECT that is refused": {
			play: func(f *frames) {
				f.headers(true, 1, ":method: CONNECT", ":authority: a:1").answer(1, ":status: 403", "end")
			},
			want: []string{"1 CONNECT a:1 403 -1/0 1-2-2"},
		},
		"a tunnel that is cut in good order": {
			play: func(f *frames) {
				f.headers(true, 1, ":method: CONNECT", ":authority: a:1").answer(1, ":status: 200").reset(true, 1, 0)
			},
			want: []string{"1 CONNECT a:1 200 -1/-1 1-2-3"},
		},
		"what a server pushes": {
			play: func(f *frames) {
				f.ask(1, "end").write(false, func(w *xhttp2.Framer) {
					_ = w.WritePushPromise(xhttp2.PushPromiseParam{
						StreamID: 1, PromiseID: 2, BlockFragment: []byte("\x82\x84\x86"), EndHeaders: true,
					})
				})
				f.answer(2, ":status: 200").answer(1, ":status: 200", "end").data(false, 2, 10, true)
			},
			want: []string{"1 GET /1 200 0/0 1-4-4"},
		},
		"a request that was lost": {
			play: func(f *frames) {
				f.ask(1, "end").ask(3, "end").ask(5, "end").answer(5, ":status: 200", "end")
				f.answer(3, ":status: 200", "end").answer(1, ":status: 200", "end")
			},
			lost:  []int{1},
			want:  []string{"5 GET /5 200 0/0 3-4-4", "1 GET /1 200 0/0 1-6-6"},
			drops: map[dropReason]uint64{dropUnpaired: 1},
		},
		"a response that was lost": {
			play: func(f *frames) {
				f.ask(1, "end").answer(1, ":status: 200", "end").ask(3, "end").answer(3, ":status: 200", "end")
			},
			lost:  []int{1},
			want:  []string{"3 GET /3 200 0/0 3-4-4"},
			drops: map[dropReason]uint64{dropGap: 1},
		},
		"data that was lost within a frame": {
			play: func(f *frames) {
				f.ask(1, "end").answer(1, ":status: 200")
				for _, part := range []int{9 + 10, 20, 30} {
					f.send(false, make([]byte, part))
				}
				last := len(f.calls) - 3
				copy(f.calls[last].bytes, "\x00\x00\x3c\x00\x01\x00\x00\x00\x01")
			},
			lost: []int{3},
			want: []string{"1 GET /1 200 0/60 1-2-5"},
		},
		"data that was lost": {
			play: func(f *frames) {
				f.ask(1, "end").answer(1, ":status: 200").data(false, 1, 5, false).data(false, 1, 5, true)
			},
			lost: []int{2},
			want: []string{"1 GET /1 200 0/-1 1-2-4"},
		},
		"data that was lost, of a length that was told": {
			play: func(f *frames) {
				f.ask(1, "end").answer(1, ":status: 200", "content-length: 10").data(false, 1, 5, false).data(false, 1, 5, true)
			},
			lost: []int{2},
			want: []string{"1 GET /1 200 0/10 1-2-4"},
		},
		"a header section that was lost": {
			play: func(f *frames) {
				f.headers(true, 1, grpc...).answer(1, ":status: 200").data(false, 1, 5, false).answer(1, "grpc-status: 0", "end")
			},
			lost: []int{1},
			want: []string{"1 POST /a.B/C 0 grpc 0 -1/-1 1-0-4"},
		},
		"a reset after what was lost": {
			play: func(f *frames) {
				f.ask(1, "end").answer(1, ":status: 200", "end").answer(3, ":status: 200").reset(false, 1, xhttp2.ErrCodeNo)
			},
			lost:  []int{1},
			drops: map[dropReason]uint64{dropGap: 1},
		},
		"responses to requests from before": {
			play: func(f *frames) {
				f.answer(1, ":status: 200").data(false, 1, 5, false).answer(1, "grpc-status: 0", "end").answer(3, ":status: 100")
				f.answer(3, ":status: 404", "end")
			},
		},
		"not HTTP/2": {
			play: func(f *frames) {
				f.ask(1, "end").send(false, []byte("\x00\x00\x01\x04\x00\x00\x00\x00\x01a")).answer(1, ":status: 200", "end")
			},
			drops: map[dropReason]uint64{dropMalformed: 1},
		},
		"a response from the client": {
			play:  func(f *frames) { f.ask(1, "end").headers(true, 3, ":status: 200", "end").ask(5, "end") },
			drops: map[dropReason]uint64{dropMalformed: 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, role := range []Role{RoleServer, RoleClient} {
				f := newFrames(role)
				test.play(f)
				o := newStreamObserver(requestsOf(role))
				for i, call := range f.calls {
					o.move(call, slices.Contains(test.lost, i))
				}
				seen := o.end(f.nowNs+stepNs, test.error)
				var got []string
				for i := range seen.exchanges {
					e := &seen.exchanges[i]
					got = append(got, brief(e))
					assert.Equal(t, role, e.Role)
					assert.Equal(t, 2, e.MajorVersion)
					assert.EqualValues(t, 7, e.SRTTUs)
				}
				assert.Equal(t, test.want, got)
				var drops [dropReasons]uint64
				for reason, count := range test.drops {
					drops[reason] = count
				}
				assert.Equal(t, drops, seen.drops)
				assert.Empty(t, seen.pairing.clients)
				assert.Empty(t, seen.streams.open)
			}
		})
	}
}

func TestStreamFields(t *testing.T) {
	f := newFrames(RoleClient).headers(true, 1, ":method: PUT", ":scheme: http", ":path: /a?b", "host: h", "user-agent: u",
		"traceparent: tp", "tracestate: ts", "x-b3-traceid: 1", "x-b3-spanid: 2", "x-b3-sampled: 1", "x-b3-parentspanid: 3",
		"grpc-trace-bin: AAA", "x-request-id: id", "content-type: application/grpc-web", "cookie: secret", "end")
	f.answer(1, ":status: 200", "end")
	o := newStreamObserver(requestsOf(RoleClient))
	for _, call := range f.calls {
		o.move(call, false)
	}
	require.Len(t, o.seen.exchanges, 1)
	head := (&wire{cookie: 1, role: RoleClient}).describe()
	assert.Equal(t, Exchange{
		Role: RoleClient, StartNs: 1000, ResponseNs: 2000, EndNs: 2000, Method: "PUT", Target: "/a?b", Host: "h", UserAgent: "u",
		TraceParent: "tp", TraceState: "ts", B3: "1-2-1-3", TraceBin: "AAA", RequestID: "id", MajorVersion: 2, GRPC: true,
		Status: 200, GRPCStatus: -1, Local: head.local(), Peer: head.peer(), FlowID: head.flowID(), RequestOffset: 1,
		SRTTUs: 7, Retransmits: 1,
	}, o.seen.exchanges[0])
}

func TestB3(t *testing.T) {
	for want, lines := range map[string][]string{
		"":          {},
		"0":         {"x-b3-sampled: 0"},
		"1":         {"x-b3-sampled: true", "x-b3-traceid: a"},
		"d":         {"x-b3-flags: 1"},
		"a-b":       {"x-b3-traceid: a", "x-b3-spanid: b", "x-b3-parentspanid: c"},
		"a-b-0":     {"x-b3-traceid: a", "x-b3-spanid: b", "x-b3-sampled: false"},
		"a-b-d-c":   {"x-b3-traceid: a", "x-b3-spanid: b", "x-b3-flags: 1", "x-b3-sampled: 1", "x-b3-parentspanid: c"},
		"x-y-1-z":   {"b3: x-y-1-z", "x-b3-traceid: a", "x-b3-spanid: b"},
		"a-b-1":     {"x-b3-traceid: a", "x-b3-spanid: b", "x-b3-sampled: 1", "x-b3-flags: 0"},
		"a-b-1-c-d": {"x-b3-traceid: a", "x-b3-spanid: b", "x-b3-sampled: 1", "x-b3-parentspanid: c-d"},
	} {
		f := newFrames(RoleServer).ask(1, append(lines, "end")...).answer(1, ":status: 200", "end")
		o := newStreamObserver(requestsOf(RoleServer))
		for _, call := range f.calls {
			o.move(call, false)
		}
		require.Len(t, o.seen.exchanges, 1)
		assert.Equal(t, want, o.seen.exchanges[0].B3)
	}
}

// TestUpgrade goes from HTTP/1 to HTTP/2 (h2c).
func TestUpgrade(t *testing.T) {
	o := newStreamObserver(requestsOf(RoleClient))
	o.seen.streams = newStreams(o.seen.pairing, RoleClient)
	key := exchangeKey{9, 4}
	o.seen.pairing.clients[key] = identity{}
	o.seen.streams.adopt(&pendingExchange{selected: true, Exchange: Exchange{
		Role: RoleClient, Method: "GET", Target: "/up", MinorVersion: 1, StartNs: 1, FlowID: 9, RequestOffset: 4,
	}})
	f := newFrames(RoleClient).ask(3, "end").answer(1, ":status: 200", "end").answer(3, ":status: 201", "end")
	for _, call := range f.calls {
		o.move(call, false)
	}
	require.Len(t, o.seen.exchanges, 2)
	assert.Equal(t, "4 GET /up 200 0/0 0-2-2", brief(&o.seen.exchanges[0]))
	assert.Equal(t, "3 GET /3 201 0/0 1-3-3", brief(&o.seen.exchanges[1]))
	assert.Empty(t, o.seen.pairing.clients)
	assert.Zero(t, o.end(1, 0).drops)
}

func TestStreamsBounds(t *testing.T) {
	f := newFrames(RoleServer)
	for id := uint32(1); id <= 2*maxPending+1; id += 2 {
		f.ask(id, "end")
	}
	f.answer(2*maxPending+1, ":status: 200", "end")
	o := newStreamObserver(requestsOf(RoleServer))
	for _, call := range f.calls {
		o.move(call, false)
	}
	assert.Len(t, o.seen.streams.open, maxPending)
	assert.EqualValues(t, 1, o.seen.pairing.drops[dropPendingFull])
	assert.Zero(t, o.seen.pairing.drops[dropUnpaired])

	// What may have ended in a loss makes room.
	o.move(newFrames(RoleServer).data(false, 1, 1, false).calls[0], true)
	o.move(newFrames(RoleServer).answer(3, ":status: 200").calls[0], false)
	begin := newFrames(RoleServer)
	begin.begun = true
	o.move(begin.ask(2*maxPending+3, "end").calls[0], false)
	assert.Len(t, o.seen.streams.open, 2)
	assert.EqualValues(t, maxPending-1, o.seen.pairing.drops[dropGap])
	assert.LessOrEqual(t, len(o.seen.streams.unused), keptPending)
}

func TestStreamsSweep(t *testing.T) {
	f := newFrames(RoleServer).ask(1, "end").ask(3, "end")
	o := newStreamObserver(requestsOf(RoleServer))
	for _, call := range f.calls {
		o.move(call, false)
	}
	s := o.seen.streams
	assert.False(t, s.sweep(f.nowNs+uint64(idleConnection)+stepNs))
	assert.Len(t, s.open, 2)
	o.move(newFrames(RoleServer).data(false, 1, 1, false).calls[0], true)
	o.move(newFrames(RoleServer).answer(3, ":status: 200").calls[0], false)
	s.lastNs = f.nowNs
	assert.False(t, s.sweep(f.nowNs+uint64(idleConnection)-stepNs), "it is not idle for long")
	assert.Len(t, s.open, 2)
	assert.False(t, s.sweep(f.nowNs+uint64(idleConnection)+stepNs))
	assert.Len(t, s.open, 1)
	assert.True(t, s.sweep(f.nowNs+uint64(idleRequest)+uint64(time.Minute)))
	assert.Empty(t, s.open)
	assert.EqualValues(t, 2, o.seen.pairing.drops[dropGap])
}

// split cuts calls into others.
func split(random *rand.Rand, calls []moved, largest int) (pieces []moved) {
	for _, call := range calls {
		for len(call.bytes) > 0 {
			took := min(len(call.bytes), 1+random.IntN(largest))
			pieces = append(pieces, moved{call.direction, call.bytes[:took], call.timeNs})
			call.bytes = call.bytes[took:]
		}
	}
	return pieces
}

// FuzzStreams gives any bytes to both directions of a connection, in any calls, of which some are lost. It must not panic,
// and must leave nothing behind.
func FuzzStreams(f *testing.F) {
	seed := newFrames(RoleServer).ask(1, "end").answer(1, ":status: 200", "content-type: application/grpc")
	seed.data(false, 1, 9, false).answer(1, "grpc-status: 0", "end").ask(3).reset(true, 3, xhttp2.ErrCodeCancel)
	seed.ask(5).goAway(false, 3, 0)
	var directions [2][]byte
	for _, call := range seed.calls {
		directions[call.direction] = append(directions[call.direction], call.bytes...)
	}
	f.Add(directions[0], directions[1], uint64(0), uint64(1))
	f.Add(directions[0], directions[1], uint64(5), uint64(2))
	f.Add(directions[1], directions[0], uint64(0), uint64(3))
	f.Fuzz(func(t *testing.T, received, sent []byte, lost, seed uint64) {
		random := rand.New(rand.NewPCG(seed, 1))
		o := newStreamObserver(bpfMessageDirectionMESSAGE_RECEIVED)
		rest := [2][]byte{received, sent}
		for i := 0; len(rest[0])+len(rest[1]) > 0; i++ {
			direction := bpfMessageDirection(random.IntN(2))
			took := min(len(rest[direction]), 1+random.IntN(200))
			if took == 0 {
				continue
			}
			o.compactors[direction].MaxCaptured = int(seed>>8) & 0xff
			o.move(moved{direction, rest[direction][:took], uint64(i) * stepNs}, lost>>(i%64)&1 != 0)
			rest[direction] = rest[direction][took:]
		}
		seen := o.end(1<<40, 0)
		if seen.streams == nil {
			return
		}
		require.Empty(t, seen.streams.open)
		require.Empty(t, seen.pairing.clients)
		for i := range seen.exchanges {
			e := &seen.exchanges[i]
			require.LessOrEqual(t, e.StartNs, e.EndNs)
			require.True(t, e.Status == 0 || e.Status >= 200)
		}
	})
}

// BenchmarkStreams measures calls of gRPC with one message each way, each of two calls a direction, as a server has them.
func BenchmarkStreams(b *testing.B) {
	const exchanges = 1000
	var grpc, traced []moved
	for _, kind := range []*[]moved{&grpc, &traced} {
		f := newFrames(RoleServer)
		for i := range exchanges {
			id := uint32(2*i + 1)
			lines := []string{
				":method: POST", ":scheme: http", fmt.Sprintf(":path: /shop.Cart/Method%d", i%5), ":authority: cart:8080",
				"content-type: application/grpc", "user-agent: grpc-go/1.83.1", "te: trailers",
			}
			if kind == &traced {
				lines = append(lines, fmt.Sprintf("grpc-timeout: %du", 999000+i), fmt.Sprintf("traceparent: 00-%032x-%016x-01", i*7919, i))
			}
			f.headers(true, id, lines...).data(true, id, 50, true)
			f.answer(id, ":status: 200", "content-type: application/grpc").data(false, id, 50, false)
			f.answer(id, "grpc-status: 0", "grpc-message: ", "end")
		}
		*kind = f.calls
	}
	for name, calls := range map[string][]moved{"repeated headers": grpc, "a traceparent each": traced} {
		b.Run(name, func(b *testing.B) {
			type event struct {
				message
				call http2.Call
			}
			var events []event
			compactors := [2]http2test.Compactor{{}, {NoPreface: true}}
			for _, call := range calls {
				events = append(events, event{
					message{TimeNs: call.timeNs, Direction: uint8(call.direction)},
					compactors[call.direction].Call(call.bytes, call.timeNs),
				})
			}
			head := (&wire{cookie: 1, role: RoleServer}).describe()
			count := 0
			p := newPairing(1, func(*messageHead, Role) (*workload.Workload, bool) { return nil, true }, func(*Exchange) { count++ })
			b.ReportAllocs()
			var s *streams
			for i := range b.N {
				if i%exchanges == 0 {
					s = newStreams(p, 0)
				}
				first := i % exchanges * 5
				for j := first; j < first+5; j++ {
					s.handle(&events[j].message, head, &events[j].call)
				}
			}
			if count != b.N {
				b.Fatalf("%d exchanges of %d, drops %v", count, b.N, p.drops)
			}
		})
	}
}
