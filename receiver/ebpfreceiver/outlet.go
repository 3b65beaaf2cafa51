//go:build linux && (amd64 || arm64)

package ebpfreceiver

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"

	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/consumer/xconsumer"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pprofile"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/receiver/receiverhelper"
	"go.uber.org/zap"

	"github.com/ebpfreceiver/ebpfreceiver/receiver/ebpfreceiver/internal/metadata"
)

// outlet hands the data of one signal to its pipeline. It accounts for every hand-off, and neither an error nor a panic
// of a consumer reaches the probes as anything but an error.
type outlet[Data any] struct {
	signal  string
	count   func(Data) int
	start   func(context.Context) context.Context
	consume func(context.Context, Data) error
	end     func(ctx context.Context, format string, count int, err error)
	logger  *zap.Logger

	openOnce, abandonOnce sync.Once
	opened, abandoned     chan struct{}
}

func newTracesOutlet(report *receiverhelper.ObsReport, next consumer.Traces, logger *zap.Logger) *outlet[ptrace.Traces] {
	return newOutlet("traces", ptrace.Traces.SpanCount, report.StartTracesOp, next.ConsumeTraces, report.EndTracesOp, logger)
}

func newMetricsOutlet(report *receiverhelper.ObsReport, next consumer.Metrics, logger *zap.Logger) *outlet[pmetric.Metrics] {
	return newOutlet("metrics", pmetric.Metrics.DataPointCount, report.StartMetricsOp, next.ConsumeMetrics, report.EndMetricsOp, logger)
}

func newLogsOutlet(report *receiverhelper.ObsReport, next consumer.Logs, logger *zap.Logger) *outlet[plog.Logs] {
	return newOutlet("logs", plog.Logs.LogRecordCount, report.StartLogsOp, next.ConsumeLogs, report.EndLogsOp, logger)
}

func newProfilesOutlet(report *receiverhelper.ObsReport, next xconsumer.Profiles, logger *zap.Logger) *outlet[pprofile.Profiles] {
	return newOutlet("profiles", pprofile.Profiles.SampleCount, report.StartProfilesOp, next.ConsumeProfiles, report.EndProfilesOp, logger)
}

func newOutlet[Data any](
	signal string,
	count func(Data) int,
	start func(context.Context) context.Context,
	consume func(context.Context, Data) error,
	end func(ctx context.Context, format string, count int, err error),
	logger *zap.Logger,
) *outlet[Data] {
	return &outlet[Data]{
		signal:  signal,
		count:   count,
		start:   start,
		consume: consume,
		end:     end,
		logger:  logger,

		opened:    make(chan struct{}),
		abandoned: make(chan struct{}),
	}
}

// open lets data through. The first pipeline to start starts the probes, but the consumers of the others may not run yet.
func (o *outlet[Data]) open() {
	o.openOnce.Do(func() { close(o.opened) })
}

// abandon ends the wait for a pipeline that never started. One that has still takes data. A nil outlet has no pipeline.
func (o *outlet[Data]) abandon() {
	if o == nil {
		return
	}
	o.abandonOnce.Do(func() { close(o.abandoned) })
}

// send waits until the pipeline has started, then hands data over.
func (o *outlet[Data]) send(ctx context.Context, data Data) error {
	if err := o.waitUntilOpen(ctx); err != nil {
		return err
	}
	if ctx.Err() != nil { // many consumers do not look: each would hold up a shutdown that waits no longer
		return fmt.Errorf("handing %s to the pipeline: %w", o.signal, context.Cause(ctx))
	}
	count := o.count(data) // a consumer may empty data
	opCtx := o.start(ctx)
	err := o.consumeSafely(opCtx, data)
	o.end(opCtx, metadata.Type.String(), count, err)
	return err
}

func (o *outlet[Data]) waitUntilOpen(ctx context.Context) error {
	select { // alone, so that an open pipeline wins over the other reasons to end the wait
	case <-o.opened:
		return nil
	default:
	}
	select {
	case <-o.opened:
		return nil
	case <-o.abandoned:
		return fmt.Errorf("the %s pipeline was shut down before it started", o.signal)
	case <-ctx.Done():
		return fmt.Errorf("waiting for the %s pipeline to start: %w", o.signal, context.Cause(ctx))
	}
}

// consumeSafely turns a panic downstream into a permanent error: the same data would only make it panic again.
func (o *outlet[Data]) consumeSafely(ctx context.Context, data Data) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = consumererror.NewPermanent(fmt.Errorf("a consumer in the %s pipeline panicked, its data is dropped: %v", o.signal, cause))
			o.logger.Error("A consumer panicked: this is a fault of a processor or exporter, not of the receiver",
				zap.String("signal", o.signal), zap.Any("panic", cause), zap.ByteString("stack", debug.Stack()))
		}
	}()
	return o.consume(ctx, data)
}
