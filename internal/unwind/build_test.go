//go:build linux

package unwind

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
)

// Places in the files that tests make.
const (
	testCode   = 0x401000 // where the executable segment begins, and functions do
	testFrames = 0x500000 // where .eh_frame or .debug_frame is
	codeBytes  = 0x1000
)

// frames writes call frame information by hand.
type frames struct {
	data  bytes.Buffer
	debug bool
}

// common writes a CIE with an augmentation and its data, and returns its place.
func (f *frames) common(version byte, augmentation string, data []byte, returnAddress byte, instructions ...byte) int {
	var body bytes.Buffer
	body.WriteByte(version)
	body.WriteString(augmentation)
	body.WriteByte(0)
	if version >= 4 {
		body.Write([]byte{8, 0}) // bytes of an address and of a segment
	}
	body.Write([]byte{1, 0x78, returnAddress}) // code alignment, data alignment -8
	if len(augmentation) > 0 && augmentation[0] == 'z' {
		body.WriteByte(byte(len(data)))
		body.Write(data)
	}
	body.Write(instructions)
	place := f.data.Len()
	identifier := uint32(0)
	if f.debug {
		identifier = 0xffffffff
	}
	f.write(binary.LittleEndian.AppendUint32(nil, identifier), body.Bytes())
	return place
}

// amd64Common is what compilers begin with: the CFA is rsp+8, the return address below it.
func (f *frames) amd64Common() int {
	if f.debug {
		return f.common(3, "", nil, 16, 0x0c, 7, 8, 0x90, 1)
	}
	return f.common(1, "zR", []byte{0x1b}, 16, 0x0c, 7, 8, 0x90, 1)
}

func (f *frames) write(parts ...[]byte) {
	body := bytes.Join(parts, nil)
	for len(body)%8 != 4 {
		body = append(body, 0)
	}
	f.data.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(body))))
	f.data.Write(body)
}

// function writes an FDE with pointers of the encoding sdata4|pcrel, or absolute ones for .debug_frame.
func (f *frames) function(common int, start, length uint64, instructions ...byte) {
	if f.debug {
		head := binary.LittleEndian.AppendUint32(nil, uint32(common))
		head = binary.LittleEndian.AppendUint64(head, start)
		f.write(binary.LittleEndian.AppendUint64(head, length), instructions)
		return
	}
	at := f.data.Len() + 4
	head := binary.LittleEndian.AppendUint32(nil, uint32(at-common))
	head = binary.LittleEndian.AppendUint32(head, uint32(start-(testFrames+uint64(at)+4)))
	head = binary.LittleEndian.AppendUint32(head, uint32(length))
	f.write(append(head, 0), instructions)
}

// section is what the parser gets.
func (f *frames) section() *frameSection {
	data := f.data.Bytes()
	return &frameSection{reader: bytes.NewReader(data), size: int64(len(data)), address: testFrames, debug: f.debug}
}

// inFile is the section of a file.
func (f *frames) inFile() testSection {
	return testSection{
		name: ".eh_frame", kind: elf.SHT_PROGBITS, flags: elf.SHF_ALLOC, address: testFrames, data: f.data.Bytes(),
	}
}

// tableOf reads sections, the second one to complete the first.
func tableOf(machine elf.Machine, sections ...*frameSection) (*Table, Counts, error) {
	c := newCollector(architectureOf(machine), testCode, []Segment{{Address: testCode, MemoryBytes: codeBytes}})
	for _, section := range sections {
		first := len(c.functions)
		if err := c.read(section); err != nil {
			return nil, c.counts, err
		}
		if first > 0 {
			c.preferred(first)
		}
		c.sort()
	}
	return c.table(nil), c.counts, nil
}

// testSection is a section of a file that tests make.
type testSection struct {
	name    string
	kind    elf.SectionType
	flags   elf.SectionFlag
	address uint64
	data    []byte
}

// elfFile makes a file with one executable segment at testCode, and one with .eh_frame, whose headers can be changed.
func elfFile(machine elf.Machine, sections []testSection, change func(*elf.Header64, []elf.Prog64)) []byte {
	return elfFileAt(0x1000+codeBytes, machine, sections, change)
}

// elfFileAt puts the sections at a place in the file, perhaps where there would be code.
func elfFileAt(
	place int, machine elf.Machine, sections []testSection, change func(*elf.Header64, []elf.Prog64),
) []byte {
	const headerBytes, programBytes, sectionBytes = 64, 56, 64
	programs := []elf.Prog64{{
		Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Off: 0x1000, Vaddr: testCode, Filesz: codeBytes,
		Memsz: codeBytes,
	}}
	var body bytes.Buffer
	body.Write(make([]byte, place))
	names := []byte{0}
	headers := make([]elf.Section64, 1, len(sections)+2)
	for _, section := range append(sections, testSection{name: ".shstrtab", kind: elf.SHT_STRTAB}) {
		header := elf.Section64{
			Name: uint32(len(names)), Type: uint32(section.kind), Flags: uint64(section.flags), Addr: section.address,
			Off: uint64(body.Len()), Size: uint64(len(section.data)),
		}
		names = append(append(names, section.name...), 0)
		if section.name == ".shstrtab" {
			section.data = names
			header.Size = uint64(len(names))
		}
		if section.kind == elf.SHT_NOTE {
			programs = append(programs, elf.Prog64{Type: uint32(elf.PT_NOTE), Off: header.Off, Filesz: header.Size})
		}
		if section.name == ".eh_frame" {
			programs = append(programs, elf.Prog64{
				Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R), Off: header.Off, Vaddr: section.address, Filesz: header.Size,
				Memsz: header.Size,
			})
		}
		body.Write(section.data)
		headers = append(headers, header)
	}
	head := elf.Header64{
		Type: uint16(elf.ET_DYN), Machine: uint16(machine), Version: 1, Phoff: headerBytes, Ehsize: headerBytes,
		Phentsize: programBytes, Phnum: uint16(len(programs)), Shoff: uint64(body.Len()), Shentsize: sectionBytes,
		Shnum: uint16(len(headers)), Shstrndx: uint16(len(headers) - 1),
	}
	copy(head.Ident[:], elf.ELFMAG)
	head.Ident[elf.EI_CLASS], head.Ident[elf.EI_DATA], head.Ident[elf.EI_VERSION] = 2, 1, 1
	if change != nil {
		change(&head, programs)
	}
	_ = binary.Write(&body, binary.LittleEndian, headers)
	var start bytes.Buffer
	_ = binary.Write(&start, binary.LittleEndian, head)
	_ = binary.Write(&start, binary.LittleEndian, programs)
	data := body.Bytes()
	copy(data, start.Bytes())
	return data
}
