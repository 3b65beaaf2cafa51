//go:build linux

package main

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestQuantile(t *testing.T) {
	for name, test := range map[string]struct {
		values   []float64
		q        float64
		expected float64
	}{
		"one":             {[]float64{7}, 0.99, 7},
		"odd median":      {[]float64{9, 1, 5}, 0.5, 5},
		"even median":     {[]float64{4, 1, 3, 2}, 0.5, 2.5},
		"smallest":        {[]float64{3, 1, 2}, 0, 1},
		"largest":         {[]float64{3, 1, 2}, 1, 3},
		"between the two": {[]float64{10, 20}, 0.25, 12.5},
	} {
		t.Run(name, func(t *testing.T) {
			assert.InDelta(t, test.expected, quantile(test.values, test.q), 1e-9)
		})
	}
	assert.True(t, math.IsNaN(median(nil)))
}

func TestQuantileLeavesItsArgumentAlone(t *testing.T) {
	values := []int64{3, 1, 2}
	assert.InDelta(t, 2.0, quantile(values, 0.5), 1e-9)
	assert.Equal(t, []int64{3, 1, 2}, values)
}

func TestSpread(t *testing.T) {
	assert.Equal(t, spread{Median: 2, Min: 1, Max: 4}, spreadOf([]float64{4, 1, 2}))
	assert.Equal(t, "0.96 (0.95 .. 0.97)", spread{0.96, 0.95, 0.97}.format("%.2f"))
	assert.True(t, math.IsNaN(spreadOf(nil).Median))
}

func TestRatiosAreOfOneRound(t *testing.T) {
	without := [][]float64{{100, 100}, {50, 50}}
	with := [][]float64{{95, 97}, {49, 50}}
	assert.InDeltaSlice(t, []float64{0.96, 0.99}, ratios(with, without), 1e-9)
}

func TestMirroredCancelsDrift(t *testing.T) {
	assert.Equal(t, []int{0, 1, 1, 0}, mirrored(2))
	order := mirrored(3)
	positions := make([]int, 3)
	for position, variant := range order {
		positions[variant] += position
	}
	assert.Equal(t, []int{5, 5, 5}, positions)
}

func TestVisibleAfter(t *testing.T) {
	events := []int64{10, 20, 30}
	assert.Equal(t, []int64{15, 5, 20}, visibleAfter(events, []int64{5, 25, 50, 60}, []int{0, 2, 3, 3}))
	assert.Equal(t, []int64{5}, visibleAfter(events, []int64{15}, []int{1}), "two were never seen")
	assert.Len(t, visibleAfter(events, []int64{100}, []int{9}), 3, "more were counted than there are")
}

func TestParseBenchmark(t *testing.T) {
	name, measured, ok := parseBenchmark("BenchmarkSaturated/ring_buffer-2 \t 7654321\t 150.5 ns/op\t 55.5 %lost\t 6644518 events/s\n")
	assert.True(t, ok)
	assert.Equal(t, "BenchmarkSaturated/ring_buffer", name)
	assert.Equal(t, map[string]float64{"ns/op": 150.5, "%lost": 55.5, "events/s": 6644518}, measured)
	for _, line := range []string{"", "ok  \tpackage\t1.2s", "PASS", "BenchmarkBroken-2 1 x ns/op"} {
		_, _, ok := parseBenchmark(line)
		assert.False(t, ok, line)
	}
}
