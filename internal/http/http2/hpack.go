package http2

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/net/http2/hpack"
)

const (
	// defaultTableBytes is what a dynamic table may hold until a peer has said otherwise: SETTINGS_HEADER_TABLE_SIZE of
	// RFC 9113 section 6.5.2.
	defaultTableBytes = 4096
	// maxTableBytes bounds what is kept of one.
	maxTableBytes = 64 << 10
	// entryOverhead is what RFC 7541 section 4.1 adds to the size of an entry.
	entryOverhead = 32
)

// entry is a field line as the dynamic table knows it. The value is kept where the field is of interest, or unknown.
type entry struct {
	field Field
	value string
	// named is the place of the entry that has its name, in the order of what was put in since the last loss. It has a
	// meaning where the field is not known.
	named int64
}

func (e *entry) bytes() int { return entryOverhead + len(e.value) }

// table is the dynamic table of a decoder that may have missed its beginning, or parts of it.
//
// It is sound for this reason. The table is a queue (RFC 7541 section 2.3.2): new entries get the lowest index, and only the
// oldest ones leave. So index 62+k is the entry that was the k-th newest to be put in, whatever the sizes of entries are
// and whenever some left. An encoder does not refer to what has left. So the entries that were put in since the last loss
// are found by their index alone. An index beyond them is of an entry from before: it is told to be unknown. Two cases need
// thought:
//   - An entry that is larger than the table empties it and is not put in (section 4.4). Here it may be, as the size of the
//     real table may not be known. As everything older has left as well, no encoder refers to it or what is behind it, and
//     those that come after it are where they should be.
//   - What is dropped here for lack of space (the real table may be larger than is known) are the oldest entries. They
//     become unknown.
//
// So the table here needs to know neither the exact sizes of entries nor that of the table: it only must not take an entry
// for unknown without need. Therefore an entry counts here for no more than its real size.
//
// After the loss of any bytes that may have put entries in, it is forgotten: how many were put in is not known, so none of
// those before can be found. With that, no doubt remains as long as the encoder keeps to RFC 7541.
//
// golang.org/x/net/http2/hpack has such a decoder, but needs to know all of that, ends at the first entry that it does not
// have, and copies every field; filling it with placeholders first helps against the former only for tables of one size.
type table struct {
	entries  []entry // the oldest first
	first    int     // of those that are there
	bytes    int
	maxBytes int
	inserted int64 // since the last loss
}

// at finds an entry; false: it is not known.
func (t *table) at(index uint64) (entry, bool) {
	if index <= staticEntries {
		return staticEntry(index), true
	}
	index -= staticEntries
	if index > uint64(len(t.entries)-t.first) {
		return entry{field: fieldUnknown}, false
	}
	return t.entries[len(t.entries)-int(index)], true
}

func (t *table) add(e entry) {
	if len(t.entries) == cap(t.entries) && t.first > len(t.entries)/2 {
		rest := copy(t.entries, t.entries[t.first:])
		clear(t.entries[rest:])
		t.entries, t.first = t.entries[:rest], 0
	}
	t.entries = append(t.entries, e)
	t.inserted++
	t.bytes += e.bytes()
	t.evict()
}

func (t *table) evict() {
	for t.bytes > t.maxBytes && t.first < len(t.entries) {
		oldest := &t.entries[t.first]
		t.bytes -= oldest.bytes()
		*oldest = entry{}
		t.first++
	}
	if t.first == len(t.entries) {
		t.entries, t.first = t.entries[:0], 0
	}
}

// resize follows a size update of the encoder, which says how large the real table is (RFC 7541 section 6.3).
func (t *table) resize(bytes uint64) {
	t.maxBytes = int(min(bytes, maxTableBytes))
	t.evict()
}

// allow follows the peer's settings. The encoder may use less, and tells it in a size update if it does.
func (t *table) allow(bytes uint32) {
	t.maxBytes = max(t.maxBytes, min(int(bytes), maxTableBytes))
}

// forget drops all entries. How large the real table is may have been lost as well.
func (t *table) forget() {
	clear(t.entries)
	t.entries, t.first, t.bytes, t.inserted = t.entries[:0], 0, 0, 0
	t.maxBytes = max(t.maxBytes, defaultTableBytes)
}

var (
	errCutShort = errors.New("the field is not whole")
	errInteger  = errors.New("an integer is too large")
	errIndex    = errors.New("index 0")
)

// fields reads a header block into headers. partial says that the end of it was not seen.
func (d *Decoder) fields(headers *Headers, block []byte, partial bool) error {
	headers.Unknown = partial
	size := len(block)
	for len(block) > 0 {
		rest, err := d.field(headers, block)
		if errors.Is(err, errCutShort) && partial {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read header block: field at byte %d of %d: %w", size-len(block), size, err)
		}
		block = rest
	}
	return nil
}

// field reads one field line (RFC 7541 section 6), and gives what comes after it.
func (d *Decoder) field(headers *Headers, block []byte) (rest []byte, err error) {
	switch first := block[0]; {
	case first&0x80 != 0: // indexed
		index, rest, err := integer(block, 7)
		if err != nil {
			return nil, err
		}
		if index == 0 {
			return nil, errIndex
		}
		e, known := d.table.at(index)
		if !known {
			headers.Unknown = true
		}
		headers.set(e)
		return rest, nil
	case first&0xe0 == 0x20: // size update
		size, rest, err := integer(block, 5)
		if err != nil {
			return nil, err
		}
		d.table.resize(size)
		return rest, nil
	case first&0xc0 == 0x40: // literal, put into the table
		return d.literal(headers, block, 6, true)
	default: // literal, not put into it
		return d.literal(headers, block, 4, false)
	}
}

// literal reads a literal field line, whose name's index has so many bits in the first byte.
func (d *Decoder) literal(headers *Headers, block []byte, bits int, indexed bool) (rest []byte, err error) {
	index, rest, err := integer(block, bits)
	if err != nil {
		return nil, err
	}
	var e entry
	if index > 0 {
		e, _ = d.table.at(index)
		e.value = ""
	} else {
		var name text
		if name, rest, err = readText(rest); err != nil {
			return nil, err
		}
		if len(name.bytes) <= longestName {
			plain, err := d.plain(name)
			if err != nil {
				return nil, fmt.Errorf("name: %w", err)
			}
			e.field = fieldNamed(plain)
		}
	}
	value, rest, err := readText(rest)
	if err != nil {
		return nil, err
	}
	switch e.field {
	case fieldOther:
	case fieldUnknown:
		// Its name may be learned later.
		e.named = d.table.inserted - int64(index-staticEntries)
		if plain, err := d.plain(value); indexed && err == nil && len(plain) <= maxKeptValue {
			e.value = string(plain)
		}
	default:
		plain, err := d.plain(value)
		if err != nil {
			return nil, fmt.Errorf("value: %w", err)
		}
		if string(plain) != d.last[e.field] { // no allocation
			d.last[e.field] = string(plain)
		}
		e.value = d.last[e.field]
		if len(e.value) > maxKeptValue {
			d.last[e.field] = ""
		}
	}
	if indexed {
		d.table.add(e)
	}
	headers.set(e)
	return rest, nil
}

// maxKeptValue bounds the values that are remembered, to use their memory again should they come again.
const maxKeptValue = 256

// text is a string literal (RFC 7541 section 5.2).
type text struct {
	bytes   []byte
	huffman bool
}

func readText(block []byte) (value text, rest []byte, err error) {
	if len(block) == 0 {
		return text{}, nil, errCutShort
	}
	length, rest, err := integer(block, 7)
	if err != nil {
		return text{}, nil, err
	}
	if length > uint64(len(rest)) {
		return text{}, nil, errCutShort
	}
	return text{bytes: rest[:length], huffman: block[0]&0x80 != 0}, rest[length:], nil
}

// plain gives the bytes of a string literal, valid until the next call.
func (d *Decoder) plain(value text) ([]byte, error) {
	if !value.huffman {
		return value.bytes, nil
	}
	if d.scratch.Cap() > maxKeptBytes {
		d.scratch = bytes.Buffer{}
	}
	d.scratch.Reset()
	if _, err := hpack.HuffmanDecode(&d.scratch, value.bytes); err != nil {
		return nil, err
	}
	return d.scratch.Bytes(), nil
}

// integer reads an integer with a prefix of so many bits (RFC 7541 section 5.1). block is not empty.
func integer(block []byte, bits int) (value uint64, rest []byte, err error) {
	mask := byte(1)<<bits - 1
	value = uint64(block[0] & mask)
	if byte(value) < mask {
		return value, block[1:], nil
	}
	for i, b := range block[1:] {
		if i == 5 {
			return 0, nil, errInteger
		}
		value += uint64(b&0x7f) << (7 * i)
		if b&0x80 == 0 {
			return value, block[i+2:], nil
		}
	}
	return 0, nil, errCutShort
}
