//go:build linux

package symbol

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"sync"
)

// goTable is the table of functions that a program of Go carries for its own stack traces, stripped or not (pclntab:
// pcHeader and _func in runtime/symtab.go and runtime/runtime2.go, the same from Go 1.20 to 1.26; the linker writes it in
// cmd/link/internal/ld/pcln.go). It is read in place.
type goTable struct {
	object  *object
	table   region
	address uint64 // of the table
	quantum uint64 // bytes of the smallest instruction
	count   uint64 // functions

	names       region
	units       region
	files       region
	values      region // pairs of value and length of code, for each function and kind of value
	functions   region // entries of code and places of descriptions in this region
	headerStart uint64 // start of the code as the header has it; 0 where only the module's description has it

	once   sync.Once
	module goModule
	err    error // of finding the module
}

// goModule is what is needed of runtime.moduledata.
type goModule struct {
	text   uint64 // the address that entries are counted from
	inline region // descriptions of inlined calls (go:func.*); empty if not known
}

// The head of the table: a magic number (internal/abi.Go120PCLnTabMagic), two zero bytes, the size of the smallest
// instruction, the size of a pointer, eight words.
const (
	goHeaderBytes   = 8 + 8*8
	goFunctionBytes = 44 // runtime._func without what follows it
	goInlinedBytes  = 16 // runtime.inlinedCall
	maxGoFunctions  = 1 << 24
	// maxInlined is how many calls may be inlined into each other: the compiler stops at far less.
	maxInlined = 64
	// maxGoSteps bounds the walk through the values of one function. The longest function has fewer instructions.
	maxGoSteps = 1 << 20
	noGoData   = ^uint32(0)
)

var goMagic = []byte{0xf1, 0xff, 0xff, 0xff, 0, 0}

// openGo fails with ErrNoSymbols if the file is no program of Go.
func openGo(o *object) (*goTable, error) {
	sign := o.identity.Go != "" || len(o.sections) == 0
	for _, section := range o.sections {
		switch section.name {
		case ".gopclntab", ".data.rel.ro.gopclntab":
			if table, err := readGoTable(o, o.data(&section), section.address); err == nil {
				return table, nil
			}
			sign = true
		case ".go.buildinfo", ".note.go.buildid":
			sign = true
		}
	}
	if !sign {
		return nil, fmt.Errorf("find the table of functions of Go: %w", ErrNoSymbols)
	}
	// Linkers of C make it a part of other data, and sections may have been removed.
	for _, section := range o.sections {
		if section.name == ".data.rel.ro" || section.name == ".rodata" {
			if table := searchGoTable(o, o.data(&section), section.address); table != nil {
				return table, nil
			}
		}
	}
	for _, segment := range o.segments {
		if segment.Executable || len(o.sections) != 0 {
			continue
		}
		if table := searchGoTable(o, o.file.region(segment.Offset, segment.FileSize), segment.Address); table != nil {
			return table, nil
		}
	}
	return nil, fmt.Errorf("find the table of functions of Go: %w", ErrNoSymbols)
}

// maxGoSearch is how much of a file is searched for the table.
const maxGoSearch = 512 << 20

func searchGoTable(o *object, data region, address uint64) *goTable {
	const alignment, maxTries = 8, 1000
	data = o.search(data.sub(0, maxGoSearch))
	for from, tries := uint64(0), 0; tries < maxTries; from++ {
		at := bytes.Index(data.bytes[from:], goMagic)
		if at < 0 {
			return nil
		}
		if from += uint64(at); (address+from)%alignment != 0 {
			continue
		}
		tries++
		if table, err := readGoTable(o, data.sub(from, data.size()), address+from); err == nil {
			return table
		}
	}
	return nil
}

func readGoTable(o *object, data region, address uint64) (*goTable, error) {
	header := data.at(0, goHeaderBytes)
	if header == nil || !bytes.HasPrefix(header, goMagic) || header[7] != 8 ||
		header[6] != 1 && header[6] != 2 && header[6] != 4 {
		return nil, fmt.Errorf("read the head of the table of functions of Go: %w", ErrUnsupported)
	}
	word := func(index int) uint64 { return binary.LittleEndian.Uint64(header[8+8*index:]) }
	t := &goTable{object: o, table: data, address: address, quantum: uint64(header[6]), count: word(0), headerStart: word(2)}
	names, units, files, values, functions := word(3), word(4), word(5), word(6), word(7)
	if t.count == 0 || t.count > maxGoFunctions || names < goHeaderBytes || names > units || units > files || files > values ||
		values > functions || functions > data.size() || t.count*8+4 > data.size()-functions {
		return nil, fmt.Errorf("read the table of functions of Go: %w", ErrMalformed)
	}
	t.names, t.units, t.files = data.sub(names, units-names), data.sub(units, files-units), data.sub(files, values-files)
	t.values, t.functions = data.sub(values, functions-values), data.sub(functions, data.size())
	// The first and the last function have to be what the table says.
	for _, index := range []uint64{0, t.count - 1} {
		if f, ok := t.function(index); !ok || f.end < f.entry {
			return nil, fmt.Errorf("read the first and last function of Go's table: %w", ErrMalformed)
		}
	}
	return t, nil
}

// goFunction is runtime._func.
type goFunction struct {
	entry, end           uint64 // of its code, counted from the start of the text
	place                uint64 // of the description
	name                 uint32
	fileValues, lines    uint32
	codeTables           uint32
	unit                 uint32
	startLine            int32
	dataTables           uint8
	inlineTree, inlineAt uint32
	hasInlined           bool
}

func (t *goTable) function(index uint64) (goFunction, bool) {
	pair := t.functions.at(index*8, 12) // and the next entry
	if pair == nil {
		return goFunction{}, false
	}
	order := binary.LittleEndian
	f := goFunction{
		entry: uint64(order.Uint32(pair)), end: uint64(order.Uint32(pair[8:])), place: uint64(order.Uint32(pair[4:])),
	}
	description := t.functions.at(f.place, goFunctionBytes)
	if description == nil || uint64(order.Uint32(description)) != f.entry {
		return goFunction{}, false
	}
	f.name = order.Uint32(description[4:])
	f.fileValues, f.lines = order.Uint32(description[20:]), order.Uint32(description[24:])
	f.codeTables, f.unit = order.Uint32(description[28:]), order.Uint32(description[32:])
	f.startLine, f.dataTables = int32(order.Uint32(description[36:])), description[43]
	const inlineIndex, inlineTree = 2, 3 // internal/abi.PCDATA_InlTreeIndex, FUNCDATA_InlTree
	if f.codeTables > inlineIndex && f.dataTables > inlineTree {
		var indexOK, treeOK bool
		f.inlineAt, indexOK = t.functions.uint32(f.place + goFunctionBytes + 4*inlineIndex)
		f.inlineTree, treeOK = t.functions.uint32(f.place + goFunctionBytes + 4*(uint64(f.codeTables)+inlineTree))
		f.hasInlined = indexOK && treeOK && f.inlineAt != 0 && f.inlineTree != noGoData
	}
	return f, true
}

// find looks for the function that has the code at a place, by halving.
func (t *goTable) find(offset uint64) (goFunction, bool) {
	low, high := uint64(0), t.count
	for low < high {
		middle := (low + high) / 2
		entry, ok := t.functions.uint32(middle * 8)
		if !ok {
			return goFunction{}, false
		}
		if uint64(entry) > offset {
			high = middle
		} else {
			low = middle + 1
		}
	}
	if low == 0 {
		return goFunction{}, false
	}
	f, ok := t.function(low - 1)
	return f, ok && offset < f.end
}

// value is what a function's table has for an instruction; -1 if it has nothing, as runtime.pcvalue.
func (t *goTable) value(table uint32, entry, wanted uint64) int32 {
	if table == 0 {
		return -1
	}
	reader := varints(t.values.sub(uint64(table), t.values.size()).bytes)
	at, value := entry, int32(-1)
	for step := range maxGoSteps {
		change, ok := reader.next()
		if !ok || change == 0 && step > 0 {
			return -1
		}
		value += int32(-(change & 1) ^ (change >> 1))
		length, ok := reader.next()
		if !ok {
			return -1
		}
		if at += uint64(length) * t.quantum; wanted < at {
			return value
		}
	}
	return -1
}

// varints reads numbers of variable length.
type varints []byte

func (v *varints) next() (uint32, bool) {
	const maxBytes = 5
	var value uint32
	for index, current := range (*v)[:min(maxBytes, len(*v))] {
		value |= uint32(current&0x7f) << (7 * index)
		if current < 0x80 {
			*v = (*v)[index+1:]
			return value, true
		}
	}
	return 0, false
}

// lookup appends the frames at an address, the innermost first.
func (t *goTable) lookup(address uint64, frames []Frame) ([]Frame, error) {
	t.once.Do(func() { t.module, t.err = t.findModule() })
	if t.err != nil {
		return frames, t.err
	}
	f, ok := t.find(address - t.module.text)
	if address < t.module.text || !ok {
		return frames, ErrNoSymbol
	}
	at := address - t.module.text
	if f.hasInlined && t.module.inline.size() > 0 {
		for range maxInlined {
			index := t.value(f.inlineAt, f.entry, at)
			if index < 0 {
				break
			}
			call := t.module.inline.at(uint64(f.inlineTree)+uint64(index)*goInlinedBytes, goInlinedBytes)
			if call == nil {
				break
			}
			name := binary.LittleEndian.Uint32(call[4:])
			frames = append(frames, t.frame(&f, name, int32(binary.LittleEndian.Uint32(call[12:])), at))
			at = f.entry + uint64(binary.LittleEndian.Uint32(call[8:]))
			if at >= f.end {
				return frames, fmt.Errorf("an inlined call outside of its function: %w", ErrMalformed)
			}
		}
	}
	return append(frames, t.frame(&f, f.name, f.startLine, at)), nil
}

func (t *goTable) frame(f *goFunction, name uint32, startLine int32, at uint64) Frame {
	frame := Frame{Type: Go, StartLine: int(max(startLine, 0))}
	frame.Function, _ = t.names.text(uint64(name))
	file, line := t.value(f.fileValues, f.entry, at), t.value(f.lines, f.entry, at)
	if file < 0 || line < 0 {
		return frame
	}
	place, ok := t.units.uint32(4 * (uint64(f.unit) + uint64(file)))
	if !ok || place == noGoData {
		return frame
	}
	if frame.File, ok = t.files.text(uint64(place)); ok {
		frame.Line = int(line)
	}
	return frame
}

// Words of runtime.moduledata, the same from Go 1.20 to 1.26.
const (
	moduleNames     = 1
	moduleUnits     = 4
	moduleFiles     = 7
	moduleValues    = 10
	moduleFunctions = 13
	moduleEntries   = 16
	moduleText      = 22
	moduleTextEnd   = 23
	moduleInline    = 40
	moduleWords     = 41
	maxModuleTries  = 64
	relocationBytes = 24 // Elf64_Rela
	maxRelocations  = 1 << 30
	relativeOnX86   = uint32(elf.R_X86_64_RELATIVE)
	relativeOnARM64 = uint32(elf.R_AARCH64_RELATIVE)
)

// findModule looks for the description of the module: in its own section from Go 1.26 on, else wherever there is a pointer
// to the table. In programs that can be loaded anywhere, pointers are in relocations.
func (t *goTable) findModule() (goModule, error) {
	if module, ok := t.moduleOfSection(); ok {
		return module, nil
	}
	if module, ok := t.moduleByPointer(); ok {
		return module, nil
	}
	if module, ok := t.moduleByRelocation(); ok {
		return module, nil
	}
	// Without the description there are still names and lines, if the header tells where code begins. Inlined calls are
	// then not told apart from the function that they were inlined into.
	if t.headerStart != 0 && t.object.executable(t.headerStart) {
		return goModule{text: t.headerStart}, nil
	}
	return goModule{}, fmt.Errorf("find where the code of a program of Go begins, in the description of its module: %w",
		ErrUnsupported)
}

// accept checks that words are a description of the module of this table.
func (t *goTable) accept(words []uint64) (goModule, bool) {
	start := func(part region) uint64 { return t.address + part.start - t.table.start }
	if words[0] != t.address || words[moduleNames] != start(t.names) || words[moduleUnits] != start(t.units) ||
		words[moduleFiles] != start(t.files) || words[moduleValues] != start(t.values) ||
		words[moduleFunctions] != start(t.functions) || words[moduleEntries] != start(t.functions) ||
		words[moduleEntries+1] != t.count+1 || words[moduleTextEnd] < words[moduleText] ||
		!t.object.executable(words[moduleText]) {
		return goModule{}, false
	}
	return goModule{text: words[moduleText], inline: t.object.memory(words[moduleInline])}, true
}

func (t *goTable) wordsAt(data region, place uint64) ([]uint64, bool) {
	buffer := data.at(place, 8*moduleWords)
	if buffer == nil {
		return nil, false
	}
	words := make([]uint64, moduleWords)
	for index := range words {
		words[index] = binary.LittleEndian.Uint64(buffer[8*index:])
	}
	return words, true
}

func (t *goTable) moduleOfSection() (goModule, bool) {
	section := t.object.section(".go.module")
	if section == nil {
		return goModule{}, false
	}
	words, ok := t.wordsAt(t.object.data(section), 0)
	if !ok {
		return goModule{}, false
	}
	if module, ok := t.accept(words); ok {
		return module, true
	}
	t.relocate([]relocatedWords{{address: section.address, words: words}})
	return t.accept(words)
}

// moduleByPointer searches the data for the table's address.
func (t *goTable) moduleByPointer() (module goModule, found bool) {
	pointer := binary.LittleEndian.AppendUint64(nil, t.address)
	search := func(data region, address uint64) {
		data = t.object.search(data.sub(0, maxGoSearch))
		for from, tries := uint64(0), 0; tries < maxModuleTries && !found; from++ {
			at := bytes.Index(data.bytes[from:], pointer)
			if at < 0 {
				return
			}
			if from += uint64(at); (address+from)%8 != 0 {
				continue
			}
			tries++
			if words, ok := t.wordsAt(data, from); ok {
				module, found = t.accept(words)
			}
		}
	}
	for _, section := range t.object.sections {
		if section.kind == elf.SHT_PROGBITS && section.flags&elf.SHF_WRITE != 0 && !found {
			search(t.object.data(&section), section.address)
		}
	}
	for _, segment := range t.object.segments {
		if len(t.object.sections) == 0 && !segment.Executable && !found {
			search(t.object.file.region(segment.Offset, segment.FileSize), segment.Address)
		}
	}
	return module, found
}

type relocatedWords struct {
	address uint64
	words   []uint64
}

// moduleByRelocation looks for the relocations that fill in the address of the table, and then for those of the words
// behind it.
func (t *goTable) moduleByRelocation() (goModule, bool) {
	var candidates []relocatedWords
	t.relocations(func(place, value uint64) bool {
		if value == t.address {
			candidates = append(candidates, relocatedWords{address: place})
		}
		return len(candidates) < maxModuleTries
	})
	kept := candidates[:0]
	for _, candidate := range candidates {
		if words, ok := t.wordsAt(t.object.memory(candidate.address), 0); ok {
			candidate.words = words
			kept = append(kept, candidate)
		}
	}
	if len(kept) == 0 {
		return goModule{}, false
	}
	t.relocate(kept)
	for _, candidate := range kept {
		if module, ok := t.accept(candidate.words); ok {
			return module, true
		}
	}
	return goModule{}, false
}

// relocate fills in what the dynamic linker would.
func (t *goTable) relocate(candidates []relocatedWords) {
	t.relocations(func(place, value uint64) bool {
		for _, candidate := range candidates {
			if skip := place - candidate.address; place >= candidate.address && skip/8 < moduleWords && skip%8 == 0 {
				candidate.words[skip/8] = value
			}
		}
		return true
	})
}

// relocations hands out those that add nothing but the address that the file is loaded at.
func (t *goTable) relocations(handle func(place, value uint64) bool) {
	relative := relativeOnX86
	if t.object.machine == elf.EM_AARCH64 {
		relative = relativeOnARM64
	}
	for _, section := range t.object.sections {
		if section.kind != elf.SHT_RELA || section.flags&elf.SHF_ALLOC == 0 || section.size > maxRelocations {
			continue
		}
		table := t.object.search(t.object.data(&section)).bytes
		for ; len(table) >= relocationBytes; table = table[relocationBytes:] {
			if binary.LittleEndian.Uint32(table[8:]) == relative &&
				!handle(binary.LittleEndian.Uint64(table), binary.LittleEndian.Uint64(table[16:])) {
				return
			}
		}
	}
}
