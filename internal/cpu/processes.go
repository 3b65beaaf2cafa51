//go:build linux

package cpu

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"go.uber.org/zap"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
	"github.com/ebpfreceiver/ebpfreceiver/internal/symbol"
	"github.com/ebpfreceiver/ebpfreceiver/internal/timeline"
	"github.com/ebpfreceiver/ebpfreceiver/internal/unwind"
	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

const mappingSize = int(unsafe.Sizeof(bpfMapping{}))

// sweepInterval is how often processes are looked for whose end went unseen.
const sweepInterval = 30 * time.Second

// processes knows what sampled processes have mapped, and tells the kernel side. One goroutine owns it.
type processes struct {
	procfs    string
	entries   *ebpf.Map // struct process by pid
	mappings  *ebpf.Memory
	spans     *ranges
	tables    *tables
	cache     *unwind.Cache
	symbols   *symbol.Symbolizer
	workloads *workload.Table
	selector  *workload.Selector
	clock     *kernel.Clock
	timeline  *timeline.Timeline
	logger    *zap.Logger

	known          map[uint32]*process // by pid
	pending        map[*process]bool   // that wait for a table
	nextOwner      uint32
	open           func(*process, *place) // for symbols
	nextGeneration uint16
	nextSweep      time.Time
	retired        []*symbol.Image // that no process has any more
	ended          []symbol.Process

	refused  uint64    // processes for which there was no room
	failed   uint64    // processes whose mappings could not be read
	warnedAt time.Time // of no room
}

// process is one that was sampled.
type process struct {
	key      workload.Key
	hint     workload.Hint
	workload *workload.Workload
	ignored  bool
	loaded   *unwind.Process // nil: nothing could be read
	// generation is another one when addresses may have got another meaning, so that stacks are new ones.
	generation uint16
	keptAt     time.Time // when keepMap was done
	// What the kernel side said before the mappings were read: it asks again when that is not so any more.
	pages   uint64
	changes uint32
	places  []place
	span    span
	owner   uint32
	told    []bpfMapping // while something waits for a table
	toldAt  time.Time
	entry   bpfProcess // as the kernel side was told
}

// place is a mapping of a process, as stacks see it.
type place struct {
	start, end, offset uint64
	kind               unwind.MappingKind
	path               string
	source             symbol.File
	image              *symbol.Image
}

// look reads what a process has mapped, for the first time or again.
func (p *processes) look(event *bpfCpuEvent, now time.Time) {
	before := p.known[event.Pid]
	if before != nil && before.key != event.key() {
		p.forget(before, now)
		before = nil
	}
	if before != nil && p.unchanged(before) {
		p.tellAgain(before, event, now)
		return
	}
	if before == nil && len(p.known) >= int(p.entries.MaxEntries()) {
		p.refused++
		return
	}
	found := &process{
		key: event.key(), hint: event.hint(), workload: p.workloads.Lookup(event.key(), event.hint()), pages: event.Pages, changes: event.Changes,
	}
	if !p.selector.Match(found.workload, 0) {
		found.ignored = true
	} else if !p.load(found) {
		// It has ended, or cannot be read. The kernel side asks again after a while; what was known is better than nothing.
		p.failed++
		if before == nil {
			return
		}
		found.loaded, found.places, before.loaded, before.places = before.loaded, before.places, nil, nil
	}
	if found.generation = p.nextGeneration; before.isPartOf(found) {
		found.generation = before.generation
	} else {
		p.nextGeneration++
	}
	p.known[event.Pid] = found
	if !p.tell(found, now) {
		p.forget(found, now)
	}
	if before != nil {
		p.release(before, now)
	}
}

// youngFor is for how long it is seen to whether a process has executed another program than the table of workloads knew:
// that hears of it by a ring of its own, or by reading anew.
const youngFor = 15 * time.Second

// recognize forgets processes that are not what they were taken for, so that they are looked at again.
func (p *processes) recognize(now time.Time) {
	for _, found := range p.known {
		if now.Sub(found.toldAt) > youngFor {
			continue
		}
		is := p.workloads.Lookup(found.key, found.hint)
		if is.ExecutablePath != found.workload.ExecutablePath || is.ResourceKey() != found.workload.ResourceKey() {
			p.forget(found, now)
		}
	}
}

// unchanged says whether a process has the same mappings still, and whether that is all that can be known of them.
func (p *processes) unchanged(found *process) bool {
	if found.ignored || found.loaded == nil {
		return found.ignored
	}
	// Trampolines of CPython may have been written since: they are recognized by what they are.
	madeThere := func(place unwind.Place) bool { return place.Kind == unwind.MappingAnonymous && place.Entry == nil }
	if slices.ContainsFunc(found.loaded.Places, madeThere) {
		return false
	}
	mappings, err := unwind.Mappings(p.procfs, found.key.PID)
	same := func(mapping unwind.Mapping, place unwind.Place) bool { return mapping == place.Mapping }
	return err == nil && slices.EqualFunc(mappings, found.loaded.Places, same)
}

// tellAgain lets the kernel side watch a process from now on that it has asked about.
func (p *processes) tellAgain(found *process, event *bpfCpuEvent, now time.Time) {
	found.pages, found.changes = event.Pages, event.Changes
	found.entry.Pages, found.entry.Changes = event.Pages, event.Changes
	found.entry.AskedNs = p.clock.Monotonic(now)
	err := p.entries.Update(found.key.PID, &found.entry, ebpf.UpdateExist)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		p.logger.Error("Tell the kernel side of a process again", zap.Error(err))
	}
}

// isPartOf says whether each file that was mapped is still there, so that addresses have the meaning that they had.
func (p *process) isPartOf(found *process) bool {
	if p == nil || p.loaded == nil || found.loaded == nil {
		return false
	}
	next := found.loaded.Places
	for i := range p.loaded.Places {
		mapped := &p.loaded.Places[i].Mapping
		if mapped.Kind != unwind.MappingFile {
			continue
		}
		for len(next) > 0 && next[0].Start < mapped.Start {
			next = next[1:]
		}
		if len(next) == 0 || next[0].Mapping != *mapped {
			return false
		}
	}
	return true
}

// load reads the mappings. Files are read meanwhile.
func (p *processes) load(found *process) bool {
	loaded, err := p.cache.Load(found.key.PID)
	if loaded == nil {
		p.logger.Debug("Read what a sampled process has mapped", zap.Uint32("pid", found.key.PID), zap.Error(err))
		return false
	}
	found.loaded = loaded
	directory := processDirectory(p.procfs, found.key.PID)
	found.places = make([]place, len(loaded.Places))
	for i := range loaded.Places {
		mapped := &loaded.Places[i]
		found.places[i] = place{
			start: mapped.Start, end: mapped.End, offset: mapped.Offset, kind: mapped.Kind, path: mapped.Path,
			source: symbol.File{
				Direct: filepath.Join(directory, "map_files", strconv.FormatUint(mapped.Start, 16)+"-"+strconv.FormatUint(mapped.End, 16)),
				Root:   filepath.Join(directory, "root"), Path: mapped.Path,
			},
		}
	}
	// Not when the first stack comes: the process may have ended by then.
	for i := range found.places {
		p.open(found, &found.places[i])
	}
	return true
}

// tell writes what is known into the maps of the kernel side. A new piece of the array of mappings is used each time: what
// programs look at does not change under their eyes.
func (p *processes) tell(found *process, now time.Time) bool {
	entry := bpfProcess{
		StartBootNs: found.key.StartBootNs, AskedNs: p.clock.Monotonic(now), Generation: found.generation,
		Pages: found.pages, Changes: found.changes,
	}
	if found.ignored {
		entry.Ignored = 1
	} else {
		count := uint32(0)
		if found.loaded != nil {
			count = uint32(len(found.loaded.Places))
		}
		piece, ok := p.spans.take(count, now)
		if !ok {
			p.refused++
			p.warn(errors.New("no room is left for the mappings of more processes"), now)
			return false
		}
		p.nextOwner++
		found.owner, found.span = p.nextOwner, piece
		if pending := p.write(found); pending {
			p.pending[found] = true
		} else {
			delete(p.pending, found)
		}
		entry.First, entry.Count, entry.Owner = piece.first, piece.count, found.owner
		p.join(found.key, &entry)
	}
	found.entry, found.toldAt = entry, now
	if err := p.entries.Put(found.key.PID, &entry); err != nil {
		p.warn(fmt.Errorf("tell the kernel side of process %d: %w", found.key.PID, err), now)
		return false
	}
	return true
}

// join lets samples of a process be told of one by one if it serves requests, and says whether that is so.
func (p *processes) join(key workload.Key, entry *bpfProcess) bool {
	goroutines, serves := p.timeline.IsServing(key.PID, key.StartBootNs)
	if serves {
		entry.Serves, entry.Goroutine, entry.Parent = 1, goroutines.ID, goroutines.ParentID
	}
	return serves
}

// joinAll looks for processes that have begun to serve requests.
func (p *processes) joinAll() {
	if p.timeline == nil {
		return
	}
	for _, found := range p.known {
		if found.ignored || found.entry.Serves != 0 || !p.join(found.key, &found.entry) {
			continue
		}
		if err := p.entries.Update(found.key.PID, &found.entry, ebpf.UpdateExist); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			p.logger.Error("Tell the kernel side that a process serves requests", zap.Error(err))
		}
	}
}

// warn logs what would come with every process.
func (p *processes) warn(err error, now time.Time) {
	if now.Sub(p.warnedAt) > time.Minute {
		p.warnedAt = now
		p.logger.Warn("Stacks of some processes are walked by their frame pointers alone", zap.Error(err))
	}
}

// write fills the piece of a process, and says whether something in it waits for a table.
func (p *processes) write(found *process) (pending bool) {
	found.told = make([]bpfMapping, found.span.count)
	for i := range found.told {
		var waits bool
		found.told[i], waits = p.describe(&found.loaded.Places[i], found.owner)
		pending = pending || waits
	}
	if len(found.told) > 0 {
		bytes := unsafe.Slice((*byte)(unsafe.Pointer(&found.told[0])), len(found.told)*mappingSize)
		if _, err := p.mappings.WriteAt(bytes, int64(found.span.first)*int64(mappingSize)); err != nil {
			p.logger.Error("Write what a process has mapped for the kernel side", zap.Error(err))
		}
	}
	if !pending {
		found.told = nil
	}
	return pending
}

// describe says how the kernel side walks through a mapping.
func (p *processes) describe(mapped *unwind.Place, owner uint32) (described bpfMapping, pending bool) {
	described = bpfMapping{
		Start: mapped.Start, End: mapped.End, Owner: owner, Kind: uint8(bpfMappingKindMAPPING_FRAME_POINTER),
	}
	if mapped.Kind == unwind.MappingSpecial {
		described.Kind = uint8(bpfMappingKindMAPPING_SPECIAL)
	}
	if mapped.Entry == nil {
		return described, false
	}
	select {
	case <-mapped.Entry.Done():
	default:
		described.Kind = uint8(bpfMappingKindMAPPING_PENDING)
		return described, true
	}
	file, _ := mapped.Entry.File() // whose failure the cache has counted
	bias, ok := mapped.Bias()
	if file == nil || !ok || len(file.Table.Rows) == 0 {
		return described, false
	}
	where, placed, pending := p.tables.find(file.Table)
	switch {
	case placed:
		described.Kind = uint8(bpfMappingKindMAPPING_TABLE)
		described.Bias = bias + file.Table.Base
		described.Table, described.Buckets, described.Rows, described.Shift = where.slot, where.buckets, where.rows, where.shift
	case pending:
		described.Kind = uint8(bpfMappingKindMAPPING_PENDING)
	}
	return described, pending
}

// settle tells the kernel side of tables that have become ready.
func (p *processes) settle(now time.Time) {
	for found := range p.pending {
		old := found.span
		if !p.improved(found, now) {
			continue
		}
		if p.tell(found, now) {
			p.spans.giveBack(old, now)
		} else {
			found.span = old
			delete(p.pending, found)
		}
	}
}

// tellInterval is how often at most the kernel side is told of a process that waits for more tables: each time takes a new
// piece of the array of mappings.
const tellInterval = 50 * time.Millisecond

// improved says whether it is time to tell more of a process than the kernel side knows.
func (p *processes) improved(found *process, now time.Time) bool {
	better, waits := false, false
	for i := range found.told {
		if found.told[i].Kind != uint8(bpfMappingKindMAPPING_PENDING) {
			continue
		}
		described, pending := p.describe(&found.loaded.Places[i], found.owner)
		better = better || described.Kind != found.told[i].Kind
		waits = waits || pending
	}
	return better && (!waits || now.Sub(found.toldAt) >= tellInterval)
}

// gone forgets a process that has ended or executed another program.
func (p *processes) gone(event *bpfCpuEvent, now time.Time) {
	if found := p.known[event.Pid]; found != nil && found.key == event.key() {
		// The kernel side has removed its entry already; but one that was written at that moment has to go, too.
		p.forget(found, now)
	}
}

// forget removes a process.
func (p *processes) forget(found *process, now time.Time) {
	if err := p.entries.Delete(found.key.PID); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		p.logger.Error("Remove a process from the kernel side", zap.Error(err))
	}
	delete(p.known, found.key.PID)
	p.release(found, now)
	p.ended = append(p.ended, symbolProcess(p.procfs, found.key))
}

// release gives back what a process holds. Its images go when no stack has them any more.
func (p *processes) release(found *process, now time.Time) {
	delete(p.pending, found)
	p.spans.giveBack(found.span, now)
	found.span = span{}
	if found.loaded != nil {
		found.loaded.Close()
		found.loaded = nil
	}
	for i := range found.places {
		if image := found.places[i].image; image != nil {
			p.retired = append(p.retired, image)
		}
	}
}

// retire takes the images that no process has any more, and the processes that have ended: what is known of these is needed
// until their last samples have names.
func (p *processes) retire() (images []*symbol.Image, ended []symbol.Process) {
	images, ended = p.retired, p.ended
	p.retired, p.ended = nil, nil
	return images, ended
}

// sweep forgets processes whose end went unseen.
func (p *processes) sweep(now time.Time) {
	if now.Before(p.nextSweep) {
		return
	}
	p.nextSweep = now.Add(sweepInterval)
	for pid, found := range p.known {
		key, err := p.workloads.KeyOf(pid)
		if err != nil || !sameStart(key.StartBootNs, found.key.StartBootNs) {
			p.forget(found, now)
		}
	}
}

// sameStart compares times of which one may be as coarse as /proc has it.
func sameStart(a, b uint64) bool {
	const tickNs = uint64(time.Second) / 100 // USER_HZ
	return max(a, b)-min(a, b) <= tickNs
}

func (p *processes) close() {
	now := time.Now()
	for _, found := range p.known {
		p.release(found, now)
	}
	clear(p.known)
}

// symbolProcess is what a process is to package symbol.
func symbolProcess(procfs string, key workload.Key) symbol.Process {
	return symbol.Process{Directory: processDirectory(procfs, key.PID), Start: key.StartBootNs}
}

func processDirectory(procfs string, pid uint32) string {
	return filepath.Join(procfs, strconv.FormatUint(uint64(pid), 10))
}

// keepInterval is how often it is looked for what a process tells of the code that it has made.
const keepInterval = time.Second

// keepMap lets functions that a process has made itself be named after it has ended.
func (p *processes) keepMap(found *process, now time.Time) {
	if now.Sub(found.keptAt) < keepInterval {
		return
	}
	found.keptAt = now
	if err := p.symbols.KeepProcess(symbolProcess(p.procfs, found.key)); err != nil && !errors.Is(err, symbol.ErrNoSymbols) {
		p.logger.Debug("Open what a process tells of its code", zap.Uint32("pid", found.key.PID), zap.Error(err))
	}
}

// place finds the mapping of an address. There may be none.
func (p *process) place(address uint64) *place {
	if p == nil {
		return nil
	}
	i, _ := slices.BinarySearchFunc(p.places, address, func(at place, address uint64) int {
		if at.end <= address {
			return -1
		}
		return 1
	})
	if i == len(p.places) || address < p.places[i].start {
		return nil
	}
	return &p.places[i]
}
