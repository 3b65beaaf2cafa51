// Package signal builds pdata that several probes share.
package signal

import "go.opentelemetry.io/collector/pdata/pmetric"

// Histogram accumulates values in explicit buckets. It is not safe for concurrent use.
type Histogram struct {
	bounds []float64 // upper bounds, ascending, shared and never changed
	counts []uint64  // one more than bounds
	count  uint64
	sum    float64
	min    float64
	max    float64
}

// NewHistogram makes an empty histogram. A value v falls in the first bucket whose upper bound is at least v
// (bounds are inclusive, as OTLP's explicit_bounds).
func NewHistogram(bounds []float64) *Histogram {
	return &Histogram{bounds: bounds, counts: make([]uint64, len(bounds)+1)}
}

// Observe adds one value.
func (h *Histogram) Observe(value float64) {
	bucket := 0
	for bucket < len(h.bounds) && !(h.bounds[bucket] >= value) { // most values are in the first buckets
		bucket++
	}
	h.counts[bucket]++
	if h.count == 0 || value < h.min {
		h.min = value
	}
	if h.count == 0 || value > h.max {
		h.max = value
	}
	h.count++
	h.sum += value
}

// Count is how many values were added since the last Reset.
func (h *Histogram) Count() uint64 { return h.count }

// Reset forgets all values.
func (h *Histogram) Reset() {
	clear(h.counts)
	h.count, h.sum, h.min, h.max = 0, 0, 0, 0
}

// WriteTo fills a data point with everything but its times and attributes.
func (h *Histogram) WriteTo(point pmetric.HistogramDataPoint) {
	point.ExplicitBounds().FromRaw(h.bounds)
	point.BucketCounts().FromRaw(h.counts)
	point.SetCount(h.count)
	point.SetSum(h.sum)
	if h.count > 0 {
		point.SetMin(h.min)
		point.SetMax(h.max)
	}
}
