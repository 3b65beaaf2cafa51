//go:build linux

package ring

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
)

// ringBuffer reads a BPF_MAP_TYPE_RINGBUF. It waits for the first event by the library's reader; the rest is read in place.
type ringBuffer struct {
	reader  *ringbuf.Reader
	record  ringbuf.Record // reused, so that an event costs a copy and no allocation
	mapping *mapping
}

func openRingBuffer(events *ebpf.Map) (*ringBuffer, error) {
	reader, err := ringbuf.NewReader(events)
	if err != nil {
		return nil, fmt.Errorf("map the ring buffer into memory: %w", err)
	}
	mapping, err := openMapping(events)
	if err != nil {
		return nil, errors.Join(err, reader.Close())
	}
	return &ringBuffer{reader: reader, mapping: mapping}, nil
}

func (b *ringBuffer) setDeadline(deadline time.Time) { b.reader.SetDeadline(deadline) }

func (b *ringBuffer) read() ([]byte, error) {
	err := b.reader.ReadInto(&b.record)
	if err == ringbuf.ErrFlushed { //nolint:errorlint // returned as it is, and this is the hot path
		err = os.ErrDeadlineExceeded
	}
	return b.record.RawSample, err
}

func (b *ringBuffer) wake() error { return b.reader.Flush() }

func (b *ringBuffer) used() uint64 { return uint64(b.reader.AvailableBytes()) }

func (b *ringBuffer) capacity() uint64 { return uint64(b.reader.BufferSize()) }

func (b *ringBuffer) readRest(handle func(sample []byte), limit uint64) (handled int, bytes uint64) {
	return b.mapping.drain(handle, limit)
}

func (b *ringBuffer) close() error { return errors.Join(b.mapping.close(), b.reader.Close()) }
