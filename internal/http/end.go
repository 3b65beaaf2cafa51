//go:build linux

package http

import "github.com/ebpfreceiver/ebpfreceiver/internal/http/http1"

// end ends what is left of a connection, and tells of what has no response.
func (p *pairing) end(c *connection, m *message) {
	p.countMissing(c)
	if !c.tunnel {
		p.endRequests(c, m)
		p.endResponses(c, m)
	}
	if c.upgraded && len(c.pending) == 1 {
		c.answering = false
		c.pending[0].Status, c.pending[0].ResponseNs = 0, 0 // that was an interim response
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
	var result http1.Result
	p.response, result = p.responses.Parse(s.head, nil)
	if result == http1.Partial && p.response.Status >= 200 && !c.pending[0].doubt {
		c.pending[0].ResponseNs = s.headNs
		c.pending[0].Status = p.response.Status
	}
}
