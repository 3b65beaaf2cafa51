//go:build linux

package workload

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/hashicorp/golang-lru/v2/simplelru"
	"go.uber.org/zap"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
)

// Config says where to look and how much to keep. Zero values take the defaults.
type Config struct {
	// ProcFS is the proc file system of the host's pid namespace. Default /proc.
	ProcFS string
	// CgroupFS is the directory below which the cgroup2 mount is preferred, if there are several. Default /sys/fs/cgroup.
	CgroupFS string
	// HostName is the host.name of every workload. Default: what the kernel says.
	HostName string
	// MaxProcesses bounds the table. Default 16384.
	MaxProcesses int
	// ExitGrace is how long a process that has ended is remembered: its connections end later. Default one minute.
	ExitGrace time.Duration
	// ReadsPerSecond and ReadBurst bound how many processes are read from ProcFS at the moment that they execute a
	// program. Beyond, a process is read when it is first looked up. Defaults 200 and 400.
	ReadsPerSecond float64
	ReadBurst      float64
	// RefreshInterval is how long a reading is trusted while exec events are not available. Default ten seconds.
	RefreshInterval time.Duration
	// RingBytes is the size of the ring that process events come through. Default 1 MiB.
	RingBytes int
}

func (c Config) withDefaults() Config {
	if c.ProcFS == "" {
		c.ProcFS = "/proc"
	}
	if c.CgroupFS == "" {
		c.CgroupFS = "/sys/fs/cgroup"
	}
	if c.MaxProcesses <= 0 {
		c.MaxProcesses = 16384
	}
	if c.ExitGrace <= 0 {
		c.ExitGrace = time.Minute
	}
	if c.ReadsPerSecond <= 0 {
		c.ReadsPerSecond = 200
	}
	if c.ReadBurst <= 0 {
		c.ReadBurst = 400
	}
	if c.RefreshInterval <= 0 {
		c.RefreshInterval = 10 * time.Second
	}
	if c.RingBytes <= 0 {
		c.RingBytes = 1 << 20
	}
	return c
}

const (
	maxUnowned   = 1024 // workloads of sockets without a process
	maxAncestors = 4    // generations to go back for the identity of a process that only forked
	readTries    = 3
)

// Table knows the workload of every process.
//
// It reads a process once, when it executes a program (or when it is first looked up), and forgets it a while after its
// end. All methods are safe for concurrent use.
type Table struct {
	config  Config
	kernel  *kernel.Kernel
	logger  *zap.Logger
	proc    *procFS
	cgroups *cgroupTree // nil where there is no version 2 hierarchy
	host    host
	clock   *kernel.Clock
	now     func() time.Time
	counts  counts
	unowned *lru.Cache[Hint, *Workload]

	mutex        sync.Mutex // guards what follows
	processes    *simplelru.LRU[processID, *process]
	exits        []exit    // processes that have ended, in the order in which they are forgotten
	trustedSince time.Time // an exec event may have been lost before

	watching sync.RWMutex // guards what follows
	watchers []*func(Key)

	following atomic.Bool // exec events tell when a reading is outdated
	reads     chan Key    // processes that are to be read while they live
	closing   chan struct{}
	running   sync.WaitGroup

	lifecycle sync.Mutex // guards what follows
	started   bool
	closed    bool
	events    *processEvents // nil where the kernel gives none
	last      kernel.Stats   // the kernel's part of the statistics when the table was closed
}

// counts are totals since the table was made.
type counts struct {
	fork, exec, exit atomic.Uint64 // events
	deferred         atomic.Uint64 // exec events whose process was not read at once, because there were too many
	malformed        atomic.Uint64 // events that could not be decoded

	gone    atomic.Uint64 // lookups of processes of which nothing was known but the hint
	evicted atomic.Uint64 // processes that were forgotten early, because the table was full
	denied  atomic.Uint64 // living processes whose executable we may not read

	unreadable atomic.Uint64 // lookups for which reading failed otherwise
}

type exit struct {
	process processID
	forget  time.Time
}

// NewTable makes a table that reads /proc when it is asked. Start adds the kernel's own events; without a Kernel it
// leaves it at that.
func NewTable(config Config, kern *kernel.Kernel, logger *zap.Logger) (*Table, error) {
	if logger == nil {
		logger = zap.NewNop()
	}
	config = config.withDefaults()
	if _, err := os.Stat(filepath.Join(config.ProcFS, "self/stat")); err != nil {
		return nil, fmt.Errorf("find processes in %s: %w; mount the host's proc file system there, or name its directory",
			config.ProcFS, err)
	}
	t := &Table{
		config: config,
		kernel: kern,
		logger: logger,
		proc:   newProcFS(config.ProcFS),
		host:   newHost(config.ProcFS, config.HostName),
		clock:  kernel.NewClock(),
		now:    time.Now,

		reads:   make(chan Key, maxWaitingReads),
		closing: make(chan struct{}),
	}
	var err error
	if t.processes, err = simplelru.NewLRU[processID, *process](config.MaxProcesses, nil); err != nil {
		return nil, fmt.Errorf("make a table of %d processes: %w", config.MaxProcesses, err)
	}
	if t.unowned, err = lru.New[Hint, *Workload](maxUnowned); err != nil {
		return nil, fmt.Errorf("make a table of %d workloads without a process: %w", maxUnowned, err)
	}
	if t.cgroups, err = openCgroupTree(config.ProcFS, config.CgroupFS); err != nil {
		logger.Info("the containers of processes that have gone will not be known", zap.Error(err))
	}
	return t, nil
}

// ProcFS is the proc file system that the processes of the host are in.
func (t *Table) ProcFS() string { return t.config.ProcFS }

// Lookup tells what process an event belongs to. It never returns nil: of a process that has gone before anybody looked
// at it, the hint is what is known.
func (t *Table) Lookup(key Key, hint Hint) *Workload {
	if key.PID == 0 {
		return t.lookupUnowned(hint)
	}
	if key.StartBootNs == 0 {
		// Without its start time, a pid means whoever has it now.
		current, err := t.KeyOf(key.PID)
		if err != nil {
			t.counts.gone.Add(1)
			return t.lookupUnowned(hint)
		}
		key = current
	}
	id := t.identify(key)

	t.mutex.Lock()
	if known, found := t.processes.Get(id); found && known.workload != nil && !t.outdated(known) {
		workload := known.workload
		t.mutex.Unlock()
		return workload
	}
	t.mutex.Unlock()
	return t.resolve(key, id, hint)
}

// KeyOf finds the key of the process that has a pid now, for those who know no more than the pid.
func (t *Table) KeyOf(pid uint32) (Key, error) {
	current, err := t.proc.identify(pid)
	if err != nil {
		return Key{}, fmt.Errorf("find the start time of process %d: %w", pid, err)
	}
	return Key{PID: pid, StartBootNs: t.proc.startBootNs(current.startTicks)}, nil
}

func (t *Table) identify(key Key) processID {
	return processID{pid: key.PID, startTicks: t.proc.startTicks(key.StartBootNs)}
}

// outdated tells whether a reading must be repeated: where no event says that a process executes another program, only
// time does. The mutex is held.
func (t *Table) outdated(known *process) bool {
	switch {
	case known.exited:
		return false
	case t.following.Load():
		return known.readAt.Before(t.trustedSince)
	}
	return t.now().Sub(known.readAt) >= t.config.RefreshInterval
}

// lookupUnowned describes a socket whose process is not known: its cgroup may still name the container.
func (t *Table) lookupUnowned(hint Hint) *Workload {
	if workload, found := t.unowned.Get(hint); found {
		return workload
	}
	described := (&process{}).epitaph(processView{}, hint, t.cgroupOf)
	workload := newWorkload(0, time.Time{}, described, t.host)
	t.unowned.Add(hint, workload)
	return workload
}

// resolve finds out about a process that nobody has looked at since it executed its program.
func (t *Table) resolve(key Key, id processID, hint Hint) *Workload {
	for range readTries {
		workload, view, err := t.read(key, id)
		switch {
		case workload != nil:
			return workload
		case errors.Is(err, errGone) || err == nil && view.ended:
			return t.bury(key, id, view, hint)
		case err != nil:
			// It may well be alive: the next lookup tries again.
			t.counts.unreadable.Add(1)
			t.logger.Debug("cannot read a process", zap.Uint32("pid", key.PID), zap.Error(err))
			return t.describe(key, id, hint)
		}
		// It executed another program meanwhile.
	}
	return t.describe(key, id, hint)
}

// describe makes a workload of what is known without reading, and does not keep it.
func (t *Table) describe(key Key, id processID, hint Hint) *Workload {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	known, found := t.processes.Peek(id)
	if !found {
		known = &process{}
	}
	if known.workload != nil {
		return known.workload
	}
	return t.newWorkload(key, known.epitaph(processView{}, hint, t.cgroupOf))
}

// read looks at a process and keeps what it sees. There is no workload when the process is no longer alive, or when an
// exec event has overtaken the reading.
func (t *Table) read(key Key, id processID) (*Workload, processView, error) {
	t.mutex.Lock()
	var generation uint64
	if known, found := t.processes.Peek(id); found {
		generation = known.generation
	}
	t.mutex.Unlock()

	view, err := t.proc.read(id.pid, id.startTicks)
	if err != nil || view.ended {
		return nil, view, err
	}

	t.mutex.Lock()
	defer t.mutex.Unlock()
	known := t.find(id)
	if known.generation != generation {
		return nil, view, nil
	}
	if view.denied() {
		if t.counts.denied.Add(1) == 1 {
			t.logger.Info("the executable of a process cannot be read (CAP_SYS_PTRACE, and every capability that the process "+
				"has itself, would allow it): such processes are known by their name alone", zap.Uint32("pid", key.PID))
		}
	}
	known.complement(&view)
	known.workload = t.newWorkload(key, view.facts)
	known.readAt = t.now()
	t.forget(known.readAt)
	return known.workload, view, nil
}

// bury describes a process that has gone. view is what /proc still showed of it.
func (t *Table) bury(key Key, id processID, view processView, hint Hint) *Workload {
	// The events of its life may still wait in the ring.
	if t.following.Load() {
		t.events.catchUp()
	}
	ancestor := t.ancestor(id)

	t.mutex.Lock()
	defer t.mutex.Unlock()
	known := t.find(id)
	if known.workload == nil {
		if ancestor != nil && known.unknown() {
			known.inherited, known.sameProgram = ancestor, true
		}
		if known.unknown() {
			t.counts.gone.Add(1)
		}
		known.workload = t.newWorkload(key, known.epitaph(view, hint, t.cgroupOf))
	}
	t.end(id, known)
	return known.workload
}

// ancestor finds the program of a process that only forked, by its nearest ancestor that is alive or known. It returns
// nil when the process is known itself.
func (t *Table) ancestor(id processID) *Workload {
	t.mutex.Lock()
	known, found := t.processes.Peek(id)
	if !found || !known.unknown() {
		t.mutex.Unlock()
		return nil
	}
	key := known.parent
	t.mutex.Unlock()

	for range maxAncestors {
		if key.PID == 0 {
			return nil
		}
		id := t.identify(key)
		t.mutex.Lock()
		known, found := t.processes.Peek(id)
		switch {
		case found && known.executed != nil:
			// Otherwise the fork would have passed it on: it executed another program since.
			t.mutex.Unlock()
			return nil
		case found && known.workload != nil:
			t.mutex.Unlock()
			return known.workload
		}
		t.mutex.Unlock()
		if workload, _, _ := t.read(key, id); workload != nil {
			return workload
		}
		if !found {
			return nil
		}
		key = known.parent
	}
	return nil
}

// find returns the entry of a process, a new one if there was none. The mutex is held.
func (t *Table) find(id processID) *process {
	known, found := t.processes.Get(id)
	if found {
		return known
	}
	// Those that have ended make room first.
	for t.processes.Len() >= t.config.MaxProcesses && len(t.exits) > 0 {
		t.forgetFirst()
		t.counts.evicted.Add(1)
	}
	known = &process{}
	if t.processes.Add(id, known) {
		t.counts.evicted.Add(1)
	}
	return known
}

// end marks a process as ended. The mutex is held.
func (t *Table) end(id processID, known *process) {
	if !known.exited {
		known.exited = true
		t.exits = append(t.exits, exit{process: id, forget: t.now().Add(t.config.ExitGrace)})
	}
}

// forget drops the processes whose time is over. The mutex is held.
func (t *Table) forget(now time.Time) {
	for len(t.exits) > 0 && !now.Before(t.exits[0].forget) {
		t.forgetFirst()
	}
}

func (t *Table) forgetFirst() {
	first := t.exits[0].process
	t.exits = t.exits[1:]
	if known, found := t.processes.Peek(first); found && known.exited {
		t.processes.Remove(first)
	}
}

func (t *Table) newWorkload(key Key, described facts) *Workload {
	// The clock is read in our time namespace, the key is not.
	started := t.clock.WallFromBoot(key.StartBootNs + uint64(t.proc.bootTimeOffsetNs))
	return newWorkload(key.PID, started, described, t.host)
}

// cgroupOf describes the version 2 cgroup that has an id; its path is empty when it is not known.
func (t *Table) cgroupOf(id uint64) cgroupIdentity {
	path := t.cgroups.path(id)
	if path == "" {
		return cgroupIdentity{}
	}
	identity, _ := identifyCgroup(path)
	return identity
}
