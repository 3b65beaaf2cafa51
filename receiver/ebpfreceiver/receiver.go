//go:build linux && (amd64 || arm64)

package ebpfreceiver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pprofile"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/receiverhelper"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/ebpfreceiver/ebpfreceiver/internal/cpu"
	"github.com/ebpfreceiver/ebpfreceiver/internal/http"
	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
	"github.com/ebpfreceiver/ebpfreceiver/internal/ring"
	"github.com/ebpfreceiver/ebpfreceiver/internal/tcp"
	"github.com/ebpfreceiver/ebpfreceiver/internal/timeline"
	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
	"github.com/ebpfreceiver/ebpfreceiver/receiver/ebpfreceiver/internal/metadata"
)

// shutdownPatience bounds how long consumers that block are waited for at shutdown.
const shutdownPatience = 5 * time.Second

// rememberedRequests is how many requests are remembered after their end, so that samples find the one that they were taken in:
// more than end in the second that it takes until they are looked for.
const rememberedRequests = 1 << 16

// sampleWait is how long samples wait in the kernel's ring.
const sampleWait = 500 * time.Millisecond

// part is a running piece of the receiver that has attached programs.
type part interface {
	source
	Attachments() []*kernel.Attachment
}

// probe observes one subject. It lives between Start and Shutdown, and uses the kernel and the workloads meanwhile.
type probe interface {
	part
	Start() error
	Shutdown(context.Context) error
}

// ebpfReceiver is the one running receiver behind all pipelines of a configuration.
type ebpfReceiver struct {
	config    *Config
	id        component.ID
	buildInfo component.BuildInfo
	telemetry component.TelemetrySettings
	logger    *zap.Logger
	report    *receiverhelper.ObsReport

	// One for each pipeline that there is, set by the factory before Start.
	traces   *outlet[ptrace.Traces]
	metrics  *outlet[pmetric.Metrics]
	logs     *outlet[plog.Logs]
	profiles *outlet[pprofile.Profiles]

	// What runs, in the order of starting.
	self      *selfTelemetry
	kernel    *kernel.Kernel
	workloads *workload.Table
	probes    []probe
	timeline  *timeline.Timeline  // who serves which request; nil: nothing is made of it
	publisher *timeline.Publisher // nil: nobody is told
}

var _ component.Component = (*ebpfReceiver)(nil)

func newReceiver(config *Config, settings receiver.Settings) (*ebpfReceiver, error) {
	report, err := receiverhelper.NewObsReport(receiverhelper.ObsReportSettings{
		ReceiverID:             settings.ID,
		Transport:              "bpf",
		ReceiverCreateSettings: settings,
	})
	if err != nil {
		return nil, fmt.Errorf("creating the report of accepted and refused data: %w", err)
	}
	return &ebpfReceiver{
		config:    config,
		id:        settings.ID,
		buildInfo: settings.BuildInfo,
		telemetry: settings.TelemetrySettings,
		// Errors here say themselves what was attempted and why it failed: a stack trace would bury that.
		logger: settings.Logger.WithOptions(zap.AddStacktrace(zapcore.DPanicLevel)),
		report: report,
	}, nil
}

// Start starts the probes that a pipeline consumes. A host that does not let them run is no reason to take the whole
// Collector down: it is logged and reported as status, and the rest of the Collector works on.
func (r *ebpfReceiver) Start(_ context.Context, host component.Host) error {
	self, err := newSelfTelemetry(r.id, r.telemetry)
	if err != nil {
		return err
	}
	r.self = self
	r.warnOfIdlePipelines()
	if !r.wantsTCP() && !r.wantsHTTP() && !r.wantsCPU() {
		return nil
	}
	if err := r.startProbes(); err != nil {
		err = explainPrivileges(err)
		r.logger.Error("Cannot observe this host", zap.Error(err))
		componentstatus.ReportStatus(host, componentstatus.NewRecoverableErrorEvent(err))
		return nil
	}
	componentstatus.ReportStatus(host, componentstatus.NewEvent(componentstatus.StatusOK))
	return nil
}

// Shutdown stops everything that runs, probes first. It may be called without Start, and after a Start that failed.
func (r *ebpfReceiver) Shutdown(ctx context.Context) error {
	if r.self == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, shutdownPatience)
	defer cancel()
	r.traces.abandon()
	r.metrics.abandon()
	r.logs.abandon()
	r.profiles.abandon()
	return errors.Join(r.stopProbes(ctx), r.self.shutdown())
}

// wantsTCP says whether a pipeline consumes what the TCP probe makes.
func (r *ebpfReceiver) wantsTCP() bool {
	return r.config.TCP.Enabled && (r.metrics != nil || r.logs != nil && r.config.TCP.FlowLogs)
}

// wantsHTTP says whether a pipeline consumes what the HTTP probe makes.
func (r *ebpfReceiver) wantsHTTP() bool {
	return r.config.HTTP.Enabled && (r.traces != nil || r.metrics != nil)
}

// wantsCPU says whether a pipeline consumes what the CPU probe makes.
func (r *ebpfReceiver) wantsCPU() bool {
	return (r.config.CPU.Enabled || r.config.OffCPU.Enabled) && r.profiles != nil
}

// warnOfIdlePipelines says where configuration and pipelines do not fit together.
func (r *ebpfReceiver) warnOfIdlePipelines() {
	flowLogs := r.config.TCP.Enabled && r.config.TCP.FlowLogs
	switch {
	case !r.config.TCP.Enabled && !r.config.HTTP.Enabled && !r.config.CPU.Enabled && !r.config.OffCPU.Enabled:
		r.logger.Warn("Nothing to observe: tcp.enabled, http.enabled, cpu.enabled and off_cpu.enabled are false")
	case r.logs != nil && !flowLogs:
		r.logger.Warn("The logs pipeline gets nothing from this receiver: set tcp.flow_logs: true, or remove the receiver from it")
	case r.logs == nil && flowLogs:
		r.logger.Warn("No flow logs are made: tcp.flow_logs is true, but no logs pipeline has this receiver")
	}
	if r.traces != nil && !r.config.HTTP.Enabled {
		r.logger.Warn("The traces pipeline gets nothing from this receiver: set http.enabled: true, or remove the receiver from it")
	}
	switch {
	case r.profiles != nil && !r.config.CPU.Enabled && !r.config.OffCPU.Enabled:
		r.logger.Warn("The profiles pipeline gets nothing from this receiver: set cpu.enabled: true, or remove the receiver from it")
	case r.profiles == nil && r.config.OffCPU.Enabled:
		r.logger.Warn("No off-CPU profiles are made: off_cpu.enabled is true, but no profiles pipeline has this receiver")
	}
}

// startProbes starts all or, with an error, nothing.
func (r *ebpfReceiver) startProbes() (err error) {
	defer func() {
		if err != nil {
			ctx, cancel := context.WithTimeout(context.Background(), shutdownPatience)
			defer cancel()
			err = errors.Join(err, r.stopProbes(ctx))
		}
	}()

	selector, err := r.config.Select.selection().Compile()
	if err != nil {
		return fmt.Errorf("select: %w", err)
	}
	r.kernel, err = kernel.Open(r.kernelOptions(), r.logger)
	if err != nil && r.config.Kernel.BTF != "" {
		return fmt.Errorf("kernel.btf: %w", err)
	} else if err != nil {
		return err
	}
	r.workloads, err = workload.NewTable(r.workloadConfig(), r.kernel, r.logger)
	if err != nil {
		return err
	}
	if err := r.workloads.Start(); err != nil {
		return err
	}
	attached := r.account(r.workloads)
	if err := r.startTimeline(); err != nil {
		return err
	}
	if r.wantsTCP() {
		connections, err := r.startProbe(tcp.New(r.tcpConfig(), r.kernel, r.workloads, selector, r.tcpSinks(), r.logger))
		if err != nil {
			return err
		}
		attached = append(attached, connections...)
	}
	if r.wantsHTTP() {
		probe, err := http.New(r.httpConfig(), r.kernel, r.workloads, selector, r.httpSinks(), r.logger)
		if err != nil {
			return fmt.Errorf("http: %w", err)
		}
		exchanges, err := r.startProbe(probe)
		if err != nil && len(r.probes) == 0 {
			return err
		} else if err != nil { // one probe that this kernel does not let run does not stop the others
			r.logger.Error("Cannot observe HTTP on this host", zap.Error(explainPrivileges(err)))
		}
		attached = append(attached, exchanges...)
	}
	if r.wantsCPU() {
		samples, err := r.startProbe(cpu.New(r.cpuConfig(), r.kernel, r.workloads, selector, r.cpuSinks(), r.logger))
		if err != nil && len(r.probes) == 0 {
			return err
		} else if err != nil {
			r.logger.Error("Cannot profile this host", zap.Error(explainPrivileges(err)))
		}
		attached = append(attached, samples...)
	}
	r.kernel.ForgetTypes()
	r.logger.Info("Observing this host", zap.Stringers("capabilities", attached))
	return nil
}

func (r *ebpfReceiver) startProbe(p probe) (attached []*kernel.Attachment, err error) {
	if err := p.Start(); err != nil {
		return nil, err
	}
	r.probes = append(r.probes, p)
	return r.account(p), nil
}

// startTimeline lets others know which request is served by whom, if anybody asks.
func (r *ebpfReceiver) startTimeline() error {
	path := r.config.HTTP.TraceContextMap
	if !r.wantsHTTP() || r.traces == nil || !r.wantsCPU() && path == "" {
		return nil
	}
	r.timeline = timeline.New(rememberedRequests)
	if path == "" {
		return nil
	}
	publisher, err := timeline.NewPublisher(path)
	if err != nil {
		return fmt.Errorf("http.trace_context_map: %w", err)
	}
	r.publisher = publisher
	r.timeline.PublishBy(publisher)
	return nil
}

// account makes what runs known to the receiver's own telemetry.
func (r *ebpfReceiver) account(p part) (attached []*kernel.Attachment) {
	r.self.add(p)
	attached = p.Attachments()
	for _, attachment := range attached {
		r.self.attached(attachment.Capability, attachment.Rung)
	}
	return attached
}

func (r *ebpfReceiver) stopProbes(ctx context.Context) error {
	r.self.clear()
	var errs []error
	for _, p := range r.probes {
		errs = append(errs, p.Shutdown(ctx))
	}
	if r.publisher != nil {
		errs = append(errs, r.publisher.Close())
	}
	if r.workloads != nil {
		errs = append(errs, r.workloads.Close())
	}
	if r.kernel != nil {
		errs = append(errs, r.kernel.Close())
	}
	r.probes, r.workloads, r.kernel, r.timeline, r.publisher = nil, nil, nil, nil, nil
	return errors.Join(errs...)
}

func (r *ebpfReceiver) kernelOptions() kernel.Options {
	return kernel.Options{
		BTFPath:      r.config.Kernel.BTF,
		ProgramStats: r.config.Kernel.ProgramStats,
	}
}

func (r *ebpfReceiver) workloadConfig() workload.Config {
	return workload.Config{
		ProcFS:       r.config.Process.ProcFS,
		CgroupFS:     r.config.Process.CgroupFS,
		MaxProcesses: r.config.Process.MaxProcesses,
		RingBytes:    r.config.Kernel.RingBytes,
	}
}

func (r *ebpfReceiver) ringConfig() ring.Config {
	return ring.Config{
		Bytes:        r.config.Kernel.RingBytes,
		PollInterval: r.config.Kernel.PollInterval,
	}
}

func (r *ebpfReceiver) httpConfig() http.Config {
	events := r.ringConfig()
	events.Bytes *= 4 // heads and what is copied of bodies come in bursts of megabytes
	return http.Config{
		HeadBytes:           r.config.HTTP.HeadBytes,
		TLS:                 http.TLSConfig{OpenSSL: r.config.HTTP.TLS.OpenSSL, Go: r.config.HTTP.TLS.Go},
		MaxConnections:      r.config.HTTP.MaxConnections,
		GenAI:               r.config.HTTP.GenAI,
		ExcludeInstrumented: r.config.HTTP.ExcludeInstrumented,
		RoutePatterns:       r.config.HTTP.Routes.Patterns,
		RouteUnmatched:      r.config.HTTP.Routes.Unmatched,
		RouteGoMux:          r.config.HTTP.Routes.GoMux,
		Propagators:         r.config.HTTP.Propagators,
		Sampling: http.Sampling{
			Ratio:  r.config.HTTP.Sampling.Ratio,
			Routes: sampledRoutes(r.config.HTTP.Sampling.Routes),
		},
		MetricsInterval: r.config.Metrics.Interval,
		Delta:           r.config.Metrics.Temporality == temporalityDelta,
		MaxSeries:       r.config.Metrics.MaxSeries,
		Timeline:        r.timeline,
		Ring:            events,
		Scope:           r.scope,
	}
}

func (r *ebpfReceiver) httpSinks() http.Sinks {
	var sinks http.Sinks
	if r.traces != nil {
		sinks.Traces = r.traces.send
	}
	if r.metrics != nil {
		sinks.Metrics = r.metrics.send
	}
	return sinks
}

func (r *ebpfReceiver) cpuConfig() cpu.Config {
	config := cpu.Config{
		Threads: r.config.Profiles.Threads,
		CPUs:    r.config.Profiles.CPUs,
		OffCPU: cpu.OffCPUConfig{
			Enabled:          r.config.OffCPU.Enabled,
			MinDuration:      r.config.OffCPU.MinDuration,
			SamplesPerSecond: r.config.OffCPU.SamplesPerSecond,
		},
		Interval:     r.config.Profiles.Interval,
		MaxProcesses: r.config.Process.MaxProcesses,
		MaxStacks:    r.config.Profiles.MaxStacks,
		TableBytes:   int64(r.config.Profiles.TableBytes),
		SymbolBytes:  int64(r.config.Profiles.SymbolBytes),
		Lines:        r.config.Profiles.Lines,
		ProcFS:       r.config.Process.ProcFS,
		Timeline:     r.timeline,
		Ring:         r.ringConfig(),
		Scope:        r.scope,
	}
	// What cannot wait wakes the probe: the rest only has to be there when profiles are made.
	config.Ring.Bytes /= 4 // samples are few
	config.Ring.PollInterval = max(config.Ring.PollInterval, min(sampleWait, config.Interval/2))
	if r.config.CPU.Enabled {
		config.Frequency = r.config.CPU.Frequency
	}
	return config
}

func (r *ebpfReceiver) cpuSinks() cpu.Sinks {
	return cpu.Sinks{Profiles: r.profiles.send}
}

func (r *ebpfReceiver) tcpConfig() tcp.Config {
	return tcp.Config{
		SnapshotInterval: r.config.TCP.SnapshotInterval,
		MetricsInterval:  r.config.Metrics.Interval,
		Delta:            r.config.Metrics.Temporality == temporalityDelta,
		MaxSeries:        r.config.Metrics.MaxSeries,
		FlowLogs:         r.config.TCP.FlowLogs,
		Ring:             r.ringConfig(),
		Scope:            r.scope,
	}
}

func (r *ebpfReceiver) tcpSinks() tcp.Sinks {
	var sinks tcp.Sinks
	if r.metrics != nil {
		sinks.Metrics = r.metrics.send
	}
	if r.logs != nil && r.config.TCP.FlowLogs {
		sinks.Logs = r.logs.send
	}
	return sinks
}

// scope names this receiver as the instrumentation that made the data.
func (r *ebpfReceiver) scope(scope pcommon.InstrumentationScope) {
	scope.SetName(metadata.ScopeName)
	scope.SetVersion(r.buildInfo.Version)
}
