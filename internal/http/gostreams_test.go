//go:build linux

package http

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http/http2"
	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

// What the scenes of streams have: a server's connection, which a goroutine reads that another has started.
const (
	streamPID, streamCookie                = 7, 77
	streamStarter, streamReads             = 9, 10
	streamServes, streamNumber, streamAsks = 30, 3, 40
)

// newStreamScene has one request open, called "a".
func newStreamScene() (*pairing, *openStream) {
	p := newPairing(10, func(*messageHead, Role) (*workload.Workload, bool) { return nil, true }, func(*Exchange) {})
	head := &messageHead{Pid: streamPID}
	s := newStreams(p, RoleServer)
	p.remember(streamCookie, head).multiplexed = s
	m := &message{Cookie: streamCookie, Goroutine: streamReads, ParentGoroutine: streamStarter, TimeNs: 1}
	p.goStreams.reads(s, m, head)
	o := s.add(streamNumber)
	o.Role, o.id = RoleServer, *nameID("a")
	o.service = p.serving.receive(m, streamPID, schedulingGoroutines, &o.id)
	return p, o
}

// toldOfStream is what the kernel side tells.
func toldOfStream(event bpfGoStreamEvent, number uint32, parent, serves uint64) *message {
	return &message{
		Kind: uint8(bpfMessageKindMESSAGE_STREAM), Cookie: streamPID, TimeNs: 2, Offset: number, Length: uint32(event),
		Goroutine: serves, ParentGoroutine: parent,
	}
}

func TestServedStreams(t *testing.T) {
	const (
		read    = bpfGoStreamEventGO_STREAM_READ
		served  = bpfGoStreamEventGO_STREAM_SERVED
		handled = bpfGoStreamEventGO_STREAM_HANDLED
	)
	for name, test := range map[string]struct {
		told  []*message
		pid   uint32
		known bool
	}{
		"started by the reader":           {told: []*message{toldOfStream(served, streamNumber, streamReads, streamServes)}, known: true},
		"started by who started it":       {told: []*message{toldOfStream(handled, streamNumber, streamStarter, streamServes)}, known: true},
		"started by who read the preface": {told: []*message{toldOfStream(handled, streamNumber, streamReads, streamServes)}, known: true},
		"started by a later reader": {told: []*message{
			toldOfStream(read, 0, streamReads, 11), toldOfStream(served, streamNumber, 11, streamServes),
		}, known: true},
		"a reader of another connection": {told: []*message{
			toldOfStream(read, 0, 12, 11), toldOfStream(served, streamNumber, 11, streamServes),
		}},
		"not started by the reader": {told: []*message{toldOfStream(served, streamNumber, streamStarter, streamServes)}},
		"by nobody":                 {told: []*message{toldOfStream(served, streamNumber, 0, streamServes)}},
		"another stream":            {told: []*message{toldOfStream(served, 5, streamReads, streamServes)}},
		"another process":           {told: []*message{toldOfStream(served, streamNumber, streamReads, streamServes)}, pid: 8},
	} {
		t.Run(name, func(t *testing.T) {
			p, o := newStreamScene()
			for _, m := range test.told {
				if test.pid != 0 {
					m.Cookie = uint64(test.pid)
				}
				p.handle(m, nil, nil)
			}
			asks := &message{TimeNs: 3, Goroutine: streamServes}
			parent, part := p.serving.send(asks, streamPID, schedulingGoroutines)
			if !test.known {
				assert.Nil(t, parent)
				assert.EqualValues(t, 1, p.goStreams.unmatched)
				return
			}
			require.NotNil(t, parent)
			assert.Equal(t, nameID("a").span, parent.span)
			assert.Zero(t, p.goStreams.unmatched)
			p.serving.release(&part)

			p.leave(&o.Exchange, &message{TimeNs: 4})
			assert.NotContains(t, p.serving.units, unit{streamPID, true, streamServes}, "the goroutine ends with the request")
			parent, _ = p.serving.send(asks, streamPID, schedulingGoroutines)
			assert.Nil(t, parent)
		})
	}
}

// A handler that ends before what it asks for is answered is forgotten when that is.
func TestServedStreamsLeaveNothing(t *testing.T) {
	p, o := newStreamScene()
	p.handle(toldOfStream(bpfGoStreamEventGO_STREAM_SERVED, streamNumber, streamReads, streamServes), nil, nil)
	_, part := p.serving.send(&message{TimeNs: 3, Goroutine: streamServes}, streamPID, schedulingGoroutines)
	p.leave(&o.Exchange, nil)
	require.Contains(t, p.serving.units, unit{streamPID, true, streamServes})
	p.serving.release(&part)
	assert.NotContains(t, p.serving.units, unit{streamPID, true, streamServes})
}

// A response that is under way was not made by who begins to serve now.
func TestServedStreamsAnswered(t *testing.T) {
	p, o := newStreamScene()
	o.service.stage = stageAnswered
	o.service.by.unanswered--
	p.handle(toldOfStream(bpfGoStreamEventGO_STREAM_SERVED, streamNumber, streamReads, streamServes), nil, nil)
	assert.EqualValues(t, 1, p.goStreams.unmatched)
	assert.EqualValues(t, streamReads, o.service.by.number)
}

func TestAskedStreams(t *testing.T) {
	p, _ := newStreamScene()
	told := &message{
		Kind: uint8(bpfMessageKindMESSAGE_STREAM), Direction: uint8(bpfMessageDirectionMESSAGE_SENT), Cookie: streamPID,
		Offset: streamNumber, Tail: 50, Goroutine: streamAsks, ParentGoroutine: streamServes,
	}
	p.handle(told, nil, nil)
	sent := &message{Goroutine: 50, ParentGoroutine: 1, TimeNs: 5}
	for name, other := range map[string]*message{
		"another stream":  p.goStreams.asks(sent, streamPID, 5),
		"another process": p.goStreams.asks(sent, 8, streamNumber),
	} {
		assert.Same(t, sent, other, name)
	}
	asks := p.goStreams.asks(sent, streamPID, streamNumber)
	assert.Equal(t, &message{Goroutine: streamAsks, ParentGoroutine: streamServes, TimeNs: 5}, asks)
	assert.EqualValues(t, 50, sent.Goroutine)
	assert.Same(t, sent, p.goStreams.asks(sent, streamPID, streamNumber), "it is told once")
	stranger := &message{Goroutine: 51}
	p.handle(told, nil, nil)
	assert.Same(t, stranger, p.goStreams.asks(stranger, streamPID, streamNumber), "another writer")
	none := &message{}
	assert.Same(t, none, p.goStreams.asks(none, streamPID, streamNumber))
}

func TestStreamsAreBounded(t *testing.T) {
	p, _ := newStreamScene()
	for number := range uint32(2 * maxStreamAskers) {
		p.handle(&message{
			Kind: uint8(bpfMessageKindMESSAGE_STREAM), Direction: uint8(bpfMessageDirectionMESSAGE_SENT), Cookie: streamPID,
			Offset: 2*number + 1, Tail: 50, Goroutine: streamAsks,
		}, nil, nil)
	}
	assert.LessOrEqual(t, len(p.goStreams.askers), maxStreamAskers)
	assert.EqualValues(t, maxStreamAskers, p.goStreams.unmatched)

	s := p.connections[streamCookie].multiplexed
	for reader := range uint64(2 * maxStreamReaders) {
		p.goStreams.reads(newStreams(p, RoleServer), &message{Goroutine: 100 + reader, ParentGoroutine: 1, Cookie: 1}, &messageHead{})
	}
	assert.LessOrEqual(t, len(p.goStreams.readers), maxStreamReaders)
	p.goStreams.reads(s, &message{Goroutine: streamReads, ParentGoroutine: streamStarter, Cookie: streamCookie},
		&messageHead{Pid: streamPID})
	assert.Contains(t, p.goStreams.readers, streamReader{goroutine: goroutine{streamPID, streamReads}}, "it comes again")
}

func TestGRPCMinor(t *testing.T) {
	for version, want := range map[string]int{
		"v1.40.0": 40, "v1.83.2": 83,
		"v1.39.1": 0, "v1.84.0": 0, "v2.50.0": 0, "v1.77.0-dev": 0, "v1.77.0-0.20251001000000-abcdefabcdef": 0, "(devel)": 0, "": 0,
		"v1.50": 0, "v1.50.0+incompatible": 0,
	} {
		minor, err := grpcMinor(version)
		assert.Equal(t, want, minor, version)
		assert.Equal(t, want == 0, err != nil, version)
	}
}

// Of a program whose grpc-go is not known, only what does not depend on it is attached to.
func TestGoStreamFunctions(t *testing.T) {
	assert.Len(t, goStreamFunctions(0), 2)
	for grpc := oldestGRPC; grpc <= newestGRPC; grpc++ {
		functions := goStreamFunctions(grpc)
		assert.Len(t, functions, 7, grpc)
		for name, cookie := range functions {
			assert.Contains(t, goClientFunctions(), name)
			assert.NotZero(t, cookie&(1<<bpfGoStreamCookieGO_STREAM_EVENT_BITS-1), name)
		}
	}
}

// A client has reset a request that is still served, and the reader has received another one that nobody serves yet: what is
// asked for then is not for the sake of that.
func TestServedStreamsReset(t *testing.T) {
	p, _ := newStreamScene()
	p.schedules = func(*messageHead, Role) scheduling { return schedulingGoroutines }
	p.locate = func(*Exchange) identity { return *nameID("b") }
	p.handle(toldOfStream(bpfGoStreamEventGO_STREAM_SERVED, streamNumber, streamReads, streamServes), nil, nil)
	s := p.connections[streamCookie].multiplexed
	s.message, s.head = &message{
		Cookie: streamCookie, Goroutine: streamReads, ParentGoroutine: streamStarter, TimeNs: 5,
		Direction: uint8(bpfMessageDirectionMESSAGE_RECEIVED),
	}, &messageHead{Pid: streamPID}
	side := &s.sides[bpfMessageDirectionMESSAGE_RECEIVED]
	side.Reset(streamNumber, 8, 5)
	side.begin(&http2.Headers{Stream: streamNumber + 2, StartNs: 6, EndNs: 6})
	require.Contains(t, s.open, uint32(streamNumber+2))
	asks := &message{TimeNs: 7, Goroutine: streamServes, ParentGoroutine: streamReads}
	parent, _ := p.serving.send(asks, streamPID, schedulingGoroutines)
	assert.Nil(t, parent)

	p.handle(toldOfStream(bpfGoStreamEventGO_STREAM_SERVED, streamNumber+2, streamReads, 31), nil, nil)
	parent, _ = p.serving.send(&message{TimeNs: 8, Goroutine: 31}, streamPID, schedulingGoroutines)
	require.NotNil(t, parent)
	assert.Equal(t, nameID("b").span, parent.span)
}
