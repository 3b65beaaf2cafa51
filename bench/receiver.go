//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/xconsumer"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/xreceiver"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/ebpfreceiver/ebpfreceiver/internal/tcp"
	"github.com/ebpfreceiver/ebpfreceiver/receiver/ebpfreceiver"
)

// receiverOrder is how the receiver is to run.
type receiverOrder struct {
	Config   map[string]any // as in the YAML, on top of the defaults
	Probe    string         // whose events and programs are accounted for; empty: the TCP probe
	Traces   bool           // whether there is a traces pipeline
	Logs     bool           // whether there is a logs pipeline
	Profiles bool           // whether there is a profiles pipeline
	Inspect  bool           // look into every flow record and span, which costs; else they are only counted
	Keep     bool           // keep spans, for a comparison one by one
	Profile  string         // file for a processor profile
	Binary   string         // another build of this program whose receiver is to run; empty: this one
}

// startReceiverChild starts a receiver in a process of its own.
func startReceiverChild(order *receiverOrder, life time.Duration) (*child, error) {
	binary := cmp.Or(order.Binary, ownBinary)
	process, err := startBinary(binary, receiverName, life)
	if err != nil {
		return nil, err
	}
	if _, err := call[none](process, "start", order); err != nil {
		process.stop()
		return nil, err
	}
	return process, nil
}

// receiverUsage is what the receiver's process has used so far, and what the receiver says of itself.
type receiverUsage struct {
	User, System  time.Duration
	ResidentBytes int
	HeapBytes     int
	Events        map[string]uint64 // of the probe, by kind
	Lost          map[string]uint64 // by probe and reason
	Programs      map[string]programUsage
	Snapshots     []snapshot
}

// snapshot is one that the probe has taken.
type snapshot struct {
	Connections int
	Took        time.Duration
}

// programUsage is the kernel's account of one program of the probe.
type programUsage struct {
	Runs uint64
	Time time.Duration
}

// side is what one role did, by what the receiver sent.
type side struct {
	Connections, Sent, Received int
}

// sides are by role: client, server.
type sides map[string]*side

// receiverTotals is what the consumers got until the receiver was shut down.
type receiverTotals struct {
	Metrics sides
	Records sides // only with Inspect
	Failed  int   // connections that the metrics count as failed or as closed with an error

	SpanCount int
	Exchanges exchangeCounts // by the metrics
	Spans     exchangeCounts // only with Inspect
	Kept      []keptSpan     // only with Keep

	Samples      map[string]*sampleCounts // by service
	ProfileBytes int

	RecordCount int
	Arrivals    []arrival      // of records, only with Inspect
	Counts      []countArrival // of metrics
}

// arrival is when the record of a connection's end reached the consumer.
type arrival struct {
	Role       string
	ClientPort int
	Time       int64
}

// countArrival is when metrics that count so many ended connections reached the consumer.
type countArrival struct {
	Client, Server int
	Time           int64
}

// observedReceiver is the receiver in its own process, between consumers that count.
type observedReceiver struct {
	order     receiverOrder
	pipelines []component.Component
	reader    *sdkmetric.ManualReader
	log       *snapshotLog
	profile   *os.File

	mutex  sync.Mutex // guards what the consumers have got
	totals receiverTotals
}

func receiverRole() operations {
	var observed *observedReceiver
	return operations{
		// What the process takes before there is a receiver in it.
		"rest": operation(func(none) (int, error) { return residentBytes() }),
		"start": operation(func(order receiverOrder) (none, error) {
			var err error
			observed, err = startReceiver(order)
			return none{}, err
		}),
		"use": operation(func(none) (receiverUsage, error) { return observed.usage() }),
		// What was seen so far does not count.
		"forget": operation(func(none) (none, error) {
			observed.mutex.Lock()
			defer observed.mutex.Unlock()
			observed.totals.Samples = map[string]*sampleCounts{}
			return none{}, nil
		}),
		"stop": operation(func(none) (receiverTotals, error) {
			err := observed.stop()
			return observed.totals, err
		}),
	}
}

func startReceiver(order receiverOrder) (*observedReceiver, error) {
	o := &observedReceiver{
		order:  order,
		reader: sdkmetric.NewManualReader(),
		log:    &snapshotLog{},
		totals: receiverTotals{Metrics: sides{}, Records: sides{}, Exchanges: exchangeCounts{}, Spans: exchangeCounts{}, Samples: map[string]*sampleCounts{}},
	}
	factory := ebpfreceiver.NewFactory()
	config := factory.CreateDefaultConfig()
	if err := confmap.NewFromStringMap(order.Config).Unmarshal(config); err != nil {
		return nil, fmt.Errorf("read the receiver's configuration: %w", err)
	}
	settings := receiver.Settings{
		ID:                component.NewID(factory.Type()),
		TelemetrySettings: componenttest.NewNopTelemetrySettings(),
	}
	settings.Logger = zap.New(o.log)
	settings.MeterProvider = sdkmetric.NewMeterProvider(sdkmetric.WithReader(o.reader))

	takeMetrics, err := consumer.NewMetrics(o.takeMetrics)
	if err != nil {
		return nil, err
	}
	metrics, err := factory.CreateMetrics(context.Background(), settings, config, takeMetrics)
	if err != nil {
		return nil, fmt.Errorf("create the receiver: %w", err)
	}
	o.pipelines = append(o.pipelines, metrics)
	if order.Traces {
		takeTraces, err := consumer.NewTraces(o.takeTraces)
		if err != nil {
			return nil, err
		}
		traces, err := factory.CreateTraces(context.Background(), settings, config, takeTraces)
		if err != nil {
			return nil, fmt.Errorf("create the receiver: %w", err)
		}
		o.pipelines = append(o.pipelines, traces)
	}
	if order.Logs {
		takeLogs, err := consumer.NewLogs(o.takeLogs)
		if err != nil {
			return nil, err
		}
		logs, err := factory.CreateLogs(context.Background(), settings, config, takeLogs)
		if err != nil {
			return nil, fmt.Errorf("create the receiver: %w", err)
		}
		o.pipelines = append(o.pipelines, logs)
	}
	if order.Profiles {
		takeProfiles, err := xconsumer.NewProfiles(o.takeProfiles)
		if err != nil {
			return nil, err
		}
		profiles, err := factory.(xreceiver.Factory).CreateProfiles(context.Background(), settings, config, takeProfiles)
		if err != nil {
			return nil, fmt.Errorf("create the receiver: %w", err)
		}
		o.pipelines = append(o.pipelines, profiles)
	}
	host := &statusHost{}
	for _, pipeline := range o.pipelines {
		if err := pipeline.Start(context.Background(), host); err != nil {
			return nil, fmt.Errorf("start the receiver: %w", err)
		}
	}
	if err := host.failure(); err != nil {
		return nil, fmt.Errorf("start the receiver: %w", err)
	}
	if order.Profile != "" {
		if o.profile, err = os.Create(order.Profile); err != nil {
			return nil, fmt.Errorf("make the profile's file: %w", err)
		}
		if err := pprof.StartCPUProfile(o.profile); err != nil {
			return nil, fmt.Errorf("start a profile: %w", err)
		}
	}
	return o, nil
}

func (o *observedReceiver) stop() error {
	if o.profile != nil {
		pprof.StopCPUProfile()
		if err := o.profile.Close(); err != nil {
			return fmt.Errorf("write the profile: %w", err)
		}
	}
	var errs []error
	for _, pipeline := range o.pipelines {
		errs = append(errs, pipeline.Shutdown(context.Background()))
	}
	return errors.Join(errs...)
}

func (o *observedReceiver) usage() (receiverUsage, error) {
	user, system, err := processorTime()
	if err != nil {
		return receiverUsage{}, err
	}
	used := receiverUsage{User: user, System: system, Snapshots: o.log.taken(),
		Events: map[string]uint64{}, Lost: map[string]uint64{}, Programs: map[string]programUsage{}}
	if used.ResidentBytes, err = residentBytes(); err != nil {
		return receiverUsage{}, err
	}
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	used.HeapBytes = int(memory.HeapInuse)
	return used, o.readTelemetry(&used)
}

// readTelemetry asks the receiver's own metrics.
func (o *observedReceiver) readTelemetry(used *receiverUsage) error {
	var collected metricdata.ResourceMetrics
	if err := o.reader.Collect(context.Background(), &collected); err != nil {
		return fmt.Errorf("collect the receiver's own metrics: %w", err)
	}
	for _, scope := range collected.ScopeMetrics {
		for _, metric := range scope.Metrics {
			switch metric.Name {
			case "otelcol_receiver_ebpf_events_lost":
				for _, point := range points[int64](metric) {
					used.Lost[label(point, "probe")+" "+label(point, "reason")] += uint64(point.Value)
				}
			case "otelcol_receiver_ebpf_events":
				for _, point := range points[int64](metric) {
					if label(point, "probe") == cmp.Or(o.order.Probe, tcp.ProbeName) {
						used.Events[label(point, "kind")] += uint64(point.Value)
					}
				}
			case "otelcol_receiver_ebpf_program_runs":
				for _, point := range points[int64](metric) {
					if label(point, "probe") == cmp.Or(o.order.Probe, tcp.ProbeName) {
						program := used.Programs[label(point, "program")]
						program.Runs = uint64(point.Value)
						used.Programs[label(point, "program")] = program
					}
				}
			case "otelcol_receiver_ebpf_program_run_time":
				for _, point := range points[float64](metric) {
					if label(point, "probe") == cmp.Or(o.order.Probe, tcp.ProbeName) {
						program := used.Programs[label(point, "program")]
						program.Time = time.Duration(point.Value * float64(time.Second))
						used.Programs[label(point, "program")] = program
					}
				}
			}
		}
	}
	return nil
}

func points[N int64 | float64](metric metricdata.Metrics) []metricdata.DataPoint[N] {
	if counter, ok := metric.Data.(metricdata.Sum[N]); ok {
		return counter.DataPoints
	}
	return nil
}

func label[N int64 | float64](point metricdata.DataPoint[N], key string) string {
	for _, attribute := range point.Attributes.ToSlice() {
		if string(attribute.Key) == key {
			return attribute.Value.AsString()
		}
	}
	return ""
}

// takeMetrics keeps the newest totals: metrics are cumulative. Each probe sends its own.
func (o *observedReceiver) takeMetrics(_ context.Context, metrics pmetric.Metrics) error {
	now := time.Now().UnixNano()
	seen := sides{"client": {}, "server": {}}
	failed := 0
	exchanges := exchangeCounts{}
	for _, resource := range metrics.ResourceMetrics().All() {
		for _, scope := range resource.ScopeMetrics().All() {
			for _, metric := range scope.Metrics().All() {
				if exchanges.addMetric(metric) {
					continue
				}
				switch metric.Name() {
				case tcp.MetricConnectionsClosed, tcp.MetricConnectionsFailed, tcp.MetricIO:
				default:
					continue
				}
				for _, point := range metric.Sum().DataPoints().All() {
					role, port := text(point.Attributes(), "network.flow.role"), text(point.Attributes(), "server.port")
					s := seen[role]
					if s == nil || !isServicePort(port) {
						continue
					}
					value := int(point.IntValue())
					switch {
					case metric.Name() == tcp.MetricIO && text(point.Attributes(), "network.io.direction") == "transmit":
						s.Sent += value
					case metric.Name() == tcp.MetricIO:
						s.Received += value
					case metric.Name() == tcp.MetricConnectionsFailed, text(point.Attributes(), "error.type") != "":
						failed += value
					default:
						s.Connections += value
					}
				}
			}
		}
	}
	o.mutex.Lock()
	defer o.mutex.Unlock()
	if len(exchanges) > 0 {
		o.totals.Exchanges = exchanges
		return nil
	}
	o.totals.Metrics, o.totals.Failed = seen, failed
	o.totals.Counts = append(o.totals.Counts,
		countArrival{Client: seen["client"].Connections, Server: seen["server"].Connections, Time: now})
	return nil
}

func (o *observedReceiver) takeTraces(_ context.Context, traces ptrace.Traces) error {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	o.totals.SpanCount += traces.SpanCount()
	if !o.order.Inspect && !o.order.Keep {
		return nil
	}
	for _, resource := range traces.ResourceSpans().All() {
		for _, scope := range resource.ScopeSpans().All() {
			for _, span := range scope.Spans().All() {
				o.totals.Spans.add(spanRole(span), outcome(span.Attributes()), 1)
				if o.order.Keep {
					o.totals.Kept = append(o.totals.Kept, keep(span))
				}
			}
		}
	}
	return nil
}

func (o *observedReceiver) takeLogs(_ context.Context, logs plog.Logs) error {
	now := time.Now().UnixNano()
	o.mutex.Lock()
	defer o.mutex.Unlock()
	o.totals.RecordCount += logs.LogRecordCount()
	if !o.order.Inspect {
		return nil
	}
	for _, resource := range logs.ResourceLogs().All() {
		for _, scope := range resource.ScopeLogs().All() {
			for _, record := range scope.LogRecords().All() {
				o.inspect(record, now)
			}
		}
	}
	return nil
}

func (o *observedReceiver) inspect(record plog.LogRecord, now int64) {
	attributes := record.Attributes()
	if !isServicePort(text(attributes, "server.port")) {
		return
	}
	role := text(attributes, "network.flow.role")
	s := o.totals.Records[role]
	if s == nil {
		s = &side{}
		o.totals.Records[role] = s
	}
	s.Sent += number(attributes, "tcp.sent.bytes.delta")
	s.Received += number(attributes, "tcp.received.bytes.delta")
	if text(attributes, "network.flow.report") == "end" {
		s.Connections++
		o.totals.Arrivals = append(o.totals.Arrivals,
			arrival{Role: role, ClientPort: number(attributes, "client.port"), Time: now})
	}
}

func isServicePort(text string) bool {
	port, err := strconv.Atoi(text)
	if err != nil {
		return false
	}
	return slices.Contains(servicePorts(), port)
}

// statusHost hears whether the receiver could start: it does not say so by an error.
type statusHost struct {
	mutex  sync.Mutex
	errors []error
}

func (*statusHost) GetExtensions() map[component.ID]component.Component { return nil }

func (h *statusHost) Report(event *componentstatus.Event) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	if err := event.Err(); err != nil {
		h.errors = append(h.errors, err)
	}
}

func (h *statusHost) failure() error {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	return errors.Join(h.errors...)
}

// snapshotLog prints warnings and keeps the times of the snapshots; all else that is logged costs nothing.
type snapshotLog struct {
	mutex     sync.Mutex
	snapshots []snapshot
}

// snapshotMessage is what the TCP probe logs of each snapshot, at debug level.
const snapshotMessage = "Took a snapshot"

func (*snapshotLog) Enabled(zapcore.Level) bool { return true }

func (l *snapshotLog) With([]zapcore.Field) zapcore.Core { return l }

func (l *snapshotLog) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if entry.Level >= zapcore.WarnLevel || entry.Message == snapshotMessage {
		return checked.AddCore(entry, l)
	}
	return checked
}

func (l *snapshotLog) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	values := zapcore.NewMapObjectEncoder()
	for _, field := range fields {
		field.AddTo(values)
	}
	if entry.Message != snapshotMessage {
		fmt.Fprintln(os.Stderr, "the receiver says:", entry.Level, entry.Message, values.Fields)
		return nil
	}
	connections, _ := values.Fields["connections"].(uint64)
	took, _ := values.Fields["took"].(time.Duration)
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.snapshots = append(l.snapshots, snapshot{Connections: int(connections), Took: took})
	return nil
}

func (*snapshotLog) Sync() error { return nil }

func (l *snapshotLog) taken() []snapshot {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return slices.Clone(l.snapshots)
}

func text(attributes pcommon.Map, key string) string {
	value, found := attributes.Get(key)
	if !found {
		return ""
	}
	return value.AsString()
}

func number(attributes pcommon.Map, key string) int {
	value, found := attributes.Get(key)
	if !found {
		return 0
	}
	return int(value.Int())
}

func residentBytes() (int, error) {
	const file = "/proc/self/statm"
	content, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(content))
	if len(fields) < 2 {
		return 0, fmt.Errorf("read %s: %q has no second field", file, content)
	}
	pages, err := strconv.Atoi(fields[1])
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", file, err)
	}
	return pages * os.Getpagesize(), nil
}
