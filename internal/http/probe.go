//go:build linux

package http

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.uber.org/zap"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http/tls"
	"github.com/ebpfreceiver/ebpfreceiver/internal/http/tls/site"
	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
	"github.com/ebpfreceiver/ebpfreceiver/internal/ring"
	"github.com/ebpfreceiver/ebpfreceiver/internal/signal"
	"github.com/ebpfreceiver/ebpfreceiver/internal/timeline"
	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

// ProbeName is the value of the attribute probe in the receiver's own telemetry.
const ProbeName = "http"

// Config is how the probe works. Every field must be set.
type Config struct {
	// HeadBytes is how much of a message is copied at most, for its head: 64 to 4096.
	HeadBytes int
	// MaxConnections is how many connections that carry HTTP are followed at a time.
	MaxConnections int
	// RoutePatterns (may be empty) and RouteUnmatched say how a path becomes a route: see compileRoutes.
	RoutePatterns  []string
	RouteUnmatched string
	// RouteGoMux has programs of Go tell which pattern of a net/http.ServeMux each request has matched.
	RouteGoMux bool
	// Propagators (may be empty) are the trace contexts that are believed, by the names of the constants. Their order is of
	// no account: W3C Trace Context comes first, B3 last.
	Propagators []string
	// GenAI reads of the bodies of requests to model servers, and of the responses, what genai.Read does.
	GenAI bool
	// ExcludeInstrumented leaves out processes that send their own traces.
	ExcludeInstrumented bool
	// Sampling says which spans are reported.
	Sampling Sampling
	// MetricsInterval is how often metrics are handed to the consumer.
	MetricsInterval time.Duration
	// Delta makes histograms start anew with each MetricsInterval.
	Delta bool
	// MaxSeries is how many attribute sets metrics may have at a time; what comes beyond is counted in one set with
	// otel.metric.overflow.
	MaxSeries int
	// TLS says what of encrypted connections is followed.
	TLS TLSConfig
	// Timeline is told who serves which request, for other probes; nil: none asks.
	Timeline *timeline.Timeline
	// Ring is the size and wake-up policy of the way out of the kernel.
	Ring ring.Config
	// Scope names the instrumentation scope of what the probe makes.
	Scope func(pcommon.InstrumentationScope)
}

// TLSConfig says by which libraries processes encrypt what is followed.
type TLSConfig struct {
	OpenSSL bool // and what is made of it
	Go      bool // crypto/tls
}

// Sinks take what the probe makes. One that is nil has no pipeline.
type Sinks struct {
	Traces  func(context.Context, ptrace.Traces) error
	Metrics func(context.Context, pmetric.Metrics) error
}

const (
	// seriesExpiry is how long a cumulative series is kept after its last exchange.
	seriesExpiry = 5 * time.Minute
	// maxWaitingSpans bounds the spans that wait for a consumer that blocks.
	maxWaitingSpans = 16384
	// sweepInterval is how often connections are looked for whose end was lost.
	sweepInterval = time.Minute
)

// Probe follows the HTTP exchanges of the host.
type Probe struct {
	config   Config
	kernel   *kernel.Kernel
	selector *workload.Selector
	sinks    Sinks
	logger   *zap.Logger
	procFS   string       // of the host's processes
	haveTLS  func() error // why this host does not let TLS be observed

	loaded      sync.RWMutex // guards what is below against Stats
	collection  *ebpf.Collection
	reader      *ring.Reader
	attachments []*kernel.Attachment
	inspector   *inspector
	goTables    *goTables
	runtimes    *runtimes
	secure      *secure // nil: nothing is followed that is encrypted
	traces      *signal.Handoff[ptrace.Traces]
	metrics     *signal.Handoff[pmetric.Metrics]
	stop        chan context.Context // the one of Shutdown
	done        sync.WaitGroup

	// Owned by the goroutine that run is.
	clock        *kernel.Clock
	pairing      *pairing
	indirect     *indirect
	owners       owners
	schedulers   schedulers
	instrumented *instrumented // nil: nobody is left out for it
	identifier   *identifier
	sampler      *sampler
	routes       *routeTable
	aggregation  *aggregation
	spans        *spans

	counters counters
}

// counters are read by Stats while the probe runs.
type counters struct {
	messages           [bpfMessageKindMESSAGE_ROUTE + 1]atomic.Uint64
	server, client     atomic.Uint64 // exchanges
	exports            atomic.Uint64 // of processes that are left out for it
	unsampled          atomic.Uint64
	undecoded          atomic.Uint64
	spansDropped       atomic.Uint64
	series, overflowed atomic.Uint64
	joined             atomic.Uint64
	parents            atomic.Uint64 // that were found for clients
	learned, unmatched atomic.Uint64 // tables of programs of Go
	streamsUnmatched   atomic.Uint64
	// Patterns of programs of Go.
	routesTold, routesUntied, routesTooLong, routesUnlike atomic.Uint64
	units, unlisted                                       atomic.Uint64
	kept, unkept                                          atomic.Uint64
	connections                                           atomic.Uint64
	drops                                                 [dropReasons]atomic.Uint64
}

// hook is one kernel program of the probe.
type hook struct {
	program, tracepoint string
	optional            bool // what it sees is not there where the kernel does not have it
}

func hooks() []hook {
	return []hook{
		{program: "http_send", tracepoint: "tcp_sendmsg_locked"},
		{program: "http_receive", tracepoint: "sock_recv_length"},
		{program: "http_end", tracepoint: "tcp_destroy_sock"},
		{program: "http_uring", tracepoint: "io_uring_create", optional: true},
	}
}

// ValidateRoutes checks patterns of routes. Each error begins with the pattern's place in the list, patterns[0] and so on.
func ValidateRoutes(patterns []string) error {
	_, err := compileRoutes(patterns, "")
	return err
}

// ValidatePropagators checks names of propagators. Each error begins with the name's place in the list, propagators[0]
// and so on.
func ValidatePropagators(names []string) error {
	_, err := compilePropagators(names)
	return err
}

// New makes a probe that does nothing until it is started. A nil selector observes every process.
func New(config Config, kern *kernel.Kernel, workloads *workload.Table, selector *workload.Selector, sinks Sinks, logger *zap.Logger) (*Probe, error) {
	routes, err := newRouteTable(config.RoutePatterns, config.RouteUnmatched)
	if err != nil {
		return nil, err
	}
	believed, err := compilePropagators(config.Propagators)
	if err != nil {
		return nil, err
	}
	thinning, err := newSampler(config.Sampling)
	if err != nil {
		return nil, err
	}
	p := &Probe{
		config:      config,
		kernel:      kern,
		selector:    selector,
		sinks:       sinks,
		logger:      logger,
		stop:        make(chan context.Context, 1),
		clock:       kernel.NewClock(),
		owners:      newOwners(workloads),
		identifier:  &identifier{random: rand.Uint64, propagators: believed},
		sampler:     thinning,
		routes:      routes,
		aggregation: newAggregation(config.MaxSeries, config.Delta, seriesExpiry),
		spans:       newSpans(config.Scope),
		procFS:      workloads.ProcFS(),
		haveTLS:     haveTLS,
	}
	if config.ExcludeInstrumented {
		p.instrumented = newInstrumented()
	}
	p.pairing = newPairing(config.MaxConnections, p.owner, p.tell)
	p.pairing.genAI = config.GenAI
	p.pairing.serving.timeline = config.Timeline
	p.pairing.locate, p.pairing.schedules = p.locate, p.schedules
	p.pairing.tables.want = func(head *messageHead) { p.goTables.want(head.processKey()) }
	p.pairing.secured = func(m *message, head *messageHead) bool { return p.secure.notice(m, head, time.Now()) }
	return p, nil
}

// Start loads and attaches the kernel side and begins to report. When it fails, nothing is left behind.
func (p *Probe) Start() (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, p.release())
		}
	}()
	if err := p.load(); err != nil {
		return err
	}
	if err := p.attach(); err != nil {
		return err
	}
	p.clock.Refresh()
	p.pairing.sinceNs = p.clock.Monotonic(time.Now())
	p.traces = signal.NewHandoff(4, p.sinks.Traces, func(err error) { p.refused("traces", err) })
	p.metrics = signal.NewHandoff(1, p.sinks.Metrics, func(err error) { p.refused("metrics", err) })
	p.done.Go(p.run)
	return nil
}

// Shutdown reports what is left, hands it over and detaches everything. When ctx ends, the consumers are not waited for.
func (p *Probe) Shutdown(ctx context.Context) error {
	if p.traces == nil {
		return nil
	}
	p.stop <- ctx
	if err := p.reader.Wake(); err != nil {
		p.logger.Warn("Wake the HTTP probe for its end", zap.Error(err))
	}
	p.done.Wait()
	err := signal.CloseAll(ctx, p.traces, p.metrics)
	p.traces, p.metrics = nil, nil
	if err != nil {
		err = fmt.Errorf("stop the HTTP probe's hand-over: %w", err)
	}
	return errors.Join(err, p.release())
}

func (p *Probe) load() error {
	spec, err := loadBpf()
	if err != nil {
		return fmt.Errorf("read the HTTP probe's object: %w", err)
	}
	for name, value := range map[string]any{
		"self_pid":   uint32(os.Getpid()),
		"head_bytes": uint32(p.config.HeadBytes),
		"gen_ai":     p.config.GenAI,
		"follow_tls": p.config.TLS != TLSConfig{},
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			return fmt.Errorf("set %s of the HTTP probe: %w", name, err)
		}
	}
	for _, name := range []string{openSSLProgram, goProgram, goClientProgram, goStreamsProgram, goTablesProgram, goRoutesProgram} {
		spec.Programs[name].AttachType = ebpf.AttachTraceUprobeMulti
	}
	for _, h := range hooks() {
		if h.optional && !p.kernel.HasTracepoint(h.tracepoint) {
			delete(spec.Programs, h.program)
		}
	}
	collection, reader, err := ring.Load(p.kernel, spec, p.config.Ring)
	if err != nil {
		return fmt.Errorf("load the HTTP probe (it needs the tracepoints sock_recv_length, Linux 6.3, and tcp_sendmsg_locked, Linux 6.16): %w", err)
	}
	p.loaded.Lock()
	defer p.loaded.Unlock()
	p.collection, p.reader = collection, reader
	return nil
}

func (p *Probe) attach() error {
	for _, h := range hooks() {
		program := p.collection.Programs[h.program]
		if program == nil {
			continue
		}
		attachment, err := kernel.AttachTracing("http."+h.tracepoint, program)
		if err != nil {
			return err
		}
		p.attachments = append(p.attachments, attachment)
	}
	p.indirect = newIndirect(p.collection, p.logger)
	p.pairing.hidden = newPipelining(p.collection, p.logger).note
	return p.inspect()
}

// inspect begins to look into processes, for what the kernel side cannot know by itself.
func (p *Probe) inspect() error {
	inspector := newInspector(p.procFS, p.logger)
	runtimes, err := newRuntimes(inspector.ask, &goProcesses{
		entries: p.collection.Maps["go_processes"], added: p.collection.Variables["go_processes_added"],
	}, p.logger)
	if err != nil {
		return fmt.Errorf("look for programs of Go: %w", err)
	}
	runtimes.timeline = p.config.Timeline
	config := tls.Config{
		ProcFS: p.procFS, WithoutOpenSSL: !p.config.TLS.OpenSSL, WithoutGo: !p.config.TLS.Go,
		GoFunctions: goClientFunctions(), Functions: &goClients{
			client: p.collection.Programs[goClientProgram], streams: p.collection.Programs[goStreamsProgram], logger: p.logger,
			handledElsewhere: p.config.RouteGoMux,
		},
	}
	if p.config.RouteGoMux {
		runtimes.routes = true
		config.GoFunctions = append(config.GoFunctions, site.GoMux)
		config.Mux = &goMux{
			routes: p.collection.Programs[goRoutesProgram], streams: p.collection.Programs[goStreamsProgram],
		}
	}
	var secure *secure
	if p.config.TLS != (TLSConfig{}) {
		if secure, err = newSecure(inspector.ask); err != nil {
			return fmt.Errorf("attach the HTTP probe to TLS: %w", err)
		}
		attachment, err := secure.allow(p.haveTLS)
		if err != nil {
			p.logger.Warn("Cannot observe TLS on this host: only HTTP without it is observed", zap.Error(err))
		} else {
			p.attachments = append(p.attachments, attachment)
			config.TLS = secure.uprobes(p.collection.Programs[openSSLProgram], p.collection.Programs[goProgram])
		}
	}
	goTables, err := newGoTables(
		p.procFS, p.collection.Programs[goTablesProgram], p.collection.Maps["go_table_processes"], p.logger)
	if err != nil {
		return fmt.Errorf("look for programs of Go: %w", err)
	}
	inspector.start(tls.NewFinder(config, p.logger), runtimes, p.owners.table, config.TLS != nil)
	p.loaded.Lock()
	defer p.loaded.Unlock()
	p.inspector, p.goTables, p.runtimes, p.secure = inspector, goTables, runtimes, secure
	return nil
}

func (p *Probe) release() error {
	p.loaded.Lock()
	defer p.loaded.Unlock()
	errs := []error{p.inspector.close(), p.indirect.close()}
	p.goTables.close()
	p.inspector, p.goTables, p.secure, p.runtimes, p.indirect = nil, nil, nil, nil, nil
	for _, attachment := range p.attachments {
		errs = append(errs, attachment.Close())
	}
	if p.reader != nil {
		errs = append(errs, p.reader.Close())
	}
	if p.collection != nil {
		p.collection.Close()
	}
	p.attachments, p.reader, p.collection = nil, nil, nil
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("release the HTTP probe: %w", err)
	}
	return nil
}

// run drains the ring and hands over, all in one goroutine: nothing it owns needs a lock.
func (p *Probe) run() {
	start := time.Now()
	nextFlush := start.Add(p.config.MetricsInterval)
	nextSweep := start.Add(sweepInterval)
	for {
		select {
		case ctx := <-p.stop:
			p.finish(ctx)
			return
		default:
		}
		p.drain()
		p.indirect.follow()
		now := time.Now()
		if !now.Before(nextFlush) && p.flushMetrics(now) {
			nextFlush = signal.Next(nextFlush, p.config.MetricsInterval, now)
		}
		if !now.Before(nextSweep) {
			p.pairing.sweep(p.clock.Monotonic(now))
			nextSweep = now.Add(sweepInterval)
		}
		p.flushSpans()
		p.publish()
	}
}

// finish reports what the probe still knows. Exchanges that are under way are not told of: how they end is not known.
func (p *Probe) finish(ctx context.Context) {
	p.clock.Refresh()
	p.pairing.untilNs = p.clock.Monotonic(time.Now())
	for _, attachment := range p.attachments {
		if err := attachment.Close(); err != nil {
			p.logger.Warn("Detach a hook of the HTTP probe", zap.Error(err))
		}
	}
	if err := p.indirect.close(); err != nil {
		p.logger.Warn("Detach a hook of the HTTP probe", zap.Error(err))
	}
	if err := p.reader.Wake(); err != nil {
		p.logger.Error("Wake the HTTP probe's reader", zap.Error(err))
	}
	p.drain()
	if p.sinks.Metrics != nil {
		if metrics := p.aggregation.flush(time.Now(), p.config.Scope); metrics.DataPointCount() > 0 {
			p.metrics.Insist(ctx, metrics)
		}
	}
	if p.spans.count > 0 {
		p.traces.Insist(ctx, p.spans.take())
	}
	p.publish()
}

func (p *Probe) drain() {
	p.clock.Refresh()
	p.owners.forget()
	p.schedulers.forget()
	if _, err := p.reader.Drain(p.handle); err != nil {
		p.logger.Error("Read the HTTP probe's ring", zap.Error(err))
	}
	if err := p.config.Timeline.Publish(); err != nil {
		p.logger.Warn("Tell other programs which spans are served", zap.Error(err))
	}
}

func (p *Probe) handle(sample []byte) {
	m, head, data, err := decode(sample)
	if err != nil || int(m.Kind) >= len(p.counters.messages) {
		p.counters.undecoded.Add(1)
		return
	}
	p.counters.messages[m.Kind].Add(1)
	if m.kind() == bpfMessageKindMESSAGE_WAKE {
		return
	}
	p.pairing.handle(m, head, data)
}

// owner tells the process at this end of an exchange, and whether it is observed.
func (p *Probe) owner(head *messageHead, role Role) (*workload.Workload, bool) {
	owner := p.owners.find(head)
	servicePort := head.LocalPort
	if role == RoleClient {
		servicePort = head.PeerPort
	}
	return owner, p.selector.Match(owner, servicePort) && !p.instrumented.knows(owner)
}

// locate gives an exchange that begins its place in a trace.
func (p *Probe) locate(e *Exchange) identity {
	id := p.identifier.identify(e)
	id.threshold = max(id.threshold, p.sampler.thresholdFor(e))
	return id
}

// schedules says what a process serves requests with: see runtimes.
func (p *Probe) schedules(head *messageHead, role Role) scheduling {
	return p.schedulers.find(p.runtimes, head.processKey(), role)
}

// tell makes a span and counts of an exchange.
func (p *Probe) tell(e *Exchange) {
	e.known = p.pairing.known
	if p.instrumented.note(e) {
		p.counters.exports.Add(1)
		return
	}
	if e.Role == RoleServer {
		p.counters.server.Add(1)
	} else {
		p.counters.client.Add(1)
	}
	id := e.id
	p.sampler.keep(e, &id)
	id.sampled = id.sampled && p.sinks.Traces != nil // an exemplar points to a span that somebody gets
	route := p.routes.route(e)
	if p.sinks.Metrics != nil {
		p.aggregation.add(e, route, id, p.clock.Wall(e.EndNs))
	}
	if !id.sampled {
		return
	}
	if p.spans.count >= maxWaitingSpans {
		p.flushSpans()
	}
	if p.spans.count >= maxWaitingSpans {
		p.counters.spansDropped.Add(1)
		return
	}
	p.spans.add(e, route, id, p.clock.Wall)
}

// flushMetrics says false when the consumer has not taken the metrics before: they go on accumulating.
func (p *Probe) flushMetrics(now time.Time) bool {
	if p.sinks.Metrics == nil {
		return true
	}
	if !p.metrics.Idle() {
		return false
	}
	if metrics := p.aggregation.flush(now, p.config.Scope); metrics.DataPointCount() > 0 {
		p.metrics.Offer(metrics)
	}
	return true
}

func (p *Probe) flushSpans() {
	if p.spans.count > 0 && p.traces.Idle() {
		p.traces.Offer(p.spans.take())
	}
}

func (p *Probe) refused(signal string, err error) {
	p.logger.Error("The next consumer refused "+signal+" of the HTTP probe", zap.Error(err))
}

// publish lets Stats see what the goroutine of run counts.
func (p *Probe) publish() {
	p.counters.connections.Store(uint64(len(p.pairing.connections)))
	p.counters.series.Store(uint64(len(p.aggregation.series) + len(p.aggregation.genAI)))
	p.counters.overflowed.Store(p.aggregation.overflowed)
	p.counters.unsampled.Store(p.sampler.unsampled)
	p.counters.joined.Store(p.pairing.joined)
	p.counters.parents.Store(p.pairing.serving.told)
	p.counters.learned.Store(p.pairing.tables.learned)
	p.counters.unmatched.Store(p.pairing.tables.unmatched)
	p.counters.streamsUnmatched.Store(p.pairing.goStreams.unmatched)
	p.counters.routesTold.Store(p.pairing.goRoutes.told)
	p.counters.routesUntied.Store(p.pairing.goRoutes.untied)
	p.counters.routesTooLong.Store(p.pairing.goRoutes.tooLong)
	p.counters.routesUnlike.Store(p.pairing.goRoutes.unlike)
	p.counters.units.Store(uint64(len(p.pairing.serving.units)))
	p.counters.unlisted.Store(p.pairing.serving.full)
	p.counters.kept.Store(uint64(p.pairing.kept))
	p.counters.unkept.Store(p.pairing.unkept)
	for reason, count := range p.pairing.drops {
		p.counters.drops[reason].Store(count)
	}
}

// Attachments says which rung each hook of the running probe got.
func (p *Probe) Attachments() []*kernel.Attachment { return p.attachments }

// Stats is what the probe says of itself. It may be called at any time; a probe that does not run has only its counters.
func (p *Probe) Stats() kernel.Stats {
	stats := kernel.Stats{
		Events: []kernel.EventCount{
			{Probe: ProbeName, Kind: "head", Count: p.counters.messages[bpfMessageKindMESSAGE_HEAD].Load()},
			{Probe: ProbeName, Kind: "data", Count: p.counters.messages[bpfMessageKindMESSAGE_DATA].Load()},
			{Probe: ProbeName, Kind: "connection_end", Count: p.counters.messages[bpfMessageKindMESSAGE_END].Load()},
			{Probe: ProbeName, Kind: "server_exchange", Count: p.counters.server.Load()},
			{Probe: ProbeName, Kind: "client_exchange", Count: p.counters.client.Load()},
			{Probe: ProbeName, Kind: "joined_midway", Count: p.counters.joined.Load()},
			{Probe: ProbeName, Kind: "parent_found", Count: p.counters.parents.Load()},
			{Probe: ProbeName, Kind: "go_table_learned", Count: p.counters.learned.Load()},
			{Probe: ProbeName, Kind: "go_table_unmatched", Count: p.counters.unmatched.Load()},
			{Probe: ProbeName, Kind: "go_stream_unmatched", Count: p.counters.streamsUnmatched.Load()},
			{Probe: ProbeName, Kind: "go_route", Count: p.counters.routesTold.Load()},
			{Probe: ProbeName, Kind: "go_route_untied", Count: p.counters.routesUntied.Load()},
			{Probe: ProbeName, Kind: "go_route_too_long", Count: p.counters.routesTooLong.Load()},
			{Probe: ProbeName, Kind: "go_route_unlike_path", Count: p.counters.routesUnlike.Load()},
			{Probe: ProbeName, Kind: "trace_export", Count: p.counters.exports.Load()},
			{Probe: ProbeName, Kind: "not_sampled", Count: p.counters.unsampled.Load()},
			{Probe: ProbeName, Kind: "series_overflow", Count: p.counters.overflowed.Load()},
		},
		Losses: []kernel.LossCount{
			{Probe: ProbeName, Reason: "undecodable", Count: p.counters.undecoded.Load()},
			{Probe: ProbeName, Reason: "consumer_blocked", Count: p.counters.spansDropped.Load()},
			{Probe: ProbeName, Reason: "serving_table_full", Count: p.counters.unlisted.Load()},
			{Probe: ProbeName, Reason: "gen_ai_table_full", Count: p.counters.unkept.Load()},
		},
		Maps: []kernel.MapUsage{
			{Probe: ProbeName, Map: "connections", Entries: p.counters.connections.Load(), Capacity: uint64(p.config.MaxConnections)},
			{Probe: ProbeName, Map: "serving", Entries: p.counters.units.Load(), Capacity: maxUnits},
			{Probe: ProbeName, Map: "gen_ai", Entries: p.counters.kept.Load(), Capacity: maxBodies},
			{Probe: ProbeName, Map: "series", Entries: p.counters.series.Load(), Capacity: uint64(p.config.MaxSeries)},
		},
	}
	for reason := range p.counters.drops {
		stats.Losses = append(stats.Losses, kernel.LossCount{
			Probe: ProbeName, Reason: dropReason(reason).String(), Count: p.counters.drops[reason].Load(),
		})
	}

	p.loaded.RLock()
	defer p.loaded.RUnlock()
	if p.collection == nil {
		return stats
	}
	stats.Add(p.inspector.stats())
	stats.Losses = append(stats.Losses, kernel.LossCount{
		Probe: ProbeName, Reason: "tls_unobserved", Count: p.secure.unobservedCount(),
	})
	stats.Add(p.goTables.stats())
	loaded, err := ring.Stats(ProbeName, p.collection, p.reader, lossReasons[:])
	if err != nil {
		p.logger.Error("Read what the HTTP probe lost", zap.Error(err))
	}
	stats.Add(loaded)
	return stats
}

// lossReasons names the reasons of bpf/include/loss.h in the receiver's telemetry; the probe has no use for the others.
var lossReasons = [bpfLossReasonLOSS_REASONS]string{
	bpfLossReasonLOSS_RING_FULL:    "ring_full",
	bpfLossReasonLOSS_STORAGE_FULL: "storage_full",
	bpfLossReasonLOSS_UNTIED:       "untied_tls",
	bpfLossReasonLOSS_PROGRAM_BUSY: "program_busy",
}
