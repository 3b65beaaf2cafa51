//go:build linux

package ring

import (
	"encoding/binary"
	"os"
	"slices"
	"testing"
	"unsafe"
)

// recordedRing is a mapping of memory of our own, with records as the kernel lays them out from a position on.
type recordedRing struct {
	mapping
	at uint64
}

func newRecordedRing(size int, position uint64) *recordedRing {
	page := os.Getpagesize()
	words := make([]uint64, (2*page+2*size)/8) // aligned
	memory := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), 8*len(words))
	r := &recordedRing{at: position}
	r.consumer, r.producer, r.mask = memory[:page], memory[page:], uint64(size)-1
	binary.NativeEndian.PutUint64(r.consumer, position)
	binary.NativeEndian.PutUint64(r.producer, position)
	return r
}

// put writes a record, also where the second mapping has it.
func (r *recordedRing) put(data string, flags uint32) {
	records, size := r.producer[os.Getpagesize():], r.mask+1
	write := func(at uint64, bytes []byte) {
		for i, b := range bytes {
			place := (at + uint64(i)) & r.mask
			records[place], records[place+size] = b, b
		}
	}
	write(r.at, binary.NativeEndian.AppendUint32(nil, uint32(len(data))|flags))
	write(r.at+recordHeaderBytes, []byte(data))
	r.at += recordHeaderBytes + (uint64(len(data))+7)&^7
	binary.NativeEndian.PutUint64(r.producer, r.at)
}

func (r *recordedRing) read(limit uint64) (read []string, bytes uint64) {
	handled, bytes := r.drain(func(sample []byte) { read = append(read, string(sample)) }, limit)
	if handled != len(read) {
		read = append(read, "miscounted")
	}
	return read, bytes
}

func (r *recordedRing) consumed() uint64 { return binary.NativeEndian.Uint64(r.consumer) }

func TestMapping(t *testing.T) {
	const size = 4096
	const unlimited = 1 << 30
	for _, position := range []uint64{0, size - 8, size - 24, 1<<40 - 16} {
		r := newRecordedRing(size, position)
		if read, bytes := r.read(unlimited); len(read) != 0 || bytes != 0 {
			t.Errorf("an empty ring has %q, %d bytes", read, bytes)
		}
		r.put("first", 0)
		r.put("", 0)
		r.put("discarded", recordDiscarded)
		r.put("exactly 16 bytes", 0)
		before := r.at
		r.put("busy", recordBusy)
		r.put("behind", 0)
		want := []string{"first", "", "exactly 16 bytes"}
		if read, bytes := r.read(unlimited); !slices.Equal(read, want) || bytes != before-position {
			t.Errorf("at %d: read %q, %d bytes, want %q, %d", position, read, bytes, want, before-position)
		}
		if r.consumed() != before {
			t.Errorf("at %d: consumed up to %d, want %d", position, r.consumed(), before)
		}
	}
}

func TestMappingHeedsTheLimit(t *testing.T) {
	r := newRecordedRing(4096, 0)
	for range 10 {
		r.put("12345678", 0)
	}
	if read, bytes := r.read(40); len(read) != 3 || bytes != 48 {
		t.Errorf("read %d records, %d bytes, want 3 and 48: the limit is reached within the third", len(read), bytes)
	}
	if read, _ := r.read(1 << 30); len(read) != 7 {
		t.Errorf("read %d more records, want 7", len(read))
	}
}

// Closing ends the drain that it happens in, and what was handed out counts as read.
func TestMappingCloses(t *testing.T) {
	r := newRecordedRing(4096, 0)
	for range 10 {
		r.put("12345678", 0)
	}
	handled, _ := r.drain(func([]byte) {
		if err := r.close(); err != nil {
			t.Error(err)
		}
	}, 1<<30)
	if handled != 1 {
		t.Errorf("handed out %d records after close, want none", handled-1)
	}
	if r.consumed() != 16 {
		t.Errorf("consumed %d bytes, want 16", r.consumed())
	}
	if read, _ := r.read(1 << 30); len(read) != 0 {
		t.Errorf("a closed ring hands out %q", read)
	}
}
