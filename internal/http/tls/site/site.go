package site

import (
	"errors"
	"fmt"
	"strings"
)

// Errors that say why a file has no sites.
var (
	// ErrNone says that the file is well, but none of the functions are in it.
	ErrNone = errors.New("there is no function to probe")
	// ErrUnsupported says that the file is of another architecture, or of a version that this package does not know.
	ErrUnsupported = errors.New("not supported")
)

// Register is a general-purpose register of amd64. The numbers are those of the instruction encoding.
type Register uint8

// The registers.
const (
	RAX Register = iota
	RCX
	RDX
	RBX
	RSP
	RBP
	RSI
	RDI
	R8
	R9
	R10
	R11
	R12
	R13
	R14
	R15
	registers
)

var registerNames = [registers]string{"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
	"r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"}

func (r Register) String() string {
	if r < registers {
		return registerNames[r]
	}
	return fmt.Sprintf("register %d", uint8(r))
}

// Place says where a value lies when a site is hit: in a register, or in memory at an offset from what a register holds.
// The zero Place means that the value is not known there.
type Place struct {
	Register Register
	Offset   int16 // of the memory, in bytes
	Memory   bool
	Bits     uint8 // 32: the upper half of the place has no meaning; 64; 0: there is no value
}

// Known tells whether there is a value.
func (p Place) Known() bool { return p.Bits != 0 }

func (p Place) String() string {
	switch {
	case !p.Known():
		return "-"
	case p.Memory:
		return fmt.Sprintf("[%s%+d]:%d", p.Register, p.Offset, p.Bits)
	}
	return fmt.Sprintf("%s:%d", p.Register, p.Bits)
}

// Event is what a hit of a site means.
type Event uint8

// The events.
const (
	// WriteCall is the begin of a write: Connection, Buffer and Length. A program of OpenSSL repeats a write that could
	// not be completed with the same arguments, so a WriteReturn or an ErrorQuery has to tell whether it was.
	WriteCall Event = iota + 1
	// WriteReturn is the end of a write: Result is positive if it succeeded, and then the number of bytes, or 1 if the
	// call had a Count.
	WriteReturn
	// ReadCall is the begin of a read: Connection, Buffer and Length (how much there is room for).
	ReadCall
	// ReadReturn is the end of a read: Result is positive if it succeeded, and then the number of bytes, or 1 if the call
	// had a Count. Where Connection and Buffer are known here too, as in Go, no ReadCall is needed.
	ReadReturn
	// ErrorQuery is the call of SSL_get_error, by which a program asks why a call on Connection failed on this thread:
	// Result is what that call returned.
	ErrorQuery
	// Entry is the begin of a function of Go that was asked for by its name: its arguments are in the registers of Go's
	// calling convention (rax, rbx, rcx, rdi, rsi, r8, r9, r10, r11), and r14 is the goroutine.
	Entry
	// Matched is where net/http.(*ServeMux).ServeHTTP has found the handler of a request, once in each of its calls: Buffer
	// and Length are the text of the pattern, whose length is 0 where there is none.
	Matched
)

var eventNames = [...]string{WriteCall: "write call", WriteReturn: "write return", ReadCall: "read call",
	ReadReturn: "read return", ErrorQuery: "error query", Entry: "entry", Matched: "matched"}

func (e Event) String() string {
	if e > 0 && int(e) < len(eventNames) {
		return eventNames[e]
	}
	return fmt.Sprintf("event %d", uint8(e))
}

// Cost is how the kernel deals with a hit.
type Cost uint8

// The costs, from the lowest.
const (
	Emulated       Cost = iota + 1 // below a microsecond
	EmulatedReturn                 // a return probe on an emulated instruction: two traps
	Stepped                        // the instruction is executed out of line: more than ten microseconds on some machines
	SteppedReturn                  // a return probe on such an instruction
)

var costNames = [...]string{Emulated: "emulated", EmulatedReturn: "emulated return probe", Stepped: "stepped",
	SteppedReturn: "stepped return probe"}

func (c Cost) String() string {
	if c > 0 && int(c) < len(costNames) {
		return costNames[c]
	}
	return fmt.Sprintf("cost %d", uint8(c))
}

// Site is an instruction to place a uprobe at.
type Site struct {
	Function string // the function that it observes, as its symbol has it
	Event    Event
	Cost     Cost
	// Return says that it takes a return probe (uretprobe), which fires at the return of the function.
	Return bool
	// Offset is the place of the instruction in the file, as the kernel wants it for a uprobe; Address is the one that
	// disassemblers show.
	Offset, Address uint64

	// What is known when the site is hit; see Event.
	Connection, Buffer, Length, Result Place
	// Count is where a pointer lies to the number of bytes that the call will have moved when it has returned with
	// success.
	Count Place
	// Peek is what is not 0 in a call that leaves the bytes to be read again; not known where no such call comes here.
	Peek Place
}

func (s Site) String() string {
	var values strings.Builder
	for _, value := range []struct {
		name  string
		place Place
	}{{"connection", s.Connection}, {"buffer", s.Buffer}, {"length", s.Length}, {"count", s.Count}, {"result", s.Result},
		{"peek", s.Peek}} {
		if value.place.Known() {
			fmt.Fprintf(&values, " %s=%s", value.name, value.place)
		}
	}
	return fmt.Sprintf("%s %s at %#x (file %#x, %s)%s", s.Function, s.Event, s.Address, s.Offset, s.Cost, values.String())
}
