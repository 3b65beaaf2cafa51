//go:build linux

package http

import (
	"time"

	"github.com/ebpfreceiver/ebpfreceiver/internal/timeline"
)

const (
	// maxUnits bounds the threads and goroutines that are remembered.
	maxUnits = 65536
	// unitProbes is how many of them are looked at for one that can be forgotten, where there is no room.
	unitProbes = 16
	// idleUnit is how long one is remembered that has nothing under way.
	idleUnit = 5 * time.Minute
	// maxMixers bounds the processes that are remembered to mix requests, each for mixedFor.
	maxMixers = 4096
	mixedFor  = 10 * time.Minute
)

// scheduling is what decides in a process who goes on with a request.
type scheduling uint8

const (
	schedulingUnknown scheduling = iota // nothing can be told of it
	schedulingThreads
	schedulingGoroutines
)

// unit is what serves one request at a time, if the program is made like that: a thread, or a goroutine of Go.
type unit struct {
	pid       uint32
	goroutine bool
	number    uint64 // thread id, or goroutine id
}

// serving knows which unit serves which request: so who sends a request as a client while it serves one does so for its
// sake. It is pure, and not safe for concurrent use.
//
// A unit serves a request from when it has received its head until the response is complete, or the exchange is given up.
// It tells nothing where it has several under way: a thread of an event loop, or a goroutine that reads the streams of
// HTTP/2. Other threads of such a program may have only one and yet work for another (a future that goes on elsewhere), or
// go on with what is left of one that is over. So a process that is seen to mix requests is not believed for a while, on
// any thread. It shows in what a thread that serves one request after the other cannot do: receive a request before it has
// begun to answer the last one, or before its own request was answered; answer before that; or answer what another thread
// has received. Until it shows, a program that runs one request at a time in an event loop is taken for one that serves
// them in threads, and is right as long as it leaves no work behind when it answers.
//
// A message that was lost may be the end of an exchange. So nothing is told of one that was open then.
type serving struct {
	limit int
	// timeline is told of what is certain, for others; nil: nobody asks.
	timeline *timeline.Timeline
	units    map[unit]*served
	mixers   map[mixer]uint64 // processes that mix requests, until when
	// unlisted are exchanges of servers that are open and for which there was no room: who serves them is not known.
	unlisted int
	told     uint64 // requests of clients whose parent was found
	full     uint64 // exchanges of servers for which there was no room
}

// mixer names a process, or those of its goroutines that others have started.
type mixer struct {
	pid      uint32
	children bool
}

// served is what a unit has under way.
type served struct {
	unit
	open       uint32 // requests that it has received and whose exchanges are not complete
	unanswered uint32 // of them, those without the beginning of a response
	awaiting   uint32 // requests that it has sent, without the beginning of a response
	children   uint32 // requests that goroutines have sent that it has started, likewise
	total      uint64 // requests that it has received
	mixed      bool   // several were open at a time since it had none
	once       bool   // a goroutine that ends with the request
	given      bool   // identity was given to a client since it had none

	matched []string // paths of the patterns that the request has matched which it received when it had none

	// Of the request that it received when it had none:
	identity   identity // zero: it is not reported
	connection uint64
	lost       uint32
	usedNs     uint64
}

// stage is how far an exchange has come, to the unit that serves it or that asks.
type stage uint8

const (
	stageNone     stage = iota
	stageUnlisted       // of a server: there was no room
	stageUnanswered
	stageAnswered
	stageAwaiting      // of a client
	stageChildAwaiting // of a client: the unit is that of the goroutine that started the one that asks
)

// service is the part that an exchange has in a unit.
type service struct {
	by    *served
	stage stage
}

func newServing(limit int) *serving {
	return &serving{limit: limit, units: map[unit]*served{}, mixers: map[mixer]uint64{}}
}

// unitOf is the unit that made a call; false: it is not known.
func unitOf(m *message, pid uint32, by scheduling) (unit, bool) {
	switch by {
	case schedulingThreads:
		return unit{pid: pid, number: uint64(m.Tid)}, m.Tid != 0
	case schedulingGoroutines:
		return unit{pid: pid, goroutine: true, number: m.Goroutine}, m.Goroutine != 0
	}
	return unit{}, false
}

// receive takes note that a server has received a request's head with a call. id is zero where it is not reported.
func (s *serving) receive(m *message, pid uint32, by scheduling, id *identity) service {
	key, known := unitOf(m, pid, by)
	if !known {
		return service{}
	}
	u := s.units[key]
	if u == nil {
		if u = s.add(key); u == nil {
			s.unlisted++
			s.full++
			return service{stage: stageUnlisted}
		}
	}
	u.usedNs = m.TimeNs
	if !u.goroutine && (u.unanswered > 0 && u.connection != m.Cookie || u.awaiting > 0) && u.lost == m.Lost {
		s.distrust(mixer{pid: pid}, m.TimeNs)
	}
	u.open++
	u.unanswered++
	u.total++
	if u.open > 1 {
		u.mixed = true
		s.timeline.Mix(u.listed(), m.TimeNs)
	} else {
		s.timeline.Begin(u.listed(), m.TimeNs, id.listed())
		u.matched = u.matched[:0]
		u.mixed, u.given, u.identity, u.connection, u.lost = false, false, *id, m.Cookie, m.Lost
	}
	return service{by: u, stage: stageUnanswered}
}

// send takes note that a client has sent a request's head with a call, and finds the exchange for whose sake it did.
func (s *serving) send(m *message, pid uint32, by scheduling) (parent *identity, part service) {
	key, known := unitOf(m, pid, by)
	if !known {
		return nil, service{}
	}
	part.stage = stageAwaiting
	if part.by = s.units[key]; part.by == nil && m.ParentGoroutine != 0 && key.goroutine {
		key.number = m.ParentGoroutine
		part.by, part.stage = s.units[key], stageChildAwaiting
	}
	u := part.by
	if u == nil {
		return nil, service{}
	}
	u.usedNs = m.TimeNs
	child := part.stage == stageChildAwaiting
	if child {
		u.children++
		if u.open == 0 && u.lost == m.Lost { // it has outlived what it was started for
			s.distrust(mixer{pid, true}, m.TimeNs)
		}
	} else {
		u.awaiting++
	}
	switch {
	case u.open != 1 || u.mixed || u.identity.trace.IsEmpty() || u.lost != m.Lost || s.unlisted > 0:
		return nil, part
	// A goroutine that was started by one that has served nothing else was started for this.
	case child && u.total > 1 && s.mixes(mixer{pid, true}, m.TimeNs):
		return nil, part
	case !key.goroutine && s.mixes(mixer{pid: pid}, m.TimeNs):
		return nil, part
	}
	u.given = true
	s.told++
	return &u.identity, part
}

// answer takes note of the beginning of an exchange's response, in a call.
func (s *serving) answer(part *service, m *message, by scheduling) {
	u := part.by
	switch part.stage {
	case stageUnanswered:
		u.unanswered--
		part.stage = stageAnswered
		if key, known := unitOf(m, u.pid, by); known && !u.goroutine && key != u.unit {
			s.distrust(mixer{pid: u.pid}, m.TimeNs)
		}
	case stageAwaiting, stageChildAwaiting:
		s.release(part)
	}
}

// leave takes note that an exchange is over: complete, or given up. m is the call with which it is complete, nil: it is
// not.
func (s *serving) leave(part *service, m *message) {
	u := part.by
	switch part.stage {
	case stageUnlisted:
		s.unlisted--
	case stageUnanswered:
		u.unanswered--
		u.open--
		s.done(u, m)
	case stageAnswered:
		u.open--
		s.done(u, m)
		if m == nil || u.lost != m.Lost || u.open > 0 {
			break
		}
		if u.awaiting > 0 && !u.goroutine {
			s.distrust(mixer{pid: u.pid}, m.TimeNs)
		}
		if u.children > 0 {
			s.distrust(mixer{u.pid, true}, m.TimeNs)
		}
	case stageAwaiting, stageChildAwaiting:
		s.release(part)
	}
	s.forgetEnded(u)
	*part = service{}
}

// done tells others that a unit may have nothing under way any more. m is the call with which an exchange is complete, nil: it
// is given up.
func (s *serving) done(u *served, m *message) {
	switch {
	case u.open > 0:
	case m == nil || u.lost != m.Lost:
		s.timeline.Drop(u.listed())
	default:
		s.timeline.End(u.listed(), m.TimeNs, u.identity.listed())
	}
}

// listed is the unit as others know it.
func (u *unit) listed() timeline.Unit {
	return timeline.Unit{PID: u.pid, Goroutine: u.goroutine, Number: u.number}
}

// listed is the span as others know it; none where it is not reported.
func (id *identity) listed() timeline.Span {
	if !id.sampled {
		return timeline.Span{}
	}
	return timeline.Span{Trace: id.trace, Span: id.span}
}

// release takes the request of a client off its unit.
func (s *serving) release(part *service) {
	if part.stage == stageChildAwaiting {
		part.by.children--
	} else {
		part.by.awaiting--
	}
	s.forgetEnded(part.by)
	*part = service{}
}

// forgetEnded forgets a goroutine that has ended with the request that it has served. u is nil: none.
func (s *serving) forgetEnded(u *served) {
	if u != nil && u.once && u.idle() {
		delete(s.units, u.unit)
	}
}

// add begins with a unit; nil: there is no room.
func (s *serving) add(key unit) *served {
	if len(s.units) >= s.limit && !s.makeRoom() {
		return nil
	}
	u := &served{unit: key}
	s.units[key] = u
	return u
}

// makeRoom forgets a unit that has nothing under way, and says whether there was one.
func (s *serving) makeRoom() bool {
	probes := 0
	for key, u := range s.units {
		if u.idle() {
			delete(s.units, key)
			return true
		}
		if probes++; probes >= unitProbes {
			return false
		}
	}
	return false
}

func (u *served) idle() bool { return u.open == 0 && u.awaiting == 0 && u.children == 0 }

// distrust takes note that a process mixes requests.
func (s *serving) distrust(who mixer, nowNs uint64) {
	if _, known := s.mixers[who]; !known && len(s.mixers) >= maxMixers {
		s.forgetMixers(nowNs)
		if len(s.mixers) >= maxMixers {
			clear(s.mixers)
			who = mixer{} // all of them
		}
	}
	s.mixers[who] = nowNs + uint64(mixedFor)
	s.timeline.Distrust(who.pid, who.children, s.mixers[who])
}

func (s *serving) mixes(who mixer, nowNs uint64) bool {
	if len(s.mixers) == 0 {
		return false
	}
	return nowNs < s.mixers[who] || nowNs < s.mixers[mixer{}]
}

func (s *serving) forgetMixers(nowNs uint64) {
	for who, untilNs := range s.mixers {
		if nowNs >= untilNs {
			delete(s.mixers, who)
		}
	}
}

// sweep forgets units that have done nothing for long.
func (s *serving) sweep(nowNs uint64) {
	s.forgetMixers(nowNs)
	for key, u := range s.units {
		if u.idle() && nowNs > u.usedNs && nowNs-u.usedNs > uint64(idleUnit) {
			delete(s.units, key)
		}
	}
}

// enter finds where an exchange that begins with a call belongs. head is that of its process.
func (p *pairing) enter(e *Exchange, selected bool, m *message, head *messageHead) {
	requestDirection := bpfMessageDirectionMESSAGE_RECEIVED
	if e.Role == RoleClient {
		requestDirection = bpfMessageDirectionMESSAGE_SENT
	}
	if e.Role == RoleClient && e.MajorVersion == 2 {
		m = p.goStreams.asks(m, head.Pid, e.RequestOffset)
	}
	by := schedulingUnknown // a call in the other direction says nothing of who moved the request
	if bpfMessageDirection(m.Direction) == requestDirection {
		by = p.schedules(head, e.Role)
	}
	key := exchangeKey{e.FlowID, e.RequestOffset}
	if e.Role == RoleServer {
		if selected {
			if client, seen := p.clients[key]; seen {
				e.ClientSeen, e.origin = true, client
			}
			e.id = p.locate(e)
		}
		e.service = p.serving.receive(m, head.Pid, by, &e.id)
		return
	}
	parent, part := p.serving.send(m, head.Pid, by)
	e.service = part
	if !selected {
		return
	}
	if parent != nil {
		e.origin = *parent
	}
	e.id = p.locate(e)
	if e.FlowID != 0 {
		p.clients[key] = e.id
	}
}

// answered takes note of the beginning of an exchange's response.
func (p *pairing) answered(e *Exchange, m *message, head *messageHead) {
	if e.service.stage != stageNone {
		p.serving.answer(&e.service, m, p.schedules(head, 0))
	}
}

// leave takes note that an exchange is over. m is the call with which it is complete, nil: it is given up.
func (p *pairing) leave(e *Exchange, m *message) {
	part := e.service
	if e.Role == RoleServer && m != nil {
		e.matched = p.goRoutes.matched(e)
	}
	key := exchangeKey{e.FlowID, e.RequestOffset}
	if e.Role == RoleClient {
		delete(p.clients, key)
	} else if client, seen := p.clients[key]; seen && m != nil && !e.ClientSeen {
		// It was told of late. What was made of this exchange in the meantime stays in its trace.
		if client.trace == e.id.trace || part.by == nil || !part.by.given {
			e.ClientSeen, e.origin = true, client
			e.id = p.locate(e)
		}
	}
	if m != nil && e.ErrorType != "" {
		m = nil // who serves it may still be at it
	}
	if u := part.by; u != nil && e.Role == RoleServer && u.open == 1 && !u.mixed {
		u.identity = e.id // it may have become another
	}
	p.serving.leave(&e.service, m)
}
