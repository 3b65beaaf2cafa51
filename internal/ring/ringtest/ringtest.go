//go:build linux && (amd64 || arm64)

// Package ringtest sends numbered events through bpf/include/ring.h on demand, for tests and benchmarks of rings.
package ringtest

import (
	"encoding/binary"
	"testing"

	"github.com/cilium/ebpf"
	"go.uber.org/zap/zaptest"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel/kerneltest"
	"github.com/ebpfreceiver/ebpfreceiver/internal/ring"
)

const (
	// EventBytes is the size of an event.
	EventBytes = 64
	// EventsPerRun is how many events one run of the program sends at most: it holds its CPU for some milliseconds.
	EventsPerRun = 1 << 15
)

// Producer is a loaded BPF program that sends events when told to.
type Producer struct {
	Events *ebpf.Map

	losses   *ebpf.Map
	program  *ebpf.Program
	produced *ebpf.Variable
}

// NewProducer loads the program with its ring configured. The test is skipped without root, and where the kernel has no
// bpf_loop, or no ring buffer if config.Kind asks for one.
func NewProducer(t testing.TB, config ring.Config) *Producer {
	t.Helper()
	kerneltest.RequireRoot(t)
	kerneltest.RequireFeature(t, kernel.HaveLoopHelper())
	if config.Kind == ring.RingBuffer {
		kerneltest.RequireFeature(t, kernel.HaveRingBuffer())
	}
	opened, err := kernel.Open(kernel.Options{}, zaptest.NewLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := opened.Close(); err != nil {
			t.Error(err)
		}
	}()
	spec, err := loadBpf()
	if err != nil {
		t.Fatal(err)
	}
	if err := ring.Configure(spec, config); err != nil {
		t.Fatal(err)
	}
	collection, err := opened.Load(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(collection.Close)
	return &Producer{
		Events:   collection.Maps["events"],
		losses:   collection.Maps["losses"],
		program:  collection.Programs["produce"],
		produced: collection.Variables["produced"],
	}
}

// Produce tries to send so many events from one CPU. It may be called from several goroutines at once.
func (p *Producer) Produce(cpu uint32, events int) error {
	var arguments [8]byte
	for events > 0 {
		run := min(events, EventsPerRun)
		binary.NativeEndian.PutUint64(arguments[:], uint64(run))
		if _, err := p.program.Run(&ebpf.RunOptions{
			Context: arguments[:],
			CPU:     cpu,
			Flags:   1, // BPF_F_TEST_RUN_ON_CPU
		}); err != nil {
			return err
		}
		events -= run
	}
	return nil
}

// Produced returns how many events have been tried.
func (p *Producer) Produced(t testing.TB) uint64 {
	t.Helper()
	var produced uint64
	if err := p.produced.Get(&produced); err != nil {
		t.Fatal(err)
	}
	return produced
}

// Lost returns how many events found no room, as ring.h counted them.
func (p *Producer) Lost(t testing.TB) uint64 {
	t.Helper()
	reasons := make([]string, bpfLossReasonLOSS_REASONS)
	reasons[bpfLossReasonLOSS_RING_FULL] = "ring_full"
	losses, err := kernel.ReadLosses("ringtest", p.losses, reasons)
	if err != nil {
		t.Fatal(err)
	}
	return losses[0].Count
}

// Sequence returns an event's number, and whether the event is whole.
func Sequence(sample []byte) (uint64, bool) {
	if len(sample) < EventBytes {
		return 0, false
	}
	sequence := binary.NativeEndian.Uint64(sample)
	return sequence, binary.NativeEndian.Uint64(sample[8:]) == ^sequence
}
