//go:build linux

package unwind

import "debug/elf"

// architecture is what differs between the machines.
type architecture struct {
	machine elf.Machine
	// DWARF numbers of registers: System V ABI for AMD64, figure 3.36; DWARF for the Arm 64-bit Architecture, 4.1.
	stackPointer, framePointer, returnAddress uint64
	// linkRegister: a call leaves the return address in a register rather than on the stack.
	linkRegister bool
}

// architectureOf returns nil for a machine that is not known.
func architectureOf(machine elf.Machine) *architecture {
	switch machine {
	case elf.EM_X86_64:
		return &architecture{machine: machine, framePointer: 6, stackPointer: 7, returnAddress: 16}
	case elf.EM_AARCH64:
		return &architecture{machine: machine, framePointer: 29, stackPointer: 31, returnAddress: 30, linkRegister: true}
	}
	return nil
}
