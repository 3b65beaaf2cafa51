//go:build linux

package e2e

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// exports reads the files that a Collector writes, each further than before.
type exports struct {
	directory  string
	mutex      sync.Mutex
	offsets    map[string]int64
	allFlows   map[string][]flow
	allPoints  map[string][]point
	allSpans   []span
	allSamples []stackSample
}

func newExports(directory string) *exports {
	return &exports{
		directory: directory,
		offsets:   map[string]int64{},
		allFlows:  map[string][]flow{},
		allPoints: map[string][]point{},
	}
}

func (e *exports) path(signal, receiver string) string {
	return filepath.Join(e.directory, signal+"_"+fileName(receiver)+".json")
}

// fields are attributes by their names.
type fields map[string]any

func (f fields) text(key string) string {
	value, _ := f[key].(string)
	return value
}

func (f fields) number(key string) int {
	value, _ := f[key].(int64)
	return int(value)
}

func (f fields) seconds(key string) float64 {
	value, _ := f[key].(float64)
	return value
}

func (f fields) is(key string) bool {
	value, _ := f[key].(bool)
	return value
}

func (f fields) has(key string) bool {
	_, found := f[key]
	return found
}

// flow is one flow record.
type flow struct {
	fields
	resource fields
	event    string
	at       time.Time
}

func (f flow) role() string   { return f.text("network.flow.role") }
func (f flow) report() string { return f.text("network.flow.report") }

// point is one data point of a sum or gauge, or the count of a histogram's.
type point struct {
	fields
	resource fields
	metric   string
	at       time.Time
	value    int
}

// span is one span of the receiver "ebpf".
type span struct {
	fields
	resource          fields
	name              string
	kind              ptrace.SpanKind
	trace, id, parent string
	start, end        time.Time
}

// spans are those so far that match.
func (e *exports) spans(t *testing.T, match ...func(span) bool) []span {
	t.Helper()
	e.mutex.Lock()
	defer e.mutex.Unlock()
	var decoder ptrace.JSONUnmarshaler
	for _, line := range e.newLines(t, e.path("traces", "ebpf")) {
		traces, err := decoder.UnmarshalTraces(line)
		require.NoError(t, err)
		for _, resource := range traces.ResourceSpans().All() {
			for _, scope := range resource.ScopeSpans().All() {
				for _, made := range scope.Spans().All() {
					e.allSpans = append(e.allSpans, span{
						fields:   made.Attributes().AsRaw(),
						resource: resource.Resource().Attributes().AsRaw(),
						name:     made.Name(),
						kind:     made.Kind(),
						trace:    made.TraceID().String(),
						id:       made.SpanID().String(),
						parent:   made.ParentSpanID().String(),
						start:    made.StartTimestamp().AsTime(),
						end:      made.EndTimestamp().AsTime(),
					})
				}
			}
		}
	}
	return selectAll(e.allSpans, match)
}

// flows are the records so far of connections that match.
func (e *exports) flows(t *testing.T, match ...func(flow) bool) []flow {
	return e.flowsOf(t, "ebpf", match...)
}

func (e *exports) flowsOf(t *testing.T, receiver string, match ...func(flow) bool) []flow {
	t.Helper()
	e.mutex.Lock()
	defer e.mutex.Unlock()
	var decoder plog.JSONUnmarshaler
	for _, line := range e.newLines(t, e.path("logs", receiver)) {
		logs, err := decoder.UnmarshalLogs(line)
		require.NoError(t, err)
		for _, resource := range logs.ResourceLogs().All() {
			for _, scope := range resource.ScopeLogs().All() {
				for _, record := range scope.LogRecords().All() {
					e.allFlows[receiver] = append(e.allFlows[receiver], flow{
						fields:   record.Attributes().AsRaw(),
						resource: resource.Resource().Attributes().AsRaw(),
						event:    record.EventName(),
						at:       record.Timestamp().AsTime(),
					})
				}
			}
		}
	}
	return selectAll(e.allFlows[receiver], match)
}

// points are the data points so far that match.
func (e *exports) points(t *testing.T, match ...func(point) bool) []point {
	return e.pointsOf(t, "ebpf", match...)
}

func (e *exports) pointsOf(t *testing.T, receiver string, match ...func(point) bool) []point {
	t.Helper()
	e.mutex.Lock()
	defer e.mutex.Unlock()
	var decoder pmetric.JSONUnmarshaler
	for _, line := range e.newLines(t, e.path("metrics", receiver)) {
		metrics, err := decoder.UnmarshalMetrics(line)
		require.NoError(t, err)
		for _, resource := range metrics.ResourceMetrics().All() {
			for _, scope := range resource.ScopeMetrics().All() {
				for _, metric := range scope.Metrics().All() {
					for _, p := range pointsOfMetric(metric) {
						p.resource = resource.Resource().Attributes().AsRaw()
						p.metric = metric.Name()
						e.allPoints[receiver] = append(e.allPoints[receiver], p)
					}
				}
			}
		}
	}
	return selectAll(e.allPoints[receiver], match)
}

func pointsOfMetric(metric pmetric.Metric) []point {
	var points []point
	numbers := func(data pmetric.NumberDataPointSlice) {
		for _, p := range data.All() {
			points = append(points, point{fields: p.Attributes().AsRaw(), at: p.Timestamp().AsTime(), value: int(p.IntValue())})
		}
	}
	switch metric.Type() {
	case pmetric.MetricTypeSum:
		numbers(metric.Sum().DataPoints())
	case pmetric.MetricTypeGauge:
		numbers(metric.Gauge().DataPoints())
	case pmetric.MetricTypeHistogram:
		for _, p := range metric.Histogram().DataPoints().All() {
			points = append(points, point{fields: p.Attributes().AsRaw(), at: p.Timestamp().AsTime(), value: int(p.Count())})
		}
	}
	return points
}

// newLines are the whole lines that were added to a file since the last call.
func (e *exports) newLines(t *testing.T, path string) [][]byte {
	t.Helper()
	file, err := os.Open(path)
	if os.IsNotExist(err) {
		return nil
	}
	require.NoError(t, err)
	defer file.Close()
	_, err = file.Seek(e.offsets[path], io.SeekStart)
	require.NoError(t, err)
	content, err := io.ReadAll(file)
	require.NoError(t, err)
	whole := bytes.LastIndexByte(content, '\n') + 1
	e.offsets[path] += int64(whole)
	return slices.Collect(bytes.Lines(content[:whole]))
}

func selectAll[Item any](all []Item, match []func(Item) bool) []Item {
	var selected []Item
	for _, item := range all {
		if !slices.ContainsFunc(match, func(matches func(Item) bool) bool { return !matches(item) }) {
			selected = append(selected, item)
		}
	}
	return selected
}

// waitFlows waits until at least count records match.
func (e *exports) waitFlows(t *testing.T, count int, match ...func(flow) bool) []flow {
	t.Helper()
	var found []flow
	require.Eventually(t, func() bool {
		found = e.flows(t, match...)
		return len(found) >= count
	}, patience, tick, "want %d flow records", count)
	return found
}

// only is the one record that matches.
func (e *exports) only(t *testing.T, match ...func(flow) bool) flow {
	t.Helper()
	found := e.flows(t, match...)
	require.Len(t, found, 1)
	return found[0]
}

// Matchers of flow records.
func serverPort(port int) func(flow) bool {
	return func(f flow) bool { return f.number("server.port") == port }
}

// connection matches one connection: of several at a time, the ports of its two ends together are its own.
func connection(client, server int) func(flow) bool {
	return func(f flow) bool { return f.number("client.port") == client && f.number("server.port") == server }
}

func role(name string) func(flow) bool {
	return func(f flow) bool { return f.role() == name }
}

func ends(f flow) bool { return f.report() == "end" }

func snapshots(f flow) bool { return f.report() == "snapshot" }

// onPort matches points of a service.
func onPort(port int) func(point) bool {
	return func(p point) bool { return p.number("server.port") == port }
}

func named(metric string) func(point) bool {
	return func(p point) bool { return p.metric == metric }
}

// cumulative adds up the last point of every series that matches.
func cumulative(points []point) int {
	type seriesKey struct{ resource, attributes string }
	latest := map[seriesKey]point{}
	for _, p := range points {
		key := seriesKey{canonical(p.resource), p.metric + canonical(p.fields)}
		if before, found := latest[key]; !found || !p.at.Before(before.at) {
			latest[key] = p
		}
	}
	total := 0
	for _, p := range latest {
		total += p.value
	}
	return total
}

// services are the names of the services that points belong to.
func services(points []point) map[string]bool {
	names := map[string]bool{}
	for _, p := range points {
		names[p.resource.text("service.name")] = true
	}
	return names
}

// assertTotals compares the metrics of a service with what its clients sent and received over their connections.
func assertTotals(t *testing.T, e *exports, port, connections, sent, received int) {
	t.Helper()
	total := func(metric, role string, more ...func(point) bool) int {
		return cumulative(e.points(t, append(more, onPort(port), named("system.network.tcp."+metric), func(p point) bool {
			return p.text("network.flow.role") == role
		})...))
	}
	towards := func(direction string) func(point) bool {
		return func(p point) bool { return p.text("network.io.direction") == direction }
	}
	assert.Equal(t, sent, total("io", "client", towards("transmit")), "sent by clients")
	assert.Equal(t, received, total("io", "client", towards("receive")), "received by clients")
	assert.Equal(t, received, total("io", "server", towards("transmit")), "sent by servers")
	assert.Equal(t, sent, total("io", "server", towards("receive")), "received by servers")
	for _, role := range []string{"client", "server"} {
		assert.Equal(t, connections, total("connections.opened", role), "opened, "+role)
		assert.Equal(t, connections, total("connections.closed", role), "closed, "+role)
		assert.Equal(t, connections, total("connection.duration", role), "durations, "+role)
		assert.Zero(t, total("connections.failed", role), "failed, "+role)
		assert.Zero(t, total("connections.open", role), "still open, "+role)
	}
	assert.Equal(t, connections, total("handshake.duration", "client"), "handshakes")
}
