package profilecheck

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pprofile"
)

// Entries of the dictionary of good.
const (
	nothing = iota
	samplesText
	countText
	cpuText
	nanosecondsText
	pathText
	mainText
	fileText
	threadText
	frameText
	buildText
)

const (
	threadAttribute = iota + 1
	frameAttribute
	buildAttribute
)

const (
	start    = 1_800_000_000_000_000_000
	duration = 5_000_000_000
)

// good is a message that breaks no rule: one resource, one profile, two samples.
func good() pprofile.Profiles {
	profiles := pprofile.NewProfiles()
	dictionary := profiles.Dictionary()
	dictionary.StringTable().FromRaw([]string{
		"", "samples", "count", "cpu", "nanoseconds", "/usr/bin/app", "main", "main.c", "thread.id", "profile.frame.type",
		"process.executable.build_id.gnu",
	})
	dictionary.FunctionTable().AppendEmpty()
	function := dictionary.FunctionTable().AppendEmpty()
	function.SetNameStrindex(mainText)
	function.SetFilenameStrindex(fileText)

	dictionary.AttributeTable().AppendEmpty()
	thread := dictionary.AttributeTable().AppendEmpty()
	thread.SetKeyStrindex(threadText)
	thread.Value().SetInt(7)
	frame := dictionary.AttributeTable().AppendEmpty()
	frame.SetKeyStrindex(frameText)
	frame.Value().SetStr("native")
	build := dictionary.AttributeTable().AppendEmpty()
	build.SetKeyStrindex(buildText)
	build.Value().SetStr("abcdef")

	dictionary.MappingTable().AppendEmpty()
	mapping := dictionary.MappingTable().AppendEmpty()
	mapping.SetMemoryStart(0x1000)
	mapping.SetMemoryLimit(0x2000)
	mapping.SetFilenameStrindex(pathText)
	mapping.AttributeIndices().FromRaw([]int32{buildAttribute})

	dictionary.LocationTable().AppendEmpty()
	for _, address := range []uint64{0x1234, 0x1567} {
		location := dictionary.LocationTable().AppendEmpty()
		location.SetMappingIndex(1)
		location.SetAddress(address)
		location.AttributeIndices().FromRaw([]int32{frameAttribute})
		line := location.Lines().AppendEmpty()
		line.SetFunctionIndex(1)
		line.SetLine(12)
	}

	dictionary.StackTable().AppendEmpty()
	dictionary.StackTable().AppendEmpty().LocationIndices().FromRaw([]int32{1, 2})

	dictionary.LinkTable().AppendEmpty()
	link := dictionary.LinkTable().AppendEmpty()
	link.SetTraceID(pcommon.TraceID{1})
	link.SetSpanID(pcommon.SpanID{2})

	resource := profiles.ResourceProfiles().AppendEmpty()
	resource.Resource().Attributes().PutStr("service.name", "app")
	profile := resource.ScopeProfiles().AppendEmpty().Profiles().AppendEmpty()
	profile.SampleType().SetTypeStrindex(samplesText)
	profile.SampleType().SetUnitStrindex(countText)
	profile.PeriodType().SetTypeStrindex(cpuText)
	profile.PeriodType().SetUnitStrindex(nanosecondsText)
	profile.SetPeriod(50_000_000)
	profile.SetTime(start)
	profile.SetDurationNano(duration)
	for i := range 2 {
		sample := profile.Samples().AppendEmpty()
		sample.SetStackIndex(1)
		sample.SetLinkIndex(int32(i))
		sample.AttributeIndices().FromRaw([]int32{threadAttribute})
		sample.Values().FromRaw([]int64{3})
	}
	return profiles
}

func profileOf(profiles pprofile.Profiles) pprofile.Profile {
	return profiles.ResourceProfiles().At(0).ScopeProfiles().At(0).Profiles().At(0)
}

func TestGoodMessages(t *testing.T) {
	assert.Empty(t, Check(good()))
	assert.Empty(t, Check(pprofile.NewProfiles()), "a message without anything")

	timestamps := good()
	for _, sample := range profileOf(timestamps).Samples().All() {
		sample.Values().FromRaw(nil)
		sample.TimestampsUnixNano().FromRaw([]uint64{start, start + duration - 1})
	}
	assert.Empty(t, Check(timestamps), "timestamps only")

	timed := good()
	for _, sample := range profileOf(timed).Samples().All() {
		sample.Values().FromRaw([]int64{1, 2})
		sample.TimestampsUnixNano().FromRaw([]uint64{start, start + duration - 1})
	}
	assert.Empty(t, Check(timed), "a value for each timestamp")

	onTheWire := good()
	onTheWire.Dictionary().StringTable().Append("service.name", "app")
	assert.Empty(t, Check(onTheWire), "strings of the resource")

	noRange := good()
	noRange.Dictionary().MappingTable().At(1).SetMemoryStart(0)
	noRange.Dictionary().MappingTable().At(1).SetMemoryLimit(0)
	assert.Empty(t, Check(noRange), "a mapping whose range is not known")
}

// TestViolations breaks each rule in each of the places where it can be broken.
func TestViolations(t *testing.T) {
	type dictionary = pprofile.ProfilesDictionary
	table := func(damage func(dictionary)) func(pprofile.Profiles) {
		return func(profiles pprofile.Profiles) { damage(profiles.Dictionary()) }
	}
	ofProfile := func(damage func(pprofile.Profile)) func(pprofile.Profiles) {
		return func(profiles pprofile.Profiles) { damage(profileOf(profiles)) }
	}
	ofSample := func(damage func(pprofile.Sample)) func(pprofile.Profiles) {
		return func(profiles pprofile.Profiles) { damage(profileOf(profiles).Samples().At(1)) }
	}
	const (
		profilePath = "resource_profiles[0].scope_profiles[0].profiles[0]"
		samplePath  = profilePath + ".samples[1]"
	)
	for _, test := range []struct {
		name   string
		damage func(pprofile.Profiles)
		rule   Rule
		where  string
	}{
		// Zero values.
		{"string 0", table(func(d dictionary) {
			d.StringTable().SetAt(0, "first")
		}), ZeroValue, "dictionary.string_table[0]"},
		{"function 0", table(func(d dictionary) {
			d.FunctionTable().At(0).SetStartLine(1)
		}), ZeroValue, "dictionary.function_table[0]"},
		{"mapping 0", table(func(d dictionary) {
			d.MappingTable().At(0).SetFileOffset(1)
		}), ZeroValue, "dictionary.mapping_table[0]"},
		{"location 0", table(func(d dictionary) {
			d.LocationTable().At(0).SetAddress(1)
		}), ZeroValue, "dictionary.location_table[0]"},
		{"link 0", table(func(d dictionary) {
			d.LinkTable().At(0).SetSpanID(pcommon.SpanID{1})
		}), ZeroValue, "dictionary.link_table[0]"},
		{"attribute 0", table(func(d dictionary) {
			d.AttributeTable().At(0).Value().SetInt(1)
		}), ZeroValue, "dictionary.attribute_table[0]"},
		{"stack 0", table(func(d dictionary) {
			d.StackTable().At(0).LocationIndices().Append(1)
		}), ZeroValue, "dictionary.stack_table[0]"},
		{"no links", table(func(d dictionary) {
			d.LinkTable().RemoveIf(func(pprofile.Link) bool { return true })
		}), ZeroValue, "dictionary.link_table"},

		// Duplicates.
		{"string twice", table(func(d dictionary) {
			d.StringTable().Append("main")
		}), Duplicate, "dictionary.string_table[11]"},
		{"function twice", table(func(d dictionary) {
			d.FunctionTable().At(1).CopyTo(d.FunctionTable().AppendEmpty())
		}), Duplicate, "dictionary.function_table[2]"},
		{"mapping twice", table(func(d dictionary) {
			d.MappingTable().At(1).CopyTo(d.MappingTable().AppendEmpty())
		}), Duplicate, "dictionary.mapping_table[2]"},
		{"location twice", table(func(d dictionary) {
			d.LocationTable().At(2).CopyTo(d.LocationTable().AppendEmpty())
		}), Duplicate, "dictionary.location_table[3]"},
		{"link twice", table(func(d dictionary) {
			d.LinkTable().At(1).CopyTo(d.LinkTable().AppendEmpty())
		}), Duplicate, "dictionary.link_table[2]"},
		{"attribute twice", table(func(d dictionary) {
			d.AttributeTable().At(2).CopyTo(d.AttributeTable().AppendEmpty())
		}), Duplicate, "dictionary.attribute_table[4]"},
		{"stack twice", table(func(d dictionary) {
			d.StackTable().At(1).CopyTo(d.StackTable().AppendEmpty())
		}), Duplicate, "dictionary.stack_table[2]"},
		{"zero value twice", table(func(d dictionary) {
			d.MappingTable().AppendEmpty()
		}), Duplicate, "dictionary.mapping_table[2]"},
		{"attributes in another order", table(func(d dictionary) {
			for i, indices := range [][]int32{{buildAttribute, threadAttribute}, {threadAttribute, buildAttribute}} {
				mapping := d.MappingTable().AppendEmpty()
				mapping.SetMemoryLimit(uint64(1 + i/2))
				mapping.AttributeIndices().FromRaw(indices)
			}
		}), Duplicate, "dictionary.mapping_table[3]"},

		// Orphans.
		{"string unused", table(func(d dictionary) {
			d.StringTable().Append("other")
		}), Orphan, "dictionary.string_table[11]"},
		{"function unused", table(func(d dictionary) {
			d.FunctionTable().AppendEmpty().SetNameStrindex(fileText)
		}), Orphan, "dictionary.function_table[2]"},
		{"mapping unused", table(func(d dictionary) {
			d.MappingTable().AppendEmpty().SetFilenameStrindex(fileText)
		}), Orphan, "dictionary.mapping_table[2]"},
		{"location unused", table(func(d dictionary) {
			d.LocationTable().AppendEmpty().SetAddress(1)
		}), Orphan, "dictionary.location_table[3]"},
		{"link unused", ofSample(func(s pprofile.Sample) {
			s.SetLinkIndex(0)
		}), Orphan, "dictionary.link_table[1]"},
		{"attribute unused", table(func(d dictionary) {
			d.MappingTable().At(1).AttributeIndices().FromRaw(nil)
		}), Orphan, "dictionary.attribute_table[3]"},
		{"stack unused", table(func(d dictionary) {
			d.StackTable().AppendEmpty().LocationIndices().Append(2)
		}), Orphan, "dictionary.stack_table[2]"},
		{"used by an orphan only", table(func(d dictionary) {
			d.FunctionTable().AppendEmpty().SetNameStrindex(int32(d.StringTable().Len()))
			d.StringTable().Append("other")
		}), Orphan, "dictionary.string_table[11]"},

		// Dangling indices.
		{"name of a function", table(func(d dictionary) {
			d.FunctionTable().At(1).SetNameStrindex(99)
		}), Dangling, "dictionary.function_table[1].name_strindex"},
		{"system name of a function", table(func(d dictionary) {
			d.FunctionTable().At(1).SetSystemNameStrindex(-1)
		}), Dangling, "dictionary.function_table[1].system_name_strindex"},
		{"file of a function", table(func(d dictionary) {
			d.FunctionTable().At(1).SetFilenameStrindex(11)
		}), Dangling, "dictionary.function_table[1].filename_strindex"},
		{"file of a mapping", table(func(d dictionary) {
			d.MappingTable().At(1).SetFilenameStrindex(99)
		}), Dangling, "dictionary.mapping_table[1].filename_strindex"},
		{"attribute of a mapping", table(func(d dictionary) {
			d.MappingTable().At(1).AttributeIndices().Append(99)
		}), Dangling, "dictionary.mapping_table[1].attribute_indices[1]"},
		{"mapping of a location", table(func(d dictionary) {
			d.LocationTable().At(1).SetMappingIndex(2)
		}), Dangling, "dictionary.location_table[1].mapping_index"},
		{"attribute of a location", table(func(d dictionary) {
			d.LocationTable().At(1).AttributeIndices().Append(-2)
		}), Dangling, "dictionary.location_table[1].attribute_indices[1]"},
		{"function of a line", table(func(d dictionary) {
			d.LocationTable().At(1).Lines().At(0).SetFunctionIndex(2)
		}), Dangling, "dictionary.location_table[1].lines[0].function_index"},
		{"location of a stack", table(func(d dictionary) {
			d.StackTable().At(1).LocationIndices().Append(3)
		}), Dangling, "dictionary.stack_table[1].location_indices[2]"},
		{"key of an attribute", table(func(d dictionary) {
			d.AttributeTable().At(1).SetKeyStrindex(99)
		}), Dangling, "dictionary.attribute_table[1].key_strindex"},
		{"unit of an attribute", table(func(d dictionary) {
			d.AttributeTable().At(1).SetUnitStrindex(99)
		}), Dangling, "dictionary.attribute_table[1].unit_strindex"},
		{"type of samples", ofProfile(func(p pprofile.Profile) {
			p.SampleType().SetTypeStrindex(99)
		}), Dangling, profilePath + ".sample_type.type_strindex"},
		{"unit of a period", ofProfile(func(p pprofile.Profile) {
			p.PeriodType().SetUnitStrindex(99)
		}), Dangling, profilePath + ".period_type.unit_strindex"},
		{"attribute of a profile", ofProfile(func(p pprofile.Profile) {
			p.AttributeIndices().Append(99)
		}), Dangling, profilePath + ".attribute_indices[0]"},
		{"stack of a sample", ofSample(func(s pprofile.Sample) {
			s.SetStackIndex(2)
		}), Dangling, samplePath + ".stack_index"},
		{"link of a sample", ofSample(func(s pprofile.Sample) {
			s.SetLinkIndex(-1)
		}), Dangling, samplePath + ".link_index"},
		{"attribute of a sample", ofSample(func(s pprofile.Sample) {
			s.AttributeIndices().Append(99)
		}), Dangling, samplePath + ".attribute_indices[1]"},

		// Resources, scopes and profiles.
		{"resource twice", func(profiles pprofile.Profiles) {
			profiles.ResourceProfiles().At(0).CopyTo(profiles.ResourceProfiles().AppendEmpty())
		}, Resource, "resource_profiles[1]"},
		{"resource without scopes", func(profiles pprofile.Profiles) {
			profiles.ResourceProfiles().AppendEmpty()
		}, Resource, "resource_profiles[1]"},
		{"scope without profiles", func(profiles pprofile.Profiles) {
			profiles.ResourceProfiles().At(0).ScopeProfiles().AppendEmpty()
		}, Resource, "resource_profiles[0].scope_profiles[1]"},
		{"profile without samples", ofProfile(func(p pprofile.Profile) {
			p.Samples().RemoveIf(func(pprofile.Sample) bool { return true })
		}), Resource, profilePath},
		{"profile twice", func(profiles pprofile.Profiles) {
			all := profiles.ResourceProfiles().At(0).ScopeProfiles().At(0).Profiles()
			all.At(0).CopyTo(all.AppendEmpty())
		}, SampleType, "resource_profiles[0].scope_profiles[0].profiles[1]"},

		// One profile.
		{"no type of samples", ofProfile(func(p pprofile.Profile) {
			p.SampleType().SetTypeStrindex(0)
		}), SampleType, profilePath},
		{"unit of another type", ofProfile(func(p pprofile.Profile) {
			p.SampleType().SetUnitStrindex(nanosecondsText)
		}), SampleType, profilePath},
		{"no period", ofProfile(func(p pprofile.Profile) { p.SetPeriod(0) }), Period, profilePath},
		{"negative period", ofProfile(func(p pprofile.Profile) { p.SetPeriod(-1) }), Period, profilePath},
		{"period of another type", ofProfile(func(p pprofile.Profile) {
			p.PeriodType().SetTypeStrindex(samplesText)
		}), Period, profilePath},
		{"period of what has none", func(profiles pprofile.Profiles) {
			p := profileOf(profiles)
			p.SampleType().SetTypeStrindex(int32(profiles.Dictionary().StringTable().Len()))
			p.SampleType().SetUnitStrindex(nanosecondsText)
			profiles.Dictionary().StringTable().Append("off_cpu")
		}, Period, profilePath},
		{"type of a period that is none", func(profiles pprofile.Profiles) {
			p := profileOf(profiles)
			p.SampleType().SetTypeStrindex(int32(profiles.Dictionary().StringTable().Len()))
			p.SetPeriod(0)
			profiles.Dictionary().StringTable().Append("alloc_objects")
		}, Period, profilePath},
		{"no time", ofProfile(func(p pprofile.Profile) { p.SetTime(0) }), Time, profilePath},
		{"no duration", ofProfile(func(p pprofile.Profile) { p.SetDurationNano(0) }), Time, profilePath},
		{"end of time", ofProfile(func(p pprofile.Profile) { p.SetDurationNano(1 << 63) }), Time, profilePath},

		// Samples.
		{"timestamp at the end", ofSample(func(s pprofile.Sample) {
			s.TimestampsUnixNano().Append(start + duration)
		}), Time, samplePath + ".timestamps_unix_nano[0]"},
		{"timestamp before the start", ofSample(func(s pprofile.Sample) {
			s.TimestampsUnixNano().Append(start - 1)
		}), Time, samplePath + ".timestamps_unix_nano[0]"},
		{"no value", ofSample(func(s pprofile.Sample) { s.Values().FromRaw(nil) }), Shape, samplePath},
		{"two values", ofSample(func(s pprofile.Sample) { s.Values().Append(1) }), Shape, samplePath},
		{"more values than timestamps", ofSample(func(s pprofile.Sample) {
			s.Values().Append(1)
			s.TimestampsUnixNano().Append(start)
		}), Shape, samplePath},
		{"another shape", ofSample(func(s pprofile.Sample) {
			s.TimestampsUnixNano().Append(start)
		}), Shape, samplePath},
		{"value 0", ofSample(func(s pprofile.Sample) { s.Values().SetAt(0, 0) }), Value, samplePath + ".values[0]"},
		{"negative value", ofSample(func(s pprofile.Sample) {
			s.Values().SetAt(0, -1)
		}), Value, samplePath + ".values[0]"},
		{"equal samples", ofProfile(func(p pprofile.Profile) {
			p.Samples().At(0).CopyTo(p.Samples().AppendEmpty())
		}), Identity, profilePath + ".samples[2]"},
		{"equal sets of attributes", func(profiles pprofile.Profiles) {
			d := profiles.Dictionary()
			d.AttributeTable().AppendEmpty().SetKeyStrindex(cpuText)
			d.AttributeTable().At(4).Value().SetInt(1)
			s := profileOf(profiles).Samples()
			s.At(0).AttributeIndices().FromRaw([]int32{threadAttribute, 4})
			s.At(0).CopyTo(s.AppendEmpty())
			s.At(2).AttributeIndices().FromRaw([]int32{4, threadAttribute})
		}, Identity, profilePath + ".samples[2]"},

		// Stacks, lines, mappings, links.
		{"no stack", ofSample(func(s pprofile.Sample) { s.SetStackIndex(0) }), Stack, samplePath},
		{"empty stack", table(func(d dictionary) { d.StackTable().AppendEmpty() }), Stack, "dictionary.stack_table[2]"},
		{"empty location", table(func(d dictionary) {
			d.StackTable().At(1).LocationIndices().Append(0)
		}), Stack, "dictionary.stack_table[1].location_indices[2]"},
		{"line without a function", table(func(d dictionary) {
			d.LocationTable().At(1).Lines().At(0).SetFunctionIndex(0)
		}), Line, "dictionary.location_table[1].lines[0]"},
		{"negative line", table(func(d dictionary) {
			d.LocationTable().At(1).Lines().At(0).SetLine(-1)
		}), Line, "dictionary.location_table[1].lines[0]"},
		{"negative column", table(func(d dictionary) {
			d.LocationTable().At(1).Lines().At(0).SetColumn(-1)
		}), Line, "dictionary.location_table[1].lines[0]"},
		{"negative start", table(func(d dictionary) {
			d.FunctionTable().At(1).SetStartLine(-1)
		}), Line, "dictionary.function_table[1]"},
		{"nameless function", table(func(d dictionary) {
			d.FunctionTable().At(1).SetNameStrindex(0)
			d.FunctionTable().At(1).SetFilenameStrindex(0)
			d.FunctionTable().At(1).SetStartLine(3)
		}), Line, "dictionary.function_table[1]"},
		{"address before its mapping", table(func(d dictionary) {
			d.LocationTable().At(1).SetAddress(0xfff)
		}), Mapping, "dictionary.location_table[1]"},
		{"address behind its mapping", table(func(d dictionary) {
			d.LocationTable().At(1).SetAddress(0x2000)
		}), Mapping, "dictionary.location_table[1]"},
		{"empty mapping", table(func(d dictionary) {
			d.MappingTable().At(1).SetMemoryLimit(0x1000)
		}), Mapping, "dictionary.mapping_table[1]"},
		{"no span id", table(func(d dictionary) {
			d.LinkTable().At(1).SetSpanID(pcommon.SpanID{})
		}), Link, "dictionary.link_table[1]"},
		{"no trace id", table(func(d dictionary) {
			d.LinkTable().At(1).SetTraceID(pcommon.TraceID{})
		}), Link, "dictionary.link_table[1]"},

		// Attributes.
		{"no key", table(func(d dictionary) {
			d.AttributeTable().At(1).SetKeyStrindex(0)
		}), Attribute, "dictionary.attribute_table[1]"},
		{"empty text", table(func(d dictionary) {
			d.AttributeTable().At(2).Value().SetStr("")
		}), Attribute, "dictionary.attribute_table[2]"},
		{"thread id that is a text", table(func(d dictionary) {
			d.AttributeTable().At(1).Value().SetStr("7")
		}), Attribute, "dictionary.attribute_table[1]"},
		{"negative thread id", table(func(d dictionary) {
			d.AttributeTable().At(1).Value().SetInt(-7)
		}), Attribute, "dictionary.attribute_table[1]"},
		{"frame type that no one knows", table(func(d dictionary) {
			d.AttributeTable().At(2).Value().SetStr("c")
		}), Attribute, "dictionary.attribute_table[2]"},
		{"key twice", func(profiles pprofile.Profiles) {
			added := profiles.Dictionary().AttributeTable().AppendEmpty()
			added.SetKeyStrindex(threadText)
			added.Value().SetInt(8)
			profileOf(profiles).Samples().At(1).AttributeIndices().Append(4)
		}, Attribute, samplePath + ".attribute_indices[1]"},
		{"attribute 0", ofSample(func(s pprofile.Sample) {
			s.AttributeIndices().Append(0)
		}), Attribute, samplePath + ".attribute_indices[1]"},
		{"frame type of a sample", ofSample(func(s pprofile.Sample) {
			s.AttributeIndices().Append(frameAttribute)
		}), Attribute, samplePath + ".attribute_indices[1]"},
		{"thread of a location", table(func(d dictionary) {
			d.LocationTable().At(1).AttributeIndices().Append(threadAttribute)
		}), Attribute, "dictionary.location_table[1].attribute_indices[1]"},
		{"thread of a mapping", table(func(d dictionary) {
			d.MappingTable().At(1).AttributeIndices().Append(threadAttribute)
		}), Attribute, "dictionary.mapping_table[1].attribute_indices[1]"},
		{"thread of a profile", ofProfile(func(p pprofile.Profile) {
			p.AttributeIndices().Append(threadAttribute)
		}), Attribute, profilePath + ".attribute_indices[0]"},
		{"resource attribute without a key", func(profiles pprofile.Profiles) {
			profiles.ResourceProfiles().At(0).Resource().Attributes().PutStr("", "x")
		}, Attribute, `resource_profiles[0].resource.attributes[""]`},

		// Encoding.
		{"string", table(func(d dictionary) {
			d.StringTable().SetAt(mainText, "\xff")
		}), Encoding, "dictionary.string_table[6]"},
		{"value of an attribute", table(func(d dictionary) {
			d.AttributeTable().At(3).Value().SetStr("\xff")
		}), Encoding, "dictionary.attribute_table[3]"},
		{"resource", func(profiles pprofile.Profiles) {
			profiles.ResourceProfiles().At(0).Resource().Attributes().PutStr("a", "\xff")
		}, Encoding, `resource_profiles[0].resource.attributes["a"]`},
	} {
		t.Run(strings.ReplaceAll(string(test.rule)+" "+test.name, " ", "_"), func(t *testing.T) {
			profiles := good()
			test.damage(profiles)
			violations := Check(profiles)
			require.NotEmpty(t, violations)
			var found []string
			for _, violation := range violations {
				assert.NotEmpty(t, violation.What)
				found = append(found, string(violation.Rule)+" "+violation.Where)
			}
			assert.Contains(t, found, string(test.rule)+" "+test.where)
		})
	}
}

func TestViolationSaysWhere(t *testing.T) {
	profiles := good()
	profileOf(profiles).SetPeriod(0)
	violations := Check(profiles)
	require.Len(t, violations, 1)
	const path = "resource_profiles[0].scope_profiles[0].profiles[0]"
	assert.Equal(t, path+": period: samples of a CPU need one", violations[0].String())
}
