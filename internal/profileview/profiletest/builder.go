// Package profiletest makes profiles for tests: small ones by hand, and large ones of made-up programs.
package profiletest

import (
	"hash/fnv"
	"strconv"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pprofile"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// Start is the time of all profiles of this package.
func Start() time.Time { return time.Date(2026, time.November, 23, 9, 0, 0, 0, time.UTC) }

// Duration is how long they last.
const Duration = 10 * time.Second

// Period is that of sampling at 99 Hz.
const Period = int64(time.Second) / 99

// Frame is a function, as a test writes it down. Without a name it is an address in a file.
type Frame struct {
	Name    string
	Kind    string
	File    string
	Line    int64
	Module  string  // path of the mapping; empty is none
	Address uint64  // ELF virtual address; 0 stands for one that the name gives
	Inlined []Frame // into this one, the outermost first; only their Name, File and Line count
}

// Process is a resource.
type Process struct {
	Executable string
	Service    string
	Container  string
	PID        int64
}

// Sample is one of a profile, as a test writes it down.
type Sample struct {
	Process Process
	Thread  string
	TraceID pcommon.TraceID
	SpanID  pcommon.SpanID
	Stack   []Frame // the root first
	Count   int64
	Type    string // samples/count where empty
	Unit    string
}

// Build makes one message of samples, of which those with the same process and type are in one profile.
func Build(samples []Sample) pprofile.Profiles {
	builder := newBuilder()
	for _, sample := range samples {
		builder.add(sample)
	}
	return builder.profiles
}

type builder struct {
	profiles   pprofile.Profiles
	dictionary pprofile.ProfilesDictionary
	known      map[string]int32
	plain      map[plainFrame]int32 // locations of frames without inlined ones; Large has millions
	resources  map[Process]pprofile.ScopeProfiles
	byType     map[string]pprofile.Profile
}

type plainFrame struct {
	name, kind, file, module string
	address                  uint64
}

func newBuilder() *builder {
	profiles := pprofile.NewProfiles()
	dictionary := profiles.Dictionary()
	made := &builder{
		profiles: profiles, dictionary: dictionary, known: map[string]int32{}, plain: map[plainFrame]int32{},
		resources: map[Process]pprofile.ScopeProfiles{}, byType: map[string]pprofile.Profile{},
	}
	dictionary.MappingTable().AppendEmpty()
	dictionary.LocationTable().AppendEmpty()
	dictionary.FunctionTable().AppendEmpty()
	dictionary.LinkTable().AppendEmpty()
	dictionary.AttributeTable().AppendEmpty()
	dictionary.StackTable().AppendEmpty()
	made.text("")
	return made
}

func (b *builder) add(sample Sample) {
	if sample.Type == "" {
		sample.Type, sample.Unit = "samples", "count"
	}
	profile := b.profile(sample)
	added := profile.Samples().AppendEmpty()
	added.Values().Append(sample.Count)
	added.SetStackIndex(b.stack(sample.Stack))
	if sample.Thread != "" {
		added.AttributeIndices().Append(b.attribute(string(semconv.ThreadNameKey), sample.Thread))
	}
	if !sample.SpanID.IsEmpty() || !sample.TraceID.IsEmpty() {
		added.SetLinkIndex(b.once("link "+sample.TraceID.String()+sample.SpanID.String(), func() int32 {
			link := b.dictionary.LinkTable().AppendEmpty()
			link.SetTraceID(sample.TraceID)
			link.SetSpanID(sample.SpanID)
			return int32(b.dictionary.LinkTable().Len() - 1)
		}))
	}
}

func (b *builder) profile(sample Sample) pprofile.Profile {
	scope, known := b.resources[sample.Process]
	if !known {
		resource := b.profiles.ResourceProfiles().AppendEmpty()
		attributes := resource.Resource().Attributes()
		for key, value := range map[string]string{
			string(semconv.ProcessExecutableNameKey): sample.Process.Executable,
			string(semconv.ServiceNameKey):           sample.Process.Service,
			string(semconv.ContainerIDKey):           sample.Process.Container,
		} {
			if value != "" {
				attributes.PutStr(key, value)
			}
		}
		if sample.Process.PID != 0 {
			attributes.PutInt(string(semconv.ProcessPIDKey), sample.Process.PID)
		}
		scope = resource.ScopeProfiles().AppendEmpty()
		b.resources[sample.Process] = scope
	}
	key := sample.Type + strconv.FormatInt(sample.Process.PID, 10) + sample.Process.Executable + sample.Process.Service
	profile, known := b.byType[key]
	if !known {
		profile = scope.Profiles().AppendEmpty()
		profile.SetTime(pcommon.NewTimestampFromTime(Start()))
		profile.SetDurationNano(uint64(Duration))
		profile.SampleType().SetTypeStrindex(b.text(sample.Type))
		profile.SampleType().SetUnitStrindex(b.text(sample.Unit))
		if sample.Type == "samples" {
			profile.PeriodType().SetTypeStrindex(b.text("cpu"))
			profile.PeriodType().SetUnitStrindex(b.text("nanoseconds"))
			profile.SetPeriod(Period)
		} else { // every event, as for time off the processor
			profile.PeriodType().SetTypeStrindex(b.text(sample.Type))
			profile.PeriodType().SetUnitStrindex(b.text(sample.Unit))
			profile.SetPeriod(1)
		}
		b.byType[key] = profile
	}
	return profile
}

func (b *builder) once(key string, build func() int32) int32 {
	if index, known := b.known[key]; known {
		return index
	}
	index := build()
	b.known[key] = index
	return index
}

func (b *builder) text(text string) int32 {
	return b.once("text "+text, func() int32 {
		b.dictionary.StringTable().Append(text)
		return int32(b.dictionary.StringTable().Len() - 1)
	})
}

func (b *builder) attribute(key, value string) int32 {
	return b.once("attribute "+key+"\x00"+value, func() int32 {
		attribute := b.dictionary.AttributeTable().AppendEmpty()
		attribute.SetKeyStrindex(b.text(key))
		attribute.Value().SetStr(value)
		return int32(b.dictionary.AttributeTable().Len() - 1)
	})
}

func (b *builder) stack(frames []Frame) int32 {
	locations := make([]int32, 0, len(frames))
	key := []byte("stack ")
	for i := len(frames) - 1; i >= 0; i-- {
		location := b.location(frames[i])
		locations = append(locations, location)
		key = strconv.AppendInt(append(key, ','), int64(location), 10)
	}
	return b.once(string(key), func() int32 {
		b.dictionary.StackTable().AppendEmpty().LocationIndices().FromRaw(locations)
		return int32(b.dictionary.StackTable().Len() - 1)
	})
}

// The segment of code that all mappings of this package have.
const (
	segmentStart  = 0x401000
	segmentLimit  = 0x901000
	segmentOffset = 0x1000
)

func (b *builder) location(frame Frame) int32 {
	if len(frame.Inlined) > 0 {
		return b.newLocation(frame)
	}
	plain := plainFrame{name: frame.Name, kind: frame.Kind, file: frame.File, module: frame.Module, address: frame.Address}
	index, known := b.plain[plain]
	if !known {
		index = b.newLocation(frame)
		b.plain[plain] = index
	}
	return index
}

func (b *builder) newLocation(frame Frame) int32 {
	key := "location " + frame.Module + "\x00" + frame.Kind + "\x00" + frame.Name + "\x00" + frame.File + "\x00" +
		strconv.FormatUint(frame.Address, 16)
	for _, inlined := range frame.Inlined {
		key += "\x00" + inlined.Name
	}
	return b.once(key, func() int32 {
		location := b.dictionary.LocationTable().AppendEmpty()
		index := int32(b.dictionary.LocationTable().Len() - 1)
		location.SetAddress(frame.Address)
		if frame.Address == 0 && frame.Module != "" {
			hashed := fnv.New32a()
			_, _ = hashed.Write([]byte(key))                                                       // never fails
			location.SetAddress(segmentStart + uint64(hashed.Sum32())%(segmentLimit-segmentStart)) // the same in all messages
		}
		if frame.Kind != "" {
			location.AttributeIndices().Append(b.attribute(string(semconv.ProfileFrameTypeKey), frame.Kind))
		}
		if frame.Module != "" {
			location.SetMappingIndex(b.mapping(frame.Module))
		}
		for i := len(frame.Inlined) - 1; i >= 0; i-- {
			b.line(location, frame.Inlined[i])
		}
		if frame.Name != "" {
			b.line(location, frame)
		}
		return index
	})
}

func (b *builder) line(location pprofile.Location, frame Frame) {
	line := location.Lines().AppendEmpty()
	line.SetLine(frame.Line)
	line.SetFunctionIndex(b.once("function "+frame.Name+"\x00"+frame.File, func() int32 {
		function := b.dictionary.FunctionTable().AppendEmpty()
		function.SetNameStrindex(b.text(frame.Name))
		function.SetFilenameStrindex(b.text(frame.File))
		return int32(b.dictionary.FunctionTable().Len() - 1)
	}))
}

// BuildID is that of a mapping.
func BuildID(module string) string { return "b1d" + strconv.Itoa(len(module)) + "0123456789abcdef" }

func (b *builder) mapping(module string) int32 {
	return b.once("mapping "+module, func() int32 {
		mapping := b.dictionary.MappingTable().AppendEmpty()
		mapping.SetFilenameStrindex(b.text(module))
		mapping.SetMemoryStart(segmentStart)
		mapping.SetMemoryLimit(segmentLimit)
		mapping.SetFileOffset(segmentOffset)
		mapping.AttributeIndices().Append(b.attribute(string(semconv.ProcessExecutableBuildIDGNUKey), BuildID(module)))
		return int32(b.dictionary.MappingTable().Len() - 1)
	})
}
