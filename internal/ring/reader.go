//go:build linux

package ring

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
)

// ErrClosed is what Drain returns after Close.
var ErrClosed = os.ErrClosed

// recordOverhead is about what the kernel adds to each event in either kind of buffer.
const recordOverhead = 8

// source is one kind of buffer. read returns os.ErrDeadlineExceeded when it is empty and the deadline has passed, and
// errUnreadable for a record that is no event.
type source interface {
	setDeadline(deadline time.Time)
	read() (sample []byte, err error) // valid until the next read
	// readRest hands out more of what is there after a read, up to a number of bytes. It need not hand out everything.
	readRest(handle func(sample []byte), limit uint64) (handled int, bytes uint64)
	wake() error // ends a read that waits as if its deadline had passed
	used() uint64
	capacity() uint64
	close() error
}

var errUnreadable = errors.New("a record that is no event")

// Reader hands out the events of one map.
//
// One goroutine drains; Wake, Usage, Lost and Close may be called from others.
type Reader struct {
	source       source
	pollInterval time.Duration
	passed       time.Time // any time in the past: stops a source from waiting
	lost         atomic.Uint64

	// A closed source must not be asked for its usage: its memory is gone.
	usage  sync.RWMutex
	closed bool
}

// NewReader opens the map that Configure prepared and the kernel loaded, with the same Config.
func NewReader(events *ebpf.Map, config Config) (*Reader, error) {
	if events == nil {
		return nil, fmt.Errorf("read the ring: the BPF object has no map %q", mapName)
	}
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("read the ring: %w", err)
	}
	var (
		opened source
		err    error
	)
	switch events.Type() {
	case ebpf.RingBuf:
		opened, err = openRingBuffer(events)
	case ebpf.PerfEventArray:
		opened, err = openPerfBuffer(events, config)
	default:
		return nil, fmt.Errorf("read the ring: the map %q is a %v: it has to be prepared with Configure", mapName, events.Type())
	}
	if err != nil {
		return nil, fmt.Errorf("read the ring: %w", err)
	}
	return &Reader{source: opened, pollInterval: config.pollInterval(), passed: time.Unix(1, 0)}, nil
}

// Drain waits until the programs wake it or the poll interval has passed, then calls handle for every waiting event and
// returns how many there were. A sample is valid only during the call.
//
// It returns after a ring's worth of events even if more keep coming, so that the caller can do its other work. After
// Close the error is ErrClosed.
func (r *Reader) Drain(handle func(sample []byte)) (int, error) {
	handled, bytes, limit := 0, uint64(0), r.source.capacity()
	r.source.setDeadline(time.Now().Add(r.pollInterval))
	for first := true; bytes < limit; {
		sample, err := r.source.read()
		if first {
			// What is there is read without waiting for more.
			first = false
			r.source.setDeadline(r.passed)
		}
		switch {
		case err == nil:
			handle(sample)
			more, size := r.source.readRest(handle, limit-min(bytes, limit))
			handled += 1 + more
			bytes += uint64(len(sample)) + recordOverhead + size
		case err == errUnreadable: //nolint:errorlint // our own, never wrapped, and this is the hot path
			r.lost.Add(1)
			bytes += recordOverhead
		case errors.Is(err, os.ErrDeadlineExceeded):
			return handled, nil
		case errors.Is(err, os.ErrClosed):
			return handled, ErrClosed
		default:
			return handled, fmt.Errorf("read the ring: %w", err)
		}
	}
	return handled, nil
}

// Wake ends the wait of a Drain, the running one or the next, so that it hands out what is there. The error is ErrClosed
// after Close.
func (r *Reader) Wake() error {
	r.usage.RLock()
	defer r.usage.RUnlock()
	if r.closed {
		return ErrClosed
	}
	if err := r.source.wake(); err != nil {
		return fmt.Errorf("wake the ring's reader: %w", err)
	}
	return nil
}

// Lost returns how many records could not be handed out although a program had put them in. It stays zero unless a perf
// buffer carries what is no event.
//
// What found no room is not in it: the program itself counts that as LOSS_RING_FULL, for both kinds of buffer. (The lost
// records of a perf buffer are the same events again, later.)
func (r *Reader) Lost() uint64 { return r.lost.Load() }

// Usage returns how many bytes wait in the ring and how many it holds; both are zero after Close. What waits in a perf
// buffer is known only as far as its reader has looked.
func (r *Reader) Usage() (used, capacity uint64) {
	r.usage.RLock()
	defer r.usage.RUnlock()
	if r.closed {
		return 0, 0
	}
	return r.source.used(), r.source.capacity()
}

// Close ends a Drain that waits and frees the buffer. Events that still wait are gone; programs that go on sending count
// theirs as lost. Closing twice is harmless.
func (r *Reader) Close() error {
	r.usage.Lock()
	defer r.usage.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	if err := r.source.close(); err != nil {
		return fmt.Errorf("close the ring: %w", err)
	}
	return nil
}
