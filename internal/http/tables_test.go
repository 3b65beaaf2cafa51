//go:build linux

package http

import (
	"bytes"
	"encoding/binary"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

const (
	tablePID       = 7
	tableGoroutine = 42
)

// tableScene is a connection that was joined midway, as its server sees it or its client.
type tableScene struct {
	*pairing
	role    Role
	block   bytes.Buffer
	encoder *hpack.Encoder
	offset  uint32
	nowNs   uint64
	paths   []string
	wanted  int
}

func newTableScene(role Role) *tableScene {
	s := &tableScene{role: role, offset: 1000, nowNs: 1}
	s.encoder = hpack.NewEncoder(&s.block)
	s.pairing = newPairing(10,
		func(*messageHead, Role) (*workload.Workload, bool) { return nil, true },
		func(e *Exchange) { s.paths = append(s.paths, e.Target) })
	s.tables.want = func(*messageHead) { s.wanted++ }
	s.encode("/a")
	return s
}

// table is what the program has in its table now.
func (s *tableScene) table() []byte {
	entries := *(*[]hpack.HeaderField)(unsafe.Pointer(s.encoder)) // it begins with that
	var fields []byte
	for i := len(entries) - 1; i >= 0; i-- {
		fields = binary.LittleEndian.AppendUint16(fields, uint16(len(entries[i].Name)))
		fields = binary.LittleEndian.AppendUint16(fields, uint16(len(entries[i].Value)))
		fields = append(append(fields, entries[i].Name...), entries[i].Value...)
	}
	return fields
}

func (s *tableScene) encode(path string) []byte {
	s.block.Reset()
	for _, field := range []hpack.HeaderField{{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: path}} {
		_ = s.encoder.WriteField(field)
	}
	return bytes.Clone(s.block.Bytes())
}

func (s *tableScene) direction() bpfMessageDirection {
	if s.role == RoleClient {
		return bpfMessageDirectionMESSAGE_SENT
	}
	return bpfMessageDirectionMESSAGE_RECEIVED
}

// request is one with its block, and its whole exchange.
func (s *tableScene) request(stream uint32, block []byte, who uint64) {
	var frames bytes.Buffer
	_ = xhttp2.NewFramer(&frames, nil).WriteHeaders(xhttp2.HeadersFrameParam{
		StreamID: stream, BlockFragment: block, EndHeaders: true, EndStream: true,
	})
	s.frames(frames.Bytes(), who)
	_ = xhttp2.NewFramer(&frames, nil).WriteRSTStream(stream, xhttp2.ErrCodeCancel)
	s.frames(frames.Bytes()[9+len(block):], who)
}

func (s *tableScene) frames(data []byte, who uint64) {
	s.nowNs++
	m := message{
		TimeNs: s.nowNs, Cookie: 1, Kind: uint8(bpfMessageKindMESSAGE_FRAMES), Direction: uint8(s.direction()),
		Offset: s.offset, Length: uint32(len(data)), Captured: uint16(len(data)), Goroutine: who,
	}
	s.offset += uint32(len(data))
	head := messageHead{Pid: tablePID, LocalSequence: 1, RemoteSequence: 2}
	s.handle(&m, &head, data)
}

// told is what the kernel side tells of the table at a block.
func (s *tableScene) told(stream uint32, block, fields []byte, who uint64) {
	var first [8]byte
	copy(first[:], block)
	s.nowNs++
	s.handle(&message{
		TimeNs: s.nowNs, Cookie: tablePID, Kind: uint8(bpfMessageKindMESSAGE_TABLE), Direction: uint8(s.direction()),
		Offset: stream, Length: uint32(len(block)), Tail: binary.LittleEndian.Uint64(first[:]), FrameLeft: 1,
		Captured: uint16(len(fields)), Goroutine: who,
	}, nil, fields)
}

func TestTablesOfReaders(t *testing.T) {
	s := newTableScene(RoleServer)
	s.request(9, s.encode("/a"), tableGoroutine) // from now on, blocks are remembered
	before := s.table()
	first := s.encode("/a")
	s.request(11, first, tableGoroutine)
	require.Equal(t, []string{"", ""}, s.paths, "it is not known")
	require.Equal(t, 2, s.wanted)

	s.told(11, first, before, tableGoroutine+1)
	require.EqualValues(t, 1, s.tables.unmatched, "nobody is known to read by that goroutine")
	s.told(11, first, before, 0)
	require.EqualValues(t, 2, s.tables.unmatched)
	s.told(13, first, before, tableGoroutine)
	require.EqualValues(t, 3, s.tables.unmatched, "there was no such block")

	s.told(11, first, before, tableGoroutine)
	require.EqualValues(t, 3, s.tables.unmatched)
	require.Empty(t, s.tables.readers)
	s.request(13, s.encode("/a"), tableGoroutine)
	s.request(15, s.encode("/b"), tableGoroutine)
	s.request(17, s.encode("/b"), tableGoroutine)
	assert.Equal(t, []string{"", "", "/a", "/b", "/b"}, s.paths)
	assert.Equal(t, 2, s.wanted)
	assert.EqualValues(t, 1, s.tables.learned)
}

func TestTablesOfWriters(t *testing.T) {
	s := newTableScene(RoleClient)
	s.request(11, s.encode("/a"), tableGoroutine)
	require.Equal(t, []string{""}, s.paths, "it is not known")

	second := s.encode("/a")
	s.told(13, second, s.table(), tableGoroutine+1)
	s.request(13, second, tableGoroutine)
	third := s.encode("/a")
	s.told(15, third, s.table(), tableGoroutine)
	s.request(15, third, tableGoroutine) // as its table is known only after it
	s.request(17, s.encode("/a"), tableGoroutine+2)
	assert.Equal(t, []string{"", "", "", "/a"}, s.paths)
	assert.EqualValues(t, 1, s.tables.learned)

	for id := range uint64(2 * maxTablesWritten) {
		s.told(19, third, s.table(), 1000+id)
	}
	assert.LessOrEqual(t, len(s.tables.written), maxTablesWritten)
}

// Programs that are not of Go, or not known to be yet, are not asked.
func TestTablesOfOthers(t *testing.T) {
	s := newTableScene(RoleServer)
	s.request(11, s.encode("/a"), 0)
	assert.Equal(t, []string{""}, s.paths)
	assert.Zero(t, s.wanted)
	assert.Empty(t, s.tables.readers)
}
