package site

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"golang.org/x/arch/x86/x86asm"
)

// The functions of OpenSSL that plaintext passes through; LibreSSL and BoringSSL have the ones without _ex at least.
// SSL_sendfile is none of them: the kernel reads and encrypts the file itself.
const (
	sslRead     = "SSL_read"
	sslReadEx   = "SSL_read_ex" // from OpenSSL 1.1.1
	sslWrite    = "SSL_write"
	sslWriteEx  = "SSL_write_ex"
	sslGetError = "SSL_get_error"
	tlsMethod   = "TLS_method" // from OpenSSL 1.1.0

	ssl3Read = "ssl3_read" // what both reading functions call; it has no symbol in libraries
)

// OpenSSL finds the sites of a library, or of a program that has one built in.
//
// Where the end of a read has its arguments, it is a ReadReturn alone. Else the sites of reads come in pairs on one thread:
// a ReadCall, and the ReadReturn that says what it brought. Functions whose begin and end are not both there have neither.
// Writes have a WriteReturn only where one costs little; a program
// whose write was not complete asks for the reason, which is the ErrorQuery, and repeats the call.
func OpenSSL(reader io.ReaderAt) (sites []Site, err error) {
	err = guarded(func() error {
		image, err := openImage(reader)
		if err != nil {
			return err
		}
		sites, err = image.openSSL()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("find the functions of OpenSSL: %w", err)
	}
	return sites, nil
}

func (i *image) openSSL() ([]Site, error) {
	functions, err := i.symbols([]string{sslRead, sslReadEx, sslWrite, sslWriteEx, sslGetError, tlsMethod})
	if err != nil {
		return nil, err
	}
	l := &library{image: i, functions: functions, codes: map[string]*code{}}
	for _, name := range []string{sslRead, sslReadEx, sslWrite, sslWriteEx, sslGetError} {
		if found, ok := functions[name]; ok {
			l.codes[name] = i.disassemble(found)
		}
	}
	if l.codes[sslRead] == nil || l.codes[sslWrite] == nil {
		return nil, ErrNone
	}
	// LibreSSL makes the one of the other.
	l.drop(sslReadEx, sslRead)
	l.drop(sslWriteEx, sslWrite)

	sites := append(l.reads(), l.writes()...)
	if query := l.codes[sslGetError]; query != nil {
		for _, entrance := range query.entrances([]argument{{0, 64}, {1, 32}}) {
			if entrance.emulated {
				site := l.site(sslGetError, ErrorQuery, entrance)
				site.Connection, site.Result = entrance.places[0], entrance.places[1]
				sites = append(sites, site)
				break
			}
		}
	}
	if len(sites) == 0 {
		return nil, fmt.Errorf("the machine code of %s and %s begins in a way that is not understood: %w", sslRead, sslWrite,
			ErrUnsupported)
	}
	for index := range sites {
		offset, ok := i.offset(sites[index].Address)
		if !ok {
			return nil, fmt.Errorf("%s lies outside of the program's code", sites[index].Function)
		}
		sites[index].Offset = offset
	}
	return sites, nil
}

type library struct {
	image     *image
	functions map[string]function
	codes     map[string]*code
}

// drop forgets a function that does its work by calling another one that is observed.
func (l *library) drop(name, worker string) {
	if l.codes[name] == nil {
		return
	}
	for index := range l.codes[name].instructions {
		current := &l.codes[name].instructions[index]
		called, ok := current.calls()
		if !ok {
			called, ok = current.jump()
		}
		if ok && called == l.functions[worker].address {
			delete(l.codes, name)
			return
		}
	}
}

// arguments are what a function is told: the session, the buffer, its length as int or size_t, and a pointer to the number
// of bytes in those that have one.
func arguments(name string) []argument {
	if name == sslRead || name == sslWrite {
		return []argument{{0, 64}, {1, 64}, {2, 32}}
	}
	return []argument{{0, 64}, {1, 64}, {2, 64}, {3, 64}}
}

func (l *library) site(name string, event Event, at call) Site {
	site := Site{Function: name, Event: event, Cost: Stepped, Address: at.address}
	if at.emulated {
		site.Cost = Emulated
	}
	if event != ErrorQuery {
		site.Connection, site.Buffer, site.Length = at.places[0], at.places[1], at.places[2]
		if len(at.places) > 3 {
			site.Count = at.places[3]
		}
	}
	return site
}

// reads prefers what costs least.
func (l *library) reads() []Site {
	method, methodKnown := l.methodRead()
	if methodKnown {
		if ends := l.readEnds(method); ends != nil {
			return ends
		}
	}
	var sites, fallback []Site
	cheap := true
	for _, name := range []string{sslRead, sslReadEx} {
		if l.codes[name] == nil {
			continue
		}
		proven := l.read(name, l.codes[name])
		cheap = cheap && proven != nil
		sites = append(sites, proven...)
		if proven == nil {
			proven = l.returnProbe(name, l.codes[name])
		}
		fallback = append(fallback, proven...)
	}
	if cheap {
		return sites
	}
	if methodKnown {
		if proven := l.read(ssl3Read, l.image.disassemble(function{address: method.read})); proven != nil {
			return proven
		}
	}
	return fallback
}

// readEnds finds sites at the ends of reads at which the arguments are still in registers: they need no site at the begin.
// ssl3_peek, which leaves the bytes where they are, may share the code; then a register has to tell. nil: not all of that
// can be proven.
func (l *library) readEnds(method methodReads) []Site {
	c, peek := l.image.disassemble(function{address: method.read}), l.image.disassemble(function{address: method.peek})
	if len(peek.instructions) == 0 {
		return nil
	}
	known, knownOfPeek := c.contents(), peek.contents()
	results := c.results()
	if !c.once(results) {
		return nil
	}
	var sites []Site
	for _, result := range results {
		at := &known[c.index[result.address]]
		site := Site{
			Function: ssl3Read, Event: ReadReturn, Cost: Emulated, Address: result.address,
			Connection: at.argument(0, 64), Buffer: at.argument(1, 64), Count: at.argument(3, 64),
			Result: Place{Register: result.register, Bits: 32},
		}
		if !site.Connection.Known() || !site.Buffer.Known() || !site.Count.Known() {
			return nil
		}
		if shared, ok := peek.index[result.address]; ok {
			site.Peek = at.distinguished(&knownOfPeek[shared])
			if !site.Peek.Known() {
				return nil
			}
		}
		sites = append(sites, site)
	}
	return sites
}

// distinguished is a register that holds 0 here, and another number in the other case.
func (c *contents) distinguished(other *contents) Place {
	for register := range registers {
		here, there := c.held[register], other.held[register]
		if here.kind == heldNumber && here.value == 0 && there.kind == heldNumber && int32(there.value) != 0 {
			return Place{Register: register, Bits: 32}
		}
	}
	return Place{}
}

// read finds emulated sites for the begin and the end of a read; nil if not both can be proven.
func (l *library) read(name string, c *code) []Site {
	return l.observe(name, c, ReadCall, ReadReturn)
}

func (l *library) observe(name string, c *code, begin, end Event) []Site {
	for _, entrance := range c.entrances(arguments(name)) {
		if !entrance.emulated {
			continue
		}
		results := c.results()
		if results == nil {
			return nil
		}
		sites := []Site{l.site(name, begin, entrance)}
		for _, result := range results {
			sites = append(sites, Site{
				Function: name, Event: end, Cost: Emulated, Address: result.address,
				Result: Place{Register: result.register, Bits: 32},
			})
		}
		return sites
	}
	return nil
}

// returnProbe observes a function by the kernel's way to catch a return: by replacing the address that it returns to.
func (l *library) returnProbe(name string, c *code) []Site {
	entrances := c.entrances(arguments(name))
	entrances = slices.DeleteFunc(entrances, func(c call) bool { return !c.atEntry })
	if len(entrances) == 0 {
		return nil
	}
	at, cost := entrances[0], SteppedReturn
	if cheap := slices.IndexFunc(entrances, func(c call) bool { return c.emulated }); cheap >= 0 {
		at, cost = entrances[cheap], EmulatedReturn
	}
	return []Site{
		l.site(name, ReadCall, at),
		{
			Function: name, Event: ReadReturn, Cost: cost, Return: true, Address: at.address,
			Result: Place{Register: RAX, Bits: 32},
		},
	}
}

func (l *library) writes() []Site {
	var sites []Site
	for _, name := range []string{sslWrite, sslWriteEx} {
		code := l.codes[name]
		if code == nil {
			continue
		}
		if both := l.observe(name, code, WriteCall, WriteReturn); both != nil {
			sites = append(sites, both...)
			continue
		}
		entrances := code.entrances(arguments(name))
		if cheap := slices.IndexFunc(entrances, func(c call) bool { return c.emulated }); cheap > 0 {
			entrances = entrances[cheap:]
		}
		if len(entrances) > 0 {
			sites = append(sites, l.site(name, WriteCall, entrances[0]))
		}
	}
	return sites
}

// methodReads are the addresses of ssl3_read and ssl3_peek.
type methodReads struct {
	read, peek uint64
}

// methodRead finds ssl3_read, which both reading functions of OpenSSL call through the table of functions of the protocol
// version (SSL_METHOD, ssl/ssl_local.h: ssl_read, ssl_peek and ssl_write follow each other). The table is what
// TLS_method returns; the place of the entry is taken from the code that calls it.
func (l *library) methodRead() (methodReads, bool) {
	read, readOK := l.methodEntry(sslReadEx)
	write, writeOK := l.methodEntry(sslWriteEx)
	const pointerBytes = 8
	if !readOK || !writeOK || write != read+2*pointerBytes {
		return methodReads{}, false
	}
	method, ok := l.functions[tlsMethod]
	if !ok {
		return methodReads{}, false
	}
	table, ok := l.image.disassemble(method).returnedAddress()
	if !ok {
		return methodReads{}, false
	}
	values, err := l.image.relocated([]uint64{table + read, table + read + pointerBytes})
	found := methodReads{read: values[table+read], peek: values[table+read+pointerBytes]}
	return found, err == nil && found.read != 0
}

var errAmbiguous = errors.New("more than one")

// methodEntry is the place in the table of the function that a public function calls: itself, or by the internal one that
// it hands all its arguments to.
func (l *library) methodEntry(name string) (uint64, bool) {
	code := l.codes[name]
	if code == nil {
		return 0, false
	}
	entry, err := code.tableEntry()
	if err != nil {
		for _, entrance := range code.entrances(arguments(name)) {
			if worker, ok := code.instructions[code.index[entrance.address]].calls(); ok {
				entry, err = l.image.disassemble(function{address: worker}).tableEntry()
			}
		}
	}
	return entry, err == nil
}

// tableEntry is the offset of the only pointer through which a function calls another one.
func (c *code) tableEntry() (uint64, error) {
	entries := map[uint64]bool{}
	for index := range c.instructions {
		current := &c.instructions[index]
		if current.Op != x86asm.CALL && current.Op != x86asm.JMP {
			continue
		}
		through := current.Args[0]
		register, _, ok := general(through)
		for at, steps := index, 0; ok && steps < 16 && len(c.before[at]) == 1; steps++ {
			at = c.before[at][0]
			before := &c.instructions[at]
			if before.changes()&setOf(register) == 0 {
				continue
			}
			if before.Op == x86asm.MOV {
				through = before.Args[1]
			}
			break
		}
		memory, ok := through.(x86asm.Mem)
		if ok && memory.Base != x86asm.RIP && memory.Base != x86asm.RSP && memory.Index == 0 && memory.Disp > 0 {
			entries[uint64(memory.Disp)] = true
		}
	}
	if len(entries) != 1 {
		return 0, errAmbiguous
	}
	for entry := range entries {
		return entry, nil
	}
	return 0, errAmbiguous
}

// returnedAddress is what a function returns that does nothing else.
func (c *code) returnedAddress() (uint64, bool) {
	instructions := c.instructions
	for len(instructions) > 0 && instructions[0].Op == x86asm.NOP {
		instructions = instructions[1:]
	}
	if len(instructions) > 1 && instructions[0].Op == x86asm.PUSH { // a frame pointer: push, mov; pop before ret
		instructions = slices.DeleteFunc(slices.Clone(instructions), func(i instruction) bool {
			to, from, _, copied := i.copied()
			return i.Op == x86asm.PUSH || i.Op == x86asm.POP || copied && to == RBP && from == RSP
		})
	}
	if len(instructions) != 2 || instructions[1].Op != x86asm.RET {
		return 0, false
	}
	first := &instructions[0]
	if register, _, ok := general(first.Args[0]); !ok || register != RAX {
		return 0, false
	}
	switch source := first.Args[1].(type) {
	case x86asm.Mem:
		return first.address + uint64(first.Len) + uint64(source.Disp), first.Op == x86asm.LEA && source.Base == x86asm.RIP
	case x86asm.Imm:
		return uint64(source), first.Op == x86asm.MOV
	}
	return 0, false
}
