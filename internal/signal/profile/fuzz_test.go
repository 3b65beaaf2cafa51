package profile

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pprofile"

	"github.com/ebpfreceiver/ebpfreceiver/internal/signal/profile/profilecheck"
)

// choices makes input of bytes: few different values of each kind, so that much is equal and much differs in one thing.
type choices struct{ bytes []byte }

func (c *choices) next() byte {
	if len(c.bytes) == 0 {
		return 0
	}
	first := c.bytes[0]
	c.bytes = c.bytes[1:]
	return first
}

func (c *choices) below(limit int) int { return int(c.next()) % limit }

func (c *choices) text() string {
	return []string{"", "", "a", "b", "\xff", "\xfe", "samples", "native", "thread.id", "a\x00b", "ü"}[c.below(11)]
}

func (c *choices) number() int { return []int{0, 1, 2, -1, 1 << 40}[c.below(5)] }

func (c *choices) mappings() []*Mapping {
	mappings := []*Mapping{nil}
	for range c.below(4) {
		mappings = append(mappings, &Mapping{
			Start: uint64(c.below(3)), Limit: uint64(c.below(64)), Offset: uint64(c.below(2)),
			File: c.text(), BuildIDGNU: c.text(), BuildIDGo: c.text(), BuildIDHtlhash: c.text(),
		})
	}
	return mappings
}

func (c *choices) location(mappings []*Mapping) Location {
	location := Location{
		Mapping:   mappings[c.below(len(mappings))],
		Address:   uint64(c.below(64)),
		FrameType: []string{"", "native", "kernel"}[c.below(3)],
	}
	for range c.below(4) {
		location.Lines = append(location.Lines, Line{
			Function: c.text(), SystemName: c.text(), File: c.text(), StartLine: c.number(), Line: c.number(), Column: c.number(),
		})
	}
	return location
}

func (c *choices) attributes() Attributes {
	attributes := Attributes{
		ProcessID: uint32(c.below(2)), ThreadID: uint32(c.below(3)), ThreadName: c.text(), Incomplete: c.text(),
		OffCPUReason: []OffCPUReason{"", Wait, Preempted}[c.below(3)],
	}
	if c.below(2) == 1 {
		attributes.CPU = OnCPU(uint32(c.below(2)))
	}
	return attributes
}

func (c *choices) description() Description {
	return Description{
		Type:     Type(c.below(8)),
		Shape:    Shape(c.below(4)),
		Period:   int64(c.number()),
		Start:    time.Unix(int64(c.below(3)), 0),
		Duration: time.Duration(c.number()),
	}
}

func (c *choices) sample(of Description) Sample[byte] {
	sample := Sample[byte]{
		Stack:      c.next() % 16,
		Attributes: c.attributes(),
		Value:      []int64{1, 1, 1, 2, 3, 1 << 62, 0, -1}[c.below(8)],
		Time:       of.Start.Add(min(of.Duration-1, time.Duration(c.number()))),
	}
	if c.below(4) == 0 {
		sample.Link = Link{TraceID: pcommon.TraceID{byte(c.below(3))}, SpanID: pcommon.SpanID{byte(c.below(3))}}
	}
	return sample
}

// anyStacks are stacks by number, in a slice that is used again for each.
type anyStacks struct {
	t      *testing.T
	stacks [][]Location
	asked  map[byte]bool
	lines  []Line
}

func (s *anyStacks) AppendLocations(locations []Location, key byte) []Location {
	require.False(s.t, s.asked[key], "asked twice")
	s.asked[key] = true
	clear(s.lines[:cap(s.lines)])
	s.lines = s.lines[:0]
	for _, location := range s.stacks[int(key)%len(s.stacks)] {
		start := len(s.lines)
		s.lines = append(s.lines, location.Lines...)
		location.Lines = s.lines[start:]
		locations = append(locations, location)
	}
	return locations
}

// FuzzBuild adds any samples, and asserts that the messages follow all rules and that no value is lost or made up.
func FuzzBuild(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("\x02\x00\x3f\x00\x02\x03\x00\x00\x02\x05\x01\x02\x01\x00\x01\x02\x03\x00\x01\x02\x01\x00\x00\x01"))
	f.Add([]byte("any bytes make some stacks, and samples of them: 0123456789 abcdefghijklmnopqrstuvwxyz"))
	f.Fuzz(func(t *testing.T, bytes []byte) {
		if len(bytes) > 4096 {
			t.Skip("more of the same")
		}
		c := &choices{bytes: bytes}
		mappings := c.mappings()
		stacks := &anyStacks{t: t, stacks: make([][]Location, 1+c.below(8))}
		for i := range stacks.stacks {
			for range c.below(6) {
				stacks.stacks[i] = append(stacks.stacks[i], c.location(mappings))
			}
		}
		b := New(stacks, nil)
		for range 1 + c.below(3) { // messages
			stacks.asked = make(map[byte]bool)
			var profiles []Profile
			var descriptions []Description
			for range 1 + c.below(5) {
				var identity Identity
				if name := c.text(); name != "" && name[0] < 0x80 {
					identity = exampleIdentity(name)
				}
				description := c.description()
				if c.below(2) == 1 {
					description = exampleCPU()
				}
				p, err := b.Profile(b.Resource(identity), description)
				if err == nil {
					profiles, descriptions = append(profiles, p), append(descriptions, description)
				}
			}
			type addition struct {
				profile Profile
				sample  Sample[byte]
			}
			var before []addition
			var added uint64 // may wrap, on both sides
			for range c.below(64) {
				if len(profiles) == 0 {
					break
				}
				var next addition
				if choice := c.below(2 * (1 + len(before))); choice < len(before) {
					next = before[choice] // to be merged
				} else {
					which := c.below(len(profiles))
					next = addition{profiles[which], c.sample(descriptions[which])}
				}
				before = append(before, next)
				samples := b.Len()
				if b.Add(next.profile, next.sample) == nil {
					added += uint64(next.sample.Value)
				} else {
					require.Equal(t, samples, b.Len())
				}
			}
			samples := b.Len()
			got := b.Build()
			require.Equal(t, samples, got.SampleCount())
			require.Equal(t, added, total(got))
			if violations := profilecheck.Check(got); len(violations) > 0 {
				t.Fatal(violations)
			}
			requireGood(t, got)
		}
	})
}

// total is the sum of all values; a timestamp without one is 1.
func total(profiles pprofile.Profiles) (sum uint64) {
	for _, resource := range profiles.ResourceProfiles().All() {
		for _, scope := range resource.ScopeProfiles().All() {
			for _, p := range scope.Profiles().All() {
				for _, sample := range p.Samples().All() {
					for _, value := range sample.Values().All() {
						sum += uint64(value)
					}
					if sample.Values().Len() == 0 {
						sum += uint64(sample.TimestampsUnixNano().Len())
					}
				}
			}
		}
	}
	return sum
}
