//go:build linux && (amd64 || arm64)

package ebpfreceiver

import (
	"context"
	"fmt"
	"math"
	"sync"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
	"github.com/ebpfreceiver/ebpfreceiver/receiver/ebpfreceiver/internal/metadata"
)

// source is a part of the receiver that has something to say about itself.
type source interface {
	Stats() kernel.Stats
}

// selfTelemetry is what the receiver says about itself, read from its parts whenever the Collector collects its metrics.
type selfTelemetry struct {
	instruments  *metadata.TelemetryBuilder
	registration metric.Registration
	receiver     attribute.KeyValue

	mu           sync.Mutex
	sources      []source
	capabilities []capability
}

// capability is one thing that the receiver can see, and the way that it has got to see it.
type capability struct{ name, rung string }

func newSelfTelemetry(id component.ID, settings component.TelemetrySettings) (*selfTelemetry, error) {
	instruments, err := metadata.NewTelemetryBuilder(settings)
	if err != nil {
		return nil, fmt.Errorf("creating the receiver's own metrics: %w", err)
	}
	t := &selfTelemetry{instruments: instruments, receiver: attribute.String("receiver", id.String())}
	// One callback for all: the parts are asked once for each collection, and their figures fit together.
	t.registration, err = metadata.Meter(settings).RegisterCallback(t.observe,
		instruments.ReceiverEbpfCapability,
		instruments.ReceiverEbpfEvents,
		instruments.ReceiverEbpfEventsLost,
		instruments.ReceiverEbpfMapCapacity,
		instruments.ReceiverEbpfMapEntries,
		instruments.ReceiverEbpfProgramRunTime,
		instruments.ReceiverEbpfProgramRuns)
	if err != nil {
		return nil, fmt.Errorf("registering the receiver's own metrics: %w", err)
	}
	return t, nil
}

// add makes a part's figures known.
func (t *selfTelemetry) add(part source) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sources = append(t.sources, part)
}

// attached makes known how a capability was got.
func (t *selfTelemetry) attached(name, rung string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.capabilities = append(t.capabilities, capability{name, rung})
}

// clear ends the account: the parts may be closed once it returns.
func (t *selfTelemetry) clear() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sources, t.capabilities = nil, nil
}

func (t *selfTelemetry) shutdown() error {
	if err := t.registration.Unregister(); err != nil {
		return fmt.Errorf("unregistering the receiver's own metrics: %w", err)
	}
	t.instruments.Shutdown()
	return nil
}

func (t *selfTelemetry) observe(_ context.Context, observer metric.Observer) error {
	t.mu.Lock() // held until the end: no part is closed while it is asked
	defer t.mu.Unlock()
	with := func(labels ...attribute.KeyValue) metric.ObserveOption {
		return metric.WithAttributes(append(labels, t.receiver)...)
	}
	for _, got := range t.capabilities {
		observer.ObserveInt64(t.instruments.ReceiverEbpfCapability, 1,
			with(attribute.String("capability", got.name), attribute.String("rung", got.rung)))
	}
	for _, part := range t.sources {
		stats := part.Stats()
		for _, events := range stats.Events {
			observer.ObserveInt64(t.instruments.ReceiverEbpfEvents, toInt64(events.Count),
				with(attribute.String("probe", events.Probe), attribute.String("kind", events.Kind)))
		}
		for _, losses := range stats.Losses {
			observer.ObserveInt64(t.instruments.ReceiverEbpfEventsLost, toInt64(losses.Count),
				with(attribute.String("probe", losses.Probe), attribute.String("reason", losses.Reason)))
		}
		for _, usage := range stats.Maps {
			labels := with(attribute.String("probe", usage.Probe), attribute.String("map", usage.Map))
			observer.ObserveInt64(t.instruments.ReceiverEbpfMapEntries, toInt64(usage.Entries), labels)
			if usage.Capacity > 0 {
				observer.ObserveInt64(t.instruments.ReceiverEbpfMapCapacity, toInt64(usage.Capacity), labels)
			}
		}
		for _, program := range stats.Programs {
			labels := with(attribute.String("probe", program.Probe), attribute.String("program", program.Program))
			observer.ObserveFloat64(t.instruments.ReceiverEbpfProgramRunTime, program.RunTime.Seconds(), labels)
			observer.ObserveInt64(t.instruments.ReceiverEbpfProgramRuns, toInt64(program.RunCount), labels)
		}
	}
	return nil
}

func toInt64(count uint64) int64 {
	return int64(min(count, math.MaxInt64))
}
