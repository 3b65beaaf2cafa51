package http1

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestChunks(t *testing.T) {
	for _, test := range []struct {
		body            string
		length, payload int // length -1: it has no end
	}{
		{"0\r\n\r\n", 5, 0},
		{"0\r\n\r\nGET /", 5, 0},
		{"3\r\nabc\r\n0\r\n\r\n", 13, 3},
		{"A;x=y\r\n0123456789\r\n0\n\n", 22, 10},
		{"0\r\nA: b\r\nC: d\r\n\r\nGET", 17, 0},
		{"", -1, 0},
		{"0", -1, 0},
		{"0\r\n", -1, 0},
		{"0\r\nA: b\r\n", -1, 0},
		{"3\r\nabc\r\n", -1, 0},
		{"3\r\nabc", -1, 0},
		{"3\r\nabcd\r\n0\r\n\r\n", -1, 0},
		{"x\r\n\r\n", -1, 0},
		{"\r\n\r\n", -1, 0},
		{"ffffffffffffffffffff\r\n\r\n", -1, 0},
		{"-1\r\n\r\n", -1, 0},
	} {
		for piece := 1; piece <= len(test.body)+1; piece++ {
			var c Chunks
			length := 0
			for at := 0; at < len(test.body); at += piece {
				length += c.Walk([]byte(test.body[at:min(at+piece, len(test.body))]))
			}
			assert.Equal(t, test.length >= 0, c.Done(), "%q in pieces of %d", test.body, piece)
			if c.Done() {
				assert.Equal(t, test.length, length, "%q in pieces of %d", test.body, piece)
				assert.EqualValues(t, test.payload, c.Payload(), "%q in pieces of %d", test.body, piece)
			}
		}
	}
}

func TestChunksOfCalls(t *testing.T) {
	type call struct {
		data   string
		length int64
		tail   string
	}
	for _, test := range []struct {
		name    string
		calls   []call
		payload int64 // -1: not known
	}{
		{"all of it", []call{{"3\r\nabc\r\n0\r\n\r\n", 13, ""}}, 3},
		{"the middle of a chunk is not seen", []call{{"3e8\r\nxxx", 1012, "x\r\n0\r\n\r\n"}}, 1000},
		{"the last chunk by itself", []call{{"3\r\nabc\r\n", 8, ""}, {"", 5, "0\r\n\r\n"}}, 3},
		{"a chunk in several calls", []call{
			{"3e8\r\n", 5, ""}, {"", 600, "xxxxxxxx"}, {"", 400, "xxxxxxxx"}, {"", 2, "\r\n"}, {"", 5, "0\r\n\r\n"},
		}, 1000},
		{"the tail overlaps what was captured", []call{{"3\r\nabc\r\n", 13, "\n0\r\n\r\n"}}, 3},
		{"a chunk begins where nothing is seen", []call{{"5\r\nhello", 600, "x\r\n0\r\n\r\n"}}, -1},
		{"no tail", []call{{"3e8\r\nxxx", 1012, ""}}, -1},
		{"it goes on", []call{{"3e8\r\nxxx", 500, "xxxxxxxx"}}, -1},
	} {
		t.Run(test.name, func(t *testing.T) {
			var c Chunks
			for _, call := range test.calls {
				c.WalkCall([]byte(call.data), call.length, []byte(call.tail))
			}
			assert.Equal(t, test.payload >= 0, c.Done())
			if c.Done() {
				assert.Equal(t, test.payload, c.Payload())
			}
		})
	}
}

// However a body is cut, and whatever of its chunks is not seen, it ends at the same place with the same payload.
func FuzzChunks(f *testing.F) {
	f.Add([]byte("3\r\nabc\r\n0\r\n\r\nGET"), uint8(3), uint8(1))
	f.Add([]byte("A;x=y\r\n0123456789\r\n0\nA: b\n\n"), uint8(9), uint8(4))
	f.Add([]byte("ffffffffff\r\n"), uint8(2), uint8(0))
	f.Fuzz(func(t *testing.T, data []byte, cut, seen uint8) {
		length, payload, whole := walkWhole(data)
		var c Chunks
		took := 0
		for rest := data; len(rest) > 0; {
			part := rest[:min(int(cut)+1, len(rest))]
			rest = rest[len(part):]
			took += c.Walk(part)
		}
		assert.Equal(t, whole, c.Done())
		if whole {
			assert.Equal(t, length, took)
			assert.Equal(t, payload, c.Payload())
		}
		c = Chunks{}
		head, tail := min(int(seen), len(data)), min(8, len(data))
		c.WalkCall(data[:head], int64(len(data)), data[len(data)-tail:])
		if c.Done() {
			assert.True(t, whole, "it ends only where it does")
			assert.Equal(t, payload, c.Payload())
		}
	})
}

// walkWhole is the plain way, for all of a body at once.
func walkWhole(data []byte) (length int, payload int64, whole bool) {
	rest := data
	line := func() ([]byte, bool) {
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			return nil, false
		}
		cut := bytes.TrimSuffix(rest[:end], []byte{'\r'})
		rest = rest[end+1:]
		return cut, true
	}
	for {
		first, ok := line()
		if !ok {
			return 0, 0, false
		}
		size, digits := int64(0), 0
		for _, b := range first {
			digit, ok := hexDigit(b)
			if !ok {
				break
			}
			if size, digits = size<<4|digit, digits+1; size > maxChunk {
				return 0, 0, false
			}
		}
		if digits == 0 {
			return 0, 0, false
		}
		if size == 0 {
			break
		}
		if size > int64(len(rest)) {
			return 0, 0, false
		}
		payload += size
		rest = rest[size:]
		if empty, ok := line(); !ok || len(empty) > 0 {
			return 0, 0, false
		}
	}
	for {
		trailer, ok := line()
		if !ok {
			return 0, 0, false
		}
		if len(trailer) == 0 {
			return len(data) - len(rest), payload, true
		}
	}
}
