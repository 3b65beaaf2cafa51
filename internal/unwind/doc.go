// Package unwind makes tables out of executable files by which a program in the kernel walks the stack of a process that
// keeps no frame pointers.
//
// The source is the call frame information of .eh_frame (Linux Standard Base, "Exception Frames") and .debug_frame (DWARF 5,
// section 6.4), for amd64 and arm64. It says, for each instruction, where the frame of the function begins (the canonical
// frame address, CFA: the stack pointer's value in the caller) and where what the caller's registers had is saved. Only the
// registers that a walk needs are followed: stack pointer, frame pointer, return address.
//
// # Rows
//
// A [Table] is an array of 8-byte rows, sorted by address without duplicates, to be copied as it is (little-endian) into an
// array map of exactly so many entries:
//
//	struct row {
//		u32 address;     // first byte that the row is for, counted from the table's base
//		s16 offset;      // in words of 8 bytes; what from, says the rule
//		u8 rule;         // bits 0-4 where the CFA is, bits 5-6 where the return address is, bit 7 other register
//		s8 frame_pointer // where the caller's frame pointer is, in words from the CFA; -128 still in its register
//	};
//
// A row holds until the next one. The one for an address is found by bisection: the last whose address is not greater. For
// all frames but the innermost, and but the one that a signal interrupted, the address to look up is the return address
// less one, so that a call at the very end of a function is taken for that function's. In front of the first row, and where
// a row says [RuleNone], nothing is known.
//
// A step to the caller: find the CFA by the rule, from the stack pointer and the frame pointer of this frame; read the
// return address and, unless it is kept, the frame pointer; the CFA is the caller's stack pointer. [RuleSignal] has all
// three in the frame of the signal, and the next address is then that of an instruction, not of a return. [RuleEnd] is the
// end of a whole stack; every other stop means that the rest of the stack is not known.
//
// An address of a process becomes one to look up by subtracting the bias of its mapping (see [File.Bias]) and the base.
//
// # Other ways
//
// Code of Go keeps frame pointers and has no call frame information: its addresses have [RuleGo]. Where there is no file to
// read, a [Mapping]'s kind says what is known.
package unwind
