//go:build linux

package tls

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http/tls/site"
	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

// Target is a file that is to be observed.
type Target struct {
	// Path by which the file can be opened until Attach returns, whatever becomes of its name.
	Path string
	// Name is where the process that was examined has it, for people.
	Name string
	// GoVersion is the version of Go that a program was built with; empty: the sites are those of OpenSSL.
	GoVersion string
	Sites     []site.Site
}

// Attacher places uprobes.
type Attacher interface {
	// Attach places uprobes at the sites of a file, for every process that maps it now or later, until what it returns is
	// closed.
	Attach(target Target) (io.Closer, error)
}

// Config says what to look for and how much to keep. Zero values take the defaults.
type Config struct {
	// ProcFS is the proc file system of the host's pid namespace. Default /proc.
	ProcFS string
	// WithoutOpenSSL and WithoutGo leave one kind of program alone.
	WithoutOpenSSL, WithoutGo bool
	// GoFunctions are further functions to attach to in programs of Go.
	GoFunctions []string
	// AllowCost is the most that a site may cost. Default site.EmulatedReturn.
	AllowCost site.Cost
	// MaxFiles bounds the files that are remembered, with those that have nothing to observe. Default 4096.
	MaxFiles int
	// MaxFileBytes is the size beyond which a file is not looked into. Default 2 GiB.
	MaxFileBytes int64
	// MaxProcesses bounds the processes that are remembered. Default 4096.
	MaxProcesses int
	// Linger is how long uprobes stay at a file when all processes have ended that were found to use it. Those that were
	// not examined may go on using it. Default ten minutes.
	Linger time.Duration
}

func (c Config) withDefaults() Config {
	if c.ProcFS == "" {
		c.ProcFS = "/proc"
	}
	if c.AllowCost == 0 {
		c.AllowCost = site.EmulatedReturn
	}
	if c.MaxFiles <= 0 {
		c.MaxFiles = 4096
	}
	if c.MaxFileBytes <= 0 {
		c.MaxFileBytes = 2 << 30
	}
	if c.MaxProcesses <= 0 {
		c.MaxProcesses = 4096
	}
	if c.Linger <= 0 {
		c.Linger = 10 * time.Minute
	}
	return c
}

const (
	maxMappedFiles = 512 // of one process

	// A process in which nothing was found is looked at again after the first interval, then after twice as long, ...
	firstRetry = time.Second
	lastRetry  = time.Minute
)

// Finder knows the files that processes encrypt with. Its methods are safe for concurrent use.
type Finder struct {
	config   Config
	attacher Attacher
	logger   *zap.Logger
	counts   counts

	mutex     sync.Mutex // guards what follows
	files     map[identity]*file
	processes map[uint32]*process
	attached  int
	closed    bool
}

// counts are totals since the Finder was made.
type counts struct {
	examined, inspected                     atomic.Uint64 // processes, files
	gone, denied, unreadable, truncated     atomic.Uint64
	tooLarge, tooCostly, refused, filesFull atomic.Uint64
}

// identity of a file. Uprobes belong to the inode below an overlay file system; containers of one image have each an overlay
// of their own, but the same inode number and times in it, so the device is left out there. A number is used again when its
// file has gone: size and times tell those apart.
type identity struct {
	device, inode      uint64
	bytes              int64
	modified, changed  unix.Timespec
	onOverlay, missing bool
}

// file is one that was looked into.
type file struct {
	name       string
	attachment io.Closer // nil: there is nothing to observe
	users      map[uint32]uint64
	unusedFrom time.Time // zero: it is used
	kept       bool      // whether it is used or not
}

// process is one that was examined.
type process struct {
	startTicks uint64
	observed   bool
	next       time.Time // when it may be examined again
	interval   time.Duration
}

// NewFinder makes a Finder that knows no process.
func NewFinder(config Config, attacher Attacher, logger *zap.Logger) *Finder {
	if logger == nil {
		logger = zap.NewNop()
	}
	return &Finder{
		config: config.withDefaults(), attacher: attacher, logger: logger,
		files: map[identity]*file{}, processes: map[uint32]*process{},
	}
}

// ErrClosed says that the Finder was closed.
var ErrClosed = errors.New("the search for TLS libraries was closed")

// Examine looks into the files that a process may execute, and has uprobes attached to those that encrypt. It tells whether
// the process has uprobes now. A process in which nothing was found is examined again only after a while, in case it loads
// a library later.
//
// It reads files of some megabytes, each of them once: a few milliseconds. The caller has to keep it off the path of events.
func (f *Finder) Examine(pid uint32, now time.Time) (observed bool, err error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if f.closed {
		return false, ErrClosed
	}
	startTicks, err := f.startTicks(pid)
	if err != nil {
		f.counts.gone.Add(1)
		return false, fmt.Errorf("examine process %d: %w", pid, err)
	}
	known := f.processes[pid]
	if known != nil && known.startTicks == startTicks && now.Before(known.next) {
		return known.observed, nil
	}
	if known == nil || known.startTicks != startTicks {
		if known == nil && len(f.processes) >= f.config.MaxProcesses {
			f.forgetEnded(now)
			if len(f.processes) >= f.config.MaxProcesses {
				clear(f.processes) // They are only examined once more.
			}
		}
		known = &process{startTicks: startTicks, interval: firstRetry}
		f.processes[pid] = known
	}
	known.next = now.Add(known.interval)
	known.interval = min(2*known.interval, lastRetry)

	f.counts.examined.Add(1)
	known.observed, err = f.examine(pid, startTicks)
	if err != nil {
		return known.observed, fmt.Errorf("examine process %d: %w", pid, err)
	}
	return known.observed, nil
}

func (f *Finder) examine(pid uint32, startTicks uint64) (observed bool, err error) {
	directory := filepath.Join(f.config.ProcFS, strconv.FormatUint(uint64(pid), 10))
	maps, err := os.Open(filepath.Join(directory, "maps"))
	if err != nil {
		f.count(err)
		return false, err
	}
	mappings, truncated, err := readMaps(maps, maxMappedFiles)
	maps.Close()
	if err != nil {
		f.count(err)
		return false, err
	}
	if truncated {
		f.counts.truncated.Add(1)
	}
	var errs []error
	for _, mapping := range mappings {
		found, err := f.inspect(directory, mapping)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if found != nil && found.attachment != nil {
			found.users[pid], found.unusedFrom = startTicks, time.Time{}
			observed = true
		}
	}
	return observed, errors.Join(errs...)
}

// Keep looks into a library that processes may come to use, and lets its uprobes stay until Close: then nothing is missed
// of the first of them. It tells whether there is something to observe.
func (f *Finder) Keep(path string) (observed bool, err error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if f.closed {
		return false, ErrClosed
	}
	opened, err := os.Open(path)
	if err != nil {
		f.count(err)
		return false, fmt.Errorf("look into a library: %w", err)
	}
	defer opened.Close()
	found, err := f.look(opened, path)
	if err != nil || found == nil {
		return false, err
	}
	found.kept = true
	return found.attachment != nil, nil
}

// count tells losses apart by their reasons.
func (f *Finder) count(err error) {
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH):
		f.counts.gone.Add(1)
	case errors.Is(err, fs.ErrPermission):
		f.counts.denied.Add(1)
	default:
		f.counts.unreadable.Add(1)
	}
}

// open opens the very file that is mapped. Where the kernel does not allow that (CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN),
// the path has to do.
func open(directory string, mapping mapping) (*os.File, error) {
	opened, err := os.Open(filepath.Join(directory, "map_files", mapping.span))
	if err == nil || mapping.deleted {
		return opened, err
	}
	return os.Open(filepath.Join(directory, "root") + mapping.path)
}

// inspect looks into a file, unless it was before. It returns nil for what is no file of a program.
func (f *Finder) inspect(directory string, mapping mapping) (*file, error) {
	opened, err := open(directory, mapping)
	if err != nil {
		f.count(err)
		return nil, fmt.Errorf("open %s: %w", mapping.path, err)
	}
	defer opened.Close()
	return f.look(opened, mapping.path)
}

func (f *Finder) look(opened *os.File, path string) (*file, error) {
	id, err := identify(opened)
	if err != nil {
		f.count(err)
		return nil, fmt.Errorf("identify %s: %w", path, err)
	}
	if id.missing {
		return nil, nil
	}
	if known, found := f.files[id]; found {
		return known, nil
	}
	if len(f.files) >= f.config.MaxFiles && !f.makeRoom() {
		f.counts.filesFull.Add(1)
		return nil, nil
	}
	found := &file{name: path, users: map[uint32]uint64{}}
	f.files[id] = found
	if id.bytes > f.config.MaxFileBytes {
		f.counts.tooLarge.Add(1)
		return found, nil
	}
	f.counts.inspected.Add(1)
	target := f.target(opened, path)
	if len(target.Sites) == 0 {
		return found, nil
	}
	attachment, err := f.attacher.Attach(target)
	if err != nil {
		f.counts.refused.Add(1)
		f.logger.Warn("cannot observe the TLS of a program", zap.String("file", path), zap.Error(err))
		return found, nil // It would fail again.
	}
	found.attachment = attachment
	f.attached++
	f.logger.Debug("observing TLS", zap.String("file", path), zap.Stringers("sites", target.Sites))
	return found, nil
}

// target finds out what there is to observe in a file.
func (f *Finder) target(opened *os.File, name string) Target {
	target := Target{Path: fmt.Sprintf("/proc/self/fd/%d", opened.Fd()), Name: name}
	if !f.config.WithoutGo {
		program, err := site.Go(opened, f.config.GoFunctions...)
		if !f.note(name, err) {
			return target
		}
		target.GoVersion, target.Sites = program.Version, program.Sites
		if program.Version != "" {
			return f.affordable(target)
		}
	}
	if !f.config.WithoutOpenSSL {
		sites, err := site.OpenSSL(opened)
		f.note(name, err)
		target.Sites = sites
	}
	return f.affordable(target)
}

// note counts files that could not be read, and tells whether there is a point in reading on.
func (f *Finder) note(name string, err error) bool {
	switch {
	case err == nil || errors.Is(err, site.ErrNone):
	case errors.Is(err, site.ErrUnsupported):
		f.logger.Info("the TLS of a program cannot be observed", zap.String("file", name), zap.Error(err))
	default:
		f.counts.unreadable.Add(1)
		f.logger.Debug("cannot look into a file", zap.String("file", name), zap.Error(err))
		return false
	}
	return true
}

// affordable leaves out sites that cost too much. A read needs both its sites.
func (f *Finder) affordable(target Target) Target {
	dear := map[string]bool{}
	for _, site := range target.Sites {
		if site.Cost > f.config.AllowCost {
			dear[site.Function] = true
		}
	}
	if len(dear) == 0 {
		return target
	}
	f.counts.tooCostly.Add(uint64(len(dear)))
	var kept []site.Site
	for _, site := range target.Sites {
		if !dear[site.Function] {
			kept = append(kept, site)
		}
	}
	target.Sites = kept
	return target
}

// identify tells files apart. What is no regular file is missing.
func identify(opened *os.File) (identity, error) {
	var status unix.Stat_t
	if err := unix.Fstat(int(opened.Fd()), &status); err != nil {
		return identity{}, err
	}
	if status.Mode&unix.S_IFMT != unix.S_IFREG {
		return identity{missing: true}, nil
	}
	var system unix.Statfs_t
	if err := unix.Fstatfs(int(opened.Fd()), &system); err != nil {
		return identity{}, err
	}
	id := identity{
		device: status.Dev, inode: status.Ino, bytes: status.Size, modified: status.Mtim, changed: status.Ctim,
	}
	if system.Type == unix.OVERLAYFS_SUPER_MAGIC {
		id.device, id.onOverlay = 0, true
	}
	return id, nil
}

// Sweep detaches from the files that nobody has used for a while, and returns from how many. Processes that were not
// examined may still use them: where the number is not 0, the caller has to report processes anew that it reported before.
func (f *Finder) Sweep(now time.Time) (detached int, err error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.forgetEnded(now)
	var errs []error
	for id, known := range f.files {
		if known.attachment == nil || known.kept || known.unusedFrom.IsZero() || now.Sub(known.unusedFrom) < f.config.Linger {
			continue
		}
		if err := known.attachment.Close(); err != nil {
			errs = append(errs, fmt.Errorf("detach from %s: %w", known.name, err))
		}
		delete(f.files, id)
		f.attached--
		detached++
	}
	if detached > 0 {
		clear(f.processes)
	}
	return detached, errors.Join(errs...)
}

// forgetEnded drops the processes that have ended from all that is known. The mutex is held.
func (f *Finder) forgetEnded(now time.Time) {
	for pid, known := range f.processes {
		if startTicks, err := f.startTicks(pid); err != nil || startTicks != known.startTicks {
			delete(f.processes, pid)
		}
	}
	for _, known := range f.files {
		for pid, startTicks := range known.users {
			if now, err := f.startTicks(pid); err != nil || now != startTicks {
				delete(known.users, pid)
			}
		}
		if len(known.users) == 0 && known.unusedFrom.IsZero() {
			known.unusedFrom = now
		}
	}
}

// makeRoom forgets a file that has nothing to observe: if it is met again, it is looked into again. The mutex is held.
func (f *Finder) makeRoom() bool {
	for id, known := range f.files {
		if known.attachment == nil {
			delete(f.files, id)
			return true
		}
	}
	return false
}

// startTicks is when a process began, in clock ticks since the boot: field 22 of /proc/PID/stat.
func (f *Finder) startTicks(pid uint32) (uint64, error) {
	content, err := os.ReadFile(filepath.Join(f.config.ProcFS, strconv.FormatUint(uint64(pid), 10), "stat"))
	if err != nil {
		return 0, err
	}
	ticks, err := workload.ParseStartTicks(content)
	if err != nil {
		return 0, fmt.Errorf("read the status of process %d: %w", pid, err)
	}
	return ticks, nil
}

// Close detaches from all files.
func (f *Finder) Close() error {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.closed = true
	var errs []error
	for _, known := range f.files {
		if known.attachment != nil {
			if err := known.attachment.Close(); err != nil {
				errs = append(errs, fmt.Errorf("detach from %s: %w", known.name, err))
			}
		}
	}
	clear(f.files)
	clear(f.processes)
	f.attached = 0
	return errors.Join(errs...)
}

// Stats tells what was looked at and what could not be observed.
func (f *Finder) Stats(probe string) kernel.Stats {
	var stats kernel.Stats
	event := func(kind string, count *atomic.Uint64) {
		stats.Events = append(stats.Events, kernel.EventCount{Probe: probe, Kind: kind, Count: count.Load()})
	}
	loss := func(reason string, count *atomic.Uint64) {
		stats.Losses = append(stats.Losses, kernel.LossCount{Probe: probe, Reason: reason, Count: count.Load()})
	}
	event("tls_process_examined", &f.counts.examined)
	event("tls_file_inspected", &f.counts.inspected)
	event("tls_process_gone", &f.counts.gone)
	loss("tls_file_denied", &f.counts.denied)
	loss("tls_file_unreadable", &f.counts.unreadable)
	loss("tls_maps_truncated", &f.counts.truncated)
	loss("tls_file_too_large", &f.counts.tooLarge)
	loss("tls_function_too_costly", &f.counts.tooCostly)
	loss("tls_attach_refused", &f.counts.refused)
	loss("tls_files_full", &f.counts.filesFull)

	f.mutex.Lock()
	defer f.mutex.Unlock()
	stats.Maps = []kernel.MapUsage{
		{Probe: probe, Map: "tls_files", Entries: uint64(len(f.files)), Capacity: uint64(f.config.MaxFiles)},
		{Probe: probe, Map: "tls_processes", Entries: uint64(len(f.processes)), Capacity: uint64(f.config.MaxProcesses)},
	}
	return stats
}
