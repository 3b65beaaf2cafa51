package http2

import (
	"bytes"
	"encoding/binary"
)

const (
	// recentBlocks is how many header blocks a decoder remembers that misses fields.
	recentBlocks = 64
	// fieldLengths is how many bytes come before a field's name in Table.Fields.
	fieldLengths = 4
)

// Table is what the dynamic table of one end has at a header block, as its program was found to have it.
type Table struct {
	Block
	// Fields has the newest first: the lengths of name and value, of 16 bits each in little-endian order, and these two.
	Fields []byte
	// Partial says that the oldest fields are not there.
	Partial bool
}

// Block is what a header block is known by.
type Block struct {
	Stream    uint32
	Length    uint32 // of the payload of its first frame
	EndStream bool
	First     [8]byte // its first bytes, and zero for those that it does not have
}

// blockPlace is where a header block is in the order of what was put into the table.
type blockPlace struct {
	Block
	at int64 // how many fields were put in before it, since the last loss
}

// learning is what a decoder needs to learn a table from its program. The table of a program is found by what both have
// seen, a header block, and has to agree with all fields that the decoder knows already.
type learning struct {
	recent   []blockPlace // the oldest are overwritten; nil: no field is missed
	next     int
	current  blockPlace // of the block that was decoded last
	expected *Table
	whole    bool // the table was learned, and nothing was lost since
}

// Learned says whether the decoder has learned its table, and has lost nothing since.
func (d *Decoder) Learned() bool { return d.learning.whole }

// Learn takes in the table as it was before a header block that was decoded. It says false where it is not known what that
// table has to do with this one: nothing has changed then.
func (d *Decoder) Learn(t *Table) bool {
	found := none
	for i := range d.learning.recent {
		if !d.learning.recent[i].is(&t.Block) {
			continue
		}
		if found != none {
			return false // a stream may have several that are alike, such as those of interim responses
		}
		found = i
	}
	return found != none && d.learn(t, d.learning.recent[found].at)
}

const none = -1

// is says whether a block that was seen is the one that is told of: of that, what it does not have may be anything.
func (b *Block) is(told *Block) bool {
	if b.Stream != told.Stream || b.Length != told.Length || b.EndStream != told.EndStream {
		return false
	}
	most := min(b.Length, uint32(len(b.First)))
	return bytes.Equal(b.First[:most], told.First[:most])
}

// Expect takes in the table as it will be after a header block that comes with the next call, or later. The decoder keeps
// it.
func (d *Decoder) Expect(t *Table) {
	if d.err == nil && !d.learning.whole {
		d.learning.expected = t
	}
}

// remember takes note of a header block that begins, where one before it had a field that is not known.
func (d *Decoder) remember(block []byte) {
	l := &d.learning
	if l.recent == nil && l.expected == nil {
		return
	}
	l.current = blockPlace{
		Block: Block{Stream: d.blockFrame.stream, Length: d.blockFrame.length, EndStream: d.blockFrame.has(flagEndStream)},
		at:    d.table.inserted,
	}
	copy(l.current.First[:], block)
	switch {
	case l.recent == nil:
	case len(l.recent) < recentBlocks:
		l.recent = append(l.recent, l.current)
	default:
		l.recent[l.next] = l.current
		l.next = (l.next + 1) % recentBlocks
	}
}

// miss takes note that a block has a field that is not known.
func (d *Decoder) miss() {
	d.learning.whole = false
	if d.learning.recent == nil {
		d.learning.recent = make([]blockPlace, 0, recentBlocks)
	}
}

// meet learns the table that is expected, if the block that has ended is its block.
func (d *Decoder) meet() {
	expected := d.learning.expected
	if expected == nil || !d.learning.current.is(&expected.Block) {
		return
	}
	d.learning.expected = nil
	d.learn(expected, d.table.inserted)
}

// forgetTable takes note that fields may have been put into the table that were not seen.
func (d *Decoder) forgetTable() {
	d.table.forget()
	d.learning.recent, d.learning.next, d.learning.whole = nil, 0, false
}

// learn takes in a table as it was when so many fields had been put in.
func (d *Decoder) learn(t *Table, at int64) bool {
	if !d.table.learn(t.Fields, at) {
		return false
	}
	d.learning = learning{whole: !t.Partial}
	d.Taught++
	return true
}

// learn puts fields below those that are known.
func (t *table) learn(fields []byte, at int64) bool {
	known := t.entries[t.first:]
	oldest := t.inserted - int64(len(known)) // the place of the oldest that is known
	if at < oldest {
		return false // it is not known what came in between
	}
	var older []entry
	position := at
	for rest := fields; len(rest) > 0; {
		e, value, next, ok := cutField(rest)
		if !ok {
			return false
		}
		rest = next
		if position--; position < oldest {
			older = append(older, e)
			continue
		}
		have := &known[position-oldest]
		if have.field == fieldUnknown && have.value != "" && have.value != string(value) ||
			have.field != fieldUnknown && *have != e {
			return false
		}
	}
	total := make([]entry, 0, len(older)+len(known))
	for i := len(older) - 1; i >= 0; i-- {
		total = append(total, older[i])
	}
	total = append(total, known...)
	// Fields whose name was not known are known now: these, and those that have their name from them.
	position = at
	for rest := fields; len(rest) > 0 && position > oldest; {
		e, _, next, _ := cutField(rest)
		rest = next
		position--
		total[int64(len(older))+position-oldest] = e
	}
	begin := oldest - int64(len(older))
	for i := range total {
		if e := &total[i]; e.field == fieldUnknown && e.named >= begin && e.named-begin < int64(i) {
			e.takeName(total[e.named-begin].field)
		}
	}
	t.entries, t.first, t.bytes = total, 0, 0
	for i := range total {
		t.bytes += total[i].bytes()
	}
	// They all were in it: it is as large at least.
	t.maxBytes = max(t.maxBytes, min(t.bytes, maxTableBytes))
	t.evict()
	return true
}

// cutField takes the first field of Table.Fields, with its value even where the entry has none.
func cutField(fields []byte) (e entry, value, rest []byte, ok bool) {
	if len(fields) < fieldLengths {
		return entry{}, nil, nil, false
	}
	nameBytes, valueBytes := int(binary.LittleEndian.Uint16(fields)), int(binary.LittleEndian.Uint16(fields[2:]))
	fields = fields[fieldLengths:]
	if len(fields) < nameBytes+valueBytes {
		return entry{}, nil, nil, false
	}
	e.field = fieldNamed(fields[:nameBytes])
	value, rest = fields[nameBytes:nameBytes+valueBytes], fields[nameBytes+valueBytes:]
	if e.field != fieldOther {
		e.value = string(value)
	}
	return e, value, rest, true
}

// takeName names an entry of which only the value is known.
func (e *entry) takeName(field Field) {
	switch {
	case field == fieldOther:
		*e = entry{}
	case e.value != "": // else it may have been too long to be kept
		*e = entry{field: field, value: e.value}
	}
}
