//go:build linux

package symbol

import (
	"bytes"
	"cmp"
	"compress/zlib"
	"debug/dwarf"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

const symbolTable = elf.SHT_SYMTAB

// lineTable reads debug information (DWARF 2 to 5), one compiled source file ("unit") at a time: debug/dwarf for the tree
// of functions and inlined calls, lineprogram.go for the lines.
type lineTable struct {
	object    *object
	data      *dwarf.Data
	unpacked  int64 // bytes of sections that were compressed
	line      region
	lineTexts region // .debug_line_str
	texts     region // .debug_str
	units     []unitRange
	known     []*unit // the one used last in front
}

// unitRange is code of one unit.
type unitRange struct {
	low, high uint64
	unit      dwarf.Offset // of its first entry
}

// unit is what is kept of a unit while addresses in it are looked up.
type unit struct {
	offset    dwarf.Offset
	functions []scope // sorted by low
	inlined   []scope // as they lie in each other, those of one function together
	lines     lineProgram
}

// scope is code of a function, or of a call that was inlined into one.
type scope struct {
	low, high    uint64
	origin       dwarf.Offset // of the entry that has the name
	first, count uint32       // of a function: its inlined calls
	file, line   uint32       // of an inlined call: where it is
	column       uint32
}

const (
	maxUnits        = 256 << 10
	maxUnitRanges   = 1 << 20
	maxUnitBytes    = 32 << 20 // of .debug_info
	maxScopes       = 1 << 20
	maxKnownUnits   = 8
	maxUnpackedInfo = 128 << 20
	maxRangeSection = 256 << 20
	scopeBytes      = 48
	rangeBytes      = 24
)

func (o *object) hasLines() bool {
	return o.section(".debug_info") != nil && o.section(".debug_abbrev") != nil
}

// openLines reads no more than where code of which unit is.
func openLines(o *object) (*lineTable, error) {
	t := &lineTable{object: o}
	contents := map[string]region{}
	for _, name := range []string{".debug_abbrev", ".debug_info", ".debug_ranges", ".debug_str", ".debug_addr", ".debug_line",
		".debug_line_str", ".debug_str_offsets", ".debug_rnglists"} {
		content, err := t.contents(o.section(name))
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		contents[name] = content
	}
	ranges, lists := contents[".debug_ranges"], contents[".debug_rnglists"]
	if ranges.size() > maxRangeSection || lists.size() > maxRangeSection {
		return nil, fmt.Errorf("read .debug_ranges or .debug_rnglists: %w", ErrTooLarge)
	}
	t.line, t.lineTexts, t.texts = contents[".debug_line"], contents[".debug_line_str"], contents[".debug_str"]
	var err error
	t.data, err = dwarf.New(contents[".debug_abbrev"].bytes, nil, nil, contents[".debug_info"].bytes, nil, nil, ranges.bytes,
		t.texts.bytes)
	if err != nil {
		return nil, fmt.Errorf("read debug information: %w", errors.Join(err, ErrMalformed))
	}
	for _, name := range []string{".debug_addr", ".debug_line_str", ".debug_str_offsets", ".debug_rnglists"} {
		if err := t.data.AddSection(name, contents[name].bytes); err != nil {
			return nil, fmt.Errorf("read %s: %w", name, errors.Join(err, ErrMalformed))
		}
	}
	return t, t.findUnits(contents[".debug_info"])
}

// contents is what a section has, unpacked if it is compressed.
func (t *lineTable) contents(s *section) (region, error) {
	data := t.object.data(s)
	if s == nil || s.flags&elf.SHF_COMPRESSED == 0 {
		return data, nil
	}
	header := data.at(0, 24) // Elf64_Chdr
	if header == nil || elf.CompressionType(binary.LittleEndian.Uint32(header)) != elf.COMPRESS_ZLIB {
		return region{}, fmt.Errorf("compressed with another method than zlib: %w", ErrUnsupported)
	}
	reader, err := zlib.NewReader(bytes.NewReader(data.bytes[24:]))
	if err != nil {
		return region{}, fmt.Errorf("unpack: %w", errors.Join(err, ErrMalformed))
	}
	unpacked, err := readLimited(reader, maxUnpackedInfo-t.unpacked)
	if err != nil {
		return region{}, fmt.Errorf("unpack: %w", err)
	}
	t.unpacked += int64(len(unpacked))
	return region{bytes: unpacked}, nil
}

// findUnits reads the first entry of each unit, which says where its code is.
func (t *lineTable) findUnits(info region) error {
	reader := t.data.Reader()
	count := 0
	for place := uint64(0); place < info.size(); count++ {
		if count == maxUnits {
			return fmt.Errorf("more than %d units: %w", maxUnits, ErrTooLarge)
		}
		length, header, ok := unitHeader(info, place)
		if !ok {
			return fmt.Errorf("read the unit at %d of .debug_info: %w", place, ErrMalformed)
		}
		if header != 0 {
			reader.Seek(dwarf.Offset(place + header))
			entry, err := reader.Next()
			if err == nil && entry != nil && entry.Tag == dwarf.TagCompileUnit {
				ranges, err := t.data.Ranges(entry)
				for _, code := range ranges {
					if err == nil && code[0] < code[1] && len(t.units) < maxUnitRanges {
						t.units = append(t.units, unitRange{code[0], code[1], entry.Offset})
					}
				}
			}
		}
		place += length
	}
	slices.SortFunc(t.units, func(a, b unitRange) int { return cmp.Compare(a.low, b.low) })
	t.units = slices.Clip(t.units)
	return nil
}

// unitHeader tells how long a unit is, and where its first entry is; 0 for units of types.
func unitHeader(info region, place uint64) (length, header uint64, ok bool) {
	first, ok := info.uint32(place)
	if !ok {
		return 0, 0, false
	}
	offsetBytes := uint64(4)
	length, header = uint64(first)+4, 4
	if first == 0xffffffff {
		word := info.at(place+4, 8)
		if word == nil {
			return 0, 0, false
		}
		offsetBytes = 8
		length, header = binary.LittleEndian.Uint64(word)+12, 12
	}
	fixed := info.at(place+header, 4)
	if fixed == nil || length < header+4 || length > info.size()-place {
		return 0, 0, false
	}
	const compile, partial, skeleton = 1, 3, 4
	version := binary.LittleEndian.Uint16(fixed)
	switch {
	case version >= 2 && version <= 4:
		return length, header + 2 + offsetBytes + 1, true
	case version == 5 && (fixed[2] == compile || fixed[2] == partial):
		return length, header + 2 + 1 + 1 + offsetBytes, true
	case version == 5 && fixed[2] == skeleton:
		return length, header + 2 + 1 + 1 + offsetBytes + 8, true
	}
	return length, 0, true
}

// unitAt finds the unit that has the code at an address.
func (t *lineTable) unitAt(address uint64) (*unit, error) {
	index, found := slices.BinarySearchFunc(t.units, address, func(r unitRange, address uint64) int {
		return cmp.Compare(r.low, address)
	})
	if !found {
		index--
	}
	if index < 0 || address >= t.units[index].high {
		return nil, ErrNoSymbol
	}
	offset := t.units[index].unit
	for place, known := range t.known {
		if known.offset == offset {
			copy(t.known[1:place+1], t.known[:place])
			t.known[0] = known
			return known, nil
		}
	}
	loaded, err := t.load(offset)
	if err != nil {
		loaded = &unit{} // Remembered: reading it again would fail again.
	}
	loaded.offset = offset
	if len(t.known) == maxKnownUnits {
		t.known = t.known[:maxKnownUnits-1]
	}
	t.known = slices.Insert(t.known, 0, loaded)
	return loaded, err
}

// load walks through a unit.
func (t *lineTable) load(offset dwarf.Offset) (*unit, error) {
	u := &unit{offset: offset}
	reader := t.data.Reader()
	reader.Seek(offset)
	head, err := reader.Next()
	if err != nil || head == nil {
		return nil, fmt.Errorf("read a unit: %w", errors.Join(err, ErrMalformed))
	}
	if place, ok := head.Val(dwarf.AttrStmtList).(int64); ok && place >= 0 {
		directory, _ := head.Val(dwarf.AttrCompDir).(string)
		u.lines, err = readLineProgram(t.line.sub(uint64(place), t.line.size()), directory)
		if err != nil {
			return nil, err
		}
	}
	depth, function, functionDepth := 1, -1, 0
	finish := func() { // the function: its inlined calls are complete
		for index := function; index >= 0 && index < len(u.functions); index++ {
			u.functions[index].count = uint32(len(u.inlined)) - u.functions[index].first
		}
		function = -1
	}
	for depth > 0 {
		entry, err := reader.Next()
		if err != nil || entry == nil {
			break // What was read until here is right.
		}
		if entry.Tag != 0 && entry.Offset-offset > maxUnitBytes || len(u.functions)+len(u.inlined) > maxScopes {
			return nil, fmt.Errorf("read a unit of more than %d bytes: %w", maxUnitBytes, ErrTooLarge)
		}
		if entry.Tag == 0 {
			if depth--; depth <= functionDepth {
				finish()
			}
			continue
		}
		switch {
		case entry.Tag == dwarf.TagSubprogram:
			ranges, err := t.data.Ranges(entry)
			if err != nil || len(ranges) == 0 {
				break
			}
			finish()
			function, functionDepth = len(u.functions), depth
			for _, code := range ranges {
				u.functions = append(u.functions, scope{
					low: code[0], high: code[1], origin: entry.Offset, first: uint32(len(u.inlined)),
				})
			}
		case entry.Tag == dwarf.TagInlinedSubroutine && function >= 0:
			ranges, err := t.data.Ranges(entry)
			origin, ok := entry.Val(dwarf.AttrAbstractOrigin).(dwarf.Offset)
			if err != nil || !ok {
				break
			}
			for _, code := range ranges {
				u.inlined = append(u.inlined, scope{
					low: code[0], high: code[1], origin: origin, file: number(entry, dwarf.AttrCallFile),
					line: number(entry, dwarf.AttrCallLine), column: number(entry, dwarf.AttrCallColumn),
				})
			}
		}
		if entry.Children {
			depth++
		} else if entry.Tag == dwarf.TagSubprogram && functionDepth == depth {
			finish()
		}
	}
	finish()
	slices.SortFunc(u.functions, func(a, b scope) int { return cmp.Compare(a.low, b.low) })
	u.functions, u.inlined = slices.Clip(u.functions), slices.Clip(u.inlined)
	return u, nil
}

func number(entry *dwarf.Entry, attribute dwarf.Attr) uint32 {
	if value, ok := entry.Val(attribute).(int64); ok && value > 0 && value <= 1<<31 {
		return uint32(value)
	}
	return 0
}

// lookup appends the frames at an address, the innermost first.
func (t *lineTable) lookup(address uint64, frames []Frame) ([]Frame, error) {
	u, err := t.unitAt(address)
	if err != nil {
		return frames, err
	}
	index, found := slices.BinarySearchFunc(u.functions, address, func(s scope, address uint64) int {
		return cmp.Compare(s.low, address)
	})
	if !found {
		index--
	}
	if index < 0 || address >= u.functions[index].high {
		return frames, ErrNoSymbol
	}
	function := u.functions[index]
	chain := []scope{function}
	for _, call := range u.inlined[function.first : function.first+function.count] {
		if address >= call.low && address < call.high && len(chain) < maxInlined {
			chain = append(chain, call)
		}
	}
	file, line, column := u.lines.lookup(address)
	for place := len(chain) - 1; place >= 0; place-- {
		frame := t.name(chain[place].origin)
		frame.Line, frame.Column = int(line), int(column)
		frame.File = u.lines.file(t, file)
		frames = append(frames, frame)
		file, line, column = chain[place].file, chain[place].line, chain[place].column
	}
	return frames, nil
}

// name follows an entry to the one that has the name, and where the function begins.
func (t *lineTable) name(offset dwarf.Offset) Frame {
	const maxSteps = 8
	frame := Frame{Type: Native}
	reader := t.data.Reader()
	plain, start := "", uint32(0)
	for range maxSteps {
		reader.Seek(offset)
		entry, err := reader.Next()
		if err != nil || entry == nil {
			break
		}
		for _, attribute := range []dwarf.Attr{dwarf.AttrLinkageName, attributeMIPSLinkageName} {
			if name, ok := entry.Val(attribute).(string); ok && name != "" {
				frame = nativeFrame(name)
				frame.StartLine = int(cmp.Or(start, number(entry, dwarf.AttrDeclLine)))
				return frame
			}
		}
		if name, ok := entry.Val(dwarf.AttrName).(string); ok && plain == "" {
			plain = name
		}
		start = cmp.Or(start, number(entry, dwarf.AttrDeclLine))
		next, ok := entry.Val(dwarf.AttrAbstractOrigin).(dwarf.Offset)
		if !ok {
			next, ok = entry.Val(dwarf.AttrSpecification).(dwarf.Offset)
		}
		if !ok {
			break
		}
		offset = next
	}
	frame.Function, frame.StartLine = plain, int(start)
	return frame
}

// attributeMIPSLinkageName is what compilers wrote before DWARF 4 had an attribute for it.
const attributeMIPSLinkageName = dwarf.Attr(0x2007)

func (t *lineTable) retained() int64 {
	size := t.unpacked + int64(cap(t.units))*rangeBytes
	for _, known := range t.known {
		size += int64(cap(known.functions)+cap(known.inlined))*scopeBytes + known.lines.retained()
	}
	return size
}

// lookupLines tells the frames at an address that debug information has. The name of the outermost function is that of the
// symbol where debug information has none, or only one without classes and name spaces: that of a static function of gcc, or
// one that dwz has moved to another file, which is not read here.
func (i *Image) lookupLines(address uint64, name string, frames []Frame) ([]Frame, bool) {
	if i.lines == nil && i.linesErr == nil {
		source := i.object
		if !source.hasLines() {
			i.findSeparate()
			source = i.separate
		}
		if source == nil || !source.hasLines() {
			i.linesErr = ErrNoSymbols
		} else {
			i.lines, i.linesErr = openLines(source)
		}
		if i.linesErr != nil {
			i.lines = nil
		}
	}
	if i.lines == nil {
		return frames, false
	}
	found, err := i.lines.lookup(address, frames)
	if err != nil || len(found) == len(frames) {
		return frames, false
	}
	outermost := &found[len(found)-1]
	if named := nativeFrame(name); name != "" && outermost.Linkage == "" && (named.Linkage != "" || outermost.Function == "") {
		outermost.Function, outermost.Linkage, outermost.Type = named.Function, named.Linkage, named.Type
	}
	return found, outermost.Function != ""
}
