//go:build linux

package cpu

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pprofile"
	"go.uber.org/zap"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
	"github.com/ebpfreceiver/ebpfreceiver/internal/ring"
	"github.com/ebpfreceiver/ebpfreceiver/internal/signal"
	"github.com/ebpfreceiver/ebpfreceiver/internal/symbol"
	"github.com/ebpfreceiver/ebpfreceiver/internal/timeline"
	"github.com/ebpfreceiver/ebpfreceiver/internal/unwind"
	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

// ProbeName is the value of the attribute probe in the receiver's own telemetry.
const ProbeName = "cpu"

// Config is how the probe works. Every field must be set.
type Config struct {
	// Frequency is how often a second each CPU is looked at; 0: not at all.
	Frequency int
	// Threads tells threads apart, and CPUs the CPUs that samples were taken on.
	Threads, CPUs bool
	// OffCPU are the waits of threads.
	OffCPU OffCPUConfig
	// Interval is how often profiles are handed to the consumer.
	Interval time.Duration
	// MaxProcesses is how many processes are known at a time. Stacks of others are walked by frame pointers.
	MaxProcesses int
	// MaxStacks is how many different stacks are kept, and counted in each interval.
	MaxStacks int
	// TableBytes and SymbolBytes bound the memory of tables to walk by, and of symbols.
	TableBytes, SymbolBytes int64
	// Lines reads source files, lines and inlined calls of native code from its debug information.
	Lines bool
	// HostRoot is where the file system of the host is; empty: here.
	HostRoot string
	// ProcFS is the proc file system that the processes of the host are in.
	ProcFS string
	// Timeline knows for whose sake threads and goroutines run; nil: nobody does.
	Timeline *timeline.Timeline
	// Ring is the size and wake-up policy of the way out of the kernel.
	Ring ring.Config
	// Scope names the instrumentation scope of what the probe makes.
	Scope func(pcommon.InstrumentationScope)
}

// OffCPUConfig says which waits are sampled.
type OffCPUConfig struct {
	Enabled bool
	// MinDuration is what a wait takes at least.
	MinDuration time.Duration
	// SamplesPerSecond is how many each CPU takes on average.
	SamplesPerSecond int
}

// Sinks take what the probe makes.
type Sinks struct {
	Profiles func(context.Context, pprofile.Profiles) error
}

// rareChecks is how often CPUs are looked for that have come or gone.
const rareChecks = time.Second

// recheckInterval is how often it is seen to a process that maps and unmaps memory whether that was code.
const recheckInterval = 10 * time.Second

// maxJoined bounds the samples that are kept one by one until they are handed over.
const maxJoined = 1 << 17

// waitBurst is how much of its rate off-CPU sampling saves up.
const waitBurst = 100 * time.Millisecond

// Probe takes samples of what runs on the host.
type Probe struct {
	config    Config
	kernel    *kernel.Kernel
	workloads *workload.Table
	selector  *workload.Selector
	sinks     Sinks
	logger    *zap.Logger

	// Set by tests.
	walksWhenOff    bool          // as where there is no onTracepoint
	recheckInterval time.Duration // recheckInterval if 0

	loaded      sync.RWMutex // guards what is below against Stats
	collection  *ebpf.Collection
	reader      *ring.Reader
	clocks      *clocks
	attachments []*kernel.Attachment
	tables      *tables
	cache       *unwind.Cache
	symbols     *symbol.Symbolizer
	handoff     *signal.Handoff[pprofile.Profiles]
	resolver    *resolver
	stop        chan context.Context // the one of Shutdown
	done        sync.WaitGroup

	// Owned by the goroutine that run is.
	clock     *kernel.Clock
	processes *processes
	stacks    *stacks
	samples   *samples
	joined    []sample  // of processes that serve requests
	began     time.Time // of what the kernel side counts now

	counters counters
}

// counters are read by Stats while the probe runs.
type counters struct {
	events              [bpfCpuEventKindCPU_PROCESS_GONE + 1]atomic.Uint64
	undecoded           atomic.Uint64
	unjoined            atomic.Uint64 // samples for which there was no room
	unknownStacks       atomic.Uint64 // samples whose stack is not known
	droppedStacks       atomic.Uint64
	refusedProcesses    atomic.Uint64
	unreadableProcesses atomic.Uint64
	processes, mappings atomic.Uint64
	stacks, samples     atomic.Uint64
}

// New makes a probe that does nothing until it is started. A nil selector observes every process.
func New(config Config, kern *kernel.Kernel, workloads *workload.Table, selector *workload.Selector, sinks Sinks, logger *zap.Logger) *Probe {
	return &Probe{
		config: config, kernel: kern, workloads: workloads, selector: selector, sinks: sinks, logger: logger,
		stop: make(chan context.Context, 1), clock: kernel.NewClock(),
	}
}

// Start loads and attaches the kernel side, and begins to sample. When it fails, nothing is left behind.
func (p *Probe) Start() (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, p.release())
		}
	}()
	if err := p.load(); err != nil {
		return err
	}
	if err := p.prepare(); err != nil {
		return err
	}
	p.began = time.Now()
	if err := p.attach(); err != nil {
		return err
	}
	p.handoff = signal.NewHandoff(1, p.sinks.Profiles, func(err error) {
		p.logger.Error("The next consumer refused profiles of the CPU probe", zap.Error(err))
	})
	p.resolver.start(p.handoff)
	p.done.Go(p.run)
	return nil
}

// Shutdown reports what is left, hands it over and detaches everything. When ctx ends, the consumer is not waited for.
func (p *Probe) Shutdown(ctx context.Context) error {
	if p.handoff == nil {
		return nil
	}
	p.stop <- ctx
	if err := p.reader.Wake(); err != nil {
		p.logger.Warn("Wake the CPU probe for its end", zap.Error(err))
	}
	p.done.Wait()
	err := p.handoff.Close(ctx)
	if err != nil {
		err = fmt.Errorf("stop the CPU probe's hand-over: %w", err)
	}
	p.handoff = nil
	return errors.Join(err, p.release())
}

// hooks of the probe's kernel side on tracepoints, with what is lost without them.
const (
	execTracepoint   = "sched_process_exec"
	exitTracepoint   = "sched_process_exit"
	switchTracepoint = "sched_switch"
	// onTracepoint runs in the thread that has a CPU again: Linux 6.15 (adcc3bfa8806 "sched: Adapt sched tracepoints for RV
	// task model").
	onTracepoint = "sched_exit_tp"
)

func (p *Probe) load() error {
	spec, err := loadBpf()
	if err != nil {
		return fmt.Errorf("read the CPU probe's object: %w", err)
	}
	walksWhenOff := p.walksWhenOff || !p.kernel.HasTracepoint(onTracepoint)
	offCPU := p.config.OffCPU
	for name, value := range map[string]any{
		"self_pid":            uint32(os.Getpid()),
		"by_thread":           p.config.Threads,
		"by_cpu":              p.config.CPUs,
		"walks_when_off":      walksWhenOff,
		"recheck_interval_ns": uint64(cmp.Or(p.recheckInterval, recheckInterval).Nanoseconds()),
		"minimum_wait_ns":     uint64(offCPU.MinDuration.Nanoseconds()),
		"wait_interval_ns":    uint64(time.Second.Nanoseconds()) / uint64(max(offCPU.SamplesPerSecond, 1)),
		"wait_burst_ns":       uint64(waitBurst.Nanoseconds()),
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			return fmt.Errorf("set %s of the CPU probe: %w", name, err)
		}
	}
	if !offCPU.Enabled {
		delete(spec.Programs, "cpu_off")
		delete(spec.Maps, "waits")
	}
	if !offCPU.Enabled || walksWhenOff {
		delete(spec.Programs, "cpu_on")
	}
	spec.Maps["processes"].MaxEntries = uint32(p.config.MaxProcesses)
	spec.Maps["mappings"].MaxEntries = uint32(min(p.config.MaxProcesses*mappingsPerProcess, maxMappings))
	for _, name := range []string{"even_samples", "odd_samples", "sent_stacks"} {
		spec.Maps[name].MaxEntries = uint32(p.config.MaxStacks)
	}
	collection, reader, err := ring.Load(p.kernel, spec, p.config.Ring)
	if err != nil {
		return fmt.Errorf("load the CPU probe: %w", err)
	}
	p.loaded.Lock()
	defer p.loaded.Unlock()
	p.collection, p.reader = collection, reader
	return nil
}

const (
	// mappingsPerProcess is how many there is room for, on average. Most processes have five to fifty.
	mappingsPerProcess = 16
	// maxMappings is what a search in the kernel finds its way in: MAPPINGS_SEARCH_STEPS of bpf/include/cpu/process.h.
	maxMappings = 1 << 16
)

// prepare makes what the probe has in user space.
func (p *Probe) prepare() error {
	memory, err := p.collection.Maps["mappings"].Memory()
	if err != nil {
		return fmt.Errorf("map the CPU probe's array of mappings: %w", err)
	}
	symbols := symbol.New(symbol.Config{
		MemoryBytes: p.config.SymbolBytes, Lines: p.config.Lines, HostRoot: p.config.HostRoot, Now: time.Now,
	})
	outer := newTables(p.collection.Maps["tables"], p.wake, func(err error) {
		p.logger.Error("An unwind table is missing", zap.Error(err))
	})
	cache := unwind.NewCache(unwind.CacheConfig{
		ProcFS: p.config.ProcFS, MaxBytes: p.config.TableBytes, Dropped: outer.forget, Ready: p.wake,
	})
	p.loaded.Lock()
	defer p.loaded.Unlock()
	p.symbols, p.tables, p.cache = symbols, outer, cache
	p.processes = &processes{
		procfs: p.config.ProcFS, entries: p.collection.Maps["processes"], mappings: memory,
		spans: newRanges(p.collection.Maps["mappings"].MaxEntries()), tables: outer, cache: cache, symbols: symbols,
		workloads: p.workloads, selector: p.selector, clock: p.clock, timeline: p.config.Timeline, logger: p.logger,
		known: map[uint32]*process{}, pending: map[*process]bool{}, nextSweep: time.Now().Add(sweepInterval),
	}
	p.stacks = newStacks(p.config.ProcFS, symbols, p.config.MaxStacks, p.logger)
	p.processes.open = p.stacks.open
	p.samples = newSamples(p.collection)
	p.resolver = newResolver(p.config, symbols, p.logger)
	return nil
}

func (p *Probe) attach() error {
	for _, hook := range []struct{ program, tracepoint string }{
		{"cpu_exec", execTracepoint}, {"cpu_exit", exitTracepoint}, {"cpu_on", onTracepoint}, {"cpu_off", switchTracepoint},
	} {
		program := p.collection.Programs[hook.program]
		if program == nil { // left out
			continue
		}
		attachment, err := kernel.AttachTracing("cpu."+hook.tracepoint, program)
		if err != nil {
			return fmt.Errorf("attach the CPU probe: %w", err)
		}
		p.attachments = append(p.attachments, attachment)
	}
	if p.config.Frequency == 0 {
		return nil
	}
	running := newClocks(p.collection.Programs["cpu_sample"], p.config.Frequency)
	attachment, err := kernel.Climb("cpu.samples", kernel.Rung{
		Name: "perf_event/cpu-clock",
		Attach: func() (io.Closer, error) {
			if err := running.follow(); err != nil {
				return nil, errors.Join(err, running.Close())
			}
			return running, nil
		},
	})
	if err != nil {
		return fmt.Errorf("attach the CPU probe: %w", err)
	}
	p.clocks = running
	p.attachments = append(p.attachments, attachment)
	return nil
}

func (p *Probe) release() error {
	p.loaded.Lock()
	defer p.loaded.Unlock()
	var errs []error
	for _, attachment := range p.attachments {
		errs = append(errs, attachment.Close())
	}
	if p.processes != nil {
		p.processes.close()
	}
	if p.cache != nil {
		p.cache.Close()
	}
	if p.tables != nil {
		p.tables.close()
	}
	if p.symbols != nil {
		p.symbols.Shutdown()
	}
	if p.reader != nil {
		errs = append(errs, p.reader.Close())
	}
	if p.collection != nil {
		p.collection.Close()
	}
	p.attachments, p.clocks, p.reader, p.collection = nil, nil, nil, nil
	p.processes, p.cache, p.tables, p.symbols, p.stacks, p.samples, p.resolver = nil, nil, nil, nil, nil, nil, nil
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("release the CPU probe: %w", err)
	}
	return nil
}

// wake lets the probe look at tables that have become ready.
func (p *Probe) wake() {
	if err := p.reader.Wake(); err != nil && !errors.Is(err, ring.ErrClosed) {
		p.logger.Warn("Wake the CPU probe", zap.Error(err))
	}
}

// run drains the ring, looks into processes and collects the counts, all in one goroutine: nothing it owns needs a lock.
func (p *Probe) run() {
	nextFlush := p.began.Add(p.config.Interval)
	nextCheck := p.began.Add(rareChecks)
	for {
		select {
		case ctx := <-p.stop:
			p.finish(ctx)
			return
		default:
		}
		p.drain()
		now := time.Now()
		p.processes.settle(now)
		if !now.Before(nextCheck) {
			nextCheck = signal.Next(nextCheck, rareChecks, now)
			p.check(now)
		}
		if !now.Before(nextFlush) && p.resolver.idle() {
			nextFlush = signal.Next(nextFlush, p.config.Interval, now)
			if counted := p.collect(); counted != nil {
				p.resolver.take(counted)
			}
		}
	}
}

// check does what is rarely needed.
func (p *Probe) check(now time.Time) {
	p.clock.Refresh()
	p.processes.sweep(now)
	p.processes.recognize(now)
	p.processes.joinAll()
	if p.clocks != nil {
		if err := p.clocks.follow(); err != nil {
			p.logger.Warn("Some CPUs are not sampled", zap.Error(err))
		}
	}
	p.counters.processes.Store(uint64(len(p.processes.known)))
	p.counters.mappings.Store(uint64(p.processes.spans.used))
	p.counters.refusedProcesses.Store(p.processes.refused)
	p.counters.unreadableProcesses.Store(p.processes.failed)
	p.counters.droppedStacks.Store(p.stacks.dropped)
	p.counters.stacks.Store(uint64(len(p.stacks.known)))
	p.counters.samples.Store(p.samples.collected)
}

// finish reports what the probe still knows.
func (p *Probe) finish(ctx context.Context) {
	for _, attachment := range p.attachments {
		if err := attachment.Close(); err != nil {
			p.logger.Warn("Detach a hook of the CPU probe", zap.Error(err))
		}
	}
	counted := p.collect()
	if counted == nil {
		counted = &batch{began: p.began, ended: time.Now()}
	}
	p.resolver.finish(ctx, counted)
}

func (p *Probe) drain() {
	now := time.Now()
	if _, err := p.reader.Drain(func(sample []byte) { p.handle(sample, now) }); err != nil {
		p.logger.Error("Read the CPU probe's ring", zap.Error(err))
	}
}

func (p *Probe) handle(sample []byte, now time.Time) {
	event, err := decodeEvent(sample)
	if err != nil || int(event.Kind) >= len(p.counters.events) {
		p.counters.undecoded.Add(1)
		return
	}
	p.counters.events[event.Kind].Add(1)
	switch bpfCpuEventKind(event.Kind) {
	case bpfCpuEventKindCPU_PROCESS:
		p.processes.look(event, now)
	case bpfCpuEventKindCPU_PROCESS_GONE:
		p.processes.gone(event, now)
	case bpfCpuEventKindCPU_STACK:
		p.handleStack(event, sample)
	case bpfCpuEventKindCPU_SAMPLE:
		p.handleSample(sample)
	}
}

// handleSample keeps a sample that may belong to a request. Its stack came before it.
func (p *Probe) handleSample(data []byte) {
	decoded, err := decodeSample(data)
	if err != nil {
		p.counters.undecoded.Add(1)
		return
	}
	if len(p.joined) >= maxJoined {
		p.counters.unjoined.Add(decoded.Value.Count)
		return
	}
	if taken, ok := p.sampleOf(&decoded.Key, &decoded.Value); ok {
		taken.by = timeline.Unit{PID: decoded.Key.Pid, Number: uint64(decoded.Thread)}
		if decoded.Goroutine != 0 {
			taken.by.Goroutine, taken.by.Number = true, decoded.Goroutine
		}
		taken.parent, taken.atNs = decoded.ParentGoroutine, decoded.TimeNs
		p.joined = append(p.joined, taken)
	}
}

// sampleOf finds the stack of what was counted; false if it is not wanted, or not known.
func (p *Probe) sampleOf(key *bpfSampleKey, value *bpfSampleValue) (sample, bool) {
	known := p.stacks.known[key.Stack]
	if known == nil {
		p.counters.unknownStacks.Add(value.Count)
		return sample{}, false
	}
	known.used = p.stacks.flush
	return sample{
		stack: known, kind: bpfSampleKind(key.Kind), thread: key.Thread, cpu: key.Cpu, comm: text(&key.Comm),
		count: value.Count, timeNs: value.TimeNs,
	}, !known.unwanted
}

func (p *Probe) handleStack(event *bpfCpuEvent, sample []byte) {
	decoded, err := decodeStack(sample)
	if err != nil {
		p.counters.undecoded.Add(1)
		return
	}
	owner := p.processes.known[event.Pid]
	if owner != nil && owner.key != event.key() {
		owner = nil
	}
	var of *workload.Workload
	if owner != nil {
		of = owner.workload
	} else {
		of = p.workloads.Lookup(event.key(), event.hint())
	}
	if !p.selector.Match(of, 0) { // taken before the kernel side was told
		p.stacks.leaveOut(decoded.hash)
		return
	}
	if p.stacks.add(decoded, event.key(), owner, of) && owner != nil {
		p.processes.keepMap(owner, time.Now())
	}
}

// collect takes what was counted since the last time; nil if it cannot.
func (p *Probe) collect() *batch {
	if err := p.samples.change(); err != nil {
		p.logger.Error("Collect samples", zap.Error(err))
		return nil
	}
	counted := &batch{began: p.began, ended: time.Now()}
	p.began = counted.ended
	time.Sleep(settleDelay)
	p.wake()
	p.drain() // after this, all stacks are here that were counted
	err := p.samples.collect(func(key *bpfSampleKey, value *bpfSampleValue) {
		if taken, ok := p.sampleOf(key, value); ok {
			counted.samples = append(counted.samples, taken)
		}
	})
	if err != nil {
		p.logger.Error("Collect samples", zap.Error(err))
	}
	counted.samples, p.joined = append(counted.samples, p.joined...), p.joined[:0]
	counted.retired, counted.gone = p.processes.retire()
	p.stacks.advance()
	return counted
}

// Attachments says which rung each hook of the running probe got.
func (p *Probe) Attachments() []*kernel.Attachment { return p.attachments }

// Stats is what the probe says of itself. It may be called at any time; a probe that does not run has only its counters.
func (p *Probe) Stats() kernel.Stats {
	stats := kernel.Stats{
		Losses: []kernel.LossCount{
			{Probe: ProbeName, Reason: "undecodable", Count: p.counters.undecoded.Load()},
			{Probe: ProbeName, Reason: "stack_unknown", Count: p.counters.unknownStacks.Load()},
			{Probe: ProbeName, Reason: "joined_samples_full", Count: p.counters.unjoined.Load()},
			{Probe: ProbeName, Reason: "stacks_full", Count: p.counters.droppedStacks.Load()},
			{Probe: ProbeName, Reason: "processes_full", Count: p.counters.refusedProcesses.Load()},
			{Probe: ProbeName, Reason: "process_unreadable", Count: p.counters.unreadableProcesses.Load()},
		},
		Maps: []kernel.MapUsage{
			{Probe: ProbeName, Map: "processes", Entries: p.counters.processes.Load(), Capacity: uint64(p.config.MaxProcesses)},
			{Probe: ProbeName, Map: "stacks", Entries: p.counters.stacks.Load(), Capacity: uint64(p.config.MaxStacks)},
			{Probe: ProbeName, Map: "samples", Entries: p.counters.samples.Load(), Capacity: uint64(p.config.MaxStacks)},
		},
	}
	for kind := range p.counters.events {
		if name := eventName(bpfCpuEventKind(kind)); name != "" {
			stats.Events = append(stats.Events, kernel.EventCount{
				Probe: ProbeName, Kind: name, Count: p.counters.events[kind].Load(),
			})
		}
	}
	p.loaded.RLock()
	defer p.loaded.RUnlock()
	if p.collection == nil {
		return stats
	}
	loaded, err := ring.Stats(ProbeName, p.collection, p.reader, lossReasons[:])
	if err != nil {
		p.logger.Error("Read what the CPU probe lost", zap.Error(err))
	}
	stats.Add(loaded)
	if err := p.addCounts(&stats); err != nil {
		p.logger.Error("Read what the CPU probe has counted", zap.Error(err))
	}
	p.addTables(&stats)
	return stats
}

// addCounts adds what the kernel side counts.
func (p *Probe) addCounts(stats *kernel.Stats) error {
	counted := func(which bpfCpuCount) (uint64, error) {
		return kernel.ReadCounter(p.collection.Maps["cpu_counts"], uint32(which))
	}
	for which, kind := range countNames {
		count, err := counted(bpfCpuCount(which))
		if err != nil {
			return err
		}
		stats.Events = append(stats.Events, kernel.EventCount{Probe: ProbeName, Kind: kind, Count: count})
	}
	return nil
}

// addTables adds what tables and symbols take.
func (p *Probe) addTables(stats *kernel.Stats) {
	count, capacity, bytes, full := p.tables.stats()
	cached, symbols := p.cache.Statistics(), p.symbols.Stats()
	stats.Maps = append(stats.Maps,
		kernel.MapUsage{Probe: ProbeName, Map: "mappings", Entries: p.counters.mappings.Load(),
			Capacity: uint64(p.collection.Maps["mappings"].MaxEntries())},
		kernel.MapUsage{Probe: ProbeName, Map: "unwind_tables", Entries: uint64(count), Capacity: uint64(capacity)},
		kernel.MapUsage{Probe: ProbeName, Map: "unwind_table_bytes", Entries: bytes, Capacity: uint64(p.config.TableBytes)},
		kernel.MapUsage{Probe: ProbeName, Map: "symbol_bytes", Entries: uint64(symbols.RetainedBytes),
			Capacity: uint64(symbols.CapacityBytes)},
		kernel.MapUsage{Probe: ProbeName, Map: "kernel_symbol_bytes", Entries: uint64(p.resolver.kernelBytes.Load())},
	)
	stats.Losses = append(stats.Losses,
		kernel.LossCount{Probe: ProbeName, Reason: "unwind_tables_full", Count: full},
		kernel.LossCount{Probe: ProbeName, Reason: "sample_refused", Count: p.resolver.refused.Load()},
	)
	for reason, count := range cached.Failures {
		stats.Losses = append(stats.Losses, kernel.LossCount{
			Probe: ProbeName, Reason: "unwind_table_" + unwind.Reason(reason).String(), Count: count,
		})
	}
	stats.Events = append(stats.Events,
		kernel.EventCount{Probe: ProbeName, Kind: "frame_named", Count: p.resolver.named.Load()},
		kernel.EventCount{Probe: ProbeName, Kind: "frame_unnamed", Count: p.resolver.unnamed.Load()},
		kernel.EventCount{Probe: ProbeName, Kind: "sample_linked", Count: p.resolver.linked.Load()},
		kernel.EventCount{Probe: ProbeName, Kind: "sample_link_uncertain", Count: p.resolver.uncertain.Load()},
		kernel.EventCount{Probe: ProbeName, Kind: "sample_link_too_late", Count: p.resolver.late.Load()},
	)
}
