package site

import (
	"slices"

	"golang.org/x/arch/x86/x86asm"
)

const (
	maxInstructions  = 4000 // of one function with what it jumps to; crypto/tls.(*Conn).Read has 260
	maxFunctionBytes = 64 << 10
	maxPieces        = 16 // that a compiler may have split a function into
	longestCode      = 15 // bytes of an instruction of amd64
)

// instruction is one of a function, with what may run after it.
type instruction struct {
	x86asm.Inst
	address uint64
	known   bool // it could be decoded; else nothing may be concluded from what comes before
	next    int  // the instruction that follows; none where control never gets there or the function ends
	target  int  // of a direct jump
	leaves  bool // it jumps out of what could be read
}

const none = -1

// code is the machine code of a function, as far as it can be reached from its begin without calls.
type code struct {
	instructions []instruction // the first is the function's
	index        map[uint64]int
	before       [][]int // the instructions that each may run after
	framePointer bool    // rbp points into the function's own stack
}

// disassemble follows a function from its begin. Where it jumps out of its own range (to a part that the compiler has
// moved away, or to another function at its end), it is followed too.
func (i *image) disassemble(entry function) *code {
	c := &code{index: map[uint64]int{}}
	var pieces []piece
	known := func(address uint64) *piece {
		for index := range pieces {
			if address >= pieces[index].start && address < pieces[index].end {
				return &pieces[index]
			}
		}
		if len(pieces) == maxPieces {
			return nil
		}
		end := address
		switch _, limit, found := i.bounds(address); {
		case address == entry.address && entry.size > 0:
			end += min(entry.size, maxFunctionBytes)
		case found:
			end = min(limit, address+maxFunctionBytes)
		default:
			return nil
		}
		bytes := make([]byte, end-address)
		bytes = bytes[:i.read(bytes, address)]
		if _, executable := i.offset(address); !executable || len(bytes) == 0 {
			return nil
		}
		pieces = append(pieces, piece{start: address, end: address + uint64(len(bytes)), bytes: bytes})
		return &pieces[len(pieces)-1]
	}

	todo := []uint64{entry.address}
	for len(todo) > 0 && len(c.instructions) < maxInstructions {
		address := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		within := known(address)
		for within != nil && len(c.instructions) < maxInstructions {
			if _, seen := c.index[address]; seen || address >= within.end {
				break
			}
			decoded := decode(within.bytes[address-within.start:], address)
			c.index[address] = len(c.instructions)
			c.instructions = append(c.instructions, decoded)
			if target, ok := decoded.jump(); ok {
				todo = append(todo, target)
			}
			if decoded.final() {
				break
			}
			address += uint64(decoded.Len)
		}
	}
	c.connect(pieces)
	return c
}

type piece struct {
	start, end uint64
	bytes      []byte
}

// connect finds what may run after what.
func (c *code) connect(pieces []piece) {
	c.before = make([][]int, len(c.instructions))
	for index := range c.instructions {
		current := &c.instructions[index]
		current.next, current.target = none, none
		if to, from, bits, ok := current.copied(); ok && to == RBP && from == RSP && bits == 64 {
			c.framePointer = true
		}
		if !current.final() {
			following := current.address + uint64(current.Len)
			if next, found := c.index[following]; found {
				current.next = next
				c.before[next] = append(c.before[next], index)
			} else {
				// A call at the end of a function does not return. What was not read may do anything.
				current.leaves = slices.ContainsFunc(pieces, func(p piece) bool { return following > p.start && following < p.end })
			}
		}
		if address, ok := current.jump(); ok {
			if target, found := c.index[address]; found {
				current.target = target
				c.before[target] = append(c.before[target], index)
			} else {
				current.leaves = true
			}
		}
	}
}

// endbr64 marks the places where indirect jumps may lead; x86asm does not know it.
var endbr64 = [4]byte{0xf3, 0x0f, 0x1e, 0xfa}

func decode(bytes []byte, address uint64) instruction {
	if len(bytes) >= len(endbr64) && [4]byte(bytes) == endbr64 {
		return instruction{Inst: x86asm.Inst{Op: x86asm.NOP, Len: len(endbr64)}, address: address, known: true}
	}
	decoded, err := x86asm.Decode(bytes[:min(len(bytes), longestCode)], 64)
	if err != nil || decoded.Len <= 0 {
		return instruction{address: address, Inst: x86asm.Inst{Len: 1}}
	}
	return instruction{Inst: decoded, address: address, known: true}
}

// conditional tells whether it is a jump that depends on the flags.
func (i *instruction) conditional() bool {
	switch i.Op {
	case x86asm.JA, x86asm.JAE, x86asm.JB, x86asm.JBE, x86asm.JE, x86asm.JG, x86asm.JGE, x86asm.JL, x86asm.JLE, x86asm.JNE,
		x86asm.JNO, x86asm.JNP, x86asm.JNS, x86asm.JO, x86asm.JP, x86asm.JS:
		return true
	}
	return false
}

// jump is where a direct jump leads.
func (i *instruction) jump() (uint64, bool) {
	if !i.known || i.Op != x86asm.JMP && !i.conditional() && i.Op != x86asm.JRCXZ && i.Op != x86asm.JECXZ &&
		i.Op != x86asm.LOOP && i.Op != x86asm.LOOPE && i.Op != x86asm.LOOPNE {
		return 0, false
	}
	return i.relative()
}

// calls is the function that a direct call leads to.
func (i *instruction) calls() (uint64, bool) {
	if !i.known || i.Op != x86asm.CALL {
		return 0, false
	}
	return i.relative()
}

func (i *instruction) relative() (uint64, bool) {
	distance, ok := i.Args[0].(x86asm.Rel)
	return i.address + uint64(i.Len) + uint64(int64(distance)), ok
}

// final tells whether control never goes on to the next instruction.
func (i *instruction) final() bool {
	switch i.Op {
	case x86asm.JMP, x86asm.RET, x86asm.UD2, x86asm.UD1, x86asm.HLT, x86asm.INT, x86asm.LRET, x86asm.IRETQ:
		return true
	}
	return !i.known
}

// emulated tells whether the kernel emulates it, all kernels that have uprobes on the file at an offset: see
// branch_setup_xol_ops and push_setup_xol_ops (4.15) of arch/x86/kernel/uprobes.c. Longer nops are left out, because only
// newer kernels emulate them, and some replace them by a call.
func (i *instruction) emulated() bool {
	if !i.known {
		return false
	}
	for _, prefix := range i.Prefix {
		switch prefix &^ (x86asm.PrefixImplicit | x86asm.PrefixIgnored) {
		case x86asm.PrefixDataSize, x86asm.PrefixREP, x86asm.PrefixREPN, x86asm.PrefixLOCK:
			return false
		}
	}
	switch i.Op {
	case x86asm.PUSH:
		// One byte, or two with a prefix for r8 to r15.
		_, register := i.Args[0].(x86asm.Reg)
		return register && i.Opcode>>24 >= 0x50 && i.Opcode>>24 <= 0x57 && i.Len <= 2
	case x86asm.JMP, x86asm.CALL:
		_, direct := i.Args[0].(x86asm.Rel)
		return direct
	case x86asm.NOP:
		return i.Len == 1
	}
	return i.conditional()
}

// general is the number of a general-purpose register and how many of its bits an instruction means. Writing 32 bits
// clears the upper half; writing less leaves the rest.
func general(argument x86asm.Arg) (register Register, bits int, ok bool) {
	named, ok := argument.(x86asm.Reg)
	switch {
	case !ok:
		return 0, 0, false
	case named >= x86asm.RAX && named <= x86asm.R15:
		return Register(named - x86asm.RAX), 64, true
	case named >= x86asm.EAX && named <= x86asm.R15L:
		return Register(named - x86asm.EAX), 32, true
	case named >= x86asm.AX && named <= x86asm.R15W:
		return Register(named - x86asm.AX), 16, true
	case named >= x86asm.SPB && named <= x86asm.R15B:
		return Register(named-x86asm.SPB) + RSP, 8, true
	case named >= x86asm.AL && named <= x86asm.BL:
		return Register(named - x86asm.AL), 8, true
	case named >= x86asm.AH && named <= x86asm.BH:
		return Register(named - x86asm.AH), 8, true
	}
	return 0, 0, false
}

// registerSet has a bit for each register.
type registerSet uint32

const (
	everyRegister registerSet = 1<<registers - 1
	// callerSaved are those that a function may change (System V ABI of amd64).
	callerSaved registerSet = 1<<RAX | 1<<RCX | 1<<RDX | 1<<RSI | 1<<RDI | 1<<R8 | 1<<R9 | 1<<R10 | 1<<R11
)

func setOf(register Register) registerSet { return 1 << register }

// changes are the general-purpose registers that an instruction may write, but the stack pointer.
func (i *instruction) changes() registerSet {
	var changed registerSet
	write := func(argument x86asm.Arg) {
		if register, _, ok := general(argument); ok {
			changed |= setOf(register)
		}
	}
	if i.conditional() {
		return 0
	}
	switch i.Op {
	case x86asm.NOP, x86asm.PUSH, x86asm.CMP, x86asm.TEST, x86asm.BT, x86asm.JMP, x86asm.RET, x86asm.UD2,
		x86asm.UCOMISD, x86asm.UCOMISS, x86asm.PREFETCHT0, x86asm.PREFETCHNTA, x86asm.PREFETCHW,
		x86asm.MFENCE, x86asm.LFENCE, x86asm.SFENCE, x86asm.PAUSE,
		x86asm.MOVUPS, x86asm.MOVAPS, x86asm.MOVDQA, x86asm.MOVDQU, x86asm.MOVUPD, x86asm.MOVAPD, x86asm.MOVHPS,
		x86asm.MOVLPS, x86asm.PXOR, x86asm.XORPS, x86asm.PUNPCKLQDQ, x86asm.PADDQ, x86asm.PADDD:
	case x86asm.MOV, x86asm.MOVZX, x86asm.MOVSX, x86asm.MOVSXD, x86asm.MOVD, x86asm.MOVQ, x86asm.LEA, x86asm.ADD, x86asm.ADC,
		x86asm.SUB, x86asm.SBB, x86asm.AND, x86asm.OR, x86asm.XOR, x86asm.NOT, x86asm.NEG, x86asm.INC, x86asm.DEC,
		x86asm.SHL, x86asm.SHR, x86asm.SAR, x86asm.ROL, x86asm.ROR, x86asm.SHLD, x86asm.SHRD, x86asm.POP, x86asm.BSWAP,
		x86asm.BTS, x86asm.BTR, x86asm.BTC, x86asm.BSF, x86asm.BSR, x86asm.TZCNT, x86asm.LZCNT, x86asm.POPCNT,
		x86asm.CMOVA, x86asm.CMOVAE, x86asm.CMOVB, x86asm.CMOVBE, x86asm.CMOVE, x86asm.CMOVG, x86asm.CMOVGE, x86asm.CMOVL,
		x86asm.CMOVLE, x86asm.CMOVNE, x86asm.CMOVNO, x86asm.CMOVNP, x86asm.CMOVNS, x86asm.CMOVO, x86asm.CMOVP, x86asm.CMOVS,
		x86asm.SETA, x86asm.SETAE, x86asm.SETB, x86asm.SETBE, x86asm.SETE, x86asm.SETG, x86asm.SETGE, x86asm.SETL, x86asm.SETLE,
		x86asm.SETNE, x86asm.SETNO, x86asm.SETNP, x86asm.SETNS, x86asm.SETO, x86asm.SETP, x86asm.SETS:
		write(i.Args[0])
	case x86asm.IMUL:
		if i.Args[1] == nil {
			changed = setOf(RAX) | setOf(RDX)
		}
		write(i.Args[0])
	case x86asm.MUL, x86asm.DIV, x86asm.IDIV, x86asm.CQO, x86asm.CDQ, x86asm.CDQE, x86asm.CWDE:
		changed = setOf(RAX) | setOf(RDX)
	case x86asm.XCHG, x86asm.XADD:
		write(i.Args[0])
		write(i.Args[1])
	case x86asm.CMPXCHG:
		changed = setOf(RAX)
		write(i.Args[0])
	case x86asm.LEAVE:
		changed = setOf(RBP)
	case x86asm.CALL:
		changed = callerSaved
	default:
		changed = everyRegister
	}
	return changed
}

// copied is a move from one register to another, of 32 bits at least.
func (i *instruction) copied() (to, from Register, bits int, ok bool) {
	switch i.Op {
	case x86asm.MOV, x86asm.MOVSXD:
	default:
		return 0, 0, 0, false
	}
	to, _, toOK := general(i.Args[0])
	from, bits, fromOK := general(i.Args[1])
	return to, from, bits, toOK && fromOK && bits >= 32
}

// constant is a number that an instruction puts into a register.
func (i *instruction) constant() (to Register, value int64, ok bool) {
	to, bits, ok := general(i.Args[0])
	if !ok || bits < 32 {
		return 0, 0, false
	}
	switch i.Op {
	case x86asm.MOV:
		number, ok := i.Args[1].(x86asm.Imm)
		if bits == 32 {
			return to, int64(int32(number)), ok
		}
		return to, int64(number), ok
	case x86asm.XOR, x86asm.SUB:
		from, _, same := general(i.Args[1])
		return to, 0, same && from == to
	case x86asm.OR:
		number, ok := i.Args[1].(x86asm.Imm)
		return to, -1, ok && number == -1
	}
	return 0, 0, false
}

// stores tells whether it may put something other than a constant into memory that is not the function's own stack.
func (i *instruction) stores(framePointer bool) bool {
	switch i.Op {
	case x86asm.CMP, x86asm.TEST, x86asm.BT, x86asm.NOP, x86asm.PUSH, x86asm.UCOMISD, x86asm.UCOMISS, x86asm.CALL,
		x86asm.JMP, x86asm.PREFETCHT0, x86asm.PREFETCHNTA, x86asm.PREFETCHW:
		return false // Of a call, the callee is not our matter: what it does is done when it returns.
	case x86asm.MOV:
		if _, constant := i.Args[1].(x86asm.Imm); constant {
			return false
		}
	}
	memory, ok := i.Args[0].(x86asm.Mem)
	return ok && memory.Base != x86asm.RSP && (memory.Base != x86asm.RBP || !framePointer)
}
