//go:build linux

package cpu

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/ebpfreceiver/ebpfreceiver/internal/symbol"
	"github.com/ebpfreceiver/ebpfreceiver/internal/unwind"
	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

func newTestStacks(t *testing.T, limit int) *stacks {
	t.Helper()
	symbols := symbol.New(symbol.Config{Now: time.Now})
	t.Cleanup(symbols.Shutdown)
	return newStacks("/proc", symbols, limit, zap.NewNop())
}

// dynamicProcess has nothing but code that it has made itself, from 100 to 200.
func dynamicProcess() *process {
	return &process{places: []place{{start: 100, end: 200, kind: unwind.MappingAnonymous}}}
}

func TestStacksAreFoundAgainWhenTheProcessIsKnown(t *testing.T) {
	s := newTestStacks(t, 10)
	key, of := workload.Key{PID: 1}, &workload.Workload{}
	event := stackEvent{hash: 7, kernel: []uint64{1}, user: []uint64{150}}
	s.add(event, key, nil, of)
	require.False(t, s.known[7].located())
	before := s.known[7]
	s.add(event, key, nil, of)
	assert.Same(t, before, s.known[7], "still nothing is known")
	s.add(event, key, dynamicProcess(), of)
	require.True(t, s.known[7].located())
	assert.True(t, s.known[7].user[0].dynamic)
	located := s.known[7]
	s.add(event, key, dynamicProcess(), of)
	assert.Same(t, located, s.known[7])
	event.kernel[0], event.user[0] = 99, 99
	assert.Equal(t, []uint64{1}, located.kernel, "the ring's memory is not kept")
}

func TestStacksAreBounded(t *testing.T) {
	s := newTestStacks(t, 2)
	for hash := range uint64(5) {
		s.add(stackEvent{hash: hash}, workload.Key{}, nil, nil)
	}
	assert.Len(t, s.known, 2)
	assert.EqualValues(t, 3, s.dropped)
	s.leaveOut(77)
	assert.Len(t, s.known, 2, "stacks that are not wanted take no more room than others")
	s.add(stackEvent{hash: 0, user: []uint64{150}}, workload.Key{}, dynamicProcess(), nil)
	assert.EqualValues(t, 3, s.dropped, "what is known is no loss")
}

func TestStacksAreForgotten(t *testing.T) {
	s := newTestStacks(t, 10)
	s.add(stackEvent{hash: 1}, workload.Key{}, nil, nil)
	for range keptFlushes {
		s.advance()
	}
	require.Contains(t, s.known, uint64(1))
	s.add(stackEvent{hash: 1}, workload.Key{}, nil, nil)
	for range keptFlushes {
		s.advance()
	}
	require.Contains(t, s.known, uint64(1), "it was seen again")
	s.advance()
	assert.NotContains(t, s.known, uint64(1))
}

func TestPlaces(t *testing.T) {
	p := &process{places: []place{{start: 100, end: 200}, {start: 200, end: 300}, {start: 500, end: 600}}}
	for address, want := range map[uint64]uint64{100: 100, 199: 100, 200: 200, 299: 200, 500: 500, 599: 500} {
		require.NotNil(t, p.place(address), address)
		assert.Equal(t, want, p.place(address).start, address)
	}
	for _, address := range []uint64{0, 99, 300, 499, 600, 1 << 63} {
		assert.Nil(t, p.place(address), address)
	}
	assert.Nil(t, (*process)(nil).place(100))
}

// TestGeneration tells when addresses keep their meaning.
func TestGeneration(t *testing.T) {
	file := func(start, inode uint64) unwind.Place {
		return unwind.Place{Mapping: unwind.Mapping{Start: start, End: start + 10, Inode: inode, Kind: unwind.MappingFile}}
	}
	code := func(start uint64) unwind.Place {
		return unwind.Place{Mapping: unwind.Mapping{Start: start, End: start + 10, Kind: unwind.MappingAnonymous}}
	}
	with := func(places ...unwind.Place) *process { return &process{loaded: &unwind.Process{Places: places}} }
	tests := map[string]struct {
		before, after *process
		part          bool
	}{
		"nothing before":       {nil, with(file(0, 1)), false},
		"unreadable before":    {&process{}, with(file(0, 1)), false},
		"the same":             {with(file(0, 1), file(20, 2)), with(file(0, 1), file(20, 2)), true},
		"a library more":       {with(file(0, 1), file(40, 2)), with(file(0, 1), file(20, 3), file(40, 2)), true},
		"a library less":       {with(file(0, 1), file(20, 2)), with(file(0, 1)), false},
		"another in its place": {with(file(0, 1), file(20, 2)), with(file(0, 1), file(20, 3)), false},
		"code that was made":   {with(file(0, 1), code(20)), with(file(0, 1), code(40)), true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { assert.Equal(t, test.part, test.before.isPartOf(test.after)) })
	}
}
