//go:build linux

package tls

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
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
	// GoModules are the modules of the sites' functions, where the program was built with modules.
	GoModules []*debug.Module
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
	// GoFunctions are what Functions is attached to in programs of Go.
	GoFunctions []string
	// TLS attaches to what encrypts, Functions and Mux to GoFunctions, of which each takes its own: where there are none,
	// Attach fails with site.ErrNone. nil: nothing is attached there.
	TLS, Functions, Mux Attacher
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
	config Config
	logger *zap.Logger
	counts counts

	mutex     sync.Mutex // guards what follows
	files     map[identity]*file
	processes map[uint32]*process
	closed    bool
}

// counts are totals since the Finder was made.
type counts struct {
	examined, inspected                 atomic.Uint64 // processes, files
	gone, denied, unreadable, truncated atomic.Uint64
	tooLarge, tooCostly, filesFull      atomic.Uint64
	attached, refused                   [uses]atomic.Uint64
}

// process is one that was examined.
type process struct {
	startTicks uint64
	observed   bool
	next       time.Time // when it may be examined again
	interval   time.Duration
}

// NewFinder makes a Finder that knows no process.
func NewFinder(config Config, logger *zap.Logger) *Finder {
	if logger == nil {
		logger = zap.NewNop()
	}
	return &Finder{
		config: config.withDefaults(), logger: logger,
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
	return f.examine(pid, now, f.count)
}

// ExamineRunning is Examine for a process that was not seen to speak TLS: what cannot be read of it is not lost yet. Once
// it is, it is examined at once.
func (f *Finder) ExamineRunning(pid uint32, now time.Time) (observed bool, err error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if observed, err = f.examine(pid, now, func(error) {}); !observed {
		delete(f.processes, pid)
	}
	return observed, err
}

// examine has the mutex held.
func (f *Finder) examine(pid uint32, now time.Time, count func(error)) (observed bool, err error) {
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
	known.observed, err = f.examineMaps(pid, startTicks, count)
	if err != nil {
		return known.observed, fmt.Errorf("examine process %d: %w", pid, err)
	}
	return known.observed, nil
}

func (f *Finder) examineMaps(pid uint32, startTicks uint64, count func(error)) (observed bool, err error) {
	directory := f.directory(pid)
	maps, err := os.Open(filepath.Join(directory, "maps"))
	if err != nil {
		count(err)
		return false, err
	}
	mappings, truncated, err := readMaps(maps, maxMappedFiles)
	maps.Close()
	if err != nil {
		count(err)
		return false, err
	}
	if truncated {
		f.counts.truncated.Add(1)
	}
	var errs []error
	for _, mapping := range mappings {
		opened, err := open(directory, mapping)
		if err == nil {
			var found *file
			if found, err = f.find(opened, mapping.path); found != nil && f.attach(found, opened, toTLS) {
				found.users[pid], found.unusedFrom = startTicks, time.Time{}
				observed = true
			}
			opened.Close()
		}
		if err != nil {
			count(err)
			errs = append(errs, fmt.Errorf("look into %s: %w", mapping.path, err))
		}
	}
	return observed, errors.Join(errs...)
}

// Program tells what a process executes, and has uprobes attached to it where it encrypts. Of a file that was met before,
// that is known: then it takes some microseconds.
func (f *Finder) Program(pid uint32) (program Program, err error) {
	err = f.executable(pid, func(opened *os.File, found *file) (attached bool) {
		if found == nil { // there is no room
			program, err = readProgram(opened)
			return false
		}
		if found.program == nil {
			if program, err = readProgram(opened); err != nil {
				f.logger.Debug("cannot tell what a process executes", zap.String("file", found.name), zap.Error(err))
			}
			found.program = &program
		}
		program = *found.program
		return f.attach(found, opened, toTLS)
	})
	return program, err
}

// ObserveFunctions has Functions attached to the program that a process executes.
func (f *Finder) ObserveFunctions(pid uint32) error { return f.observe(pid, toFunctions) }

// ObserveMux has Mux attached to it.
func (f *Finder) ObserveMux(pid uint32) error { return f.observe(pid, toMux) }

func (f *Finder) observe(pid uint32, to use) error {
	err := f.executable(pid, func(opened *os.File, found *file) (attached bool) {
		return found != nil && f.attach(found, opened, to)
	})
	if err != nil {
		f.count(err)
	}
	return err
}

// executable opens what a process executes. What it is given to says whether uprobes are attached to it.
func (f *Finder) executable(pid uint32, look func(opened *os.File, found *file) (attached bool)) error {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if f.closed {
		return ErrClosed
	}
	startTicks, err := f.startTicks(pid)
	if err != nil {
		return fmt.Errorf("look into the program of process %d: %w", pid, err)
	}
	path := filepath.Join(f.directory(pid), "exe")
	opened, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("look into the program of process %d: %w", pid, err)
	}
	defer opened.Close()
	name, err := os.Readlink(path)
	if err != nil {
		name = path
	}
	found, err := f.find(opened, name)
	if err != nil {
		return fmt.Errorf("look into the program of process %d: %w", pid, err)
	}
	if look(opened, found) {
		found.users[pid], found.unusedFrom = startTicks, time.Time{}
	}
	return nil
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
	found, err := f.find(opened, path)
	if err != nil || found == nil {
		return false, err
	}
	found.kept = true
	return f.attach(found, opened, toTLS), nil
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

// Sweep detaches from the files that nobody has used for a while, and returns from how many. Processes that were not
// examined may still use them: where the number is not 0, the caller has to report processes anew that it reported before.
func (f *Finder) Sweep(now time.Time) (detached int, err error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.forgetEnded(now)
	var errs []error
	for id, known := range f.files {
		if !known.attached() || known.kept || known.unusedFrom.IsZero() || now.Sub(known.unusedFrom) < f.config.Linger {
			continue
		}
		errs = append(errs, known.detach())
		delete(f.files, id)
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

// directory is where the proc file system has a process.
func (f *Finder) directory(pid uint32) string {
	return filepath.Join(f.config.ProcFS, strconv.FormatUint(uint64(pid), 10))
}

// startTicks is when a process began, in clock ticks since the boot: field 22 of /proc/PID/stat.
func (f *Finder) startTicks(pid uint32) (uint64, error) {
	content, err := os.ReadFile(filepath.Join(f.directory(pid), "stat"))
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
		errs = append(errs, known.detach())
	}
	clear(f.files)
	clear(f.processes)
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
	event("tls_file_attached", &f.counts.attached[toTLS])
	event("go_client_attached", &f.counts.attached[toFunctions])
	event("go_mux_attached", &f.counts.attached[toMux])
	loss("tls_file_denied", &f.counts.denied)
	loss("tls_file_unreadable", &f.counts.unreadable)
	loss("tls_maps_truncated", &f.counts.truncated)
	loss("tls_file_too_large", &f.counts.tooLarge)
	loss("tls_function_too_costly", &f.counts.tooCostly)
	loss("tls_attach_refused", &f.counts.refused[toTLS])
	loss("go_client_attach_refused", &f.counts.refused[toFunctions])
	loss("go_mux_attach_refused", &f.counts.refused[toMux])
	loss("tls_files_full", &f.counts.filesFull)

	f.mutex.Lock()
	defer f.mutex.Unlock()
	stats.Maps = []kernel.MapUsage{
		{Probe: probe, Map: "tls_files", Entries: uint64(len(f.files)), Capacity: uint64(f.config.MaxFiles)},
		{Probe: probe, Map: "tls_processes", Entries: uint64(len(f.processes)), Capacity: uint64(f.config.MaxProcesses)},
	}
	return stats
}
