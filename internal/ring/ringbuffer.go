//go:build linux

package ring

import (
	"fmt"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
)

// ringBuffer reads a BPF_MAP_TYPE_RINGBUF.
type ringBuffer struct {
	reader *ringbuf.Reader
	record ringbuf.Record // reused, so that an event costs a copy and no allocation
}

func openRingBuffer(events *ebpf.Map) (*ringBuffer, error) {
	reader, err := ringbuf.NewReader(events)
	if err != nil {
		return nil, fmt.Errorf("map the ring buffer into memory: %w", err)
	}
	return &ringBuffer{reader: reader}, nil
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

func (b *ringBuffer) close() error { return b.reader.Close() }
