//go:build linux

package unwind

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
)

// isPythonTrampoline tells whether code that was made at run time begins with what CPython 3.12 and later copy there for
// each Python function, for perf to see them (-X perf; Python/asm_trampoline.S): on amd64 it keeps no frame pointer. That on
// arm64 does.
func isPythonTrampoline(code []byte) bool {
	endbr64 := []byte{0xf3, 0x0f, 0x1e, 0xfa}
	trampoline := []byte{
		0x48, 0x83, 0xec, 0x08, // sub $8, %rsp
		0xff, 0xd1, // call *%rcx
		0x48, 0x83, 0xc4, 0x08, // add $8, %rsp
		0xc3, // ret
	}
	return bytes.HasPrefix(bytes.TrimPrefix(code, endbr64), trampoline)
}

// trampolineBytes is how much of a mapping tells.
const trampolineBytes = 16

// pythonTrampolines is the table of a mapping of trampolines, whose bias is its start. The one row is right for every return
// address. It is a word off before the first and behind the second instruction of a trampoline that was interrupted there.
func pythonTrampolines() *File {
	return &File{
		Machine:  elf.EM_X86_64,
		Segments: []Segment{{FileBytes: 1 << 32, MemoryBytes: 1 << 32}},
		Table:    &Table{Rows: []Row{{Rule: RuleStack, Offset: 2, FramePointer: FramePointerKept}}},
	}
}

// signalReturns finds the code that a signal handler returns to in the vDSO of arm64, which has no call frame information
// since Linux 5.8 (arch/arm64/kernel/vdso/sigreturn.S): mov x8, #__NR_rt_sigreturn; svc #0. The byte in front of it belongs
// to it: the return address of the handler is its first.
func (i *image) signalReturns() []filler {
	const instructionBytes = 4
	code := []byte{0x68, 0x11, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4}
	if !i.machine.linkRegister {
		return nil
	}
	var found []filler
	for _, segment := range i.found.Segments {
		data := make([]byte, min(segment.FileBytes, maxImageBytes))
		data = data[:i.bytesAt(segment.Address, data)]
		for at := 0; at+len(code) <= len(data) && len(found) < maxSignalReturns; at += instructionBytes {
			if at > 0 && binary.LittleEndian.Uint64(data[at:]) == binary.LittleEndian.Uint64(code) {
				start := uint32(segment.Address-i.base) + uint32(at)
				found = append(found, filler{
					start: start - 1, end: start + uint32(len(code)), row: Row{Rule: RuleSignal, FramePointer: FramePointerKept},
				})
			}
		}
	}
	return found
}
