//go:build linux

package timeline

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"go.opentelemetry.io/collector/pdata/pcommon"
)

func span(number byte) Span {
	return Span{Trace: pcommon.TraceID{1, number}, Span: pcommon.SpanID{2, number}}
}

func TestAt(t *testing.T) {
	thread, other := Unit{PID: 1, Number: 10}, Unit{PID: 1, Number: 11}
	line := New(8)
	line.Begin(thread, 100, span(1))
	line.End(thread, 200, span(2)) // its identity is known better by now
	line.Begin(other, 150, span(3))
	line.Begin(thread, 300, span(4))
	line.Mix(thread, 350)
	line.End(thread, 400, span(5))
	line.Begin(thread, 500, Span{})
	line.End(thread, 600, Span{})
	line.Begin(thread, 700, span(6))
	line.Drop(thread)
	for _, test := range []struct {
		unit   Unit
		timeNs uint64
		span   Span
		answer Answer
	}{
		{thread, 99, Span{}, Nothing},
		{thread, 100, span(2), Found},
		{thread, 200, span(2), Found},
		{thread, 201, Span{}, Nothing},
		{thread, 320, span(4), Found},
		{thread, 370, Span{}, Uncertain},
		{thread, 450, Span{}, Nothing},
		{thread, 550, Span{}, Nothing}, // not reported
		{thread, 750, Span{}, Nothing},
		{other, 149, Span{}, Nothing},
		{other, 150, span(3), Found},
		{other, 1 << 40, span(3), Found}, // it goes on
		{Unit{PID: 2, Number: 10}, 150, Span{}, Nothing},
	} {
		found, answer := line.At(test.unit, false, test.timeNs)
		assert.Equal(t, test.answer, answer, "%v at %d", test.unit, test.timeNs)
		assert.Equal(t, test.span, found, "%v at %d", test.unit, test.timeNs)
	}
}

func TestWhatWasForgottenIsSaidSo(t *testing.T) {
	line := New(4)
	for number := range uint64(10) {
		unit := Unit{PID: 1, Number: number % 3}
		line.Begin(unit, number*100, span(byte(number)))
		line.End(unit, number*100+50, span(byte(number)))
	}
	for number := range uint64(10) {
		found, answer := line.At(Unit{PID: 1, Number: number % 3}, false, number*100+20)
		if number < 6 {
			assert.Equal(t, TooLate, answer, number)
		} else {
			assert.Equal(t, Found, answer, number)
			assert.Equal(t, span(byte(number)), found)
		}
	}
	assert.LessOrEqual(t, len(line.last), 4, "units of what was forgotten are forgotten")
}

func TestProcessesThatMixAreNotBelieved(t *testing.T) {
	thread, goroutine := Unit{PID: 1, Number: 10}, Unit{PID: 1, Number: 10, Goroutine: true}
	line := New(8)
	line.Begin(thread, 100, span(1))
	line.Begin(goroutine, 100, span(2))
	line.Distrust(1, false, 1000)
	_, answer := line.At(thread, false, 200)
	assert.Equal(t, Uncertain, answer)
	found, answer := line.At(goroutine, false, 200)
	assert.Equal(t, Found, answer)
	assert.Equal(t, span(2), found)
	_, answer = line.At(thread, false, 1000)
	assert.Equal(t, Found, answer)
}

func TestProcessesThatServe(t *testing.T) {
	line := New(8)
	line.Serves(1, 5, Goroutines{ID: 152})
	goroutines, serves := line.IsServing(1, 5)
	assert.True(t, serves)
	assert.Equal(t, uint32(152), goroutines.ID)
	_, serves = line.IsServing(1, 6)
	assert.False(t, serves, "another process with its pid")
}

func TestNobodyListens(t *testing.T) {
	var line *Timeline
	line.Begin(Unit{}, 1, span(1))
	line.Mix(Unit{}, 1)
	line.End(Unit{}, 1, span(1))
	line.Drop(Unit{})
	line.Distrust(1, false, 1)
	line.Serves(1, 1, Goroutines{})
	_, serves := line.IsServing(1, 1)
	assert.False(t, serves)
	_, answer := line.At(Unit{}, false, 1)
	assert.Equal(t, Nothing, answer)
}
