package profileview

import (
	"encoding/binary"
	"math"
	"time"
)

// ValueType is what the values of a profile count, such as samples/count or off_cpu/nanoseconds.
type ValueType struct {
	Name string
	Unit string

	// Derived values are not in the file: they are counts of samples times the period of sampling.
	Derived bool
}

func (t ValueType) String() string { return t.Name + "/" + t.Unit }

// Label is an attribute of a process or of a sample.
type Label struct {
	Key     string
	Value   string
	Integer bool // and so is the value's text
}

// Link is the span in which a sample was taken, in hexadecimal digits; empty when there was none.
type Link struct {
	TraceID string
	SpanID  string
}

// Profile is the sum of the samples of any number of messages. Its tables hold each thing once; what refers to another
// thing does so by its place in the table.
type Profile struct {
	strings    set[string]
	types      set[ValueType]
	attributes set[Label]
	functions  set[function]
	mappings   set[mapping]
	locations  set[location]
	stacks     set[string] // packed places of locations, leaf first
	labels     set[string] // packed pairs of places of strings: attributes of a resource or of a sample
	links      set[Link]

	samples map[sampleKey]int // place in order
	order   []sample

	start, end time.Time        // of all profiles, zero when none tells
	periods    map[int32]period // of each type of values; zero where profiles have different ones

	// Messages and Samples are how many were read, those that a filter left out not counted.
	Messages int64
	Samples  int64

	// Skipped counts samples that are missing because the file has them wrong, by reason.
	Skipped map[string]int64
}

type function struct {
	name, systemName, file int32
	startLine              int64
}

type mapping struct {
	file, buildID        int32
	start, limit, offset uint64
}

type location struct {
	mapping int32 // 0 is none
	address uint64
	kind    int32  // profile.frame.type
	lines   string // packed: place of the function, line, column; innermost first
}

type line struct {
	function     int32
	line, column int64
}

type sampleKey struct{ valueType, stack, resource, labels, link int32 }

type sample struct {
	sampleKey
	value int64
}

type period struct {
	valueType ValueType
	value     int64
}

// NewProfile returns one without samples.
func NewProfile() *Profile {
	profile := &Profile{samples: map[sampleKey]int{}, periods: map[int32]period{}, Skipped: map[string]int64{}}
	profile.strings.add("")
	profile.mappings.add(mapping{})
	profile.labels.add("")
	profile.stacks.add("")
	profile.links.add(Link{})
	return profile
}

// Types are the types of values, those that are both told and derived only as told.
func (p *Profile) Types() []ValueType {
	types := make([]ValueType, 0, len(p.types.entries))
	for _, place := range p.shownTypes() {
		types = append(types, p.types.entries[place])
	}
	return types
}

func (p *Profile) shownTypes() []int32 {
	shown := make([]int32, 0, len(p.types.entries))
	for place, valueType := range p.types.entries {
		_, told := p.types.places[ValueType{Name: valueType.Name, Unit: valueType.Unit}]
		if !valueType.Derived || !told {
			shown = append(shown, int32(place))
		}
	}
	return shown
}

// Total is the sum of all values of a type.
func (p *Profile) Total(valueType ValueType) int64 {
	total := int64(0)
	for _, sample := range p.order {
		if p.types.entries[sample.valueType] == valueType {
			total = addSaturating(total, sample.value)
		}
	}
	return total
}

// Stacks is how many different stacks there are.
func (p *Profile) Stacks() int { return len(p.stacks.entries) - 1 }

func (p *Profile) add(key sampleKey, value int64) {
	if place, known := p.samples[key]; known {
		p.order[place].value = addSaturating(p.order[place].value, value)
		return
	}
	p.samples[key] = len(p.order)
	p.order = append(p.order, sample{sampleKey: key, value: value})
}

// covers extends the time that the profile covers.
func (p *Profile) covers(start, end time.Time) {
	if p.start.IsZero() || start.Before(p.start) {
		p.start = start
	}
	if end.After(p.end) {
		p.end = end
	}
}

// sampledEvery notes the period of a type. Of different ones none is told: there is room for only one, and it would be wrong
// for the rest.
func (p *Profile) sampledEvery(place int32, seen period) {
	if known, exists := p.periods[place]; exists && known != seen {
		seen = period{}
	}
	p.periods[place] = seen
}

func (p *Profile) text(place int32) string { return p.strings.entries[place] }

func (p *Profile) unpackLabels(place int32) []Label {
	places := unpack(p.labels.entries[place])
	labels := make([]Label, 0, len(places)/2)
	for i := 0; i+1 < len(places); i += 2 {
		labels = append(labels, Label{
			Key: p.text(int32(places[i])), Value: p.text(int32(places[i+1] >> 1)), Integer: places[i+1]&1 == 1,
		})
	}
	return labels
}

func (p *Profile) unpackLines(packed string) []line {
	numbers := unpack(packed)
	lines := make([]line, 0, len(numbers)/3)
	for i := 0; i+2 < len(numbers); i += 3 {
		lines = append(lines, line{function: int32(numbers[i]), line: int64(numbers[i+1]), column: int64(numbers[i+2])})
	}
	return lines
}

// set holds each entry once, in the order in which they came.
type set[T comparable] struct {
	entries []T
	places  map[T]int32
}

func (s *set[T]) add(entry T) int32 {
	if place, known := s.places[entry]; known {
		return place
	}
	if s.places == nil {
		s.places = map[T]int32{}
	}
	place := int32(len(s.entries))
	s.entries, s.places[entry] = append(s.entries, entry), place
	return place
}

// Lists are packed into strings of variable-length numbers: those can be keys of maps, and are small.
func pack(packed []byte, number uint64) []byte { return binary.AppendUvarint(packed, number) }

func unpack(packed string) []uint64 {
	rest := []byte(packed)
	numbers := make([]uint64, 0, len(rest))
	for len(rest) > 0 {
		number, length := binary.Uvarint(rest)
		if length <= 0 { // pack writes nothing like it
			return numbers
		}
		numbers, rest = append(numbers, number), rest[length:]
	}
	return numbers
}

// addSaturating adds two numbers that are not negative.
func addSaturating(left, right int64) int64 {
	if left > math.MaxInt64-right {
		return math.MaxInt64
	}
	return left + right
}

// multiplySaturating multiplies two numbers that are not negative.
func multiplySaturating(left, right int64) int64 {
	if right != 0 && left > math.MaxInt64/right {
		return math.MaxInt64
	}
	return left * right
}
