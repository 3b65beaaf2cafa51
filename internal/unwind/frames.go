//go:build linux

package unwind

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"slices"
)

// frameSection is a section of call frame information in a file.
type frameSection struct {
	reader  io.ReaderAt // of its bytes, whose end is not known where there are no section headers
	size    int64
	address uint64
	// debug is .debug_frame, else .eh_frame: they differ in how a CIE is marked and referred to.
	debug bool
	// unbounded: something else follows behind the record of length zero.
	unbounded bool
}

// commonEntry is a common information entry (CIE): what several functions have in common.
type commonEntry struct {
	codeAlignment uint64
	dataAlignment int64
	pointers      uint8 // encoding of an FDE's
	augmented     bool  // an FDE has a length of augmentation data
	signal        bool
	supported     bool // else rows cannot be made: the return address has a column of its own
	initial       state
}

// Counts are what was found in the call frame information of a file, and what of it was left out.
type Counts struct {
	Functions   int // FDEs
	Malformed   int // records that contradict themselves
	Outside     int // FDEs of no address that is executable
	Overlapping int // FDEs of addresses that another one is for
	Unsupported int // rows with a rule that a row cannot express
	Truncated   int // sections whose rest could not be read
}

// function is an FDE that was read: rows are for addresses from start on, up to end.
type function struct {
	start, end uint32 // from the base
	first      uint32 // of the rows
	count      uint32
}

// collector gathers the rows of functions, in the order of the file.
type collector struct {
	machine   *architecture
	base      uint64
	segments  []Segment
	functions []function
	rows      []Row
	counts    Counts

	commonBytes int64 // see maxCommonBytes
	interpreter interpreter
	from        *function // the one whose rows are being made
	signal      bool
}

var (
	errMalformed = errors.New("malformed")
	errFull      = &Failure{Reason: ReasonTooLarge, Err: errors.New("more functions, rows or CIEs than a file may have")}
)

func newCollector(machine *architecture, base uint64, segments []Segment) *collector {
	c := &collector{machine: machine, base: base, segments: segments}
	c.interpreter.machine, c.interpreter.each = machine, c.add
	return c
}

// window is the part of a section that is in memory.
type window struct {
	section *frameSection
	buffer  []byte
	start   int64
}

// at returns length bytes at an offset; they are valid until the next call.
func (w *window) at(offset int64, length int) ([]byte, error) {
	if offset < 0 || length < 0 || offset > w.section.size || int64(length) > w.section.size-offset {
		return nil, io.ErrUnexpectedEOF
	}
	if offset < w.start || offset+int64(length) > w.start+int64(len(w.buffer)) {
		wanted := max(length, windowBytes)
		if int64(wanted) > w.section.size-offset {
			wanted = int(w.section.size - offset)
		}
		if cap(w.buffer) < wanted {
			w.buffer = make([]byte, wanted)
		}
		read, err := w.section.reader.ReadAt(w.buffer[:wanted], offset)
		w.buffer, w.start = w.buffer[:read], offset
		if read < length {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	return w.buffer[offset-w.start:][:length], nil
}

// record is a CIE or an FDE.
type record struct {
	offset int64 // in the section
	next   int64
	wide   bool // of the 64-bit format
	empty  bool // it ends a list
	tooBig bool
	head   int // bytes of the length
	length int // bytes that follow it
}

// recordAt reads the length of a record.
func (w *window) recordAt(offset int64) (record, error) {
	found := record{offset: offset, head: 4}
	data, err := w.at(offset, 4)
	if err != nil {
		return record{}, err
	}
	length := uint64(binary.LittleEndian.Uint32(data))
	switch {
	case length == 0:
		found.empty, found.next = true, offset+4
		return found, nil
	case length == math.MaxUint32:
		if data, err = w.at(offset, 12); err != nil {
			return record{}, err
		}
		length = binary.LittleEndian.Uint64(data[4:])
		found.wide, found.head = true, 12
	case length >= 0xfffffff0:
		return record{}, errMalformed
	}
	if length > uint64(w.section.size-offset-int64(found.head)) {
		return record{}, io.ErrUnexpectedEOF
	}
	found.next = offset + int64(found.head) + int64(length)
	if found.tooBig = length > maxRecordBytes; !found.tooBig {
		found.length = int(length)
	}
	return found, nil
}

// body returns a cursor behind the length of a record, and the address of the first byte that it reads.
func (w *window) body(found record) (cursor, uint64, error) {
	data, err := w.at(found.offset+int64(found.head), found.length)
	return cursor{data: data}, w.section.address + uint64(found.offset) + uint64(found.head), err
}

// identifier reads what tells a CIE from an FDE, where it is also the place of its CIE.
func (s *frameSection) identifier(c *cursor, found record) (common bool, place int64) {
	at := found.offset + int64(found.head)
	if !s.debug {
		distance := int64(c.uint32()) // also in the 64-bit format
		return distance == 0, at - distance
	}
	if found.wide {
		value := c.uint64()
		return value == math.MaxUint64, int64(min(value, math.MaxInt64))
	}
	value := c.uint32()
	return value == math.MaxUint32, int64(value)
}

// read reads all functions of a section. What is malformed is left out and counted.
func (c *collector) read(section *frameSection) error {
	// About what compilers make of a section of this size. Sizes may lie, so there is a limit to what is made ready.
	const bytesOfRow, bytesOfFunction, most = 10, 40, 1 << 19
	c.rows = slices.Grow(c.rows, int(min(section.size/bytesOfRow, most)))
	c.functions = slices.Grow(c.functions, int(min(section.size/bytesOfFunction, most)))
	w := &window{section: section}
	common := map[int64]*commonEntry{}
	terminators := 0
	for offset := int64(0); section.size-offset >= 4; {
		found, err := w.recordAt(offset)
		if err != nil {
			if section.unbounded && errors.Is(err, io.ErrUnexpectedEOF) {
				return nil // There is no more of the segment, and the record of length zero is missing.
			}
			c.counts.Truncated++
			return readError(err)
		}
		offset = found.next
		if found.empty {
			if terminators++; section.unbounded || terminators > maxTerminators {
				return nil
			}
			continue
		}
		terminators = 0
		if found.tooBig {
			c.counts.Malformed++
			continue
		}
		body, address, err := w.body(found)
		if err != nil {
			c.counts.Truncated++
			return readError(err)
		}
		isCommon, place := section.identifier(&body, found)
		if isCommon || body.failed {
			continue
		}
		entry, known := common[place]
		if !known {
			if len(common) == maxCIEs {
				clear(common) // They are only read once more.
			}
			if c.commonBytes > maxCommonBytes {
				return errFull
			}
			entry = c.readCommon(w, place)
			common[place] = entry
			if body, address, err = w.body(found); err != nil {
				c.counts.Truncated++
				return readError(err)
			}
			section.identifier(&body, found)
		}
		if entry == nil {
			c.counts.Malformed++
			continue
		}
		if err := c.readFunction(&body, address, entry); err != nil {
			if errors.Is(err, errFull) {
				return err
			}
			c.counts.Malformed++
		}
	}
	return nil
}

// readError leaves malformed data to the counts: what was read before it is right.
func readError(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errMalformed) {
		return nil
	}
	return failure(ReasonUnreadable, "read call frame information: %w", err)
}

// readCommon reads a CIE; nil if it is malformed.
func (c *collector) readCommon(w *window, offset int64) *commonEntry {
	if offset < 0 || offset >= w.section.size {
		return nil
	}
	before := w.start
	found, err := w.recordAt(offset)
	if err != nil || found.empty || found.tooBig {
		return nil
	}
	body, address, err := w.body(found)
	if err != nil {
		return nil
	}
	c.commonBytes += int64(found.length)
	if w.start != before {
		c.commonBytes += windowBytes
	}
	if isCommon, _ := w.section.identifier(&body, found); !isCommon {
		return nil
	}
	entry, ok := parseCommon(&body, address, c.machine)
	if !ok {
		return nil
	}
	c.interpreter.common, c.interpreter.now, c.interpreter.silent = entry, state{}, true
	if c.interpreter.run(&body, address) != nil {
		return nil
	}
	entry.initial = c.interpreter.now
	return entry
}

// parseCommon reads a CIE up to its instructions.
func parseCommon(body *cursor, address uint64, machine *architecture) (*commonEntry, bool) {
	entry := &commonEntry{pointers: pointerAbsolute}
	version := body.uint8()
	augmentation := body.text()
	if body.failed || version != 1 && version != 3 && version != 4 {
		return nil, false
	}
	if version == 4 {
		const addressBytes, segmentBytes = 8, 0
		if body.uint8() != addressBytes || body.uint8() != segmentBytes {
			return nil, false
		}
	}
	if rest, found := bytes.CutPrefix(augmentation, []byte("eh")); found { // GCC 2
		body.uint64()
		augmentation = rest
	}
	entry.codeAlignment, entry.dataAlignment = body.unsigned(), body.signed()
	if version == 1 {
		entry.supported = uint64(body.uint8()) == machine.returnAddress
	} else {
		entry.supported = body.unsigned() == machine.returnAddress
	}
	if entry.codeAlignment > math.MaxUint8 || entry.dataAlignment < math.MinInt8 || entry.dataAlignment > math.MaxInt8 {
		return nil, false
	}
	if len(augmentation) == 0 {
		return entry, !body.failed
	}
	if augmentation[0] != 'z' {
		return nil, false // What follows cannot be skipped.
	}
	entry.augmented = true
	length := body.unsigned()
	start := body.at
	data := cursor{data: body.take(length)}
	if body.failed || !entry.augment(augmentation[1:], &data, address+uint64(start)) {
		return nil, false
	}
	return entry, true
}

// augment reads what the letters of an augmentation say (LSB, "Augmentation String Format").
func (e *commonEntry) augment(letters []byte, data *cursor, address uint64) bool {
	for _, letter := range letters {
		switch letter {
		case 'R': // how an FDE's pointers are encoded
			e.pointers = data.uint8()
		case 'P': // the personality routine
			encoding := data.uint8()
			if encoding&pointerBase == 0x50 { // aligned
				data.take((8 - (address+uint64(data.at))%8) % 8)
				encoding = pointerAbsolute
			}
			if encoding != pointerOmitted {
				data.number(encoding)
			}
		case 'L': // how the language-specific data area's pointers are encoded
			data.uint8()
		case 'S':
			e.signal = true
		case 'B', 'G': // AArch64: return addresses are signed with the B key; frames are tagged (MTE)
		default:
			// The length of what this letter stands for is not known: letters behind it cannot be read.
			return !bytes.ContainsRune(letters, 'R') || e.pointers != pointerAbsolute
		}
	}
	return !data.failed
}

// readFunction makes the rows of an FDE.
func (c *collector) readFunction(body *cursor, address uint64, common *commonEntry) error {
	c.counts.Functions++
	start := body.pointer(common.pointers, address)
	length := body.number(common.pointers)
	if common.augmented {
		body.take(body.unsigned())
	}
	if body.failed {
		return errTruncated
	}
	end := start + length
	if end < start {
		return errMalformed
	}
	if length == 0 || !c.executable(start, end) {
		c.counts.Outside++
		return nil
	}
	if len(c.functions) == maxFDEs {
		return errFull
	}
	c.functions = append(c.functions, function{
		start: uint32(start - c.base), end: uint32(end - c.base), first: uint32(len(c.rows)),
	})
	last := len(c.functions) - 1
	c.from, c.signal = &c.functions[last], common.signal
	var err error
	if common.supported {
		i := &c.interpreter
		i.common, i.now, i.location, i.silent = common, common.initial, start, false
		err = i.run(body, address)
	} else {
		err = c.put(Row{Address: c.from.start, Rule: RuleUnsupported, FramePointer: FramePointerKept})
	}
	if err != nil {
		// Half a function's rows would be taken for all of them.
		c.rows, c.functions = c.rows[:c.from.first], c.functions[:last]
		return err
	}
	return nil
}

// executable tells whether a function lies in a segment that rows can be made for.
func (c *collector) executable(start, end uint64) bool {
	for _, segment := range c.segments {
		if start >= segment.Address && end <= segment.Address+segment.MemoryBytes {
			return true
		}
	}
	return false
}

// add makes a row of the rules for the addresses from one on.
func (c *collector) add(location uint64, rules *state) error {
	if location-c.base >= uint64(c.from.end) {
		return nil // Padding was described too.
	}
	row := rules.row(c.machine, c.signal)
	row.Address = uint32(location - c.base)
	return c.put(row)
}

func (c *collector) put(row Row) error {
	if c.from.count > 0 {
		last := &c.rows[len(c.rows)-1]
		if last.Rule == row.Rule && last.Offset == row.Offset && last.FramePointer == row.FramePointer {
			return nil
		}
	}
	if len(c.rows) == maxRows {
		return errFull
	}
	if row.Rule.CFA() == RuleUnsupported {
		c.counts.Unsupported++
	}
	c.rows = append(c.rows, row)
	c.from.count++
	return nil
}
