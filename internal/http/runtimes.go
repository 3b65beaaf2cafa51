//go:build linux

package http

import (
	"errors"
	"fmt"
	"go/version"
	"runtime"
	"strings"
	"sync/atomic"

	"github.com/cilium/ebpf"
	lru "github.com/hashicorp/golang-lru/v2"
	"go.uber.org/zap"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http/tls"
	"github.com/ebpfreceiver/ebpfreceiver/internal/timeline"
	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

// maxRuntimes is how many processes are remembered: no more than go_processes of bpf/include/http/goroutine.h has room for.
const maxRuntimes = 4096

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

// runtimeProcess is what is known of a process.
type runtimeProcess struct {
	by atomic.Uint32 // scheduling
	// Of the goroutine that asks: what the process was seen to do, and whether its clients were told of that.
	serves, asks, noticed bool
	listed                bool // the timeline knows that it serves
	layout                goLayout
	routed                bool // its mux was told of
}

// schedulingOf says what a program schedules with, and where it has its goroutines.
func schedulingOf(program *tls.Program) (scheduling, goLayout) {
	switch layout, known := goLayoutOf(program.GoVersion); {
	case !program.Known:
		return schedulingUnknown, goLayout{}
	case !program.Go:
		return schedulingThreads, goLayout{}
	case known && (program.GoArch == "" || program.GoArch == runtime.GOARCH): // registers and offsets are others elsewhere
		return schedulingGoroutines, layout
	}
	return schedulingUnknown, goLayout{}
}

// runtimes knows which processes are programs of Go, and tells the kernel side where they have their goroutines. It has a
// process looked into when it is first asked for: until then nothing is known of the process.
type runtimes struct {
	ask       func(inspection) bool
	logger    *zap.Logger
	routes    bool // programs that serve are to tell of their routes
	processes *goProcesses
	timeline  *timeline.Timeline
	known     *lru.Cache[workload.Key, *runtimeProcess]
}

func newRuntimes(ask func(inspection) bool, processes *goProcesses, logger *zap.Logger) (*runtimes, error) {
	r := &runtimes{ask: ask, logger: logger, processes: processes}
	var err error
	if r.known, err = lru.NewWithEvict(maxRuntimes, r.forget); err != nil {
		return nil, fmt.Errorf("remember processes: %w", err)
	}
	return r, nil
}

// schedules says what a process serves requests with. role is that of one that begins; 0: none does. A nil *runtimes knows
// nothing.
func (r *runtimes) schedules(process workload.Key, role Role) scheduling {
	if r == nil {
		return schedulingUnknown
	}
	p, known := r.known.Get(process)
	if !known {
		p = &runtimeProcess{}
		r.known.Add(process, p) // before it is looked into
		if !r.ask(inspection{process, toFindProgram}) {
			r.known.Remove(process)
		}
		return schedulingUnknown
	}
	by := scheduling(p.by.Load())
	if role == RoleServer && by != schedulingUnknown && !p.listed {
		p.listed = true
		r.timeline.Serves(process.PID, process.StartBootNs, timeline.Goroutines{ID: p.layout.goid, ParentID: p.layout.parentGoid})
	}
	if by == schedulingGoroutines && !p.noticed {
		p.serves = p.serves || role == RoleServer
		p.asks = p.asks || role == RoleClient
		p.noticed = p.serves && p.asks && r.ask(inspection{process, toObserveClients})
	}
	if r.routes && by == schedulingGoroutines && !p.routed && role == RoleServer {
		p.routed = r.ask(inspection{process, toObserveMux})
	}
	return by
}

// found takes note of what a process executes.
func (r *runtimes) found(process workload.Key, program *tls.Program) {
	p, known := r.known.Peek(process)
	if !known {
		return
	}
	by, layout := schedulingOf(program)
	if by == schedulingGoroutines {
		// Not before the kernel side knows: it would look as if other things than goroutines made the calls.
		entry := bpfGoProcess{StartBootNs: process.StartBootNs, Goid: layout.goid, ParentGoid: layout.parentGoid}
		if err := r.processes.Put(process.PID, &entry); err != nil {
			r.logger.Warn("Tell the kernel side of a program of Go", zap.Uint32("pid", process.PID), zap.Error(err))
			return
		}
	}
	p.layout = layout // before others see that it is known
	p.by.Store(uint32(by))
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
