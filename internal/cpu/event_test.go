//go:build linux

package cpu

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

// stackBytes is a stack as the kernel side sends it.
func stackBytes(change func(*bpfStackEvent), addresses ...uint64) []byte {
	event := &bpfStackEvent{Stack: 0x1234, KernelFrames: 1, UserFrames: uint16(len(addresses) - 1)}
	event.Process.Pid, event.Process.StartBootNs, event.Process.Kind = 42, 4242, uint8(bpfCpuEventKindCPU_STACK)
	copy(event.Process.Comm[:], []int8{'n', 'a', 'm', 'e'})
	copy(event.Addresses[:], addresses)
	if change != nil {
		change(event)
	}
	return aligned(unsafe.Slice((*byte)(unsafe.Pointer(event)), stackHeaderSize+len(addresses)*addressSize))
}

// aligned copies a sample to where the ring would have it.
func aligned(sample []byte) []byte {
	words := make([]uint64, (len(sample)+addressSize-1)/addressSize+1)
	memory := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), len(sample))
	copy(memory, sample)
	return memory
}

func TestDecodeStack(t *testing.T) {
	sample := stackBytes(func(event *bpfStackEvent) { event.End = uint8(bpfWalkEndWALK_TRUNCATED) }, 1, 2, 3)
	event, err := decodeEvent(sample)
	require.NoError(t, err)
	assert.Equal(t, workload.Key{PID: 42, StartBootNs: 4242}, event.key())
	assert.Equal(t, workload.Hint{Comm: "name"}, event.hint())
	stack, err := decodeStack(sample)
	require.NoError(t, err)
	assert.Equal(t, stackEvent{hash: 0x1234, end: bpfWalkEndWALK_TRUNCATED, kernel: []uint64{1}, user: []uint64{2, 3}}, stack)
}

func TestDecodeWhatIsNoStack(t *testing.T) {
	tests := map[string]struct {
		sample []byte
		says   string
	}{
		"nothing":              {nil, "has 0 bytes"},
		"shorter than a stack": {stackBytes(nil, 1)[:stackHeaderSize-1], "a stack at least"},
		"fewer addresses than it says": {
			stackBytes(func(event *bpfStackEvent) { event.UserFrames = 3 }, 1, 2, 3), "has room for 3",
		},
		"more frames than there can be": {
			stackBytes(func(event *bpfStackEvent) { event.KernelFrames, event.UserFrames = 0xffff, 0xffff }, 1), "has room for 1",
		},
		"an end that there is not": {
			stackBytes(func(event *bpfStackEvent) { event.End = uint8(bpfWalkEndWALK_ENDS) }, 1), "which is nothing",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := decodeStack(test.sample)
			assert.ErrorContains(t, err, test.says)
		})
	}
	_, err := decodeEvent(make([]byte, eventSize-1))
	require.ErrorContains(t, err, "an event has")
	_, err = decodeEvent(aligned(make([]byte, eventSize+addressSize))[1:])
	require.ErrorContains(t, err, "not aligned")
	_, err = decodeSample(aligned(make([]byte, eventSize)))
	require.ErrorContains(t, err, "a sample has")
}

func FuzzDecode(f *testing.F) {
	f.Add(stackBytes(nil, 1, 2, 3))
	f.Add(stackBytes(func(event *bpfStackEvent) { event.UserFrames = 0xffff }, 1))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, sample []byte) {
		sample = aligned(sample)
		event, err := decodeEvent(sample)
		if err != nil {
			return
		}
		_, _ = event.key(), event.hint()
		if taken, err := decodeSample(sample); err == nil {
			_ = text(&taken.Key.Comm)
		}
		stack, err := decodeStack(sample)
		if err != nil {
			return
		}
		if frames := len(stack.kernel) + len(stack.user); stackHeaderSize+frames*addressSize > len(sample) {
			t.Errorf("%d frames in %d bytes", frames, len(sample))
		}
		sum := uint64(0)
		for _, address := range append(stack.kernel, stack.user...) {
			sum += address // all of them can be read
		}
		_ = sum
		if int(stack.end) >= len(endReasons) {
			t.Errorf("an end without a name: %d", stack.end)
		}
	})
}

func TestEveryEndAndCountHasAName(t *testing.T) {
	seen := map[string]bool{}
	for end, reason := range endReasons {
		assert.Equal(t, end == int(bpfWalkEndWALK_COMPLETE), reason == "", "end %d", end)
		assert.False(t, seen[reason], reason)
		seen[reason] = true
	}
	clear(seen)
	for count, name := range countNames {
		assert.NotEmpty(t, name, "count %d", count)
		assert.False(t, seen[name], name)
		seen[name] = true
	}
	for reason, name := range lossReasons {
		used := reason == int(bpfLossReasonLOSS_RING_FULL) || reason == int(bpfLossReasonLOSS_STORAGE_FULL)
		assert.Equal(t, used, name != "", "reason %d", reason)
	}
}
