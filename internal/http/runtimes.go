//go:build linux

package http

import (
	"debug/buildinfo"
	"debug/elf"
	"errors"
	"fmt"
	"go/version"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/hashicorp/golang-lru/v2/simplelru"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

const (
	// maxRuntimes is how many processes are remembered: no more than go_processes of bpf/include/http/goroutine.h has room
	// for. maxRuntimeFiles is how many of their programs are.
	maxRuntimes, maxRuntimeFiles = 4096, 1024
	// maxRuntimesWaiting bounds the processes that wait to be looked into.
	maxRuntimesWaiting = 256
	// runtimesInterval is how often those that are known are looked at again: they may have ended, or run another program.
	runtimesInterval = time.Minute
)

// goLayout is where struct g of Go's runtime/runtime2.go has its fields.
type goLayout struct{ goid, parentGoid uint32 }

// goLayoutOf gives the layout of a version of Go, such as go1.26.8, on machines of 64 bits. It was read from the DWARF of
// programs built with the first and a last release of each version.
func goLayoutOf(goVersion string) (layout goLayout, known bool) {
	goVersion, _, _ = strings.Cut(goVersion, " ") // experiments come after the version
	switch version.Lang(goVersion) {
	case "go1.20":
		return goLayout{goid: 152}, true // it has no parentGoid
	case "go1.21", "go1.22", "go1.25":
		return goLayout{goid: 152, parentGoid: 272}, true
	case "go1.23", "go1.24":
		return goLayout{goid: 160, parentGoid: 280}, true
	case "go1.26":
		return goLayout{goid: 152, parentGoid: 280}, true
	}
	return goLayout{}, false
}

// runtimeProgram is what is known of an executable file.
type runtimeProgram struct {
	by     scheduling
	layout goLayout // schedulingGoroutines
}

// runtimeFile tells executable files apart.
type runtimeFile struct {
	device, inode uint64
	bytes         int64
	modified      unix.Timespec
}

// runtimeProcess is what is known of a process.
type runtimeProcess struct {
	by atomic.Uint32 // scheduling
	// Of the goroutine that asks: what the process was seen to do, and whether its clients were told of that.
	serves, asks, noticed bool
}

// runtimes knows which processes are programs of Go, and tells the kernel side where they have their goroutines. It looks
// into a process when it is first asked for, on a goroutine of its own: until then nothing is known of the process.
type runtimes struct {
	procFS    string
	logger    *zap.Logger
	processes *ebpf.Map // go_processes
	known     *lru.Cache[workload.Key, *runtimeProcess]
	clients   *goClients // is told of programs of Go that serve requests and make some
	waiting   chan workload.Key
	skipped   atomic.Uint64 // processes for which there was no room among those that wait, each time
	stop      chan struct{}
	done      sync.WaitGroup

	files *simplelru.LRU[runtimeFile, runtimeProgram] // of the goroutine that run is
}

func newRuntimes(procFS string, processes *ebpf.Map, clients *goClients, logger *zap.Logger) (*runtimes, error) {
	r := &runtimes{
		procFS: procFS, logger: logger, processes: processes, clients: clients,
		waiting: make(chan workload.Key, maxRuntimesWaiting), stop: make(chan struct{}),
	}
	var err error
	if r.known, err = lru.NewWithEvict(maxRuntimes, r.forget); err != nil {
		return nil, fmt.Errorf("remember processes: %w", err)
	}
	if r.files, err = simplelru.NewLRU[runtimeFile, runtimeProgram](maxRuntimeFiles, nil); err != nil {
		return nil, fmt.Errorf("remember programs: %w", err)
	}
	r.done.Go(r.run)
	return r, nil
}

// schedules says what a process serves requests with. role is that of one that begins; 0: none does, or none that net/http
// has written by a goroutine of its own. A nil *runtimes knows nothing.
func (r *runtimes) schedules(process workload.Key, role Role) scheduling {
	if r == nil {
		return schedulingUnknown
	}
	p, known := r.known.Get(process)
	if !known {
		select {
		case r.waiting <- process:
			r.known.Add(process, &runtimeProcess{})
		default:
			r.skipped.Add(1)
		}
		return schedulingUnknown
	}
	by := scheduling(p.by.Load())
	if by == schedulingGoroutines && !p.noticed {
		p.serves = p.serves || role == RoleServer
		p.asks = p.asks || role == RoleClient
		p.noticed = p.serves && p.asks && r.clients.notice(process.PID)
	}
	return by
}

func (r *runtimes) run() {
	sweep := time.NewTicker(runtimesInterval)
	defer sweep.Stop()
	for {
		select {
		case <-r.stop:
			return
		case process := <-r.waiting:
			r.examine(process)
		case <-sweep.C:
			for _, process := range r.known.Keys() {
				r.examine(process)
			}
		}
	}
}

// examine looks into a process.
func (r *runtimes) examine(process workload.Key) {
	found, err := r.program(fmt.Sprintf("%s/%d/exe", r.procFS, process.PID))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			r.known.Remove(process) // it has ended
			return
		}
		r.logger.Debug("Look for the runtime of a process", zap.Uint32("pid", process.PID), zap.Error(err))
		return
	}
	if found.by == schedulingGoroutines {
		// Not before the kernel side knows: it would look as if other things than goroutines made the calls.
		entry := bpfGoProcess{StartBootNs: process.StartBootNs, Goid: found.layout.goid, ParentGoid: found.layout.parentGoid}
		if err := r.processes.Put(process.PID, &entry); err != nil {
			r.logger.Warn("Tell the kernel side of a program of Go", zap.Uint32("pid", process.PID), zap.Error(err))
			return
		}
	}
	if p, known := r.known.Peek(process); known {
		p.by.Store(uint32(found.by))
	}
}

// forget is told of processes that known has no more.
func (r *runtimes) forget(process workload.Key, p *runtimeProcess) {
	if scheduling(p.by.Load()) != schedulingGoroutines {
		return
	}
	if err := r.processes.Delete(process.PID); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		r.logger.Warn("Take a program of Go off the kernel side", zap.Uint32("pid", process.PID), zap.Error(err))
	}
}

// program looks into the file that a process executes, unless that was done before.
func (r *runtimes) program(path string) (runtimeProgram, error) {
	var status unix.Stat_t
	if err := unix.Stat(path, &status); err != nil {
		return runtimeProgram{}, fmt.Errorf("find %s: %w", path, err)
	}
	file := runtimeFile{status.Dev, status.Ino, status.Size, status.Mtim}
	if found, known := r.files.Get(file); known {
		return found, nil
	}
	found, err := readProgram(path)
	if err != nil {
		return runtimeProgram{}, err
	}
	r.files.Add(file, found)
	return found, nil
}

// readProgram reads from an executable file what it schedules with.
func readProgram(path string) (runtimeProgram, error) {
	opened, err := os.Open(path)
	if err != nil {
		return runtimeProgram{}, err
	}
	defer opened.Close()
	info, err := buildinfo.Read(opened)
	if err != nil {
		return readStranger(opened)
	}
	layout, known := goLayoutOf(info.GoVersion)
	for _, setting := range info.Settings {
		if setting.Key == "GOARCH" && setting.Value != runtime.GOARCH {
			known = false // registers and offsets are others
		}
	}
	if !known {
		return runtimeProgram{}, nil
	}
	return runtimeProgram{by: schedulingGoroutines, layout: layout}, nil
}

// readStranger tells programs of Go that do not say so from others.
func readStranger(opened *os.File) (runtimeProgram, error) {
	file, err := elf.NewFile(opened)
	if err != nil {
		return runtimeProgram{}, fmt.Errorf("read %s: %w", opened.Name(), err)
	}
	for _, name := range []string{".go.buildinfo", ".gopclntab", ".note.go.buildid"} {
		if file.Section(name) != nil {
			return runtimeProgram{}, nil
		}
	}
	return runtimeProgram{by: schedulingThreads}, nil
}

func (r *runtimes) skippedCount() uint64 {
	if r == nil {
		return 0
	}
	return r.skipped.Load()
}

// close stops to look into processes.
func (r *runtimes) close() {
	if r != nil {
		close(r.stop)
		r.done.Wait()
	}
}
