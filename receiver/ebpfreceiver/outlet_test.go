//go:build linux && (amd64 || arm64)

package ebpfreceiver

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/receiver/receiverhelper"
	"go.opentelemetry.io/collector/receiver/receivertest"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/zap"

	"github.com/ebpfreceiver/ebpfreceiver/receiver/ebpfreceiver/internal/metadata"
)

func newTestReport(t *testing.T, telemetry *componenttest.Telemetry) *receiverhelper.ObsReport {
	t.Helper()
	settings := receivertest.NewNopSettings(metadata.Type)
	settings.TelemetrySettings = telemetry.NewTelemetrySettings()
	report, err := receiverhelper.NewObsReport(receiverhelper.ObsReportSettings{
		ReceiverID: settings.ID, Transport: "bpf", ReceiverCreateSettings: settings,
	})
	require.NoError(t, err)
	return report
}

// newTestOutlet returns an open outlet for log records before consume, and what counts the records that pass.
func newTestOutlet(
	t *testing.T, consume consumer.ConsumeLogsFunc,
) (*outlet[plog.Logs], func(metric string) int64) {
	t.Helper()
	telemetry := componenttest.NewTelemetry()
	t.Cleanup(func() { assert.NoError(t, telemetry.Shutdown(context.Background())) })
	next, err := consumer.NewLogs(consume)
	require.NoError(t, err)
	o := newLogsOutlet(newTestReport(t, telemetry), next, zap.NewNop())
	o.open()
	return o, func(name string) int64 {
		metric, err := telemetry.GetMetric(name)
		if err != nil {
			return 0
		}
		total := int64(0)
		for _, point := range metric.Data.(metricdata.Sum[int64]).DataPoints {
			total += point.Value
		}
		return total
	}
}

func someLogs(records int) plog.Logs {
	logs := plog.NewLogs()
	scope := logs.ResourceLogs().AppendEmpty().ScopeLogs().AppendEmpty()
	for range records {
		scope.LogRecords().AppendEmpty()
	}
	return logs
}

func TestOutletAccountsForWhatIsAccepted(t *testing.T) {
	var sink consumertest.LogsSink
	// A consumer owns what it gets: the count is taken before.
	o, count := newTestOutlet(t, func(ctx context.Context, logs plog.Logs) error {
		moved := plog.NewLogs()
		logs.ResourceLogs().MoveAndAppendTo(moved.ResourceLogs())
		return sink.ConsumeLogs(ctx, moved)
	})
	require.NoError(t, o.send(t.Context(), someLogs(3)))
	assert.Equal(t, 3, sink.LogRecordCount())
	assert.EqualValues(t, 3, count("otelcol_receiver_accepted_log_records"))
	assert.Zero(t, count("otelcol_receiver_refused_log_records"))
}

func TestOutletAccountsForWhatIsRefused(t *testing.T) {
	full := errors.New("the queue is full")
	o, count := newTestOutlet(t, func(context.Context, plog.Logs) error { return full })
	require.ErrorIs(t, o.send(t.Context(), someLogs(2)), full)
	assert.Zero(t, count("otelcol_receiver_accepted_log_records"))
	assert.EqualValues(t, 2, count("otelcol_receiver_refused_log_records")+count("otelcol_receiver_failed_log_records"))
}

func TestOutletSurvivesAPanicDownstream(t *testing.T) {
	calls := 0
	o, count := newTestOutlet(t, func(context.Context, plog.Logs) error {
		if calls++; calls == 1 {
			panic("a fault in an exporter")
		}
		return nil
	})
	err := o.send(t.Context(), someLogs(1))
	require.EqualError(t, err, "Permanent error: a consumer in the logs pipeline panicked, its data is dropped: a fault in an exporter")
	assert.True(t, consumererror.IsPermanent(err))
	require.NoError(t, o.send(t.Context(), someLogs(1)), "the next batch passes")
	assert.EqualValues(t, 1, count("otelcol_receiver_accepted_log_records"))
}

func TestOutletCountsMetricPoints(t *testing.T) {
	telemetry := componenttest.NewTelemetry()
	t.Cleanup(func() { assert.NoError(t, telemetry.Shutdown(context.Background())) })
	var sink consumertest.MetricsSink
	o := newMetricsOutlet(newTestReport(t, telemetry), &sink, zap.NewNop())
	o.open()

	metrics := pmetric.NewMetrics()
	points := metrics.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty().SetEmptyGauge()
	points.DataPoints().AppendEmpty()
	points.DataPoints().AppendEmpty()
	require.NoError(t, o.send(t.Context(), metrics))

	metric, err := telemetry.GetMetric("otelcol_receiver_accepted_metric_points")
	require.NoError(t, err)
	assert.EqualValues(t, 2, metric.Data.(metricdata.Sum[int64]).DataPoints[0].Value)
	assert.Equal(t, 2, sink.DataPointCount())
}

// The receiver starts with the first of its pipelines, while consumers of the others may not have started.
func TestOutletHoldsDataUntilThePipelineStarts(t *testing.T) {
	var sink consumertest.LogsSink
	telemetry := componenttest.NewTelemetry()
	t.Cleanup(func() { assert.NoError(t, telemetry.Shutdown(context.Background())) })
	o := newLogsOutlet(newTestReport(t, telemetry), &sink, zap.NewNop())

	sent := make(chan error, 1)
	go func() { sent <- o.send(context.Background(), someLogs(1)) }()
	select {
	case err := <-sent:
		t.Fatalf("send returned before the pipeline was open: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	assert.Zero(t, sink.LogRecordCount())
	o.open()
	require.NoError(t, <-sent)
	assert.Equal(t, 1, sink.LogRecordCount())
}

func TestOutletOfAPipelineThatNeverStarts(t *testing.T) {
	telemetry := componenttest.NewTelemetry()
	t.Cleanup(func() { assert.NoError(t, telemetry.Shutdown(context.Background())) })

	o := newLogsOutlet(newTestReport(t, telemetry), consumertest.NewNop(), zap.NewNop())
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, o.send(canceled, someLogs(1)), context.Canceled)

	o.abandon()
	require.EqualError(t, o.send(t.Context(), someLogs(1)), "the logs pipeline was shut down before it started")

	o.open()
	require.NoError(t, o.send(t.Context(), someLogs(1)), "an open pipeline takes data to the last")
	require.ErrorIs(t, o.send(canceled, someLogs(1)), context.Canceled, "but nobody waits for it any longer")
}
