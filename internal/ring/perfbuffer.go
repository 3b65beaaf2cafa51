//go:build linux

package ring

import (
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/perf"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
)

// perfBufferDefaultBytes is the size of all CPUs together where the configuration does not say: what the map of ring.h
// declares is gone once it is a perf event array.
const perfBufferDefaultBytes = 4 << 20

// perfBuffer reads a BPF_MAP_TYPE_PERF_EVENT_ARRAY.
type perfBuffer struct {
	reader *perf.Reader
	record perf.Record // reused, so that an event costs a copy and no allocation
	cpus   uint64
	left   atomic.Uint64 // bytes that the last read left behind in its CPU's buffer
}

func openPerfBuffer(events *ebpf.Map, config Config) (*perfBuffer, error) {
	cpus := int(events.MaxEntries())
	if cpus == 0 {
		return nil, fmt.Errorf("open the perf buffer: the map %q has no entries", mapName)
	}
	bytes := config.Bytes
	if bytes == 0 {
		bytes = perfBufferDefaultBytes
	}
	perCPU := roundBytes(max(bytes/cpus, 1))
	// The kernel wakes for each buffer on its own, and wants the threshold below its size.
	watermark := min(max(config.wakeupBytes(bytes)/cpus, 1), perCPU/2)
	reader, err := perf.NewReaderWithOptions(events, perCPU, perf.ReaderOptions{Watermark: watermark})
	if err != nil {
		return nil, kernel.Explain(fmt.Sprintf("open a perf buffer of %d bytes for each of %d CPUs", perCPU, cpus), err,
			kernel.CapPerfmon)
	}
	return &perfBuffer{reader: reader, cpus: uint64(cpus)}, nil
}

func (b *perfBuffer) setDeadline(deadline time.Time) { b.reader.SetDeadline(deadline) }

func (b *perfBuffer) read() ([]byte, error) {
	for {
		err := b.reader.ReadInto(&b.record)
		if err != nil {
			if perf.IsUnknownEvent(err) {
				return nil, errUnreadable
			}
			b.left.Store(0)
			if err == perf.ErrFlushed { //nolint:errorlint // returned as it is, and this is the hot path
				err = os.ErrDeadlineExceeded
			}
			return nil, err
		}
		b.left.Store(uint64(max(b.record.Remaining, 0)))
		// A record of lost samples tells again what bpf_perf_event_output told the program, which counted it: the helper
		// returns the error since 5.1, before any kernel that loads the constants of ring.h.
		if b.record.LostSamples == 0 {
			return b.record.RawSample, nil
		}
	}
}

// readRest does nothing: the library's reader knows which CPUs have something.
func (b *perfBuffer) readRest(func([]byte), uint64) (handled int, bytes uint64) { return 0, 0 }

func (b *perfBuffer) wake() error { return b.reader.Flush() }

func (b *perfBuffer) used() uint64 { return b.left.Load() }

func (b *perfBuffer) capacity() uint64 { return b.cpus * uint64(b.reader.BufferSize()) }

func (b *perfBuffer) close() error { return b.reader.Close() }
