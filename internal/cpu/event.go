//go:build linux

package cpu

import (
	"fmt"
	"unsafe"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

const (
	eventSize       = int(unsafe.Sizeof(bpfCpuEvent{}))
	stackHeaderSize = int(unsafe.Sizeof(stackHeader{}))
	addressSize     = int(unsafe.Sizeof(uint64(0)))
)

// decodeEvent gives a view of what every sample of the ring begins with, valid as long as the sample is.
func decodeEvent(sample []byte) (*bpfCpuEvent, error) {
	if len(sample) < eventSize {
		return nil, fmt.Errorf("decode an event: the sample has %d bytes, an event has %d", len(sample), eventSize)
	}
	if uintptr(unsafe.Pointer(&sample[0]))%unsafe.Alignof(bpfStackEvent{}) != 0 {
		return nil, fmt.Errorf("decode an event: the sample is not aligned to %d bytes", unsafe.Alignof(bpfStackEvent{}))
	}
	return (*bpfCpuEvent)(unsafe.Pointer(&sample[0])), nil
}

// stackHeader is what a bpfStackEvent begins with: a sample ends with its last address, so it has no whole one.
type stackHeader struct {
	Process                  bpfCpuEvent
	Stack                    uint64
	KernelFrames, UserFrames uint16
	End                      uint8
	_                        [3]uint8
}

// The two have the same layout.
var (
	_ [unsafe.Offsetof(bpfStackEvent{}.Addresses)]byte    = [stackHeaderSize]byte{}
	_ [unsafe.Offsetof(bpfStackEvent{}.Stack)]byte        = [unsafe.Offsetof(stackHeader{}.Stack)]byte{}
	_ [unsafe.Offsetof(bpfStackEvent{}.KernelFrames)]byte = [unsafe.Offsetof(stackHeader{}.KernelFrames)]byte{}
	_ [unsafe.Offsetof(bpfStackEvent{}.UserFrames)]byte   = [unsafe.Offsetof(stackHeader{}.UserFrames)]byte{}
	_ [unsafe.Offsetof(bpfStackEvent{}.End)]byte          = [unsafe.Offsetof(stackHeader{}.End)]byte{}
)

// stackEvent is what the kernel side says of a stack.
type stackEvent struct {
	hash uint64
	end  bpfWalkEnd
	// Innermost first. Addresses of calls are within the call, not where it returns to, but for those of the kernel.
	kernel, user []uint64
}

// decodeStack gives a view of the sample that decodeEvent has looked at.
func decodeStack(sample []byte) (stackEvent, error) {
	if len(sample) < stackHeaderSize {
		return stackEvent{}, fmt.Errorf("decode a stack: the sample has %d bytes, a stack at least %d", len(sample), stackHeaderSize)
	}
	header := (*stackHeader)(unsafe.Pointer(&sample[0]))
	frames := int(header.KernelFrames) + int(header.UserFrames)
	if room := (len(sample) - stackHeaderSize) / addressSize; frames > room {
		return stackEvent{}, fmt.Errorf("decode a stack of %d frames: the sample has room for %d", frames, room)
	}
	if header.End >= uint8(bpfWalkEndWALK_ENDS) {
		return stackEvent{}, fmt.Errorf("decode a stack: its walk ended with %d, which is nothing", header.End)
	}
	var addresses []uint64
	if frames > 0 {
		addresses = unsafe.Slice((*uint64)(unsafe.Pointer(&sample[stackHeaderSize])), frames)
	}
	return stackEvent{
		hash: header.Stack, end: bpfWalkEnd(header.End),
		kernel: addresses[:header.KernelFrames:header.KernelFrames], user: addresses[header.KernelFrames:],
	}, nil
}

// decodeSample gives a view of a sample of its own, which decodeEvent has looked at.
func decodeSample(data []byte) (*bpfSampleEvent, error) {
	if size := int(unsafe.Sizeof(bpfSampleEvent{})); len(data) < size {
		return nil, fmt.Errorf("decode a sample: there are %d bytes, a sample has %d", len(data), size)
	}
	return (*bpfSampleEvent)(unsafe.Pointer(&data[0])), nil
}

func (e *bpfCpuEvent) key() workload.Key {
	return workload.Key{PID: e.Pid, StartBootNs: e.StartBootNs}
}

func (e *bpfCpuEvent) hint() workload.Hint {
	return workload.Hint{Comm: text(&e.Comm), CgroupID: e.CgroupId, KernelThread: e.KernelThread != 0}
}

// text reads a NUL-terminated string of the kernel.
func text(comm *[16]int8) string {
	return kernel.Text((*[16]uint8)(unsafe.Pointer(comm))[:])
}
