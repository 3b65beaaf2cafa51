package site

import (
	"cmp"
	"slices"

	"golang.org/x/arch/x86/x86asm"
)

// systemVArguments are the registers of the first arguments (System V ABI of amd64).
var systemVArguments = [...]Register{RDI, RSI, RDX, RCX}

// argument is one that is wanted at a site: its number from 0, and how many bits of it have a meaning.
type argument struct {
	number int
	bits   uint8
}

// call is an instruction at which the arguments of its function lie in known registers.
type call struct {
	address  uint64
	emulated bool
	places   []Place // as wanted
	// atEntry says that the stack is as it was when the function was called, so that a return probe can be placed here.
	atEntry bool
}

// entrances finds instructions that run once in each call of the function, before anything else could happen, at which all
// the arguments still lie in registers. The first one is the function's own, the others are emulated.
func (c *code) entrances(wanted []argument) []call {
	if len(c.instructions) == 0 {
		return nil
	}
	// What each register holds: the number of an argument, and how much of it.
	type held struct {
		argument int
		bits     int
	}
	holds := map[Register]held{}
	for number, register := range systemVArguments {
		holds[register] = held{number, 64}
	}
	var calls []call
	atEntry := true
	for index, steps := 0, 0; index != none && steps < 64; steps++ {
		current := &c.instructions[index]
		if !current.known || index != 0 && len(c.before[index]) != 1 || index == 0 && len(c.before[index]) != 0 {
			break // Another path leads here too: it may run more than once.
		}
		if first := index == 0; first || current.emulated() {
			places := make([]Place, 0, len(wanted))
			for _, argument := range wanted {
				for register := range registers {
					// The usual register wins, so that a site reads like the function's prototype.
					if argument.number < len(systemVArguments) && register == 0 {
						usual := systemVArguments[argument.number]
						if kept, ok := holds[usual]; ok && kept.argument == argument.number && kept.bits >= int(argument.bits) {
							places = append(places, Place{Register: usual, Bits: argument.bits})
							break
						}
					}
					if kept, ok := holds[register]; ok && kept.argument == argument.number && kept.bits >= int(argument.bits) {
						places = append(places, Place{Register: register, Bits: argument.bits})
						break
					}
				}
			}
			if len(places) == len(wanted) {
				calls = append(calls, call{
					address: current.address, emulated: current.emulated(), places: places, atEntry: atEntry,
				})
			}
		}
		if current.target != none && current.next != none || current.Op == x86asm.CALL {
			break // Not every path goes on from here; what a call changes is unknown.
		}
		if to, from, bits, ok := current.copied(); ok {
			kept, known := holds[from]
			delete(holds, to)
			if known {
				holds[to] = held{kept.argument, min(kept.bits, bits)}
			}
		} else {
			for register := range registers {
				if current.changes()&setOf(register) != 0 {
					delete(holds, register)
				}
			}
		}
		atEntry = atEntry && !current.movesStack()
		if index = current.next; current.target != none {
			index = current.target
		}
	}
	return calls
}

// movesStack tells whether it may change the stack pointer or what lies at it.
func (i *instruction) movesStack() bool {
	switch i.Op {
	case x86asm.NOP, x86asm.TEST, x86asm.CMP:
		return false
	case x86asm.MOV, x86asm.LEA, x86asm.XOR, x86asm.MOVSXD, x86asm.MOVZX:
		register, _, ok := general(i.Args[0])
		return !ok || register == RSP
	case x86asm.JMP:
		return false
	}
	return true
}

// result is an instruction at which the function's result is known: if it is positive there, the function returns it.
type result struct {
	address  uint64
	register Register
}

// unreached is what is known where control never comes back from: everything, and that no return follows.
const unreached registerSet = ^registerSet(0)

// results finds emulated instructions of which every call of the function that returns a positive number passes one at
// least, with that number in the register, and with nothing left to do but to return it. There are none where this cannot
// be proven.
func (c *code) results() []result {
	known := c.resultRegisters()
	type state struct {
		index    int // of an instruction, before which
		register Register
	}
	var todo []state
	for index := range c.instructions {
		switch current := &c.instructions[index]; {
		case current.Op == x86asm.RET:
			todo = append(todo, state{index, RAX})
		case !current.known || current.leaves || current.Op == x86asm.JMP && current.target == none:
			return nil // It may return from somewhere else.
		}
	}
	seen := map[state]bool{}
	sites := map[state]bool{}
	for len(todo) > 0 {
		current := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[current] {
			continue
		}
		seen[current] = true
		if current.index == 0 {
			return nil // What was there before the call may be returned.
		}
		for _, index := range c.before[current.index] {
			before := &c.instructions[index]
			register := current.register
			if before.emulated() && known[index]&setOf(register) != 0 && known[index] != unreached {
				sites[state{index, register}] = true
				continue
			}
			if to, value, ok := before.constant(); ok && to == register {
				if value > 0 {
					return nil
				}
				continue // This is no success.
			}
			if to, from, _, ok := before.copied(); ok && to == register {
				register = from
			} else if before.changes()&setOf(register) != 0 {
				return nil // Here the result comes from, and no emulated instruction was seen since.
			}
			todo = append(todo, state{index, register})
		}
	}
	found := make([]result, 0, len(sites))
	for site := range sites {
		found = append(found, result{c.instructions[site.index].address, site.register})
	}
	slices.SortFunc(found, func(a, b result) int {
		return cmp.Or(cmp.Compare(a.address, b.address), cmp.Compare(a.register, b.register))
	})
	// One register is enough.
	return slices.CompactFunc(found, func(a, b result) bool { return a.address == b.address })
}

// once tells whether no call that returns a positive number passes more than one of its results, or one of them twice.
func (c *code) once(results []result) bool {
	sites := map[int]bool{}
	for _, result := range results {
		sites[c.index[result.address]] = true
	}
	for _, result := range results {
		index := c.index[result.address]
		var todo []int
		jumpFails, nextFails := c.failures(index)
		if target := c.instructions[index].target; target != none && jumpFails&setOf(result.register) == 0 {
			todo = append(todo, target)
		}
		if next := c.instructions[index].next; next != none && nextFails&setOf(result.register) == 0 {
			todo = append(todo, next)
		}
		seen := map[int]bool{}
		for len(todo) > 0 {
			index := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			if index == none || seen[index] {
				continue
			}
			if sites[index] {
				return false
			}
			seen[index] = true
			todo = append(todo, c.instructions[index].next, c.instructions[index].target)
		}
	}
	return true
}

// resultRegisters tells for each instruction which registers hold, before it, what the function will return if that is
// positive, whichever way it goes from there.
func (c *code) resultRegisters() []registerSet {
	known := make([]registerSet, len(c.instructions))
	for index := range known {
		known[index] = unreached
	}
	// A backward analysis to the greatest solution: sets only shrink.
	for changed := true; changed; {
		changed = false
		for index := len(c.instructions) - 1; index >= 0; index-- {
			if now := c.resultBefore(index, known); now != known[index] {
				known[index], changed = now, true
			}
		}
	}
	return known
}

func (c *code) resultBefore(index int, known []registerSet) registerSet {
	current := &c.instructions[index]
	switch {
	case !current.known || current.leaves:
		return 0
	case current.Op == x86asm.RET:
		return setOf(RAX)
	case current.Op == x86asm.JMP && current.target == none:
		return 0
	}
	after := unreached
	jumpFails, nextFails := c.failures(index)
	if current.target != none {
		after &= known[current.target] | jumpFails
	}
	if current.next != none {
		after &= known[current.next] | nextFails
	}
	if after == unreached {
		return unreached
	}
	if current.stores(c.framePointer) {
		return 0 // The number of bytes may be among what is stored.
	}
	if to, from, _, ok := current.copied(); ok {
		before := after &^ setOf(to)
		if after&setOf(to) != 0 {
			before |= setOf(from)
		}
		return before
	}
	return after &^ current.changes()
}

// failures are the registers that hold no positive number on either way of a conditional jump, because the instruction
// before it compared them.
func (c *code) failures(index int) (jump, next registerSet) {
	current := &c.instructions[index]
	if !current.conditional() || len(c.before[index]) != 1 {
		return 0, 0
	}
	compared := &c.instructions[c.before[index][0]]
	if compared.next != index {
		return 0, 0
	}
	register, bits, ok := general(compared.Args[0])
	if !ok || bits != 32 {
		return 0, 0 // Results of C are of type int.
	}
	with := int64(0)
	switch compared.Op {
	case x86asm.TEST:
		if other, _, ok := general(compared.Args[1]); !ok || other != register {
			return 0, 0
		}
	case x86asm.CMP:
		number, ok := compared.Args[1].(x86asm.Imm)
		if !ok {
			return 0, 0
		}
		with = int64(number)
	default:
		return 0, 0
	}
	switch current.Op {
	case x86asm.JE:
		if with <= 0 {
			return setOf(register), 0
		}
	case x86asm.JNE:
		if with <= 0 {
			return 0, setOf(register)
		}
	case x86asm.JLE:
		if with <= 0 {
			return setOf(register), 0
		}
	case x86asm.JG:
		if with <= 0 {
			return 0, setOf(register)
		}
	case x86asm.JL:
		if with <= 1 {
			return setOf(register), 0
		}
	case x86asm.JGE:
		if with <= 1 {
			return 0, setOf(register)
		}
	case x86asm.JS:
		if with == 0 {
			return setOf(register), 0
		}
	case x86asm.JNS:
		if with == 0 {
			return 0, setOf(register)
		}
	}
	return 0, 0
}
