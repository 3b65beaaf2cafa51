//go:build linux

package symbol

import (
	"bytes"
	"cmp"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/therootcompany/xz"
)

// nativeTable is an index of functions of .symtab and .dynsym, sorted by address. Names stay in the file.
type nativeTable struct {
	base    uint64 // of all starts
	symbols []nativeSymbol
	names   [2]region // of .symtab (or of .gnu_debugdata) and of .dynsym
}

// nativeSymbol has 12 bytes, as there may be a million.
type nativeSymbol struct {
	start uint32
	size  uint32 // 0: up to the next one, or the end of the section
	name  uint32 // place in the table of names, and in the highest bit which table
}

const (
	symbolBytes     = 24 // Elf64_Sym
	nativeBytes     = 12
	maxNative       = 4 << 20
	maxNativeTable  = 1 << 30
	dynamicName     = 1 << 31
	maxUnpacked     = 64 << 20 // bytes of .gnu_debugdata: of the largest libraries it has some 10 MB
	maxDictionary   = 64 << 20
	maxPackedSource = 32 << 20
)

// nativeCandidate is a symbol while there may still be others at the same address.
type nativeCandidate struct {
	nativeSymbol
	rank uint8
}

// openNative makes the index of a file and of what .gnu_debugdata in it has. Symbols of a separate debug file, which may be
// nil, take the place of those.
func openNative(o, separate *object) (*nativeTable, error) {
	static, dynamic := o.sectionOf(elf.SHT_SYMTAB), o.sectionOf(elf.SHT_DYNSYM)
	staticOwner := o
	if static == nil && separate != nil {
		static, staticOwner = separate.sectionOf(elf.SHT_SYMTAB), separate
	}
	if static == nil {
		if packed := o.section(".gnu_debugdata"); packed != nil {
			if unpacked, err := unpack(o.data(packed)); err == nil {
				static, staticOwner = unpacked.sectionOf(elf.SHT_SYMTAB), unpacked
			}
		}
	}
	if static == nil && dynamic == nil {
		return nil, fmt.Errorf("find .symtab, .dynsym or .gnu_debugdata: %w", ErrNoSymbols)
	}
	t := &nativeTable{base: math.MaxUint64}
	for _, segment := range o.segments {
		if segment.Executable {
			t.base = min(t.base, segment.Address)
		}
	}
	var candidates []nativeCandidate
	var err error
	if dynamic != nil {
		candidates, err = t.collect(o, o, dynamic, dynamicName, candidates)
	}
	if static != nil && err == nil {
		candidates, err = t.collect(o, staticOwner, static, 0, candidates)
	}
	if err != nil {
		return nil, err
	}
	if t.settle(candidates); len(t.symbols) == 0 {
		return nil, fmt.Errorf("find functions in .symtab and .dynsym: %w", ErrNoSymbols)
	}
	if staticOwner != o && (separate == nil || staticOwner != separate) {
		t.shrinkNames()
	}
	return t, nil
}

func (o *object) sectionOf(kind elf.SectionType) *section {
	for index := range o.sections {
		if found := &o.sections[index]; found.kind == kind && found.size >= symbolBytes && int(found.link) < len(o.sections) {
			return found
		}
	}
	return nil
}

// unpack reads .gnu_debugdata (MiniDebugInfo): an ELF file with nothing but .symtab, packed with xz. The limits hold for the
// time of unpacking only.
func unpack(packed region) (*object, error) {
	if packed.size() > maxPackedSource {
		return nil, fmt.Errorf("unpack the %d bytes of .gnu_debugdata: %w", packed.size(), ErrTooLarge)
	}
	reader, err := xz.NewReader(bytes.NewReader(packed.bytes), maxDictionary)
	if err != nil {
		return nil, fmt.Errorf("unpack .gnu_debugdata: %w", errors.Join(err, ErrMalformed))
	}
	unpacked, err := readLimited(reader, maxUnpacked)
	if err != nil {
		return nil, fmt.Errorf("unpack .gnu_debugdata: %w", errors.Join(err, ErrMalformed))
	}
	return openObject(&file{bytes: unpacked})
}

// collect adds the functions of one table.
func (t *nativeTable) collect(o, owner *object, table *section, which uint32, candidates []nativeCandidate) (
	[]nativeCandidate, error) {
	names := owner.data(&owner.sections[table.link])
	if names.size() >= dynamicName || table.size > maxNativeTable {
		return nil, fmt.Errorf("read %d bytes of symbols: %w", table.size, ErrTooLarge)
	}
	index := 0
	if which == dynamicName {
		index = 1
	}
	t.names[index] = names
	order := binary.LittleEndian
	for symbols := owner.data(table).bytes; len(symbols) >= symbolBytes; symbols = symbols[symbolBytes:] {
		kind, binding := elf.ST_TYPE(symbols[4]), elf.ST_BIND(symbols[4])
		address, size := order.Uint64(symbols[8:]), order.Uint64(symbols[16:])
		name := order.Uint32(symbols)
		const gnuIndirect = elf.STT_LOOS // STT_GNU_IFUNC
		if kind != elf.STT_FUNC && kind != gnuIndirect && kind != elf.STT_NOTYPE || name == 0 ||
			order.Uint16(symbols[6:]) == uint16(elf.SHN_UNDEF) || order.Uint16(symbols[6:]) >= uint16(elf.SHN_LORESERVE) ||
			address < t.base || address-t.base > math.MaxUint32 || !o.executable(address) {
			continue
		}
		text := names.name(uint64(name))
		if len(text) == 0 || kind == elf.STT_NOTYPE && (text[0] == '$' || bytes.HasPrefix(text, []byte(".L"))) {
			continue // Marks of code and data on arm64, and labels.
		}
		if len(candidates) == maxNative {
			return nil, fmt.Errorf("read more than %d symbols: %w", maxNative, ErrTooLarge)
		}
		candidates = append(candidates, nativeCandidate{
			nativeSymbol{uint32(address - t.base), uint32(min(size, math.MaxUint32)), name | which},
			rank(kind, binding, size, text),
		})
	}
	return candidates, nil
}

// rank orders the names of one address; the lowest is taken. Names that the public calls a function by come before those
// that a library has for itself, as `write` and `__libc_write`.
func rank(kind elf.SymType, binding elf.SymBind, size uint64, name []byte) uint8 {
	var rank uint8
	if kind == elf.STT_NOTYPE {
		rank += 64
	}
	if size == 0 {
		rank += 32
	}
	switch binding {
	case elf.STB_GLOBAL:
	case elf.STB_WEAK:
		rank += 4
	default:
		rank += 8
	}
	// Names of C++ and Rust begin with _Z and _R.
	if len(name) > 1 && name[0] == '_' && name[1] == '_' {
		rank += 16
	}
	return rank
}

// settle leaves one symbol at each address, and no marks inside of functions.
func (t *nativeTable) settle(candidates []nativeCandidate) {
	slices.SortFunc(candidates, func(a, b nativeCandidate) int {
		return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.rank, b.rank), cmp.Compare(a.name, b.name))
	})
	kept := candidates[:0]
	covered := uint64(0) // Up to where the function before reaches.
	for _, candidate := range candidates {
		if len(kept) > 0 {
			if kept[len(kept)-1].start == candidate.start {
				continue
			}
			if candidate.size == 0 && uint64(candidate.start) < covered {
				continue
			}
		}
		covered = max(covered, uint64(candidate.start)+uint64(candidate.size))
		kept = append(kept, candidate)
	}
	t.symbols = make([]nativeSymbol, len(kept))
	for index, candidate := range kept {
		t.symbols[index] = candidate.nativeSymbol
	}
}

// shrinkNames copies the names of functions out of a file that is not kept.
func (t *nativeTable) shrinkNames() {
	var names []byte
	for index := range t.symbols {
		symbol := &t.symbols[index]
		if symbol.name&dynamicName == 0 {
			name := t.names[0].name(uint64(symbol.name))
			symbol.name = uint32(len(names))
			names = append(append(names, name...), 0)
		}
	}
	t.names[0] = region{bytes: slices.Clip(names)}
}

// maxNested is how many functions are looked at that begin before an address and end before it too: parts of functions
// lie within others in code written by hand.
const maxNested = 8

// lookup finds the name of the function at an address.
func (t *nativeTable) lookup(o *object, address uint64) (string, error) {
	if address < t.base || address-t.base > math.MaxUint32 || !o.executable(address) {
		return "", ErrNoSymbol
	}
	at := uint32(address - t.base)
	next, found := slices.BinarySearchFunc(t.symbols, at, func(symbol nativeSymbol, at uint32) int {
		return cmp.Compare(symbol.start, at)
	})
	if found {
		next++
	}
	for index := next - 1; index >= 0 && index >= next-maxNested; index-- {
		symbol := t.symbols[index]
		switch {
		case symbol.size == 0 && index == next-1 && o.sameSection(address, t.base+uint64(symbol.start)):
		case symbol.size > at-symbol.start:
		default:
			continue
		}
		names := t.names[symbol.name>>31]
		if name, ok := names.text(uint64(symbol.name &^ dynamicName)); ok {
			return name, nil
		}
		return "", fmt.Errorf("read the name of a symbol: %w", ErrMalformed)
	}
	return "", ErrNoSymbol
}

// sameSection tells whether two addresses lie in the same section, or in the same segment where there are no sections.
func (o *object) sameSection(a, b uint64) bool {
	for _, section := range o.sections {
		if section.flags&elf.SHF_EXECINSTR != 0 && b >= section.address && b-section.address < section.size {
			return a >= section.address && a-section.address < section.size
		}
	}
	return len(o.sections) == 0
}

func (t *nativeTable) retained() int64 {
	size := int64(cap(t.symbols)) * nativeBytes
	if t.names[0].start == 0 { // A copy.
		size += int64(cap(t.names[0].bytes))
	}
	return size
}
