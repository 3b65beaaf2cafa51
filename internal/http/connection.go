//go:build linux

package http

import (
	"time"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http/http1"
	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

const (
	// maxHeadBytes bounds what is put together of a head that came in several calls.
	maxHeadBytes = 16 << 10
	// maxPending bounds the requests of a connection that wait for their responses.
	maxPending = 1024
	// idleConnection is how long a connection without requests is remembered.
	idleConnection = 5 * time.Minute
)

// dropReason is why something of the traffic could not be told.
type dropReason int

const (
	dropGap         dropReason = iota // exchanges: messages between were lost, so requests and responses cannot be paired
	dropUnpaired                      // responses whose request was not seen
	dropMalformed                     // messages that look like HTTP and are none
	dropHiddenHead                    // messages that begin beyond what was captured of a call
	dropPendingFull                   // requests of a connection that has too many unanswered ones
	dropTableFull                     // connections beyond the bound
	dropReasons
)

// String names the reason in the receiver's telemetry.
func (r dropReason) String() string {
	return [dropReasons]string{
		dropGap:         "message_gap",
		dropUnpaired:    "unpaired_response",
		dropMalformed:   "malformed_message",
		dropHiddenHead:  "hidden_message",
		dropPendingFull: "too_many_pending",
		dropTableFull:   "table_full",
	}[r]
}

// pairing puts messages together to exchanges. It is pure: its input are recorded messages, and nothing of the kernel is in
// it. It is not safe for concurrent use.
type pairing struct {
	maxConnections int
	identify       func(*messageHead, Role) (owner *workload.Workload, selected bool)
	emit           func(*Exchange) // the exchange is valid during the call

	connections map[uint64]*connection
	clients     map[exchangeKey]struct{} // requests of clients that wait for their responses
	drops       [dropReasons]uint64
	request     http1.Request
	response    http1.Response
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
	// next is the offset at which the next message begins; known says whether that is certain.
	next      uint32
	known     bool
	framing   http1.Framing
	head      []byte // what is there of a head that is not whole
	headStart uint32
	headNs    uint64
	lastNs    uint64 // of the last bytes of a message
}

type pendingExchange struct {
	Exchange
	selected    bool
	requestDone bool
}

// connection is what is known of a socket that carries HTTP/1.
type connection struct {
	role      Role
	streams   [2]stream // by direction
	pending   []pendingExchange
	answering bool // the first of pending has its response under way
	pipelines bool // it has had several requests pending at a time
	unsure    bool // what was lost makes the next response anybody's
	tunnel    bool // it carries HTTP no more
	lastNs    uint64
}

func (c *connection) requests() *stream {
	if c.role == RoleServer {
		return &c.streams[bpfMessageDirectionMESSAGE_RECEIVED]
	}
	return &c.streams[bpfMessageDirectionMESSAGE_SENT]
}

// handle takes in one message. head and data belong to it where bytes were captured.
func (p *pairing) handle(m *message, head *messageHead, data []byte) {
	c := p.connections[m.Cookie]
	if m.kind() == bpfMessageKindMESSAGE_END {
		if c != nil {
			p.end(c, m)
			delete(p.connections, m.Cookie)
		}
		return
	}
	if c == nil {
		if m.kind() != bpfMessageKindMESSAGE_HEAD {
			return
		}
		if c = p.open(m, data); c == nil {
			return
		}
	}
	c.lastNs = m.TimeNs
	if c.tunnel {
		return
	}
	s := &c.streams[m.Direction&1]
	offset, length := m.Offset, m.Length

	switch s.phase {
	case inHead:
		if head != nil && offset == s.headStart+uint32(len(s.head)) && len(s.head)+len(data) <= maxHeadBytes {
			s.head = append(s.head, data...)
			start, whole := s.headStart, uint32(len(s.head))+length-uint32(len(data))
			p.read(c, s, m, head, s.head, start, whole, s.headNs)
			return
		}
		if int32(offset-s.headStart) <= 0 {
			return // told of twice: the kernel waited for memory in between
		}
		p.lose(c, s)
	case inBody:
		done, rest := p.body(c, s, m)
		if !done {
			return
		}
		if rest == 0 {
			return
		}
		skipped := int(length - rest)
		offset, length = offset+uint32(skipped), rest
		if skipped >= len(data) {
			p.hidden(c, s)
			return
		}
		data = data[skipped:]
	case betweenMessages:
		if m.kind() != bpfMessageKindMESSAGE_HEAD {
			return // bytes of a head that are told of again with the rest of it
		}
		if s.known && offset != s.next {
			if int32(offset-s.next) < 0 {
				return // told of twice
			}
			p.lose(c, s)
		}
	}
	if head != nil {
		p.read(c, s, m, head, data, offset, length, m.TimeNs)
	}
}

// open makes a connection of a first message. Its direction and kind tell which end this is.
func (p *pairing) open(m *message, data []byte) *connection {
	if len(p.connections) >= p.maxConnections {
		p.drops[dropTableFull]++
		return nil
	}
	received := bpfMessageDirection(m.Direction) == bpfMessageDirectionMESSAGE_RECEIVED
	c := &connection{role: RoleClient}
	if http1.LooksLikeRequest(data) == received {
		c.role = RoleServer
	}
	p.connections[m.Cookie] = c
	return c
}

// body accounts for bytes of a body. It says whether the body ends in this call, and how many bytes are left then.
func (p *pairing) body(c *connection, s *stream, m *message) (done bool, rest uint32) {
	end := m.Offset + m.Length
	switch s.framing {
	case http1.FramingLength:
		if int32(end-s.next) < 0 {
			s.lastNs = m.TimeNs
			return false, 0
		}
		if int32(m.Offset-s.next) > 0 {
			p.lose(c, s)
			return true, m.Length
		}
		p.finish(c, s, m, m.TimeNs)
		return true, end - s.next
	case http1.FramingChunked:
		if p.superseded(c, s, m) {
			break
		}
		s.lastNs = m.TimeNs
		tail := m.tailBytes()
		if m.Tail == 0 || !http1.EndsChunked(tail[:], false) {
			return false, 0
		}
		s.next, s.known = end, true
		p.finish(c, s, m, m.TimeNs)
		return true, 0
	case http1.FramingUnknown:
		if p.superseded(c, s, m) {
			break
		}
		s.lastNs = m.TimeNs
		return false, 0
	default:
		s.lastNs = m.TimeNs
		return false, 0
	}
	// The end of the body was not seen, but what follows it.
	s.known = false
	p.finish(c, s, m, s.lastNs)
	return true, m.Length
}

// superseded says that a body whose end is not told by its length must have ended: a new message begins, and the other
// direction has gone on to it.
func (p *pairing) superseded(c *connection, s *stream, m *message) bool {
	if m.kind() != bpfMessageKindMESSAGE_HEAD {
		return false
	}
	if s == c.requests() {
		return !c.answering && len(c.pending) == 0
	}
	return len(c.pending) > 1 && c.pending[1].StartNs > s.lastNs
}

// read reads the heads in a call's first bytes. length is what the call moved from offset on.
func (p *pairing) read(
	c *connection, s *stream, m *message, head *messageHead, data []byte, offset, length uint32, startNs uint64,
) {
	for length > 0 {
		if len(data) == 0 {
			p.hidden(c, s)
			return
		}
		request := s == c.requests()
		var (
			result http1.Result
			parsed *http1.Head
		)
		if request {
			result, parsed = p.request.Parse(data), &p.request.Head
		} else {
			result, parsed = p.response.Parse(data, c.method()), &p.response.Head
		}
		switch {
		case result == http1.Malformed:
			p.drops[dropMalformed]++
			s.phase, s.known = betweenMessages, false
			return
		case result == http1.Partial && uint32(len(data)) == length && len(data) < maxHeadBytes &&
			(s.phase != inHead || m.Captured > 0):
			if s.phase != inHead {
				s.phase, s.headStart, s.headNs = inHead, offset, startNs
				s.head = append(s.head[:0], data...)
			}
			return
		}

		s.phase, s.lastNs = inBody, m.TimeNs
		s.framing = parsed.Framing
		if request {
			p.begin(c, head, offset, startNs)
		} else if !p.answer(c, startNs) {
			s.phase = betweenMessages
			return
		}
		if result == http1.Partial {
			s.framing = http1.FramingUnknown
			return
		}
		whole := uint32(parsed.Bytes)
		body := offset + whole
		rest := length - whole
		switch s.framing {
		case http1.FramingNone:
			s.next = body
		case http1.FramingLength:
			if parsed.ContentLength > int64(rest) {
				// A body of 4 GiB and more is beyond what an offset tells.
				if parsed.ContentLength >= 1<<31 {
					s.framing = http1.FramingUnknown
				}
				s.next, s.known = body+uint32(parsed.ContentLength), true
				return
			}
			s.next = body + uint32(parsed.ContentLength)
		case http1.FramingChunked:
			if !endsChunked(m, data[whole:], rest) {
				return
			}
			s.next = offset + length
		default:
			return
		}
		s.known = true
		p.finish(c, s, m, m.TimeNs)
		if c.tunnel {
			return
		}
		moved := s.next - offset
		length -= moved
		offset = s.next
		data = data[min(int(moved), len(data)):]
		startNs = m.TimeNs
	}
}

// endsChunked says whether a call that has rest bytes after a head ends the chunked body; data are those that were captured.
func endsChunked(m *message, data []byte, rest uint32) bool {
	if uint32(len(data)) == rest {
		return http1.EndsChunked(data[max(0, len(data)-8):], len(data) < 8)
	}
	tail := m.tailBytes()
	return m.Tail != 0 && http1.EndsChunked(tail[:], false)
}

// method is that of the request whose response comes next.
func (c *connection) method() []byte {
	if len(c.pending) == 0 {
		return nil
	}
	return []byte(c.pending[0].Method)
}

// begin notes a request.
func (p *pairing) begin(c *connection, head *messageHead, offset uint32, startNs uint64) {
	if c.unsure && !c.pipelines {
		c.unsure = false // who sends one request at a time sends none before it has the response to the last
	}
	if len(c.pending) >= maxPending {
		p.drops[dropPendingFull]++
		c.tunnel = true
		return
	}
	r := &p.request
	owner, selected := p.identify(head, c.role)
	c.pending = append(c.pending, pendingExchange{
		Exchange: Exchange{
			Role:              c.role,
			Owner:             owner,
			StartNs:           startNs,
			Method:            internMethod(r.Method),
			Target:            string(r.Target),
			Host:              string(r.Host),
			UserAgent:         string(r.UserAgent),
			TraceParent:       string(r.TraceParent),
			TraceState:        string(r.TraceState),
			MinorVersion:      r.Minor,
			RequestBodyBytes:  -1,
			ResponseBodyBytes: -1,
			Local:             head.local(),
			Peer:              head.peer(),
			FlowID:            head.flowID(),
			RequestOffset:     offset,
		},
		selected: selected,
	})
	e := &c.pending[len(c.pending)-1]
	switch r.Framing {
	case http1.FramingNone:
		e.RequestBodyBytes = 0
	case http1.FramingLength:
		e.RequestBodyBytes = r.ContentLength
	}
	if len(c.pending) > 1 {
		c.pipelines = true
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

// answer notes the first bytes of a response. It says false where that is the response to nothing that is known.
func (p *pairing) answer(c *connection, startNs uint64) bool {
	c.answering = false
	if len(c.pending) == 0 || c.unsure {
		p.drops[dropUnpaired]++
		return true // its body is followed all the same
	}
	r := &p.response
	if r.Status < 200 && r.Status != 101 {
		return true // an interim response: the final one comes
	}
	c.answering = true
	e := &c.pending[0]
	e.ResponseNs = startNs
	e.Status = r.Status
	switch r.Framing {
	case http1.FramingNone:
		e.ResponseBodyBytes = 0
	case http1.FramingLength:
		e.ResponseBodyBytes = r.ContentLength
	}
	if r.Status == 101 || e.Method == "CONNECT" && r.Status/100 == 2 {
		c.tunnel = true
	}
	return true
}

// finish ends the message of a stream.
func (p *pairing) finish(c *connection, s *stream, m *message, atNs uint64) {
	s.phase = betweenMessages
	if s == c.requests() {
		if len(c.pending) > 0 {
			c.pending[len(c.pending)-1].requestDone = true
		}
		return
	}
	if !c.answering {
		return
	}
	c.answering = false
	e := &c.pending[0]
	e.EndNs = atNs
	p.complete(c, m)
}

// complete hands over the exchange that is first in line.
func (p *pairing) complete(c *connection, m *message) {
	e := &c.pending[0]
	if !e.requestDone {
		e.RequestBodyBytes = -1
	}
	e.SRTTUs, e.Retransmits = m.SrttUs, m.Retransmits
	if e.selected {
		if c.role == RoleClient {
			delete(p.clients, exchangeKey{e.FlowID, e.RequestOffset})
		}
		p.emit(&e.Exchange)
	}
	c.pending = c.pending[:copy(c.pending, c.pending[1:])]
}

// end ends what is left of a connection.
func (p *pairing) end(c *connection, m *message) {
	responses := &c.streams[bpfMessageDirectionMESSAGE_SENT]
	if c.role == RoleClient {
		responses = &c.streams[bpfMessageDirectionMESSAGE_RECEIVED]
	}
	if c.answering && (responses.framing == http1.FramingClose || responses.framing == http1.FramingUnknown) {
		p.finish(c, responses, m, responses.lastNs)
	}
	for len(c.pending) > 0 {
		e := &c.pending[0]
		if c.unsure {
			p.forget(c)
			break
		}
		e.EndNs = m.TimeNs
		e.ErrorType = m.errorType()
		e.ResponseBodyBytes = -1
		p.complete(c, m)
	}
}

// lose takes note of messages that are missing: what waits cannot be paired with certainty any more.
func (p *pairing) lose(c *connection, s *stream) {
	s.phase, s.known = betweenMessages, false
	p.drops[dropGap] += uint64(len(c.pending))
	p.forget(c)
	c.unsure = true
}

// hidden takes note of a message that begins where nothing was captured.
func (p *pairing) hidden(c *connection, s *stream) {
	p.drops[dropHiddenHead]++
	p.lose(c, s)
	if s == c.requests() {
		c.pipelines = true
	}
}

func (p *pairing) forget(c *connection) {
	if c.role == RoleClient {
		for i := range c.pending {
			delete(p.clients, exchangeKey{c.pending[i].FlowID, c.pending[i].RequestOffset})
		}
	}
	c.pending = c.pending[:0]
	c.answering = false
}

// sweep forgets connections of which nothing was heard for long: their end was lost.
func (p *pairing) sweep(nowNs uint64) {
	for cookie, c := range p.connections {
		if len(c.pending) == 0 && nowNs > c.lastNs && nowNs-c.lastNs > uint64(idleConnection) {
			delete(p.connections, cookie)
		}
	}
}

// internMethod gives a method's text without making a new one for those that are common.
func internMethod(method []byte) string {
	switch string(method) { // no allocation
	case "GET":
		return "GET"
	case "POST":
		return "POST"
	case "PUT":
		return "PUT"
	case "DELETE":
		return "DELETE"
	case "HEAD":
		return "HEAD"
	case "PATCH":
		return "PATCH"
	case "OPTIONS":
		return "OPTIONS"
	}
	return string(method)
}
