//go:build linux

package tcp

import (
	"slices"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/ebpfreceiver/ebpfreceiver/internal/signal"
)

// instrument is one metric: what it is, and which data points a series has for it.
type instrument struct {
	name, unit, description string
	kind                    pmetric.MetricType
	write                   func(points *pointWriter, s *series)
}

// instruments are all metrics of the probe, in the order in which they are written.
func instruments() []instrument {
	return []instrument{
		{
			MetricConnectionDuration, "s",
			"How long connections were established, counted when they end.",
			pmetric.MetricTypeHistogram,
			func(points *pointWriter, s *series) { points.histogram(s.connectionDuration) },
		},
		{
			MetricHandshakeDuration, "s",
			"Time from a client's SYN to the established connection.",
			pmetric.MetricTypeHistogram,
			func(points *pointWriter, s *series) { points.histogram(s.handshakeDuration) },
		},
		{
			MetricRTT, "s",
			"Smoothed round trip time, at the end of each connection and at each snapshot in which it moved data.",
			pmetric.MetricTypeHistogram,
			func(points *pointWriter, s *series) { points.histogram(s.rtt) },
		},
		{
			MetricIO, "By",
			"Payload bytes, retransmissions not counted.",
			pmetric.MetricTypeSum,
			func(points *pointWriter, s *series) {
				if s.connections {
					points.count(s.sentBytes, attrIODirection, "transmit")
					points.count(s.receivedBytes, attrIODirection, "receive")
				}
			},
		},
		{
			MetricSegments, "{segment}",
			"TCP segments, pure acknowledgements and retransmissions included.",
			pmetric.MetricTypeSum,
			func(points *pointWriter, s *series) {
				if s.connections {
					points.count(s.sentSegments, attrIODirection, "transmit")
					points.count(s.receivedSegments, attrIODirection, "receive")
				}
			},
		},
		{
			MetricRetransmits, "{segment}",
			"Retransmitted segments: of data, of a client's SYN, of a listener's SYN-ACK.",
			pmetric.MetricTypeSum,
			func(points *pointWriter, s *series) {
				if s.connections {
					points.count(s.dataRetransmits, attrRetransmitType, "data")
				}
				points.countAny(s.synRetransmits, attrRetransmitType, "syn")
				points.countAny(s.synackRetransmits, attrRetransmitType, "syn_ack")
			},
		},
		{
			MetricResets, "{reset}",
			"Resets sent and received.",
			pmetric.MetricTypeSum,
			func(points *pointWriter, s *series) {
				points.countAny(s.resetsSent, attrIODirection, "transmit")
				points.countAny(s.resetsReceived, attrIODirection, "receive")
			},
		},
		{
			MetricConnectionsOpened, "{connection}",
			"Connections that were established, counted at their first snapshot or their end.",
			pmetric.MetricTypeSum,
			func(points *pointWriter, s *series) {
				if s.connections {
					points.count(s.opened, "", "")
				}
			},
		},
		{
			MetricConnectionsClosed, "{connection}",
			"Established connections that ended; error.type where an error ended them.",
			pmetric.MetricTypeSum,
			func(points *pointWriter, s *series) { points.counts(s.closed) },
		},
		{
			MetricConnectionsFailed, "{connection}",
			"Attempts that ended before the connection was established, by error.type.",
			pmetric.MetricTypeSum,
			func(points *pointWriter, s *series) { points.counts(s.failed) },
		},
		{
			MetricConnectionsOpen, "{connection}",
			"Connections that stood at the last snapshot.",
			pmetric.MetricTypeGauge,
			func(points *pointWriter, s *series) {
				if s.connections {
					points.gauge(s.open)
				}
			},
		},
		{
			MetricListenerBacklog, "{connection}",
			"Established connections that wait to be accepted, at the last snapshot.",
			pmetric.MetricTypeGauge,
			func(points *pointWriter, s *series) {
				if s.listener {
					points.gauge(s.backlog)
				}
			},
		},
		{
			MetricListenerBacklogLimit, "{connection}",
			"How many connections may wait to be accepted, at the last snapshot.",
			pmetric.MetricTypeGauge,
			func(points *pointWriter, s *series) {
				if s.listener {
					points.gauge(s.backlogLimit)
				}
			},
		},
		{
			MetricListenerDrops, "{connection}",
			"Connection requests that the kernel dropped at the listener, mostly for a full backlog.",
			pmetric.MetricTypeSum,
			func(points *pointWriter, s *series) {
				if s.listener {
					points.count(s.drops, "", "")
				}
			},
		},
	}
}

// pointWriter appends the data points of one metric of one resource. The metric is made with its first point.
type pointWriter struct {
	instrument *instrument
	scope      func() pmetric.ScopeMetrics
	delta      bool
	gauges     bool // something is known of what is open
	now        time.Time
	series     *series
	metric     pmetric.Metric
	made       bool
}

func (a *aggregation) writeGroup(metrics pmetric.Metrics, g *group, now time.Time, describeScope func(pcommon.InstrumentationScope)) {
	var scope pmetric.ScopeMetrics
	made := false
	makeScope := func() pmetric.ScopeMetrics {
		if !made {
			made = true
			resource := metrics.ResourceMetrics().AppendEmpty()
			if g.workload != nil {
				g.workload.PutResource(resource.Resource().Attributes())
			}
			scope = resource.ScopeMetrics().AppendEmpty()
			describeScope(scope.Scope())
		}
		return scope
	}
	for i := range a.instruments {
		points := pointWriter{
			instrument: &a.instruments[i],
			scope:      makeScope,
			delta:      a.delta,
			gauges:     a.snapshots > 0,
			now:        now,
		}
		for _, s := range g.series {
			points.series = s
			points.instrument.write(&points, s)
		}
	}
}

func (w *pointWriter) make() pmetric.Metric {
	if w.made {
		return w.metric
	}
	w.made = true
	w.metric = w.scope().Metrics().AppendEmpty()
	w.metric.SetName(w.instrument.name)
	w.metric.SetUnit(w.instrument.unit)
	w.metric.SetDescription(w.instrument.description)
	temporality := pmetric.AggregationTemporalityCumulative
	if w.delta {
		temporality = pmetric.AggregationTemporalityDelta
	}
	switch w.instrument.kind {
	case pmetric.MetricTypeHistogram:
		w.metric.SetEmptyHistogram().SetAggregationTemporality(temporality)
	case pmetric.MetricTypeSum:
		sum := w.metric.SetEmptySum()
		sum.SetIsMonotonic(true)
		sum.SetAggregationTemporality(temporality)
	default:
		w.metric.SetEmptyGauge()
	}
	return w.metric
}

// histogram writes nothing where no value was ever observed.
func (w *pointWriter) histogram(histogram *signal.Histogram) {
	if histogram.Count() == 0 {
		return
	}
	point := w.make().Histogram().DataPoints().AppendEmpty()
	point.SetStartTimestamp(pcommon.NewTimestampFromTime(w.series.start))
	point.SetTimestamp(pcommon.NewTimestampFromTime(w.now))
	w.series.attributes.CopyTo(point.Attributes())
	histogram.WriteTo(point)
}

// count writes a counter with one more attribute, if any; a zero only where it is a cumulative total.
func (w *pointWriter) count(value uint64, attribute, attributeValue string) {
	if value == 0 && w.delta {
		return
	}
	point := w.make().Sum().DataPoints().AppendEmpty()
	point.SetStartTimestamp(pcommon.NewTimestampFromTime(w.series.start))
	point.SetTimestamp(pcommon.NewTimestampFromTime(w.now))
	point.SetIntValue(int64(value))
	w.series.attributes.CopyTo(point.Attributes())
	if attribute != "" {
		point.Attributes().PutStr(attribute, attributeValue)
	}
}

// countAny writes a counter that most series never have.
func (w *pointWriter) countAny(value uint64, attribute, attributeValue string) {
	if value > 0 {
		w.count(value, attribute, attributeValue)
	}
}

// counts writes counters by error.type; the one without an error has no such attribute.
func (w *pointWriter) counts(byError map[string]uint64) {
	errors := make([]string, 0, len(byError))
	for errorType := range byError {
		errors = append(errors, errorType)
	}
	slices.Sort(errors)
	for _, errorType := range errors {
		attribute := attrErrorType
		if errorType == "" {
			attribute = ""
		}
		w.count(byError[errorType], attribute, errorType)
	}
}

func (w *pointWriter) gauge(value uint64) {
	if !w.gauges {
		return
	}
	point := w.make().Gauge().DataPoints().AppendEmpty()
	point.SetTimestamp(pcommon.NewTimestampFromTime(w.now))
	point.SetIntValue(int64(value))
	w.series.attributes.CopyTo(point.Attributes())
}
