//go:build linux

package http

import (
	"bytes"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http/genai"
	"github.com/ebpfreceiver/ebpfreceiver/internal/http/http1"
)

const (
	// maxBodyPart bounds what is kept of the beginning of a body, and of its end. The kernel side copies no more of a call.
	maxBodyPart = 4 << 10
	// maxBodies bounds the exchanges whose bodies are kept at a time: of each three parts.
	maxBodies = 1024
)

// bodies are what is kept of an exchange with a model server, until it has ended.
type bodies struct {
	kind         genai.Kind
	request      beginning
	response     beginning
	end          []byte // of the response's body, up to endAt
	endAt        uint32 // the offset up to which was told of it
	whole        bool   // end is that of the body
	firstChunkNs uint64
}

// beginning is the first bytes of a body, as far as all of them were captured.
type beginning struct {
	data []byte
	at   uint32 // the offset after data
	over bool   // nothing more is taken
}

// take goes on with a part of the body, of which the first bytes may have been captured.
func (b *beginning) take(offset uint32, captured []byte, length uint32) {
	before := int32(b.at - offset) // what was told of before
	if b.over || before > 0 && uint32(before) >= length {
		return
	}
	if before < 0 {
		b.over = true // something is missing
		return
	}
	captured = captured[min(int(before), len(captured)):]
	captured = captured[:min(len(captured), maxBodyPart-len(b.data))]
	b.data = append(b.data, captured...)
	b.at += uint32(len(captured))
	b.over = uint32(len(captured)) < length-uint32(before)
}

// takeEnd goes on with a part of the response's body, of which the last bytes may have been captured.
func (b *bodies) takeEnd(offset uint32, last []byte, length uint32) {
	end := offset + length
	if int32(end-b.endAt) <= 0 {
		return // it was told of before
	}
	if before := int32(b.endAt - (end - uint32(len(last)))); before >= 0 {
		last = last[before:]
	} else {
		b.end = b.end[:0] // something is missing between
	}
	b.endAt = end
	last = last[max(0, len(last)-maxBodyPart):]
	if excess := len(b.end) + len(last) - maxBodyPart; excess > 0 {
		b.end = b.end[:copy(b.end, b.end[excess:])]
	}
	b.end = append(b.end, last...)
}

// keepBodies begins to keep those of a request to a model server, the only one of its connection that waits: of several at a
// time none are kept.
func (p *pairing) keepBodies(c *connection, e *pendingExchange) {
	if !p.genAI || !e.selected || len(c.pending) != 1 {
		return
	}
	kind, known := genai.Operation(e.Method, e.Target)
	if !known {
		return
	}
	if p.kept >= maxBodies {
		p.unkept++
		return
	}
	p.kept++
	c.bodies = &bodies{kind: kind}
}

// dropBodies forgets them.
func (p *pairing) dropBodies(c *connection) {
	if c.bodies != nil {
		c.bodies = nil
		p.kept--
	}
}

// ofBodies says whether what moves in a stream belongs to the exchange of which bodies are kept.
func (c *connection) ofBodies(s *stream) bool {
	switch {
	case c.bodies == nil || len(c.pending) == 0:
		return false
	case s == c.requestStream():
		return len(c.pending) == 1
	}
	return c.answering
}

// beginBody notes where a body begins.
func (c *connection) beginBody(s *stream, offset uint32) {
	switch {
	case !c.ofBodies(s):
	case s == c.requestStream():
		c.bodies.request.at = offset
	default:
		c.bodies.response.at, c.bodies.endAt = offset, offset
	}
}

// keep takes the next bytes of a body from a call.
func (c *connection) keep(s *stream, m *call, length uint32) {
	if length == 0 || !c.ofBodies(s) {
		return
	}
	b := c.bodies
	captured := m.data[:min(len(m.data), int(length))]
	if s == c.requestStream() {
		b.request.take(m.offset, captured, length)
		return
	}
	if b.firstChunkNs == 0 && m.offset == b.response.at {
		b.firstChunkNs = m.TimeNs
	}
	b.response.take(m.offset, captured, length)
	var last []byte
	switch {
	case len(captured) == int(length):
		last = captured
	case length == m.length:
		last = m.last[max(0, len(m.last)-int(length)):]
	}
	b.takeEnd(m.offset, last, length)
}

// endBody notes that the framing of the response says that its body ends at the offset.
func (c *connection) endBody(s *stream, at uint32) {
	if s != c.responseStream() || !c.ofBodies(s) {
		return
	}
	b := c.bodies
	b.whole = len(b.end) > 0 && b.endAt == at &&
		(s.framing != http1.FramingChunked || bytes.HasSuffix(b.end, []byte("\r\n\r\n")))
}

// readBodies reads those of the exchange that is about to be told of.
func (p *pairing) readBodies(c *connection, e *Exchange) {
	b := c.bodies
	if b == nil {
		return
	}
	p.dropBodies(c)
	read, isModel := genai.Read(b.kind, genai.Bodies{
		Request: b.request.data, Response: b.response.data, ResponseEnd: b.end, Whole: b.whole,
	})
	if isModel {
		read.FirstChunkNs = b.firstChunkNs
		e.GenAI = read
	}
}
