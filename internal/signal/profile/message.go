package profile

import (
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pprofile"
)

// write makes the message. Everything is in the order of the rows.
func (b *Builder[Key]) write(profiles pprofile.Profiles) {
	for i := range b.resources {
		row := &b.resources[i]
		if row.profiles.length == 0 {
			continue
		}
		resource := profiles.ResourceProfiles().AppendEmpty()
		if row.identity != nil {
			row.identity.PutResource(resource.Resource().Attributes())
		}
		scope := resource.ScopeProfiles().AppendEmpty()
		if b.describeScope != nil {
			b.describeScope(scope.Scope())
		}
		scope.Profiles().EnsureCapacity(int(row.profiles.length))
		for j := row.profiles.first; j >= 0; j = b.profiles[j].next {
			b.writeProfile(scope.Profiles().AppendEmpty(), &b.profiles[j])
		}
	}
	b.dictionary.write(profiles.Dictionary())
}

func (b *Builder[Key]) writeProfile(profile pprofile.Profile, row *profileRow) {
	sample, period := row.kind.valueTypes()
	b.dictionary.writeValueType(profile.SampleType(), sample)
	if row.period > 0 {
		b.dictionary.writeValueType(profile.PeriodType(), period)
		profile.SetPeriod(row.period)
	}
	profile.SetTime(pcommon.Timestamp(row.start))
	profile.SetDurationNano(uint64(row.durationNs))
	profile.Samples().EnsureCapacity(int(row.samples.length))
	for i := row.samples.first; i >= 0; i = b.samples[i].next {
		b.writeSample(profile.Samples().AppendEmpty(), &b.samples[i], row.shape)
	}
}

func (b *Builder[Key]) writeSample(sample pprofile.Sample, row *sampleRow, shape Shape) {
	sample.SetStackIndex(row.stack)
	sample.SetLinkIndex(row.link)
	writeIndices(sample.AttributeIndices(), b.dictionary.attributeSets.at(row.attributes))
	if shape == Totals {
		sample.Values().EnsureCapacity(1)
		sample.Values().Append(row.value)
		return
	}
	count := int(row.occurrences.length)
	sample.TimestampsUnixNano().EnsureCapacity(count)
	if shape == TimedValues {
		sample.Values().EnsureCapacity(count)
	}
	for i := row.occurrences.first; i >= 0; i = b.occurrences[i].next {
		sample.TimestampsUnixNano().Append(uint64(b.occurrences[i].timeNs))
		if shape == TimedValues {
			sample.Values().Append(b.occurrences[i].value)
		}
	}
}

func (d *dictionary) writeValueType(to pprofile.ValueType, from valueType) {
	to.SetTypeStrindex(d.addString(from.name))
	to.SetUnitStrindex(d.addString(from.unit))
}

// write makes the tables. Nothing can be added after it.
func (d *dictionary) write(to pprofile.ProfilesDictionary) {
	// String 0 is there in any message: a profile's type has a name.
	to.StringTable().FromRaw(d.strings.rows)

	functions := d.functions.all()
	to.FunctionTable().EnsureCapacity(len(functions))
	for _, row := range functions {
		function := to.FunctionTable().AppendEmpty()
		function.SetNameStrindex(row.name)
		function.SetSystemNameStrindex(row.systemName)
		function.SetFilenameStrindex(row.file)
		function.SetStartLine(row.startLine)
	}

	mappings := d.mappings.all()
	to.MappingTable().EnsureCapacity(len(mappings))
	for _, row := range mappings {
		mapping := to.MappingTable().AppendEmpty()
		mapping.SetMemoryStart(row.start)
		mapping.SetMemoryLimit(row.limit)
		mapping.SetFileOffset(row.offset)
		mapping.SetFilenameStrindex(row.file)
		writeIndices(mapping.AttributeIndices(), d.attributeSets.at(row.attributes))
	}

	locations := d.locations.all()
	to.LocationTable().EnsureCapacity(len(locations))
	for _, row := range locations {
		location := to.LocationTable().AppendEmpty()
		location.SetMappingIndex(row.mapping)
		location.SetAddress(row.address)
		writeIndices(location.AttributeIndices(), d.attributeSets.at(row.attributes))
		lines := d.lines.at(row.lines)
		location.Lines().EnsureCapacity(len(lines))
		for _, each := range lines {
			line := location.Lines().AppendEmpty()
			line.SetFunctionIndex(each.function)
			line.SetLine(each.line)
			line.SetColumn(each.column)
		}
	}

	links := d.links.all()
	to.LinkTable().EnsureCapacity(len(links))
	for _, row := range links {
		link := to.LinkTable().AppendEmpty()
		link.SetTraceID(row.TraceID)
		link.SetSpanID(row.SpanID)
	}

	attributes := d.attributes.all()
	to.AttributeTable().EnsureCapacity(len(attributes))
	for i, row := range attributes {
		attribute := to.AttributeTable().AppendEmpty()
		attribute.SetKeyStrindex(row.key)
		switch {
		case i == 0: // its value is empty, too
		case row.text != "":
			attribute.Value().SetStr(row.text)
		default:
			attribute.Value().SetInt(row.number)
		}
	}

	to.StackTable().EnsureCapacity(d.stacks.length())
	for i := range d.stacks.length() {
		writeIndices(to.StackTable().AppendEmpty().LocationIndices(), d.stacks.at(int32(i)))
	}
}

func writeIndices(to pcommon.Int32Slice, from []int32) {
	if len(from) > 0 {
		to.FromRaw(from)
	}
}
