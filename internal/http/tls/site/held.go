package site

// content is what a register holds: an argument of the function, or a number; the zero content is unknown.
type content struct {
	kind  contentKind
	value int64 // the argument's number from 0, or the number
	bits  uint8 // of it that have a meaning
}

type contentKind uint8

const (
	heldUnknown contentKind = iota
	heldArgument
	heldNumber
)

// contents are what the registers hold before an instruction.
type contents struct {
	reached bool
	held    [registers]content
}

// contents tells for each instruction what the registers hold before it, whichever way control came there from the begin of
// the function. A function that is called gives back the registers that it has to save (System V ABI of amd64).
func (c *code) contents() []contents {
	known := make([]contents, len(c.instructions))
	if len(known) == 0 {
		return known
	}
	entry := contents{reached: true}
	for number, register := range systemVArguments {
		entry.held[register] = content{heldArgument, int64(number), 64}
	}
	known[0] = entry
	// A forward analysis to the greatest solution: what is known only shrinks.
	todo := []int{0}
	for len(todo) > 0 {
		index := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		current := &c.instructions[index]
		after := current.after(known[index])
		for _, following := range []int{current.next, current.target} {
			if following == none {
				continue
			}
			if merged := known[following].merge(after); merged != known[following] {
				known[following] = merged
				todo = append(todo, following)
			}
		}
	}
	return known
}

// merge is what is sure on both ways.
func (c contents) merge(other contents) contents {
	if !c.reached {
		return other
	}
	for register := range c.held {
		one, another := &c.held[register], other.held[register]
		if one.kind != another.kind || one.value != another.value {
			*one = content{}
			continue
		}
		one.bits = min(one.bits, another.bits)
	}
	return c
}

// after is what the registers hold when the instruction has run.
func (i *instruction) after(before contents) contents {
	if !i.known {
		return contents{reached: true}
	}
	after := before
	for register := range registers {
		if i.changes()&setOf(register) != 0 {
			after.held[register] = content{}
		}
	}
	if i.conditional() {
		return after
	}
	if to, from, bits, ok := i.copied(); ok {
		copied := before.held[from]
		copied.bits = min(copied.bits, uint8(bits))
		after.held[to] = copied
	} else if to, value, ok := i.constant(); ok {
		after.held[to] = content{heldNumber, value, 32}
	}
	return after
}

// argument is a register that holds an argument.
func (c *contents) argument(number int, bits uint8) Place {
	for register := range registers {
		if held := c.held[register]; held.kind == heldArgument && held.value == int64(number) && held.bits >= bits {
			return Place{Register: register, Bits: bits}
		}
	}
	return Place{}
}
