//go:build linux

package http

import (
	"bytes"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http/http1"
)

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
	gapped    bool         // other framings: bytes were lost, so its end may be among them
	chunks    http1.Chunks // FramingChunked: as far as it could be walked over
	tail      uint64       // the last eight bytes before at, the first in the lowest byte; 0: not known
	lastNs    uint64       // of the last bytes of a message
}

// call is what is left to look at of a message.
type call struct {
	*message
	head   *messageHead
	data   []byte // the first of the bytes, as far as they were captured
	last   []byte // the last of them instead: see MESSAGE_LAST_BYTES
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
	c.keep(s, m, uint32(min(s.left, int64(m.length))))
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
	c.keep(s, m, m.length)
	if s.framing == http1.FramingChunked {
		if m.offset-m.gap != s.at {
			s.chunks.Lose() // a part of it was told of before
		}
		if size := s.walk(m); s.chunks.Done() && size > 0 {
			p.finish(c, s, m.offset+size, m.TimeNs, m.message)
			m.skip(size)
			m.inner = true
			return m.length > 0
		}
		if s.chunk(m) {
			p.finishChunked(c, s, m)
		}
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
	case gapped || !next:
		p.lose(c, 0) // a blank line may be that of trailers, or of a response to the next request in the same call
	}
	return true
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
			p.request, result = p.requests.Parse(m.data)
			parsed = &p.request.Head
			known = len(p.request.Method) > 0
		} else {
			p.method = p.method[:0]
			if len(c.pending) > 0 {
				p.method = append(p.method, c.pending[0].Method...)
			}
			p.response, result = p.responses.Parse(m.data, p.method)
			parsed = &p.response.Head
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
		s.chunks = http1.Chunks{}
		if result == http1.Partial {
			s.framing = http1.FramingUnknown
			if request {
				s.lacksBody = string(p.request.Method) == "GET" || string(p.request.Method) == "HEAD"
				p.begin(c, m.message, m.head, m.offset, startNs)
				if !first {
					// There are several in one call, and more may follow in what was not captured.
					p.loseRequests(c, dropHiddenHead, 1)
					p.hidden(m.head)
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
		c.beginBody(s, m.offset)
		switch s.framing {
		case http1.FramingNone:
			p.finish(c, s, m.offset, m.TimeNs, m.message)
		case http1.FramingLength:
			s.left = parsed.ContentLength
			c.keep(s, m, uint32(min(s.left, int64(m.length))))
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
			if size := s.walk(m); s.chunks.Done() && size > 0 {
				c.keep(s, m, size)
				p.finish(c, s, m.offset+size, m.TimeNs, m.message)
				m.skip(size)
				break
			}
			c.keep(s, m, m.length)
			s.tail = 0x0a0d << 48 // the line break before
			// Where all of it is there, it has no end.
			if m.length > 0 && s.chunk(m) && uint32(len(m.data)) < m.length {
				p.finishChunked(c, s, m)
			}
			return
		default:
			c.keep(s, m, m.length)
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

// walk walks over the chunks of a call, as far as it is known, and says how much of what was captured belongs to the body.
func (s *stream) walk(m *call) (length uint32) {
	s.chunks.Pass(int64(m.gap))
	if length = uint32(s.chunks.Walk(m.data)); s.chunks.Done() || uint32(len(m.data)) == m.length {
		return length
	}
	tail, _ := m.known()
	s.chunks.WalkCall(nil, int64(m.length)-int64(len(m.data)), tail)
	return 0
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
	loose := !s.chunks.Done() && m.length >= smallestHead &&
		(uint32(len(m.data)) < m.length || bytes.Contains(m.data, []byte("HTTP/1.")))
	if s == c.responseStream() && s.chunks.Lost() {
		loose = true // so may a call before
	}
	p.finish(c, s, m.end(), m.TimeNs, m.message)
	switch {
	case !loose:
	case s == c.requestStream():
		c.loose = true
	case len(c.pending) > 0:
		p.suspected(c)
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

// hide takes note of messages that begin where nothing was captured, after others of the same call.
func (p *pairing) hide(c *connection, s *stream, m *call) {
	s.phase = betweenMessages
	if m.length < shortCall && len(m.data) == 0 {
		s.boundary = m.offset
		return
	}
	s.boundary = m.end()
	c.pipelines = c.pipelines || s == c.requestStream()
	p.hidden(m.head)
	p.miss(c, s, dropHiddenHead, 1)
}
