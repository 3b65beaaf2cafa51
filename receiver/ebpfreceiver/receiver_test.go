//go:build linux && (amd64 || arm64)

package ebpfreceiver

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/receivertest"
	"go.opentelemetry.io/collector/receiver/xreceiver"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
	"github.com/ebpfreceiver/ebpfreceiver/receiver/ebpfreceiver/internal/metadata"
)

// recordingHost keeps the status events that it hears of.
type recordingHost struct {
	mu     sync.Mutex
	events []*componentstatus.Event
}

func (*recordingHost) GetExtensions() map[component.ID]component.Component { return nil }

func (h *recordingHost) Report(event *componentstatus.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, event)
}

func (h *recordingHost) statuses() []componentstatus.Status {
	h.mu.Lock()
	defer h.mu.Unlock()
	var statuses []componentstatus.Status
	for _, event := range h.events {
		statuses = append(statuses, event.Status())
	}
	return statuses
}

// fakeProbe tells in a journal what happens to it.
type fakeProbe struct {
	journal  *[]string
	startErr error
}

func (p *fakeProbe) Start() error {
	*p.journal = append(*p.journal, "start")
	return p.startErr
}

func (p *fakeProbe) Shutdown(ctx context.Context) error {
	*p.journal = append(*p.journal, "shutdown")
	if _, bounded := ctx.Deadline(); !bounded {
		return errors.New("shutdown without a deadline")
	}
	return nil
}

func (*fakeProbe) Stats() kernel.Stats { return kernel.Stats{} }

func (*fakeProbe) Attachments() []*kernel.Attachment {
	return []*kernel.Attachment{{Capability: "fake", Rung: "best"}}
}

func quickConfig() *Config {
	config := createDefaultConfig().(*Config)
	config.TCP.SnapshotInterval = 200 * time.Millisecond
	config.Metrics.Interval = 200 * time.Millisecond
	config.Kernel.PollInterval = 10 * time.Millisecond
	return config
}

func observedSettings(level zapcore.Level) (receiver.Settings, *observer.ObservedLogs) {
	core, logs := observer.New(level)
	settings := receivertest.NewNopSettings(metadata.Type)
	settings.Logger = zap.New(core)
	return settings, logs
}

func TestFactoryOffersTheSignalsThatHaveAProbe(t *testing.T) {
	factory := NewFactory()
	settings := receivertest.NewNopSettings(metadata.Type)
	profiles, err := factory.(xreceiver.Factory).CreateProfiles(t.Context(), settings, factory.CreateDefaultConfig(), consumertest.NewNop())
	require.NoError(t, err)
	require.NoError(t, profiles.Shutdown(t.Context()))
	assert.Equal(t, component.StabilityLevelDevelopment, factory.(xreceiver.Factory).ProfilesStability())
	assert.Equal(t, component.StabilityLevelDevelopment, factory.TracesStability())
	assert.Equal(t, component.StabilityLevelDevelopment, factory.MetricsStability())
	assert.Equal(t, component.StabilityLevelDevelopment, factory.LogsStability())
}

func TestPipelinesOfOneConfigurationShareOneReceiver(t *testing.T) {
	f := &factory{}
	config := quickConfig()
	settings := receivertest.NewNopSettings(metadata.Type)
	metrics, err := f.createMetrics(t.Context(), settings, config, consumertest.NewNop())
	require.NoError(t, err)
	logs, err := f.createLogs(t.Context(), settings, config, consumertest.NewNop())
	require.NoError(t, err)
	assert.Same(t, metrics.(*joined).Unwrap(), logs.(*joined).Unwrap())
	assert.Equal(t, 1, f.receivers.Len())

	_, err = f.createLogs(t.Context(), settings, config, consumertest.NewNop())
	require.EqualError(t, err, "this receiver has a consumer of logs already; shut it down before making another")

	other, err := f.createMetrics(t.Context(), settings, quickConfig(), consumertest.NewNop())
	require.NoError(t, err)
	assert.NotSame(t, metrics.(*joined).Unwrap(), other.(*joined).Unwrap())

	for _, created := range []component.Component{metrics, logs, other} {
		require.NoError(t, created.Shutdown(t.Context()), "shut down without a start")
	}
	assert.Zero(t, f.receivers.Len())
}

func TestPipelineWithoutDataSaysWhy(t *testing.T) {
	for name, test := range map[string]struct {
		configure             func(*Config)
		traces, metrics, logs bool
		expected              string
	}{
		"logs without flow logs": {
			func(*Config) {}, false, false, true,
			"The logs pipeline gets nothing from this receiver: set tcp.flow_logs: true, or remove the receiver from it",
		},
		"traces without HTTP": {
			func(*Config) {}, true, false, false,
			"The traces pipeline gets nothing from this receiver: set http.enabled: true, or remove the receiver from it",
		},
		"all disabled": {
			func(c *Config) { c.TCP.Enabled, c.CPU.Enabled = false, false }, false, true, true,
			"Nothing to observe: tcp.enabled, http.enabled, cpu.enabled and off_cpu.enabled are false",
		},
	} {
		t.Run(name, func(t *testing.T) {
			factory := NewFactory()
			settings, logs := observedSettings(zapcore.InfoLevel)
			config := quickConfig()
			test.configure(config)
			host := &recordingHost{}
			var created []component.Component
			if test.traces {
				r, err := factory.CreateTraces(t.Context(), settings, config, consumertest.NewNop())
				require.NoError(t, err)
				created = append(created, r)
			}
			if test.metrics {
				r, err := factory.CreateMetrics(t.Context(), settings, config, consumertest.NewNop())
				require.NoError(t, err)
				created = append(created, r)
			}
			if test.logs {
				r, err := factory.CreateLogs(t.Context(), settings, config, consumertest.NewNop())
				require.NoError(t, err)
				created = append(created, r)
			}
			for _, r := range created {
				require.NoError(t, r.Start(t.Context(), host))
			}
			for _, r := range created {
				require.NoError(t, r.Shutdown(t.Context()))
			}
			require.Len(t, logs.All(), 1, "one line, and no probe was loaded")
			assert.Equal(t, zapcore.WarnLevel, logs.All()[0].Level)
			assert.Equal(t, test.expected, logs.All()[0].Message)
			assert.Empty(t, host.statuses())
		})
	}
}

func TestProbesAreStoppedInADeadline(t *testing.T) {
	r, err := newReceiver(quickConfig(), receivertest.NewNopSettings(metadata.Type))
	require.NoError(t, err)
	r.self, err = newSelfTelemetry(r.id, r.telemetry)
	require.NoError(t, err)

	var journal []string
	attached, err := r.startProbe(&fakeProbe{journal: &journal})
	require.NoError(t, err)
	require.Len(t, attached, 1)
	_, err = r.startProbe(&fakeProbe{journal: &journal, startErr: errors.New("refused")})
	require.EqualError(t, err, "refused")
	require.NoError(t, r.Shutdown(context.Background()))
	assert.Equal(t, []string{"start", "start", "shutdown"}, journal, "what did not start is not stopped")
	assert.Empty(t, r.probes)
}

// A BTF file that does not exist stands for every way in which a host can refuse.
func TestStartThatFailsKeepsTheCollectorAlive(t *testing.T) {
	factory := NewFactory()
	config := quickConfig()
	config.Kernel.BTF = "/nonexistent/vmlinux"
	config.TCP.FlowLogs = true
	settings, entries := observedSettings(zapcore.ErrorLevel)
	metrics, err := factory.CreateMetrics(t.Context(), settings, config, consumertest.NewNop())
	require.NoError(t, err)
	logs, err := factory.CreateLogs(t.Context(), settings, config, consumertest.NewNop())
	require.NoError(t, err)

	metricsHost, logsHost := &recordingHost{}, &recordingHost{}
	require.NoError(t, metrics.Start(t.Context(), metricsHost))
	require.NoError(t, logs.Start(t.Context(), logsHost))
	for _, host := range []*recordingHost{metricsHost, logsHost} {
		require.Equal(t, []componentstatus.Status{componentstatus.StatusRecoverableError}, host.statuses())
		assert.ErrorContains(t, host.events[0].Err(), "kernel.btf: ")
		assert.ErrorContains(t, host.events[0].Err(), "/nonexistent/vmlinux")
	}
	assert.Equal(t, 1, entries.FilterMessage("Cannot observe this host").Len())
	require.NoError(t, metrics.Shutdown(t.Context()))
	require.NoError(t, logs.Shutdown(t.Context()))
	assert.Len(t, metricsHost.statuses(), 1, "nothing is reported during shutdown")
}

func TestStartAgainAfterShutdown(t *testing.T) {
	factory := NewFactory()
	config := quickConfig()
	for range 2 {
		r, err := factory.CreateMetrics(t.Context(), receivertest.NewNopSettings(metadata.Type), config, consumertest.NewNop())
		require.NoError(t, err)
		require.NoError(t, r.Start(t.Context(), componenttest.NewNopHost()))
		require.NoError(t, r.Start(t.Context(), componenttest.NewNopHost()), "a second start is the first")
		require.NoError(t, r.Shutdown(t.Context()))
		require.NoError(t, r.Shutdown(t.Context()), "a second shutdown is the first")
	}
}

// A pipeline that was created but never started must not hold up the shutdown of the others.
func TestShutdownBesideAPipelineThatNeverStarted(t *testing.T) {
	factory := NewFactory()
	config := quickConfig()
	config.TCP.FlowLogs = true
	settings := receivertest.NewNopSettings(metadata.Type)
	metrics, err := factory.CreateMetrics(t.Context(), settings, config, consumertest.NewNop())
	require.NoError(t, err)
	logs, err := factory.CreateLogs(t.Context(), settings, config, consumertest.NewNop())
	require.NoError(t, err)
	require.NoError(t, metrics.Start(t.Context(), componenttest.NewNopHost()))
	time.Sleep(100 * time.Millisecond)

	started := time.Now()
	require.NoError(t, metrics.Shutdown(t.Context()))
	require.NoError(t, logs.Shutdown(t.Context()))
	assert.Less(t, time.Since(started), shutdownPatience)
}

// blockingConsumer holds whatever it gets until its context ends.
func blockingConsumer(t *testing.T) (consumer.Logs, <-chan struct{}) {
	t.Helper()
	blocked := make(chan struct{})
	var once sync.Once
	next, err := consumer.NewLogs(func(ctx context.Context, _ plog.Logs) error {
		once.Do(func() { close(blocked) })
		<-ctx.Done()
		return ctx.Err()
	})
	require.NoError(t, err)
	return next, blocked
}
