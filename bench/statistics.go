//go:build linux

package main

import (
	"fmt"
	"math"
	"slices"
)

type numeric interface{ ~int64 | ~float64 }

// median of no values is NaN.
func median(values []float64) float64 { return quantile(values, 0.5) }

// quantile interpolates between the two nearest values.
func quantile[T numeric](values []T, q float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	position := q * float64(len(sorted)-1)
	below := int(position)
	lower := float64(sorted[below])
	if below+1 == len(sorted) {
		return lower
	}
	return lower + (position-float64(below))*(float64(sorted[below+1])-lower)
}

func sum(values []float64) float64 {
	total := 0.0
	for _, value := range values {
		total += value
	}
	return total
}

// spread is a figure of several rounds.
type spread struct {
	Median, Min, Max float64
}

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{math.NaN(), math.NaN(), math.NaN()}
	}
	return spread{median(values), slices.Min(values), slices.Max(values)}
}

func (s spread) format(format string) string {
	return fmt.Sprintf(format+" ("+format+" .. "+format+")", s.Median, s.Min, s.Max)
}

// ratios compares two variants round by round: a round has as many windows of one as of the other, in an order that
// gives both the same mean time, and its ratio is that of their sums.
func ratios(of, to [][]float64) []float64 {
	result := make([]float64, 0, len(of))
	for round := range of {
		result = append(result, sum(of[round])/sum(to[round]))
	}
	return result
}

// mirrored is the order of the windows of one round: there and back again, so that a steady drift cancels out.
func mirrored(variants int) []int {
	order := make([]int, 0, 2*variants)
	for variant := range variants {
		order = append(order, variant)
	}
	for variant := variants - 1; variant >= 0; variant-- {
		order = append(order, variant)
	}
	return order
}

// visibleAfter is how long each event waited until a count that included it was seen: counts[i] was seen at times[i].
// Times are nanoseconds of one clock, and events are in their order.
func visibleAfter(events []int64, times []int64, counts []int) []int64 {
	delays := make([]int64, 0, len(events))
	for i, count := range counts {
		for len(delays) < min(count, len(events)) {
			delays = append(delays, times[i]-events[len(delays)])
		}
	}
	return delays
}
