//go:build linux

package http

import (
	"flag"
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/open-telemetry/opentelemetry-collector-contrib/pkg/golden"
	"github.com/open-telemetry/opentelemetry-collector-contrib/pkg/pdatatest/pmetrictest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// update rewrites the golden files: go test ./internal/http -update
var update = flag.Bool("update", false, "write the golden files anew")

const exampleExpiry = 5 * time.Minute

func exampleAggregation(maxSeries int, delta bool) *aggregation {
	return newAggregation(maxSeries, delta, exampleExpiry)
}

// pointsOf gives the data points of one metric, of all resources.
func pointsOf(metrics pmetric.Metrics, name string) []pmetric.HistogramDataPoint {
	var points []pmetric.HistogramDataPoint
	for _, resource := range metrics.ResourceMetrics().All() {
		for _, scope := range resource.ScopeMetrics().All() {
			for _, metric := range scope.Metrics().All() {
				if metric.Name() == name {
					for _, point := range metric.Histogram().DataPoints().All() {
						points = append(points, point)
					}
				}
			}
		}
	}
	return points
}

func TestGoldenMetrics(t *testing.T) {
	for _, temporality := range []string{"cumulative", "delta"} {
		t.Run(temporality, func(t *testing.T) {
			a, i := exampleAggregation(100, temporality == "delta"), noRandomness(t)
			for n, e := range []*Exchange{
				exampleExchange(t, RoleServer),
				exampleExchange(t, RoleServer, func(e *Exchange) { e.EndNs += 5_000_000_000 }),
				exampleExchange(t, RoleServer, func(e *Exchange) { e.Status, e.ResponseBodyBytes = 503, -1 }),
				exampleExchange(t, RoleClient),
				exampleExchange(t, RoleClient, func(e *Exchange) {
					e.Status, e.ErrorType, e.RequestBodyBytes, e.ResponseBodyBytes = 0, "ECONNRESET", 0, -1
					e.Host = ""
				}),
				exampleExchange(t, RoleServer, func(e *Exchange) { e.MajorVersion, e.MinorVersion, e.Secure = 2, 0, true }),
				exampleCall(t, RoleServer),
				exampleCall(t, RoleServer, func(e *Exchange) { e.GRPCStatus = 13 }),
				exampleCall(t, RoleClient),
				exampleCall(t, RoleClient, func(e *Exchange) { e.GRPCStatus, e.Status = grpcNoStatus, 502 }),
				exampleChat(t, RoleServer),
				exampleChat(t, RoleClient),
			} {
				at := exampleStart.Add(time.Duration(n) * time.Second)
				require.True(t, a.add(e, exampleRouteOf(t, e), i.identify(e), at))
			}
			got := a.flush(exampleStart.Add(10*time.Second), exampleScope)
			expected := filepath.Join("testdata", "metrics-"+temporality+".yaml")
			if *update {
				require.NoError(t, golden.WriteMetrics(t, expected, got, golden.SkipMetricTimestampNormalization()))
			}
			want, err := golden.ReadMetrics(expected)
			require.NoError(t, err)
			require.NoError(t, pmetrictest.CompareMetrics(want, got,
				pmetrictest.IgnoreMetricsOrder(), pmetrictest.IgnoreMetricDataPointsOrder(), // golden sorts what it writes
				pmetrictest.IgnoreResourceMetricsOrder(),
				pmetrictest.IgnoreResourceAttributeValue("host.name"),
				pmetrictest.IgnoreResourceAttributeValue("service.instance.id")))
		})
	}
}

func TestMetricAttributes(t *testing.T) {
	for _, test := range []struct {
		name   string
		e      *Exchange
		metric string
		want   map[string]any
	}{
		{"server", exampleExchange(t, RoleServer), MetricServerRequestDuration, map[string]any{
			attrMethod: "POST", attrScheme: "http", attrStatusCode: int64(201), attrRoute: exampleRoute,
			attrProtocolVersion: "1.1",
		}},
		{"client", exampleExchange(t, RoleClient), MetricClientRequestDuration, map[string]any{
			attrMethod: "POST", attrScheme: "http", attrStatusCode: int64(201),
			attrServerAddress: "shop.example", attrServerPort: int64(8080), attrProtocolVersion: "1.1",
		}},
		{"client without a Host", exampleExchange(t, RoleClient, func(e *Exchange) { e.Host = "" }),
			MetricClientRequestBodySize, map[string]any{
				attrMethod: "POST", attrScheme: "http", attrStatusCode: int64(201),
				attrServerAddress: "192.0.2.1", attrServerPort: int64(8080), attrProtocolVersion: "1.1",
			}},
		{"client refused", exampleExchange(t, RoleClient, func(e *Exchange) { e.Status = 404 }),
			MetricClientResponseBodySize, map[string]any{
				attrMethod: "POST", attrScheme: "http", attrStatusCode: int64(404), attrErrorType: "404",
				attrServerAddress: "shop.example", attrServerPort: int64(8080), attrProtocolVersion: "1.1",
			}},
		{"server broken", exampleExchange(t, RoleServer, func(e *Exchange) { e.Status, e.ErrorType = 0, "ECONNRESET" }),
			MetricServerRequestBodySize, map[string]any{
				attrMethod: "POST", attrScheme: "http", attrErrorType: "ECONNRESET", attrRoute: exampleRoute,
				attrProtocolVersion: "1.1",
			}},
		{"server failed", exampleExchange(t, RoleServer, func(e *Exchange) { e.Status, e.Method = 500, "x" }),
			MetricServerResponseBodySize, map[string]any{
				attrMethod: methodOther, attrScheme: "http", attrErrorType: "500", attrStatusCode: int64(500),
				attrRoute: exampleRoute, attrProtocolVersion: "1.1",
			}},
		{"HTTP/2 with TLS", exampleExchange(t, RoleServer, func(e *Exchange) { e.MajorVersion, e.Secure = 2, true }),
			MetricServerRequestDuration, map[string]any{
				attrMethod: "POST", attrScheme: "https", attrStatusCode: int64(201), attrRoute: exampleRoute,
				attrProtocolVersion: "2",
			}},
		{"gRPC server", exampleCall(t, RoleServer), MetricServerCallDuration, map[string]any{
			attrRPCSystem: "grpc", attrRPCMethod: exampleMethod, attrRPCStatus: "OK", attrProtocolVersion: "2",
		}},
		{"gRPC client", exampleCall(t, RoleClient, func(e *Exchange) { e.GRPCStatus = 5 }),
			MetricClientCallDuration, map[string]any{
				attrRPCSystem: "grpc", attrRPCMethod: exampleMethod, attrRPCStatus: "NOT_FOUND", attrErrorType: "NOT_FOUND",
				attrServerAddress: "shop.example", attrServerPort: int64(8080), attrProtocolVersion: "2",
			}},
		{"gRPC server without a status", exampleCall(t, RoleServer, func(e *Exchange) {
			e.GRPCStatus, e.Target, e.ErrorType = grpcNoStatus, "", "connection_closed"
		}), MetricServerCallDuration, map[string]any{
			attrRPCSystem: "grpc", attrErrorType: "connection_closed", attrProtocolVersion: "2",
		}},
		{"gRPC client of a broken proxy", exampleCall(t, RoleClient, func(e *Exchange) {
			e.GRPCStatus, e.Status = grpcNoStatus, 502
		}), MetricClientCallDuration, map[string]any{
			attrRPCSystem: "grpc", attrRPCMethod: exampleMethod, attrErrorType: "502", attrStatusCode: int64(502),
			attrServerAddress: "shop.example", attrServerPort: int64(8080), attrProtocolVersion: "2",
		}},
		{"gRPC method that is not there", exampleCall(t, RoleServer, func(e *Exchange) { e.GRPCStatus = grpcUnimplemented }),
			MetricServerCallDuration, map[string]any{
				attrRPCSystem: "grpc", attrRPCMethod: methodOther, attrRPCStatus: "UNIMPLEMENTED",
				attrErrorType: "UNIMPLEMENTED", attrProtocolVersion: "2",
			}},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := exampleAggregation(10, false)
			require.True(t, a.add(test.e, exampleRouteOf(t, test.e), identity{}, exampleStart))
			points := pointsOf(a.flush(exampleStart, exampleScope), test.metric)
			require.Len(t, points, 1)
			assert.Equal(t, test.want, points[0].Attributes().AsRaw())
		})
	}
}

// A call is counted once: as a call, not as a request of HTTP, though it is one.
func TestCallsAreNotCountedAsRequests(t *testing.T) {
	a := exampleAggregation(10, false)
	for _, role := range []Role{RoleServer, RoleClient} {
		a.add(exampleCall(t, role), exampleMethod, identity{sampled: true}, exampleStart)
		a.add(exampleExchange(t, role), exampleRoute, identity{}, exampleStart)
	}
	metrics := a.flush(exampleStart, exampleScope)
	for _, instrument := range instruments() {
		if instrument.measure != ofExchange {
			continue
		}
		points := pointsOf(metrics, instrument.name)
		require.Len(t, points, 1, instrument.name)
		assert.EqualValues(t, 1, points[0].Count(), instrument.name)
		exemplars := 0
		if instrument.grpc {
			exemplars = 1
		}
		assert.Equal(t, exemplars, points[0].Exemplars().Len(), instrument.name)
	}
}

// Every number that is no status of gRPC is UNKNOWN, and no series has the attributes of another one.
func TestStatusesOfGRPCAreFew(t *testing.T) {
	a := exampleAggregation(100, false)
	for status := range 1000 {
		a.add(exampleCall(t, RoleServer, func(e *Exchange) { e.GRPCStatus = status - 1 }), exampleMethod, identity{}, exampleStart)
	}
	points := pointsOf(a.flush(exampleStart, exampleScope), MetricServerCallDuration)
	seen := map[any]bool{}
	for _, point := range points {
		status := point.Attributes().AsRaw()[attrRPCStatus]
		assert.False(t, seen[status], status)
		seen[status] = true
	}
	assert.Len(t, seen, 18, "17 and none")
}

func TestHighCardinalityIsNoAttribute(t *testing.T) {
	a := exampleAggregation(1000, false)
	for i := range 100 {
		a.add(exampleExchange(t, RoleServer, func(e *Exchange) {
			e.Target, e.UserAgent = fmt.Sprintf("/orders/%d/items", i), fmt.Sprint(i)
			e.Host, e.Method = fmt.Sprintf("%d.example", i), fmt.Sprintf("M%d", i)
			e.Peer = netip.AddrPortFrom(e.Peer.Addr(), uint16(i+1))
		}), exampleRoute, identity{}, exampleStart)
		a.add(exampleExchange(t, RoleClient, func(e *Exchange) {
			e.Target, e.Local = fmt.Sprintf("/%d", i), netip.AddrPortFrom(e.Local.Addr(), uint16(i+1))
		}), fmt.Sprint(i), identity{}, exampleStart)
	}
	assert.Len(t, a.series, 2)
}

func TestCumulativeAndDelta(t *testing.T) {
	for _, delta := range []bool{false, true} {
		t.Run(fmt.Sprintf("delta=%v", delta), func(t *testing.T) {
			a := exampleAggregation(10, delta)
			e := exampleExchange(t, RoleServer)
			var counts []uint64
			var starts []time.Time
			now := exampleStart
			for _, exchanges := range []int{1, 2, 0, 3} {
				for range exchanges {
					// An exchange is told after the flush that it should have been before.
					a.add(e, exampleRoute, identity{}, now.Add(-time.Second))
				}
				now = now.Add(10 * time.Second)
				points := pointsOf(a.flush(now, exampleScope), MetricServerRequestDuration)
				if len(points) == 0 {
					counts = append(counts, 0)
					continue
				}
				require.Len(t, points, 1)
				counts = append(counts, points[0].Count())
				starts = append(starts, points[0].StartTimestamp().AsTime())
				assert.Equal(t, now, points[0].Timestamp().AsTime())
				assert.Equal(t, durationBounds, points[0].ExplicitBounds().AsRaw())
				assert.InDelta(t, 0.03*float64(points[0].Count()), points[0].Sum(), 1e-9)
			}
			first := exampleStart.Add(-time.Second)
			if delta {
				assert.Equal(t, []uint64{1, 2, 0, 3}, counts)
				assert.Equal(t, []time.Time{first, exampleStart.Add(10 * time.Second), exampleStart.Add(30 * time.Second)},
					starts, "no interval begins in the one before")
			} else {
				assert.Equal(t, []uint64{1, 3, 3, 6}, counts)
				assert.Equal(t, []time.Time{first, first, first, first}, starts)
			}
		})
	}
}

func TestUnknownSizesAreNotCounted(t *testing.T) {
	a := exampleAggregation(10, false)
	a.add(exampleExchange(t, RoleServer, func(e *Exchange) { e.RequestBodyBytes, e.ResponseBodyBytes = -1, -1 }),
		exampleRoute, identity{}, exampleStart)
	metrics := a.flush(exampleStart, exampleScope)
	assert.Empty(t, pointsOf(metrics, MetricServerRequestBodySize))
	assert.Empty(t, pointsOf(metrics, MetricServerResponseBodySize))

	a.add(exampleExchange(t, RoleServer, func(e *Exchange) { e.RequestBodyBytes, e.ResponseBodyBytes = 0, 128 }),
		exampleRoute, identity{}, exampleStart)
	metrics = a.flush(exampleStart, exampleScope)
	points := pointsOf(metrics, MetricServerRequestBodySize)
	require.Len(t, points, 1)
	assert.EqualValues(t, 1, points[0].BucketCounts().At(0), "an empty body")
	points = pointsOf(metrics, MetricServerResponseBodySize)
	require.Len(t, points, 1)
	assert.EqualValues(t, 1, points[0].BucketCounts().At(1))
	assert.Equal(t, sizeBounds, points[0].ExplicitBounds().AsRaw())
}

func TestAnExchangeThatEndsBeforeItStartsIsNotCounted(t *testing.T) {
	a := exampleAggregation(10, false)
	e := exampleExchange(t, RoleServer, func(e *Exchange) { e.EndNs = e.StartNs - 1 })
	assert.False(t, a.add(e, "", identity{}, exampleStart))
	assert.Empty(t, a.series)
	assert.Zero(t, a.flush(exampleStart, exampleScope).DataPointCount())
}

func TestExemplars(t *testing.T) {
	a, i := exampleAggregation(10, false), noRandomness(t)
	add := func(offset uint32, sampled bool, at time.Time) identity {
		e := exampleExchange(t, RoleServer, func(e *Exchange) {
			e.RequestOffset = offset
			e.EndNs += uint64(offset) * 1_000_000
		})
		id := i.identify(e)
		id.sampled = sampled
		a.add(e, exampleRoute, id, at)
		return id
	}
	add(1, true, exampleStart)
	last := add(3, true, exampleStart.Add(3*time.Second))
	add(2, true, exampleStart.Add(2*time.Second)) // out of order
	add(4, false, exampleStart.Add(4*time.Second))

	metrics := a.flush(exampleStart.Add(10*time.Second), exampleScope)
	points := pointsOf(metrics, MetricServerRequestDuration)
	require.Len(t, points, 1)
	require.Equal(t, 1, points[0].Exemplars().Len())
	written := points[0].Exemplars().At(0)
	assert.Equal(t, last.trace, written.TraceID())
	assert.Equal(t, last.span, written.SpanID())
	assert.InDelta(t, 0.033, written.DoubleValue(), 1e-9)
	assert.Equal(t, exampleStart.Add(3*time.Second), written.Timestamp().AsTime())
	for _, name := range []string{MetricServerRequestBodySize, MetricServerResponseBodySize} {
		assert.Zero(t, pointsOf(metrics, name)[0].Exemplars().Len())
	}

	add(5, false, exampleStart.Add(11*time.Second))
	points = pointsOf(a.flush(exampleStart.Add(20*time.Second), exampleScope), MetricServerRequestDuration)
	assert.Zero(t, points[0].Exemplars().Len(), "that of the interval before is gone")
	add(6, true, exampleStart.Add(21*time.Second))
	points = pointsOf(a.flush(exampleStart.Add(30*time.Second), exampleScope), MetricServerRequestDuration)
	assert.Equal(t, 1, points[0].Exemplars().Len())
}

func TestOverflowIsCountedNotDropped(t *testing.T) {
	for _, delta := range []bool{false, true} {
		a := exampleAggregation(10, delta)
		const routes = 50
		for i := range routes {
			a.add(exampleExchange(t, RoleServer), fmt.Sprintf("/%d", i), identity{sampled: true}, exampleStart)
		}
		a.add(exampleExchange(t, RoleClient), "", identity{}, exampleStart)
		a.add(exampleCall(t, RoleClient), "", identity{}, exampleStart)
		assert.EqualValues(t, routes-10+2, a.overflowed)
		assert.Len(t, a.series, 10)

		metrics := a.flush(exampleStart, exampleScope)
		total, overflow := uint64(0), 0
		for _, point := range pointsOf(metrics, MetricServerRequestDuration) {
			total += point.Count()
			if _, ok := point.Attributes().Get(attrOverflow); ok {
				overflow++
				assert.Equal(t, map[string]any{attrOverflow: true}, point.Attributes().AsRaw())
				assert.EqualValues(t, routes-10, point.Count())
				assert.Equal(t, 1, point.Exemplars().Len())
			}
		}
		assert.EqualValues(t, routes, total)
		assert.Equal(t, 1, overflow)
		points := pointsOf(metrics, MetricClientRequestDuration)
		require.Len(t, points, 1, "a client is not counted among the servers")
		assert.Equal(t, map[string]any{attrOverflow: true}, points[0].Attributes().AsRaw())

		points = pointsOf(metrics, MetricClientCallDuration)
		require.Len(t, points, 1, "a call is not counted among the requests")
		assert.Equal(t, map[string]any{attrOverflow: true}, points[0].Attributes().AsRaw())

		points = pointsOf(a.flush(exampleStart, exampleScope), MetricClientRequestDuration)
		if delta {
			assert.Empty(t, points)
		} else {
			assert.Len(t, points, 1)
		}
	}
}

func TestSeriesAreForgotten(t *testing.T) {
	cumulative := exampleAggregation(10, false)
	cumulative.add(exampleExchange(t, RoleServer), "/a", identity{}, exampleStart)
	cumulative.add(exampleExchange(t, RoleServer), "/b", identity{}, exampleStart.Add(time.Second))
	cumulative.flush(exampleStart.Add(exampleExpiry-time.Second), exampleScope)
	assert.Len(t, cumulative.series, 2)
	cumulative.flush(exampleStart.Add(exampleExpiry), exampleScope)
	assert.Len(t, cumulative.series, 1)
	cumulative.flush(exampleStart.Add(exampleExpiry+time.Second), exampleScope)
	assert.Empty(t, cumulative.series)
	assert.Empty(t, cumulative.groups)

	delta := exampleAggregation(10, true)
	delta.add(exampleExchange(t, RoleServer), "/a", identity{}, exampleStart)
	assert.NotZero(t, delta.flush(exampleStart, exampleScope).DataPointCount())
	assert.Empty(t, delta.series)
	assert.Empty(t, delta.groups)
	assert.Zero(t, delta.flush(exampleStart, exampleScope).DataPointCount(), "nothing happened, nothing is said")
}

func TestMetricsAreText(t *testing.T) {
	a := exampleAggregation(10, false)
	for _, role := range []Role{RoleServer, RoleClient} {
		a.add(exampleExchange(t, role, func(e *Exchange) { e.Host, e.ErrorType = "h\xff", "\xff" }),
			"/\xff", identity{}, exampleStart)
	}
	metrics := a.flush(exampleStart, exampleScope)
	for _, name := range []string{MetricServerRequestDuration, MetricClientRequestDuration} {
		for key, value := range pointsOf(metrics, name)[0].Attributes().All() {
			assert.True(t, utf8.ValidString(value.AsString()), key)
		}
	}
}

func TestAddAllocatesNothing(t *testing.T) {
	for name, e := range map[string]*Exchange{
		"server":                exampleExchange(t, RoleServer),
		"server failed":         exampleExchange(t, RoleServer, func(e *Exchange) { e.Status = 503 }),
		"client":                exampleExchange(t, RoleClient),
		"client without a Host": exampleExchange(t, RoleClient, func(e *Exchange) { e.Host = "" }),
		"call served":           exampleCall(t, RoleServer),
		"call that failed":      exampleCall(t, RoleClient, func(e *Exchange) { e.GRPCStatus = 14 }),
		"chat served":           exampleChat(t, RoleServer),
		"chat asked for":        exampleChat(t, RoleClient),
		"client of a proxy":     exampleExchange(t, RoleClient, func(e *Exchange) { e.Target = "http://a.example:81/b" }),
	} {
		a, i := exampleAggregation(10, false), noRandomness(t)
		a.add(e, exampleRoute, i.identify(e), exampleStart)
		assert.Zero(t, testing.AllocsPerRun(100, func() {
			a.add(e, exampleRoute, i.identify(e), exampleStart)
		}), name)
	}
}

func BenchmarkAdd(b *testing.B) {
	for name, role := range map[string]Role{"server": RoleServer, "client": RoleClient} {
		b.Run(name, func(b *testing.B) {
			a := exampleAggregation(1000, false)
			e := exampleExchange(b, role)
			id := exampleIdentifier(sequence()).identify(e)
			b.ReportAllocs()
			for b.Loop() {
				a.add(e, exampleRoute, id, exampleStart)
			}
		})
	}
}

// Series that take turns keep their own counts, whichever was the last one.
func TestRecentSeries(t *testing.T) {
	for _, delta := range []bool{false, true} {
		a, i := exampleAggregation(100, delta), noRandomness(t)
		exchanges := []*Exchange{
			exampleExchange(t, RoleServer), exampleExchange(t, RoleClient), exampleCall(t, RoleServer), exampleCall(t, RoleClient),
			exampleExchange(t, RoleServer, func(e *Exchange) { e.Status = 404 }),
			exampleExchange(t, RoleClient, func(e *Exchange) { e.Host = "other" }),
		}
		for round := range 3 {
			for _, e := range exchanges {
				for range 2 {
					require.True(t, a.add(e, exampleRouteOf(t, e), i.identify(e), exampleStart))
				}
			}
			counts := map[uint64]int{}
			for _, s := range a.series {
				counts[s.duration.Count()]++
			}
			want := uint64(2)
			if !delta {
				want = uint64(2 * (round + 1))
			}
			assert.Equal(t, map[uint64]int{want: len(exchanges)}, counts)
			a.flush(exampleStart.Add(time.Duration(round)*time.Second), exampleScope)
		}
	}
}
