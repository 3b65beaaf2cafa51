//go:build linux && (amd64 || arm64)

package ring_test

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel/kerneltest"
	"github.com/ebpfreceiver/ebpfreceiver/internal/ring"
	"github.com/ebpfreceiver/ebpfreceiver/internal/ring/ringtest"
)

// slack is what a busy machine may add to a time.
const slack = 400 * time.Millisecond

// bothKinds runs a test on both means of carrying events.
func bothKinds(t *testing.T, test func(t *testing.T, kind ring.Kind)) {
	for _, kind := range []ring.Kind{ring.RingBuffer, ring.PerfBuffer} {
		t.Run(kind.String(), func(t *testing.T) { test(t, kind) })
	}
}

func openReader(t testing.TB, producer *ringtest.Producer, config ring.Config) *ring.Reader {
	t.Helper()
	reader, err := ring.NewReader(producer.Events, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := reader.Close(); err != nil {
			t.Error(err)
		}
	})
	return reader
}

// delay is when soon does what it is told.
const delay = 50 * time.Millisecond

// soon does something while the test waits for its effect. The test does not end before it is done.
func soon(t *testing.T, do func() error) {
	t.Helper()
	var done sync.WaitGroup
	done.Go(func() {
		time.Sleep(delay)
		if err := do(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(done.Wait)
}

// numbers notes which events arrived.
type numbers struct {
	t    testing.TB
	seen map[uint64]bool
	last uint64
	torn int
}

func newNumbers(t testing.TB) *numbers { return &numbers{t: t, seen: make(map[uint64]bool)} }

func (n *numbers) note(sample []byte) {
	sequence, whole := ringtest.Sequence(sample)
	if !whole {
		n.torn++
		return
	}
	if n.seen[sequence] {
		n.t.Errorf("event %d arrived twice", sequence)
	}
	if len(n.seen) > 0 && sequence < n.last {
		n.t.Errorf("event %d arrived after %d", sequence, n.last)
	}
	n.seen[sequence], n.last = true, sequence
}

func TestEventsArriveWithinThePollInterval(t *testing.T) {
	bothKinds(t, func(t *testing.T, kind ring.Kind) {
		config := ring.Config{Kind: kind, PollInterval: 100 * time.Millisecond}
		producer := ringtest.NewProducer(t, config)
		reader := openReader(t, producer, config)

		const events = 100 // far below the threshold: nobody is woken
		if err := producer.Produce(0, events); err != nil {
			t.Fatal(err)
		}
		arrived := newNumbers(t)
		start := time.Now()
		drained, err := reader.Drain(arrived.note)
		if err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(start); waited > config.PollInterval+slack {
			t.Errorf("events arrived after %v, poll interval is %v", waited, config.PollInterval)
		}
		if drained != events || len(arrived.seen) != events || arrived.torn != 0 {
			t.Errorf("drained %d, %d different and %d torn, want %d", drained, len(arrived.seen), arrived.torn, events)
		}
		if reader.Lost() != 0 || producer.Lost(t) != 0 {
			t.Errorf("lost %d and %d, want none", reader.Lost(), producer.Lost(t))
		}
	})
}

func TestNoEventBelowTheThresholdWakesTheReader(t *testing.T) {
	bothKinds(t, func(t *testing.T, kind ring.Kind) {
		config := ring.Config{Kind: kind, PollInterval: 300 * time.Millisecond}
		producer := ringtest.NewProducer(t, config)
		reader := openReader(t, producer, config)

		start := time.Now()
		soon(t, func() error { return producer.Produce(0, 10) })
		drained, err := reader.Drain(func([]byte) {})
		if err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(start); drained != 10 || waited < config.PollInterval-20*time.Millisecond {
			t.Errorf("drained %d after %v, want 10 not before %v", drained, waited, config.PollInterval)
		}
	})
}

func TestTheThresholdWakesTheReader(t *testing.T) {
	bothKinds(t, func(t *testing.T, kind ring.Kind) {
		// A poll interval that the test would notice.
		config := ring.Config{Kind: kind, Bytes: 1 << 20, WakeupBytes: 64 << 10, PollInterval: time.Minute}
		producer := ringtest.NewProducer(t, config)
		reader := openReader(t, producer, config)

		start := time.Now()
		soon(t, func() error { return producer.Produce(0, 2*config.WakeupBytes/ringtest.EventBytes) })
		drained, err := reader.Drain(func([]byte) {})
		if err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(start); drained == 0 || waited > delay+slack {
			t.Errorf("drained %d after %v, want to be woken by %d bytes", drained, waited, config.WakeupBytes)
		}
	})
}

// Every event is either received or counted as lost, although the ring is far too small.
func TestFloodOfATinyRingIsCountedExactly(t *testing.T) {
	bothKinds(t, func(t *testing.T, kind ring.Kind) {
		config := ring.Config{Kind: kind, Bytes: os.Getpagesize(), PollInterval: time.Millisecond}
		producer := ringtest.NewProducer(t, config)
		reader := openReader(t, producer, config)

		const events = 500_000
		done := make(chan struct{})
		go func() {
			defer close(done)
			if err := producer.Produce(0, events); err != nil {
				t.Error(err)
			}
		}()

		arrived := newNumbers(t)
		drainUntil(t, reader, done, arrived.note)
		received, lost := uint64(len(arrived.seen)), producer.Lost(t)+reader.Lost()
		if received == 0 || lost == 0 {
			t.Errorf("received %d and lost %d: the test has to see both", received, lost)
		}
		if received+lost != producer.Produced(t) || producer.Produced(t) != events || arrived.torn != 0 {
			t.Errorf("received %d + lost %d, %d torn, want %d", received, lost, arrived.torn, producer.Produced(t))
		}
	})
}

// Programs on all CPUs share the ring: nothing is torn, doubled or miscounted.
func TestAllCPUsAtOnceAreCountedExactly(t *testing.T) {
	bothKinds(t, func(t *testing.T, kind ring.Kind) {
		config := ring.Config{Kind: kind, Bytes: 128 << 10, PollInterval: time.Millisecond}
		producer := ringtest.NewProducer(t, config)
		reader := openReader(t, producer, config)

		const eventsEach = 200_000
		var producers sync.WaitGroup
		for cpu := range runtime.NumCPU() {
			producers.Go(func() {
				if err := producer.Produce(uint32(cpu), eventsEach); err != nil {
					t.Error(err)
				}
			})
		}
		done := make(chan struct{})
		go func() {
			producers.Wait()
			close(done)
		}()

		seen, torn := make(map[uint64]bool), 0
		note := func(sample []byte) {
			sequence, whole := ringtest.Sequence(sample)
			if !whole || seen[sequence] {
				torn++
			}
			seen[sequence] = true
		}
		drainUntil(t, reader, done, note)
		received, lost, want := uint64(len(seen)), producer.Lost(t)+reader.Lost(), uint64(runtime.NumCPU()*eventsEach)
		if received+lost != want || torn != 0 {
			t.Errorf("received %d + lost %d, %d torn or doubled, want %d", received, lost, torn, want)
		}
	})
}

// drainUntil drains until done is closed and then until nothing is left.
func drainUntil(t *testing.T, reader *ring.Reader, done <-chan struct{}, handle func([]byte)) {
	t.Helper()
	for running := true; ; {
		select {
		case <-done:
			running = false
		default:
		}
		drained, err := reader.Drain(handle)
		if err != nil {
			t.Fatal(err)
		}
		if !running && drained == 0 {
			return
		}
	}
}

func TestWakeEndsTheWait(t *testing.T) {
	bothKinds(t, func(t *testing.T, kind ring.Kind) {
		config := ring.Config{Kind: kind, PollInterval: time.Minute}
		producer := ringtest.NewProducer(t, config)
		reader := openReader(t, producer, config)
		if err := producer.Produce(0, 10); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		soon(t, reader.Wake)
		drained, err := reader.Drain(func([]byte) {})
		if waited := time.Since(start); err != nil || drained != 10 || waited > delay+slack {
			t.Errorf("drained %d after %v (%v), want 10 as soon as woken", drained, waited, err)
		}
		if err := reader.Close(); err != nil {
			t.Fatal(err)
		}
		if err := reader.Wake(); !errors.Is(err, ring.ErrClosed) {
			t.Errorf("Wake of a closed reader: %v, want ErrClosed", err)
		}
	})
}

func TestDrainReturnsUnderAFlood(t *testing.T) {
	bothKinds(t, func(t *testing.T, kind ring.Kind) {
		config := ring.Config{Kind: kind, Bytes: 256 << 10, PollInterval: 10 * time.Millisecond}
		producer := ringtest.NewProducer(t, config)
		reader := openReader(t, producer, config)

		stop := make(chan struct{})
		var flood sync.WaitGroup
		flood.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := producer.Produce(0, ringtest.EventsPerRun); err != nil {
					t.Error(err)
					return
				}
			}
		})
		defer flood.Wait()
		defer close(stop)

		_, capacity := reader.Usage()
		for range 20 {
			bytes := 0
			if _, err := reader.Drain(func(sample []byte) { bytes += len(sample) }); err != nil {
				t.Fatal(err)
			}
			if uint64(bytes) > capacity+ringtest.EventBytes {
				t.Fatalf("one Drain handed out %d bytes of a ring of %d", bytes, capacity)
			}
		}
	})
}

func TestCloseEndsDrain(t *testing.T) {
	bothKinds(t, func(t *testing.T, kind ring.Kind) {
		config := ring.Config{Kind: kind, PollInterval: time.Minute}
		producer := ringtest.NewProducer(t, config)
		reader := openReader(t, producer, config)

		ended := make(chan error, 1)
		go func() {
			_, err := reader.Drain(func([]byte) {})
			ended <- err
		}()
		time.Sleep(50 * time.Millisecond)
		if err := reader.Close(); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			if !errors.Is(err, ring.ErrClosed) {
				t.Errorf("Drain ended with %v, want ErrClosed", err)
			}
		case <-time.After(slack):
			t.Fatal("Drain goes on after Close")
		}
		if _, err := reader.Drain(func([]byte) {}); !errors.Is(err, ring.ErrClosed) {
			t.Errorf("Drain of a closed reader: %v, want ErrClosed", err)
		}
		if used, capacity := reader.Usage(); used != 0 || capacity != 0 {
			t.Errorf("a closed reader uses %d of %d bytes", used, capacity)
		}
		if err := reader.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
		// What is sent now has nobody to read it, and must not go unnoticed where the kernel refuses it.
		if err := producer.Produce(0, 10); err != nil {
			t.Fatal(err)
		}
		if lost := producer.Lost(t); kind == ring.PerfBuffer && lost != 10 {
			t.Errorf("lost %d events after Close, want 10", lost)
		}
	})
}

func TestUsage(t *testing.T) {
	config := ring.Config{Kind: ring.RingBuffer, Bytes: 100_000}
	producer := ringtest.NewProducer(t, config)
	reader := openReader(t, producer, config)
	if err := producer.Produce(0, 10); err != nil {
		t.Fatal(err)
	}
	const header = 8
	if used, capacity := reader.Usage(); used != 10*(ringtest.EventBytes+header) || capacity != 128<<10 {
		t.Errorf("usage is %d of %d", used, capacity)
	}
}

func TestPerfBufferIsSharedAmongCPUs(t *testing.T) {
	config := ring.Config{Kind: ring.PerfBuffer, Bytes: 1 << 20}
	producer := ringtest.NewProducer(t, config)
	reader := openReader(t, producer, config)
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		t.Fatal(err)
	}
	if _, capacity := reader.Usage(); capacity < 1<<20 || capacity > uint64(2<<20+cpus*os.Getpagesize()) {
		t.Errorf("%d CPUs share %d bytes, want about 1 MiB", cpus, capacity)
	}
}

func TestDrainDoesNotAllocate(t *testing.T) {
	bothKinds(t, func(t *testing.T, kind ring.Kind) {
		config := ring.Config{Kind: kind, PollInterval: time.Millisecond}
		producer := ringtest.NewProducer(t, config)
		reader := openReader(t, producer, config)

		const events = 1000
		handled := 0
		handle := func([]byte) { handled++ }
		round := func() {
			if err := producer.Produce(0, events); err != nil {
				t.Fatal(err)
			}
			if _, err := reader.Drain(handle); err != nil {
				t.Fatal(err)
			}
		}
		produceOnly := testing.AllocsPerRun(20, func() { _ = producer.Produce(0, 0) })
		round() // the record's buffer grows once
		// Starting the program allocates too, a run at a time; an event must not.
		if allocations := testing.AllocsPerRun(20, round); allocations-produceOnly > events/100 {
			t.Errorf("%v allocations for %d events", allocations, events)
		}
		if handled == 0 {
			t.Error("no event arrived")
		}
	})
}

func TestNewReaderRefusesOtherMaps(t *testing.T) {
	if _, err := ring.NewReader(nil, ring.Config{}); err == nil {
		t.Error("a missing map was accepted")
	}
	kerneltest.RequireRoot(t)
	array, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer array.Close()
	if _, err := ring.NewReader(array, ring.Config{}); err == nil {
		t.Error("an array was accepted")
	}
}
