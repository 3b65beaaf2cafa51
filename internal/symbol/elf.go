//go:build linux

package symbol

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

const (
	// Limits that no real program comes near to.
	maxSections = 16 << 10
	maxSegments = 256
	maxNotes    = 64 << 10 // bytes of one table of notes

	headerBytes  = 64 // Elf64_Ehdr
	sectionBytes = 64 // Elf64_Shdr
	segmentBytes = 56 // Elf64_Phdr
)

// object is an ELF file (System V gABI) of 64 bits, little-endian. It is read here rather than with debug/elf, which takes
// as much memory as a file claims to need.
type object struct {
	file     *file
	machine  elf.Machine
	entry    uint64
	sections []section
	segments []Segment
	identity Identity
	searched uint64 // bytes, see search
}

// maxSearched bounds what is searched for something without a table of places, in one file: sections can overlap, so that
// each of thousands can be the whole file.
const maxSearched = 2 << 30

// search takes a region from what may still be searched.
func (o *object) search(data region) region {
	data = data.sub(0, maxSearched-min(o.searched, maxSearched))
	o.searched += data.size()
	return data
}

type section struct {
	name    string
	kind    elf.SectionType
	flags   elf.SectionFlag
	address uint64
	offset  uint64
	size    uint64
	link    uint32
}

// Segment is a part of a file that is mapped into memory (PT_LOAD).
type Segment struct {
	Offset     uint64 // in the file
	Address    uint64 // in memory, before the file is moved to where there is room
	FileSize   uint64
	Executable bool
}

// Identity is what a file is known by. Each is a hexadecimal text but Go's, and empty where the file has none.
type Identity struct {
	GNU     string // attribute process.executable.build_id.gnu
	Go      string // attribute process.executable.build_id.go
	HTLHash string // attribute process.executable.build_id.htlhash: of the file's first and last 4096 bytes and its length
	// Segments convert places in the file to addresses.
	Segments []Segment
}

// Address converts a place in the file, as a mapping has it, to the address that symbols are counted in.
func (i Identity) Address(offset uint64) (uint64, bool) {
	for _, segment := range i.Segments {
		if offset >= segment.Offset && offset-segment.Offset < segment.FileSize && segment.Executable {
			return offset - segment.Offset + segment.Address, true
		}
	}
	return 0, false
}

// Offset converts an address to the place in the file, which a backend needs to find a symbol itself.
func (i Identity) Offset(address uint64) (uint64, bool) {
	for _, segment := range i.Segments {
		if address >= segment.Address && address-segment.Address < segment.FileSize {
			return address - segment.Address + segment.Offset, true
		}
	}
	return 0, false
}

func openObject(f *file) (*object, error) {
	whole := region{bytes: f.bytes}
	header := whole.at(0, headerBytes)
	if header == nil || string(header[:4]) != elf.ELFMAG {
		return nil, fmt.Errorf("read an ELF file: it does not begin like one: %w", ErrUnsupported)
	}
	if elf.Class(header[elf.EI_CLASS]) != elf.ELFCLASS64 || elf.Data(header[elf.EI_DATA]) != elf.ELFDATA2LSB {
		return nil, fmt.Errorf("read an ELF file of %v, %v: %w",
			elf.Class(header[elf.EI_CLASS]), elf.Data(header[elf.EI_DATA]), ErrUnsupported)
	}
	order := binary.LittleEndian
	o := &object{file: f, machine: elf.Machine(order.Uint16(header[18:])), entry: order.Uint64(header[24:])}
	segments, err := records(whole, order.Uint64(header[32:]), uint64(order.Uint16(header[56:])), maxSegments,
		order.Uint16(header[54:]), segmentBytes)
	if err != nil {
		return nil, fmt.Errorf("read the segments of an ELF file: %w", err)
	}
	for ; len(segments) > 0; segments = segments[segmentBytes:] {
		start, size := order.Uint64(segments[8:]), order.Uint64(segments[32:])
		switch elf.ProgType(order.Uint32(segments)) {
		case elf.PT_LOAD:
			o.segments = append(o.segments, Segment{
				Offset: start, Address: order.Uint64(segments[16:]), FileSize: size,
				Executable: elf.ProgFlag(order.Uint32(segments[4:]))&elf.PF_X != 0,
			})
		case elf.PT_NOTE:
			o.readNotes(f.region(start, size))
		}
	}
	if err := o.readSections(whole, header); err != nil {
		return nil, err
	}
	for _, section := range o.sections {
		if section.kind == elf.SHT_NOTE {
			o.readNotes(o.data(&section))
		}
	}
	o.identity.HTLHash = hash(whole)
	o.identity.Segments = o.segments
	return o, nil
}

func (o *object) readSections(whole region, header []byte) error {
	order := binary.LittleEndian
	place, count := order.Uint64(header[40:]), uint64(order.Uint16(header[60:]))
	names := uint64(order.Uint16(header[62:]))
	if place == 0 {
		return nil // They may be left out.
	}
	if first := whole.at(place, sectionBytes); first != nil && (count == 0 || names == uint64(elf.SHN_XINDEX)) {
		// What does not fit into 16 bits is in the section 0.
		if count == 0 {
			count = order.Uint64(first[32:])
		}
		if names == uint64(elf.SHN_XINDEX) {
			names = uint64(order.Uint32(first[40:]))
		}
	}
	table, err := records(whole, place, count, maxSections, order.Uint16(header[58:]), sectionBytes)
	if err != nil {
		return fmt.Errorf("read the sections of an ELF file: %w", err)
	}
	if names >= count {
		return nil
	}
	text := table[names*sectionBytes:]
	strings := o.file.region(order.Uint64(text[24:]), order.Uint64(text[32:]))
	o.sections = make([]section, 0, count)
	for ; len(table) > 0; table = table[sectionBytes:] {
		name := strings.name(uint64(order.Uint32(table)))
		name = name[:min(len(name), maxSectionName)]
		o.sections = append(o.sections, section{
			name: string(name), kind: elf.SectionType(order.Uint32(table[4:])), flags: elf.SectionFlag(order.Uint64(table[8:])),
			address: order.Uint64(table[16:]), offset: order.Uint64(table[24:]), size: order.Uint64(table[32:]),
			link: order.Uint32(table[40:]),
		})
	}
	return nil
}

const maxSectionName = 64

// records reads a table of an ELF file.
func records(whole region, place, count, limit uint64, size uint16, expected int) ([]byte, error) {
	if count == 0 {
		return nil, nil
	}
	if int(size) != expected {
		return nil, fmt.Errorf("entries of %d bytes: %w", size, ErrMalformed)
	}
	if count > limit {
		return nil, fmt.Errorf("%d entries: %w", count, ErrTooLarge)
	}
	table := whole.at(place, count*uint64(expected))
	if table == nil {
		return nil, fmt.Errorf("%d entries at %d, behind the end of the file: %w", count, place, ErrMalformed)
	}
	return table, nil
}

// section finds one by its name; nil if there is none.
func (o *object) section(name string) *section {
	for index := range o.sections {
		if o.sections[index].name == name {
			return &o.sections[index]
		}
	}
	return nil
}

func (o *object) data(s *section) region {
	if s == nil || s.kind == elf.SHT_NOBITS {
		return region{}
	}
	return o.file.region(s.offset, s.size)
}

// memory is what the file has from an address to the end of its segment.
func (o *object) memory(address uint64) region {
	for _, segment := range o.segments {
		if address >= segment.Address && address-segment.Address < segment.FileSize {
			skip := address - segment.Address
			return o.file.region(segment.Offset, segment.FileSize).sub(skip, segment.FileSize-skip)
		}
	}
	return region{}
}

// executable tells whether there is code at an address.
func (o *object) executable(address uint64) bool {
	for _, segment := range o.segments {
		if segment.Executable && address >= segment.Address && address-segment.Address < segment.FileSize {
			return true
		}
	}
	return false
}

// readNotes looks for build IDs (gABI, "Note Section"; NT_GNU_BUILD_ID, and 4 with the name "Go").
func (o *object) readNotes(notes region) {
	const gnuBuildID, goBuildID, noteBytes = 3, 4, 12
	table := notes.sub(0, maxNotes).bytes
	for len(table) >= noteBytes {
		nameBytes, textBytes := uint64(binary.LittleEndian.Uint32(table)), uint64(binary.LittleEndian.Uint32(table[4:]))
		kind := binary.LittleEndian.Uint32(table[8:])
		table = table[noteBytes:]
		padded := (nameBytes + 3) &^ 3
		if padded+textBytes > uint64(len(table)) {
			return
		}
		name, text := table[:nameBytes], table[padded:padded+textBytes]
		switch {
		case kind == gnuBuildID && string(name) == "GNU\x00" && len(text) <= 64:
			o.identity.GNU = hex.EncodeToString(text)
		case kind == goBuildID && string(name) == "Go\x00\x00" && len(text) <= 256:
			o.identity.Go = string(bytes.TrimRight(text, "\x00"))
		}
		table = table[min(padded+(textBytes+3)&^3, uint64(len(table))):]
	}
}

// hash is what the semantic conventions call htlhash: the first 16 bytes of SHA-256 over the first and the last 4096 bytes
// of the file, and its length in 8 bytes, big-endian.
func hash(whole region) string {
	const part = 4096
	count := min(part, whole.size())
	sum := sha256.New()
	sum.Write(whole.at(0, count))
	sum.Write(whole.at(whole.size()-count, count))
	sum.Write(binary.BigEndian.AppendUint64(nil, whole.size()))
	return hex.EncodeToString(sum.Sum(nil)[:16])
}
