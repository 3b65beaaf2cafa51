//go:build linux

package unwind

import (
	"debug/elf"
	"encoding/binary"
	"math"
)

// GoText is where code of Go is in a file.
type GoText struct {
	Start, End uint64
	// Exact tells that the table of functions says so. Else it is all of .text, of which call frame information tells C.
	Exact bool
}

// goSections are sections that only the linker of Go makes, and keeps in a stripped program.
var goSections = [...]string{".go.buildinfo", ".gopclntab", ".data.rel.ro.gopclntab"}

// readGo finds the code of Go. A program has it if it has the section of goSections, or the note of a build id of Go.
func (i *image) readGo() error {
	isGo := i.found.BuildID.Go != ""
	for _, name := range goSections {
		isGo = isGo || i.file.Section(name) != nil
	}
	if !isGo {
		return nil
	}
	if text, ok := i.goTextByTable(); ok {
		i.found.Go = text
		return nil
	}
	section := i.file.Section(".text")
	if section == nil || section.Size == 0 || !i.within(section.Addr, section.Size) {
		// Without headers of sections. Rows of C are preferred to this.
		first := i.found.Segments[0]
		i.found.Go = &GoText{Start: first.Address, End: first.Address + first.MemoryBytes}
		return nil
	}
	i.found.Go = &GoText{Start: section.Addr, End: section.Addr + section.Size}
	return nil
}

// within tells whether a range lies in one executable segment.
func (i *image) within(start, length uint64) bool {
	for _, segment := range i.found.Segments {
		if start >= segment.Address && length <= segment.MemoryBytes && start-segment.Address <= segment.MemoryBytes-length {
			return true
		}
	}
	return false
}

// goTextByTable reads the range from the table of functions (runtime.pcHeader in runtime/symtab.go): the entries of the
// first and the last function are counted from the start of the text, which is in the header up to Go 1.25, and in the
// description of the module from 1.26 on. In programs that can be loaded anywhere it may only be known when they are.
func (i *image) goTextByTable() (*GoText, bool) {
	var section *elf.Section
	for _, name := range goSections[1:] {
		if section == nil {
			section = i.file.Section(name)
		}
	}
	if section == nil || section.Offset > math.MaxInt64/2 {
		return nil, false
	}
	const headerBytes = 8 + 8*8
	var header [headerBytes]byte
	if _, err := i.reader.ReadAt(header[:], int64(section.Offset)); err != nil {
		return nil, false
	}
	// The magic numbers of Go 1.18 and 1.20 (internal/abi.Go118PCLnTabMagic, Go120PCLnTabMagic), two zero bytes, the size of
	// the smallest instruction, that of a pointer.
	magic := binary.LittleEndian.Uint32(header[:])
	if magic != 0xfffffff0 && magic != 0xfffffff1 || header[4] != 0 || header[5] != 0 || header[7] != 8 {
		return nil, false
	}
	field := func(index int) uint64 { return binary.LittleEndian.Uint64(header[8+8*index:]) }
	count, text, functions := field(0), field(2), field(7)
	const entryBytes = 8 // offset of the entry, offset of the description
	if count == 0 || count > math.MaxUint32/entryBytes || functions > section.FileSize ||
		count*entryBytes+4 > section.FileSize-functions {
		return nil, false
	}
	if text == 0 {
		text = i.goModuleText()
	}
	var first, last [4]byte
	at := int64(section.Offset + functions)
	if _, err := i.reader.ReadAt(first[:], at); err != nil || text == 0 {
		return nil, false
	}
	if _, err := i.reader.ReadAt(last[:], at+int64(count*entryBytes)); err != nil {
		return nil, false
	}
	start, end := text+uint64(binary.LittleEndian.Uint32(first[:])), text+uint64(binary.LittleEndian.Uint32(last[:]))
	if start >= end || !i.within(start, end-start) {
		return nil, false
	}
	return &GoText{Start: start, End: end, Exact: true}, true
}

// goModuleText is runtime.text in the description of the module (runtime.moduledata: pcHeader, six slices, findfunctab,
// minpc, maxpc, text), which has a section of its own from Go 1.26 on.
func (i *image) goModuleText() uint64 {
	section := i.file.Section(".go.module")
	if section == nil {
		return 0
	}
	const slices, pointerBytes = 6, 8
	text, _ := i.readNumber(section.Addr + (1+3*slices+3)*pointerBytes)
	return text
}
