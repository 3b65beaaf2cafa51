//go:build linux

package http

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// servingStage drives a serving by what threads and goroutines of process 1 do.
type servingStage struct {
	*serving
	t         testing.TB
	exchanges map[string]*service
	by        scheduling
	lost      uint32
	nowNs     uint64
}

func newServingStage(t testing.TB, by scheduling) *servingStage {
	return &servingStage{serving: newServing(100), t: t, exchanges: map[string]*service{}, by: by}
}

func (s *servingStage) call(unit, parent, cookie uint64) *message {
	s.nowNs += stepNs
	m := &message{TimeNs: s.nowNs, Cookie: cookie, Lost: s.lost, Tid: uint32(unit)}
	if s.by == schedulingGoroutines {
		m.Tid, m.Goroutine, m.ParentGoroutine = 99, unit, parent
	}
	return m
}

func nameID(name string) *identity {
	id := identity{}
	copy(id.trace[:], name)
	copy(id.span[:], name)
	return &id
}

// receives begins an exchange of a server, on a connection of its own unless there is another.
func (s *servingStage) receives(unit uint64, name string, cookie ...uint64) *servingStage {
	m := s.call(unit, 0, uint64(len(s.exchanges))+1000)
	if len(cookie) > 0 {
		m.Cookie = cookie[0]
	}
	part := s.receive(m, 1, s.by, nameID(name))
	s.exchanges[name] = &part
	return s
}

// sends begins one of a client, and checks whose sake it is for; empty: nobody's.
func (s *servingStage) sends(unit uint64, name, want string) *servingStage {
	return s.child(unit, 0, name, want)
}

// child is sends by a goroutine that parent has started.
func (s *servingStage) child(unit, parent uint64, name, want string) *servingStage {
	s.t.Helper()
	id, part := s.send(s.call(unit, parent, 1), 1, s.by)
	s.exchanges[name] = &part
	if want == "" {
		assert.Nil(s.t, id, name)
	} else if assert.NotNil(s.t, id, name) {
		assert.Equal(s.t, nameID(want).span, id.span, name)
	}
	return s
}

func (s *servingStage) answers(unit uint64, name string) *servingStage {
	s.answer(s.exchanges[name], s.call(unit, 0, 0), s.by)
	return s
}

func (s *servingStage) ends(names ...string) *servingStage {
	for _, name := range names {
		s.leave(s.exchanges[name], s.call(0, 0, 0))
	}
	return s
}

func (s *servingStage) givenUp(name string) *servingStage {
	s.leave(s.exchanges[name], nil)
	return s
}

func (s *servingStage) loses() *servingStage { s.lost++; return s }

func (s *servingStage) waits() *servingStage { s.nowNs += uint64(mixedFor); return s }

func TestServingThreads(t *testing.T) {
	for name, play := range map[string]func(s *servingStage){
		"one after the other": func(s *servingStage) {
			s.receives(1, "a").sends(1, "x", "a").answers(1, "x").ends("x").sends(1, "y", "a").answers(1, "y").ends("y")
			s.answers(1, "a").sends(1, "z", "a").answers(1, "z").ends("z", "a").sends(1, "later", "").answers(1, "later").ends("later")
			s.receives(1, "b").sends(1, "v", "b")
		},
		"threads side by side": func(s *servingStage) {
			s.receives(1, "a").receives(2, "b").sends(2, "x", "b").sends(1, "y", "a").sends(3, "z", "")
		},
		"given up": func(s *servingStage) {
			s.receives(1, "a").givenUp("a").sends(1, "x", "").answers(1, "x").receives(1, "b").sends(1, "y", "b")
		},
		"pipelined on one connection": func(s *servingStage) {
			s.receives(1, "a", 7).receives(1, "b", 7).sends(1, "x", "").answers(1, "x").ends("x").answers(1, "a").ends("a")
			s.sends(1, "y", "").answers(1, "y").ends("y").answers(1, "b").ends("b")
			s.receives(1, "c", 7).sends(1, "z", "c") // that is no loop
		},
		"several at a time": func(s *servingStage) {
			s.receives(1, "a").sends(1, "x", "a").receives(1, "b").sends(1, "y", "").answers(1, "x").ends("x")
			s.answers(1, "a").ends("a").sends(1, "z", "").answers(1, "b").ends("b")
			s.receives(1, "c").sends(1, "v", "").receives(2, "d").sends(2, "w", "") // nor is another thread believed
			s.waits().sends(1, "u", "c")
		},
		"another thread answers": func(s *servingStage) {
			s.receives(1, "a").answers(2, "a").ends("a").receives(1, "b").sends(1, "x", "")
		},
		"answered before the own request was": func(s *servingStage) {
			s.receives(1, "a").sends(1, "x", "a").answers(1, "a").ends("a").receives(1, "b").sends(1, "y", "")
		},
		"answered before the body of the own response was read": func(s *servingStage) {
			s.receives(1, "a").sends(1, "x", "a").answers(1, "x").answers(1, "a").ends("a").receives(1, "b").sends(1, "y", "b")
		},
		"received before the own request was answered": func(s *servingStage) {
			s.receives(1, "a").answers(1, "a").ends("a").sends(1, "x", "").receives(1, "b").sends(1, "y", "")
		},
		"the client hung up": func(s *servingStage) {
			s.receives(1, "a").sends(1, "x", "a").givenUp("a").answers(1, "x").ends("x").receives(1, "b").sends(1, "y", "b")
		},
		"the end was lost": func(s *servingStage) {
			s.receives(1, "a").answers(1, "a").loses().sends(1, "x", "").answers(1, "x").ends("x")
			s.receives(1, "b").sends(1, "y", "").givenUp("a").sends(1, "z", "").answers(1, "b").ends("b")
			s.receives(1, "c").sends(1, "v", "c")
		},
		"not reported": func(s *servingStage) {
			part := s.receive(s.call(1, 0, 5), 1, s.by, &identity{})
			s.sends(1, "x", "")
			s.leave(&part, nil)
		},
		"too many": func(s *servingStage) {
			s.limit = unitProbes
			for unit := range uint64(s.limit) {
				s.receives(unit+1, fmt.Sprint(unit))
			}
			s.receives(1000, "beyond").sends(1000, "x", "").sends(7, "y", "").ends("beyond").sends(8, "z", "7")
			assert.EqualValues(t, 1, s.full)
			s.ends("3").receives(1000, "again").sends(1000, "v", "again")
			assert.Len(t, s.units, s.limit)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServingStage(t, schedulingThreads)
			s.t = t
			play(s)
		})
	}
}

func TestServingGoroutines(t *testing.T) {
	for name, play := range map[string]func(s *servingStage){
		"itself": func(s *servingStage) {
			s.receives(1, "a").receives(2, "b").sends(1, "x", "a").sends(2, "y", "b").sends(3, "z", "")
		},
		"one that it has started": func(s *servingStage) {
			s.receives(1, "a").child(11, 1, "x", "a").child(12, 1, "y", "a").child(111, 11, "z", "")
		},
		"one that serves itself": func(s *servingStage) {
			s.receives(1, "a").receives(2, "b").child(2, 1, "x", "b").answers(2, "b").ends("b").child(2, 1, "y", "")
		},
		"streams of one connection": func(s *servingStage) {
			s.receives(1, "a", 5).child(11, 1, "x", "a").receives(1, "b", 5).child(12, 1, "y", "").answers(1, "a").ends("a")
			s.child(12, 1, "z", "")
			s.answers(2, "b").ends("b").receives(2, "c").sends(2, "v", "c")
		},
		"one that is left behind": func(s *servingStage) {
			s.receives(1, "a").child(11, 1, "x", "a").answers(1, "a").ends("a").answers(1, "x").ends("x")
			s.receives(1, "b").child(11, 1, "y", "").sends(1, "z", "b")
			s.receives(2, "c").child(21, 2, "v", "c") // it has served nothing else
			s.waits().child(12, 1, "w", "b")
		},
		"one that goes on while nothing is served": func(s *servingStage) {
			s.receives(1, "a").answers(1, "a").ends("a").child(11, 1, "x", "").receives(1, "b").child(11, 1, "y", "")
		},
	} {
		t.Run(name, func(t *testing.T) { play(newServingStage(t, schedulingGoroutines)) })
	}
}

func TestServingUnknown(t *testing.T) {
	s := newServingStage(t, schedulingUnknown)
	s.receives(1, "a").sends(1, "x", "").ends("a", "x")
	assert.Empty(t, s.units)
}

func TestServingForgets(t *testing.T) {
	s := newServingStage(t, schedulingThreads)
	s.receives(1, "a").receives(2, "b").answers(2, "b").ends("b").receives(3, "c").answers(4, "c").ends("c").sends(3, "x", "")
	require.Len(t, s.mixers, 1)
	s.sweep(s.nowNs + uint64(idleUnit) + stepNs)
	assert.Len(t, s.units, 2, "one serves, and one waits")
	s.ends("a", "x")
	s.sweep(s.nowNs + uint64(mixedFor) + stepNs)
	assert.Empty(t, s.units)
	assert.Empty(t, s.mixers)
}

func TestServingKeepsAFewMixers(t *testing.T) {
	s := newServing(100)
	for pid := range uint32(maxMixers) {
		s.distrust(mixer{pid: pid + 1}, 1000)
	}
	assert.False(t, s.mixes(mixer{pid: maxMixers + 1}, 2000))
	s.distrust(mixer{pid: maxMixers + 1}, 1000)
	assert.LessOrEqual(t, len(s.mixers), maxMixers)
	for _, pid := range []uint32{1, 77, maxMixers + 1} {
		assert.True(t, s.mixes(mixer{pid: pid}, 2000), "no process is believed that was not")
		assert.False(t, s.mixes(mixer{pid: pid}, 1000+uint64(mixedFor)))
	}
}

// TestServingSynchronously lets threads serve requests, each to its end, and loses messages at random: of the parents that
// are told, none is wrong.
func TestServingSynchronously(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		runSynchronously(t, func(n int) int { return random.IntN(n) }, 400)
	}
}

func FuzzServing(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 0, 0, 0, 0, 0, 1, 1, 1, 1})
	f.Fuzz(func(t *testing.T, choices []byte) {
		steps := len(choices)
		runSynchronously(t, func(n int) int {
			if len(choices) == 0 {
				return 0
			}
			choice := int(choices[0]) % n
			choices = choices[1:]
			return choice
		}, steps)
	})
}

// worker is a thread that serves one request after the other.
type worker struct {
	serves, asks string // exchanges that are under way in truth
	answered     bool
}

func runSynchronously(t *testing.T, choose func(n int) int, steps int) {
	s := newServingStage(t, schedulingThreads)
	s.limit = 4
	workers := make([]worker, 6)
	next := 0
	loses := func() bool {
		if choose(8) == 0 {
			s.loses()
			return true
		}
		return false
	}
	stale := []string{} // whose end was lost
	for range steps {
		number := choose(len(workers))
		w, tid := &workers[number], uint64(number+1)
		name := fmt.Sprint(next)
		switch action := choose(6); {
		case action == 0 && len(stale) > 0: // the connection tells later that it was over
			if part := s.exchanges[stale[0]]; part != nil {
				s.leave(part, nil)
			}
			stale = stale[1:]
		case w.serves == "" && w.asks == "" && action < 4:
			next++
			w.serves, w.answered = name, false
			if !loses() {
				s.receives(tid, name)
			}
		case w.asks != "":
			asked := w.asks
			w.asks = ""
			if part := s.exchanges[asked]; part != nil {
				if loses() {
					stale = append(stale, asked)
					continue
				}
				s.answers(tid, asked).ends(asked)
			}
		case action < 4: // work for the request, or for itself
			next++
			w.asks = name
			if loses() {
				continue
			}
			id, part := s.send(s.call(tid, 0, 1), 1, s.by)
			s.exchanges[name] = &part
			if id != nil {
				require.NotEmpty(t, w.serves, "thread %d serves nothing", tid)
				require.Equal(t, nameID(w.serves).span, id.span)
			}
		case w.serves != "":
			served := w.serves
			part := s.exchanges[served]
			w.serves = ""
			if part == nil {
				continue
			}
			if loses() {
				stale = append(stale, served)
				continue
			}
			s.answers(tid, served).ends(served)
		}
		require.LessOrEqual(t, len(s.units), s.limit)
	}
	for _, name := range stale {
		s.leave(s.exchanges[name], nil)
	}
	for i := range workers {
		for _, name := range []string{workers[i].asks, workers[i].serves} {
			if part := s.exchanges[name]; part != nil {
				s.leave(part, nil)
			}
		}
	}
	assert.Zero(t, s.unlisted)
	for _, u := range s.units {
		require.True(t, u.idle(), "%+v", u)
	}
}

// TestPairingPassesTracesOn plays a request that a service passes on to another, all on one host, and lets messages come in
// different orders.
func TestPairingPassesTracesOn(t *testing.T) {
	play := func(order string) map[string]Exchange {
		o := newObserver(10)
		i := noRandomness(t)
		o.locate = i.identify
		o.schedules = func(*messageHead, Role) scheduling { return schedulingThreads }
		steps := []step{request(get("/a")), response(ok(0))}
		wires := map[byte][]told{}
		for name, w := range map[byte]*wire{
			'a': {role: RoleClient, cookie: 11}, 'A': {role: RoleServer, cookie: 11},
			'b': {role: RoleClient, cookie: 12}, 'B': {role: RoleServer, cookie: 12},
		} {
			w.headBytes = 512
			messages := w.play(steps...).messages
			for n := range messages {
				messages[n].Cookie = uint64(name)
				messages[n].head.Pid = uint32(name)
				messages[n].Tid = uint32(name)
				if name == 'b' { // the one that serves A
					messages[n].head.Pid, messages[n].Tid = 'A', 'A'
				}
			}
			wires[name] = messages
		}
		for _, name := range []byte(order) {
			o.take(wires[name][0])
			wires[name] = wires[name][1:]
		}
		assert.Empty(t, o.clients)
		for _, u := range o.serving.units {
			assert.True(t, u.idle())
		}
		return map[string]Exchange{
			"a": o.of(11, RoleClient), "A": o.of(11, RoleServer), "b": o.of(12, RoleClient), "B": o.of(12, RoleServer),
		}
	}

	all := play("aAbBBbAa")
	for _, name := range []string{"A", "b", "B"} {
		assert.Equal(t, all["a"].id.trace, all[name].id.trace, name)
	}
	assert.True(t, all["a"].id.parent.IsEmpty())
	assert.Equal(t, all["a"].id.span, all["A"].id.parent)
	assert.Equal(t, all["A"].id.span, all["b"].id.parent)
	assert.Equal(t, all["b"].id.span, all["B"].id.parent)

	// The client of B is told of late.
	all = play("aABbBbAa")
	assert.Equal(t, all["a"].id.trace, all["B"].id.trace)
	assert.Equal(t, all["b"].id.span, all["B"].id.parent)

	// So is that of A, which has made something of its request meanwhile: it is the same trace, since a comes from nothing.
	all = play("AbaBBbAa")
	assert.Equal(t, all["a"].id.trace, all["B"].id.trace)
	assert.Equal(t, all["a"].id.span, all["A"].id.parent)
	assert.Equal(t, all["A"].id.span, all["b"].id.parent)
}

// of gives the exchange of a connection's end.
func (o *observer) of(cookie uint64, role Role) Exchange {
	flow := (&wire{role: role, cookie: cookie}).describe().flowID()
	for _, e := range o.exchanges {
		if e.Role == role && e.FlowID == flow {
			return e
		}
	}
	return Exchange{}
}

func BenchmarkServing(b *testing.B) {
	s := newServing(maxUnits)
	m := &message{TimeNs: 1000, Cookie: 5, Tid: 77}
	id := nameID("a")
	b.ReportAllocs()
	for b.Loop() {
		part := s.receive(m, 1, schedulingThreads, id)
		_, sent := s.send(m, 1, schedulingThreads)
		s.answer(&sent, m, schedulingThreads)
		s.answer(&part, m, schedulingThreads)
		s.leave(&part, m)
	}
}
