//go:build linux

package http

const (
	// maxStreamReaders bounds the goroutines that are known to read connections of HTTP/2, and maxStreamAskers the requests
	// of which it is known who asks, before they are sent.
	maxStreamReaders, maxStreamAskers = 16384, 4096
)

// goStreams tie goroutines of Go that serve a stream of HTTP/2, or ask with one (bpf/include/http/go_streams.h), to their
// connections: by the goroutine that reads these, or writes on them. It is pure, and not safe for concurrent use.
type goStreams struct {
	readers map[streamReader]uint64 // cookies of connections with requests
	cleared uint32                  // how often readers was emptied
	askers  map[askedStream]asker   // until the request is sent
	// unmatched counts what was told of streams that are not known. It is no loss where a program is observed from midway.
	unmatched uint64
}

// streamReader is a goroutine that receives the requests of a connection, or that has started the one that does.
type streamReader struct {
	goroutine
	starter bool
}

// askedStream is a stream on the connection that a goroutine writes on.
type askedStream struct {
	writer goroutine
	number uint32
}

// asker is a goroutine that asks, and the one that has started it.
type asker struct{ goroutine, parent uint64 }

func newGoStreams() goStreams {
	return goStreams{readers: map[streamReader]uint64{}, askers: map[askedStream]asker{}}
}

// reads takes note of who receives the requests of a connection.
func (g *goStreams) reads(s *streams, m *message, head *messageHead) {
	if m.Goroutine == 0 || s.reader == m.Goroutine && s.readerCleared == g.cleared {
		return
	}
	if len(g.readers) >= maxStreamReaders-1 {
		clear(g.readers) // they come again, with their next request
		g.cleared++
	}
	s.reader, s.readerCleared = m.Goroutine, g.cleared
	g.readers[streamReader{goroutine: goroutine{pid: head.Pid, id: m.Goroutine}}] = m.Cookie
	if m.ParentGoroutine != 0 {
		g.readers[streamReader{goroutine{pid: head.Pid, id: m.ParentGoroutine}, true}] = m.Cookie
	}
}

// asks gives a request's message with the goroutine that asks in place of the one that sends, where that is known. The
// request is that of a client in HTTP/2.
func (g *goStreams) asks(m *message, pid, number uint32) *message {
	if len(g.askers) == 0 || m.Goroutine == 0 {
		return m
	}
	key := askedStream{goroutine{pid: pid, id: m.Goroutine}, number}
	who, known := g.askers[key]
	if !known {
		return m
	}
	delete(g.askers, key)
	asked := *m
	asked.Goroutine, asked.ParentGoroutine = who.goroutine, who.parent
	return &asked
}

// handleStream takes in what a program tells of a stream.
func (p *pairing) handleStream(m *message) {
	g, pid := &p.goStreams, uint32(m.Cookie)
	if bpfMessageDirection(m.Direction) == bpfMessageDirectionMESSAGE_SENT {
		if len(g.askers) >= maxStreamAskers {
			g.unmatched += uint64(len(g.askers))
			clear(g.askers)
		}
		g.askers[askedStream{goroutine{pid: pid, id: m.Tail}, m.Offset}] = asker{m.Goroutine, m.ParentGoroutine}
		return
	}
	event, parent := bpfGoStreamEvent(m.Length), goroutine{pid: pid, id: m.ParentGoroutine}
	cookie, known := g.readers[streamReader{parent, event == bpfGoStreamEventGO_STREAM_HANDLED}]
	if !known {
		// What came with the preface was read by whom has read that.
		cookie, known = g.readers[streamReader{goroutine: parent}]
	}
	if event == bpfGoStreamEventGO_STREAM_READ {
		if known {
			g.readers[streamReader{goroutine: goroutine{pid: pid, id: m.Goroutine}}] = cookie
		}
		return
	}
	var (
		s *streams
		o *openStream
	)
	if c := p.connections[cookie]; known && c != nil && c.described.Pid == pid &&
		c.multiplexed != nil && c.multiplexed.role == RoleServer {
		s = c.multiplexed
		o = s.open[m.Offset]
	}
	if o == nil || o.service.stage == stageAnswered {
		g.unmatched++
		return
	}
	s.served = true
	p.serving.leave(&o.service, nil)
	o.service = p.serving.receive(m, pid, schedulingGoroutines, &o.id)
	if o.service.by != nil {
		o.service.by.once = true
	}
}
