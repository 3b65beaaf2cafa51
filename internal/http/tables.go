//go:build linux

package http

import "github.com/ebpfreceiver/ebpfreceiver/internal/http/http2"

const (
	// maxTableReaders bounds the goroutines that are known to read connections with unknown fields, and maxTablesWritten
	// the tables that wait for their block.
	maxTableReaders, maxTablesWritten = 4096, 256
)

// goroutine names one of Go, on this host.
type goroutine struct {
	pid uint32
	id  uint64
}

// tables tie what programs of Go were found to have in their tables of header fields (bpf/include/http/go_tables.h) to
// connections: by the goroutine that reads a connection, or writes on it. It is pure, and not safe for concurrent use.
//
// A table is that of the connection from which the goroutine has received the block last, as the block is
// then among the last that were seen there; or of the one on which the goroutine sends next, when the block comes there.
// In a program that has others move its bytes, none is found.
type tables struct {
	want    func(*messageHead)         // a process has fields that are not known
	readers map[goroutine]uint64       // cookies of connections with fields that are not known
	written map[goroutine]*http2.Table // until the goroutine sends
	learned uint64
	// unmatched counts tables of which it is not known whose they are. They are no loss: others come.
	unmatched uint64
}

func newTables() tables {
	return tables{
		want: func(*messageHead) {}, readers: map[goroutine]uint64{}, written: map[goroutine]*http2.Table{},
	}
}

// handleTable takes in a table of a program.
func (p *pairing) handleTable(m *message, data []byte) {
	who := goroutine{pid: uint32(m.Cookie), id: m.Goroutine}
	if who.id == 0 {
		p.tables.unmatched++
		return
	}
	table := &http2.Table{
		Block:  http2.Block{Stream: m.Offset, Length: m.Length, EndStream: m.FrameLeft != 0, First: tailBytes(m.Tail)},
		Fields: data, Partial: m.has(bpfMessageFlagMESSAGE_TRUNCATED),
	}
	if bpfMessageDirection(m.Direction) == bpfMessageDirectionMESSAGE_SENT {
		if len(p.tables.written) >= maxTablesWritten {
			p.tables.unmatched += uint64(len(p.tables.written))
			clear(p.tables.written)
		}
		table.Fields = append([]byte(nil), data...)
		p.tables.written[who] = table
		return
	}
	cookie, known := p.tables.readers[who]
	if !known {
		p.tables.unmatched++
		return
	}
	c := p.connections[cookie]
	if c == nil || c.multiplexed == nil || c.multiplexed.failed || c.described.Pid != who.pid {
		delete(p.tables.readers, who)
		p.tables.unmatched++
		return
	}
	if !c.multiplexed.sides[bpfMessageDirectionMESSAGE_RECEIVED].decoder.Learn(table) {
		p.tables.unmatched++
		return
	}
	delete(p.tables.readers, who)
}

// sends takes note that a goroutine sends on a connection: a table that it has written a block with is the connection's.
func (t *tables) sends(s *streams, m *message, head *messageHead) {
	if len(t.written) == 0 || bpfMessageDirection(m.Direction) != bpfMessageDirectionMESSAGE_SENT || m.Goroutine == 0 {
		return
	}
	who := goroutine{pid: head.Pid, id: m.Goroutine}
	if table, known := t.written[who]; known {
		delete(t.written, who)
		s.sides[bpfMessageDirectionMESSAGE_SENT].decoder.Expect(table)
	}
}

// misses takes note that a header block has fields that are not known.
func (s *side) misses() {
	m := s.message
	if m.Goroutine == 0 {
		return // no program of Go, or it is not known to be one
	}
	t := &s.pairing.tables
	if s.direction == bpfMessageDirectionMESSAGE_RECEIVED {
		if len(t.readers) >= maxTableReaders {
			clear(t.readers) // they come again
		}
		t.readers[goroutine{pid: s.head.Pid, id: m.Goroutine}] = m.Cookie
	}
	t.want(s.head)
}
