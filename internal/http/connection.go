//go:build linux

package http

import (
	"bytes"
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
	// alternations is how often a request and a response have to take turns until it is believed that the connection has
	// one request at a time.
	alternations = 32
)

// dropReason is why something of the traffic could not be told.
type dropReason int

const (
	dropGap         dropReason = iota // exchanges, at least: messages were lost, so requests and responses cannot be paired
	dropUnpaired                      // responses whose request was not seen, or is in doubt
	dropMalformed                     // messages that look like HTTP and are none
	dropHiddenHead                    // messages that begin beyond what was captured of a call
	dropUnreadable                    // messages whose first bytes were in memory that could not be read
	dropPendingFull                   // requests of a connection that has too many unanswered ones
	dropTableFull                     // messages of connections beyond the bound
	dropLargeHead                     // header blocks of HTTP/2 of which only the first 64 KiB were read
	dropReasons
)

// String names the reason in the receiver's telemetry.
func (r dropReason) String() string {
	return [dropReasons]string{
		dropGap:         "message_gap",
		dropUnpaired:    "unpaired_response",
		dropMalformed:   "malformed_message",
		dropHiddenHead:  "hidden_message",
		dropUnreadable:  "unreadable_head",
		dropPendingFull: "too_many_pending",
		dropTableFull:   "table_full",
		dropLargeHead:   "large_head",
	}[r]
}

// pairing puts messages together to exchanges. It is pure: its input are recorded messages, and nothing of the kernel is in
// it. It is not safe for concurrent use.
//
// HTTP/1 answers requests in their order, so a response belongs to the oldest request that waits, as long as nothing was
// lost. What was lost shows in the offsets. Then no pair is better than a wrong one: what waits is forgotten, and pairing
// begins anew with a request before which everything must have been answered. On a connection with one request at a time
// (nearly all) that is the next one. Where several were seen to be under way, requests and responses have to take turns
// for a while.
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

	connections map[uint64]*connection
	clients     map[exchangeKey]struct{} // requests of clients that wait for their responses
	drops       [dropReasons]uint64
	joined      uint64 // connections that were first seen with a response, which is not told of
	request     http1.Request
	response    http1.Response
	method      []byte // scratch: of the request that the response answers
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
		connections:    map[uint64]*connection{},
		clients:        map[exchangeKey]struct{}{},
	}
}

// phase is what a stream expects next.
type phase uint8

const (
	betweenMessages phase = iota
	inHead
	inBody
)

// stream is one direction of a connection.
type stream struct {
	phase phase
	seen  bool   // there was a message, so at is known
	at    uint32 // where the bytes end that were told of

	// The last calls, if they were short: their bytes may be the first ones of a head, of which the next call tells as a
	// whole.
	short   bool
	shortAt uint32
	shortNs uint64
	// tail and lastNs before them.
	tailBefore, lastNsBefore uint64

	// Between messages: where the next one begins. Up to at there may be a few bytes of it.
	boundary uint32
	stray    bool // what is there is no head, and was counted

	// In a head: what is there of it, where and when it began, and whose it is.
	head      []byte
	headStart uint32
	headNs    uint64
	source    *messageHead

	// In a body.
	framing http1.Framing
	left    int64 // FramingLength: how much of it comes after at
	awaited bool  // it waits for status 100, and is not sent without
	// FramingUnknown: requests with the method have no body as a rule.
	lacksBody bool
	gapped    bool   // other framings: bytes were lost, so its end may be among them
	tail      uint64 // the last eight bytes before at, the first in the lowest byte; 0: not known
	lastNs    uint64 // of the last bytes of a message
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
	secure      bool      // what it carries is in TLS, and has offsets of its own
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
	turns     uint8 // while unsure: how often a request and a response took turns

	lost lossAccount

	host, userAgent string // of the last request: they are mostly the same
}

// lossAccount is what shows of lost exchanges since the last one before which nothing was open: each of them as a request,
// as a response, or as both.
type lossAccount struct {
	requests, responses uint32
	counted             uint32 // exchanges
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

// call is what is left to look at of a message.
type call struct {
	*message
	head   *messageHead
	data   []byte // the first of the bytes, as far as they were captured
	offset uint32
	length uint32
	gap    uint32 // bytes before offset that nothing was told of
	first  bool   // offset is where the call begins
	inner  bool   // a message ends in the call, at offset
}

func (m *call) end() uint32 { return m.offset + m.length }

func (m *call) skip(length uint32) {
	m.offset += length
	m.length -= length
	m.data = m.data[min(int(length), len(m.data)):]
	m.gap, m.first = 0, false
}

// beginsMessage says whether a head begins here.
func (m *call) beginsMessage() bool {
	if m.first {
		return m.kind() == bpfMessageKindMESSAGE_HEAD && len(m.data) > 0
	}
	return http1.LooksLikeRequest(m.data) || http1.LooksLikeResponse(m.data)
}

// handle takes in one message, the bytes that were captured of it, and what describes its connection, where it does.
func (p *pairing) handle(m *message, head *messageHead, data []byte) {
	c := p.connections[m.Cookie]
	kind := m.kind()
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
	if kind == bpfMessageKindMESSAGE_FRAMES {
		p.handleFrames(c, m, head, data)
		return
	}
	if kind != bpfMessageKindMESSAGE_HEAD && kind != bpfMessageKindMESSAGE_DATA || m.Length == 0 {
		return
	}
	next := call{message: m, data: data, offset: m.Offset, length: min(m.Length, 1<<31-1), first: true}
	next.data = next.data[:min(len(next.data), int(next.length))]
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
		*c = connection{described: c.described, role: role, secure: c.secure, lastNs: m.TimeNs}
		p.join(c, &next)
		next.gap = 0
		p.place(c, s, &next)
	}
	p.follow(c, s, &next)
}

// role tells the end from a message's direction and kind; 0 where it is neither a request nor a response.
func (m *call) role() Role {
	received := bpfMessageDirection(m.Direction) == bpfMessageDirectionMESSAGE_RECEIVED
	request := http1.LooksLikeRequest(m.data)
	switch {
	case !request && !http1.LooksLikeResponse(m.data):
		return 0
	case request == received:
		return RoleServer
	}
	return RoleClient
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
	c.fresh = http1.LooksLikeRequest(m.data) && m.offset+1 <= 2
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

// place finds a call's place in its stream, and what it has that was not told of before. It says false if that is nothing.
func (p *pairing) place(c *connection, s *stream, m *call) bool {
	if !s.seen {
		s.seen, s.at, s.boundary = true, m.offset, m.offset
		if c.fresh && s == c.responseStream() && int32(m.offset) > 1 {
			s.at, s.boundary, m.gap = 0, 0, m.offset
		}
		return true
	}
	ahead := int32(m.offset - s.at)
	switch {
	case ahead > 0:
		m.gap = uint32(ahead)
	case ahead == 0:
	case s.short && m.offset == s.shortAt && m.kind() == bpfMessageKindMESSAGE_HEAD &&
		(s.phase == betweenMessages || s.phase == inBody && s.framing != http1.FramingLength):
		// Its first bytes were read before the others.
	case int32(m.end()-s.at) > 0:
		m.skip(uint32(-ahead))
	default:
		return false // the kernel goes on with a call
	}
	return true
}

// follow goes on in a stream with a call.
func (p *pairing) follow(c *connection, s *stream, m *call) {
	end, tail, lastNs := m.end(), s.tail, s.lastNs
	if s.phase == inHead {
		p.continueHead(c, s, m)
	} else if s.phase == betweenMessages || p.body(c, s, m) {
		p.between(c, s, m)
	}
	before := s.short && s.shortAt == m.Offset // it is told of together with calls before it
	if s.short = end-m.Offset < shortCall; s.short && !before {
		s.shortAt, s.shortNs, s.tailBefore, s.lastNsBefore = m.Offset, m.TimeNs, tail, lastNs
	}
	s.at = end
	if s.phase != inHead {
		s.head, s.source = nil, nil
	}
}

// continueHead goes on with a head that was not whole.
func (p *pairing) continueHead(c *connection, s *stream, m *call) {
	if m.gap > 0 {
		s.phase, s.boundary = betweenMessages, s.headStart
		p.between(c, s, m)
		return
	}
	took := len(s.head)
	s.head = append(s.head, m.data[:min(len(m.data), maxHeadBytes-took)]...)
	m.head = s.source
	m.offset, m.length, m.data, m.first = s.headStart, m.length+uint32(took), s.head, true
	p.read(c, s, m, s.headNs)
}

// between looks for a head where a message has ended.
func (p *pairing) between(c *connection, s *stream, m *call) {
	begins, few := m.beginsMessage(), !m.inner && m.end()-s.boundary < shortCall
	if begins && m.gap > 0 && m.offset-s.boundary < smallestHead {
		s.boundary, s.at, m.gap = m.offset, m.offset, 0 // too few bytes for a message
	}
	if m.gap > 0 {
		few = m.length < shortCall
		explained := 2
		if begins || few {
			explained = 3 // the response to the last request may be what begins here
		}
		if s == c.responseStream() {
			c.suspect = few && len(c.pending) == 2
		}
		p.miss(c, s, dropGap, explained)
		s.boundary, s.at, m.gap = m.offset, m.offset, 0
	}
	switch {
	case begins:
		if s == c.responseStream() {
			if c.suspect && m.offset != s.boundary {
				p.suspected(c) // it was no beginning
			}
			c.suspect = false
		}
		startNs := m.TimeNs
		if s.short && s.shortAt == m.offset {
			startNs = s.shortNs
		}
		p.read(c, s, m, startNs)
	case few: // they may be the first bytes of a head
	case m.inner:
		p.hide(c, s, m)
	default:
		reason := dropGap
		if m.unreadable() {
			reason = dropUnreadable
		}
		p.miss(c, s, reason, 2)
		s.boundary = m.end()
	}
}

// body accounts for a call in a body. It says whether the body ended before the call did, or with it; then m is what
// follows.
func (p *pairing) body(c *connection, s *stream, m *call) bool {
	if s.framing != http1.FramingLength {
		return p.openBody(c, s, m)
	}
	if s.awaited && m.gap == 0 && len(c.pending) == 0 && m.beginsMessage() {
		p.finish(c, s, s.at, s.lastNs, m.message) // it was refused
		return true
	}
	s.awaited = false
	if int64(m.gap) >= s.left {
		// All of it was moved, though not told of.
		m.gap -= uint32(s.left)
		p.finish(c, s, s.at+uint32(s.left), s.lastNs, m.message)
		return true
	}
	s.left -= int64(m.gap) // what is lost within a body hides no message
	m.gap = 0
	s.lastNs = m.TimeNs
	if int64(m.length) < s.left {
		s.left -= int64(m.length)
		return false
	}
	rest := uint32(s.left)
	s.left = 0
	p.finish(c, s, m.offset+rest, m.TimeNs, m.message)
	m.skip(rest)
	m.inner = true
	return m.length > 0
}

// openBody accounts for a call in a body that does not tell its length first.
func (p *pairing) openBody(c *connection, s *stream, m *call) bool {
	if m.gap > 0 {
		if s == c.responseStream() {
			c.lossy = true
			if c.answering && len(c.pending) > 1 && c.pending[1].StartNs > s.lastNs {
				p.finish(c, s, s.at, s.lastNs, m.message) // the next request came, so it had ended
				return true
			}
		}
		s.gapped, s.tail = true, 0
	}
	if m.beginsMessage() && p.superseded(c, s, m) {
		m.gap = 0
		return true
	}
	s.lastNs = m.TimeNs
	if s.framing == http1.FramingChunked && s.chunk(m) {
		p.finishChunked(c, s, m)
	}
	return false
}

// superseded says whether what looks like a head in a body of unknown length is one: then the body has ended, and its
// message is finished.
func (p *pairing) superseded(c *connection, s *stream, m *call) bool {
	if s.short && s.shortAt == m.offset {
		s.tail, s.lastNs = s.tailBefore, s.lastNsBefore
	}
	tailed := s.framing == http1.FramingChunked && !s.gapped && s.tail != 0
	blank := tailed && s.tail>>32 == blankLine // a blank line, as after trailers
	if tailed && !blank {
		return false // a chunk is under way
	}
	waiting := len(c.pending)
	if s == c.requestStream() {
		switch {
		case waiting == 0 || c.answered():
			// It was whole, and this is the next one.
			if s.gapped && (c.pipelines || s.lacksBody) {
				c.missing++
			}
		case s.framing == http1.FramingUnknown && !s.gapped && s.lacksBody:
		case blank:
			c.missing++ // others may have come in the same call
		default:
			if s.gapped || c.pipelines {
				c.missing++
			}
			return false
		}
		p.finish(c, s, m.offset, s.lastNs, m.message)
		return true
	}

	if !c.answering {
		s.phase, s.boundary, s.gapped = betweenMessages, m.offset, false
		return true
	}
	if waiting == 1 {
		if s.framing != http1.FramingChunked {
			c.lossy = true // the request of this one may be lost, or this is a part of the body
			return false
		}
		p.finish(c, s, m.offset, s.lastNs, m.message)
		return true
	}
	// Who sends one request at a time has seen all of the response when the next request begins.
	next := c.pending[1].StartNs > s.lastNs
	if s.framing == http1.FramingClose && !next {
		return false
	}
	gapped := s.gapped
	s.gapped = false
	p.finish(c, s, m.offset, s.lastNs, m.message)
	switch {
	case gapped && next:
		p.lose(c, 2)
	case gapped || !next && !blank:
		p.lose(c, 0)
	}
	return true
}

// answered says whether all requests may have been answered, and were if there is one at a time, though the end of the last
// response was not seen.
func (c *connection) answered() bool {
	return len(c.pending) == 1 && c.answering && !c.pipelines && c.responseStream().mayHaveEnded(nil)
}

// read reads the heads in a call's first bytes.
func (p *pairing) read(c *connection, s *stream, m *call, startNs uint64) {
	for first := true; m.length > 0; first, startNs = false, m.TimeNs {
		if len(m.data) == 0 {
			p.hide(c, s, m)
			return
		}
		request := s == c.requestStream()
		var (
			result http1.Result
			parsed *http1.Head
			known  bool
		)
		if request {
			result, parsed = p.request.Parse(m.data), &p.request.Head
			known = len(p.request.Method) > 0
		} else {
			p.method = p.method[:0]
			if len(c.pending) > 0 {
				p.method = append(p.method, c.pending[0].Method...)
			}
			result, parsed = p.response.Parse(m.data, p.method), &p.response.Head
			known = p.response.Status != 0
		}
		switch {
		case result == http1.Malformed:
			p.miss(c, s, dropMalformed, 2)
			s.boundary = m.end()
			return
		case result == http1.Complete:
		case uint32(len(m.data)) == m.length && len(m.data) < maxHeadBytes:
			p.keepHead(s, m, startNs)
			return
		case !known:
			p.hide(c, s, m)
			return
		}

		s.phase, s.lastNs = inBody, m.TimeNs
		s.stray, s.gapped, s.awaited, s.lacksBody, s.left, s.tail = false, false, false, false, 0, 0
		if result == http1.Partial {
			s.framing = http1.FramingUnknown
			if request {
				s.lacksBody = string(p.request.Method) == "GET" || string(p.request.Method) == "HEAD"
				p.begin(c, m.message, m.head, m.offset, startNs)
				if !first {
					// There are several in one call, and more may follow in what was not captured.
					p.loseRequests(c, dropHiddenHead, 1)
					c.pipelines = true
					c.missing++
					c.accounted++
				}
			} else {
				p.answer(c, m.message, m.head, startNs)
				s.gapped = len(c.pending) > 1
				if c.tunnel && c.answering {
					p.finish(c, s, m.end(), m.TimeNs, m.message)
				}
			}
			return
		}
		s.framing = parsed.Framing
		if request {
			p.begin(c, m.message, m.head, m.offset, startNs)
		} else {
			p.answer(c, m.message, m.head, startNs)
		}
		if c.tunnel && !c.answering {
			return
		}
		m.skip(uint32(parsed.Bytes))
		switch s.framing {
		case http1.FramingNone:
			p.finish(c, s, m.offset, m.TimeNs, m.message)
		case http1.FramingLength:
			s.left = parsed.ContentLength
			s.awaited = request && p.request.ExpectContinue && m.length == 0
			if s.left > int64(m.length) {
				s.left -= int64(m.length)
				return
			}
			length := uint32(s.left)
			s.left = 0
			p.finish(c, s, m.offset+length, m.TimeNs, m.message)
			m.skip(length)
		case http1.FramingChunked:
			size, whole := http1.ChunkedBody(m.data)
			if !whole {
				s.tail = 0x0a0d << 48 // the line break before
				// Where all of it is there, it has no end.
				if m.length > 0 && s.chunk(m) && uint32(len(m.data)) < m.length {
					p.finishChunked(c, s, m)
				}
				return
			}
			p.finish(c, s, m.offset+uint32(size), m.TimeNs, m.message)
			m.skip(uint32(size))
		default:
			return
		}
		if c.tunnel {
			return
		}
	}
}

// keepHead keeps what is there of a head, until the rest comes.
func (p *pairing) keepHead(s *stream, m *call, startNs uint64) {
	if s.phase == inHead {
		return
	}
	s.phase, s.headStart, s.headNs = inHead, m.offset, startNs
	s.head = append(s.head[:0], m.data...)
	source := *m.head
	s.source = &source
}

// chunk goes on in a chunked body with a call, and says whether it ends there.
func (s *stream) chunk(m *call) bool {
	bytes, whole := m.known()
	switch {
	case !whole && len(bytes) < len("\r\n0\r\n\r\n"):
		s.tail = 0
		return false
	case whole && http1.EndsChunked(bytes, true):
		return true
	case s.tail == 0 && len(bytes) < 8:
		return false // what came before is not known, so what these are is not
	}
	for _, b := range bytes[max(0, len(bytes)-8):] {
		s.tail = s.tail>>8 | uint64(b)<<56
	}
	last := tailBytes(s.tail)
	return http1.EndsChunked(last[:], false)
}

// known gives what is known of the last bytes of a call, and says whether that is all of it.
func (m *call) known() (bytes []byte, whole bool) {
	if uint32(len(m.data)) == m.length {
		return m.data, true
	}
	if m.Tail == 0 {
		return nil, false
	}
	tail := tailBytes(m.Tail)
	if m.Length >= 8 {
		return tail[:], false
	}
	return tail[m.Length-min(m.length, m.Length) : m.Length], true
}

// finishChunked ends a message with a call that ends a chunked body.
func (p *pairing) finishChunked(c *connection, s *stream, m *call) {
	// A large call may have had the end of this one, and others that end alike.
	loose := m.length >= smallestHead &&
		(uint32(len(m.data)) < m.length || bytes.Contains(m.data, []byte("HTTP/1.")))
	p.finish(c, s, m.end(), m.TimeNs, m.message)
	switch {
	case !loose:
	case s == c.requestStream():
		c.loose = true
	case len(c.pending) > 0:
		p.suspected(c)
	}
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
	if c.unsure {
		if c.responses != 1 || c.missing > 0 || c.lossy {
			c.turns = 0
		} else if c.turns++; c.turns >= alternations {
			c.unsure, c.pipelines, c.turns, doubt = false, false, 0, false
		}
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
	r := &p.request
	owner, selected := p.identify(head, c.role)
	c.host = reuse(c.host, r.Host)
	c.userAgent = reuse(c.userAgent, r.UserAgent)
	c.pending = append(c.pending, pendingExchange{
		Exchange: Exchange{
			Role:              c.role,
			Owner:             owner,
			StartNs:           startNs,
			Method:            internMethod(r.Method),
			Target:            string(r.Target),
			Host:              c.host,
			UserAgent:         c.userAgent,
			TraceParent:       string(r.TraceParent),
			TraceState:        string(r.TraceState),
			TraceBin:          string(r.TraceBin),
			B3:                r.B3.Text(),
			RequestID:         string(r.RequestID),
			GRPC:              isGRPC(r.ContentType),
			GRPCStatus:        -1,
			MinorVersion:      r.Minor,
			RequestBodyBytes:  -1,
			ResponseBodyBytes: -1,
			Local:             head.local(),
			Peer:              head.peer(),
			FlowID:            head.flowID(),
			RequestOffset:     offset,
		},
		selected: selected,
		doubt:    doubt,
	})
	e := &c.pending[len(c.pending)-1]
	switch r.Framing {
	case http1.FramingNone:
		e.RequestBodyBytes = 0
	case http1.FramingLength:
		e.RequestBodyBytes = r.ContentLength
	}
	key := exchangeKey{e.FlowID, e.RequestOffset}
	switch {
	case !selected:
	case c.role == RoleClient:
		p.clients[key] = struct{}{}
	default:
		_, e.ClientSeen = p.clients[key]
	}
}

// countMissing counts the requests that were not seen.
func (p *pairing) countMissing(c *connection) {
	p.loseRequests(c, dropGap, c.missing-c.accounted)
	c.accounted = c.missing
}

// doubts says whether responses to requests that were not seen may come before the one to the request that begins.
func (c *connection) doubts() bool {
	if len(c.pending) > 0 {
		return c.missing > 0 || c.loose
	}
	// With one request at a time, those were answered. That was seen, or lost as well.
	return c.missing > c.unpaired && !c.lossy
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
	r := &p.response
	if r.Status == 101 {
		c.tunnel = true
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
	if p.request.Parse(s.head) != http1.Partial {
		return
	}
	s.phase, s.framing, s.lastNs = inBody, http1.FramingUnknown, s.headNs
	p.begin(c, m, head, s.headStart, s.headNs)
	s.head, s.source = nil, nil
}

// finish ends the message of a stream at the offset. m is the call that tells so.
func (p *pairing) finish(c *connection, s *stream, at uint32, atNs uint64, m *message) {
	gapped := s.gapped
	s.phase, s.boundary, s.gapped = betweenMessages, at, false
	if s == c.requestStream() {
		if len(c.pending) > 0 {
			c.pending[len(c.pending)-1].requestDone = true
		}
		return
	}
	if !c.answering {
		return
	}
	c.pending[0].EndNs = atNs
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
	if e.selected {
		if c.role == RoleClient {
			delete(p.clients, exchangeKey{e.FlowID, e.RequestOffset})
		}
		p.emit(&e.Exchange)
	}
	last := copy(c.pending, c.pending[1:])
	clear(c.pending[last:])
	c.pending = c.pending[:last]
	if last == 0 && cap(c.pending) > keptPending {
		c.pending = nil
	}
}

// end ends what is left of a connection, and tells of what has no response.
func (p *pairing) end(c *connection, m *message) {
	p.countMissing(c)
	if !c.tunnel {
		p.endRequests(c, m)
		p.endResponses(c, m)
	}
	for len(c.pending) > 0 {
		e := &c.pending[0]
		e.EndNs = m.TimeNs
		e.ErrorType = m.errorType()
		e.ResponseBodyBytes = -1
		p.complete(c, m)
	}
}

// untold is how many bytes a stream had at the end of its connection after those that were told of; between messages, after
// the last message. It is not known of a stream that began before the receiver, and of which nothing was told. In TLS it is
// taken for none: the socket does not tell how much its library has moved.
func (c *connection) untold(s *stream, end *message) (length uint32, known bool) {
	at := s.at
	switch {
	case c.secure:
		return 0, true
	case !s.seen && !c.fresh:
		return 0, false
	case !s.seen:
		at = 0
	case s.phase == betweenMessages:
		at = s.boundary
	}
	sent, received := end.ends()
	length = sent - at
	if s == &c.streams[bpfMessageDirectionMESSAGE_RECEIVED] {
		length = received - at
	}
	if -length <= maxUnsent {
		return 0, true // the connection ended before the last bytes were sent
	}
	return length, true
}

// endRequests ends the stream of requests. One of which nothing was told is lost, whatever became of it.
func (p *pairing) endRequests(c *connection, m *message) {
	s := c.requestStream()
	length, _ := c.untold(s, m)
	switch {
	case s.phase == inHead && length > 0:
		length = smallestHead // the rest of the head, at least
	case s.phase == inBody && s.framing != http1.FramingLength:
		return // it may be in the body
	case s.phase == inBody:
		if int64(length) < s.left {
			return
		}
		length -= uint32(s.left)
		p.finish(c, s, s.at+uint32(s.left), s.lastNs, m)
	}
	if length >= smallestHead {
		p.loseRequests(c, dropGap, 1)
	}
}

// endResponses ends the stream of responses. It ends a response that was carried whole, though not all of it was told of,
// and forgets the requests whose responses may have been.
func (p *pairing) endResponses(c *connection, m *message) {
	if len(c.pending) == 0 {
		return
	}
	s := c.responseStream()
	length, known := c.untold(s, m)
	switch {
	case !known:
		length = smallestHead // if they had responses, nobody would know
	case s.phase == inHead && length > 0:
		length = smallestHead // the rest of it, and how much of its body is not known
	case s.phase == inHead:
		p.endPartial(c, s)
	case !c.answering:
	case s.framing == http1.FramingLength:
		if int64(length) < s.left && length != uint32(s.left) { // streams are longer than their offsets tell
			return
		}
		length -= uint32(s.left)
		p.finish(c, s, s.at+uint32(s.left), s.lastNs, m)
	default:
		if length > 0 {
			s.gapped, s.tail = true, 0
		}
		if s.mayHaveEnded(m) {
			p.finish(c, s, s.at, s.lastNs, m)
		}
		return
	}
	if length >= smallestHead {
		p.lose(c, 0)
	}
}

// endPartial notes what there is of a response whose head was not whole when the connection ended.
func (p *pairing) endPartial(c *connection, s *stream) {
	if p.response.Parse(s.head, nil) == http1.Partial && p.response.Status >= 200 && !c.pending[0].doubt {
		c.pending[0].ResponseNs = s.headNs
		c.pending[0].Status = p.response.Status
	}
}

// mayHaveEnded says whether a body may be whole though nothing told its end. end is that of the connection, nil: it goes
// on.
func (s *stream) mayHaveEnded(end *message) bool {
	switch s.framing {
	case http1.FramingClose:
		return end != nil && end.Error == 0
	case http1.FramingChunked:
		return s.tail == 0 || s.gapped || s.tail>>32 == blankLine
	case http1.FramingUnknown:
		return true
	}
	return false
}

// miss takes note of a message that was not seen, or not understood. explained is how many requests can wait then on a
// connection that has one at a time.
func (p *pairing) miss(c *connection, s *stream, reason dropReason, explained int) {
	s.phase = betweenMessages
	if s == c.responseStream() {
		if reason != dropGap { // of what was not seen, the requests tell
			p.loseResponse(c, reason)
		}
		p.lose(c, explained)
		return
	}
	if reason != dropGap {
		p.loseRequests(c, reason, 1)
	}
	if s.stray {
		return
	}
	s.stray = true
	c.missing++
	if reason != dropGap {
		c.accounted++
	}
}

// lose takes note of responses that were lost: what waits cannot be paired with certainty any more.
func (p *pairing) lose(c *connection, explained int) {
	c.lossy = true
	if len(c.pending) >= max(explained, 1) {
		c.pipelines = true
	}
	c.unsure = c.unsure || c.pipelines
	p.loseRequests(c, dropGap, uint32(len(c.pending)))
	p.forget(c)
}

// loseRequests counts requests that are not told of, but for those whose responses were counted.
func (p *pairing) loseRequests(c *connection, reason dropReason, count uint32) {
	c.lost.requests += count
	p.countLost(c, reason, c.lost.requests)
}

// loseResponse counts a response that is not told of, unless its request was counted.
func (p *pairing) loseResponse(c *connection, reason dropReason) {
	c.lost.responses++
	p.countLost(c, reason, c.lost.responses)
}

// countLost counts as many exchanges as were not counted yet.
func (p *pairing) countLost(c *connection, reason dropReason, exchanges uint32) {
	if exchanges > c.lost.counted {
		p.drops[reason] += uint64(exchanges - c.lost.counted)
		c.lost.counted = exchanges
	}
}

// suspected takes note that several requests are under way, while messages were lost.
func (p *pairing) suspected(c *connection) {
	c.pipelines, c.suspect = true, false
	p.lose(c, 0)
}

// hide takes note of messages that begin where nothing was captured, after others of the same call.
func (p *pairing) hide(c *connection, s *stream, m *call) {
	s.phase = betweenMessages
	if m.length < shortCall && len(m.data) == 0 {
		s.boundary = m.offset
		return
	}
	s.boundary = m.end()
	c.pipelines = c.pipelines || s == c.requestStream()
	p.miss(c, s, dropHiddenHead, 1)
}

// forget drops the requests that wait.
func (p *pairing) forget(c *connection) {
	p.unlist(c, c.pending)
	clear(c.pending)
	c.pending = c.pending[:0]
	if cap(c.pending) > keptPending {
		c.pending = nil
	}
	c.answering = false
}

// unlist takes exchanges of a client off those that a server may look for.
func (p *pairing) unlist(c *connection, pending []pendingExchange) {
	if c.role != RoleClient {
		return
	}
	for i := range pending {
		delete(p.clients, exchangeKey{pending[i].FlowID, pending[i].RequestOffset})
	}
}

// sweep forgets connections of which nothing was heard for long: their end was lost.
func (p *pairing) sweep(nowNs uint64) {
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
