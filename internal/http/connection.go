//go:build linux

package http

import (
	"time"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http/http1"
	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

const (
	// maxHeadBytes bounds what is put together of a head that came in several calls. The kernel side copies no more.
	maxHeadBytes = 4 << 10
	// maxPending bounds the requests of a connection that wait for their responses.
	maxPending = 1024
	// keptPending is how many of them a connection keeps memory for.
	keptPending = 8
	// idleConnection is how long a connection without requests is remembered, and idleRequest one whose requests wait.
	idleConnection, idleRequest = 5 * time.Minute, time.Hour
	// smallestHead is how long a whole message is at least: HTTP/1.1 200 and two line breaks.
	smallestHead = 16
	// maxUnsent is more than the bytes that a socket's buffer has when it ends: they were told of and did not go out.
	maxUnsent = 256 << 20
	// shortCall is more than the kernel keeps of a receive, to put it before the next.
	shortCall = 8
	// blankLine are the bytes that end a head, the first in the lowest byte.
	blankLine = 0x0a0d0a0d
	// alternations is how often requests and as many responses have to take turns until it is believed that the responses
	// are to these requests; batches is how often that is enough if there are more, or fewer, requests than the time before:
	// responses to former requests would be as many as those were.
	alternations, batches = 32, 4
)

// pairing puts messages together to exchanges. It is pure: its input are recorded messages, and nothing of the kernel is in
// it. It is not safe for concurrent use.
//
// HTTP/1 answers requests in their order, so a response belongs to the oldest request that waits, as long as nothing was
// lost. What was lost shows in the offsets. Then no pair is better than a wrong one: what waits is forgotten, and pairing
// begins anew with a request before which everything must have been answered. On a connection with one request at a time
// (nearly all) that is the next one. Where several were seen to be under way, requests and as many responses have to take
// turns for a while.
//
// A connection may be older than the receiver. It is joined with the next message that begins, by design: the exchange that
// was under way then is not told of, and is no loss either. Where requests are pipelined, that is the first one; the rest
// cannot be told from lost ones.
//
// An exchange that was lost is counted once, with the reason that shows first. Counts are of what must have been lost at
// least: several messages in a row leave one gap.
type pairing struct {
	maxConnections int
	// sinceNs and untilNs (CLOCK_MONOTONIC; 0: no bound) are when every kernel program was attached. They are one after
	// the other, so before and after some messages are told of and others are not.
	sinceNs, untilNs uint64

	identify func(*messageHead, Role) (owner *workload.Workload, selected bool)
	emit     func(*Exchange) // the exchange is valid during the call
	known    *facts          // during the call: those of the connection's last exchange
	// secured is told of connections that carry TLS. It says whether all that one carries will be seen from its beginning.
	secured func(*message, *messageHead) bool
	// hidden is told of processes that move more messages in a call than were captured of it.
	hidden func(*messageHead)
	// locate gives an exchange that begins its place in a trace, and schedules says what its process serves requests with.
	locate func(*Exchange) identity
	// The role is that of a request that begins; 0: none does.
	schedules func(*messageHead, Role) scheduling

	genAI  bool   // exchanges with model servers are read
	kept   int    // bodies
	unkept uint64 // exchanges beyond maxBodies

	connections map[uint64]*connection
	clients     map[exchangeKey]identity // requests of clients that wait for their responses
	serving     *serving
	tables      tables
	goStreams   goStreams
	goRoutes    goRoutes
	drops       [dropReasons]uint64
	joined      uint64 // connections that were first seen with a response, which is not told of
	requests    http1.Requests
	request     *http1.Request // that was read last
	responses   http1.Responses
	response    *http1.Response // that was read last
	method      []byte          // scratch: of the request that the response answers
}

// exchangeKey names an exchange on both of its ends.
type exchangeKey struct {
	flow   uint64
	offset uint32
}

func newPairing(
	maxConnections int, identify func(*messageHead, Role) (*workload.Workload, bool), emit func(*Exchange),
) *pairing {
	return &pairing{
		maxConnections: maxConnections,
		identify:       identify,
		emit:           emit,
		secured:        func(*message, *messageHead) bool { return false },
		hidden:         func(*messageHead) {},
		connections:    map[uint64]*connection{},
		clients:        map[exchangeKey]identity{},
		serving:        newServing(maxUnits),
		tables:         newTables(),
		goStreams:      newGoStreams(),
		goRoutes:       newGoRoutes(),
		locate:         func(*Exchange) identity { return identity{} },
		schedules:      func(*messageHead, Role) scheduling { return schedulingUnknown },
	}
}

type pendingExchange struct {
	Exchange
	selected    bool
	requestDone bool
	doubt       bool // requests before this one may be unanswered and not known
}

// connection is what is known of a socket that carries HTTP/1.
type connection struct {
	described   messageHead // what was said last of it
	multiplexed *streams    // it carries HTTP/2
	role        Role
	proved      bool      // an exchange was seen, so the role is right
	fresh       bool      // its first request was seen, so responses begin with the stream
	tunnel      bool      // it carries HTTP no more
	upgraded    bool      // it goes on in HTTP/2, with the response to what is pending
	secure      bool      // what it carries is in TLS, and has offsets of its own
	whole       bool      // all that it carries in TLS is seen from its beginning
	streams     [2]stream // by direction
	pending     []pendingExchange
	answering   bool // the first of pending has its response under way
	lastNs      uint64

	// Since the last request.
	missing   uint32 // requests that were not seen, at least
	unpaired  uint32 // responses that no known request waited for
	responses uint32 // all responses
	accounted uint32 // of missing: what was counted for a reason of its own
	lossy     bool   // bytes were lost where responses may have been
	loose     bool   // the request's body may have ended before others in the same call

	suspect   bool  // several requests are under way if the last bytes are no beginning of a response
	pipelines bool  // several requests are under way at a time
	unsure    bool  // responses may be anybody's
	unsureOf  turns // while unsure

	lost lossAccount

	target, host, userAgent string // of the last request: they are mostly the same

	known facts // of the last exchange

	bodies *bodies // of the first of pending; nil: none are kept
}

// flowID is the part that the connection has in the names of its exchanges: 0 where their places in it are not those that
// the other end sees.
func (c *connection) flowID() uint64 {
	if c.secure && !c.whole {
		return 0
	}
	return c.described.flowID()
}

func (c *connection) requestStream() *stream {
	if c.role == RoleServer {
		return &c.streams[bpfMessageDirectionMESSAGE_RECEIVED]
	}
	return &c.streams[bpfMessageDirectionMESSAGE_SENT]
}

func (c *connection) responseStream() *stream {
	if c.role == RoleServer {
		return &c.streams[bpfMessageDirectionMESSAGE_SENT]
	}
	return &c.streams[bpfMessageDirectionMESSAGE_RECEIVED]
}

// handle takes in one message, the bytes that were captured of it, and what describes its connection, where it does.
func (p *pairing) handle(m *message, head *messageHead, data []byte) {
	kind := m.kind()
	if kind == bpfMessageKindMESSAGE_TABLE {
		p.handleTable(m, data)
		return
	}
	if kind == bpfMessageKindMESSAGE_STREAM {
		p.handleStream(m)
		return
	}
	if kind == bpfMessageKindMESSAGE_ROUTE {
		p.handleRoute(m, data)
		return
	}
	c := p.connections[m.Cookie]
	if m.TimeNs < p.sinceNs || p.untilNs != 0 && m.TimeNs >= p.untilNs {
		if c == nil && head != nil && kind != bpfMessageKindMESSAGE_END {
			p.remember(m.Cookie, head) // it will not be described again soon
		}
		return
	}
	if kind == bpfMessageKindMESSAGE_END {
		if c != nil {
			if c.multiplexed != nil {
				c.multiplexed.end(m)
			} else {
				p.end(c, m)
			}
			delete(p.connections, m.Cookie)
		}
		return
	}
	if kind == bpfMessageKindMESSAGE_CONNECTION {
		p.describe(c, m, head)
		return
	}
	if kind == bpfMessageKindMESSAGE_FRAMES {
		p.handleFrames(c, m, head, data)
		return
	}
	if kind != bpfMessageKindMESSAGE_HEAD && kind != bpfMessageKindMESSAGE_DATA || m.Length == 0 {
		return
	}
	next := call{message: m, data: data, offset: m.Offset, length: min(m.Length, 1<<31-1), first: true}
	next.data = next.data[:min(len(next.data), int(next.length))]
	if m.has(bpfMessageFlagMESSAGE_LAST_BYTES) {
		next.last, next.data = next.data, nil
	}
	if c == nil || c.role == 0 {
		if c = p.open(c, &next, head); c == nil {
			return
		}
	}
	if head != nil {
		c.described = *head
	}
	next.head = &c.described
	c.secure = m.has(bpfMessageFlagMESSAGE_SECURE)
	c.lastNs = m.TimeNs
	if c.tunnel {
		return
	}
	s := &c.streams[m.Direction&1]
	if !p.place(c, s, &next) {
		return
	}
	if role := next.role(); role != 0 && role != c.role && !c.proved && s.phase == betweenMessages && next.first {
		// What was seen first was a part of a body, and tells the wrong end.
		p.drops[dropMalformed]++
		p.forget(c)
		*c = connection{described: c.described, role: role, secure: c.secure, whole: c.whole, lastNs: m.TimeNs}
		p.join(c, &next)
		next.gap = 0
		p.place(c, s, &next)
	}
	p.follow(c, s, &next)
}

// open begins to follow a connection with a first message. c is what is known of it, nil: nothing.
func (p *pairing) open(c *connection, m *call, head *messageHead) *connection {
	if m.kind() != bpfMessageKindMESSAGE_HEAD {
		return nil
	}
	role := m.role()
	if role == 0 {
		return nil
	}
	if c == nil {
		if c = p.remember(m.Cookie, head); c == nil {
			return nil
		}
	}
	c.role = role
	// The kernel side may be wrong by one about where a stream begins.
	c.fresh = http1.LooksLikeRequest(m.data) && m.offset+1 <= 2 && (!c.secure || c.whole)
	p.join(c, m)
	return c
}

// join takes note of what a connection is first seen with. A response is one to a request from before: that exchange is
// counted here, and not as lost.
func (p *pairing) join(c *connection, m *call) {
	if http1.LooksLikeResponse(m.data) {
		p.joined++
		c.lost.counted = 1
	}
}

// answered says whether all requests may have been answered, and were if there is one at a time, though the end of the last
// response was not seen.
func (c *connection) answered() bool {
	return len(c.pending) == 1 && c.answering && !c.pipelines && c.responseStream().mayHaveEnded(nil)
}

// turns are those that requests and responses take on a connection of which it is not known how many requests wait.
type turns struct {
	requests uint32 // of the turn that is under way
	before   uint32 // of the one before it; 0: its responses were not as many, or something was lost
	lossy    bool   // something was lost in this turn
	alike    uint8  // turns in a row that were complete
	changes  uint8  // of them, those that had another number of requests than the one before
}

// begin takes note of a request, since the last one of which there were so many responses. It says whether all requests
// before were answered.
func (t *turns) begin(responses uint32, lossy bool) bool {
	t.lossy = t.lossy || lossy
	if responses == 0 && t.requests > 0 {
		t.requests++
		return false
	}
	if t.lossy || t.requests == 0 || responses != t.requests {
		*t = turns{requests: 1}
		return false
	}
	t.alike++
	if t.before > 0 && t.before != t.requests {
		t.changes++
	}
	if t.alike >= alternations || t.changes >= batches {
		return true
	}
	t.before, t.requests = t.requests, 1
	return false
}

// begin notes a request.
func (p *pairing) begin(c *connection, m *message, head *messageHead, offset uint32, startNs uint64) {
	if responses := c.responseStream(); c.answered() && responses.phase == inBody {
		p.finish(c, responses, responses.at, responses.lastNs, m)
	}
	if c.suspect {
		p.suspected(c) // a response would have come before the next request
	}
	doubt := c.doubts()
	p.countMissing(c)
	if responses := c.responseStream(); len(c.pending) == 0 {
		// It may go on with a response to nothing that is known, whose framing cannot be trusted.
		responses.phase, responses.boundary, responses.gapped = betweenMessages, responses.at, false
	}
	if c.unsure && c.unsureOf.begin(c.responses, c.missing > 0 || c.lossy) {
		c.pipelines = c.unsureOf.requests > 1
		c.unsure, c.unsureOf, doubt = false, turns{}, false
	}
	c.missing, c.accounted, c.unpaired, c.responses, c.lossy, c.loose = 0, 0, 0, 0, false, false
	if c.unsure {
		p.loseRequests(c, dropGap, 1)
		return
	}
	if len(c.pending) == 0 && !doubt {
		c.lost = lossAccount{}
	}
	if len(c.pending) >= maxPending {
		p.drops[dropPendingFull] += uint64(len(c.pending)) + 1
		p.forget(c)
		c.tunnel = true
		return
	}
	r := p.request
	owner, selected := p.identify(head, c.role)
	c.target = reuse(c.target, r.Target)
	c.host = reuse(c.host, r.Host)
	c.userAgent = reuse(c.userAgent, r.UserAgent)
	e := c.addPending()
	e.selected, e.doubt = selected, doubt
	e.Role, e.Owner, e.StartNs = c.role, owner, startNs
	e.Method, e.Target, e.Host, e.UserAgent = internMethod(r.Method), c.target, c.host, c.userAgent
	e.TraceParent, e.TraceState, e.TraceBin = string(r.TraceParent), string(r.TraceState), string(r.TraceBin)
	e.B3, e.RequestID = r.B3.Text(), string(r.RequestID)
	e.GRPC, e.GRPCStatus, e.MinorVersion = isGRPC(r.ContentType), -1, r.Minor
	e.RequestBodyBytes, e.ResponseBodyBytes = -1, -1
	e.Local, e.Peer, e.Secure = head.local(), head.peer(), c.secure
	e.FlowID, e.RequestOffset = c.flowID(), offset
	switch r.Framing {
	case http1.FramingNone:
		e.RequestBodyBytes = 0
	case http1.FramingLength:
		e.RequestBodyBytes = r.ContentLength
	}
	p.keepBodies(c, e)
	p.enter(&e.Exchange, selected, m, head)
}

// addPending gives the place of another request that waits. It is in place: it is a large structure.
func (c *connection) addPending() *pendingExchange {
	last := len(c.pending)
	if last < cap(c.pending) {
		c.pending = c.pending[:last+1] // what was there has been cleared
	} else {
		c.pending = append(c.pending, pendingExchange{})
	}
	return &c.pending[last]
}

// reuse gives the text of b, which is mostly what it was before.
func reuse(before string, b []byte) string {
	if before == string(b) { // no allocation
		return before
	}
	return string(b)
}

// answer notes the first bytes of a response.
func (p *pairing) answer(c *connection, m *message, head *messageHead, startNs uint64) {
	r := p.response
	if r.Status == 101 {
		c.tunnel, c.upgraded = true, r.UpgradeHTTP2
	} else if r.Status < 200 {
		return // an interim response: the final one comes
	}
	c.answering = false
	c.responses++
	if len(c.pending) == 0 && c.requestStream().phase == inHead && !c.lossy {
		p.beginPartial(c, m, head) // refused before it was whole
	}
	switch {
	case len(c.pending) > 0 && c.pending[0].doubt:
		// Nothing of the responses was lost. So there were requests before the last one was answered.
		p.suspected(c)
	case len(c.pending) > 1 && !c.fresh && !c.proved:
		// The connection was joined midway, and these may be parts of the body of a request that was not seen.
		p.lose(c, 0)
	}
	if len(c.pending) == 0 {
		p.loseResponse(c, dropUnpaired)
		c.unpaired++
		return // its body is followed all the same
	}
	c.pipelines = c.pipelines || len(c.pending) > 1
	c.answering = true
	e := &c.pending[0]
	p.answered(&e.Exchange, m, head)
	e.ResponseNs = startNs
	e.Status = r.Status
	e.GRPCStatus = r.GRPCStatus
	switch r.Framing {
	case http1.FramingNone:
		e.ResponseBodyBytes = 0
	case http1.FramingLength:
		e.ResponseBodyBytes = r.ContentLength
	}
	if e.Method == "CONNECT" && r.Status/100 == 2 {
		c.tunnel = true
	}
}

// beginPartial notes a request with what is there of its head.
func (p *pairing) beginPartial(c *connection, m *message, head *messageHead) {
	s := c.requestStream()
	var result http1.Result
	if p.request, result = p.requests.Parse(s.head); result != http1.Partial {
		return
	}
	s.phase, s.framing, s.lastNs = inBody, http1.FramingUnknown, s.headNs
	p.begin(c, m, head, s.headStart, s.headNs)
	s.head, s.source = nil, nil
}

// finish ends the message of a stream at the offset. m is the call that tells so.
func (p *pairing) finish(c *connection, s *stream, at uint32, atNs uint64, m *message) {
	c.endBody(s, at)
	gapped, size := s.gapped, int64(-1)
	if s.phase == inBody && s.framing == http1.FramingChunked && s.chunks.Done() {
		size = s.chunks.Payload()
	}
	s.phase, s.boundary, s.gapped = betweenMessages, at, false
	if s == c.requestStream() {
		if len(c.pending) > 0 {
			e := &c.pending[len(c.pending)-1]
			if e.requestDone = true; size >= 0 {
				e.RequestBodyBytes = size
			}
		}
		return
	}
	if !c.answering {
		return
	}
	if size >= 0 {
		c.pending[0].ResponseBodyBytes = size
	}
	c.pending[0].EndNs = atNs
	if c.upgraded {
		p.dropBodies(c)
		return // the response comes in HTTP/2
	}
	p.complete(c, m)
	if gapped && len(c.pending) > 0 {
		p.suspected(c)
	}
	if c.tunnel && len(c.pending) > 0 {
		p.drops[dropMalformed] += uint64(len(c.pending))
		p.forget(c)
	}
}

// complete hands over the exchange that is first in line.
func (p *pairing) complete(c *connection, m *message) {
	e := &c.pending[0]
	if !e.requestDone {
		e.RequestBodyBytes = -1
	}
	e.SRTTUs, e.Retransmits = m.SrttUs, m.Retransmits
	c.answering, c.proved = false, true
	p.leave(&e.Exchange, m)
	p.readBodies(c, &e.Exchange)
	if e.selected {
		p.known = &c.known
		p.emit(&e.Exchange)
	}
	last := copy(c.pending, c.pending[1:])
	clear(c.pending[last:])
	c.pending = c.pending[:last]
	if last == 0 && cap(c.pending) > keptPending {
		c.pending = nil
	}
}

// forget drops the requests that wait.
func (p *pairing) forget(c *connection) {
	for i := range c.pending {
		p.leave(&c.pending[i].Exchange, nil)
	}
	p.dropBodies(c)
	clear(c.pending)
	c.pending = c.pending[:0]
	if cap(c.pending) > keptPending {
		c.pending = nil
	}
	c.answering = false
}

// sweep forgets connections of which nothing was heard for long: their end was lost.
func (p *pairing) sweep(nowNs uint64) {
	p.serving.sweep(nowNs)
	for cookie, c := range p.connections {
		if c.multiplexed != nil {
			if c.multiplexed.sweep(nowNs) {
				delete(p.connections, cookie)
			}
			continue
		}
		limit := idleConnection
		if len(c.pending) > 0 {
			limit = idleRequest
		}
		if nowNs > c.lastNs && nowNs-c.lastNs > uint64(limit) {
			p.loseRequests(c, dropGap, uint32(len(c.pending)))
			p.forget(c)
			delete(p.connections, cookie)
		}
	}
}

// internMethod gives a method's text without making a new one for those that are common.
func internMethod(method []byte) string {
	if known := knownMethod(string(method)); known != methodOther { // no allocation
		return known
	}
	return string(method)
}
