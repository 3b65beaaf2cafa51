//go:build linux

package unwind

import (
	"errors"
	"math"
)

// Call frame instructions (DWARF 5, 7.24; LSB; Arm's DWARF supplement).
const (
	instructionAdvance      = 0x40 // the upper two bits; a number is in the lower ones
	instructionOffset       = 0x80
	instructionRestore      = 0xc0
	instructionNop          = 0x00
	instructionSetLocation  = 0x01
	instructionAdvance1     = 0x02
	instructionAdvance2     = 0x03
	instructionAdvance4     = 0x04
	instructionOffsetLong   = 0x05
	instructionRestoreLong  = 0x06
	instructionUndefined    = 0x07
	instructionSameValue    = 0x08
	instructionRegister     = 0x09
	instructionRemember     = 0x0a
	instructionRestoreState = 0x0b
	instructionCFA          = 0x0c
	instructionCFARegister  = 0x0d
	instructionCFAOffset    = 0x0e
	instructionCFAExpr      = 0x0f
	instructionExpression   = 0x10
	instructionOffsetSigned = 0x11
	instructionCFASigned    = 0x12
	instructionCFAOffsetSig = 0x13
	instructionValue        = 0x14
	instructionValueSigned  = 0x15
	instructionValueExpr    = 0x16
	// MIPS: an advance by eight bytes.
	instructionAdvance8 = 0x1d
	// AArch64: the return address is signed with another context from here on.
	instructionSignStateWithPC = 0x2c
	// AArch64: whether the return address is signed changes. On SPARC it is DW_CFA_GNU_window_save.
	instructionSignState = 0x2d
	// How much of the stack arguments take: of no use for a walk.
	instructionArgumentsSize = 0x2e
	// An offset to be subtracted, from before there were signed ones.
	instructionOffsetNegative = 0x2f
)

// registerRule is where the caller's value of a register is.
type registerRule uint8

const (
	registerUnspecified registerRule = iota
	registerSame
	registerUndefined
	registerAtOffset   // from the CFA
	registerExpression // at an expression
	registerOther      // anything else
)

// savedRegister is a register's rule.
type savedRegister struct {
	rule       registerRule
	offset     int64
	expression expression
}

// state are the rules at a place.
type state struct {
	cfaKnown                                  bool
	cfaRegister                               uint64
	cfaOffset                                 int64
	cfaIsExpression                           bool
	cfaExpression                             expression
	stackPointer, framePointer, returnAddress savedRegister
}

var (
	errInstruction = errors.New("a call frame instruction that is not known")
	errTruncated   = errors.New("it ends in the middle")
	errStates      = errors.New("states that were not remembered are restored, or too many are remembered")
	errBackwards   = errors.New("its locations go backwards")
	errSubject     = errors.New("an offset is set of a CFA that has none")
)

// interpreter executes call frame instructions. It is used for one record after the other.
type interpreter struct {
	machine    *architecture
	common     *commonEntry
	now        state
	remembered []state
	location   uint64
	// each is called for every location that rules are for, when they are known, but for those of a CIE.
	each   func(location uint64, rules *state) error
	silent bool // it is a CIE
}

// run executes the instructions of a record whose data begins at an address.
func (i *interpreter) run(c *cursor, address uint64) error {
	i.remembered = i.remembered[:0]
	for c.more() {
		instruction := c.uint8()
		low := uint64(instruction & 0x3f)
		var err error
		switch instruction &^ 0x3f {
		case instructionAdvance:
			err = i.advance(low)
		case instructionOffset:
			i.save(low, registerAtOffset, int64(c.unsigned())*i.common.dataAlignment)
		case instructionRestore:
			i.restore(low)
		default:
			err = i.extended(instruction, c, address)
		}
		if c.failed {
			return errTruncated
		}
		if err != nil {
			return err
		}
	}
	if i.silent {
		return nil
	}
	return i.each(i.location, &i.now)
}

func (i *interpreter) extended(instruction uint8, c *cursor, address uint64) error {
	align := i.common.dataAlignment
	switch instruction {
	case instructionNop:
	case instructionSetLocation:
		return i.move(c.pointer(i.common.pointers, address))
	case instructionAdvance1:
		return i.advance(uint64(c.uint8()))
	case instructionAdvance2:
		return i.advance(uint64(c.uint16()))
	case instructionAdvance4:
		return i.advance(uint64(c.uint32()))
	case instructionAdvance8:
		return i.advance(c.uint64())
	case instructionOffsetLong:
		i.save(c.unsigned(), registerAtOffset, int64(c.unsigned())*align)
	case instructionOffsetSigned:
		i.save(c.unsigned(), registerAtOffset, c.signed()*align)
	case instructionOffsetNegative:
		i.save(c.unsigned(), registerAtOffset, -int64(c.unsigned())*align)
	case instructionRestoreLong:
		i.restore(c.unsigned())
	case instructionUndefined:
		i.save(c.unsigned(), registerUndefined, 0)
	case instructionSameValue:
		i.save(c.unsigned(), registerSame, 0)
	case instructionRegister:
		register := c.unsigned()
		c.unsigned()
		i.save(register, registerOther, 0)
	case instructionValue:
		i.saveValue(c.unsigned(), int64(c.unsigned())*align)
	case instructionValueSigned:
		i.saveValue(c.unsigned(), c.signed()*align)
	case instructionExpression:
		register := c.unsigned()
		data := c.take(c.unsigned())
		if saved := i.register(register); saved != nil && !c.failed {
			*saved = savedRegister{rule: registerExpression, expression: parseExpression(data, i.machine)}
		}
	case instructionValueExpr:
		register := c.unsigned()
		c.take(c.unsigned())
		i.save(register, registerOther, 0)
	case instructionRemember, instructionRestoreState:
		return i.states(instruction)
	case instructionSignState, instructionSignStateWithPC:
		if !i.machine.linkRegister {
			return errInstruction
		}
	case instructionArgumentsSize:
		c.unsigned()
	default:
		return i.canonical(instruction, c)
	}
	return nil
}

// canonical executes the instructions that say where the CFA is.
func (i *interpreter) canonical(instruction uint8, c *cursor) error {
	align := i.common.dataAlignment
	switch instruction {
	case instructionCFA:
		i.define(c.unsigned(), int64(c.unsigned()))
	case instructionCFASigned:
		i.define(c.unsigned(), c.signed()*align)
	case instructionCFARegister:
		// Behind an expression there is no offset that would stay; readers of DWARF begin anew, with none.
		offset := i.now.cfaOffset
		if i.now.cfaIsExpression {
			offset = 0
		}
		i.define(c.unsigned(), offset)
	case instructionCFAOffset, instructionCFAOffsetSig:
		if instruction == instructionCFAOffset {
			i.now.cfaOffset = int64(c.unsigned())
		} else {
			i.now.cfaOffset = c.signed() * align
		}
		if !i.now.cfaKnown || i.now.cfaIsExpression {
			return errSubject
		}
	case instructionCFAExpr:
		data := c.take(c.unsigned())
		if !c.failed {
			i.now.cfaKnown, i.now.cfaIsExpression = true, true
			i.now.cfaExpression = parseExpression(data, i.machine)
		}
	default:
		return errInstruction
	}
	return nil
}

func (i *interpreter) define(register uint64, offset int64) {
	i.now.cfaKnown, i.now.cfaIsExpression, i.now.cfaRegister, i.now.cfaOffset = true, false, register, offset
}

func (i *interpreter) states(instruction uint8) error {
	if instruction == instructionRemember {
		if len(i.remembered) == maxRememberedStates {
			return errStates
		}
		i.remembered = append(i.remembered, i.now)
		return nil
	}
	last := len(i.remembered) - 1
	if last < 0 {
		return errStates
	}
	i.now, i.remembered = i.remembered[last], i.remembered[:last]
	return nil
}

func (i *interpreter) advance(units uint64) error {
	if units > math.MaxUint32 {
		return errBackwards
	}
	return i.move(i.location + units*i.common.codeAlignment)
}

func (i *interpreter) move(location uint64) error {
	if location < i.location {
		return errBackwards
	}
	if location == i.location || i.silent {
		return nil
	}
	if err := i.each(i.location, &i.now); err != nil {
		return err
	}
	i.location = location
	return nil
}

// register is where the rule of a register is kept; nil if it is none of those that are followed.
func (i *interpreter) register(number uint64) *savedRegister { return i.registerOf(&i.now, number) }

func (i *interpreter) registerOf(rules *state, number uint64) *savedRegister {
	switch number {
	case i.machine.stackPointer:
		return &rules.stackPointer
	case i.machine.framePointer:
		return &rules.framePointer
	case i.machine.returnAddress:
		return &rules.returnAddress
	}
	return nil
}

func (i *interpreter) save(register uint64, rule registerRule, offset int64) {
	if saved := i.register(register); saved != nil {
		*saved = savedRegister{rule: rule, offset: offset}
	}
}

// saveValue is for a register whose value in the caller is the CFA with an offset. That of the stack pointer is the CFA
// anyway.
func (i *interpreter) saveValue(register uint64, offset int64) {
	if register == i.machine.stackPointer && offset == 0 {
		i.save(register, registerUnspecified, 0)
		return
	}
	i.save(register, registerOther, 0)
}

func (i *interpreter) restore(register uint64) {
	if saved := i.register(register); saved != nil {
		*saved = *i.registerOf(&i.common.initial, register)
	}
}

// row says in a row what the rules say, as far as a row can.
func (s *state) row(machine *architecture, signal bool) Row {
	if s.returnAddress.rule == registerUndefined {
		return Row{Rule: RuleEnd, FramePointer: FramePointerKept}
	}
	of := s.ordinaryRow
	if signal {
		of = s.signalRow
	}
	if row, ok := of(machine); ok {
		return row
	}
	return Row{Rule: RuleUnsupported, FramePointer: FramePointerKept}
}

// signalRow checks that the rules mean the frame that the kernel makes for a signal handler. On amd64 the C library says so
// in its own words: ucontext begins at the stack pointer (struct rt_sigframe in arch/x86/include/asm/sigframe.h). On arm64
// no other function than the vDSO's __kernel_rt_sigreturn is marked as this.
func (s *state) signalRow(machine *architecture) (Row, bool) {
	const framePointer, stackPointer, instructionPointer = 120, 160, 168 // in struct ucontext of amd64
	at := func(saved *savedRegister, offset int64) bool {
		e := saved.expression
		return saved.rule == registerExpression && e.known && !e.plt && !e.deref && e.register == machine.stackPointer &&
			e.offset == offset
	}
	row := Row{Rule: RuleSignal, FramePointer: FramePointerKept}
	if machine.linkRegister {
		return row, true
	}
	return row, at(&s.framePointer, framePointer) && at(&s.stackPointer, stackPointer) &&
		at(&s.returnAddress, instructionPointer)
}

func (s *state) ordinaryRow(machine *architecture) (Row, bool) {
	row, ok := s.cfaRow(machine)
	if !ok || s.stackPointer.rule != registerUnspecified && s.stackPointer.rule != registerSame {
		return Row{}, false
	}
	frame, ok := s.frameSlot(machine, row.Rule)
	if !ok {
		return Row{}, false
	}
	row.FramePointer = frame
	address := &s.returnAddress
	if !machine.linkRegister {
		return row, address.rule == registerAtOffset && address.offset == -wordBytes
	}
	switch address.rule {
	case registerUnspecified, registerSame:
		row.Rule |= ReturnLink
		return row, true
	case registerAtOffset:
		slot, ok := slotOf(address.offset)
		switch {
		case !ok:
		case frame == FramePointerKept:
			row.Rule, row.FramePointer = row.Rule|ReturnAlone, slot
			return row, true
		case s.framePointer.rule == registerAtOffset && address.offset == s.framePointer.offset+wordBytes:
			row.Rule |= ReturnBeside
			return row, true
		}
	}
	return Row{}, false
}

func (s *state) cfaRow(machine *architecture) (Row, bool) {
	if !s.cfaKnown {
		return Row{}, false
	}
	if !s.cfaIsExpression {
		offset, ok := words(s.cfaOffset)
		row := Row{Offset: offset}
		switch {
		case s.cfaRegister == machine.stackPointer:
			row.Rule = RuleStack
		case s.cfaRegister == machine.framePointer:
			row.Rule = RuleFrame
		case s.cfaRegister < machine.returnAddress:
			row.Rule = RuleRegister | Rule(s.cfaRegister)
		default:
			return Row{}, false
		}
		return row, ok
	}
	e := &s.cfaExpression
	if e.plt {
		return Row{Rule: RulePLT, Offset: int16(e.boundary)}, true
	}
	offset, ok := words(e.offset)
	row := Row{Offset: offset}
	switch {
	case !e.known || !ok || e.added != 0 && e.added != wordBytes:
		return Row{}, false
	case e.register == machine.stackPointer && !e.deref:
		row.Rule = RuleStack
	case e.register == machine.framePointer && !e.deref:
		row.Rule = RuleFrame
	case e.register == machine.stackPointer && e.added == 0:
		row.Rule = RuleStackDeref
	case e.register == machine.stackPointer:
		row.Rule = RuleStackDerefWord
	case e.register == machine.framePointer && e.added == 0:
		row.Rule = RuleFrameDeref
	case e.register == machine.framePointer:
		row.Rule = RuleFrameDerefWord
	default:
		return Row{}, false
	}
	return row, true
}

// frameSlot is where the caller's frame pointer is. One that is undefined cannot be told from one that is kept: it is not
// used then, where the description is right.
func (s *state) frameSlot(machine *architecture, cfa Rule) (int8, bool) {
	switch s.framePointer.rule {
	case registerUnspecified, registerSame, registerUndefined:
		return FramePointerKept, true
	case registerAtOffset:
		return slotOf(s.framePointer.offset)
	case registerExpression:
		e := s.framePointer.expression
		if !e.known || e.plt || e.deref {
			return 0, false
		}
		switch {
		case e.register == machine.framePointer && e.offset == 0:
			return FramePointerAtItself, true
		case cfa == RuleStack && e.register == machine.stackPointer, cfa == RuleFrame && e.register == machine.framePointer:
			if s.cfaIsExpression {
				return slotOf(e.offset - s.cfaExpression.offset)
			}
			return slotOf(e.offset - s.cfaOffset)
		}
	}
	return 0, false
}

// words turns bytes into what Row.Offset has.
func words(bytes int64) (int16, bool) {
	count := bytes / wordBytes
	return int16(count), bytes%wordBytes == 0 && count >= math.MinInt16 && count <= math.MaxInt16
}

// slotOf turns bytes into what Row.FramePointer has.
func slotOf(bytes int64) (int8, bool) {
	count := bytes / wordBytes
	return int8(count), bytes%wordBytes == 0 && count > int64(FramePointerAtItself) && count <= math.MaxInt8
}
