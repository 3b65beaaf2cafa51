//go:build !(linux && (amd64 || arm64))

package ebpfreceiver

import (
	"context"
	"fmt"
	"runtime"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/xreceiver"

	"github.com/ebpfreceiver/ebpfreceiver/receiver/ebpfreceiver/internal/metadata"
)

// NewFactory returns a factory that reads and validates the configuration as everywhere, so that a Collector with this
// receiver builds and `validate` works, but creates no receiver: eBPF is a part of the Linux kernel.
func NewFactory() receiver.Factory {
	return xreceiver.NewFactory(metadata.Type, createDefaultConfig,
		xreceiver.WithTraces(func(context.Context, receiver.Settings, component.Config, consumer.Traces) (receiver.Traces, error) {
			return nil, errPlatform()
		}, metadata.TracesStability),
		xreceiver.WithMetrics(func(context.Context, receiver.Settings, component.Config, consumer.Metrics) (receiver.Metrics, error) {
			return nil, errPlatform()
		}, metadata.MetricsStability),
		xreceiver.WithLogs(func(context.Context, receiver.Settings, component.Config, consumer.Logs) (receiver.Logs, error) {
			return nil, errPlatform()
		}, metadata.LogsStability))
}

func errPlatform() error {
	return fmt.Errorf("the %s receiver runs on linux/amd64 and linux/arm64 only, this is %s/%s: remove it from the pipelines",
		metadata.Type, runtime.GOOS, runtime.GOARCH)
}

// validateRoutes leaves the patterns to the platforms that can use them.
func validateRoutes(string, []string) error { return nil }

// validateSampledRoutes does so, too.
func validateSampledRoutes(string, []SamplingRoute) error { return nil }

// validatePropagators does so, too.
func validatePropagators(string, []string) error { return nil }

// validate leaves the rules to the platforms that can use them.
func (SelectConfig) validate(string) error { return nil }
