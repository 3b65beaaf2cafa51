package profile

import (
	"flag"
	"math"
	"path/filepath"
	"reflect"
	"strconv"
	"testing"
	"time"

	"github.com/open-telemetry/opentelemetry-collector-contrib/pkg/golden"
	"github.com/open-telemetry/opentelemetry-collector-contrib/pkg/pdatatest/pprofiletest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pprofile"

	"github.com/ebpfreceiver/ebpfreceiver/internal/signal/profile/profilecheck"
)

var update = flag.Bool("update", false, "write the expected messages")

// exampleStacks are stacks by name. asked counts how often each was asked for.
type exampleStacks struct {
	stacks map[string][]Location
	asked  map[string]int
}

func (s *exampleStacks) AppendLocations(locations []Location, key string) []Location {
	if s.asked == nil {
		s.asked = make(map[string]int)
	}
	s.asked[key]++
	return append(locations, s.stacks[key]...)
}

type exampleIdentity string

func (i exampleIdentity) ResourceKey() string { return string(i) }

func (i exampleIdentity) PutResource(attributes pcommon.Map) {
	attributes.PutStr("service.name", string(i))
}

func exampleScope(scope pcommon.InstrumentationScope) {
	scope.SetName("example")
	scope.SetVersion("1")
}

// exampleStart is when all profiles of these tests start.
func exampleStart() time.Time { return time.Unix(1_800_000_000, 0) }

func exampleCPU() Description {
	return Description{Type: CPU, Period: int64(time.Second) / 20, Start: exampleStart(), Duration: 5 * time.Second}
}

func exampleApp() *Mapping {
	return &Mapping{
		Start: 0x1000, Limit: 0x9000, Offset: 0x1000, File: "/usr/bin/app",
		BuildIDGNU: "0123456789abcdef", BuildIDGo: "go/id", BuildIDHtlhash: "fedcba9876543210",
	}
}

func exampleKernel() *Mapping {
	return &Mapping{Start: 0xffffffff81000000, Limit: 0xffffffff82000000, File: "[kernel.kallsyms]"}
}

// exampleLocations are a stack of the kernel and a program with an inlined call.
func exampleLocations() []Location {
	app := exampleApp()
	return []Location{
		{Mapping: exampleKernel(), Address: 0xffffffff81000010, FrameType: "kernel", Lines: []Line{{Function: "do_syscall_64"}}},
		{Mapping: app, Address: 0x1234, FrameType: "native", Lines: []Line{
			{Function: "inlined(int)", SystemName: "_Z7inlinedi", File: "inlined.cc", StartLine: 3, Line: 4, Column: 5},
			{Function: "caller()", SystemName: "_Z6callerv", File: "app.cc", StartLine: 10, Line: 11},
		}},
		{Mapping: app, Address: 0x2345, FrameType: "native", Lines: []Line{
			{Function: "main", File: "app.cc", StartLine: 20, Line: 30},
		}},
		{Mapping: app, Address: 0x3456, FrameType: "native"},
	}
}

func exampleLink() Link {
	return Link{TraceID: pcommon.TraceID{1, 2, 3}, SpanID: pcommon.SpanID{4, 5, 6}}
}

func exampleBuilder() (*Builder[string], *exampleStacks) {
	full := exampleLocations()
	stacks := &exampleStacks{stacks: map[string][]Location{
		"full":   full,
		"short":  full[2:],
		"kernel": full[:1],
		"python": {{Lines: []Line{{Function: "handle", File: "app.py", Line: 7}}, FrameType: "cpython"}, full[3]},
		"bare":   {{Mapping: &Mapping{File: "[anon]"}, Address: 0x7f0000001000}},
	}}
	return New(stacks, exampleScope), stacks
}

func profileFor(t *testing.T, b *Builder[string], identity Identity, description Description) Profile {
	t.Helper()
	p, err := b.Profile(b.Resource(identity), description)
	require.NoError(t, err)
	return p
}

// requireGood asserts that a message follows all rules, also after it went over the wire and through a file.
func requireGood(t testing.TB, profiles pprofile.Profiles) {
	t.Helper()
	require.Empty(t, profilecheck.Check(profiles))

	// Marshalling moves the resource's texts into the string table of what it marshals.
	sent := pprofile.NewProfiles()
	profiles.CopyTo(sent)
	var toProto pprofile.ProtoMarshaler
	wire, err := toProto.MarshalProfiles(sent)
	require.NoError(t, err)
	var fromProto pprofile.ProtoUnmarshaler
	received, err := fromProto.UnmarshalProfiles(wire)
	require.NoError(t, err)
	require.Empty(t, profilecheck.Check(received), "protobuf")
	require.NoError(t, pprofiletest.CompareProfiles(profiles, received))

	sent = pprofile.NewProfiles()
	profiles.CopyTo(sent)
	var toJSON pprofile.JSONMarshaler
	file, err := toJSON.MarshalProfiles(sent)
	require.NoError(t, err)
	var fromJSON pprofile.JSONUnmarshaler
	read, err := fromJSON.UnmarshalProfiles(file)
	require.NoError(t, err)
	require.Empty(t, profilecheck.Check(read), "JSON")
	require.NoError(t, pprofiletest.CompareProfiles(profiles, read))

	for _, resource := range profiles.ResourceProfiles().All() {
		for _, scope := range resource.ScopeProfiles().All() {
			for _, p := range scope.Profiles().All() {
				require.NoError(t, pprofiletest.ValidateProfile(profiles.Dictionary(), p))
			}
		}
	}
}

// TestGolden has one of everything.
func TestGolden(t *testing.T) {
	b, stacks := exampleBuilder()
	cpu := profileFor(t, b, exampleIdentity("app"), exampleCPU())
	offCPU := profileFor(t, b, exampleIdentity("app"), Description{
		Type: OffCPU, Shape: TimedValues, Start: exampleStart(), Duration: 5 * time.Second,
	})
	other := profileFor(t, b, exampleIdentity("other"), exampleCPU())
	times := profileFor(t, b, exampleIdentity("other"), Description{
		Type: CPU, Shape: Timestamps, Period: 1, Start: exampleStart(), Duration: 5 * time.Second,
	})
	unknown := profileFor(t, b, nil, exampleCPU())
	unused := profileFor(t, b, exampleIdentity("unused"), exampleCPU())
	memory := func(kind Type) Profile {
		return profileFor(t, b, exampleIdentity("memory"), Description{
			Type: kind, Period: 512 << 10, Start: exampleStart(), Duration: time.Minute,
		})
	}

	thread := Attributes{ProcessID: 12, ThreadID: 34, ThreadName: "worker", CPU: OnCPU(0)}
	for _, each := range []struct {
		profile Profile
		sample  Sample[string]
	}{
		{cpu, Sample[string]{Stack: "full", Attributes: thread, Link: exampleLink(), Value: 2}},
		{cpu, Sample[string]{Stack: "full", Attributes: thread, Value: 3}},
		{cpu, Sample[string]{Stack: "short", Attributes: Attributes{ThreadID: 34, CPU: OnCPU(3)}, Value: 4}},
		{cpu, Sample[string]{Stack: "full", Attributes: thread, Link: exampleLink(), Value: 5}},
		{cpu, Sample[string]{Stack: "python", Attributes: Attributes{Incomplete: "no_unwind_information"}, Value: 1}},
		{offCPU, Sample[string]{
			Stack: "short", Attributes: Attributes{OffCPUReason: Wait}, Value: 1_000_000, Time: exampleStart(),
		}},
		{offCPU, Sample[string]{
			Stack: "short", Attributes: Attributes{OffCPUReason: Preempted}, Value: 3_000_000, Time: exampleStart().Add(time.Second),
		}},
		{offCPU, Sample[string]{
			Stack: "short", Attributes: Attributes{OffCPUReason: Wait}, Value: 2_000_000, Time: exampleStart().Add(5*time.Second - 1),
		}},
		{other, Sample[string]{Stack: "kernel", Value: 7}},
		{times, Sample[string]{Stack: "bare", Value: 1, Time: exampleStart().Add(1)}},
		{times, Sample[string]{Stack: "bare", Value: 1, Time: exampleStart().Add(1)}},
		{unknown, Sample[string]{Stack: "short", Value: 1}},
		{memory(AllocObjects), Sample[string]{Stack: "short", Value: 10}},
		{memory(AllocSpace), Sample[string]{Stack: "short", Value: 20}},
		{memory(InUseObjects), Sample[string]{Stack: "short", Value: 30}},
		{memory(InUseSpace), Sample[string]{Stack: "short", Value: 40}},
	} {
		require.NoError(t, b.Add(each.profile, each.sample))
	}
	require.ErrorIs(t, b.Add(unused, Sample[string]{Stack: "nowhere", Value: 1}), ErrNoStack)
	assert.Equal(t, 13, b.Len())
	for name, asked := range stacks.asked {
		assert.Equal(t, 1, asked, name)
	}

	got := b.Build()
	requireGood(t, got)
	expected := filepath.Join("testdata", "profiles.yaml")
	if *update {
		written := pprofile.NewProfiles()
		got.CopyTo(written)
		require.NoError(t, golden.WriteProfiles(t, expected, written))
	}
	want, err := golden.ReadProfiles(expected)
	require.NoError(t, err)
	require.NoError(t, pprofiletest.CompareProfiles(want, got))
	// CompareProfiles does not look at links, nor at the order of entries.
	assert.Equal(t, wire(t, want), wire(t, got))
}

func wire(t *testing.T, profiles pprofile.Profiles) string {
	t.Helper()
	sent := pprofile.NewProfiles()
	profiles.CopyTo(sent)
	var marshaler pprofile.JSONMarshaler
	bytes, err := marshaler.MarshalProfiles(sent)
	require.NoError(t, err)
	return string(bytes)
}

func TestAddRefuses(t *testing.T) {
	timed := Description{Type: OffCPU, Shape: TimedValues, Start: exampleStart(), Duration: time.Second}
	times := Description{Type: CPU, Shape: Timestamps, Period: 1, Start: exampleStart(), Duration: time.Second}
	for name, test := range map[string]struct {
		description Description
		stack       []Location
		sample      Sample[string]
		want        error
	}{
		"no locations":   {exampleCPU(), nil, Sample[string]{Value: 1}, ErrNoStack},
		"empty location": {exampleCPU(), []Location{{Address: 1}, {}}, Sample[string]{Value: 1}, ErrEmptyLocation},
		"line without a function": {
			exampleCPU(), []Location{{Lines: []Line{{Line: 3}}}}, Sample[string]{Value: 1}, ErrEmptyLocation,
		},
		"empty mapping": {exampleCPU(), []Location{{Mapping: &Mapping{}}}, Sample[string]{Value: 1}, ErrEmptyLocation},
		"before the mapping": {exampleCPU(), []Location{
			{Mapping: exampleApp(), Address: 0x2000, Lines: []Line{{Function: "left behind?"}}},
			{Mapping: exampleApp(), Address: 0xfff},
		}, Sample[string]{Value: 1}, ErrOutsideMapping},
		"behind the mapping": {
			exampleCPU(), []Location{{Mapping: exampleApp(), Address: 0x9000}}, Sample[string]{Value: 1}, ErrOutsideMapping,
		},
		"mapping without a length": {
			exampleCPU(), []Location{{Mapping: &Mapping{Start: 1, Limit: 1}}}, Sample[string]{Value: 1}, ErrOutsideMapping,
		},
		"value 0":         {exampleCPU(), exampleLocations(), Sample[string]{}, ErrValue},
		"negative value":  {exampleCPU(), exampleLocations(), Sample[string]{Value: -1}, ErrValue},
		"two at one time": {times, exampleLocations(), Sample[string]{Value: 2, Time: exampleStart()}, ErrValue},
		"before the time": {times, exampleLocations(), Sample[string]{Value: 1, Time: exampleStart().Add(-1)}, ErrTime},
		"at the end of the time": {
			timed, exampleLocations(), Sample[string]{Value: 1, Time: exampleStart().Add(time.Second)}, ErrTime,
		},
		"no time": {timed, exampleLocations(), Sample[string]{Value: 1}, ErrTime},
		"no trace id": {
			exampleCPU(), exampleLocations(), Sample[string]{Value: 1, Link: Link{SpanID: pcommon.SpanID{1}}}, ErrLink,
		},
		"no span id": {
			exampleCPU(), exampleLocations(), Sample[string]{Value: 1, Link: Link{TraceID: pcommon.TraceID{1}}}, ErrLink,
		},
	} {
		t.Run(name, func(t *testing.T) {
			stacks := &exampleStacks{stacks: map[string][]Location{"": test.stack, "good": {{Address: 7}}}}
			b := New(stacks, nil)
			p := profileFor(t, b, exampleIdentity("app"), test.description)
			require.ErrorIs(t, b.Add(p, test.sample), test.want)
			require.ErrorIs(t, b.Add(p, test.sample), test.want)
			assert.LessOrEqual(t, stacks.asked[""], 1, "also a refused stack is asked for once")
			assert.Zero(t, b.Len())

			require.NoError(t, b.Add(p, Sample[string]{Stack: "good", Value: 1, Time: exampleStart()}))
			got := b.Build()
			requireGood(t, got) // in particular, no orphans
			assert.Equal(t, 2, got.Dictionary().LocationTable().Len())
			assert.Zero(t, b.Build().ResourceProfiles().Len())
		})
	}
}

func TestProfileRefuses(t *testing.T) {
	b, _ := exampleBuilder()
	resource := b.Resource(nil)
	for name, change := range map[string]func(*Description){
		"no type":             func(d *Description) { d.Type = 0 },
		"unknown type":        func(d *Description) { d.Type = InUseSpace + 1 },
		"unknown shape":       func(d *Description) { d.Shape = TimedValues + 1 },
		"no period":           func(d *Description) { d.Period = 0 },
		"negative period":     func(d *Description) { d.Period = -1 },
		"period for off-CPU":  func(d *Description) { d.Type = OffCPU },
		"no duration":         func(d *Description) { d.Duration = 0 },
		"negative duration":   func(d *Description) { d.Duration = -1 },
		"no start":            func(d *Description) { d.Start = time.Time{} },
		"1970":                func(d *Description) { d.Start = time.Unix(0, 0) },
		"the end of all time": func(d *Description) { d.Start = time.Unix(0, math.MaxInt64) },
	} {
		t.Run(name, func(t *testing.T) {
			d := exampleCPU()
			change(&d)
			_, err := b.Profile(resource, d)
			assert.ErrorIs(t, err, ErrDescription)
		})
	}
}

func TestHandlesOfAnEarlierMessageAreRefused(t *testing.T) {
	b, _ := exampleBuilder()
	resource := b.Resource(exampleIdentity("app"))
	p := profileFor(t, b, exampleIdentity("app"), exampleCPU())
	require.NoError(t, b.Add(p, Sample[string]{Stack: "full", Value: 1}))
	b.Build()
	require.ErrorIs(t, b.Add(p, Sample[string]{Stack: "full", Value: 1}), ErrStale)
	require.ErrorIs(t, b.Add(Profile{}, Sample[string]{Stack: "full", Value: 1}), ErrStale)
	_, err := b.Profile(resource, exampleCPU())
	require.ErrorIs(t, err, ErrStale)
	assert.Zero(t, b.Build().ResourceProfiles().Len())
}

func TestEqualSamplesAreMerged(t *testing.T) {
	b, stacks := exampleBuilder()
	stacks.stacks["full again"] = exampleLocations() // equal, with other pointers
	thread := Attributes{ThreadID: 1, ThreadName: "a\xff"}
	spelled := Attributes{ThreadID: 1, ThreadName: "a\xfe"} // protobuf cannot tell them apart
	for range 2 {
		p := profileFor(t, b, exampleIdentity("app"), exampleCPU())
		again := profileFor(t, b, exampleIdentity("app"), exampleCPU())
		assert.Equal(t, p, again)
		for _, sample := range []Sample[string]{
			{Stack: "full", Attributes: thread, Link: exampleLink(), Value: 1},
			{Stack: "full again", Attributes: thread, Link: exampleLink(), Value: 2},
			{Stack: "full", Attributes: spelled, Link: exampleLink(), Value: 4},
			{Stack: "short", Attributes: thread, Link: exampleLink(), Value: 8},
			{Stack: "full", Link: exampleLink(), Value: 16},
			{Stack: "full", Attributes: thread, Value: 32},
		} {
			require.NoError(t, b.Add(p, sample))
		}
		got := b.Build()
		requireGood(t, got)
		var values []int64
		for _, sample := range got.ResourceProfiles().At(0).ScopeProfiles().At(0).Profiles().At(0).Samples().All() {
			values = append(values, sample.Values().At(0))
		}
		assert.Equal(t, []int64{7, 8, 16, 32}, values)
	}
}

func TestSumThatDoesNotFit(t *testing.T) {
	b, _ := exampleBuilder()
	p := profileFor(t, b, nil, exampleCPU())
	require.NoError(t, b.Add(p, Sample[string]{Stack: "full", Value: math.MaxInt64 - 1}))
	require.ErrorIs(t, b.Add(p, Sample[string]{Stack: "full", Value: 2}), ErrValue)
	require.NoError(t, b.Add(p, Sample[string]{Stack: "full", Value: 1}))
	requireGood(t, b.Build())
}

func TestEntriesAreShared(t *testing.T) {
	b, stacks := exampleBuilder()
	app := exampleApp()
	stacks.stacks = map[string][]Location{
		"one": {{Mapping: app, Address: 0x1234, FrameType: "native", Lines: []Line{{Function: "f\xff", File: "a.c", Line: 3}}}},
		// Another process's copy of the mapping, and a name that protobuf cannot tell from the first.
		"two": {{Mapping: exampleApp(), Address: 0x1234, FrameType: "native", Lines: []Line{
			{Function: "f\xfe", File: "a.c", Line: 3},
		}}},
		// The same function at another line.
		"three": {{Mapping: app, Address: 0x1235, FrameType: "native", Lines: []Line{{Function: "f\xff", File: "a.c", Line: 4}}}},
		// The same place, compiled anew.
		"four": {{Mapping: app, Address: 0x1234, FrameType: "native", Lines: []Line{{Function: "g", File: "a.c", Line: 3}}}},
		// Nothing is known of a line's function, so nothing is said about it.
		"five": {{Mapping: app, Address: 0x1234, FrameType: "native", Lines: []Line{
			{Line: 3}, {Function: "g", File: "a.c", Line: 3},
		}}},
		"six": {{Mapping: app, Address: 0x1234, FrameType: "go", Lines: []Line{{Function: "g", File: "a.c", Line: 3}}}},
		"seven": {{Mapping: app, Address: 0x1234, FrameType: "go", Lines: []Line{
			{Function: "g", File: "a.c", Line: -3, Column: -1, StartLine: -7},
		}}},
	}
	p := profileFor(t, b, nil, exampleCPU())
	for _, key := range []string{"one", "two", "three", "four", "five", "six", "seven"} {
		require.NoError(t, b.Add(p, Sample[string]{Stack: key, Value: 1}))
	}
	got := b.Build()
	requireGood(t, got)
	dictionary := got.Dictionary()
	assert.Equal(t, 1+1, dictionary.MappingTable().Len())
	assert.Equal(t, 1+2, dictionary.FunctionTable().Len())
	assert.Equal(t, 1+5, dictionary.LocationTable().Len())
	assert.Equal(t, 1+5, dictionary.StackTable().Len())
	assert.Equal(t, 5, got.SampleCount())
	assert.Contains(t, dictionary.StringTable().AsRaw(), "f\ufffd")
}

// TestManyLocationsAtOnePlace has more of them than are remembered.
func TestManyLocationsAtOnePlace(t *testing.T) {
	b, stacks := exampleBuilder()
	const count = 3 * mostSeen
	p := profileFor(t, b, nil, exampleCPU())
	for round := range 2 {
		for i := range count {
			key := strconv.Itoa(i)
			stacks.stacks[key] = []Location{{Lines: []Line{{Function: "f" + key}}}}
			stacks.stacks["again "+key] = stacks.stacks[key]
			if round == 1 {
				key = "again " + key
			}
			require.NoError(t, b.Add(p, Sample[string]{Stack: key, Value: 1}))
		}
	}
	assert.Equal(t, count, b.Len())
	assert.Len(t, b.dictionary.seen, 1+mostSeen)
	got := b.Build()
	requireGood(t, got)
	assert.Equal(t, 1+count, got.Dictionary().LocationTable().Len())
}

func TestFullMessage(t *testing.T) {
	for name, lower := range map[string]func(*limits){
		"samples":     func(l *limits) { l.samples = 1 },
		"occurrences": func(l *limits) { l.occurrences = 1 },
		"rows":        func(l *limits) { l.rows = 3 },
		"stacks":      func(l *limits) { l.stacks = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			b, _ := exampleBuilder()
			lower(&b.limits)
			for range 2 {
				p := profileFor(t, b, nil, Description{
					Type: CPU, Shape: Timestamps, Period: 1, Start: exampleStart(), Duration: time.Second,
				})
				require.NoError(t, b.Add(p, Sample[string]{Stack: "full", Value: 1, Time: exampleStart()}))
				require.ErrorIs(t, b.Add(p, Sample[string]{Stack: "short", Value: 1, Time: exampleStart()}), ErrFull)
				err := b.Add(p, Sample[string]{Stack: "full", Value: 1, Time: exampleStart()})
				if name == "occurrences" {
					require.ErrorIs(t, err, ErrFull)
				} else {
					require.NoError(t, err, "a sample that is there already needs no room")
				}
				got := b.Build()
				requireGood(t, got)
				assert.Equal(t, 1, got.SampleCount())
			}
		})
	}
}

// TestUnknownsAreLeftOut is about what a stack and a profile may lack.
func TestUnknownsAreLeftOut(t *testing.T) {
	b, stacks := exampleBuilder()
	stacks.stacks["unknown"] = []Location{
		{Mapping: exampleApp()},                         // no address
		{Mapping: &Mapping{File: "[vdso]"}, Address: 5}, // no range
		{Mapping: &Mapping{}, Address: 6},               // no mapping
		{Address: 7},                                    // nothing but an address
		{FrameType: "v8js"},                             // nothing but a type
	}
	p := profileFor(t, b, nil, Description{Type: AllocSpace, Start: exampleStart(), Duration: 1}) // everything is counted
	require.NoError(t, b.Add(p, Sample[string]{Stack: "unknown", Value: 1}))
	got := b.Build()
	requireGood(t, got)
	written := got.ResourceProfiles().At(0).ScopeProfiles().At(0).Profiles().At(0)
	assert.Zero(t, written.Period())
	assert.Zero(t, written.PeriodType().TypeStrindex())
	locations := got.Dictionary().LocationTable()
	require.Equal(t, 6, locations.Len())
	assert.Equal(t, []int32{1, 2, 0, 0, 0}, []int32{
		locations.At(1).MappingIndex(), locations.At(2).MappingIndex(), locations.At(3).MappingIndex(),
		locations.At(4).MappingIndex(), locations.At(5).MappingIndex(),
	})
}

func TestSize(t *testing.T) {
	for _, test := range []struct{ stacks, frames, functions, threads int }{
		{1, 1, 10, 1}, {100, 50, 5000, 3}, {1000, 50, 5000, 1}, {5000, 20, 20_000, 1}, {300, 10, 50, 20},
	} {
		for shape := range TimedValues + 1 {
			builder := New(newBenchmarkStacks(test.stacks, test.frames, test.functions), exampleScope)
			p, err := builder.Profile(builder.Resource(exampleIdentity("app")), Description{
				Type: CPU, Shape: shape, Period: 1, Start: exampleStart(), Duration: time.Second,
			})
			require.NoError(t, err)
			for i := range test.stacks * test.threads {
				require.NoError(t, builder.Add(p, Sample[stackKey]{
					Stack:      stackKey{user: uint64(i % test.stacks)},
					Attributes: Attributes{ThreadID: uint32(1 + i/test.stacks), ThreadName: "worker"},
					Link:       Link{TraceID: pcommon.TraceID{byte(1 + i%5)}, SpanID: pcommon.SpanID{1}},
					Value:      1,
					Time:       exampleStart(),
				}))
			}
			estimate := builder.Size()
			var marshaler pprofile.ProtoMarshaler
			bytes, err := marshaler.MarshalProfiles(builder.Build())
			require.NoError(t, err)
			t.Logf("%+v, shape %d: %d bytes, estimate %d", test, shape, len(bytes), estimate)
			assert.GreaterOrEqual(t, float64(estimate), 0.95*float64(len(bytes)))
			assert.LessOrEqual(t, float64(estimate), 1.5*float64(len(bytes))+1000)
			assert.Zero(t, builder.Size())
		}
	}
}

// TestNothingStaysAlive builds a large message, then a small one.
func TestNothingStaysAlive(t *testing.T) {
	b, stacks := exampleBuilder()
	mapping := exampleApp()
	stacks.stacks["large"] = nil
	for i := range 20 * leastRoom {
		stacks.stacks["large"] = append(stacks.stacks["large"], Location{
			Mapping: mapping, Address: mapping.Start + uint64(i), Lines: []Line{{Function: "f" + strconv.Itoa(i), Line: i}},
		})
	}
	p := profileFor(t, b, exampleIdentity("app"), exampleCPU())
	sample := Sample[string]{
		Stack: "large", Attributes: Attributes{ThreadName: "x", CPU: OnCPU(1)}, Link: exampleLink(), Value: 1,
	}
	require.NoError(t, b.Add(p, sample))
	require.Error(t, b.Add(p, Sample[string]{Stack: "nowhere", Value: 1}))
	b.Build()
	requireEmpty(t, reflect.ValueOf(b).Elem(), "builder")
	assert.Greater(t, cap(b.dictionary.locations.rows), 10*leastRoom, "the room is kept for a next message of this size")

	p = profileFor(t, b, nil, exampleCPU())
	require.NoError(t, b.Add(p, Sample[string]{Stack: "short", Value: 1}))
	b.Build()
	requireEmpty(t, reflect.ValueOf(b).Elem(), "builder")
	assert.LessOrEqual(t, cap(b.dictionary.locations.rows), leastRoom)
	assert.LessOrEqual(t, cap(b.dictionary.seenLines), leastRoom)
	assert.LessOrEqual(t, cap(b.dictionary.stacks.elements), leastRoom)
	assert.LessOrEqual(t, b.dictionary.locations.indices.room, leastRoom)
	assert.LessOrEqual(t, b.dictionary.functions.indices.room, leastRoom)
	assert.LessOrEqual(t, cap(b.locations), leastRoom)
}

// requireEmpty asserts that maps and slices have no entries, and refer to nothing in the room that they have kept.
func requireEmpty(t *testing.T, value reflect.Value, path string) {
	t.Helper()
	switch value.Kind() {
	case reflect.Struct:
		for i := range value.NumField() {
			requireEmpty(t, value.Field(i), path+"."+value.Type().Field(i).Name)
		}
	case reflect.Map:
		require.Zero(t, value.Len(), path)
	case reflect.Slice:
		require.Zero(t, value.Len(), path)
		for i, room := 0, value.Slice(0, value.Cap()); i < room.Len(); i++ {
			if !room.Index(i).Comparable() || room.Index(i).Kind() == reflect.Struct || room.Index(i).Kind() == reflect.String {
				require.True(t, room.Index(i).IsZero(), "%s: %d of %d", path, i, room.Len())
			}
		}
	default:
	}
}

// TestRepeatedSamplesAllocateNothing is about stacks that the message has.
func TestRepeatedSamplesAllocateNothing(t *testing.T) {
	b, _ := exampleBuilder()
	p := profileFor(t, b, exampleIdentity("app"), exampleCPU())
	sample := Sample[string]{Stack: "full", Attributes: Attributes{ThreadID: 3, ThreadName: "x"}, Link: exampleLink(), Value: 1}
	require.NoError(t, b.Add(p, sample))
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		if err := b.Add(p, sample); err != nil {
			t.Error(err)
		}
	}))
}
