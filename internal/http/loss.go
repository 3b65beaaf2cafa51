//go:build linux

package http

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

// lossAccount is what shows of lost exchanges since the last one before which nothing was open: each of them as a request,
// as a response, or as both.
type lossAccount struct {
	requests, responses uint32
	counted             uint32 // exchanges
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
