//go:build linux

package http

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http/tls"
	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

const (
	// maxInspections bounds the processes that wait to be looked into. Those that were not seen to do anything yet have
	// half of the room.
	maxInspections = 256
	// inspectionSweep is how often those that are known are looked at again: they may have ended, or run another program.
	inspectionSweep = time.Minute
	// Programs that are executed are looked into for executedShare of the time at most, of which executedBurst may be
	// saved up: a storm of them must not keep a CPU busy.
	executedShare, executedBurst = 10, time.Second // a tenth
)

// inspection is a process that is to be looked into.
type inspection struct {
	process workload.Key
	why     inspectionReason
}

type inspectionReason uint8

const (
	toFindProgram    inspectionReason = iota // it moves messages: who goes on with a request in it?
	toFindTLS                                // it speaks TLS
	toObserveClients                         // a program of Go that serves requests and makes some
	toObserveMux                             // one that serves requests
	toBeInTime                               // it executes a program: its first request is seen if that is known to encrypt
)

// inspector looks into processes one after the other, on a goroutine of its own: it opens their files, for which runtimes
// and secure have no time.
type inspector struct {
	procFS   string
	finder   *tls.Finder
	runtimes *runtimes
	logger   *zap.Logger

	waiting    chan inspection
	skipped    atomic.Uint64 // inspections for which there was no room
	tooLate    atomic.Uint64 // programs that were executed and not looked into at once
	toldDenied sync.Once
	executed   allowance

	unwatch func()        // to be told of no more executions
	scanned chan struct{} // closed when all that ran at the start was looked into
	stop    chan struct{}
	done    sync.WaitGroup
}

func newInspector(procFS string, logger *zap.Logger) *inspector {
	return &inspector{
		procFS: procFS, logger: logger,
		waiting: make(chan inspection, maxInspections), scanned: make(chan struct{}), stop: make(chan struct{}),
	}
}

// start begins to look into processes. Where finder attaches to TLS, those that run are looked into at once, and others
// when table sees them execute a program.
func (i *inspector) start(finder *tls.Finder, runtimes *runtimes, table *workload.Table, attachesToTLS bool) {
	i.finder, i.runtimes, i.unwatch = finder, runtimes, func() {}
	if attachesToTLS {
		i.unwatch = table.OnExec(i.execute)
	}
	i.done.Go(func() { i.run(attachesToTLS) })
}

// ask has a process looked into soon, and says false where there is no room: the caller asks again.
func (i *inspector) ask(what inspection) bool {
	select {
	case i.waiting <- what:
		return true
	default:
		i.skipped.Add(1)
		return false
	}
}

// execute takes note that a process executes a program. It does not wait.
func (i *inspector) execute(process workload.Key) {
	if len(i.waiting) < maxInspections/2 {
		select {
		case i.waiting <- inspection{process, toBeInTime}:
			return
		default:
		}
	}
	i.tooLate.Add(1)
}

func (i *inspector) run(attachesToTLS bool) {
	if attachesToTLS {
		i.keepLibraries()
		i.inspectRunning()
	}
	close(i.scanned)
	sweep := time.NewTicker(inspectionSweep)
	defer sweep.Stop()
	for {
		select {
		case <-i.stop:
			return
		case next := <-i.waiting:
			i.inspect(next)
		case now := <-sweep.C:
			i.sweep(now)
		}
	}
}

// keepLibraries attaches to the host's own libraries, so that the first process that loads one is seen from its beginning.
func (i *inspector) keepLibraries() {
	for _, pattern := range []string{"/lib*/libssl.so*", "/lib*/*/libssl.so*", "/usr/lib*/libssl.so*", "/usr/lib*/*/libssl.so*"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			i.logger.Warn("Look for libraries for TLS", zap.Error(err))
			continue
		}
		for _, path := range paths {
			if _, err := i.finder.Keep(path); err != nil && !errors.Is(err, tls.ErrClosed) {
				i.logger.Debug("Look into a library for TLS", zap.String("path", path), zap.Error(err))
			}
		}
	}
}

// inspectRunning looks into the processes that run already, and between them into those that wait.
func (i *inspector) inspectRunning() {
	entries, err := os.ReadDir(i.procFS)
	if err != nil {
		i.logger.Warn("Look for processes that speak TLS", zap.Error(err))
	}
	for _, entry := range entries {
		pid, err := strconv.ParseUint(entry.Name(), 10, 32)
		if err != nil || int(pid) == os.Getpid() {
			continue
		}
		for waits := true; waits; {
			select {
			case <-i.stop:
				return
			case next := <-i.waiting:
				i.inspect(next)
			default:
				waits = false
			}
		}
		// What cannot be read is counted when it is seen to speak TLS.
		if _, err := i.finder.ExamineRunning(uint32(pid), time.Now()); err != nil {
			i.logger.Debug("Look for what a process encrypts with", zap.Uint64("pid", pid), zap.Error(err))
		}
	}
}

func (i *inspector) inspect(next inspection) {
	pid := next.process.PID
	if pid == uint32(os.Getpid()) {
		return
	}
	var err error
	switch next.why {
	case toFindProgram:
		err = i.identify(next.process)
	case toObserveClients:
		err = i.finder.ObserveFunctions(pid)
	case toObserveMux:
		err = i.finder.ObserveMux(pid)
	case toFindTLS:
		_, err = i.finder.Examine(pid, time.Now())
	case toBeInTime:
		since := time.Now()
		if !i.executed.left(since) {
			i.tooLate.Add(1)
			return
		}
		err = i.identify(next.process)
		i.executed.spend(time.Since(since))
	}
	if errors.Is(err, fs.ErrPermission) && next.why == toFindTLS {
		i.toldDenied.Do(func() {
			i.logger.Info("what a process encrypts with cannot be read (CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH would allow it, "+
				"and CAP_CHECKPOINT_RESTORE where the file was deleted): the TLS of such processes is not seen; "+
				"the loss tls_file_denied counts them", zap.Uint32("pid", pid), zap.Error(err))
		})
	}
	if err != nil && !gone(err) && !errors.Is(err, tls.ErrClosed) {
		i.logger.Debug("Look into a process", zap.Uint32("pid", pid), zap.Error(err))
	}
}

// identify finds out what a process executes.
func (i *inspector) identify(process workload.Key) error {
	program, err := i.finder.Program(process.PID)
	switch {
	case err == nil:
		i.runtimes.found(process, &program)
	case gone(err):
		i.runtimes.known.Remove(process)
	}
	return err
}

// gone says whether an error means that a process has ended.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) }

func (i *inspector) sweep(now time.Time) {
	for _, process := range i.runtimes.known.Keys() {
		i.inspect(inspection{process, toFindProgram})
	}
	if _, err := i.finder.Sweep(now); err != nil {
		i.logger.Warn("Detach from programs that nobody runs", zap.Error(err))
	}
}

// close detaches from everything. Nothing may ask any more. A nil *inspector has nothing to close.
func (i *inspector) close() error {
	if i == nil {
		return nil
	}
	i.unwatch()
	close(i.stop)
	err := i.finder.Close() // ends what is looked into at the moment
	i.done.Wait()
	return err
}

func (i *inspector) stats() kernel.Stats {
	if i == nil {
		return kernel.Stats{}
	}
	stats := i.finder.Stats(ProbeName)
	stats.Events = append(stats.Events,
		kernel.EventCount{Probe: ProbeName, Kind: "execution_not_inspected", Count: i.tooLate.Load()})
	stats.Losses = append(stats.Losses,
		kernel.LossCount{Probe: ProbeName, Reason: "process_skipped", Count: i.skipped.Load()})
	return stats
}

// allowance is time that may be spent: a share of what passes. What was not used is saved up, to a bound.
type allowance struct {
	saved time.Duration
	last  time.Time
}

func (a *allowance) left(now time.Time) bool {
	if a.last.IsZero() {
		a.saved = executedBurst
	} else if passed := now.Sub(a.last); passed > 0 {
		a.saved = min(a.saved+passed/executedShare, executedBurst)
	}
	a.last = now
	return a.saved > 0
}

func (a *allowance) spend(time time.Duration) { a.saved -= time }
