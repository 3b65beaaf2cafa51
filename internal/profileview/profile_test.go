package profileview

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/pprof/profile"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pprofile"

	"github.com/ebpfreceiver/ebpfreceiver/internal/profileview/profiletest"
)

// countOf is the sum of the counts of samples, of those only that have a function of that name, as the test wrote them down.
func countOf(samples []profiletest.Sample, function string) int64 {
	count := int64(0)
	for _, sample := range samples {
		if (sample.Type == "" || sample.Type == "samples") && (function == "" || has(sample, function)) {
			count += sample.Count
		}
	}
	return count
}

func has(sample profiletest.Sample, function string) bool {
	for _, frame := range sample.Stack {
		if frame.Name == function {
			return true
		}
		for _, inlined := range frame.Inlined {
			if inlined.Name == function {
				return true
			}
		}
	}
	return false
}

func collect(samples []profiletest.Sample, filter Filter) *Profile {
	profile := NewProfile()
	profile.Add(profiletest.Build(samples), filter)
	return profile
}

func TestPprof(t *testing.T) {
	samples := profiletest.Mixed()
	converted, err := collect(samples, Filter{}).Pprof()
	require.NoError(t, err)
	// As it comes out of a file: CheckValid is part of reading.
	var file bytes.Buffer
	require.NoError(t, converted.Write(&file))
	converted, err = profile.ParseData(file.Bytes())
	require.NoError(t, err)

	types := make([]string, 0, 3)
	for _, valueType := range converted.SampleType {
		types = append(types, valueType.Type+"/"+valueType.Unit)
	}
	assert.Equal(t, []string{"samples/count", "cpu/nanoseconds", "off_cpu/nanoseconds"}, types)
	assert.Equal(t, "cpu", converted.DefaultSampleType)
	assert.Equal(t, profile.ValueType{Type: "cpu", Unit: "nanoseconds"}, *converted.PeriodType)
	assert.Equal(t, profiletest.Period, converted.Period)
	assert.Equal(t, profiletest.Start().UnixNano(), converted.TimeNanos)
	assert.Equal(t, profiletest.Duration.Nanoseconds(), converted.DurationNanos)

	totals := make([]int64, 3)
	functions := map[string]int64{}
	for _, sample := range converted.Sample {
		for column, value := range sample.Value {
			totals[column] += value
		}
		seen := map[string]bool{}
		for _, location := range sample.Location {
			for _, line := range location.Line {
				if name := line.Function.Name; !seen[name] {
					seen[name] = true
					functions[name] += sample.Value[0]
				}
			}
		}
	}
	count := countOf(samples, "")
	assert.Equal(t, []int64{count, count * profiletest.Period, 4_740_000_000}, totals)
	require.Greater(t, len(functions), 60)
	for name, value := range functions {
		assert.Equal(t, countOf(samples, name), value, name)
	}
}

// One sample in detail: the order of inlined functions, mapping, address, labels.
func TestPprofDetails(t *testing.T) {
	trace, span := profiletest.SpanOf(0)
	sample := profiletest.Sample{
		Process: profiletest.Process{
			Executable: "shop",
			Service:    "checkout",
			Container:  "0123456789abcdef",
			PID:        7,
		},
		Thread:  "worker",
		TraceID: trace,
		SpanID:  span,
		Count:   3,
		Stack: []profiletest.Frame{
			{Name: "main", Kind: "native", Module: "/bin/shop"},
			{Kind: "native", Module: "/lib/libz.so", Address: 0x402f40},
			{
				Name: "outer", Kind: "go", File: "outer.go", Line: 10, Module: "/bin/shop",
				Inlined: []profiletest.Frame{{Name: "middle", File: "middle.go", Line: 20}, {Name: "inner", File: "inner.go", Line: 30}},
			},
			{Name: "do_syscall_64", Kind: "kernel"},
		},
	}
	converted, err := collect([]profiletest.Sample{sample, sample}, Filter{}).Pprof()
	require.NoError(t, err)
	require.Len(t, converted.Sample, 1, "equal samples are one")
	got := converted.Sample[0]
	assert.Equal(t, []int64{6, 6 * profiletest.Period}, got.Value)
	assert.Equal(t, map[string][]string{
		"process.executable.name": {"shop"}, "service.name": {"checkout"}, "container.id": {"0123456789abcdef"},
		"thread.name": {"worker"}, "trace_id": {trace.String()}, "span_id": {span.String()},
	}, got.Label)
	assert.Equal(t, map[string][]int64{"process.pid": {7}}, got.NumLabel)

	require.Len(t, got.Location, 4)
	leaf, inlined, unnamed, root := got.Location[0], got.Location[1], got.Location[2], got.Location[3]
	assert.Equal(t, "do_syscall_64", leaf.Line[0].Function.Name)
	assert.Equal(t, "[kernel]", leaf.Mapping.File)
	require.Len(t, inlined.Line, 3)
	for i, want := range []string{"inner inner.go 30", "middle middle.go 20", "outer outer.go 10"} {
		line := inlined.Line[i]
		assert.Equal(t, want, fmt.Sprint(line.Function.Name, " ", line.Function.Filename, " ", line.Line))
	}
	assert.True(t, inlined.Mapping.HasInlineFrames)
	assert.Empty(t, unnamed.Line)
	assert.Equal(t, uint64(0x402f40), unnamed.Address)
	assert.Equal(t, "/lib/libz.so", unnamed.Mapping.File)
	assert.Equal(t, profiletest.BuildID("/lib/libz.so"), unnamed.Mapping.BuildID)
	assert.False(t, unnamed.Mapping.HasFunctions, "so that pprof looks its symbols up")
	assert.Equal(t, "main", root.Line[0].Function.Name)
	assert.True(t, root.Mapping.HasFunctions)
}

var topLine = regexp.MustCompile(`^\s*(\d+)\s+[\d.]+%\s+[\d.]+%\s+(\d+)\s+[\d.]+%\s+(.+?)(?: \(inline\))?$`)

// `go tool pprof -top` shows what the test wrote down.
func TestGoToolPprof(t *testing.T) {
	samples := profiletest.Mixed()
	converted, err := collect(samples, Filter{}).Pprof()
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "profile.pb.gz")
	file, err := os.Create(path)
	require.NoError(t, err)
	require.NoError(t, converted.Write(file))
	require.NoError(t, file.Close())
	command := exec.Command(
		"go",
		"tool",
		"pprof",
		"-top",
		"-nodecount=0",
		"-nodefraction=0",
		"-sample_index=samples",
		"-symbolize=none",
		path,
	)
	output, err := command.CombinedOutput()
	require.NoError(t, err, "%s", output)
	assert.Contains(t, string(output), fmt.Sprintf("of %d total", countOf(samples, "")))
	compared := 0
	for _, line := range strings.Split(string(output), "\n") {
		match := topLine.FindStringSubmatch(line)
		if match == nil || strings.HasSuffix(match[3], "[libpcre2-8.so.0.11.2]") || match[3] == "[libpcre2-8.so.0.11.2]" {
			continue
		}
		cumulative, err := strconv.ParseInt(match[2], 10, 64)
		require.NoError(t, err)
		assert.Equal(t, countOf(samples, match[3]), cumulative, line)
		compared++
	}
	assert.Greater(t, compared, 60)

	for tag, want := range map[string]int64{
		"process.pid=810": 41 + 22 + 9 + 5, "service.name=nginx": 41 + 42 + 2*(22+9+5), "thread.name=^gc$": 11,
	} {
		command := exec.Command("go", "tool", "pprof", "-top", "-tagfocus="+tag, "-sample_index=samples", "-symbolize=none", path)
		output, err := command.CombinedOutput()
		require.NoError(t, err, "%s", output)
		assert.Contains(t, string(output), fmt.Sprintf("accounting for %d, ", want), tag)
	}
}

// Messages add up, whatever their dictionaries' order is; different frequencies give the right time, but no common period.
func TestSum(t *testing.T) {
	samples := profiletest.Mixed()
	whole := collect(samples, Filter{})
	parts := NewProfile()
	for start := 0; start < len(samples); start += 7 {
		parts.Add(profiletest.Build(samples[start:min(start+7, len(samples))]), Filter{})
	}
	assert.Equal(t, whole.Stacks(), parts.Stacks())
	assert.Equal(t, len(whole.order), len(parts.order))
	for _, valueType := range whole.Types() {
		assert.Equal(t, whole.Total(valueType), parts.Total(valueType), valueType)
	}

	slower := profiletest.Build(samples[:1])
	profileOf(slower).SetPeriod(52_631_578) // 19 Hz
	mixed := collect(samples[:1], Filter{})
	mixed.Add(slower, Filter{})
	converted, err := mixed.Pprof()
	require.NoError(t, err)
	assert.Equal(t, samples[0].Count*(profiletest.Period+52_631_578), converted.Sample[0].Value[1])
	assert.Nil(t, converted.PeriodType)
}

func firstOf(profiles pprofile.Profiles) pprofile.Sample { return profileOf(profiles).Samples().At(0) }

func profileOf(profiles pprofile.Profiles) pprofile.Profile {
	return profiles.ResourceProfiles().At(0).ScopeProfiles().At(0).Profiles().At(0)
}

// Processor time that a file tells is not told a second time.
func TestToldTime(t *testing.T) {
	samples := profiletest.Mixed()[:1]
	told := samples[0]
	told.Type, told.Unit, told.Count = "cpu", "nanoseconds", 12345
	summed := collect([]profiletest.Sample{samples[0], told}, Filter{})
	assert.Equal(t, []ValueType{samplesType(), {Name: "cpu", Unit: "nanoseconds"}}, summed.Types())
	converted, err := summed.Pprof()
	require.NoError(t, err)
	assert.Equal(t, []int64{samples[0].Count, 12345}, converted.Sample[0].Value)
}

func TestFilter(t *testing.T) {
	samples := profiletest.Mixed()
	trace, span := profiletest.SpanOf(1)
	of := func(take func(profiletest.Sample) bool) int64 {
		total := int64(0)
		for _, sample := range samples {
			if sample.Type == "" && take(sample) {
				total += sample.Count
			}
		}
		return total
	}
	ofProcess := func(pid int64) int64 { return of(func(s profiletest.Sample) bool { return s.Process.PID == pid }) }
	inTrace := of(func(s profiletest.Sample) bool { return s.TraceID == trace })
	nginx := of(func(sample profiletest.Sample) bool { return sample.Process.Executable == "nginx" })
	for name, test := range map[string]struct {
		filter Filter
		want   int64
	}{
		"all":                {Filter{}, countOf(samples, "")},
		"executable":         {Filter{Processes: []string{"nginx"}}, nginx},
		"pattern":            {Filter{Processes: []string{"ng*"}}, nginx},
		"two":                {Filter{Processes: []string{"nothing", "nginx"}}, nginx},
		"service":            {Filter{Processes: []string{"checkout"}}, ofProcess(4242)},
		"pid":                {Filter{Processes: []string{"810"}}, ofProcess(810)},
		"container":          {Filter{Processes: []string{"9a8b7c6d5e4f"}}, ofProcess(5100)},
		"container, short":   {Filter{Processes: []string{"9a8b7c"}}, 0},
		"span":               {Filter{Span: span.String()}, of(func(s profiletest.Sample) bool { return s.SpanID == span })},
		"trace, upper case":  {Filter{Span: strings.ToUpper(trace.String())}, inTrace},
		"another span":       {Filter{Span: "00000000000000ff"}, 0},
		"type":               {Filter{Types: []string{"samples"}}, countOf(samples, "")},
		"type with unit":     {Filter{Types: []string{"samples/count"}}, countOf(samples, "")},
		"another type":       {Filter{Types: []string{"cpu", "off_cpu"}}, 0},
		"process and span":   {Filter{Processes: []string{"nginx"}, Span: span.String()}, 0},
		"no process by path": {Filter{Processes: []string{"/usr/sbin/nginx"}}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, test.filter.Validate())
			assert.Equal(t, test.want, collect(samples, test.filter).Total(samplesType()))
		})
	}
	assert.Equal(
		t,
		[]ValueType{{Name: "cpu", Unit: "nanoseconds", Derived: true}},
		collect(samples, Filter{Types: []string{"cpu"}}).Types(),
	)
	err := Filter{Processes: []string{"[a"}, Span: "xyz"}.Validate()
	assert.ErrorContains(t, err, "[a")
	assert.ErrorContains(t, err, "xyz")
}

// Each shape of samples that the protocol knows has its value; others are left out, counted.
func TestShapes(t *testing.T) {
	for name, test := range map[string]struct {
		values  []int64
		times   []uint64
		want    int64
		skipped string
	}{
		"one value":                {[]int64{5}, nil, 5, ""},
		"timestamps alone":         {nil, []uint64{1, 2, 3}, 3, ""},
		"a value a timestamp":      {[]int64{5, 6}, []uint64{1, 2}, 11, ""},
		"nothing":                  {nil, nil, 0, ""},
		"two values":               {[]int64{5, 6}, nil, 0, reasonShape},
		"fewer values than times":  {[]int64{5}, []uint64{1, 2}, 0, reasonShape},
		"negative":                 {[]int64{-5}, nil, 0, reasonNegative},
		"more than a number holds": {[]int64{math.MaxInt64, math.MaxInt64}, []uint64{1, 2}, math.MaxInt64, ""},
	} {
		t.Run(name, func(t *testing.T) {
			profiles := profiletest.Build(profiletest.Mixed()[:1])
			sample := profileOf(profiles).Samples().At(0)
			sample.Values().FromRaw(test.values)
			sample.TimestampsUnixNano().FromRaw(test.times)
			summed := NewProfile()
			summed.Add(profiles, Filter{})
			assert.Equal(t, test.want, summed.Total(samplesType()))
			if test.skipped == "" {
				assert.Empty(t, summed.Skipped)
			} else {
				assert.Equal(t, map[string]int64{test.skipped: 1}, summed.Skipped)
			}
		})
	}
}

// An index that leads nowhere costs the samples that need it, and no other.
func TestDangling(t *testing.T) {
	for _, bad := range []int32{-1, 1 << 20, math.MaxInt32, math.MinInt32} {
		for name, test := range map[string]struct {
			spoil  func(pprofile.Profiles)
			reason string
		}{
			"stack":         {func(p pprofile.Profiles) { profileOf(p).Samples().At(0).SetStackIndex(bad) }, reasonStack},
			"link":          {func(p pprofile.Profiles) { profileOf(p).Samples().At(0).SetLinkIndex(bad) }, reasonLink},
			"attribute":     {func(p pprofile.Profiles) { firstOf(p).AttributeIndices().Append(bad) }, reasonAttribute},
			"attribute key": {func(p pprofile.Profiles) { attributeOf(p, 0).SetKeyStrindex(bad) }, reasonAttribute},
			"type":          {func(p pprofile.Profiles) { profileOf(p).SampleType().SetTypeStrindex(bad) }, reasonType},
			"location":      {func(p pprofile.Profiles) { stackOf(p).LocationIndices().SetAt(0, bad) }, reasonStack},
			"mapping":       {func(p pprofile.Profiles) { locationOf(p).SetMappingIndex(bad) }, reasonStack},
			"function":      {func(p pprofile.Profiles) { locationOf(p).Lines().At(0).SetFunctionIndex(bad) }, reasonStack},
			"frame type":    {func(p pprofile.Profiles) { locationOf(p).AttributeIndices().SetAt(0, bad) }, reasonStack},
			"function name": {func(p pprofile.Profiles) { functionOf(p).SetNameStrindex(bad) }, reasonStack},
			"function file": {func(p pprofile.Profiles) { functionOf(p).SetFilenameStrindex(bad) }, reasonStack},
			"mapping file":  {func(p pprofile.Profiles) { mappingOf(p).SetFilenameStrindex(bad) }, reasonStack},
			"build id":      {func(p pprofile.Profiles) { mappingOf(p).AttributeIndices().SetAt(0, bad) }, reasonStack},
		} {
			t.Run(fmt.Sprint(name, " ", bad), func(t *testing.T) {
				other := profiletest.Sample{
					Process: profiletest.Process{Executable: "other"},
					Count:   4,
					Stack:   []profiletest.Frame{{Name: "fine"}},
				}
				profiles := profiletest.Build(append(profiletest.Mixed()[:1], other))
				test.spoil(profiles)
				summed := NewProfile()
				summed.Add(profiles, Filter{})
				assert.Equal(t, map[string]int64{test.reason: 1}, summed.Skipped)
				assert.Equal(t, int64(4), summed.Total(samplesType()))
				_, err := summed.Pprof()
				assert.NoError(t, err)
			})
		}
	}
}

func stackOf(profiles pprofile.Profiles) pprofile.Stack {
	return profiles.Dictionary().StackTable().At(int(profileOf(profiles).Samples().At(0).StackIndex()))
}

func locationOf(profiles pprofile.Profiles) pprofile.Location {
	return profiles.Dictionary().LocationTable().At(int(stackOf(profiles).LocationIndices().At(0)))
}

func functionOf(profiles pprofile.Profiles) pprofile.Function {
	return profiles.Dictionary().FunctionTable().At(int(locationOf(profiles).Lines().At(0).FunctionIndex()))
}

func mappingOf(profiles pprofile.Profiles) pprofile.Mapping {
	return profiles.Dictionary().MappingTable().At(int(locationOf(profiles).MappingIndex()))
}

func attributeOf(profiles pprofile.Profiles, place int) pprofile.KeyValueAndUnit {
	index := profileOf(profiles).Samples().At(0).AttributeIndices().At(place)
	return profiles.Dictionary().AttributeTable().At(int(index))
}

func TestNothing(t *testing.T) {
	_, err := NewProfile().Pprof()
	assert.ErrorContains(t, err, "there are no samples")
	assert.ErrorContains(t, NewProfile().WritePage(&bytes.Buffer{}, "", nil), "there are no samples")
}

// A sample without a stack counts.
func TestNoStack(t *testing.T) {
	profiles := profiletest.Build([]profiletest.Sample{{Process: profiletest.Process{PID: 5}, Count: 2}})
	profileOf(profiles).Samples().At(0).SetStackIndex(0)
	profiles.ResourceProfiles().At(0).Resource().Attributes().PutEmptyMap("odd").PutEmpty("nested").SetInt(1)
	profiles.ResourceProfiles().At(0).Resource().Attributes().PutEmpty("none")
	summed := NewProfile()
	summed.Add(profiles, Filter{})
	converted, err := summed.Pprof()
	require.NoError(t, err)
	assert.Equal(t, int64(2), converted.Sample[0].Value[0])
	assert.Equal(t, map[string][]string{"odd": {`{"nested":1}`}}, converted.Sample[0].Label)
	assert.Equal(t, pcommon.Timestamp(profiletest.Start().UnixNano()), pcommon.Timestamp(converted.TimeNanos))
}
