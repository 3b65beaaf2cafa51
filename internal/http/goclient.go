//go:build linux

package http

import (
	"errors"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"go.uber.org/zap"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http/tls"
	"github.com/ebpfreceiver/ebpfreceiver/internal/http/tls/site"
	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
)

const (
	// goRoundTrip is where net/http hands a request of HTTP/1 to its connection, whose own goroutine writes it. See
	// bpf/include/http/go_client.h.
	goRoundTrip = "net/http.(*persistConn).roundTrip"
	// maxGoClientsWaiting bounds the processes that wait to be attached to.
	maxGoClientsWaiting = 256
)

// goClients attaches the kernel side to programs of Go that serve requests and make some as well, so that it learns which
// goroutine waits for the response to one. A program that does only one of them costs nothing.
type goClients struct {
	finder  *tls.Finder
	logger  *zap.Logger
	waiting chan uint32 // pids
	skipped atomic.Uint64
	stop    chan struct{}
	done    sync.WaitGroup
}

// newGoClients begins to wait for processes. program is the kernel side's, for the uprobe.
func newGoClients(procFS string, program *ebpf.Program, logger *zap.Logger) *goClients {
	uprobes := &tls.Uprobes{Program: func(target tls.Target, at site.Site) *ebpf.Program {
		if _, known := goLayoutOf(target.GoVersion); !known || at.Event != site.Entry || at.Function != goRoundTrip {
			return nil
		}
		return program
	}}
	g := &goClients{
		finder: tls.NewFinder(tls.Config{ProcFS: procFS, WithoutOpenSSL: true, GoFunctions: []string{goRoundTrip}}, uprobes, logger),
		logger: logger, waiting: make(chan uint32, maxGoClientsWaiting), stop: make(chan struct{}),
	}
	g.done.Go(g.run)
	return g
}

// notice has a process attached to, and says false if it has to be noticed again. A nil *goClients attaches to nothing.
func (g *goClients) notice(pid uint32) bool {
	if g == nil {
		return true
	}
	select {
	case g.waiting <- pid:
		return true
	default:
		g.skipped.Add(1)
		return false
	}
}

func (g *goClients) run() {
	sweep := time.NewTicker(tlsSweepInterval)
	defer sweep.Stop()
	for {
		select {
		case <-g.stop:
			return
		case pid := <-g.waiting:
			_, err := g.finder.Examine(pid, time.Now())
			if err != nil && !errors.Is(err, tls.ErrClosed) && !errors.Is(err, fs.ErrNotExist) {
				g.logger.Debug("Look for the clients of a program of Go", zap.Uint32("pid", pid), zap.Error(err))
			}
		case now := <-sweep.C:
			if _, err := g.finder.Sweep(now); err != nil {
				g.logger.Warn("Detach from programs of Go that nobody runs", zap.Error(err))
			}
		}
	}
}

// close detaches from everything.
func (g *goClients) close() error {
	if g == nil {
		return nil
	}
	close(g.stop)
	err := g.finder.Close()
	g.done.Wait()
	return err
}

func (g *goClients) stats() kernel.Stats {
	if g == nil {
		return kernel.Stats{}
	}
	stats := g.finder.Stats(ProbeName)
	rename := func(name string) string { return "go_client_" + strings.TrimPrefix(name, "tls_") }
	for i := range stats.Events {
		stats.Events[i].Kind = rename(stats.Events[i].Kind)
	}
	for i := range stats.Losses {
		stats.Losses[i].Reason = rename(stats.Losses[i].Reason)
	}
	for i := range stats.Maps {
		stats.Maps[i].Map = rename(stats.Maps[i].Map)
	}
	stats.Losses = append(stats.Losses, kernel.LossCount{
		Probe: ProbeName, Reason: "go_client_skipped", Count: g.skipped.Load(),
	})
	return stats
}
