//go:build linux

package unwind

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

// Row says how to get from a frame to its caller's, from an address on until the next row's. Package documentation has its
// layout in memory.
type Row struct {
	Address      uint32 // counted from Table.Base
	Offset       int16  // in words
	Rule         Rule
	FramePointer int8 // in words from the CFA, or one of the values below
}

const (
	wordBytes = 8
	// RowBytes is what a row takes in the kernel.
	RowBytes = 8
)

// Values of Row.FramePointer that are no distance from the CFA.
const (
	// FramePointerKept says that the register still has the caller's value.
	FramePointerKept int8 = math.MinInt8
	// FramePointerAtItself says that the caller's value is where the register points to. Functions that align the stack have
	// this together with RuleFrameDeref.
	FramePointerAtItself int8 = math.MinInt8 + 1
)

// Rule says where a frame's CFA and return address are. It is a value below, together with one of ReturnBelow to
// ReturnAlone.
type Rule uint8

// Where the CFA is. Offset is 0 where it is not mentioned.
const (
	// RuleNone has no information: there is no function here that was described.
	RuleNone Rule = iota
	// RuleEnd is the outermost frame: its return address is said to be undefined, as in _start and clone.
	RuleEnd
	// RuleUnsupported was described, in a way that a row cannot express.
	RuleUnsupported
	// RuleSignal is the function that a signal handler returns to: registers are in the frame that the kernel made at the
	// stack pointer (struct rt_sigframe without pretcode on amd64; with siginfo on arm64).
	RuleSignal
	// RulePLT is an entry of the lazy procedure linkage table of amd64, 16 bytes each: CFA = stack pointer + 8, and one word
	// more if the address's last four bits are Offset or greater.
	RulePLT
	// RuleGo is code of Go, where every function with a frame has a frame pointer. Stacks change in the middle (g0), so that
	// nothing can be said about where the next frame has to be.
	RuleGo
	// RuleStack: CFA = stack pointer + Offset.
	RuleStack
	// RuleFrame: CFA = frame pointer + Offset.
	RuleFrame
	// RuleStackDeref: CFA = the word at (stack pointer + Offset).
	RuleStackDeref
	// RuleStackDerefWord: CFA = the word at (stack pointer + Offset) + 8: the stack pointer was saved after the call.
	RuleStackDerefWord
	// RuleFrameDeref: CFA = the word at (frame pointer + Offset).
	RuleFrameDeref
	// RuleFrameDerefWord: CFA = the word at (frame pointer + Offset) + 8.
	RuleFrameDerefWord

	// ruleMask are the bits that the values above take, or the number of another register.
	ruleMask Rule = 1<<5 - 1
)

// The other part of a Rule says where the return address is. On arm64 it may be signed: the bits above an address
// (PAC, from the highest that TTBR0 translates) have to be masked, whatever a row says.
const (
	// ReturnBelow: in the word below the CFA. This is so on amd64.
	ReturnBelow Rule = iota << 5
	// ReturnLink: in the link register. No frame but the innermost, or one that a signal interrupted, can have this.
	ReturnLink
	// ReturnBeside: in the word above the one that has the caller's frame pointer.
	ReturnBeside
	// ReturnAlone: FramePointer is the place of the return address, and the frame pointer is still in its register.
	ReturnAlone

	returnMask Rule = 3 << 5
)

// RuleRegister is a part of Rule: CFA = register + Offset, with the register whose DWARF number is in the five lowest bits.
// Only registers of the innermost frame, and of one that a signal interrupted, are known.
const RuleRegister Rule = 1 << 7

// CFA is where the CFA is; RuleRegister if it is in another register.
func (r Rule) CFA() Rule {
	if r&RuleRegister != 0 {
		return RuleRegister
	}
	return r & ruleMask
}

// Return is where the return address is.
func (r Rule) Return() Rule { return r & returnMask }

// Register is the DWARF number of the register that RuleRegister means.
func (r Rule) Register() uint8 { return uint8(r & ruleMask) }

// String is for people and tests.
func (r Rule) String() string {
	names := [...]string{
		"none", "end", "unsupported", "signal", "plt", "go", "stack", "frame", "*stack", "*stack+8", "*frame", "*frame+8",
	}
	text := fmt.Sprintf("rule %d", r&ruleMask)
	switch {
	case r&RuleRegister != 0:
		text = fmt.Sprintf("r%d", r.Register())
	case int(r&ruleMask) < len(names):
		text = names[r&ruleMask]
	}
	return text + [...]string{"", " link", " beside", " alone"}[r.Return()>>5]
}

// Table are the rows of a file. It does not change once it is made.
type Table struct {
	// Base is the address in the file's own address space (p_vaddr) that rows count from.
	Base uint64
	Rows []Row
}

// Lookup finds the row for an address in the file's own address space, as the program in the kernel does.
func (t *Table) Lookup(address uint64) Row {
	if address < t.Base || address-t.Base > math.MaxUint32 {
		return Row{FramePointer: FramePointerKept}
	}
	wanted := uint32(address - t.Base)
	index, found := slices.BinarySearchFunc(t.Rows, wanted, func(row Row, address uint32) int {
		switch {
		case row.Address < address:
			return -1
		case row.Address > address:
			return 1
		}
		return 0
	})
	if !found {
		index--
	}
	if index < 0 {
		return Row{FramePointer: FramePointerKept}
	}
	return t.Rows[index]
}

// Bytes is how much memory the rows take, here and in the kernel.
func (t *Table) Bytes() int64 { return int64(len(t.Rows)) * RowBytes }

// Append appends the rows as they are to be in the kernel.
func (t *Table) Append(data []byte) []byte {
	data = slices.Grow(data, len(t.Rows)*RowBytes)
	for _, row := range t.Rows {
		data = binary.LittleEndian.AppendUint32(data, row.Address)
		data = binary.LittleEndian.AppendUint16(data, uint16(row.Offset))
		data = append(data, byte(row.Rule), byte(row.FramePointer))
	}
	return data
}
