//go:build linux

package http

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/hashicorp/golang-lru/v2/simplelru"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http/tls/site"
	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

const (
	goTablesProgram = "http_go_tables"

	// maxGoTables bounds the processes that are attached to at a time: no more than go_table_processes of
	// bpf/include/http/go_tables.h has room for.
	maxGoTables = 64
	// maxGoTableProcesses is how many processes are remembered, and maxGoTableFiles how many of their programs.
	maxGoTableProcesses, maxGoTableFiles = 1024, 256
	// goTablesInterval is how often it is looked at who still has unknown fields. What has them then is asked for its
	// tables again: those that were told may not have been of the right connection.
	goTablesInterval = time.Second
	// goTablesIdle is how long a process stays attached to without unknown fields, and goTablesPatience with them.
	goTablesIdle, goTablesPatience = 3 * time.Second, 30 * time.Second
	// goTablesPause is how long a process is left alone that could not be attached to, or whose tables were not found.
	goTablesPause = 10 * time.Minute
)

// goTableFunctions are where net/http and golang.org/x/net/http2 (and with it grpc-go) read and write header blocks. They
// come in pairs: see bpf/include/http/go_tables.h.
func goTableFunctions() map[string]bpfGoTableEvent {
	return map[string]bpfGoTableEvent{
		"golang.org/x/net/http2.(*Framer).readMetaFrame":            bpfGoTableEventGO_FRAME_READ,
		"net/http.(*http2Framer).readMetaFrame":                     bpfGoTableEventGO_FRAME_READ,
		"golang.org/x/net/http2/hpack.(*Decoder).Write":             bpfGoTableEventGO_BLOCK_READ,
		"vendor/golang.org/x/net/http2/hpack.(*Decoder).Write":      bpfGoTableEventGO_BLOCK_READ,
		"golang.org/x/net/http2/hpack.(*Encoder).WriteField":        bpfGoTableEventGO_FIELD_WRITTEN,
		"vendor/golang.org/x/net/http2/hpack.(*Encoder).WriteField": bpfGoTableEventGO_FIELD_WRITTEN,
		"golang.org/x/net/http2.(*Framer).WriteHeaders":             bpfGoTableEventGO_FRAME_WRITTEN,
		"net/http.(*http2Framer).WriteHeaders":                      bpfGoTableEventGO_FRAME_WRITTEN,
	}
}

// goTables attaches the kernel side to programs of Go that have connections with unknown header fields, for as long as they
// have some: then it tells of their tables of header fields, and the fields of later blocks are known.
//
// The uprobes are for one process alone. Their cost is paid by a program with connections of HTTP/2 that are older than the
// receiver, or after a loss, and for some seconds.
type goTables struct {
	procFS    string
	program   *ebpf.Program
	processes *ebpf.Map // go_table_processes
	logger    *zap.Logger
	known     *lru.Cache[workload.Key, *goTableProcess]
	waiting   chan workload.Key
	stop      chan struct{}
	done      sync.WaitGroup

	attached, refused, gaveUp, skipped atomic.Uint64 // processes, each time
	open                               atomic.Int64  // of them, now

	// Of the goroutine that run is.
	links map[workload.Key]*goTableLink
	files *simplelru.LRU[goTableFile, goTableSites]
}

// goTableProcess is a process that has or had unknown fields.
type goTableProcess struct {
	wanted atomic.Bool  // since it was looked at last
	until  atomic.Int64 // it is left alone until then, in Unix nanoseconds
}

type goTableLink struct {
	link.Link
	since, wanted time.Time
	asked         uint32
}

// goTableFile tells executable files apart.
type goTableFile struct {
	device, inode uint64
	bytes         int64
	modified      unix.Timespec
}

// goTableSites are where a program is attached to.
type goTableSites struct {
	addresses, cookies []uint64
	reason             error // why there are none
}

func newGoTables(procFS string, program *ebpf.Program, processes *ebpf.Map, logger *zap.Logger) (*goTables, error) {
	g := &goTables{
		procFS: procFS, program: program, processes: processes, logger: logger,
		waiting: make(chan workload.Key, maxGoTables), stop: make(chan struct{}),
		links: map[workload.Key]*goTableLink{},
	}
	var err error
	if g.known, err = lru.New[workload.Key, *goTableProcess](maxGoTableProcesses); err != nil {
		return nil, fmt.Errorf("remember processes with unknown header fields: %w", err)
	}
	if g.files, err = simplelru.NewLRU[goTableFile, goTableSites](maxGoTableFiles, nil); err != nil {
		return nil, fmt.Errorf("remember programs with unknown header fields: %w", err)
	}
	g.done.Go(g.run)
	return g, nil
}

// want says that a process has header fields that are not known. A nil *goTables does nothing.
func (g *goTables) want(process workload.Key) {
	if g == nil {
		return
	}
	p, known := g.known.Get(process)
	if known && p.wanted.Load() {
		return
	}
	if !known {
		p = &goTableProcess{}
		g.known.Add(process, p)
	}
	if until := p.until.Load(); until != 0 && time.Now().UnixNano() < until {
		return
	}
	p.wanted.Store(true)
	select {
	case g.waiting <- process:
	default:
		p.wanted.Store(false)
		g.skipped.Add(1)
	}
}

func (g *goTables) run() {
	sweep := time.NewTicker(goTablesInterval)
	defer sweep.Stop()
	for {
		select {
		case <-g.stop:
			return
		case process := <-g.waiting:
			if g.links[process] == nil {
				g.attach(process, time.Now())
			}
		case now := <-sweep.C:
			g.sweep(now)
		}
	}
}

// attach attaches to a process.
func (g *goTables) attach(process workload.Key, now time.Time) {
	if len(g.links) >= maxGoTables {
		g.skipped.Add(1)
		g.pause(process, now.Add(goTablesInterval))
		return
	}
	attached, err := g.link(process)
	if err != nil {
		g.pause(process, now.Add(goTablesPause))
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ESRCH) {
			g.refused.Add(1)
			g.logger.Info("Header fields of HTTP/2 connections that are older than the receiver stay unknown in a program of Go",
				zap.Uint32("pid", process.PID), zap.Error(err))
		}
		return
	}
	g.links[process] = &goTableLink{Link: attached, since: now, wanted: now}
	g.attached.Add(1)
	g.open.Store(int64(len(g.links)))
	g.ask(process)
}

func (g *goTables) link(process workload.Key) (link.Link, error) {
	path := filepath.Join(g.procFS, strconv.FormatUint(uint64(process.PID), 10), "exe")
	opened, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	sites, err := g.sites(opened)
	if err != nil {
		return nil, err
	}
	executable, err := link.OpenExecutable(fmt.Sprintf("/proc/self/fd/%d", opened.Fd()))
	if err != nil {
		return nil, fmt.Errorf("open %s for uprobes: %w", path, err)
	}
	attached, err := executable.UprobeMulti(nil, g.program, &link.UprobeMultiOptions{
		Addresses: sites.addresses, Cookies: sites.cookies, PID: process.PID,
	})
	if err != nil {
		return nil, fmt.Errorf("attach uprobes to %s: %w", path, err)
	}
	return attached, nil
}

// sites looks into a program, unless that was done before.
func (g *goTables) sites(opened *os.File) (goTableSites, error) {
	var status unix.Stat_t
	if err := unix.Fstat(int(opened.Fd()), &status); err != nil {
		return goTableSites{}, fmt.Errorf("identify %s: %w", opened.Name(), err)
	}
	file := goTableFile{status.Dev, status.Ino, status.Size, status.Mtim}
	found, known := g.files.Get(file)
	if !known {
		found = findGoTableSites(opened)
		g.files.Add(file, found)
	}
	return found, found.reason
}

func findGoTableSites(opened *os.File) goTableSites {
	info, err := buildinfo.Read(opened)
	if err != nil {
		return goTableSites{reason: fmt.Errorf("read the version of Go: %w", err)}
	}
	if _, known := goLayoutOf(info.GoVersion); !known {
		return goTableSites{reason: fmt.Errorf("find where it has its header fields: %s: %w", info.GoVersion, site.ErrUnsupported)}
	}
	functions := goTableFunctions()
	program, err := site.Go(opened, slices.Collect(maps.Keys(functions))...)
	if err != nil {
		return goTableSites{reason: err}
	}
	var sites goTableSites
	for _, at := range program.Sites {
		event, wanted := functions[at.Function]
		if !wanted || at.Event != site.Entry || at.Cost != site.Emulated {
			continue
		}
		sites.addresses = append(sites.addresses, at.Offset)
		sites.cookies = append(sites.cookies, uint64(event))
	}
	if len(sites.addresses) == 0 {
		sites.reason = fmt.Errorf("find where it has its header fields: %w", site.ErrNone)
	}
	return sites
}

// ask has the kernel side tell of each table of a process once more.
func (g *goTables) ask(process workload.Key) {
	attached := g.links[process]
	attached.asked++
	if err := g.processes.Put(process.PID, attached.asked); err != nil {
		g.logger.Warn("Ask for the header fields of a program of Go", zap.Uint32("pid", process.PID), zap.Error(err))
	}
}

func (g *goTables) sweep(now time.Time) {
	for process, attached := range g.links {
		p, known := g.known.Peek(process)
		wanted := known && p.wanted.Swap(false)
		switch {
		case wanted && now.Sub(attached.since) > goTablesPatience:
			g.gaveUp.Add(1)
			g.pause(process, now.Add(goTablesPause))
			g.detach(process)
		case wanted:
			attached.wanted = now
			g.ask(process)
		case now.Sub(attached.wanted) > goTablesIdle:
			g.detach(process)
		}
	}
}

// pause leaves a process alone for a while.
func (g *goTables) pause(process workload.Key, until time.Time) {
	if p, known := g.known.Peek(process); known {
		p.until.Store(until.UnixNano())
		p.wanted.Store(false)
	}
}

func (g *goTables) detach(process workload.Key) {
	if err := g.links[process].Close(); err != nil {
		g.logger.Warn("Detach from a program of Go", zap.Uint32("pid", process.PID), zap.Error(err))
	}
	delete(g.links, process)
	g.open.Store(int64(len(g.links)))
	if err := g.processes.Delete(process.PID); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		g.logger.Warn("Forget the header fields of a program of Go", zap.Uint32("pid", process.PID), zap.Error(err))
	}
}

// close detaches from everything.
func (g *goTables) close() {
	if g == nil {
		return
	}
	close(g.stop)
	g.done.Wait()
	for process := range g.links {
		g.detach(process)
	}
}

func (g *goTables) stats() kernel.Stats {
	if g == nil {
		return kernel.Stats{}
	}
	return kernel.Stats{
		Events: []kernel.EventCount{{Probe: ProbeName, Kind: "go_tables_attached", Count: g.attached.Load()}},
		Losses: []kernel.LossCount{
			{Probe: ProbeName, Reason: "go_tables_refused", Count: g.refused.Load()},
			{Probe: ProbeName, Reason: "go_tables_given_up", Count: g.gaveUp.Load()},
			{Probe: ProbeName, Reason: "go_tables_skipped", Count: g.skipped.Load()},
		},
		Maps: []kernel.MapUsage{
			{Probe: ProbeName, Map: "go_table_processes", Entries: uint64(g.open.Load()), Capacity: maxGoTables},
		},
	}
}
