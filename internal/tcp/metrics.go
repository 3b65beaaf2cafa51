//go:build linux

package tcp

import (
	"iter"
	"maps"
	"net/netip"
	"slices"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/ebpfreceiver/ebpfreceiver/internal/signal"
	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

// Bucket bounds in seconds. Round trips on loopback take some ten microseconds, connections may stand for hours.
var (
	latencyBounds  = []float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	durationBounds = []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 21600, 86400}
)

// attributeSet is what distinguishes the series of one workload. An ephemeral port is never part of it.
type attributeSet struct {
	role        bpfFlowRole
	servicePort uint16
	peer        netip.Addr // the server's address for a client, the client's for a server; none for a listener
}

type seriesKey struct {
	resource string
	set      attributeSet
}

// series is the metrics of one attribute set.
type series struct {
	set        attributeSet
	attributes pcommon.Map
	start      time.Time // of the counters
	lastUsed   time.Time

	connectionDuration, handshakeDuration, rtt                *signal.Histogram
	sentBytes, receivedBytes                                  uint64
	sentSegments, receivedSegments                            uint64
	dataRetransmits, synRetransmits, synackRetransmits        uint64
	resetsSent, resetsReceived                                uint64
	opened                                                    uint64
	closed, failed                                            map[string]uint64 // by error.type; "" is none
	open, openCounting                                        uint64            // at the last snapshot, at the one under way
	backlog, backlogCounting, backlogLimit, backlogLimitCount uint64
	drops                                                     uint64
	connections, listener                                     bool // which kinds of metric it has
}

// group is the series of one resource.
type group struct {
	workload *workload.Workload // nil for the overflow
	series   []*series
}

// aggregation turns flows into metrics. It is pure: time is an argument, and nothing of the kernel is in it.
// It is not safe for concurrent use.
type aggregation struct {
	instruments []instrument
	maxSeries   int
	delta       bool
	expiry      time.Duration
	groups      map[string]*group
	series      map[seriesKey]*series
	overflow    *series
	overflowed  uint64 // reports that found no place of their own
	snapshots   uint64 // how many have ended: before the first, nothing is known of what is open
}

func newAggregation(maxSeries int, delta bool, expiry time.Duration) *aggregation {
	return &aggregation{
		instruments: instruments(),
		maxSeries:   maxSeries,
		delta:       delta,
		expiry:      expiry,
		groups:      map[string]*group{},
		series:      map[seriesKey]*series{},
	}
}

// add accounts for one report.
func (a *aggregation) add(f *flow, owner *workload.Workload, now time.Time) {
	s := a.find(f, owner, now)
	s.lastUsed = now

	switch f.kind() {
	case bpfFlowKindFLOW_LISTENER, bpfFlowKindFLOW_LISTENER_END:
		s.listener = true
		s.synackRetransmits += uint64(f.Delta.SynackRetransmits)
		s.drops += uint64(f.Delta.Drops)
		if f.kind() == bpfFlowKindFLOW_LISTENER {
			s.backlogCounting += uint64(f.Backlog)
			s.backlogLimitCount += uint64(f.BacklogLimit)
		}
		return
	case bpfFlowKindFLOW_RESET_SENT:
		s.connections = true
		s.resetsSent++
		return
	}

	s.connections = true
	s.sentBytes += f.Delta.SentBytes
	s.receivedBytes += f.Delta.ReceivedBytes
	s.sentSegments += uint64(f.Delta.SentSegments)
	s.receivedSegments += uint64(f.Delta.ReceivedSegments)
	s.resetsReceived += uint64(f.ResetsReceived) // a connection does not outlive a reset: only its end has any

	if f.failed() {
		// Nothing but its SYN was ever sent.
		if f.role() == bpfFlowRoleROLE_CLIENT {
			s.synRetransmits += uint64(f.Delta.Retransmits)
		}
		count(&s.failed, f.errorType())
		return
	}
	s.dataRetransmits += uint64(f.Delta.Retransmits)

	if f.first() {
		s.opened++
		if f.role() == bpfFlowRoleROLE_CLIENT {
			s.synRetransmits += uint64(f.HandshakeRetransmits)
			if latency, ok := f.handshakeDuration(); ok {
				s.handshakeDuration.Observe(latency.Seconds())
			}
		}
	}
	// An idle connection's round trip time is old news.
	moved := f.Delta.SentBytes > 0 || f.Delta.ReceivedBytes > 0
	if f.SrttUs > 0 && (moved || f.kind() == bpfFlowKindFLOW_END) {
		s.rtt.Observe(float64(f.SrttUs) / 1e6)
	}

	if f.kind() == bpfFlowKindFLOW_SNAPSHOT {
		s.openCounting++
		return
	}
	s.resetsSent += uint64(f.ResetsSent)
	count(&s.closed, f.errorType())
	if duration, ok := f.duration(); ok {
		s.connectionDuration.Observe(duration.Seconds())
	}
}

// handshakeDuration is the time from the client's SYN to the connection: of a client alone, and only when both were seen.
func (f *flow) handshakeDuration() (time.Duration, bool) {
	if f.role() != bpfFlowRoleROLE_CLIENT || f.EstablishedNs == 0 || f.has(bpfFlowFlagsFLAG_SEEDED) ||
		f.StartedNs == 0 || f.EstablishedNs < f.StartedNs {
		return 0, false
	}
	return time.Duration(f.EstablishedNs - f.StartedNs), true
}

// duration is how long the connection has been established, where its beginning was seen.
func (f *flow) duration() (time.Duration, bool) {
	if f.EstablishedNs == 0 || f.TimeNs < f.EstablishedNs {
		return 0, false
	}
	return time.Duration(f.TimeNs - f.EstablishedNs), true
}

// beginSnapshot starts to count anew what is open; endSnapshot makes the count the current one.
func (a *aggregation) beginSnapshot() {
	for s := range a.all() {
		s.openCounting, s.backlogCounting, s.backlogLimitCount = 0, 0, 0
	}
}

func (a *aggregation) endSnapshot() {
	a.snapshots++
	for s := range a.all() {
		s.open, s.backlog, s.backlogLimit = s.openCounting, s.backlogCounting, s.backlogLimitCount
	}
}

func (a *aggregation) all() iter.Seq[*series] {
	return func(yield func(*series) bool) {
		for _, s := range a.series {
			if !yield(s) {
				return
			}
		}
		if a.overflow != nil {
			yield(a.overflow)
		}
	}
}

func (a *aggregation) find(f *flow, owner *workload.Workload, now time.Time) *series {
	key := seriesKey{
		resource: owner.ResourceKey(),
		set:      attributeSet{role: f.role(), servicePort: f.servicePort()},
	}
	if f.role() != bpfFlowRoleROLE_LISTENER {
		key.set.peer = f.peer()
	}
	if s := a.series[key]; s != nil {
		return s
	}
	if len(a.series) >= a.maxSeries {
		a.overflowed++
		if a.overflow == nil {
			a.overflow = newSeries(attributeSet{}, now)
			a.overflow.attributes.PutBool(attrOverflow, true)
		}
		return a.overflow
	}
	s := newSeries(key.set, now)
	key.set.describe(s.attributes)
	a.series[key] = s
	g := a.groups[key.resource]
	if g == nil {
		g = &group{workload: owner}
		a.groups[key.resource] = g
	}
	g.series = append(g.series, s)
	return s
}

func newSeries(set attributeSet, now time.Time) *series {
	return &series{
		set:                set,
		attributes:         pcommon.NewMap(),
		start:              now,
		connectionDuration: signal.NewHistogram(durationBounds),
		handshakeDuration:  signal.NewHistogram(latencyBounds),
		rtt:                signal.NewHistogram(latencyBounds),
	}
}

func (set attributeSet) describe(attributes pcommon.Map) {
	attributes.PutStr(attrRole, roleName(set.role))
	attributes.PutInt(attrServerPort, int64(set.servicePort))
	if !set.peer.IsValid() {
		return
	}
	attributes.PutStr(attrNetworkType, networkType(set.peer))
	if set.role == bpfFlowRoleROLE_CLIENT {
		attributes.PutStr(attrServerAddress, set.peer.String())
	} else {
		attributes.PutStr(attrClientAddress, set.peer.String())
	}
}

func count(counts *map[string]uint64, key string) {
	if *counts == nil {
		*counts = make(map[string]uint64, 1)
	}
	(*counts)[key]++
}

// flush writes the metrics of the interval that ends now, and forgets what cumulative metrics need no more.
// The result has no data points where there was nothing to tell.
func (a *aggregation) flush(now time.Time, scope func(pcommon.InstrumentationScope)) pmetric.Metrics {
	metrics := pmetric.NewMetrics()
	for _, g := range a.sortedGroups() {
		a.writeGroup(metrics, g, now, scope)
	}
	if a.overflow != nil {
		a.writeGroup(metrics, &group{series: []*series{a.overflow}}, now, scope)
	}
	a.forget(now)
	return metrics
}

// forget frees what the next interval does not need: for delta metrics all but the gauges of what is still open, for
// cumulative ones the series that nothing has touched for the expiry.
func (a *aggregation) forget(now time.Time) {
	for key, s := range a.series {
		if a.delta {
			s.reset(now)
		}
		idle := now.Sub(s.lastUsed)
		if s.open == 0 && s.backlogLimit == 0 && (a.delta || idle >= a.expiry) {
			delete(a.series, key)
			g := a.groups[key.resource]
			g.series = slices.DeleteFunc(g.series, func(other *series) bool { return other == s })
			if len(g.series) == 0 {
				delete(a.groups, key.resource)
			}
		}
	}
	if a.overflow != nil && a.delta {
		a.overflow.reset(now)
	}
}

// reset starts a new interval of delta metrics. Gauges stay until the next snapshot.
func (s *series) reset(now time.Time) {
	s.start = now
	s.connectionDuration.Reset()
	s.handshakeDuration.Reset()
	s.rtt.Reset()
	s.sentBytes, s.receivedBytes = 0, 0
	s.sentSegments, s.receivedSegments = 0, 0
	s.dataRetransmits, s.synRetransmits, s.synackRetransmits = 0, 0, 0
	s.resetsSent, s.resetsReceived = 0, 0
	s.opened, s.drops = 0, 0
	s.closed, s.failed = nil, nil
}

// sortedGroups gives an order that does not change from flush to flush.
func (a *aggregation) sortedGroups() []*group {
	return slices.SortedFunc(maps.Values(a.groups), func(x, y *group) int { return workload.Compare(x.workload, y.workload) })
}
