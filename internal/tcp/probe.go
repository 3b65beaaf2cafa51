//go:build linux

package tcp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
	"github.com/ebpfreceiver/ebpfreceiver/internal/ring"
	"github.com/ebpfreceiver/ebpfreceiver/internal/signal"
	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

// ProbeName is the value of the attribute probe in the receiver's own telemetry.
const ProbeName = "tcp"

// Config is how the probe works. Every field must be set.
type Config struct {
	// SnapshotInterval is how often open connections and listeners report.
	SnapshotInterval time.Duration
	// MetricsInterval is how often metrics are handed to the consumer.
	MetricsInterval time.Duration
	// Delta makes counters and histograms start anew with each MetricsInterval.
	Delta bool
	// MaxSeries is how many attribute sets metrics may have at a time; what comes beyond is counted in one set with
	// otel.metric.overflow.
	MaxSeries int
	// FlowLogs makes a log record of each connection's end and each snapshot.
	FlowLogs bool
	// Ring is the size and wake-up policy of the way out of the kernel.
	Ring ring.Config
	// Scope names the instrumentation scope of what the probe makes.
	Scope func(pcommon.InstrumentationScope)
}

// Sinks take what the probe makes. One that is nil has no pipeline.
type Sinks struct {
	Metrics func(context.Context, pmetric.Metrics) error
	Logs    func(context.Context, plog.Logs) error
}

const (
	// seriesExpiry is how long a cumulative series is kept after its last report.
	seriesExpiry = 5 * time.Minute
	// maxWaitingRecords bounds the flow records that wait for a consumer that blocks.
	maxWaitingRecords = 16384
	// minSnapshotPatience is how long a snapshot may take, however short its interval is.
	minSnapshotPatience = time.Second
	// consumerPatience is how long each part of a snapshot waits for the consumer of flow records.
	consumerPatience = 100 * time.Millisecond
	// resetDelay is how long after the end of a connection its reset may still follow: the kernel sends it in the
	// same call that closed the connection.
	resetDelay = time.Millisecond
)

// Probe follows the host's TCP connections.
type Probe struct {
	config    Config
	kernel    *kernel.Kernel
	workloads *workload.Table
	selector  *workload.Selector
	sinks     Sinks
	logger    *zap.Logger
	hooks     []hook

	loaded      sync.RWMutex // guards what is below against Stats
	collection  *ebpf.Collection
	reader      *ring.Reader
	snapshot    *link.Iter
	census      *link.Iter
	attachments []*kernel.Attachment
	handoff     *handoff
	stop        chan context.Context // the one of Shutdown
	done        sync.WaitGroup

	// Owned by the goroutine that run is.
	clock       *kernel.Clock
	aggregation *aggregation
	records     *records
	ended       []flow // ends of connections whose reset may still follow
	maxRecords  int

	counters counters
}

// counters are read by Stats while the probe runs.
type counters struct {
	events             [bpfFlowKindFLOW_LISTENER_END + 1]atomic.Uint64
	endsUnseen         atomic.Uint64 // the most that a census has found
	undecoded          atomic.Uint64
	recordsDropped     atomic.Uint64
	series, overflowed atomic.Uint64
	connections        atomic.Uint64 // at the last snapshot
}

// New makes a probe that does nothing until it is started. A nil selector observes every process.
func New(config Config, kern *kernel.Kernel, workloads *workload.Table, selector *workload.Selector, sinks Sinks, logger *zap.Logger) *Probe {
	return &Probe{
		config:      config,
		kernel:      kern,
		workloads:   workloads,
		selector:    selector,
		sinks:       sinks,
		logger:      logger,
		hooks:       hooks(),
		maxRecords:  maxWaitingRecords,
		stop:        make(chan context.Context, 1),
		clock:       kernel.NewClock(),
		aggregation: newAggregation(config.MaxSeries, config.Delta, seriesExpiry),
		records:     newRecords(config.Scope),
	}
}

// hook is one kernel program of the probe and what is lost without it.
type hook struct {
	program    string
	again      string // the same program once more, for what interrupts the first; empty: none
	tracepoint string
	without    string // empty: the probe cannot do without
}

func hooks() []hook {
	return []hook{
		{"tcp_state", "tcp_state_again", "inet_sock_set_state", ""},
		{"tcp_read", "", "tcp_rcv_space_adjust", "an accepted connection belongs to its listener's process until it is closed"},
		{"tcp_reset_received", "", "tcp_receive_reset", "received resets are not counted"},
		{"tcp_reset_sent", "", "tcp_send_reset", "sent resets are not counted"},
		{"tcp_synack_retransmitted", "", "tcp_retransmit_synack", "retransmitted SYN-ACKs are not counted"},
	}
}

// Start loads and attaches the kernel side, takes in what stands already, and begins to report.
// When it fails, nothing is left behind.
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
	if err := p.seed(); err != nil {
		p.logger.Warn("Connections that stood before the start stay unseen: "+err.Error(), zap.String("probe", ProbeName))
	}
	p.handoff = newHandoff(p.sinks, p.refused)
	p.done.Go(p.run)
	return nil
}

// Shutdown reports what is left, hands it over and detaches everything. When ctx ends, the consumers are not waited for.
func (p *Probe) Shutdown(ctx context.Context) error {
	if p.handoff == nil {
		return nil
	}
	p.stop <- ctx
	if err := p.reader.Wake(); err != nil {
		p.logger.Warn("Wake the TCP probe for its end", zap.Error(err))
	}
	p.done.Wait()
	err := p.handoff.close(ctx)
	p.handoff = nil
	return errors.Join(err, p.release())
}

func (p *Probe) load() error {
	spec, err := loadBpf()
	if err != nil {
		return fmt.Errorf("read the TCP probe's object: %w", err)
	}
	if err := spec.Variables["self_pid"].Set(uint32(os.Getpid())); err != nil {
		return fmt.Errorf("set self_pid of the TCP probe: %w", err)
	}
	p.dropAbsent(spec)
	collection, reader, err := ring.Load(p.kernel, spec, p.config.Ring)
	if err != nil {
		return fmt.Errorf("load the TCP probe: %w", err)
	}
	p.loaded.Lock()
	defer p.loaded.Unlock()
	p.collection, p.reader = collection, reader
	return nil
}

// dropAbsent leaves out the optional programs whose tracepoint this kernel does not have: one that cannot be loaded
// would keep all from being loaded.
func (p *Probe) dropAbsent(spec *ebpf.CollectionSpec) {
	for _, h := range p.hooks {
		if h.without != "" && !p.kernel.HasTracepoint(h.tracepoint) {
			delete(spec.Programs, h.program)
		}
	}
}

func (p *Probe) attach() error {
	for _, h := range p.hooks {
		programs := []*ebpf.Program{p.collection.Programs[h.program]}
		if h.again != "" {
			programs = append(programs, p.collection.Programs[h.again])
		}
		attachment, err := kernel.AttachTracing("tcp."+h.tracepoint, programs...)
		if err != nil {
			if h.without == "" {
				return fmt.Errorf("attach the TCP probe: %w", err)
			}
			p.logger.Warn("The TCP probe works without a hook: "+h.without, zap.Error(err))
			continue
		}
		p.attachments = append(p.attachments, attachment)
	}
	var err error
	if p.snapshot, err = p.attachWalk("tcp_snapshot"); err != nil {
		return err
	}
	p.census, err = p.attachWalk("tcp_census")
	return err
}

// attachWalk attaches an iterator over all connections.
func (p *Probe) attachWalk(program string) (*link.Iter, error) {
	walk, err := link.AttachIter(link.IterOptions{
		Program: p.collection.Programs[program],
		Map:     p.collection.Maps["connections"],
	})
	if err != nil {
		return nil, fmt.Errorf("attach the TCP probe's iterator %s: %w", program, err)
	}
	return walk, nil
}

// seed takes in the sockets that stood before: their owners come from the open files of all processes.
func (p *Probe) seed() error {
	iterator, err := link.AttachIter(link.IterOptions{Program: p.collection.Programs["tcp_seed"]})
	if err != nil {
		return fmt.Errorf("attach the iterator over open files: %w", err)
	}
	defer iterator.Close()
	file, err := iterator.Open()
	if err != nil {
		return fmt.Errorf("open the iterator over open files: %w", err)
	}
	defer file.Close()
	if _, err := io.Copy(io.Discard, file); err != nil {
		return fmt.Errorf("walk the open files of all processes: %w", err)
	}
	return nil
}

func (p *Probe) release() error {
	p.loaded.Lock()
	defer p.loaded.Unlock()
	var errs []error
	for _, attachment := range p.attachments {
		errs = append(errs, attachment.Close())
	}
	for _, walk := range []*link.Iter{p.snapshot, p.census} {
		if walk != nil {
			errs = append(errs, walk.Close())
		}
	}
	if p.reader != nil {
		errs = append(errs, p.reader.Close())
	}
	if p.collection != nil {
		p.collection.Close()
	}
	p.attachments, p.snapshot, p.census, p.reader, p.collection = nil, nil, nil, nil, nil
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("release the TCP probe: %w", err)
	}
	return nil
}

// run drains the ring, takes snapshots and hands over, all in one goroutine: nothing it owns needs a lock.
func (p *Probe) run() {
	start := time.Now()
	nextSnapshot := start.Add(p.config.SnapshotInterval)
	nextFlush := start.Add(p.config.MetricsInterval)
	p.takeSnapshot(start)
	for {
		select {
		case ctx := <-p.stop:
			p.finish(ctx)
			return
		default:
		}
		p.drain()
		now := time.Now()
		if !now.Before(nextSnapshot) {
			p.takeSnapshot(now)
			nextSnapshot = signal.Next(nextSnapshot, p.config.SnapshotInterval, now)
		}
		if !now.Before(nextFlush) && p.flushMetrics(now) {
			nextFlush = signal.Next(nextFlush, p.config.MetricsInterval, now)
		}
		p.flushRecords()
	}
}

// finish reports what the probe still knows.
func (p *Probe) finish(ctx context.Context) {
	for _, attachment := range p.attachments {
		if err := attachment.Close(); err != nil {
			p.logger.Warn("Detach a hook of the TCP probe", zap.Error(err))
		}
	}
	p.drainNow()
	now := time.Now()
	p.takeSnapshot(now)
	p.writeEnded(0)
	if p.sinks.Metrics != nil {
		if metrics := p.aggregation.flush(now, p.config.Scope); metrics.DataPointCount() > 0 {
			p.handoff.metrics.Insist(ctx, metrics)
		}
	}
	if p.records.count > 0 {
		p.handoff.logs.Insist(ctx, p.records.take())
	}
}

func (p *Probe) drain() {
	p.clock.Refresh()
	now := time.Now()
	if _, err := p.reader.Drain(func(sample []byte) { p.handle(sample, now) }); err != nil {
		p.logger.Error("Read the TCP probe's ring", zap.Error(err))
	}
	if len(p.ended) > 0 {
		p.writeEnded(resetDelay)
	}
}

// drainNow reads what is in the ring without waiting for more.
func (p *Probe) drainNow() {
	if err := p.reader.Wake(); err != nil {
		p.logger.Error("Wake the TCP probe's reader", zap.Error(err))
	}
	p.drain()
}

func (p *Probe) handle(sample []byte, now time.Time) {
	f, err := decodeFlow(sample)
	if err != nil || int(f.Kind) >= len(p.counters.events) {
		p.counters.undecoded.Add(1)
		return
	}
	p.counters.events[f.Kind].Add(1)
	owner := p.owner(f)
	if !p.selector.Match(owner, f.servicePort()) {
		return
	}
	p.aggregation.add(f, owner, now)
	if p.sinks.Logs == nil || !p.config.FlowLogs {
		return
	}
	switch f.kind() {
	case bpfFlowKindFLOW_SNAPSHOT:
		p.record(f, owner, now)
	case bpfFlowKindFLOW_END:
		p.ended = append(p.ended, *f)
	case bpfFlowKindFLOW_RESET_SENT:
		for i := len(p.ended) - 1; i >= 0; i-- {
			if p.ended[i].Cookie == f.Cookie {
				p.ended[i].ResetsSent = f.ResetsSent
				break
			}
		}
	}
}

// writeEnded makes records of the connections that ended at least age ago.
func (p *Probe) writeEnded(age time.Duration) {
	now := time.Now()
	kept := 0
	for i := range p.ended {
		f := &p.ended[i]
		if age > 0 && now.Sub(p.clock.Wall(f.TimeNs)) < age {
			p.ended[kept] = *f
			kept++
			continue
		}
		p.record(f, p.owner(f), now)
	}
	p.ended = p.ended[:kept]
}

func (p *Probe) record(f *flow, owner *workload.Workload, now time.Time) {
	if p.records.count >= p.maxRecords {
		p.flushRecords()
	}
	if p.records.count >= p.maxRecords {
		p.counters.recordsDropped.Add(1)
		return
	}
	p.records.add(f, owner, p.clock, now)
}

func (p *Probe) owner(f *flow) *workload.Workload {
	return p.workloads.Lookup(f.processKey(), workload.Hint{
		Comm:         kernel.Text(f.Owner.Comm[:]),
		CgroupID:     f.CgroupId,
		KernelThread: f.Owner.KernelThread != 0,
	})
}

// takeSnapshot lets the kernel report every socket that the probe follows. The kernel's walk stops when the ring is half
// full, and goes on after it was drained.
func (p *Probe) takeSnapshot(now time.Time) {
	walk, err := p.snapshot.Open()
	if err != nil {
		p.logger.Error("Open the snapshot of TCP connections", zap.Error(err))
		return
	}
	defer walk.Close()

	p.aggregation.beginSnapshot()
	before := p.snapshotReports()
	patience := time.Now().Add(max(p.config.SnapshotInterval, minSnapshotPatience))
	var nothing [1]byte // the walk reports through the ring
	for {
		_, err := walk.Read(nothing[:])
		p.drainNow()
		p.flushRecords()
		if errors.Is(err, io.EOF) {
			break
		}
		if !errors.Is(err, unix.EAGAIN) || time.Now().After(patience) {
			p.logger.Error("Take a snapshot of TCP connections: it is not complete", zap.Error(err))
			break
		}
		p.awaitConsumer()
	}
	p.aggregation.endSnapshot()
	if err := p.takeCensus(); err != nil {
		p.logger.Error("Count the TCP connections whose end went unseen", zap.Error(err))
	}
	connections := p.snapshotReports() - before
	p.counters.connections.Store(connections)
	p.logger.Debug("Took a snapshot", zap.String("probe", ProbeName),
		zap.Uint64("connections", connections), zap.Duration("took", time.Since(now)))
}

// takeCensus counts the connections whose end went unseen: they began, and neither ended nor live. The kernel runs no
// program where it is running already on the same CPU, and some kernels run none at all while a certain process is
// current, not even for what interrupts it.
//
// What begins or ends meanwhile can only make the count smaller, so the largest is the best.
func (p *Probe) takeCensus() error {
	begun, err := p.counted(bpfCensusCountCENSUS_BEGUN)
	if err != nil {
		return err
	}
	aliveBefore, err := p.counted(bpfCensusCountCENSUS_ALIVE)
	if err != nil {
		return err
	}
	walk, err := p.census.Open()
	if err != nil {
		return fmt.Errorf("open the walk over all connections: %w", err)
	}
	defer walk.Close()
	var nothing [1]byte // the walk tells by its counter
	if _, err := walk.Read(nothing[:]); !errors.Is(err, io.EOF) {
		return fmt.Errorf("walk over all connections: %w", err)
	}
	aliveAfter, err := p.counted(bpfCensusCountCENSUS_ALIVE)
	if err != nil {
		return err
	}
	ended, err := p.counted(bpfCensusCountCENSUS_ENDED)
	if err != nil {
		return err
	}
	if known := ended + aliveAfter - aliveBefore; begun > known+p.counters.endsUnseen.Load() {
		p.counters.endsUnseen.Store(begun - known)
	}
	return nil
}

func (p *Probe) counted(which bpfCensusCount) (uint64, error) {
	count, err := kernel.ReadCounter(p.collection.Maps["census"], uint32(which))
	if err != nil {
		return 0, fmt.Errorf("read counter %d of the census: %w", which, err)
	}
	return count, nil
}

// snapshotReports counts the sockets that snapshots have told of.
func (p *Probe) snapshotReports() uint64 {
	return p.counters.events[bpfFlowKindFLOW_SNAPSHOT].Load() + p.counters.events[bpfFlowKindFLOW_LISTENER].Load()
}

// awaitConsumer gives the consumer of flow records a while before a snapshot makes more than may wait for it.
func (p *Probe) awaitConsumer() {
	for range consumerPatience / time.Millisecond {
		if p.records.count < p.maxRecords/2 || p.handoff.logs.Idle() {
			break
		}
		time.Sleep(time.Millisecond)
	}
	p.flushRecords()
}

// flushMetrics says false when the consumer has not taken the metrics before: they go on accumulating.
func (p *Probe) flushMetrics(now time.Time) bool {
	if p.sinks.Metrics == nil {
		p.aggregation.forget(now)
		return true
	}
	if !p.handoff.metrics.Idle() {
		return false
	}
	metrics := p.aggregation.flush(now, p.config.Scope)
	p.counters.series.Store(uint64(len(p.aggregation.series)))
	p.counters.overflowed.Store(p.aggregation.overflowed)
	if metrics.DataPointCount() > 0 {
		p.handoff.metrics.Offer(metrics)
	}
	return true
}

func (p *Probe) flushRecords() {
	if p.records.count > 0 && p.handoff.logs.Idle() {
		p.handoff.logs.Offer(p.records.take())
	}
}

func (p *Probe) refused(signal string, err error) {
	p.logger.Error("The next consumer refused "+signal+" of the TCP probe", zap.Error(err))
}

// Attachments says which rung each hook of the running probe got.
func (p *Probe) Attachments() []*kernel.Attachment { return p.attachments }

// Stats is what the probe says of itself. It may be called at any time; a probe that does not run has only its counters.
func (p *Probe) Stats() kernel.Stats {
	stats := kernel.Stats{
		Losses: []kernel.LossCount{
			{Probe: ProbeName, Reason: "undecodable", Count: p.counters.undecoded.Load()},
			{Probe: ProbeName, Reason: "consumer_blocked", Count: p.counters.recordsDropped.Load()},
			{Probe: ProbeName, Reason: "end_unseen", Count: p.counters.endsUnseen.Load()},
		},
		Maps: []kernel.MapUsage{
			{Probe: ProbeName, Map: "connections", Entries: p.counters.connections.Load()},
			{Probe: ProbeName, Map: "series", Entries: p.counters.series.Load(), Capacity: uint64(p.config.MaxSeries)},
		},
	}
	for kind := range p.counters.events {
		if name := eventName(bpfFlowKind(kind)); name != "" {
			stats.Events = append(stats.Events, kernel.EventCount{
				Probe: ProbeName, Kind: name, Count: p.counters.events[kind].Load(),
			})
		}
	}
	stats.Events = append(stats.Events,
		kernel.EventCount{Probe: ProbeName, Kind: "series_overflow", Count: p.counters.overflowed.Load()})

	p.loaded.RLock()
	defer p.loaded.RUnlock()
	if p.collection == nil {
		return stats
	}
	loaded, err := ring.Stats(ProbeName, p.collection, p.reader, lossReasons[:])
	if err != nil {
		p.logger.Error("Read what the TCP probe lost", zap.Error(err))
	}
	stats.Add(loaded)
	stats.Losses = append(stats.Losses, kernel.LossCount{
		Probe: ProbeName, Reason: "program_busy", Count: missed(stats.Programs),
	})
	return stats
}

// missed counts the resets and retransmitted SYN-ACKs that went unseen because the program that counts them was running
// already on the same CPU. State changes are seen by the second of two programs then. Who reads from a connection is asked
// again at the next read.
func missed(programs []kernel.ProgramStats) uint64 {
	var count uint64
	for _, program := range programs {
		switch program.Program {
		case "tcp_reset_received", "tcp_reset_sent", "tcp_synack_retransmitted":
			count += program.Misses
		}
	}
	return count
}

// lossReasons names the reasons of bpf/include/loss.h in the receiver's telemetry.
var lossReasons = [bpfLossReasonLOSS_REASONS]string{
	bpfLossReasonLOSS_RING_FULL:    "ring_full",
	bpfLossReasonLOSS_STORAGE_FULL: "storage_full",
	bpfLossReasonLOSS_UNTRACKED:    "untracked",
}

func eventName(kind bpfFlowKind) string {
	switch kind {
	case bpfFlowKindFLOW_END:
		return "end"
	case bpfFlowKindFLOW_SNAPSHOT:
		return "snapshot"
	case bpfFlowKindFLOW_RESET_SENT:
		return "reset_sent"
	case bpfFlowKindFLOW_LISTENER:
		return "listener"
	case bpfFlowKindFLOW_LISTENER_END:
		return "listener_end"
	}
	return ""
}
