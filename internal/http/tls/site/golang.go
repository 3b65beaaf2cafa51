package site

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"runtime/debug"
	"strings"

	"encoding/binary"
	"errors"
	"fmt"
	"go/version"
	"io"
	"slices"

	"golang.org/x/arch/x86/x86asm"
)

// The functions of crypto/tls that plaintext passes through.
const (
	goTLSRead  = "crypto/tls.(*Conn).Read"
	goTLSWrite = "crypto/tls.(*Conn).Write"

	goCopy       = "runtime.memmove"
	goReaderRead = "bytes.(*Reader).Read"
)

// GoMux is the function of net/http that finds who handles a request, and calls it. From Go 1.22 on, asked for by its name
// it has a site of the event Matched; before that, there are no patterns.
const GoMux = "net/http.(*ServeMux).ServeHTTP"

// goMuxFind gives the handler, and what it was found by: (Handler, string, *pattern, []string).
const goMuxFind = "net/http.(*ServeMux).findHandler"

// oldestGo is the first version whose functions save the frame pointer by a push behind the check of the stack: an emulated
// instruction that runs once in each call.
const oldestGo = "go1.21"

// Program is what a program of Go has.
type Program struct {
	// Version of Go that it was built with, such as go1.26.8: the layout of structures depends on it.
	Version string
	Sites   []Site
	// Modules are those that have a function with a site, as the program was built with them.
	Modules []*debug.Module
}

// Go finds the sites of crypto/tls in a program of Go, and of further functions by their names, such as
// "net/http.(*Transport).roundTrip". Functions that the program does not have, or that the compiler has built into their
// callers, have no site.
//
// Methods are looked for in the table that the runtime unwinds stacks with (pclntab): stripped programs have it too.
func Go(reader io.ReaderAt, names ...string) (program Program, err error) {
	err = guarded(func() error {
		image, err := openImage(reader)
		if err != nil {
			return err
		}
		program, err = image.golang(names)
		return err
	})
	if err != nil {
		return Program{Version: program.Version}, fmt.Errorf("find functions of Go: %w", err)
	}
	return program, nil
}

func (i *image) golang(names []string) (Program, error) {
	if i.file.Section(".go.buildinfo") == nil {
		return Program{}, ErrNone // Reading on would look for it in the whole file.
	}
	info, err := buildinfo.Read(i.reader)
	if err != nil {
		return Program{}, fmt.Errorf("read the version of Go: %w", err)
	}
	program := Program{Version: info.GoVersion}
	// A version of the development tree ("devel go1.27-...") is the newest there is.
	if version.IsValid(info.GoVersion) && version.Compare(info.GoVersion, oldestGo) < 0 {
		return program, fmt.Errorf("%s is older than %s: %w", info.GoVersion, oldestGo, ErrUnsupported)
	}
	table, err := i.openFunctionTable()
	if err != nil {
		return program, err
	}
	wanted := append([]string{goTLSRead, goTLSWrite, goCopy, goReaderRead, goEntryPoint, goMuxFind}, names...)
	slices.Sort(wanted)
	wanted = slices.Compact(wanted)
	functions, err := table.find(wanted)
	if err != nil {
		return program, err
	}
	if err := i.locate(table, functions, names); err != nil {
		return program, err
	}
	for _, name := range wanted {
		found, ok := functions[name]
		if !ok || name == goCopy || name == goReaderRead || name == goEntryPoint || name == goMuxFind {
			continue
		}
		entrance, ok := i.goEntrance(found)
		if !ok {
			continue
		}
		site := Site{Function: name, Event: Entry, Cost: Emulated, Address: entrance}
		switch name {
		case goTLSWrite:
			site.Event = WriteCall
			site.Connection, site.Buffer, site.Length = goArgument(RAX), goArgument(RBX), goArgument(RCX)
		case goTLSRead:
			if site, ok = i.goRead(functions); !ok {
				continue
			}
		case GoMux:
			if site, ok = i.goMatched(functions); !ok {
				continue
			}
		}
		if site.Offset, ok = i.offset(site.Address); ok {
			program.Sites = append(program.Sites, site)
		}
	}
	if len(program.Sites) == 0 {
		return program, ErrNone
	}
	for _, module := range info.Deps {
		if slices.ContainsFunc(program.Sites, func(at Site) bool {
			rest, inside := strings.CutPrefix(at.Function, module.Path)
			return inside && rest != "" && (rest[0] == '.' || rest[0] == '/')
		}) {
			program.Modules = append(program.Modules, module)
		}
	}
	return program, nil
}

func goArgument(register Register) Place { return Place{Register: register, Bits: 64} }

// goEntrance finds the push of the frame pointer behind the check of the stack, with which most functions of Go begin:
//
//	cmp 0x10(%r14),%rsp; jbe ...; push %rbp; mov %rsp,%rbp
//	lea -N(%rsp),%r12; cmp 0x10(%r14),%r12; jbe ...; push %rbp; mov %rsp,%rbp
//
// Those with a small frame have no check. Nothing before the push changes a register of an argument.
func (i *image) goEntrance(entry function) (uint64, bool) {
	const prologueBytes = 48
	var prologue [prologueBytes]byte
	code := prologue[:i.read(prologue[:], entry.address)]
	checked := false
	for at := 0; at < len(code); {
		current := decode(code[at:], entry.address+uint64(at))
		switch {
		case current.Op == x86asm.PUSH:
			following := decode(code[at+current.Len:], 0)
			pushed, _, register := general(current.Args[0])
			to, from, bits, ok := following.copied()
			return current.address, register && pushed == RBP && current.emulated() && ok && to == RBP && from == RSP && bits == 64
		case current.Op == x86asm.LEA && !checked:
			// For large frames: r12 and r13 are no arguments.
			if to, _, ok := general(current.Args[0]); !ok || to != R12 && to != R13 {
				return 0, false
			}
		case current.Op == x86asm.CMP && !checked:
			checked = true
		case current.Op == x86asm.JBE && checked, current.Op == x86asm.MOV && !checked, current.Op == x86asm.SUB && !checked,
			current.Op == x86asm.JB && !checked:
			// Frames of more than a page: mov %rsp,%r12; sub $N,%r12; jb ...; cmp 0x10(%r14),%r12.
			if to, _, ok := general(current.Args[0]); ok && to != R12 && to != R13 {
				return 0, false
			}
		default:
			return 0, false
		}
		at += current.Len
	}
	return 0, false
}

// goRead finds the instruction of crypto/tls.(*Conn).Read that tests how many bytes were read:
//
//	n, _ := c.input.Read(b)
//	if n != 0 && ...
//
// The call is to bytes.(*Reader).Read, or, where the compiler has built that in, to memmove, whose third argument is the
// number. From there it is followed to the first conditional jump on it. The connection and the buffer are where the
// function has put its arguments: in its caller's frame, as Go's calling convention has it.
func (i *image) goRead(functions map[string]function) (Site, bool) {
	c := i.disassemble(functions[goTLSRead])
	entrance, ok := i.goEntrance(functions[goTLSRead])
	if !ok || !c.spilled(entrance) {
		return Site{}, false
	}
	site := Site{
		Function: goTLSRead, Event: ReadReturn, Cost: Emulated,
		Connection: Place{Register: RBP, Offset: goFirstArgument, Memory: true, Bits: 64},
		Buffer:     Place{Register: RBP, Offset: goFirstArgument + 8, Memory: true, Bits: 64},
		Length:     Place{Register: RBP, Offset: goFirstArgument + 16, Memory: true, Bits: 64},
	}
	for index := range c.instructions {
		called, ok := c.instructions[index].calls()
		if !ok {
			continue
		}
		number := none
		switch called {
		case functions[goReaderRead].address:
			number = c.tested(index, map[Register]bool{RAX: true}, nil)
		case functions[goCopy].address:
			number = c.tested(index, nil, c.saved(index, RCX))
		}
		if number == none {
			continue
		}
		if site.Address != 0 {
			return Site{}, false // Which one is meant cannot be told.
		}
		register, _, _ := general(c.instructions[c.before[number][0]].Args[0])
		site.Address, site.Result = c.instructions[number].address, Place{Register: register, Bits: 64}
	}
	return site, site.Address != 0
}

// goMatched finds the first conditional jump behind the call of findHandler in the mux:
//
//	h, r.Pattern, r.pat, r.matches = mux.findHandler(r)
//
// It depends on whether the garbage collector wants to know of what is stored. The pattern is still in the registers of
// the call's second result there, which is proved: nothing in between writes to them, and nothing jumps there.
func (i *image) goMatched(functions map[string]function) (Site, bool) {
	find, ok := functions[goMuxFind]
	if !ok {
		return Site{}, false
	}
	c := i.disassemble(functions[GoMux])
	site := Site{
		Function: GoMux, Event: Matched, Cost: Emulated, Buffer: goArgument(RCX), Length: goArgument(RDI),
	}
	for index := range c.instructions {
		if called, ok := c.instructions[index].calls(); !ok || called != find.address {
			continue
		}
		jump := c.unchanged(index, setOf(RCX)|setOf(RDI))
		if jump == none || site.Address != 0 {
			return Site{}, false
		}
		site.Address = c.instructions[jump].address
	}
	return site, site.Address != 0
}

// unchanged finds the first conditional jump behind a call, which the call always leads to, and nothing else does. none if
// an instruction before it may write to one of the registers, or another way leads there.
func (c *code) unchanged(call int, registers registerSet) int {
	const far = 16 // instructions; it is three to five
	for index, steps := c.instructions[call].next, 0; index != none && steps < far; steps++ {
		current := &c.instructions[index]
		if !current.known || len(c.before[index]) != 1 {
			return none
		}
		if current.conditional() {
			if !current.emulated() {
				return none
			}
			return index
		}
		if current.Op == x86asm.CALL || current.final() || current.changes()&registers != 0 {
			return none
		}
		index = current.next
	}
	return none
}

// goFirstArgument is where the first argument is spilled, from the frame pointer: behind the saved one and the return
// address (cmd/compile/abi-internal.md).
const goFirstArgument = 16

// spilled tells whether the function begins by saving its first three arguments into their places in the caller's frame,
// and never saves anything else there.
func (c *code) spilled(push uint64) bool {
	at, ok := c.index[push]
	if !ok {
		return false
	}
	// The distance from the stack pointer to the frame pointer.
	frame := none
	places := map[int64]Register{}
	for index := at; index != none && index < len(c.instructions); index = c.instructions[index].next {
		current := &c.instructions[index]
		if current.conditional() || current.Op == x86asm.CALL {
			break
		}
		if size, ok := current.Args[1].(x86asm.Imm); ok && current.Op == x86asm.SUB && current.Args[0] == x86asm.RSP {
			frame = int(size)
		}
		if slot, ok := current.stackSlot(0, frame); ok && current.Op == x86asm.MOV {
			if from, bits, register := general(current.Args[1]); register && bits == 64 {
				places[slot] = from
			}
		}
	}
	if frame == none || places[goFirstArgument] != RAX || places[goFirstArgument+8] != RBX ||
		places[goFirstArgument+16] != RCX {
		return false
	}
	for index := range c.instructions {
		current := &c.instructions[index]
		slot, ok := current.stackSlot(0, frame)
		if !ok || slot < goFirstArgument || slot >= goFirstArgument+24 || current.Op == x86asm.CMP || current.Op == x86asm.TEST {
			continue
		}
		from, _, register := general(current.Args[1])
		if !register || places[slot] != from || !c.within(at, index) {
			return false
		}
	}
	return true
}

// within tells whether an instruction lies on the straight way from another one.
func (c *code) within(from, wanted int) bool {
	for index := from; index != none; index = c.instructions[index].next {
		if index == wanted {
			return true
		}
		if c.instructions[index].conditional() || c.instructions[index].Op == x86asm.CALL {
			return false
		}
	}
	return false
}

// stackSlot is the place of an argument in memory from the frame pointer, which is so many bytes above the stack pointer;
// with 0 bytes, from the stack pointer.
func (i *instruction) stackSlot(argument, frame int) (int64, bool) {
	memory, ok := i.Args[argument].(x86asm.Mem)
	switch {
	case !ok || memory.Index != 0 || frame == none:
		return 0, false
	case memory.Base == x86asm.RSP:
		return memory.Disp - int64(frame), true
	case memory.Base == x86asm.RBP && frame != 0:
		return memory.Disp, true
	}
	return 0, false
}

// saved are the places on the stack to which a register was saved right before an instruction.
func (c *code) saved(index int, register Register) map[int64]bool {
	slots := map[int64]bool{}
	for steps := 0; steps < 8 && len(c.before[index]) == 1; steps++ {
		index = c.before[index][0]
		current := &c.instructions[index]
		if slot, ok := current.stackSlot(0, 0); ok && current.Op == x86asm.MOV {
			if from, bits, isRegister := general(current.Args[1]); isRegister && from == register && bits == 64 {
				slots[slot] = true
			}
			continue
		}
		if current.changes()&setOf(register) != 0 {
			break
		}
	}
	return slots
}

// tested follows a number from behind a call, in registers or on the stack, to the first conditional jump that depends on
// whether it is zero; none if there is no such jump before control splits.
func (c *code) tested(index int, registers map[Register]bool, slots map[int64]bool) int {
	holds := map[Register]bool{}
	for register := range registers {
		holds[register] = true
	}
	index = c.instructions[index].next
	for steps := 0; index != none && steps < 32; steps, index = steps+1, c.instructions[index].next {
		current := &c.instructions[index]
		if current.Op == x86asm.TEST && current.Args[0] == current.Args[1] && current.next != none {
			register, bits, _ := general(current.Args[0])
			jump := &c.instructions[current.next]
			if bits == 64 && holds[register] && (jump.Op == x86asm.JE || jump.Op == x86asm.JNE) && len(c.before[current.next]) == 1 {
				return current.next
			}
		}
		if current.conditional() || current.Op == x86asm.CALL || current.final() {
			return none
		}
		to, bits, toRegister := general(current.Args[0])
		slot, fromSlot := current.stackSlot(1, 0)
		from, fromBits, fromRegister := general(current.Args[1])
		switch {
		case current.Op == x86asm.MOV && toRegister && bits == 64 && fromSlot:
			holds[to] = slots[slot]
		case current.Op == x86asm.MOV && toRegister && fromRegister && fromBits == 64:
			holds[to] = holds[from]
		default:
			for register := range holds {
				if current.changes()&setOf(register) != 0 {
					holds[register] = false
				}
			}
		}
	}
	return none
}

const goEntryPoint = "_rt0_amd64_linux"

// functionTable is the table of functions that a Go program carries: runtime.pcHeader of runtime/symtab.go, in the form of
// Go 1.20 and later (internal/abi.Go120PCLnTabMagic).
type functionTable struct {
	reader    io.ReaderAt
	size      int64
	count     uint32 // functions
	textStart uint64 // what entries are counted from; 0: the header does not say (PIE, and from Go 1.26 on)
	names     int64  // places in the table
	namesEnd  int64
	functions int64 // pairs of entry and place of the description, counted from here
}

// functionTableHeader is how the table begins: magic, two zero bytes, the smallest instruction of amd64, bytes of a pointer.
var functionTableHeader = []byte{0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8}

// functionTableAlign is what the linker aligns the table to at least.
const functionTableAlign = 8

func (i *image) openFunctionTable() (*functionTable, error) {
	for _, name := range []string{".gopclntab", ".data.rel.ro.gopclntab"} {
		if section := i.file.Section(name); section != nil {
			return i.readFunctionTable(section, 0)
		}
	}
	// Other linkers make it a part of the data that is read-only once it has been relocated.
	if section := i.file.Section(".data.rel.ro"); section != nil {
		place := int64(none)
		start := int64(0)
		err := eachChunk(i.section(section), len(functionTableHeader), func(chunk []byte) bool {
			for from := 0; from < len(chunk); {
				at := bytes.Index(chunk[from:], functionTableHeader)
				if at < 0 {
					break
				}
				if from += at; from%functionTableAlign == 0 {
					place = start + int64(from)
					return false
				}
				from++
			}
			start += int64(len(chunk))
			return true
		})
		if err != nil {
			return nil, fmt.Errorf("look for the table of functions: %w", err)
		}
		if place != none {
			return i.readFunctionTable(section, place)
		}
	}
	return nil, fmt.Errorf("no table of functions: %w", ErrUnsupported)
}

func (i *image) readFunctionTable(section *elf.Section, place int64) (*functionTable, error) {
	whole := i.section(section)
	t := &functionTable{size: whole.Size() - place}
	t.reader = io.NewSectionReader(whole, place, t.size)
	const headerBytes = 8 + 8*8
	var header [headerBytes]byte
	if _, err := t.reader.ReadAt(header[:], 0); err != nil {
		return nil, fmt.Errorf("read the head of the table of functions: %w", err)
	}
	if !bytes.Equal(header[:len(functionTableHeader)], functionTableHeader) {
		return nil, fmt.Errorf("a table of functions that begins with %x: %w", header[:len(functionTableHeader)], ErrUnsupported)
	}
	field := func(index int) uint64 { return binary.LittleEndian.Uint64(header[8+8*index:]) }
	t.count = uint32(min(field(0), 1<<30))
	const textStart = 2
	address := section.Addr + uint64(place) + 8 + 8*textStart
	values, err := i.relocated([]uint64{address})
	if err != nil {
		return nil, err
	}
	t.textStart = values[address]
	t.names, t.namesEnd, t.functions = int64(field(3)), int64(field(4)), int64(field(7))
	if t.names < headerBytes || t.namesEnd < t.names || t.functions < t.namesEnd || t.functions > t.size ||
		int64(t.count)*8+4 > t.size-t.functions {
		return nil, errors.New("the table of functions is malformed")
	}
	return t, nil
}

// find looks functions up by their names. The addresses are still counted from the start of the text.
//
// Two passes over the table need no more memory than a few chunks: for the places of the names, and for the functions
// that have them.
func (t *functionTable) find(names []string) (map[string]function, error) {
	places, err := findNames(io.NewSectionReader(t.reader, t.names, t.namesEnd-t.names), names)
	if err != nil {
		return nil, err
	}
	found := map[string]function{}
	pairs := io.NewSectionReader(t.reader, t.functions, int64(t.count)*8+4)
	descriptions := window{reader: t.reader, buffer: make([]byte, 0, chunkBytes)}
	const pairBytes = 8
	var last string // whose end is to come
	err = eachChunk(pairs, pairBytes, func(chunk []byte) bool {
		for ; len(chunk) >= 4; chunk = chunk[min(pairBytes, len(chunk)):] {
			entry := uint64(binary.LittleEndian.Uint32(chunk))
			if last != "" {
				ended := found[last]
				ended.size = entry - min(ended.address, entry)
				found[last], last = ended, ""
			}
			if len(chunk) < pairBytes {
				break // The last entry is the end of the text.
			}
			// runtime._func: entryOff, nameOff.
			description := descriptions.at(t.functions+int64(binary.LittleEndian.Uint32(chunk[4:])), 8)
			if description == nil || uint64(binary.LittleEndian.Uint32(description)) != entry {
				continue
			}
			if name, wanted := places[binary.LittleEndian.Uint32(description[4:])]; wanted {
				if _, known := found[name]; !known {
					found[name], last = function{address: entry}, name
				}
			}
		}
		return len(found) < len(names) || last != ""
	})
	return found, err
}

// window reads small pieces of a file at growing places.
type window struct {
	reader io.ReaderAt
	buffer []byte
	start  int64
}

func (w *window) at(place int64, length int) []byte {
	if place < w.start || place+int64(length) > w.start+int64(len(w.buffer)) {
		count, err := w.reader.ReadAt(w.buffer[:cap(w.buffer)], place)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil
		}
		w.buffer, w.start = w.buffer[:count], place
	}
	from := int(place - w.start)
	if from+length > len(w.buffer) {
		return nil
	}
	return w.buffer[from : from+length]
}

// locate turns entries into addresses. Where the text starts is in the header of the table up to Go 1.25, but in programs
// that can be loaded anywhere; then it is taken from the module's description, from the entry point of the program, or it
// is the start of the .text section, which is right unless C was linked into it. Every function has to look like one there.
func (i *image) locate(table *functionTable, functions map[string]function, names []string) error {
	var candidates []uint64
	if table.textStart != 0 {
		candidates = append(candidates, table.textStart)
	}
	if start, ok := functions[goEntryPoint]; ok {
		candidates = append(candidates, i.file.Entry-start.address)
	}
	candidates = append(candidates, i.moduleText()...)
	if text := i.file.Section(".text"); text != nil {
		candidates = append(candidates, text.Addr)
	}
	check := append([]string{goTLSRead, goTLSWrite}, names...)
	for _, start := range candidates {
		well, all := 0, 0
		for _, name := range check {
			if found, ok := functions[name]; ok {
				all++
				if _, ok := i.goEntrance(function{address: start + found.address}); ok {
					well++
				}
			}
		}
		if all > 0 && (well == 0 || well < all-all/4) {
			continue
		}
		for name, found := range functions {
			found.address += start
			functions[name] = found
		}
		return nil
	}
	return fmt.Errorf("the start of the program's text is not known: %w", ErrUnsupported)
}

// moduleText reads runtime.text from the description of the module, which has a section of its own from Go 1.26 on
// (runtime.moduledata: pcHeader, six slices but the last, findfunctab, minpc, maxpc, text).
func (i *image) moduleText() []uint64 {
	section := i.file.Section(".go.module")
	if section == nil {
		return nil
	}
	const slices, pointerBytes = 6, 8
	text := section.Addr + (1+3*slices+3)*pointerBytes
	values, err := i.relocated([]uint64{text})
	if err != nil || values[text] == 0 {
		return nil
	}
	return []uint64{values[text]}
}
