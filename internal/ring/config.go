//go:build linux

// Package ring reads the events that BPF programs send through bpf/include/ring.h.
package ring

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cilium/ebpf"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
)

// Kind is the kernel's means of carrying events.
type Kind int

const (
	// Auto is the ring buffer where the kernel has one, else the perf buffer.
	Auto Kind = iota
	// RingBuffer is one buffer for all CPUs, in order (BPF_MAP_TYPE_RINGBUF, Linux 5.8).
	RingBuffer
	// PerfBuffer is one buffer for each CPU (BPF_MAP_TYPE_PERF_EVENT_ARRAY, Linux 4.4).
	PerfBuffer
)

func (k Kind) String() string {
	switch k {
	case Auto:
		return "auto"
	case RingBuffer:
		return "ring buffer"
	case PerfBuffer:
		return "perf buffer"
	}
	return fmt.Sprintf("kind %d", int(k))
}

const (
	mapName             = "events"
	isPerfBufferName    = "ring_is_perf_buffer"
	wakeupBytesName     = "ring_wakeup_bytes"
	defaultPollInterval = 50 * time.Millisecond
	minimumPollInterval = time.Millisecond // what the reader's epoll_wait can tell apart
	maximumBytes        = 1 << 30
	largestDefaultWake  = 1 << 20
)

// Config is the size of a ring and when its reader wakes. The zero value is a good configuration.
type Config struct {
	// Bytes is the size of the ring, rounded up to a power of two of whole pages; of all CPUs together for a perf buffer,
	// where each has at least one page. Zero takes the size that the BPF object declares.
	Bytes int

	// WakeupBytes is how much may wait before the reader is woken ahead of its poll interval. Zero is a quarter of the
	// ring, at most 1 MiB. It has to leave room for what arrives while the reader wakes.
	WakeupBytes int

	// PollInterval is how long an event may wait in a ring that does not fill. Zero is 50 ms.
	PollInterval time.Duration

	Kind Kind
}

// Validate says all that is wrong with the configuration, each with the field's name.
func (c Config) Validate() error {
	var errs []error
	if c.Bytes < 0 || c.Bytes > maximumBytes {
		errs = append(errs, fmt.Errorf("field Bytes is %d: must be between 0 (default) and %d (1 GiB)", c.Bytes, maximumBytes))
	}
	if c.WakeupBytes < 0 {
		errs = append(errs, fmt.Errorf("field WakeupBytes is %d: must not be negative", c.WakeupBytes))
	} else if size := roundBytes(c.Bytes); size > 0 && size <= maximumBytes && c.WakeupBytes >= size {
		errs = append(errs, fmt.Errorf("field WakeupBytes is %d: must be less than the ring's %d bytes, or it never wakes the reader",
			c.WakeupBytes, size))
	}
	if c.PollInterval < 0 || c.PollInterval > 0 && c.PollInterval < minimumPollInterval {
		errs = append(errs, fmt.Errorf("field PollInterval is %v: must be 0 (default) or at least %v", c.PollInterval,
			minimumPollInterval))
	}
	if c.Kind < Auto || c.Kind > PerfBuffer {
		errs = append(errs, fmt.Errorf("field Kind is %d: must be Auto, RingBuffer or PerfBuffer", int(c.Kind)))
	}
	return errors.Join(errs...)
}

func (c Config) pollInterval() time.Duration {
	if c.PollInterval == 0 {
		return defaultPollInterval
	}
	return c.PollInterval
}

// wakeupBytes is the threshold for a ring of so many bytes.
func (c Config) wakeupBytes(ringBytes int) int {
	if c.WakeupBytes == 0 {
		return min(ringBytes/4, largestDefaultWake)
	}
	return c.WakeupBytes
}

// Configure prepares the map `events` and the load-time constants of ring.h in a BPF object that is not loaded yet.
func Configure(spec *ebpf.CollectionSpec, config Config) error {
	if err := config.Validate(); err != nil {
		return fmt.Errorf("configure the ring: %w", err)
	}
	events, found := spec.Maps[mapName]
	if !found {
		return fmt.Errorf("configure the ring: the BPF object has no map %q: does it include ring.h?", mapName)
	}

	kind := config.Kind
	if kind == Auto {
		var err error
		if kind, err = choose(kernel.HaveRingBuffer()); err != nil {
			return err
		}
	}

	bytes := config.Bytes
	if bytes == 0 {
		bytes = int(events.MaxEntries)
	}
	bytes = roundBytes(bytes)
	wakeup := config.wakeupBytes(bytes)
	if wakeup >= bytes {
		return fmt.Errorf("configure the ring: WakeupBytes is %d: must be less than the ring's %d bytes", wakeup, bytes)
	}

	switch kind {
	case PerfBuffer:
		events.Type = ebpf.PerfEventArray
		events.KeySize, events.ValueSize = 4, 4
		events.MaxEntries = 0 // as many as there are CPUs
	default:
		events.Type = ebpf.RingBuf
		events.MaxEntries = uint32(bytes)
	}
	if err := setConstant(spec, isPerfBufferName, kind == PerfBuffer); err != nil {
		return err
	}
	return setConstant(spec, wakeupBytesName, uint64(wakeup))
}

// choose picks the kind from the kernel's answer to HaveRingBuffer.
func choose(ringBuffer error) (Kind, error) {
	switch {
	case ringBuffer == nil:
		return RingBuffer, nil
	case errors.Is(ringBuffer, kernel.ErrNotSupported):
		return PerfBuffer, nil
	}
	return Auto, fmt.Errorf("choose between ring buffer and perf buffer: %w", ringBuffer)
}

func setConstant(spec *ebpf.CollectionSpec, name string, value any) error {
	variable, found := spec.Variables[name]
	if !found {
		return fmt.Errorf("configure the ring: the BPF object has no constant %q: does it include ring.h?", name)
	}
	if err := variable.Set(value); err != nil {
		return fmt.Errorf("configure the ring: set %s: %w", name, err)
	}
	return nil
}

// roundBytes rounds up to a power of two of whole pages, which is what both kinds of buffer take.
func roundBytes(bytes int) int {
	if bytes <= 0 {
		return 0
	}
	size := os.Getpagesize()
	for size < bytes {
		size *= 2
	}
	return size
}
