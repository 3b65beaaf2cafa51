//go:build linux && (amd64 || arm64)

package ebpfreceiver

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/metric/metricdata/metricdatatest"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
	"github.com/ebpfreceiver/ebpfreceiver/receiver/ebpfreceiver/internal/metadata"
	"github.com/ebpfreceiver/ebpfreceiver/receiver/ebpfreceiver/internal/metadatatest"
)

// fixedSource is a part of the receiver that always says the same.
type fixedSource kernel.Stats

func (f fixedSource) Stats() kernel.Stats { return kernel.Stats(f) }

func TestSelfTelemetry(t *testing.T) {
	telemetry := componenttest.NewTelemetry()
	t.Cleanup(func() { assert.NoError(t, telemetry.Shutdown(context.Background())) })
	self, err := newSelfTelemetry(component.NewIDWithName(metadata.Type, "two"), telemetry.NewTelemetrySettings())
	require.NoError(t, err)

	self.attached("tcp.state", "tp_btf")
	self.add(fixedSource{
		Events:   []kernel.EventCount{{Probe: "tcp", Kind: "end", Count: 7}, {Probe: "tcp", Kind: "snapshot", Count: 1 << 63}},
		Losses:   []kernel.LossCount{{Probe: "tcp", Reason: "ring_full", Count: 2}},
		Programs: []kernel.ProgramStats{{Probe: "tcp", Program: "tcp_state", RunTime: 1500 * time.Millisecond, RunCount: 9}},
	})
	self.add(fixedSource{
		Maps: []kernel.MapUsage{
			{Probe: "workload", Map: "processes", Entries: 3, Capacity: 16},
			{Probe: "tcp", Map: "connections", Entries: 5}, // only memory bounds it
		},
	})

	labels := func(pairs ...string) attribute.Set {
		keyValues := []attribute.KeyValue{attribute.String("receiver", "ebpf/two")}
		for i := 0; i < len(pairs); i += 2 {
			keyValues = append(keyValues, attribute.String(pairs[i], pairs[i+1]))
		}
		return attribute.NewSet(keyValues...)
	}
	point := func(value int64, pairs ...string) metricdata.DataPoint[int64] {
		return metricdata.DataPoint[int64]{Value: value, Attributes: labels(pairs...)}
	}
	ignore := metricdatatest.IgnoreTimestamp()
	metadatatest.AssertEqualReceiverEbpfCapability(t, telemetry, []metricdata.DataPoint[int64]{
		point(1, "capability", "tcp.state", "rung", "tp_btf"),
	}, ignore)
	metadatatest.AssertEqualReceiverEbpfEvents(t, telemetry, []metricdata.DataPoint[int64]{
		point(7, "probe", "tcp", "kind", "end"),
		point(1<<63-1, "probe", "tcp", "kind", "snapshot"), // the largest that OTLP can carry
	}, ignore)
	metadatatest.AssertEqualReceiverEbpfEventsLost(t, telemetry, []metricdata.DataPoint[int64]{
		point(2, "probe", "tcp", "reason", "ring_full"),
	}, ignore)
	metadatatest.AssertEqualReceiverEbpfMapEntries(t, telemetry, []metricdata.DataPoint[int64]{
		point(3, "probe", "workload", "map", "processes"),
		point(5, "probe", "tcp", "map", "connections"),
	}, ignore)
	metadatatest.AssertEqualReceiverEbpfMapCapacity(t, telemetry, []metricdata.DataPoint[int64]{
		point(16, "probe", "workload", "map", "processes"),
	}, ignore)
	metadatatest.AssertEqualReceiverEbpfProgramRuns(t, telemetry, []metricdata.DataPoint[int64]{
		point(9, "probe", "tcp", "program", "tcp_state"),
	}, ignore)
	metadatatest.AssertEqualReceiverEbpfProgramRunTime(t, telemetry, []metricdata.DataPoint[float64]{
		{Value: 1.5, Attributes: labels("probe", "tcp", "program", "tcp_state")},
	}, ignore)

	self.clear()
	_, err = telemetry.GetMetric("otelcol_receiver_ebpf_events")
	require.Error(t, err, "a part that was closed is not asked")
	require.NoError(t, self.shutdown())
}

// Two receivers report side by side: neither hides the other.
func TestSelfTelemetryOfTwoReceivers(t *testing.T) {
	telemetry := componenttest.NewTelemetry()
	t.Cleanup(func() { assert.NoError(t, telemetry.Shutdown(context.Background())) })
	for _, name := range []string{"one", "two"} {
		self, err := newSelfTelemetry(component.NewIDWithName(metadata.Type, name), telemetry.NewTelemetrySettings())
		require.NoError(t, err)
		self.attached("tcp.state", "tp_btf")
		t.Cleanup(func() { assert.NoError(t, self.shutdown()) })
	}
	metric, err := telemetry.GetMetric("otelcol_receiver_ebpf_capability")
	require.NoError(t, err)
	assert.Len(t, metric.Data.(metricdata.Gauge[int64]).DataPoints, 2)
}
