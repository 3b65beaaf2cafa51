//go:build linux

package workload

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"go.uber.org/zap"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
	"github.com/ebpfreceiver/ebpfreceiver/internal/ring"
)

// eventPatience is how long an event may wait: that a process executes a program wakes the reader.
const eventPatience = 250 * time.Millisecond

const (
	probeName = "process"

	// initialPIDNamespace is PROC_PID_INIT_INO of include/linux/proc_ns.h, as a link in /proc/PID/ns shows it.
	initialPIDNamespace = "pid:[4026531836]"

	housekeepingInterval = time.Second
	clockRefreshInterval = time.Minute
	maxWaitingReads      = 1024
)

// processEvents brings the events of bpf/process.bpf.c from the kernel.
type processEvents struct {
	attachment *kernel.Attachment
	collection *ebpf.Collection
	reader     *ring.Reader

	readsPerSecond float64
	readBurst      float64

	mutex    sync.Mutex
	changed  *sync.Cond
	started  uint64 // rounds of draining
	finished uint64
	ended    bool
}

func newProcessEvents() *processEvents {
	events := &processEvents{}
	events.changed = sync.NewCond(&events.mutex)
	return events
}

// openProcessEvents attaches to the kernel's process tracepoints, in the best way that it has.
func openProcessEvents(kern *kernel.Kernel, tableConfig Config) (*processEvents, error) {
	events, config := newProcessEvents(), ring.Config{Bytes: tableConfig.RingBytes, PollInterval: eventPatience}
	events.readsPerSecond, events.readBurst = tableConfig.ReadsPerSecond, tableConfig.ReadBurst
	attachment, err := kernel.Climb("process events",
		kernel.Rung{
			Name:   "tp_btf/sched_process_{fork,exec,exit}",
			Attach: func() (io.Closer, error) { return events.attachTracing(kern, config) },
		},
		kernel.Rung{
			Name:   "raw_tp/sched_process_{fork,exec,exit}",
			Attach: func() (io.Closer, error) { return events.attachRaw(kern, config) },
		},
	)
	if err != nil {
		return nil, err
	}
	events.attachment = attachment
	if events.reader, err = ring.NewReader(events.collection.Maps[bpfMapEvents], config); err != nil {
		return nil, errors.Join(err, attachment.Close())
	}
	return events, nil
}

// attachTracing needs BTF (5.5).
func (e *processEvents) attachTracing(kern *kernel.Kernel, config ring.Config) (io.Closer, error) {
	return e.attach(kern, config, "_btf", func(_ string, program *ebpf.Program) (link.Link, error) {
		return link.AttachTracing(link.TracingOptions{Program: program, AttachType: ebpf.AttachTraceRawTp})
	})
}

// attachRaw works on kernels whose BTF comes from a file (raw tracepoints: 4.17).
func (e *processEvents) attachRaw(kern *kernel.Kernel, config ring.Config) (io.Closer, error) {
	return e.attach(kern, config, "_raw", func(event string, program *ebpf.Program) (link.Link, error) {
		return link.AttachRawTracepoint(link.RawTracepointOptions{Name: "sched_process_" + event, Program: program})
	})
}

// attach loads the programs whose names end in suffix and attaches each by its event: "fork", "exec", "exit".
func (e *processEvents) attach(kern *kernel.Kernel, config ring.Config, suffix string,
	attach func(event string, program *ebpf.Program) (link.Link, error)) (io.Closer, error) {
	spec, err := loadBpf()
	if err != nil {
		return nil, fmt.Errorf("read the process probe's BPF object: %w", err)
	}
	for name := range spec.Programs {
		if !strings.HasSuffix(name, suffix) {
			delete(spec.Programs, name)
		}
	}
	if err := ring.Configure(spec, config); err != nil {
		return nil, err
	}
	if err := limitWakeups(spec, e.readsPerSecond, e.readBurst); err != nil {
		return nil, err
	}
	collection, err := kern.Load(spec)
	if err != nil {
		return nil, err
	}
	attached := &attachedPrograms{collection: collection}
	// Exits come first: no process is left in the table whose end was not seen because it was attached last.
	for _, event := range []string{"exit", "exec", "fork"} {
		tracepoint, err := attach(event, collection.Programs[event+suffix])
		if err != nil {
			return nil, errors.Join(fmt.Errorf("attach to sched_process_%s: %w", event, err), attached.Close())
		}
		attached.links = append(attached.links, tracepoint)
	}
	e.collection = collection
	return attached, nil
}

// limitWakeups lets execs wake the reader as often as it reads processes.
func limitWakeups(spec *ebpf.CollectionSpec, perSecond, burst float64) error {
	if perSecond <= 0 {
		return nil // as bpf/process.bpf.c has it
	}
	nanoseconds := func(count float64) uint64 { return uint64(min(count/perSecond*1e9, math.MaxInt64/2)) }
	for name, value := range map[string]uint64{
		bpfVarWakeupIntervalNs: nanoseconds(1),
		bpfVarWakeupBurstNs:    nanoseconds(burst),
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			return fmt.Errorf("set %s of the process probe: %w", name, err)
		}
	}
	return nil
}

type attachedPrograms struct {
	links      []link.Link
	collection *ebpf.Collection
}

func (a *attachedPrograms) Close() error {
	var errs []error
	for _, tracepoint := range a.links {
		errs = append(errs, tracepoint.Close())
	}
	a.collection.Close()
	return errors.Join(errs...)
}

// drain hands out what waits in the ring, once something does.
func (e *processEvents) drain(handle func(sample []byte)) error {
	e.mutex.Lock()
	e.started++
	e.mutex.Unlock()

	_, err := e.reader.Drain(handle)

	e.mutex.Lock()
	e.finished = e.started
	e.ended = e.ended || err != nil
	e.changed.Broadcast()
	e.mutex.Unlock()
	return err
}

// catchUp returns when every event has been handled that the kernel had sent before the call.
func (e *processEvents) catchUp() {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	// A round that is under way may have passed the end of the ring before the event came: the next has not.
	target := e.started + 1
	for e.finished < target && !e.ended {
		seen := e.finished
		if err := e.reader.Wake(); err != nil {
			return // It is closed.
		}
		for e.finished == seen && !e.ended {
			e.changed.Wait()
		}
	}
}

// Start lets the table follow processes by the kernel's events, and reads those that run already. Without events the
// table goes on reading /proc when it is asked, and says so once; this is no error.
func (t *Table) Start() error {
	t.lifecycle.Lock()
	defer t.lifecycle.Unlock()
	if t.started {
		return errors.New("start the process table: it was started before")
	}
	t.started = true
	t.checkPIDNamespace()

	events, err := t.openEvents()
	if err != nil {
		t.logger.Warn("processes are followed by reading "+t.config.ProcFS+" only: those that end before anybody looks "+
			"at them will be known by their name alone", zap.Error(err))
	} else {
		t.events = events
		t.following.Store(true)
		t.logger.Debug("following processes", zap.Stringer("attachment", events.attachment))
		t.running.Go(func() { t.follow(events) })
		t.running.Go(t.readExecuted)
	}
	t.running.Go(t.readRunning)
	return nil
}

func (t *Table) openEvents() (*processEvents, error) {
	if t.kernel == nil {
		return nil, errors.New("the table was made without a kernel to load BPF programs into")
	}
	return openProcessEvents(t.kernel, t.config)
}

// checkPIDNamespace warns where the pids of the kernel's events and those of /proc are not the same.
func (t *Table) checkPIDNamespace() {
	namespace, err := os.Readlink(filepath.Join(t.config.ProcFS, "1/ns/pid"))
	if err == nil && namespace != initialPIDNamespace {
		t.logger.Warn("the proc file system is not that of the host's processes: most will be known by their name alone; "+
			"run in the host's pid namespace (docker --pid=host, Kubernetes hostPID: true) or give the host's proc file system",
			zap.String("procfs", t.config.ProcFS), zap.String("namespace", namespace))
	}
}

// Close detaches from the kernel and waits until nothing runs any more. Lookup goes on answering from what is known and
// from /proc. Closing twice is harmless.
func (t *Table) Close() error {
	t.lifecycle.Lock()
	defer t.lifecycle.Unlock()
	if t.closed {
		return nil
	}
	t.closed = true
	close(t.closing)
	var errs []error
	if t.events != nil {
		t.last = t.eventStats()
		errs = append(errs, t.events.reader.Close())
	}
	t.running.Wait()
	if t.events != nil {
		errs = append(errs, t.events.attachment.Close())
	}
	t.following.Store(false)
	t.cgroups.close()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close the process table: %w", err)
	}
	return nil
}

// Attachments tells how the table gets its events; there is none when it only reads /proc.
func (t *Table) Attachments() []*kernel.Attachment {
	t.lifecycle.Lock()
	defer t.lifecycle.Unlock()
	if t.events == nil {
		return nil
	}
	return []*kernel.Attachment{t.events.attachment}
}

// follow handles the kernel's events until the ring is closed.
func (t *Table) follow(events *processEvents) {
	now := t.now()
	bucket := newLimiter(t.config.ReadsPerSecond, t.config.ReadBurst, now)
	nextHousekeeping, nextClockRefresh := now.Add(housekeepingInterval), now.Add(clockRefreshInterval)
	var lost uint64
	for {
		err := events.drain(func(sample []byte) { t.handle(sample, bucket) })
		if err != nil {
			t.following.Store(false)
			if !errors.Is(err, ring.ErrClosed) {
				t.logger.Error("process events have ended; processes are followed by reading "+t.config.ProcFS+" only",
					zap.Error(err))
			}
			return
		}
		if now = t.now(); now.Before(nextHousekeeping) {
			continue
		}
		nextHousekeeping = now.Add(housekeepingInterval)
		if !now.Before(nextClockRefresh) {
			nextClockRefresh = now.Add(clockRefreshInterval)
			t.clock.Refresh()
		}
		total := events.lost()
		t.mutex.Lock()
		t.forget(now)
		if total != lost {
			// One of the lost events may have been an exec: what was read before is to be read again.
			lost, t.trustedSince = total, now
		}
		t.mutex.Unlock()
	}
}

// lost counts the events that did not reach us.
func (e *processEvents) lost() uint64 {
	total := e.reader.Lost()
	for _, loss := range e.losses() {
		total += loss.Count
	}
	return total
}

func (e *processEvents) losses() []kernel.LossCount {
	// The reasons that this probe does not have are left out.
	reasons := make([]string, bpfLossReasonLOSS_REASONS)
	reasons[bpfLossReasonLOSS_RING_FULL] = "ring_full"
	losses, err := kernel.ReadLosses(probeName, e.collection.Maps[bpfMapLosses], reasons)
	if err != nil {
		return nil
	}
	return losses
}

// handle takes one event into the table.
func (t *Table) handle(sample []byte, bucket *limiter) {
	event, err := decodeEvent(sample)
	if err != nil {
		t.counts.malformed.Add(1)
		return
	}
	id := t.identify(event.process)
	switch event.kind {
	case bpfProcessEventKindPROCESS_FORK:
		t.counts.fork.Add(1)
		t.handleFork(id, event)
	case bpfProcessEventKindPROCESS_EXEC:
		t.counts.exec.Add(1)
		t.handleExec(id, event, bucket)
	case bpfProcessEventKindPROCESS_EXIT:
		t.counts.exit.Add(1)
		t.mutex.Lock()
		if known, found := t.processes.Peek(id); found {
			t.end(id, known)
		}
		t.mutex.Unlock()
	}
}

func (t *Table) handleFork(id processID, event event) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	parent, _ := t.processes.Peek(t.identify(event.parent))
	t.find(id).fork(parent, event.parent)
}

func (t *Table) handleExec(id processID, event event, bucket *limiter) {
	t.mutex.Lock()
	t.find(id).execute(event.executed, event.parent)
	t.mutex.Unlock()

	if bucket.take(t.now()) {
		t.tellWatchers(event.process)
		select {
		case t.reads <- event.process:
			return
		default:
		}
	}
	t.counts.deferred.Add(1)
}

// OnExec has handle called with processes at the moment that they execute a program, until the function that it returns is
// called. handle must not wait for anything. It is not called where the kernel gives no events, nor for more processes than
// ReadsPerSecond and ReadBurst allow.
func (t *Table) OnExec(handle func(Key)) (stop func()) {
	watcher := &handle
	t.watching.Lock()
	defer t.watching.Unlock()
	t.watchers = append(t.watchers, watcher)
	return func() {
		t.watching.Lock()
		defer t.watching.Unlock()
		t.watchers = slices.DeleteFunc(t.watchers, func(one *func(Key)) bool { return one == watcher })
	}
}

func (t *Table) tellWatchers(process Key) {
	t.watching.RLock()
	defer t.watching.RUnlock()
	for _, handle := range t.watchers {
		(*handle)(process)
	}
}

// readExecuted reads processes at the moment that they execute a program: many do not live until their connections are
// looked at.
func (t *Table) readExecuted() {
	for {
		select {
		case <-t.closing:
			return
		case key := <-t.reads:
			t.readUnlessKnown(key)
		}
	}
}

// readRunning reads the processes that run already: once one of them has ended, nobody could.
func (t *Table) readRunning() {
	directory, err := os.Open(t.config.ProcFS)
	if err != nil {
		t.logger.Warn("cannot list the processes that run", zap.Error(err))
		return
	}
	names, err := directory.Readdirnames(-1)
	directory.Close()
	if err != nil {
		t.logger.Warn("cannot list the processes that run", zap.Error(err))
	}
	slices.Sort(names)
	// Half of the table stays free for those to come.
	for room := t.config.MaxProcesses / 2; room > 0 && len(names) > 0; names = names[1:] {
		select {
		case <-t.closing:
			return
		default:
		}
		pid, err := strconv.ParseUint(names[0], 10, 32)
		if err != nil {
			continue
		}
		if key, err := t.KeyOf(uint32(pid)); err == nil {
			t.readUnlessKnown(key)
			room--
		}
	}
}

func (t *Table) readUnlessKnown(key Key) {
	id := t.identify(key)
	t.mutex.Lock()
	known, found := t.processes.Peek(id)
	done := found && known.workload != nil
	t.mutex.Unlock()
	if done {
		return
	}
	// Of one that has gone meanwhile, the event tells what Lookup needs.
	if _, _, err := t.read(key, id); err != nil && !errors.Is(err, errGone) {
		t.logger.Debug("cannot read a process", zap.Uint32("pid", key.PID), zap.Error(err))
	}
}

// Stats tells what the table has seen, lost and holds.
func (t *Table) Stats() kernel.Stats {
	t.lifecycle.Lock()
	stats := t.last
	if t.events != nil && !t.closed {
		stats = t.eventStats()
	}
	t.lifecycle.Unlock()

	t.mutex.Lock()
	processes := t.processes.Len()
	t.mutex.Unlock()
	cgroups, maxCgroups := t.cgroups.usage()

	event := func(kind string, count *atomic.Uint64) {
		stats.Events = append(stats.Events, kernel.EventCount{Probe: probeName, Kind: kind, Count: count.Load()})
	}
	loss := func(reason string, count *atomic.Uint64) {
		stats.Losses = append(stats.Losses, kernel.LossCount{Probe: probeName, Reason: reason, Count: count.Load()})
	}
	event("fork", &t.counts.fork)
	event("exec", &t.counts.exec)
	event("exec_read_later", &t.counts.deferred)
	event("exit", &t.counts.exit)
	loss("malformed_event", &t.counts.malformed)
	loss("process_gone", &t.counts.gone)
	loss("process_denied", &t.counts.denied)
	loss("read_failed", &t.counts.unreadable)
	loss("read_truncated", &t.proc.truncated)
	loss("table_full", &t.counts.evicted)
	stats.Maps = append(stats.Maps,
		kernel.MapUsage{Probe: probeName, Map: "processes", Entries: uint64(processes), Capacity: uint64(t.config.MaxProcesses)},
		kernel.MapUsage{Probe: probeName, Map: "cgroups", Entries: uint64(cgroups), Capacity: uint64(maxCgroups)},
	)
	return stats
}

// eventStats is the part of the statistics that the kernel keeps.
func (t *Table) eventStats() kernel.Stats {
	used, capacity := t.events.reader.Usage()
	losses := t.events.losses()
	losses = append(losses, kernel.LossCount{Probe: probeName, Reason: "unreadable_event", Count: t.events.reader.Lost()})
	return kernel.Stats{
		Losses:   losses,
		Maps:     []kernel.MapUsage{{Probe: probeName, Map: bpfMapEvents, Entries: used, Capacity: capacity}},
		Programs: kernel.ProgramStatistics(probeName, t.events.collection),
	}
}
