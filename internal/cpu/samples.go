//go:build linux

package cpu

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
)

// settleDelay is how long after the era has changed a program may still count in the other one. Programs that take samples
// cannot be interrupted by the scheduler, and end within microseconds.
const settleDelay = 2 * time.Millisecond

const batchSize = 4096

// samples are the counts of the kernel side: two maps, of which one is in use.
type samples struct {
	era       *ebpf.Variable
	now       uint32
	maps      [2]*ebpf.Map // by the last bit of the era
	keys      []bpfSampleKey
	values    []bpfSampleValue
	collected uint64 // entries at the last time
}

func newSamples(collection *ebpf.Collection) *samples {
	return &samples{
		era:  collection.Variables["era"],
		maps: [2]*ebpf.Map{collection.Maps["even_samples"], collection.Maps["odd_samples"]},
		keys: make([]bpfSampleKey, batchSize), values: make([]bpfSampleValue, batchSize),
	}
}

// change lets the kernel side count anew. What it has counted is complete after settleDelay.
func (s *samples) change() error {
	if err := s.era.Set(s.now + 1); err != nil {
		return fmt.Errorf("change the era of the CPU probe: %w", err)
	}
	s.now++
	return nil
}

// collect empties the map of the era before.
func (s *samples) collect(each func(key *bpfSampleKey, value *bpfSampleValue)) error {
	counted := s.maps[(s.now+1)%2]
	s.collected = 0
	var cursor ebpf.MapBatchCursor
	for {
		count, err := counted.BatchLookupAndDelete(&cursor, s.keys, s.values, nil)
		for i := range count {
			each(&s.keys[i], &s.values[i])
		}
		s.collected += uint64(count)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("collect the samples of the CPU probe: %w", err)
		}
	}
}
