//go:build linux && (amd64 || arm64)

package ebpfreceiver

import (
	"context"
	"fmt"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/xconsumer"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/xreceiver"

	"github.com/ebpfreceiver/ebpfreceiver/receiver/ebpfreceiver/internal/metadata"
	"github.com/ebpfreceiver/ebpfreceiver/receiver/ebpfreceiver/internal/sharedcomponent"
)

// NewFactory returns the factory of the ebpf receiver. It offers the signals that a probe makes.
func NewFactory() receiver.Factory {
	f := &factory{}
	return xreceiver.NewFactory(metadata.Type, createDefaultConfig,
		xreceiver.WithTraces(f.createTraces, metadata.TracesStability),
		xreceiver.WithMetrics(f.createMetrics, metadata.MetricsStability),
		xreceiver.WithLogs(f.createLogs, metadata.LogsStability),
		xreceiver.WithProfiles(f.createProfiles, metadata.ProfilesStability))
}

// factory makes all pipelines of one configuration share one receiver.
type factory struct {
	receivers sharedcomponent.Map[*Config, *ebpfReceiver]
}

func (f *factory) createTraces(
	_ context.Context, settings receiver.Settings, config component.Config, next consumer.Traces,
) (receiver.Traces, error) {
	return f.connect(settings, config, func(r *ebpfReceiver) (open func(), err error) {
		return connect(&r.traces, "traces", newTracesOutlet(r.report, next, settings.Logger))
	})
}

func (f *factory) createMetrics(
	_ context.Context, settings receiver.Settings, config component.Config, next consumer.Metrics,
) (receiver.Metrics, error) {
	return f.connect(settings, config, func(r *ebpfReceiver) (open func(), err error) {
		return connect(&r.metrics, "metrics", newMetricsOutlet(r.report, next, settings.Logger))
	})
}

func (f *factory) createLogs(
	_ context.Context, settings receiver.Settings, config component.Config, next consumer.Logs,
) (receiver.Logs, error) {
	return f.connect(settings, config, func(r *ebpfReceiver) (open func(), err error) {
		return connect(&r.logs, "logs", newLogsOutlet(r.report, next, settings.Logger))
	})
}

func (f *factory) createProfiles(
	_ context.Context, settings receiver.Settings, config component.Config, next xconsumer.Profiles,
) (xreceiver.Profiles, error) {
	return f.connect(settings, config, func(r *ebpfReceiver) (open func(), err error) {
		return connect(&r.profiles, "profiles", newProfilesOutlet(r.report, next, settings.Logger))
	})
}

// connect joins one pipeline to the receiver of its configuration.
func (f *factory) connect(
	settings receiver.Settings, config component.Config, join func(*ebpfReceiver) (open func(), err error),
) (component.Component, error) {
	shared, err := f.receivers.LoadOrCreate(config.(*Config), func() (*ebpfReceiver, error) {
		return newReceiver(config.(*Config), settings)
	})
	if err != nil {
		return nil, err
	}
	open, err := join(shared.Unwrap())
	if err != nil {
		return nil, err
	}
	return &joined{Shared: shared, open: open}, nil
}

// connect puts an outlet in its place, once.
func connect[Data any](place **outlet[Data], signal string, made *outlet[Data]) (open func(), err error) {
	if *place != nil {
		return nil, fmt.Errorf("this receiver has a consumer of %s already; shut it down before making another", signal)
	}
	*place = made
	return made.open, nil
}

// joined is what one pipeline sees of the shared receiver.
type joined struct {
	*sharedcomponent.Shared[*ebpfReceiver]
	open func()
}

// Start starts the receiver if no other pipeline has, and lets data into this pipeline.
func (j *joined) Start(ctx context.Context, host component.Host) error {
	if err := j.Shared.Start(ctx, host); err != nil {
		return err
	}
	j.open()
	return nil
}
