package profilecheck

import (
	"fmt"
	"slices"
	"unicode/utf8"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pprofile"
)

// Rule is what every message has to follow.
type Rule string

// The rules.
const (
	// ZeroValue: entry 0 of each table of the dictionary is the zero value.
	ZeroValue Rule = "zero value"
	// Duplicate: no two entries of a table are equal. Attributes of an entry are a set: their order makes no difference.
	Duplicate Rule = "duplicate"
	// Orphan: something refers to each entry but the first; what an orphan refers to is one as well. The strings of resources
	// and scopes count: on the wire, they are in the table.
	Orphan Rule = "orphan"
	// Dangling: each index is within its table.
	Dangling Rule = "dangling index"
	// Resource: a resource is there once, with a scope; a scope has profiles; they have samples.
	Resource Rule = "resource"
	// SampleType: the values of a profile have a type and a unit that the conventions know, and no two profiles of a resource
	// differ in their samples only.
	SampleType Rule = "sample type"
	// Period: it fits the type of the samples.
	Period Rule = "period"
	// Time: a profile has a time and a duration, and the timestamps lie within.
	Time Rule = "time"
	// Shape: all samples of a profile have one value, or timestamps, or as many values as timestamps.
	Shape Rule = "shape"
	// Value: each is more than 0.
	Value Rule = "value"
	// Identity: no two samples of a profile have the same stack, set of attributes and link.
	Identity Rule = "identity"
	// Stack: it has locations, and none of them is the zero value.
	Stack Rule = "stack"
	// Line: it has a function, which has a name or a file; no number is negative.
	Line Rule = "line"
	// Mapping: its range, where it has one, is not empty, and the locations that refer to it are within.
	Mapping Rule = "mapping"
	// Link: it has both a trace id and a span id.
	Link Rule = "link"
	// Attribute: it has a key, which no other one of the same set has, and a value; those that have a convention are where it
	// puts them and have its type.
	Attribute Rule = "attribute"
	// Encoding: texts are valid UTF-8.
	Encoding Rule = "encoding"
)

// Violation is one thing that is wrong.
type Violation struct {
	Rule Rule
	// Where it is, as a path of the message's fields.
	Where string
	// What is wrong there.
	What string
}

// String says all of it.
func (v Violation) String() string { return fmt.Sprintf("%s: %s: %s", v.Where, v.Rule, v.What) }

// Check gives all violations of all rules, none for a good message. The message is only read. A message without anything is
// good.
func Check(profiles pprofile.Profiles) []Violation {
	c := newChecker(profiles)
	if profiles.ResourceProfiles().Len() == 0 && !slices.ContainsFunc(c.sizes[:], func(size int) bool { return size > 0 }) {
		return nil
	}
	c.dictionary()
	c.resources(profiles)
	c.orphans()
	return c.violations
}

// tableName is a table of the dictionary.
type tableName int

const (
	stringTable tableName = iota
	functionTable
	mappingTable
	locationTable
	linkTable
	attributeTable
	stackTable
	tableCount
)

func (t tableName) String() string {
	return [tableCount]string{
		"string_table", "function_table", "mapping_table", "location_table", "link_table", "attribute_table", "stack_table",
	}[t]
}

type checker struct {
	from       pprofile.ProfilesDictionary
	sizes      [tableCount]int
	used       [tableCount][]bool
	texts      map[string]int32 // where a text is in the string table
	violations []Violation

	conventions map[string]convention
}

func newChecker(profiles pprofile.Profiles) *checker {
	from := profiles.Dictionary()
	c := &checker{from: from, conventions: conventions(), sizes: [tableCount]int{
		stringTable:    from.StringTable().Len(),
		functionTable:  from.FunctionTable().Len(),
		mappingTable:   from.MappingTable().Len(),
		locationTable:  from.LocationTable().Len(),
		linkTable:      from.LinkTable().Len(),
		attributeTable: from.AttributeTable().Len(),
		stackTable:     from.StackTable().Len(),
	}}
	for table, size := range c.sizes {
		c.used[table] = make([]bool, size)
	}
	c.texts = make(map[string]int32, c.sizes[stringTable])
	for i, text := range from.StringTable().All() {
		if _, ok := c.texts[text]; !ok {
			c.texts[text] = int32(i)
		}
	}
	return c
}

func (c *checker) report(rule Rule, where, format string, arguments ...any) {
	c.violations = append(c.violations, Violation{Rule: rule, Where: where, What: fmt.Sprintf(format, arguments...)})
}

// valid says that an index is within a table, and reports when it is not.
func (c *checker) valid(table tableName, index int32, where string) bool {
	if index >= 0 && int(index) < c.sizes[table] {
		return true
	}
	c.report(Dangling, where, "%d is not in %s of %d", index, table, c.sizes[table])
	return false
}

func (c *checker) text(index int32) string {
	if index < 0 || int(index) >= c.sizes[stringTable] {
		return ""
	}
	return c.from.StringTable().At(int(index))
}

func (c *checker) encoding(text, where string) {
	if !utf8.ValidString(text) {
		c.report(Encoding, where, "%q is not valid UTF-8", text)
	}
}

// entries checks a table: each entry by itself, that the first is the zero value and that no two are equal. content of an
// entry is equal for equal entries.
func (c *checker) entries(table tableName, zero any, content func(index int, where string) any) {
	if c.sizes[table] == 0 {
		c.report(ZeroValue, "dictionary."+table.String(), "it has no entry 0")
		return
	}
	first := make(map[any]int, c.sizes[table])
	for i := range c.sizes[table] {
		where := fmt.Sprintf("dictionary.%s[%d]", table, i)
		value := content(i, where)
		if i == 0 && value != zero {
			c.report(ZeroValue, where, "it is %v", value)
		}
		if before, ok := first[value]; ok {
			c.report(Duplicate, where, "it is equal to entry %d", before)
			continue
		}
		first[value] = i
	}
}

// dictionary checks all tables.
func (c *checker) dictionary() {
	none := set(nil)
	c.entries(stringTable, "", func(i int, where string) any {
		text := c.from.StringTable().At(i)
		c.encoding(text, where)
		return text
	})
	type functionContent struct {
		name, systemName, file int32
		startLine              int64
	}
	c.entries(functionTable, functionContent{}, func(i int, where string) any {
		f := c.from.FunctionTable().At(i)
		c.valid(stringTable, f.NameStrindex(), where+".name_strindex")
		c.valid(stringTable, f.SystemNameStrindex(), where+".system_name_strindex")
		c.valid(stringTable, f.FilenameStrindex(), where+".filename_strindex")
		if i > 0 && f.NameStrindex() == 0 && f.SystemNameStrindex() == 0 && f.FilenameStrindex() == 0 {
			c.report(Line, where, "the function has neither name nor file")
		}
		if f.StartLine() < 0 {
			c.report(Line, where, "the function starts at line %d", f.StartLine())
		}
		return functionContent{f.NameStrindex(), f.SystemNameStrindex(), f.FilenameStrindex(), f.StartLine()}
	})
	type mappingContent struct {
		start, limit, offset uint64
		file                 int32
		attributes           string
	}
	c.entries(mappingTable, mappingContent{attributes: none}, func(i int, where string) any {
		m := c.from.MappingTable().At(i)
		c.valid(stringTable, m.FilenameStrindex(), where+".filename_strindex")
		if m.MemoryStart() >= m.MemoryLimit() && (m.MemoryStart() != 0 || m.MemoryLimit() != 0) {
			c.report(Mapping, where, "its range is [%#x, %#x)", m.MemoryStart(), m.MemoryLimit())
		}
		c.attributeSet(m.AttributeIndices(), where, onMapping)
		return mappingContent{
			m.MemoryStart(), m.MemoryLimit(), m.FileOffset(), m.FilenameStrindex(), set(m.AttributeIndices().AsRaw()),
		}
	})
	type locationContent struct {
		mapping           int32
		address           uint64
		lines, attributes string
	}
	c.entries(locationTable, locationContent{lines: "[]", attributes: none}, func(i int, where string) any {
		l := c.from.LocationTable().At(i)
		c.location(l, where)
		var lines [][3]int64
		for _, line := range l.Lines().All() {
			lines = append(lines, [3]int64{int64(line.FunctionIndex()), line.Line(), line.Column()})
		}
		return locationContent{l.MappingIndex(), l.Address(), fmt.Sprint(lines), set(l.AttributeIndices().AsRaw())}
	})
	type linkContent struct {
		trace pcommon.TraceID
		span  pcommon.SpanID
	}
	c.entries(linkTable, linkContent{}, func(i int, where string) any {
		l := c.from.LinkTable().At(i)
		if l.TraceID().IsEmpty() != l.SpanID().IsEmpty() {
			c.report(Link, where, "it has the trace id %q and the span id %q", l.TraceID(), l.SpanID())
		}
		return linkContent{l.TraceID(), l.SpanID()}
	})
	type attributeContent struct {
		key, unit int32
		kind      pcommon.ValueType
		value     string
	}
	c.entries(attributeTable, attributeContent{}, func(i int, where string) any {
		a := c.from.AttributeTable().At(i)
		c.valid(stringTable, a.KeyStrindex(), where+".key_strindex")
		c.valid(stringTable, a.UnitStrindex(), where+".unit_strindex")
		if i > 0 {
			c.attribute(a, where)
		}
		return attributeContent{a.KeyStrindex(), a.UnitStrindex(), a.Value().Type(), a.Value().AsString()}
	})
	c.entries(stackTable, "[]", func(i int, where string) any {
		indices := c.from.StackTable().At(i).LocationIndices().AsRaw()
		if i > 0 && len(indices) == 0 {
			c.report(Stack, where, "it has no locations")
		}
		for j, index := range indices {
			if index > 0 && int(index) < c.sizes[locationTable] {
				continue // the path below takes long to make
			}
			at := fmt.Sprintf("%s.location_indices[%d]", where, j)
			if c.valid(locationTable, index, at) {
				c.report(Stack, at, "the location is the zero value")
			}
		}
		return fmt.Sprint(indices)
	})
}

// location checks what only one entry is needed for, and its mapping.
func (c *checker) location(l pprofile.Location, where string) {
	for i, line := range l.Lines().All() {
		at := fmt.Sprintf("%s.lines[%d]", where, i)
		if c.valid(functionTable, line.FunctionIndex(), at+".function_index") && line.FunctionIndex() == 0 {
			c.report(Line, at, "it has no function")
		}
		if line.Line() < 0 || line.Column() < 0 {
			c.report(Line, at, "it is at line %d, column %d", line.Line(), line.Column())
		}
	}
	c.attributeSet(l.AttributeIndices(), where, onLocation)
	if !c.valid(mappingTable, l.MappingIndex(), where+".mapping_index") || l.MappingIndex() == 0 || l.Address() == 0 {
		return
	}
	m := c.from.MappingTable().At(int(l.MappingIndex()))
	if (m.MemoryStart() != 0 || m.MemoryLimit() != 0) && (l.Address() < m.MemoryStart() || l.Address() >= m.MemoryLimit()) {
		c.report(Mapping, where, "%#x is not in mapping %d, [%#x, %#x)",
			l.Address(), l.MappingIndex(), m.MemoryStart(), m.MemoryLimit())
	}
}

// set is equal for the same indices in any order.
func set(indices []int32) string {
	indices = slices.Clone(indices)
	slices.Sort(indices)
	return fmt.Sprint(indices)
}
