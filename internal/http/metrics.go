//go:build linux

package http

import (
	"maps"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/ebpfreceiver/ebpfreceiver/internal/signal"
	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

var (
	// Seconds, as the semantic conventions advise.
	durationBounds = []float64{.005, .01, .025, .05, .075, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10}
	// Bytes. The first bucket is of the empty bodies; the conventions advise nothing.
	sizeBounds = []float64{0, 128, 512, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20}
)

// seriesKey is what distinguishes the series of all workloads: the attributes that the semantic conventions have for
// metrics of HTTP and RPC. It is made without allocation. error.type follows from role, the two statuses and errorType.
type seriesKey struct {
	resource   string
	role       Role
	grpc       bool
	method     string // of HTTP, a known one
	scheme     string // of HTTP
	status     int    // of HTTP; where it is gRPC, only what is strange there
	grpcStatus int
	errorType  string // Exchange.ErrorType
	version    string
	route      string   // of a server, a client has none; the method of gRPC on both ends
	server     endpoint // of a client: what a server is called is the caller's choice, and opt-in in the conventions
}

// series is the metrics of one attribute set.
type series struct {
	key        seriesKey // where it is of generative AI, role alone
	measure    measure
	genAI      genAIKey // the zero value where measure is ofExchange
	attributes pcommon.Map
	start      time.Time
	lastUsed   time.Time

	duration                  *signal.Histogram // or what else is measured
	requestSize, responseSize *signal.Histogram // nil where it is gRPC, or not measured of the exchange
	exemplar                  exemplar          // of duration
}

// exemplar is the last sampled exchange of an interval. Without a span there is none.
type exemplar struct {
	value float64 // mostly seconds
	at    time.Time
	trace pcommon.TraceID
	span  pcommon.SpanID
}

// group is the series of one resource.
type group struct {
	workload *workload.Workload // nil for the overflow
	series   []*series
}

// aggregation turns exchanges into metrics. It is pure: time is an argument, and nothing of the kernel is in it.
// It is not safe for concurrent use.
type aggregation struct {
	maxSeries  int
	delta      bool
	expiry     time.Duration
	groups     map[string]*group
	series     map[seriesKey]*series
	recent     [4]*series           // by role and protocol: to compare a key takes less than to hash it
	genAI      map[genAIKey]*series // others under the same bound
	overflow   group                // one series of each role of each protocol: they are in metrics of their own
	overflowed uint64               // exchanges, and measures of genAI, that found no place of their own
	flushed    time.Time            // what is new starts no earlier: intervals of one attribute set do not overlap
}

func newAggregation(maxSeries int, delta bool, expiry time.Duration) *aggregation {
	return &aggregation{
		maxSeries: maxSeries,
		delta:     delta,
		expiry:    expiry,
		groups:    map[string]*group{},
		series:    map[seriesKey]*series{},
		genAI:     map[genAIKey]*series{},
	}
}

// add accounts for one exchange that ended at a time. False: it ends before it starts, and is not counted.
func (a *aggregation) add(e *Exchange, route string, id identity, at time.Time) bool {
	if e.EndNs < e.StartNs {
		return false
	}
	s := a.find(e, route, at)
	if at.After(s.lastUsed) {
		s.lastUsed = at
	}
	seconds := e.duration().Seconds()
	s.duration.Observe(seconds)
	s.keep(seconds, id, at)
	if e.RequestBodyBytes >= 0 && !e.GRPC {
		s.requestSize.Observe(float64(e.RequestBodyBytes))
	}
	if e.ResponseBodyBytes >= 0 && !e.GRPC {
		s.responseSize.Observe(float64(e.ResponseBodyBytes))
	}
	if e.GenAI != nil {
		a.addGenAI(e, id, at)
	}
	return true
}

func (a *aggregation) find(e *Exchange, route string, at time.Time) *series {
	key := seriesKey{
		resource:  e.Owner.ResourceKey(),
		role:      e.Role,
		grpc:      e.GRPC,
		errorType: e.ErrorType,
		version:   e.protocolVersion(),
	}
	if e.GRPC {
		key.status, key.grpcStatus = e.strangeStatus(), knownGRPCStatus(e.GRPCStatus)
	} else {
		key.method, key.scheme, key.status = knownMethod(e.Method), e.facts().scheme, e.Status
	}
	if e.Role == RoleClient {
		key.server = e.facts().server
	}
	if e.Role == RoleServer || e.GRPC {
		key.route = route
	}
	recent := &a.recent[key.kind()]
	if s := *recent; s != nil && s.key == key {
		return s
	}
	if s := a.series[key]; s != nil {
		*recent = s
		return s
	}
	if a.full() {
		a.overflowed++
		return a.overflowOf(seriesKey{role: e.Role, grpc: e.GRPC}, ofExchange, at)
	}
	// The series outlives the head of the request, which these may be slices of.
	key.errorType = strings.Clone(key.errorType)
	key.version = strings.Clone(key.version)
	key.route = strings.Clone(key.route)
	key.server.host = strings.Clone(key.server.host)

	s := a.newSeries(key, ofExchange, at)
	key.describe(s.attributes)
	a.series[key] = s
	a.group(e.Owner, s)
	return s
}

// kind tells apart whose metrics a series has.
func (key *seriesKey) kind() int {
	kind := 0
	if key.role == RoleClient {
		kind = 1
	}
	if key.grpc {
		kind += 2
	}
	return kind
}

// full says whether there is no room for another series.
func (a *aggregation) full() bool { return len(a.series)+len(a.genAI) >= a.maxSeries }

// group puts a new series to the others of its resource.
func (a *aggregation) group(owner *workload.Workload, s *series) {
	resource := owner.ResourceKey()
	g := a.groups[resource]
	if g == nil {
		g = &group{workload: owner}
		a.groups[resource] = g
	}
	g.series = append(g.series, s)
}

func (a *aggregation) overflowOf(key seriesKey, m measure, at time.Time) *series {
	for _, s := range a.overflow.series {
		if s.key == key && s.measure == m {
			return s
		}
	}
	s := a.newSeries(key, m, at)
	s.attributes.PutBool(attrOverflow, true)
	a.overflow.series = append(a.overflow.series, s)
	return s
}

func (a *aggregation) newSeries(key seriesKey, m measure, at time.Time) *series {
	if at.Before(a.flushed) {
		at = a.flushed
	}
	s := &series{
		key:        key,
		measure:    m,
		attributes: pcommon.NewMap(),
		start:      at,
		lastUsed:   at,
		duration:   signal.NewHistogram(m.bounds(key.role)),
	}
	if !key.grpc && m == ofExchange {
		s.requestSize, s.responseSize = signal.NewHistogram(sizeBounds), signal.NewHistogram(sizeBounds)
	}
	return s
}

func (key *seriesKey) describe(attributes pcommon.Map) {
	if key.grpc {
		attributes.PutStr(attrRPCSystem, systemGRPC)
		putText(attributes, attrRPCMethod, key.route)
		putText(attributes, attrRPCStatus, grpcStatusName(key.grpcStatus))
	} else {
		attributes.PutStr(attrMethod, key.method)
		attributes.PutStr(attrScheme, key.scheme)
		putText(attributes, attrRoute, key.route)
	}
	if key.status != 0 {
		attributes.PutInt(attrStatusCode, int64(key.status))
	}
	outcome := Exchange{
		Role: key.role, Status: key.status, GRPC: key.grpc, GRPCStatus: key.grpcStatus, ErrorType: key.errorType,
	}
	putText(attributes, attrErrorType, outcome.errorType())
	putText(attributes, attrProtocolVersion, key.version)
	putServer(attributes, key.server)
}

func putServer(attributes pcommon.Map, server endpoint) {
	if server != (endpoint{}) {
		putText(attributes, attrServerAddress, server.text(addressTexts{}))
	}
	if server.port != 0 {
		attributes.PutInt(attrServerPort, int64(server.port))
	}
}

func putText(attributes pcommon.Map, key, value string) {
	if value != "" {
		attributes.PutStr(key, validText(value))
	}
}

// flush writes the metrics of the interval that ends now, and forgets what cumulative metrics need no more.
// The result has no data points where there was nothing to tell.
func (a *aggregation) flush(now time.Time, scope func(pcommon.InstrumentationScope)) pmetric.Metrics {
	metrics := pmetric.NewMetrics()
	for _, g := range a.sortedGroups() {
		a.writeGroup(metrics, g, now, scope)
	}
	if len(a.overflow.series) > 0 {
		a.writeGroup(metrics, &a.overflow, now, scope)
	}
	a.forget(now)
	a.flushed = now
	return metrics
}

// forget frees what the next interval does not need: of delta metrics everything, of cumulative ones the series that
// nothing has touched for the expiry.
func (a *aggregation) forget(now time.Time) {
	clear(a.recent[:])
	if a.delta {
		clear(a.series)
		clear(a.genAI)
		clear(a.groups)
		a.overflow.series = nil
		return
	}
	for resource, g := range a.groups {
		g.series = slices.DeleteFunc(g.series, func(s *series) bool {
			s.exemplar = exemplar{} // it was of the interval
			if now.Sub(s.lastUsed) < a.expiry {
				return false
			}
			if s.measure == ofExchange {
				delete(a.series, s.key)
			} else {
				delete(a.genAI, s.genAI)
			}
			return true
		})
		if len(g.series) == 0 {
			delete(a.groups, resource)
		}
	}
	for _, s := range a.overflow.series {
		s.exemplar = exemplar{}
	}
}

// sortedGroups gives an order that does not change from flush to flush.
func (a *aggregation) sortedGroups() []*group {
	return slices.SortedFunc(maps.Values(a.groups), func(x, y *group) int { return workload.Compare(x.workload, y.workload) })
}

// instrument is one metric, a histogram, which the series of one role of one protocol have.
type instrument struct {
	role                    Role
	grpc                    bool
	name, unit, description string
	histogram               func(s *series) *signal.Histogram
	exemplars               bool
	measure                 measure
}

// instruments are all metrics of the probe, in the order in which they are written, with the semantic conventions'
// descriptions.
func instruments() [13]instrument {
	duration := func(s *series) *signal.Histogram { return s.duration }
	requestSize := func(s *series) *signal.Histogram { return s.requestSize }
	responseSize := func(s *series) *signal.Histogram { return s.responseSize }
	const call = "Measures the duration of an "
	const none = ofExchange // nothing of generative AI
	return [...]instrument{
		{RoleServer, false, MetricServerRequestDuration, "s", "Duration of HTTP server requests.", duration, true, none},
		{RoleServer, false, MetricServerRequestBodySize, "By", "Size of HTTP server request bodies.", requestSize, false, none},
		{RoleServer, false, MetricServerResponseBodySize, "By", "Size of HTTP server response bodies.", responseSize, false, none},
		{RoleClient, false, MetricClientRequestDuration, "s", "Duration of HTTP client requests.", duration, true, none},
		{RoleClient, false, MetricClientRequestBodySize, "By", "Size of HTTP client request bodies.", requestSize, false, none},
		{RoleClient, false, MetricClientResponseBodySize, "By", "Size of HTTP client response bodies.", responseSize, false, none},
		{RoleServer, true, MetricServerCallDuration, "s", call + "incoming Remote Procedure Call (RPC).", duration, true, none},
		{RoleClient, true, MetricClientCallDuration, "s", call + "outgoing Remote Procedure Call (RPC).", duration, true, none},
		{RoleServer, false, MetricGenAIServerDuration, "s",
			"Generative AI server request duration such as time-to-last byte or last output token.", duration, true, genAIDuration},
		{RoleServer, false, MetricGenAIServerFirstToken, "s",
			"Time to generate first token for successful responses.", duration, true, genAIFirstChunk},
		{RoleClient, false, MetricGenAIClientDuration, "s", "GenAI operation duration.", duration, true, genAIDuration},
		{RoleClient, false, MetricGenAIClientFirstChunk, "s", "Time to receive the first chunk, measured from when the client " +
			"issues the generation request to when the first chunk is received in the response stream.",
			duration, true, genAIFirstChunk},
		{RoleClient, false, MetricGenAIClientTokens, "{token}", "Number of input and output tokens used.",
			duration, true, genAIInputTokens},
	}
}

// writeGroup appends the metrics of one resource. Resource and metrics are made with their first point.
func (a *aggregation) writeGroup(
	metrics pmetric.Metrics, g *group, now time.Time, describeScope func(pcommon.InstrumentationScope),
) {
	var scope pmetric.ScopeMetrics
	madeScope := false
	for _, instrument := range instruments() {
		var points pmetric.HistogramDataPointSlice
		madePoints := false
		for _, s := range g.series {
			if s.key.role != instrument.role || s.key.grpc != instrument.grpc || s.measure.metric() != instrument.measure {
				continue
			}
			histogram := instrument.histogram(s)
			if histogram.Count() == 0 {
				continue
			}
			if !madeScope {
				madeScope = true
				resource := metrics.ResourceMetrics().AppendEmpty()
				if g.workload != nil {
					g.workload.PutResource(resource.Resource().Attributes())
				}
				scope = resource.ScopeMetrics().AppendEmpty()
				describeScope(scope.Scope())
			}
			if !madePoints {
				madePoints = true
				points = instrument.make(scope, a.delta)
			}
			point := points.AppendEmpty()
			point.SetStartTimestamp(pcommon.NewTimestampFromTime(s.start))
			point.SetTimestamp(pcommon.NewTimestampFromTime(now))
			s.attributes.CopyTo(point.Attributes())
			histogram.WriteTo(point)
			if instrument.exemplars {
				s.exemplar.writeTo(point)
			}
		}
	}
}

func (i *instrument) make(scope pmetric.ScopeMetrics, delta bool) pmetric.HistogramDataPointSlice {
	metric := scope.Metrics().AppendEmpty()
	metric.SetName(i.name)
	metric.SetUnit(i.unit)
	metric.SetDescription(i.description)
	histogram := metric.SetEmptyHistogram()
	histogram.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	if delta {
		histogram.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	}
	return histogram.DataPoints()
}

// keep takes a value as the exemplar if it is of a sampled exchange, and none is newer.
func (s *series) keep(value float64, id identity, at time.Time) {
	if id.sampled && !at.Before(s.exemplar.at) {
		s.exemplar = exemplar{value: value, at: at, trace: id.trace, span: id.span}
	}
}

func (x *exemplar) writeTo(point pmetric.HistogramDataPoint) {
	if x.at.IsZero() {
		return
	}
	written := point.Exemplars().AppendEmpty()
	written.SetDoubleValue(x.value)
	written.SetTimestamp(pcommon.NewTimestampFromTime(x.at))
	written.SetTraceID(x.trace)
	written.SetSpanID(x.span)
}
