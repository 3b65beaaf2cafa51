//go:build linux

package tcp

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// handoff gives finished pdata to the consumers from a goroutine of its own, so that a consumer that blocks does not
// keep the probe from reading its ring.
type handoff struct {
	metrics chan pmetric.Metrics
	logs    chan plog.Logs
	failed  func(signal string, err error)
	done    sync.WaitGroup
	cancel  context.CancelFunc
}

func newHandoff(sinks Sinks, failed func(signal string, err error)) *handoff {
	ctx, cancel := context.WithCancel(context.Background())
	h := &handoff{
		metrics: make(chan pmetric.Metrics, 1),
		logs:    make(chan plog.Logs, 4),
		failed:  failed,
		cancel:  cancel,
	}
	h.done.Go(func() {
		for metrics := range h.metrics {
			if err := sinks.Metrics(ctx, metrics); err != nil {
				failed("metrics", err)
			}
		}
	})
	h.done.Go(func() {
		for logs := range h.logs {
			if err := sinks.Logs(ctx, logs); err != nil {
				failed("logs", err)
			}
		}
	})
	return h
}

// idleMetrics says that offerMetrics does not block: the probe is the only one that offers.
func (h *handoff) idleMetrics() bool { return len(h.metrics) < cap(h.metrics) }

func (h *handoff) offerMetrics(metrics pmetric.Metrics) { h.metrics <- metrics }

// idleLogs says that offerLogs does not block.
func (h *handoff) idleLogs() bool { return len(h.logs) < cap(h.logs) }

func (h *handoff) offerLogs(logs plog.Logs) { h.logs <- logs }

// insistMetrics and insistLogs wait for the consumer, until ctx ends; then what is handed over is refused, not forgotten.
func (h *handoff) insistMetrics(ctx context.Context, metrics pmetric.Metrics) {
	if metrics.DataPointCount() == 0 {
		return
	}
	select {
	case h.metrics <- metrics:
	case <-ctx.Done():
		h.failed("metrics", ctx.Err())
	}
}

func (h *handoff) insistLogs(ctx context.Context, logs plog.Logs) {
	select {
	case h.logs <- logs:
	case <-ctx.Done():
		h.failed("logs", ctx.Err())
	}
}

// close waits until the consumers have taken what was offered; when ctx ends first, it cancels their calls. A consumer
// that does not heed that is left behind.
func (h *handoff) close(ctx context.Context) error {
	close(h.metrics)
	close(h.logs)
	defer h.cancel()
	finished := make(chan struct{})
	go func() {
		h.done.Wait()
		close(finished)
	}()
	select {
	case <-finished:
		return nil
	case <-ctx.Done():
	}
	h.cancel()
	select {
	case <-finished:
		return nil
	case <-time.After(cancelPatience):
		return fmt.Errorf("stop the TCP probe's hand-over: a consumer has not returned %s after its call was cancelled", cancelPatience)
	}
}

// cancelPatience is how long a consumer may take to notice that its call was cancelled.
const cancelPatience = time.Second
