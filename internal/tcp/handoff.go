//go:build linux

package tcp

import (
	"context"
	"fmt"

	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/ebpfreceiver/ebpfreceiver/internal/signal"
)

// handoff is the way to the consumers of both signals.
type handoff struct {
	metrics *signal.Handoff[pmetric.Metrics]
	logs    *signal.Handoff[plog.Logs]
}

func newHandoff(sinks Sinks, failed func(signal string, err error)) *handoff {
	return &handoff{
		metrics: signal.NewHandoff(1, sinks.Metrics, func(err error) { failed("metrics", err) }),
		logs:    signal.NewHandoff(4, sinks.Logs, func(err error) { failed("logs", err) }),
	}
}

func (h *handoff) close(ctx context.Context) error {
	if err := signal.CloseAll(ctx, h.metrics, h.logs); err != nil {
		return fmt.Errorf("stop the TCP probe's hand-over: %w", err)
	}
	return nil
}
