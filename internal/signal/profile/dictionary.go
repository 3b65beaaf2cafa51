package profile

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// dictionary has the tables of a message, as rows that refer to one another by index. Nothing is taken in unless the message
// is sure to refer to it.
type dictionary struct {
	strings    table[string]
	functions  table[function]
	mappings   table[mapping]
	locations  table[location]
	links      table[Link]
	attributes table[attribute]
	stacks     lists[int32] // of locations

	attributeSets lists[int32]
	lines         lists[line]

	// What the same input became earlier in the message.
	attributesSeen memory[Attributes, int32]
	mappingsSeen   memory[*Mapping, int32]
	placesSeen     memory[place, int32] // the last in seen
	seen           []seenLocation       // entry 0 is none
	seenLines      []Line

	// Scratch.
	indices    []int32
	linesOfOne []line // location
}

type function struct {
	name, systemName, file int32
	startLine              int64
}

type mapping struct {
	start, limit, offset uint64
	file                 int32
	attributes           int32 // a set
}

type location struct {
	mapping    int32
	address    uint64
	lines      int32
	attributes int32 // a set
}

type line struct {
	function     int32
	line, column int64
}

// attribute has a number, or a text where that is not empty.
type attribute struct {
	key    int32
	text   string
	number int64
}

// place is where locations are looked for by what is cheap to hash: 16 bytes without padding.
type place struct {
	mapping uint64
	address uint64
}

// seenLocation is the input that a location was made of, all but its place.
type seenLocation struct {
	frameType          string
	lineStart, lineEnd int32
	location           int32
	next               int32 // another one at the same place, 0 for none
	depth              int32 // how many come after it
}

// mostSeen is how many different locations are remembered at one place: code that was compiled anew at the same address, or
// locations without an address. Those beyond are found by the slower way.
const mostSeen = 8

func newDictionary() dictionary {
	return dictionary{
		stacks:        newLists[int32](),
		attributeSets: newLists[int32](),
		lines:         newLists[line](),
	}
}

func (d *dictionary) recycle() {
	d.strings.recycle()
	d.functions.recycle()
	d.mappings.recycle()
	d.locations.recycle()
	d.links.recycle()
	d.attributes.recycle()
	d.stacks.recycle()
	d.attributeSets.recycle()
	d.lines.recycle()
	d.attributesSeen.recycle()
	d.mappingsSeen.recycle()
	d.placesSeen.recycle()
	d.seen = recycled(d.seen)
	d.seenLines = recycled(d.seenLines)
	d.indices = recycledScratch(d.indices)
	d.linesOfOne = recycledScratch(d.linesOfOne)
}

// validate says why a stack cannot be in a message.
func validate(stack []Location) error {
	if len(stack) == 0 {
		return ErrNoStack
	}
	for i := range stack {
		location := &stack[i]
		mapping := location.Mapping
		if mapping == nil || *mapping == (Mapping{}) {
			if location.Address == 0 && location.FrameType == "" && !slices.ContainsFunc(location.Lines, Line.known) {
				return fmt.Errorf("%w: number %d from the leaf", ErrEmptyLocation, i)
			}
			continue
		}
		if mapping.Start == 0 && mapping.Limit == 0 {
			continue
		}
		if mapping.Start >= mapping.Limit ||
			location.Address != 0 && (location.Address < mapping.Start || location.Address >= mapping.Limit) {
			return fmt.Errorf("%w: %#x is not in [%#x, %#x) of %s",
				ErrOutsideMapping, location.Address, mapping.Start, mapping.Limit, mapping.File)
		}
	}
	return nil
}

// known says that the line tells something about its function.
func (l Line) known() bool { return l.Function != "" || l.SystemName != "" || l.File != "" }

// addStack gives the index of a stack that is valid.
func (d *dictionary) addStack(stack []Location) int32 {
	indices := make([]int32, 0, 128) // stays on the goroutine's stack unless it grows
	for i := range stack {
		indices = append(indices, d.addLocation(&stack[i]))
	}
	return d.stacks.add(indices)
}

func (d *dictionary) addLocation(input *Location) int32 {
	mapping := d.addMapping(input.Mapping)
	at := place{mapping: uint64(mapping), address: input.Address}
	last, _ := d.placesSeen.get(at)
	for i := last; i != 0; i = d.seen[i].next {
		seen := &d.seen[i]
		if seen.frameType == input.FrameType && slices.Equal(d.seenLines[seen.lineStart:seen.lineEnd], input.Lines) {
			return seen.location
		}
	}

	d.linesOfOne = d.linesOfOne[:0]
	for i := range input.Lines {
		if input.Lines[i].known() {
			d.linesOfOne = append(d.linesOfOne, d.newLine(&input.Lines[i]))
		}
	}
	d.indices = d.indices[:0]
	d.appendText(attrFrameType, input.FrameType)
	index := d.locations.add(location{
		mapping:    mapping,
		address:    at.address,
		lines:      d.lines.add(d.linesOfOne),
		attributes: d.attributeSets.add(d.indices),
	})

	if len(d.seen) == 0 {
		d.seen = append(d.seen, seenLocation{})
	}
	if last == 0 || d.seen[last].depth+1 < mostSeen {
		start := len(d.seenLines)
		d.seenLines = append(d.seenLines, input.Lines...)
		seen := seenLocation{
			frameType: input.FrameType,
			lineStart: int32(start),
			lineEnd:   int32(len(d.seenLines)),
			location:  index,
			next:      last,
		}
		if last != 0 {
			seen.depth = d.seen[last].depth + 1
		}
		d.seen = append(d.seen, seen)
		d.placesSeen.put(at, int32(len(d.seen)-1))
	}
	return index
}

func (d *dictionary) newLine(input *Line) line {
	return line{
		function: d.functions.add(function{
			name:       d.addString(input.Function),
			systemName: d.addString(input.SystemName),
			file:       d.addString(input.File),
			startLine:  max(0, int64(input.StartLine)),
		}),
		line:   max(0, int64(input.Line)),
		column: max(0, int64(input.Column)),
	}
}

func (d *dictionary) addMapping(input *Mapping) int32 {
	if input == nil {
		return 0
	}
	index, ok := d.mappingsSeen.get(input)
	if !ok {
		d.indices = d.indices[:0]
		d.appendText(attrBuildIDGNU, input.BuildIDGNU)
		d.appendText(attrBuildIDGo, input.BuildIDGo)
		d.appendText(attrBuildIDHtlhash, input.BuildIDHtlhash)
		index = d.mappings.add(mapping{
			start:      input.Start,
			limit:      input.Limit,
			offset:     input.Offset,
			file:       d.addString(input.File),
			attributes: d.attributeSets.add(d.indices),
		})
		d.mappingsSeen.put(input, index)
	}
	return index
}

// findAttributes gives the set of a sample's attributes, if the message has it.
func (d *dictionary) findAttributes(input *Attributes) (set int32, ok bool) {
	if *input == (Attributes{}) {
		return 0, true
	}
	return d.attributesSeen.get(*input)
}

// addAttributes gives the set of a sample's attributes. The order of their keys is always the same, so equal sets are equal
// lists.
func (d *dictionary) addAttributes(input *Attributes) int32 {
	if set, ok := d.findAttributes(input); ok {
		return set
	}
	d.indices = d.indices[:0]
	d.appendNumber(attrProcessID, int64(input.ProcessID))
	d.appendNumber(attrThreadID, int64(input.ThreadID))
	d.appendText(attrThreadName, input.ThreadName)
	if input.CPU.plusOne != 0 {
		d.indices = append(d.indices, d.attributes.add(attribute{
			key:    d.addString(attrCPU),
			number: int64(input.CPU.plusOne) - 1,
		}))
	}
	d.appendText(attrIncomplete, input.Incomplete)
	d.appendText(attrOffCPUReason, string(input.OffCPUReason))
	set := d.attributeSets.add(d.indices)
	d.attributesSeen.put(*input, set)
	return set
}

// appendText adds an attribute to the set in d.indices, unless it says nothing.
func (d *dictionary) appendText(key, text string) {
	if text != "" {
		row := attribute{key: d.addString(key), text: valid(text)}
		d.indices = append(d.indices, d.attributes.add(row))
	}
}

func (d *dictionary) appendNumber(key string, number int64) {
	if number != 0 {
		d.indices = append(d.indices, d.attributes.add(attribute{key: d.addString(key), number: number}))
	}
}

func (d *dictionary) addString(text string) int32 {
	index, ok := d.strings.find(text)
	if !ok {
		if utf8.ValidString(text) {
			return d.strings.add(text)
		}
		index = d.strings.add(valid(text))
		d.strings.indices.put(text, index)
	}
	return index
}

// valid is a text that protobuf takes.
func valid(text string) string { return strings.ToValidUTF8(text, string(utf8.RuneError)) }
