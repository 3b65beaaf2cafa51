package profile

import (
	"fmt"
	"testing"
	"time"
)

// benchmarkStacks are stacks by number, of locations that a symbolizer has made before.
type benchmarkStacks [][]Location

func (s benchmarkStacks) AppendLocations(locations []Location, key stackKey) []Location {
	return append(locations, s[key.user]...)
}

// stackKey is as large as the key of a probe: a process, and hashes of the addresses of both sides.
type stackKey struct{ process, start, user, kernel uint64 }

// newBenchmarkStacks makes stacks of so many frames; functions are how many different places there are.
func newBenchmarkStacks(count, frames, functions int) benchmarkStacks {
	mapping := exampleApp()
	mapping.Limit = 1 << 40
	places := make([]Location, functions)
	for i := range places {
		places[i] = Location{
			Mapping: mapping, Address: mapping.Start + uint64(i)*16, FrameType: "go",
			Lines: []Line{{
				Function: fmt.Sprintf("example.com/module/package.(*Type).Method%d", i),
				File:     fmt.Sprintf("/src/module/package/file%d.go", i/20), StartLine: i, Line: i + 3,
			}},
		}
	}
	stacks := make(benchmarkStacks, count)
	for i := range stacks {
		for j := range frames {
			stacks[i] = append(stacks[i], places[(i*7+j*(1+i%13))%functions])
		}
	}
	return stacks
}

// BenchmarkBuild makes messages of 10,000 samples of 50 frames, of which so many stacks are different.
func BenchmarkBuild(b *testing.B) {
	const samples, frames = 10_000, 50
	for _, distinct := range []int{100, 1000, 10_000} {
		b.Run(fmt.Sprintf("stacks=%d", distinct), func(b *testing.B) {
			builder := New(newBenchmarkStacks(distinct, frames, 5000), exampleScope)
			identity := exampleIdentity("app")
			description := Description{
				Type: CPU, Period: int64(time.Second) / 99, Start: exampleStart(), Duration: 5 * time.Second,
			}
			b.ReportAllocs()
			b.ResetTimer()
			for b.Loop() {
				p, err := builder.Profile(builder.Resource(identity), description)
				if err != nil {
					b.Fatal(err)
				}
				for i := range samples {
					err := builder.Add(p, Sample[stackKey]{
						Stack:      stackKey{process: 1, start: 2, user: uint64(i % distinct), kernel: 3},
						Attributes: Attributes{ThreadID: uint32(1 + i/distinct%16), ThreadName: "worker"},
						Value:      1,
					})
					if err != nil {
						b.Fatal(err)
					}
				}
				if got := builder.Build().SampleCount(); got < distinct {
					b.Fatal(got)
				}
			}
			perSample := float64(b.N) * samples
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/perSample, "ns/sample")
		})
	}
}

// BenchmarkAdd adds a sample that the message has.
func BenchmarkAdd(b *testing.B) {
	builder := New(newBenchmarkStacks(1, 50, 50), exampleScope)
	p, err := builder.Profile(builder.Resource(exampleIdentity("app")), exampleCPU())
	if err != nil {
		b.Fatal(err)
	}
	sample := Sample[stackKey]{Attributes: Attributes{ThreadID: 7, ThreadName: "worker"}, Link: exampleLink(), Value: 1}
	b.ReportAllocs()
	for b.Loop() {
		if err := builder.Add(p, sample); err != nil {
			b.Fatal(err)
		}
	}
}
