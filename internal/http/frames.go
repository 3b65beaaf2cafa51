//go:build linux

package http

import "github.com/ebpfreceiver/ebpfreceiver/internal/http/http2"

// prefaceBytes is the length of what a client of HTTP/2 sends first (RFC 9113 section 3.4).
const prefaceBytes = 24

// handleFrames takes in frames of HTTP/2. c is nil where the connection is not known.
func (p *pairing) handleFrames(c *connection, m *message, head *messageHead, data []byte) {
	if c == nil {
		if c = p.remember(m.Cookie, head); c == nil {
			return
		}
	}
	if head != nil {
		c.described = *head
	}
	c.lastNs = m.TimeNs
	call := http2.Call{
		TimeNs: m.TimeNs, Offset: m.Offset, Length: m.Length, FrameLeft: m.FrameLeft,
		Truncated: m.has(bpfMessageFlagMESSAGE_TRUNCATED), Captured: data,
	}
	var role Role
	if m.has(bpfMessageFlagMESSAGE_BEGINNING) {
		call.Preface, role = prefaceBytes, RoleClient
		if bpfMessageDirection(m.Direction) == bpfMessageDirectionMESSAGE_RECEIVED {
			role = RoleServer
		}
	}
	if c.multiplexed == nil {
		c.multiplexed = newStreams(p, role)
		if c.upgraded && len(c.pending) == 1 {
			c.multiplexed.adopt(&c.pending[0])
			c.pending = nil
		}
		p.loseRequests(c, dropGap, uint32(len(c.pending))) // what was asked in HTTP/1 is not answered any more
		p.forget(c)
	}
	p.tables.sends(c.multiplexed, m, &c.described)
	c.multiplexed.handle(m, &c.described, &call)
}

// describe takes note of whose a connection is. What it carries in TLS comes under the same cookie.
func (p *pairing) describe(c *connection, m *message, head *messageHead) {
	secure := m.has(bpfMessageFlagMESSAGE_SECURE)
	whole := secure && p.secured(m, head)
	if c == nil {
		if c = p.remember(m.Cookie, head); c == nil {
			return
		}
		c.secure, c.whole = secure, whole
	}
	c.described = *head
	c.lastNs = m.TimeNs
}

// remember begins with a connection; it is nil where there is no room, or where it was not described.
func (p *pairing) remember(cookie uint64, head *messageHead) *connection {
	if head == nil || len(p.connections) >= p.maxConnections {
		// Without a description, it was left out before; it will be described again.
		p.drops[dropTableFull]++
		return nil
	}
	c := &connection{described: *head}
	p.connections[cookie] = c
	return c
}
