package http2_test

import (
	"encoding/binary"
	"fmt"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2/hpack"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http/http2"
	"github.com/ebpfreceiver/ebpfreceiver/internal/http/http2/http2test"
)

// tableOf reads the dynamic table of an hpack.Encoder or hpack.Decoder as the kernel side does: it begins with it.
func tableOf(owner unsafe.Pointer) []byte {
	entries := *(*[]hpack.HeaderField)(owner)
	var fields []byte
	for i := len(entries) - 1; i >= 0; i-- {
		fields = binary.LittleEndian.AppendUint16(fields, uint16(len(entries[i].Name)))
		fields = binary.LittleEndian.AppendUint16(fields, uint16(len(entries[i].Value)))
		fields = append(append(fields, entries[i].Name...), entries[i].Value...)
	}
	return fields
}

// block is a header block of a connection, with its encoder's table before and after it.
type block struct {
	http2.Block
	frame         []byte
	before, after []byte
	fields        []string
}

// blocks are those of a connection, of which some are all alike and others have something new.
func blocks(count int, extra func(number int) []string) (all []block) {
	w := newWriter()
	for number := range count {
		b := block{before: tableOf(unsafe.Pointer(w.encoder))}
		b.Stream, b.EndStream = uint32(2*number+1), true
		b.fields = append([]string{
			":method", "POST", ":scheme", "http", ":path", fmt.Sprintf("/service/%d", number%3), ":authority", "host",
			"content-type", "application/grpc", "user-agent", "test", "x-other", fmt.Sprint(number % 2),
		}, extra(number)...)
		w.Reset()
		w.headers(b.Stream, true, b.fields...)
		b.frame = append([]byte(nil), w.Bytes()...)
		b.Length = uint32(len(b.frame) - 9)
		copy(b.First[:], b.frame[9:])
		b.after = tableOf(unsafe.Pointer(w.encoder))
		all = append(all, b)
	}
	return all
}

func nothing(int) []string { return nil }

// churn puts something into the table with each block, so that it is full soon.
func churn(number int) []string {
	return []string{"traceparent", fmt.Sprintf("00-%032x-%016x-01", number+1, number+1), "cookie", fmt.Sprint(number)}
}

// joined is a decoder that has seen some of the blocks.
type joined struct {
	http2.Decoder
	compactor http2test.Compactor
	values    recorder
}

func join() *joined {
	j := &joined{compactor: http2test.Compactor{NoPreface: true}}
	j.compactor.Call([]byte("\x00\x00\x00\x00\x00\x00\x00\x00\x01"), 1) // an empty DATA frame that was not seen
	j.Handler = &j.values
	return j
}

func (j *joined) take(t *testing.T, b *block) *http2.Headers {
	t.Helper()
	call := j.compactor.Call(b.frame, 1)
	require.NoError(t, j.Call(&call))
	require.NotNil(t, j.values.headers)
	return j.values.headers
}

func requireKnown(t *testing.T, b *block, headers *http2.Headers) {
	t.Helper()
	require.False(t, headers.Unknown, "stream %d", b.Stream)
	for _, n := range named {
		for i := 0; i < len(b.fields); i += 2 {
			if b.fields[i] == n.name {
				require.Equal(t, b.fields[i+1], headers.Value(n.field), n.name)
			}
		}
	}
}

func TestLearn(t *testing.T) {
	for name, extra := range map[string]func(int) []string{"steady": nothing, "churning": churn} {
		t.Run(name, func(t *testing.T) {
			all := blocks(200, extra)
			for _, late := range []int{1, 2, 10, 60} { // how many blocks were decoded before the table comes
				t.Run(fmt.Sprint(late), func(t *testing.T) {
					if name == "churning" && late > 20 {
						late = 20 // the table turns over in less than 30 blocks
					}
					j := join()
					at := 20
					require.True(t, j.take(t, &all[at-1]).Missing)
					for number := at; number < at+late; number++ {
						j.take(t, &all[number])
					}
					wanted := &all[at]
					require.False(t, j.Learned())
					require.True(t, j.Learn(&http2.Table{Block: wanted.Block, Fields: wanted.before}))
					require.True(t, j.Learned())
					for number := at + late; number < len(all); number++ {
						requireKnown(t, &all[number], j.take(t, &all[number]))
					}
					assert.EqualValues(t, 1, j.Taught)
				})
			}
		})
	}
}

func TestExpect(t *testing.T) {
	for name, extra := range map[string]func(int) []string{"steady": nothing, "churning": churn} {
		t.Run(name, func(t *testing.T) {
			all := blocks(200, extra)
			j := join()
			j.take(t, &all[18])
			j.Expect(&http2.Table{Block: all[20].Block, Fields: all[20].after})
			j.take(t, &all[19])
			require.False(t, j.Learned(), "its block did not come yet")
			j.take(t, &all[20])
			require.True(t, j.Learned())
			for number := 21; number < len(all); number++ {
				requireKnown(t, &all[number], j.take(t, &all[number]))
			}
		})
	}
}

// What does not agree with all that is known is not believed, and changes nothing.
func TestLearnNothing(t *testing.T) {
	all := blocks(40, churn)
	right := http2.Table{Block: all[21].Block, Fields: all[21].before}
	for name, spoil := range map[string]func(*http2.Table){
		"stream": func(t *http2.Table) { t.Stream += 100 },
		"length": func(t *http2.Table) { t.Length++ },
		"end":    func(t *http2.Table) { t.EndStream = false },
		"bytes":  func(t *http2.Table) { t.First[0]++ },
		"later":  func(t *http2.Table) { t.Fields = all[22].before },
		"sooner": func(t *http2.Table) { t.Fields = all[20].before },
		"cut":    func(t *http2.Table) { t.Fields = t.Fields[:len(t.Fields)-1] },
		"other":  func(t *http2.Table) { t.Fields = []byte("\x05\x00\x01\x00:pathx") },
	} {
		wrong := right
		spoil(&wrong)
		t.Run(name, func(t *testing.T) {
			j, same := join(), join()
			for number := 19; number < 24; number++ {
				j.take(t, &all[number])
				same.take(t, &all[number])
			}
			assert.False(t, j.Learn(&wrong))
			assert.False(t, j.Learned())
			for number := 24; number < 30; number++ {
				assert.Equal(t, same.take(t, &all[number]), j.take(t, &all[number]))
			}
			assert.True(t, j.Learn(&right), "the right one is still believed")
		})
	}
	t.Run("expected of another length", func(t *testing.T) {
		j := join()
		j.take(t, &all[18])
		expected := http2.Table{Block: all[20].Block, Fields: all[20].after}
		expected.Length++
		j.Expect(&expected)
		j.take(t, &all[19])
		j.take(t, &all[20])
		assert.False(t, j.Learned())
	})
	t.Run("after a loss", func(t *testing.T) {
		j := join()
		for number := 19; number < 23; number++ {
			j.take(t, &all[number])
		}
		j.compactor.Call(all[23].frame, 1) // it is lost
		j.take(t, &all[24])
		assert.False(t, j.Learn(&right), "its block was before the loss")
	})
}

// A part of a table is as right as all of it.
func TestLearnPart(t *testing.T) {
	all := blocks(40, nothing)
	j := join()
	j.take(t, &all[19])
	j.take(t, &all[20])
	name := len(":method") + len("POST")
	require.Greater(t, len(all[20].before), name)
	half := all[20].before
	for cut := 0; cut < len(half); { // the newest half of the fields
		cut += 4 + int(binary.LittleEndian.Uint16(half[cut:])) + int(binary.LittleEndian.Uint16(half[cut+2:]))
		if cut > len(half)/2 {
			half = half[:cut]
			break
		}
	}
	require.True(t, j.Learn(&http2.Table{Block: all[20].Block, Fields: half, Partial: true}))
	assert.False(t, j.Learned())
	assert.True(t, j.take(t, &all[21]).Missing)
}

// FuzzLearn gives a decoder any bytes as a table: what it knows already stays true.
func FuzzLearn(f *testing.F) {
	all := blocks(30, churn)
	f.Add(all[20].before, uint8(0))
	f.Add(all[20].after, uint8(1))
	f.Add([]byte("\x05\x00\x01\x00:pathx\x01\x00\x00\x00x"), uint8(0))
	f.Fuzz(func(t *testing.T, fields []byte, late uint8) {
		j := join()
		for number := 19; number <= 20+int(late%4); number++ {
			j.take(t, &all[number])
		}
		table := http2.Table{Block: all[20].Block, Fields: fields}
		if late&4 != 0 {
			table.Block = all[26].Block
			j.Expect(&table)
		} else {
			j.Learn(&table)
		}
		for number := 25; number < len(all); number++ {
			frame := append([]byte(nil), all[number].frame...)
			call := j.compactor.Call(frame, 1)
			require.NoError(t, j.Call(&call))
			// This comes with its name in the static table or in a block that was seen.
			if value := j.values.headers.Value(http2.FieldMethod); value != "" {
				require.Equal(t, "POST", value)
			}
		}
	})
}
