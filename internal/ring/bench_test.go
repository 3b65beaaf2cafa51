//go:build linux && (amd64 || arm64)

package ring_test

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfreceiver/ebpfreceiver/internal/ring"
	"github.com/ebpfreceiver/ebpfreceiver/internal/ring/ringtest"
)

// BenchmarkDrain is the reader alone: the ring is filled while the clock stands.
func BenchmarkDrain(b *testing.B) {
	for _, kind := range []ring.Kind{ring.RingBuffer, ring.PerfBuffer} {
		b.Run(kind.String(), func(b *testing.B) {
			config := ring.Config{Kind: kind, Bytes: 8 << 20, PollInterval: time.Millisecond}
			producer := ringtest.NewProducer(b, config)
			reader := openReader(b, producer, config)
			var sum uint64
			handle := func(sample []byte) { sum += uint64(sample[0]) }

			b.ReportAllocs()
			b.ResetTimer()
			for drained := 0; drained < b.N; {
				b.StopTimer()
				if err := producer.Produce(0, min(b.N-drained, ringtest.EventsPerRun)); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				events, err := reader.Drain(handle)
				if err != nil {
					b.Fatal(err)
				}
				drained += events
			}
		})
	}
}

// BenchmarkSaturated is a reader against a program that sends 64-byte events as fast as one CPU can, the reader on
// another CPU. An operation is an event that was received; what found no room is reported beside it.
func BenchmarkSaturated(b *testing.B) {
	if runtime.NumCPU() < 2 {
		b.Fatal("a reader beside a producer needs two CPUs")
	}
	for _, kind := range []ring.Kind{ring.RingBuffer, ring.PerfBuffer} {
		b.Run(kind.String(), func(b *testing.B) {
			config := ring.Config{Kind: kind, Bytes: 16 << 20}
			producer := ringtest.NewProducer(b, config)
			reader := openReader(b, producer, config)

			var stop atomic.Bool
			ended := make(chan error, 1)
			go func() {
				pin(0)
				for !stop.Load() {
					if err := producer.Produce(0, ringtest.EventsPerRun); err != nil {
						ended <- err
						return
					}
				}
				ended <- nil
			}()

			pin(1)
			received, torn := 0, 0
			handle := func(sample []byte) {
				if _, whole := ringtest.Sequence(sample); !whole {
					torn++
				}
			}
			b.ReportAllocs()
			b.ResetTimer()
			for received < b.N {
				events, err := reader.Drain(handle)
				if err != nil {
					b.Fatal(err)
				}
				received += events
			}
			b.StopTimer()
			stop.Store(true)
			if err := <-ended; err != nil {
				b.Fatal(err)
			}
			if torn != 0 {
				b.Errorf("%d of %d events are torn", torn, received)
			}
			b.ReportMetric(float64(received)/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric(100*float64(producer.Lost(b))/float64(producer.Produced(b)), "%lost")
		})
	}
}

// pin keeps the calling goroutine's thread on one CPU. The thread is never given back, so it ends with the goroutine.
func pin(cpu int) {
	runtime.LockOSThread()
	var cpus unix.CPUSet
	cpus.Set(cpu)
	_ = unix.SchedSetaffinity(0, &cpus)
}
