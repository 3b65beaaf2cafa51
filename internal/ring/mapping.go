//go:build linux

package ring

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// How a record of a BPF_MAP_TYPE_RINGBUF begins: struct bpf_ringbuf_hdr of kernel/bpf/ringbuf.c, and the flags in its length
// (include/uapi/linux/bpf.h).
const (
	recordHeaderBytes = unix.BPF_RINGBUF_HDR_SZ
	recordBusy        = unix.BPF_RINGBUF_BUSY_BIT
	recordDiscarded   = unix.BPF_RINGBUF_DISCARD_BIT
)

// publishBytes is after how much of what it has read a mapping tells the producers. They look at that for every event, so
// each time costs them and the reader a cache line that has to go between processors.
const publishBytes = 32 << 10

// mapping is the memory of a BPF_MAP_TYPE_RINGBUF, in which records are read where they are: ringbuf.Reader copies each of
// them, and tells the producers after each. It does not wait: that is left to a ringbuf.Reader of the same map. Both go on
// from where the other one was, as long as one goroutine uses them.
type mapping struct {
	consumer, producer []byte // the pages of the positions; that of the producer is followed by the records, twice
	mask               uint64

	closed   atomic.Bool
	lock     sync.Mutex // guards what follows, and closed against it
	draining bool       // who drains frees the memory when it is closed meanwhile
}

func openMapping(events *ebpf.Map) (*mapping, error) {
	page, size := os.Getpagesize(), int(events.MaxEntries())
	consumer, err := unix.Mmap(events.FD(), 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the page of the ring buffer's reader into memory: %w", err)
	}
	producer, err := unix.Mmap(events.FD(), int64(page), page+2*size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("map the records of the ring buffer into memory: %w", err), unix.Munmap(consumer))
	}
	return &mapping{consumer: consumer, producer: producer, mask: uint64(size) - 1}, nil
}

// drain calls handle for what waits, up to a number of bytes and as far as it is complete, and returns how many records and
// bytes these were. A sample is valid only during the call. After close, and when it is closed meanwhile, it ends.
func (m *mapping) drain(handle func(sample []byte), limit uint64) (handled int, bytes uint64) {
	if !m.enter() {
		return 0, 0
	}
	defer m.leave()
	consumed := (*uint64)(unsafe.Pointer(&m.consumer[0]))
	produced := (*uint64)(unsafe.Pointer(&m.producer[0]))
	records := m.producer[os.Getpagesize():]
	at := atomic.LoadUint64(consumed)
	published := at
	defer func() { atomic.StoreUint64(consumed, at) }()
	for end := atomic.LoadUint64(produced); bytes < limit && !m.closed.Load(); {
		if at == end {
			if end = atomic.LoadUint64(produced); at == end {
				break
			}
		}
		// The kernel sets the length last, so what belongs to it is there when it is no longer busy.
		header := atomic.LoadUint32((*uint32)(unsafe.Pointer(&records[at&m.mask])))
		if header&recordBusy != 0 {
			break
		}
		length := uint64(header &^ uint32(recordBusy|recordDiscarded))
		if header&recordDiscarded == 0 {
			start := at&m.mask + recordHeaderBytes
			handle(records[start : start+length : start+length])
			handled++
		}
		size := recordHeaderBytes + (length+7)&^7
		bytes += size
		if at += size; at-published >= publishBytes {
			atomic.StoreUint64(consumed, at)
			published = at
		}
	}
	return handled, bytes
}

func (m *mapping) enter() bool {
	m.lock.Lock()
	defer m.lock.Unlock()
	m.draining = !m.closed.Load()
	return m.draining
}

func (m *mapping) leave() {
	m.lock.Lock()
	defer m.lock.Unlock()
	m.draining = false
	if m.closed.Load() {
		_ = m.free() // of memory that was mapped: it does not fail
	}
}

// close frees the memory, or has the drain that is under way free it.
func (m *mapping) close() error {
	m.lock.Lock()
	defer m.lock.Unlock()
	m.closed.Store(true)
	if m.draining {
		return nil
	}
	return m.free()
}

func (m *mapping) free() error {
	return errors.Join(unix.Munmap(m.consumer), unix.Munmap(m.producer))
}
