//go:build linux

package tcp

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/open-telemetry/opentelemetry-collector-contrib/pkg/golden"
	"github.com/open-telemetry/opentelemetry-collector-contrib/pkg/pdatatest/pmetrictest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"golang.org/x/sys/unix"

	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

var testStart = time.Unix(1_700_000_000, 0)

func testScope(scope pcommon.InstrumentationScope) {
	scope.SetName("test")
	scope.SetVersion("1")
}

// connection makes the flow of an ordinary client connection: 2 s long, 3 ms of handshake, 100 bytes out, 200 in.
func connection(changes ...func(*flow)) *flow {
	f := &flow{
		Kind: uint8(bpfFlowKindFLOW_END), Role: uint8(bpfFlowRoleROLE_CLIENT), State: 9, Family: unix.AF_INET,
		StartedNs: 1_000_000_000, EstablishedNs: 1_003_000_000, TimeNs: 3_003_000_000,
		LocalPort: 40000, PeerPort: 443, SrttUs: 700, Cookie: 1, LocalSequence: 1, RemoteSequence: 2,
		Total: bpfCounters{SentBytes: 100, ReceivedBytes: 200, SentSegments: 5, ReceivedSegments: 4},
		Delta: bpfCounters{SentBytes: 100, ReceivedBytes: 200, SentSegments: 5, ReceivedSegments: 4},
	}
	copy(f.LocalAddress[:], []byte{192, 0, 2, 1})
	copy(f.PeerAddress[:], []byte{192, 0, 2, 2})
	for _, change := range changes {
		change(f)
	}
	return f
}

func as(kind bpfFlowKind) func(*flow) { return func(f *flow) { f.Kind = uint8(kind) } }

func asRole(role bpfFlowRole) func(*flow) { return func(f *flow) { f.Role = uint8(role) } }

func known(f *flow) { f.Flags |= uint32(bpfFlowFlagsFLAG_OPEN_REPORTED) }

func carried(sent, received, sentDelta, receivedDelta uint64) func(*flow) {
	return func(f *flow) {
		f.Total.SentBytes, f.Total.ReceivedBytes = sent, received
		f.Delta.SentBytes, f.Delta.ReceivedBytes = sentDelta, receivedDelta
	}
}

// sums gives the total of every sum's points by name, and "name/attribute value" for each attribute that the
// attribute set does not have.
func sums(metrics pmetric.Metrics) map[string]int64 {
	totals := map[string]int64{}
	eachMetric(metrics, func(metric pmetric.Metric) {
		if metric.Type() != pmetric.MetricTypeSum {
			return
		}
		for _, point := range metric.Sum().DataPoints().All() {
			totals[metric.Name()] += point.IntValue()
			for _, name := range []string{attrIODirection, attrRetransmitType, attrErrorType} {
				if value, ok := point.Attributes().Get(name); ok {
					totals[metric.Name()+"/"+value.Str()] += point.IntValue()
				}
			}
		}
	})
	return totals
}

func gauges(metrics pmetric.Metrics) map[string]int64 {
	values := map[string]int64{}
	eachMetric(metrics, func(metric pmetric.Metric) {
		if metric.Type() != pmetric.MetricTypeGauge {
			return
		}
		for _, point := range metric.Gauge().DataPoints().All() {
			values[metric.Name()] += point.IntValue()
		}
	})
	return values
}

func eachMetric(metrics pmetric.Metrics, visit func(pmetric.Metric)) {
	for _, resource := range metrics.ResourceMetrics().All() {
		for _, scope := range resource.ScopeMetrics().All() {
			for _, metric := range scope.Metrics().All() {
				visit(metric)
			}
		}
	}
}

func newTestAggregation(t *testing.T, maxSeries int, delta bool) (*aggregation, *workload.Workload) {
	t.Helper()
	return newAggregation(maxSeries, delta, seriesExpiry), testWorkload(t, "curl")
}

// testWorkload is a process that has gone, of which only its name is known.
func testWorkload(t *testing.T, name string) *workload.Workload {
	t.Helper()
	table, err := workload.NewTable(workload.Config{}, nil, nil)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, table.Close()) })
	return table.Lookup(workload.Key{PID: 1 << 30, StartBootNs: 1}, workload.Hint{Comm: name})
}

func TestGoldenMetrics(t *testing.T) {
	for _, temporality := range []string{"cumulative", "delta"} {
		t.Run(temporality, func(t *testing.T) {
			a, owner := newTestAggregation(t, 100, temporality == "delta")
			a.beginSnapshot()
			a.add(connection(as(bpfFlowKindFLOW_SNAPSHOT), func(f *flow) { f.State = 1 }), owner, testStart)
			a.add(&flow{
				Kind: uint8(bpfFlowKindFLOW_LISTENER), Role: uint8(bpfFlowRoleROLE_LISTENER), LocalPort: 8080,
				Backlog: 3, BacklogLimit: 128, Delta: bpfCounters{Drops: 2, SynackRetransmits: 1},
			}, owner, testStart)
			a.endSnapshot()
			a.add(connection(func(f *flow) { f.HandshakeRetransmits = 1; f.Delta.Retransmits = 2 }), owner, testStart)
			a.add(connection(asRole(bpfFlowRoleROLE_SERVER), func(f *flow) {
				f.LocalPort, f.PeerPort = 8080, 40000
				f.Error, f.ResetsReceived = int32(unix.ECONNRESET), 1
			}), owner, testStart)
			a.add(connection(func(f *flow) {
				f.EstablishedNs, f.State, f.Error, f.Delta = 0, tcpSynSent, int32(unix.ETIMEDOUT), bpfCounters{Retransmits: 6}
			}), owner, testStart)

			got := a.flush(testStart.Add(10*time.Second), testScope)
			expected := filepath.Join("testdata", "metrics-"+temporality+".yaml")
			if *update {
				require.NoError(t, golden.WriteMetrics(t, expected, got, golden.SkipMetricTimestampNormalization()))
			}
			want, err := golden.ReadMetrics(expected)
			require.NoError(t, err)
			require.NoError(t, pmetrictest.CompareMetrics(want, got,
				pmetrictest.IgnoreMetricsOrder(), pmetrictest.IgnoreMetricDataPointsOrder(), // golden sorts what it writes
				pmetrictest.IgnoreResourceAttributeValue("host.name"),
				pmetrictest.IgnoreResourceAttributeValue("service.instance.id")))
		})
	}
}

func TestCountersAcrossSnapshotsAndClose(t *testing.T) {
	for _, delta := range []bool{true, false} {
		t.Run(fmt.Sprintf("delta=%v", delta), func(t *testing.T) {
			a, owner := newTestAggregation(t, 100, delta)
			var flushed []int64
			now := testStart
			step := func(f *flow) {
				now = now.Add(time.Second)
				a.add(f, owner, now)
				flushed = append(flushed, sums(a.flush(now, testScope))[MetricIO+"/transmit"])
			}
			step(connection(as(bpfFlowKindFLOW_SNAPSHOT), carried(100, 0, 100, 0)))
			step(connection(as(bpfFlowKindFLOW_SNAPSHOT), known, carried(100, 0, 0, 0)))
			step(connection(as(bpfFlowKindFLOW_SNAPSHOT), known, carried(350, 0, 250, 0)))
			step(connection(known, carried(360, 0, 10, 0)))
			if delta {
				assert.Equal(t, []int64{100, 0, 250, 10}, flushed)
			} else {
				assert.Equal(t, []int64{100, 100, 350, 360}, flushed)
			}
		})
	}
}

func TestAConnectionOpensOnce(t *testing.T) {
	a, owner := newTestAggregation(t, 100, false)
	a.add(connection(as(bpfFlowKindFLOW_SNAPSHOT)), owner, testStart)
	a.add(connection(as(bpfFlowKindFLOW_SNAPSHOT), known), owner, testStart)
	a.add(connection(known), owner, testStart)
	got := sums(a.flush(testStart, testScope))
	assert.EqualValues(t, 1, got[MetricConnectionsOpened])
	assert.EqualValues(t, 1, got[MetricConnectionsClosed])
	assert.Zero(t, got[MetricConnectionsFailed])
}

func TestAFailedConnectIsNeitherOpenedNorClosed(t *testing.T) {
	a, owner := newTestAggregation(t, 100, false)
	a.add(connection(func(f *flow) {
		f.EstablishedNs, f.State, f.Error, f.Delta = 0, tcpSynSent, int32(unix.ECONNREFUSED), bpfCounters{Retransmits: 3}
	}), owner, testStart)
	got := sums(a.flush(testStart, testScope))
	assert.EqualValues(t, 1, got[MetricConnectionsFailed+"/ECONNREFUSED"])
	assert.EqualValues(t, 3, got[MetricRetransmits+"/syn"])
	assert.Zero(t, got[MetricRetransmits+"/data"])
	assert.Zero(t, got[MetricConnectionsOpened])
	assert.NotContains(t, got, MetricConnectionsClosed)
}

func TestAListenerThatEndsIsNoFailure(t *testing.T) {
	a, owner := newTestAggregation(t, 100, false)
	a.add(&flow{Kind: uint8(bpfFlowKindFLOW_LISTENER_END), Role: uint8(bpfFlowRoleROLE_LISTENER), State: 10, LocalPort: 80}, owner, testStart)
	got := sums(a.flush(testStart, testScope))
	assert.NotContains(t, got, MetricConnectionsFailed)
	assert.NotContains(t, got, MetricConnectionsClosed)
}

func TestOpenIsWhatTheLastSnapshotSaw(t *testing.T) {
	a, owner := newTestAggregation(t, 100, false)
	a.add(connection(), owner, testStart)
	assert.NotContains(t, gauges(a.flush(testStart, testScope)), MetricConnectionsOpen, "nothing is known before a snapshot")
	snapshot := func(connections int) int64 {
		a.beginSnapshot()
		for range connections {
			a.add(connection(as(bpfFlowKindFLOW_SNAPSHOT), known), owner, testStart)
		}
		a.endSnapshot()
		return gauges(a.flush(testStart, testScope))[MetricConnectionsOpen]
	}
	assert.EqualValues(t, 3, snapshot(3))
	assert.EqualValues(t, 1, snapshot(1))
	assert.EqualValues(t, 0, snapshot(0))
}

func TestWhatWasNotSeenIsNotInvented(t *testing.T) {
	a, owner := newTestAggregation(t, 100, false)
	a.add(connection(known, func(f *flow) {
		f.Flags |= uint32(bpfFlowFlagsFLAG_SEEDED)
		f.EstablishedNs = 0
		f.State = 1
		f.SrttUs = 0
	}), owner, testStart)
	metrics := a.flush(testStart, testScope)
	eachMetric(metrics, func(metric pmetric.Metric) {
		assert.NotContains(t, []string{MetricConnectionDuration, MetricHandshakeDuration, MetricRTT}, metric.Name())
	})
	assert.EqualValues(t, 1, sums(metrics)[MetricConnectionsClosed])
	assert.Zero(t, sums(metrics)[MetricConnectionsOpened])
}

func TestAConnectionWhoseStartWentUnseenHasNoHandshakeDuration(t *testing.T) {
	a, owner := newTestAggregation(t, 100, false)
	a.add(connection(func(f *flow) { f.StartedNs = 0 }), owner, testStart)
	metrics := a.flush(testStart, testScope)
	assert.EqualValues(t, 1, sums(metrics)[MetricConnectionsClosed])
	counts := map[string]uint64{}
	eachMetric(metrics, func(metric pmetric.Metric) {
		if metric.Type() == pmetric.MetricTypeHistogram {
			counts[metric.Name()] = metric.Histogram().DataPoints().At(0).Count()
		}
	})
	assert.Equal(t, map[string]uint64{MetricConnectionDuration: 1, MetricRTT: 1}, counts)
}

func TestOverflowIsCountedNotDropped(t *testing.T) {
	a, owner := newTestAggregation(t, 10, false)
	const peers = 50
	for i := range peers {
		a.add(connection(func(f *flow) { f.PeerAddress[3] = uint8(i) }), owner, testStart)
	}
	metrics := a.flush(testStart, testScope)
	assert.EqualValues(t, peers, sums(metrics)[MetricConnectionsClosed])
	assert.EqualValues(t, peers*100, sums(metrics)[MetricIO+"/transmit"])
	assert.EqualValues(t, peers-10, a.overflowed)
	assert.Len(t, a.series, 10)

	overflow := 0
	eachMetric(metrics, func(metric pmetric.Metric) {
		if metric.Name() != MetricConnectionsClosed {
			return
		}
		for _, point := range metric.Sum().DataPoints().All() {
			if _, ok := point.Attributes().Get(attrOverflow); ok {
				overflow++
				assert.Equal(t, 1, point.Attributes().Len(), "one attribute set")
				assert.EqualValues(t, peers-10, point.IntValue())
			}
		}
	})
	assert.Equal(t, 1, overflow)
}

func TestEphemeralPortsAreNeverAnAttribute(t *testing.T) {
	a, owner := newTestAggregation(t, 1000, false)
	for i := range 500 {
		a.add(connection(func(f *flow) { f.LocalPort = uint16(40000 + i) }), owner, testStart)
		a.add(connection(asRole(bpfFlowRoleROLE_SERVER), func(f *flow) {
			f.LocalPort, f.PeerPort = 443, uint16(40000+i)
		}), owner, testStart)
	}
	assert.Len(t, a.series, 2)
}

func TestSeriesAreForgotten(t *testing.T) {
	cumulative, owner := newTestAggregation(t, 100, false)
	cumulative.add(connection(), owner, testStart)
	cumulative.flush(testStart.Add(seriesExpiry-time.Second), testScope)
	assert.Len(t, cumulative.series, 1)
	cumulative.flush(testStart.Add(seriesExpiry), testScope)
	assert.Empty(t, cumulative.series)
	assert.Empty(t, cumulative.groups)

	delta, owner := newTestAggregation(t, 100, true)
	delta.add(connection(), owner, testStart)
	assert.NotZero(t, delta.flush(testStart, testScope).DataPointCount())
	assert.Empty(t, delta.series)
	assert.Zero(t, delta.flush(testStart, testScope).DataPointCount(), "nothing happened, nothing is said")
}

func TestPeerOfEachRole(t *testing.T) {
	set := attributeSet{role: bpfFlowRoleROLE_CLIENT, servicePort: 443, peer: netip.MustParseAddr("192.0.2.2")}
	attributes := pcommon.NewMap()
	set.describe(attributes)
	assert.Equal(t, map[string]any{
		attrRole: "client", attrServerPort: int64(443), attrServerAddress: "192.0.2.2", attrNetworkType: "ipv4",
	}, attributes.AsRaw())

	set.role, set.peer = bpfFlowRoleROLE_SERVER, netip.MustParseAddr("2001:db8::1")
	attributes = pcommon.NewMap()
	set.describe(attributes)
	assert.Equal(t, map[string]any{
		attrRole: "server", attrServerPort: int64(443), attrClientAddress: "2001:db8::1", attrNetworkType: "ipv6",
	}, attributes.AsRaw())
}

func BenchmarkAdd(b *testing.B) {
	a := newAggregation(10000, false, seriesExpiry)
	table, err := workload.NewTable(workload.Config{}, nil, nil)
	require.NoError(b, err)
	defer table.Close()
	owner := table.Lookup(workload.Key{PID: 1 << 30, StartBootNs: 1}, workload.Hint{Comm: "curl"})
	f := connection()
	b.ReportAllocs()
	for b.Loop() {
		a.add(f, owner, testStart)
	}
}
