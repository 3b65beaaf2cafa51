//go:build linux

// Package timeline knows which thread or goroutine served which request, and when: the HTTP probe tells it, and the CPU probe
// asks it for whose sake something ran.
//
// It is told only what is certain. A unit that has several requests under way at a time serves none that could be named, and
// a process that is seen to mix requests is not believed for a while.
package timeline

import (
	"sync"

	"go.opentelemetry.io/collector/pdata/pcommon"
)

// Unit is what serves one request at a time: a thread, or a goroutine of Go.
type Unit struct {
	PID       uint32 // thread group id in the initial namespace
	Goroutine bool
	Number    uint64 // thread id in the initial namespace, or goroutine id
}

// Span is what stands for a request in traces. The zero value is none.
type Span struct {
	Trace pcommon.TraceID
	Span  pcommon.SpanID
}

// IsZero says that there is no span: the request is not reported.
func (s Span) IsZero() bool { return s.Trace.IsEmpty() || s.Span.IsEmpty() }

// Goroutines says where struct g of a program of Go has what tells goroutines apart, as offsets. The zero value: it is no
// program of Go, or one of a version that is not known.
type Goroutines struct {
	ID       uint32
	ParentID uint32 // 0: this version has none
}

// Answer is what At found.
type Answer uint8

// The answers.
const (
	Nothing Answer = iota // the unit served no request then
	Found
	Uncertain // it served one that cannot be named
	TooLate   // what was then has been forgotten
)

// Timeline remembers the requests that are being served, and those that were served last. Its methods are safe for concurrent
// use; those of a nil Timeline do nothing.
type Timeline struct {
	mutex    sync.Mutex
	open     map[Unit]interval
	ended    []interval // a ring
	next     uint64     // how many have ended so far; the next one goes to next modulo the length
	last     map[Unit]uint64
	forgotNs uint64           // when the last one ended that was forgotten
	mixers   map[mixer]uint64 // until when
	serving  map[uint32]process

	publisher *Publisher        // nil: nobody else asks
	changed   map[Unit]struct{} // threads that it has not been told of
}

// mixer is a process that mixes requests, or whose goroutines do that others have started.
type mixer struct {
	pid      uint32
	children bool
}

// process is one that serves requests.
type process struct {
	startBootNs uint64
	goroutines  Goroutines
}

// interval is when a unit has served a request.
type interval struct {
	unit           Unit
	beginNs, endNs uint64 // bpf_ktime_get_ns
	span           Span   // none: it cannot be named, or is not reported
	uncertain      bool
	before         uint64 // the unit's interval before this one, as a number of ended plus one; 0: there is none
}

const (
	// maxOpen bounds the units that serve a request at a time.
	maxOpen = 65536
	// maxProcesses bounds the processes that are remembered, and those that mix requests.
	maxProcesses = 16384
	// maxSteps is how far At goes back for a unit.
	maxSteps = 4096
)

// New makes a Timeline that remembers so many requests after their end.
func New(remembered int) *Timeline {
	return &Timeline{
		open: map[Unit]interval{}, ended: make([]interval, max(remembered, 1)), last: map[Unit]uint64{},
		mixers: map[mixer]uint64{}, serving: map[uint32]process{},
	}
}

// Begin takes note that a unit has received a request at a time, on the clock of bpf_ktime_get_ns, and has no other under way.
func (t *Timeline) Begin(unit Unit, timeNs uint64, span Span) {
	if t == nil {
		return
	}
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if len(t.open) >= maxOpen {
		if _, known := t.open[unit]; !known {
			return
		}
	}
	t.open[unit] = interval{unit: unit, beginNs: timeNs, span: span}
	t.note(unit)
}

// Mix takes note that a unit has received another request before it was done with the last one: until it has none any more,
// nobody knows which one it is at.
func (t *Timeline) Mix(unit Unit, timeNs uint64) {
	if t == nil {
		return
	}
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if now, known := t.open[unit]; known && !now.uncertain {
		t.end(now, timeNs)
		t.open[unit] = interval{unit: unit, beginNs: timeNs, uncertain: true}
		t.note(unit)
	}
}

// End takes note that a unit is done with what it had received. span is what stands for the request, which may be known better
// than at its beginning.
func (t *Timeline) End(unit Unit, timeNs uint64, span Span) {
	if t == nil {
		return
	}
	t.mutex.Lock()
	defer t.mutex.Unlock()
	now, known := t.open[unit]
	if !known {
		return
	}
	delete(t.open, unit)
	t.note(unit)
	if !now.uncertain {
		now.span = span
	}
	t.end(now, timeNs)
}

// Drop takes note that nobody knows whether a unit still serves what it had received.
func (t *Timeline) Drop(unit Unit) {
	if t == nil {
		return
	}
	t.mutex.Lock()
	defer t.mutex.Unlock()
	delete(t.open, unit)
	t.note(unit)
}

// Distrust takes note that the threads of a process mix requests, or the goroutines that others have started, and are not to
// be believed until a time.
func (t *Timeline) Distrust(pid uint32, children bool, untilNs uint64) {
	if t == nil {
		return
	}
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if len(t.mixers) >= maxProcesses {
		clear(t.mixers)
	}
	t.mixers[mixer{pid, children}] = untilNs
}

// Serves takes note that a process serves requests.
func (t *Timeline) Serves(pid uint32, startBootNs uint64, goroutines Goroutines) {
	if t == nil {
		return
	}
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if len(t.serving) >= maxProcesses {
		clear(t.serving)
	}
	t.serving[pid] = process{startBootNs, goroutines}
}

// IsServing says whether a process was seen to serve requests, and where it has its goroutines.
func (t *Timeline) IsServing(pid uint32, startBootNs uint64) (goroutines Goroutines, serves bool) {
	if t == nil {
		return Goroutines{}, false
	}
	t.mutex.Lock()
	defer t.mutex.Unlock()
	known, serves := t.serving[pid]
	return known.goroutines, serves && known.startBootNs == startBootNs
}

// end puts an interval into the ring. The mutex is held.
func (t *Timeline) end(ended interval, timeNs uint64) {
	place := &t.ended[t.next%uint64(len(t.ended))]
	if t.next >= uint64(len(t.ended)) {
		t.forgotNs = max(t.forgotNs, place.endNs)
		if oldest := t.next - uint64(len(t.ended)); t.last[place.unit] == oldest+1 {
			delete(t.last, place.unit)
		}
	}
	ended.endNs = timeNs
	ended.before = t.last[ended.unit]
	*place = ended
	t.next++
	t.last[ended.unit] = t.next
}

// At finds the request that a unit served at a time. child asks for a goroutine that the unit has started.
func (t *Timeline) At(unit Unit, child bool, timeNs uint64) (Span, Answer) {
	if t == nil {
		return Span{}, Nothing
	}
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if (child || !unit.Goroutine) && timeNs < t.mixers[mixer{unit.PID, child}] {
		return Span{}, Uncertain
	}
	if now, known := t.open[unit]; known && timeNs >= now.beginNs {
		return now.answer()
	}
	number := t.last[unit]
	for range maxSteps {
		if number == 0 || t.next-(number-1) > uint64(len(t.ended)) {
			break
		}
		one := &t.ended[(number-1)%uint64(len(t.ended))]
		if timeNs > one.endNs {
			return Span{}, Nothing
		}
		if timeNs >= one.beginNs {
			return one.answer()
		}
		number = one.before
	}
	if timeNs <= t.forgotNs {
		return Span{}, TooLate
	}
	return Span{}, Nothing
}

func (i *interval) answer() (Span, Answer) {
	switch {
	case i.uncertain:
		return Span{}, Uncertain
	case i.span.IsZero():
		return Span{}, Nothing
	}
	return i.span, Found
}
