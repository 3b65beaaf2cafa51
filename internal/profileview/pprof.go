package profileview

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/google/pprof/profile"
)

// Labels of pprof for the span of a sample, by the names that other tools use for them.
const (
	labelTraceID = "trace_id"
	labelSpanID  = "span_id"
)

// Pprof returns the profile in the form of `go tool pprof`. Each type of values is a sample type; the attributes of process
// and sample are labels. Frames without a symbol keep their address and mapping, so that pprof can look them up in the file.
// It fails only when there is nothing to show, or when pprof itself finds the result wrong.
func (p *Profile) Pprof() (*profile.Profile, error) {
	if len(p.order) == 0 {
		return nil, errors.New("convert to pprof: there are no samples")
	}
	converted := &profile.Profile{}
	columns := map[int32]int{}
	for column, place := range p.shownTypes() {
		valueType := p.types.entries[place]
		columns[place] = column
		converted.SampleType = append(converted.SampleType, &profile.ValueType{Type: valueType.Name, Unit: valueType.Unit})
	}
	converted.DefaultSampleType = p.types.entries[p.defaultType()].Name
	if !p.start.IsZero() {
		converted.TimeNanos = p.start.UnixNano()
		converted.DurationNanos = p.end.Sub(p.start).Nanoseconds()
	}
	if every := p.periods[p.defaultType()]; every.value > 0 {
		converted.PeriodType = &profile.ValueType{Type: every.valueType.Name, Unit: every.valueType.Unit}
		converted.Period = every.value
	}
	converter := pprofConverter{Profile: p, converted: converted}
	converter.functions()
	converter.locations()
	converter.samples(columns)
	// Only what samples use: another type's stacks, which a filter left out, say nothing here.
	converted = converted.Compact()
	if err := converted.CheckValid(); err != nil {
		return nil, fmt.Errorf("convert to pprof: %w", err)
	}
	return converted, nil
}

// defaultType is the place of what people look at first: processor time, or what there is. There is a sample, so a type.
func (p *Profile) defaultType() int32 {
	types := p.shownTypes()
	for _, place := range types {
		if p.types.entries[place].Name == "cpu" {
			return place
		}
	}
	return types[0]
}

type pprofConverter struct {
	*Profile
	converted *profile.Profile
}

func (c *pprofConverter) functions() {
	for place, from := range c.Profile.functions.entries {
		c.converted.Function = append(c.converted.Function, &profile.Function{
			ID:         uint64(place) + 1,
			Name:       c.text(from.name),
			SystemName: c.text(from.systemName),
			Filename:   c.text(from.file),
			StartLine:  from.startLine,
		})
	}
}

func (c *pprofConverter) locations() {
	mappings := make([]*profile.Mapping, len(c.mappings.entries))
	for place, from := range c.mappings.entries {
		if place == 0 {
			continue // none
		}
		mappings[place] = c.addMapping(&profile.Mapping{
			Start: from.start, Limit: from.limit, Offset: from.offset,
			File: c.text(from.file), BuildID: c.text(from.buildID),
		})
	}
	// Frames that lie in no file (kernel, interpreters, code made at run time) get their kind in place of a file: pprof
	// has no other room for it, and `-focus '\[kernel\]'` finds it there.
	kinds := map[int32]*profile.Mapping{}
	for place, from := range c.Profile.locations.entries {
		converted := &profile.Location{ID: uint64(place) + 1, Address: from.address, Mapping: mappings[from.mapping]}
		if converted.Mapping == nil && from.kind != 0 {
			if kinds[from.kind] == nil {
				kinds[from.kind] = c.addMapping(&profile.Mapping{File: "[" + c.text(from.kind) + "]"})
			}
			converted.Mapping = kinds[from.kind]
		}
		lines := c.unpackLines(from.lines)
		for _, line := range lines {
			converted.Line = append(converted.Line, profile.Line{
				Function: c.converted.Function[line.function], Line: line.line, Column: line.column,
			})
		}
		c.describe(converted.Mapping, lines)
		c.converted.Location = append(c.converted.Location, converted)
	}
}

func (c *pprofConverter) addMapping(added *profile.Mapping) *profile.Mapping {
	added.ID = uint64(len(c.converted.Mapping)) + 1
	c.converted.Mapping = append(c.converted.Mapping, added)
	return added
}

// describe notes what is known of a mapping's locations. pprof looks up the symbols of a mapping that has none.
func (c *pprofConverter) describe(described *profile.Mapping, lines []line) {
	if described == nil || len(lines) == 0 {
		return
	}
	described.HasFunctions = true
	described.HasInlineFrames = described.HasInlineFrames || len(lines) > 1
	for _, line := range lines {
		described.HasFilenames = described.HasFilenames || c.Profile.functions.entries[line.function].file != 0
		described.HasLineNumbers = described.HasLineNumbers || line.line > 0
	}
}

// samples merges what differs in the type of its values only.
func (c *pprofConverter) samples(columns map[int32]int) {
	known := map[sampleKey]*profile.Sample{}
	for _, from := range c.order {
		column, shown := columns[from.valueType]
		if !shown {
			continue
		}
		key := from.sampleKey
		key.valueType = 0
		converted := known[key]
		if converted == nil {
			converted = &profile.Sample{Value: make([]int64, len(c.converted.SampleType))}
			converted.Label, converted.NumLabel = c.labelsOf(from.sampleKey)
			for _, place := range unpack(c.stacks.entries[from.stack]) {
				converted.Location = append(converted.Location, c.converted.Location[place])
			}
			known[key] = converted
			c.converted.Sample = append(c.converted.Sample, converted)
		}
		converted.Value[column] = from.value
	}
}

// labelsOf are all attributes, of which the sample's go before the resource's. Integers must be integers: what looks like a
// number in -tagfocus is compared with these only.
func (c *pprofConverter) labelsOf(key sampleKey) (texts map[string][]string, integers map[string][]int64) {
	texts, integers = map[string][]string{}, map[string][]int64{}
	for _, set := range []int32{key.resource, key.labels} {
		for _, label := range c.unpackLabels(set) {
			delete(texts, label.Key)
			delete(integers, label.Key)
			if number, err := strconv.ParseInt(label.Value, 10, 64); err == nil && label.Integer {
				integers[label.Key] = []int64{number}
			} else {
				texts[label.Key] = []string{label.Value}
			}
		}
	}
	link := c.links.entries[key.link]
	if link.TraceID != "" {
		texts[labelTraceID] = []string{link.TraceID}
	}
	if link.SpanID != "" {
		texts[labelSpanID] = []string{link.SpanID}
	}
	return texts, integers
}
