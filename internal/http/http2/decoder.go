package http2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/bits"
)

const (
	// maxBlockBytes bounds a header block with its padding.
	maxBlockBytes = 64 << 10
	// maxControlBytes bounds what is kept of a frame that carries no header block. Settings beyond it are not read.
	maxControlBytes = 240
	// maxKeptBytes is how much of a buffer is kept for the next header block.
	maxKeptBytes = 4 << 10
	// prefaceBytes is the length of the client's connection preface (RFC 9113 section 3.4).
	prefaceBytes = 24
)

// Call is what the kernel side tells of bytes that a call moved in one direction, or of a part of them.
type Call struct {
	TimeNs uint64
	// Offset is the place of the first byte in its direction's stream, modulo 2^32.
	Offset, Length uint32
	// FrameLeft is how many bytes of the payload of the frame that is under way at Offset are still to come. HeaderHave is
	// how many bytes of a frame's header came before it.
	FrameLeft  uint32
	HeaderHave uint8
	// Preface is how many bytes of the client's connection preface come first. Where it is 0 in the first call of a
	// stream, the decoder finds out by itself whether there is a whole preface, as far as that can be told; otherwise the
	// call is lost.
	Preface uint8
	// Truncated says that Captured does not have all that it should.
	Truncated bool
	// Captured are the bytes of the call without the preface and without the payload of DATA frames, except for its first
	// byte where the frame has the flag PADDED. They are valid during the call.
	Captured []byte
}

func (c *Call) end() uint32 { return c.Offset + c.Length }

// Headers is a header block: the header section or the trailers of a message.
type Headers struct {
	Stream    uint32
	EndStream bool
	// Times of its first and last byte.
	StartNs, EndNs uint64
	// Unknown says that there are fields of which it is not known what they are. So a field without a value may be there.
	Unknown bool
	// Missing says that there are fields of which the dynamic table does not know what they are: see Learn.
	Missing bool
	// Partial says that it was not seen to its end. Then it may be told of after what answers it, and EndNs is of the last
	// byte that was seen.
	Partial bool

	present uint32 // bit for each field
	values  [fieldCount]string
}

// Value gives a field's value; empty: it is not there, or not known. Of a field that is there more than once, the first
// one counts.
func (h *Headers) Value(field Field) string { return h.values[field] }

// Has says whether the field is known to be there.
func (h *Headers) Has(field Field) bool { return h.present&(1<<field) != 0 }

// clear forgets the fields. Most are not there, so not all of their values are cleared.
func (h *Headers) clear() {
	for present := h.present; present != 0; present &= present - 1 {
		h.values[bits.TrailingZeros32(present)] = ""
	}
	h.present = 0
	h.Unknown, h.Missing = false, false
}

func (h *Headers) set(e entry) {
	switch {
	case e.field == fieldUnknown:
		h.Unknown, h.Missing = true, true
	case e.field != fieldOther && !h.Has(e.field):
		h.present |= 1 << e.field
		h.values[e.field] = e.value
	}
}

// Handler takes what a decoder has found, in the order of the stream.
type Handler interface {
	// Preface is the client's connection preface: requests go in this direction.
	Preface()
	// Headers is valid during the call.
	Headers(headers *Headers)
	// Data is a whole DATA frame, with the length of its payload without padding. atNs is the time of its last byte.
	Data(stream uint32, length uint32, endStream bool, atNs uint64)
	// Reset is RST_STREAM with an error code.
	Reset(stream, code uint32, atNs uint64)
	// GoAway is a GOAWAY frame with the last stream that was or may be processed, and an error code.
	GoAway(last, code uint32, atNs uint64)
	// TableSize is a setting that bounds the dynamic table in the other direction: AllowTable of its decoder takes it.
	TableSize(bytes uint32)
	// Lost says that frames were lost here, or came before the first call that was seen. What is known of the stream's messages may have changed in them.
	Lost()
}

// Decoder decodes one direction of a connection. Its zero value joins a stream anywhere, with Handler set.
type Decoder struct {
	Handler Handler
	// TooLarge counts header blocks that were cut off because they have more than 64 KiB.
	TooLarge uint64
	// Taught counts how often a table was learned.
	Taught uint64
	// NoPreface says that there is no connection preface in this direction, as in that of responses.
	NoPreface bool

	table    table
	learning learning
	scratch  bytes.Buffer       // of a Huffman code
	last     [fieldCount]string // values, to use them again
	headers  Headers            // to hand over
	err      error              // of the stream: it is decoded no more

	seen   bool   // there was a call, so at is known
	at     uint32 // where the bytes end that were told of
	lastNs uint64 // of the last call
	synced bool   // what follows is known

	// The header of a frame that is under way, or its first bytes.
	header  [headerBytes]byte
	have    uint8
	frame   frame
	left    uint32 // of the payload
	startNs uint64 // of the header's first byte
	opaque  bool   // the frame's header was not seen
	stored  bool   // opaque: its payload is captured

	payload []byte // what is kept of it so far, where it came in several calls

	// A header block that goes on in CONTINUATION frames.
	inBlock    bool
	headless   bool // its beginning was lost
	overflowed bool
	blockFrame frame
	blockNs    uint64
	block      []byte
}

// AllowTable takes a HEADER_TABLE_SIZE that was seen in the other direction.
func (d *Decoder) AllowTable(bytes uint32) {
	d.prepare()
	d.table.allow(bytes)
}

func (d *Decoder) prepare() {
	if !d.seen && d.table.maxBytes == 0 {
		d.table.maxBytes = defaultTableBytes
	}
}

var errContract = errors.New("captured bytes do not fit the call's length")

// Call takes in the next call. After an error, which is the stream's, it does nothing but return it again.
func (d *Decoder) Call(c *Call) error {
	if d.err != nil || c.Length == 0 {
		return d.err
	}
	d.err = d.call(c)
	if d.err != nil {
		d.payload, d.block, d.table, d.scratch = nil, nil, table{}, bytes.Buffer{}
		d.learning = learning{}
		d.last, d.headers = [fieldCount]string{}, Headers{}
	}
	return d.err
}

func (d *Decoder) call(c *Call) error {
	d.prepare()
	first := !d.seen
	if d.seen && c.Offset != d.at {
		switch gap := c.Offset - d.at; {
		case int32(gap) > 0:
			if err := d.skipGap(gap); err != nil {
				return err
			}
		case c.end() == d.at:
			return nil // the rest of a call is told of again
		default:
			// Less was moved than had been told: the stream goes on from where it really is.
			d.lose()
		}
	}
	// The kernel side may be wrong by one about where a stream begins.
	if first && c.Offset > 1 {
		d.Handler.Lost()
	}
	if c.Preface > 0 {
		d.Handler.Preface()
	}
	d.seen, d.at = true, c.end()
	if d.synced && !d.agrees(c) {
		d.lose()
	}
	bytesLeft, captured := c.Length-min(uint32(c.Preface), c.Length), c.Captured
	if !d.synced {
		skipped, kept, ok := d.join(c, bytesLeft, first)
		if !ok {
			d.Handler.Lost()
			return nil // the next call may tell where the stream stands
		}
		bytesLeft, captured = bytesLeft-skipped, captured[kept:]
	}
	d.lastNs = c.TimeNs
	return d.follow(c, bytesLeft, captured)
}

// agrees says whether the kernel side sees the stream where the decoder does.
func (d *Decoder) agrees(c *Call) bool {
	if d.have == headerBytes {
		return c.FrameLeft == d.left && c.HeaderHave == 0
	}
	return c.FrameLeft == 0 && c.HeaderHave == d.have
}

// skipGap goes on behind bytes of which nothing was told. They may all be of a frame that has nothing of interest.
func (d *Decoder) skipGap(gap uint32) error {
	if !d.synced {
		d.Handler.Lost() // streams may be known that were not when the loss began
		return nil
	}
	// The length of the padding must have been seen.
	data := d.frame.kind == typeData && (len(d.payload) > 0 || !d.frame.has(flagPadded))
	if d.have == headerBytes && !d.opaque && (data || d.ignores()) {
		passed := min(gap, d.left)
		d.left -= passed
		gap -= passed
		if d.left == 0 {
			if err := d.endFrame(d.payload, d.lastNs); err != nil {
				return err
			}
		}
	}
	if gap > 0 {
		d.lose()
	}
	return nil
}

// lose takes note that bytes were lost in which there may have been frames.
func (d *Decoder) lose() {
	d.cut()
	d.forgetFrame()
	d.synced = false
	d.forgetTable()
	d.Handler.Lost()
}

// cut hands over what there is of a header block whose rest was lost.
func (d *Decoder) cut() {
	var part []byte
	began := d.inBlock && !d.headless
	if d.have == headerBytes && !d.opaque && d.frame.carriesBlock() {
		part = d.fragment(d.payload)
		if d.frame.kind != typeContinuation {
			d.blockFrame, d.blockNs, began = d.frame, d.startNs, true
		}
	}
	if !began {
		return
	}
	if len(d.block) > 0 {
		d.block = append(d.block, part...)
		part = d.block
	}
	// An error in it says no more than that it was cut.
	_ = d.endBlock(part, true, d.lastNs)
}

// forgetFrame forgets the frame that is under way.
func (d *Decoder) forgetFrame() {
	d.have, d.left, d.opaque = 0, 0, false
	d.inBlock, d.overflowed = false, false
	// A part of a block whose beginning was lost may come next.
	d.headless = true
	d.payload, d.block = trimmed(d.payload), trimmed(d.block)
}

// join finds out where a call stands in its stream, of which nothing is known, by what the kernel side says. A frame that
// is under way is of a type that was not seen: its payload may be captured or not. What is true fits the call's length, so
// if only one of the possibilities fits, it is true. Otherwise nothing is told of the call, which is false.
func (d *Decoder) join(c *Call, length uint32, first bool) (skipped uint32, kept int, ok bool) {
	d.forgetFrame()
	switch {
	case c.HeaderHave > 0:
		return 0, 0, false // the frame's length or type was not seen
	case c.FrameLeft > 0:
		passed := min(c.FrameLeft, length)
		found := 0
		// Not captured; padded, with its length as the first byte; captured.
		for i, candidate := range [...]int{0, 1, int(passed)} {
			if candidate > len(c.Captured) || i == 2 && candidate <= 1 {
				continue
			}
			if fits(c, length-passed, c.Captured[candidate:]) {
				kept = candidate
				found++
			}
		}
		if found != 1 || kept == 1 && passed == 1 {
			return 0, 0, false
		}
		d.have, d.left, d.opaque = headerBytes, c.FrameLeft-passed, true
		d.stored = kept > 1
		if d.left == 0 {
			d.have, d.opaque = 0, false
		}
		d.synced = true
		return passed, kept, true
	case first && c.Offset <= 1 && c.Preface == 0 && !d.NoPreface && length >= prefaceBytes:
		without, with := fits(c, length, c.Captured), fits(c, length-prefaceBytes, c.Captured)
		if without && with && (len(c.Captured) < headerBytes || c.Captured[3] == typeSettings) {
			// After a preface there are SETTINGS (RFC 9113 section 3.4).
			return 0, 0, false
		}
		if with && !without {
			skipped = prefaceBytes
			d.Handler.Preface()
		}
	}
	d.synced = true
	return skipped, 0, true
}

// fits says whether the captured bytes can be what is captured of so many bytes that begin with a frame.
func fits(c *Call, length uint32, captured []byte) bool {
	for length > 0 {
		if len(captured) < headerBytes {
			return uint32(len(captured)) == length || c.Truncated && uint32(len(captured)) < length
		}
		f := readFrame(captured)
		if length < headerBytes || f.check() != nil {
			return false
		}
		captured = captured[headerBytes:]
		length -= headerBytes
		moved := min(f.length, length)
		length -= moved
		if f.kind == typeData {
			moved = min(moved, f.front())
		}
		if uint32(len(captured)) < moved {
			return c.Truncated
		}
		captured = captured[moved:]
	}
	return len(captured) == 0
}

// follow goes through the frames in the last bytes of a call.
func (d *Decoder) follow(c *Call, length uint32, captured []byte) error {
	for length > 0 {
		if d.have < headerBytes {
			took := min(int(headerBytes-d.have), len(captured), int(min(length, headerBytes)))
			if took == 0 {
				d.lose() // truncated
				return nil
			}
			if d.have == 0 {
				d.startNs = c.TimeNs
			}
			copy(d.header[d.have:], captured[:took])
			d.have += uint8(took)
			captured, length = captured[took:], length-uint32(took)
			if d.have < headerBytes {
				continue
			}
			if err := d.begin(); err != nil {
				return err
			}
			if d.left == 0 {
				if err := d.endFrame(nil, c.TimeNs); err != nil {
					return err
				}
			}
			continue
		}
		moved := min(d.left, length)
		stored := moved
		switch {
		case d.opaque && !d.stored:
			stored = 0
		case !d.opaque && d.frame.kind == typeData:
			stored = 0
			if d.frame.has(flagPadded) && d.left == d.frame.length {
				stored = 1
			}
		}
		if int(stored) > len(captured) {
			d.left -= uint32(len(captured))
			d.keep(captured)
			if moved < length || !d.ignores() {
				d.lose()
				return nil
			}
			d.left -= moved - uint32(len(captured)) // the rest of the call is of a frame that is not looked at
			if d.left > 0 {
				return nil
			}
			return d.endFrame(nil, c.TimeNs)
		}
		part := captured[:stored]
		captured, length = captured[stored:], length-moved
		d.left -= moved
		if d.left > 0 {
			d.keep(part)
			continue
		}
		if len(d.payload) > 0 || d.overflowed {
			d.keep(part)
			part = d.payload
		}
		if err := d.endFrame(part, c.TimeNs); err != nil {
			return err
		}
	}
	if len(captured) > 0 {
		return errContract
	}
	return nil
}

// begin begins with a frame whose header is whole.
func (d *Decoder) begin() error {
	d.frame = readFrame(d.header[:])
	d.left, d.opaque = d.frame.length, false
	if err := d.frame.check(); err != nil {
		return err
	}
	if d.frame.kind == typeContinuation {
		if !d.inBlock && !d.headless || d.inBlock && d.frame.stream != d.blockFrame.stream {
			return d.frame.failed(errors.New("it continues nothing"))
		}
		return nil
	}
	if d.inBlock {
		return d.frame.failed(errors.New("it comes within a header block"))
	}
	d.headless = false
	return nil
}

// ignores says whether nothing in the frame's payload is of interest.
func (d *Decoder) ignores() bool {
	if d.opaque {
		return false
	}
	switch d.frame.kind {
	case typeData, typeHeaders, typeReset, typeSettings, typePushPromise, typeGoAway, typeContinuation:
		return false
	}
	return true
}

// keep keeps a part of the payload until the rest comes.
func (d *Decoder) keep(part []byte) {
	if len(part) == 0 || d.opaque || d.ignores() {
		return
	}
	most := maxControlBytes
	if d.frame.carriesBlock() {
		most = maxBlockBytes - len(d.block)
	}
	if room := most - len(d.payload); len(part) > room {
		part = part[:room]
		d.overflowed = d.overflowed || d.frame.carriesBlock()
	}
	d.payload = append(d.payload, part...)
}

// endFrame ends a frame with its payload, as far as that is kept.
func (d *Decoder) endFrame(payload []byte, atNs uint64) error {
	var err error
	switch {
	case d.opaque:
	case d.frame.carriesBlock():
		err = d.endPart(payload, atNs)
	default:
		err = d.endControl(payload, atNs)
	}
	d.have, d.opaque, d.payload = 0, false, trimmed(d.payload)
	return err
}

// trimmed empties a buffer, and gives it up if it is large.
func trimmed(buffer []byte) []byte {
	if cap(buffer) > maxKeptBytes {
		return nil
	}
	return buffer[:0]
}

func (d *Decoder) endControl(payload []byte, atNs uint64) error {
	switch d.frame.kind {
	case typeData:
		length := d.frame.length
		if d.frame.has(flagPadded) {
			// It is there: a frame without it does not pass check, and one whose first byte was lost is lost.
			padding := 1 + uint32(payload[0])
			if padding > length {
				return d.frame.failed(errPadding)
			}
			length -= padding
		}
		d.Handler.Data(d.frame.stream, length, d.frame.has(flagEndStream), atNs)
	case typeReset:
		d.Handler.Reset(d.frame.stream, binary.BigEndian.Uint32(payload), atNs)
	case typeGoAway:
		last := binary.BigEndian.Uint32(payload) &^ (1 << 31)
		d.Handler.GoAway(last, binary.BigEndian.Uint32(payload[4:]), atNs)
	case typeSettings:
		for ; len(payload) >= settingBytes; payload = payload[settingBytes:] {
			if binary.BigEndian.Uint16(payload) == settingHeaderTableSize {
				d.Handler.TableSize(binary.BigEndian.Uint32(payload[2:]))
			}
		}
	}
	return nil
}

var errPadding = errors.New("it has more padding than bytes")

// fragment gives the part of a header block in a frame's payload, of which the end may be missing.
func (d *Decoder) fragment(payload []byte) []byte {
	front, end := int(d.frame.front()), len(payload)
	if d.frame.kind == typeContinuation {
		return payload
	}
	if len(payload) <= front {
		return nil
	}
	if d.frame.has(flagPadded) {
		end = min(end, int(d.frame.length)-int(payload[0]))
	}
	return payload[front:max(front, end)]
}

// endPart ends a frame that carries a part of a header block, or all of it.
func (d *Decoder) endPart(payload []byte, atNs uint64) error {
	continued := d.frame.kind == typeContinuation
	if continued && d.headless {
		return nil
	}
	if !continued {
		if d.frame.has(flagPadded) && uint32(payload[0])+d.frame.front() > d.frame.length {
			return d.frame.failed(errPadding)
		}
		d.inBlock, d.blockFrame, d.blockNs = true, d.frame, d.startNs
	}
	part := d.fragment(payload)
	ended := d.frame.has(flagEndHeaders)
	if !ended || len(d.block) > 0 || len(part) > maxBlockBytes {
		if room := maxBlockBytes - len(d.block); len(part) > room {
			part = part[:room]
			d.overflowed = true
		}
		d.block = append(d.block, part...)
		part = d.block
	}
	if !ended {
		return nil
	}
	overflowed := d.overflowed
	if overflowed {
		d.TooLarge++
	}
	if err := d.endBlock(part, overflowed, atNs); err != nil {
		return err
	}
	if overflowed {
		d.forgetTable()
	}
	return nil
}

// endBlock decodes a header block and hands it over. partial says that the end of it is missing.
func (d *Decoder) endBlock(block []byte, partial bool, atNs uint64) error {
	h := &d.headers
	h.clear()
	h.Stream, h.EndStream, h.StartNs, h.EndNs = d.blockFrame.stream, d.blockFrame.has(flagEndStream), d.blockNs, atNs
	h.Partial = partial
	d.remember(block)
	err := d.fields(h, block, partial)
	d.inBlock, d.overflowed, d.block = false, false, trimmed(d.block)
	if err != nil {
		return d.blockFrame.failed(err)
	}
	if d.headers.Missing {
		d.miss()
	}
	if !partial {
		d.meet()
	}
	// What a server promises to push is read for the sake of the table.
	if d.blockFrame.kind == typeHeaders {
		d.Handler.Headers(&d.headers)
	}
	return nil
}
