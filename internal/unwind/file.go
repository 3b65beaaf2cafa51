//go:build linux

package unwind

import (
	"bytes"
	"cmp"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
)

// File is what is known of an executable file.
type File struct {
	Machine elf.Machine
	BuildID BuildID
	// Segments are those that are executable, in the order of their addresses.
	Segments []Segment
	// Go is where code of Go is; nil: there is none. The table has RuleGo there.
	Go *GoText
	// Table may have no rows: then frame pointers are all there is to try. It is never nil.
	Table *Table
	// Counts are about the table.
	Counts Counts
}

// Segment is a part of a file that is mapped as executable code.
type Segment struct {
	Offset, FileBytes    uint64 // in the file
	Address, MemoryBytes uint64 // in the file's own address space
}

// BuildID has the identities of a file that the profiles of OpenTelemetry know, as in process.executable.build_id.*.
type BuildID struct {
	GNU     string // in hexadecimal; empty: there is none
	Go      string // empty: there is none
	HTLHash string // in hexadecimal; of any file
}

// Key is the best of them.
func (b BuildID) Key() string {
	switch {
	case b.GNU != "":
		return "gnu:" + b.GNU
	case b.Go != "":
		return "go:" + b.Go
	}
	return "htlhash:" + b.HTLHash
}

// Bias is what an address of a process has to be reduced by to become one of the file's own address space, if so many bytes
// from the start of the file are mapped at start.
func (f *File) Bias(start, offset uint64) (uint64, bool) {
	for _, s := range f.Segments {
		if offset >= s.Offset && offset-s.Offset < s.FileBytes {
			return start - (s.Address + (offset - s.Offset)), true
		}
	}
	// A mapping begins at a page, so perhaps in front of where its segment begins in the file.
	const largestPageBytes = 64 << 10
	for _, s := range f.Segments {
		if offset < s.Offset && s.Offset-offset < largestPageBytes {
			return start - (s.Address - (s.Offset - offset)), true
		}
	}
	return 0, false
}

// image is an ELF file while it is read. Nothing of its contents but the headers is in memory.
type image struct {
	reader  io.ReaderAt
	size    int64
	file    *elf.File
	machine *architecture
	base    uint64
	vdso    bool
	found   *File

	sections []*frameSection // once they have been looked for
}

// ReadFile reads a program or library of so many bytes. The error wraps a *Failure. If it is only about the table, there is
// the file, whose table has no rows.
func ReadFile(reader io.ReaderAt, size int64) (*File, error) {
	return readImage(reader, size, false)
}

// ReadVDSO reads the vDSO from what Mapping.ReadImage returned, like ReadFile.
func ReadVDSO(data []byte) (*File, error) {
	return readImage(bytes.NewReader(data), int64(len(data)), true)
}

func readImage(reader io.ReaderAt, size int64, vdso bool) (*File, error) {
	opened, err := openImage(reader, size)
	if err != nil {
		return nil, err
	}
	opened.vdso = vdso
	return opened.found, opened.readTable()
}

// openImage reads all but the table.
func openImage(reader io.ReaderAt, size int64) (*image, error) {
	i := &image{reader: reader, size: size, found: &File{Table: &Table{}}}
	if err := i.readHeaders(); err != nil {
		return nil, err
	}
	if err := i.readSegments(); err != nil {
		return nil, err
	}
	if err := i.readBuildID(); err != nil {
		return nil, err
	}
	if err := i.readGo(); err != nil {
		return nil, err
	}
	return i, nil
}

// allowance lets a library read only so much: it believes what a file says about its sizes, and a sparse file has them.
type allowance struct {
	reader io.ReaderAt
	left   int64
}

var errAllowance = errors.New("headers are larger than those of any real file")

func (a *allowance) ReadAt(buffer []byte, offset int64) (int, error) {
	if a.left -= int64(len(buffer)); a.left < 0 {
		return 0, errAllowance
	}
	return a.reader.ReadAt(buffer, offset)
}

func (i *image) readHeaders() (err error) {
	var magic [len(elf.ELFMAG)]byte
	switch _, err := i.reader.ReadAt(magic[:], 0); {
	case err != nil && !errors.Is(err, io.EOF):
		return failure(ReasonUnreadable, "read the head of an ELF file: %w", err)
	case string(magic[:]) != elf.ELFMAG:
		return failure(ReasonNotELF, "a file that begins with %x is no ELF file", magic)
	}
	defer func() {
		if panicked := recover(); panicked != nil { // debug/elf does so for some malformed files
			err = failure(ReasonMalformed, "read the headers of an ELF file: %v", panicked)
		}
	}()
	// One that asks for more bytes than there are is answered with an error, which becomes io.EOF for what lies behind the end.
	i.file, err = elf.NewFile(&allowance{reader: io.NewSectionReader(i.reader, 0, i.size), left: maxHeaderBytes})
	switch {
	case errors.Is(err, errAllowance):
		return failure(ReasonTooLarge, "read the headers of an ELF file: %w", err)
	case err != nil:
		return failure(ReasonMalformed, "read the headers of an ELF file: %w", err)
	case i.file.Type != elf.ET_EXEC && i.file.Type != elf.ET_DYN:
		return failure(ReasonNotELF, "an ELF file of %v is no program and no library", i.file.Type)
	}
	i.machine = architectureOf(i.file.Machine)
	if i.machine == nil || i.file.Class != elf.ELFCLASS64 || i.file.Data != elf.ELFDATA2LSB {
		return failure(ReasonArchitecture, "stacks of %v of %v cannot be walked", i.file.Machine, i.file.Class)
	}
	i.found.Machine = i.file.Machine
	return nil
}

func (i *image) readSegments() error {
	for _, header := range i.file.Progs {
		if header.Type != elf.PT_LOAD || header.Flags&elf.PF_X == 0 || header.Memsz == 0 {
			continue
		}
		if header.Vaddr+header.Memsz < header.Vaddr || header.Off+header.Filesz < header.Off || header.Filesz > header.Memsz {
			return failure(ReasonMalformed, "the segment at %#x has %#x of %#x bytes in the file", header.Vaddr,
				header.Filesz, header.Memsz)
		}
		if len(i.found.Segments) == maxSegments {
			return failure(ReasonTooLarge, "an ELF file has more than %d executable segments", maxSegments)
		}
		i.found.Segments = append(i.found.Segments, Segment{
			Offset: header.Off, FileBytes: header.Filesz, Address: header.Vaddr, MemoryBytes: header.Memsz,
		})
	}
	segments := i.found.Segments
	if len(segments) == 0 {
		return failure(ReasonMalformed, "an ELF file has no executable segment")
	}
	slices.SortFunc(segments, func(a, b Segment) int {
		if a.Address < b.Address {
			return -1
		}
		return 1
	})
	last := segments[len(segments)-1]
	i.base = segments[0].Address
	if last.Address+last.MemoryBytes-i.base > math.MaxUint32 {
		return failure(ReasonTooLarge, "executable segments lie more than 4 GiB apart")
	}
	return nil
}

// bytesAt reads what the file has for an address, as far as it has something.
func (i *image) bytesAt(address uint64, buffer []byte) int {
	for _, header := range i.file.Progs {
		if header.Type != elf.PT_LOAD || address < header.Vaddr || address-header.Vaddr >= header.Filesz {
			continue
		}
		skip := address - header.Vaddr
		buffer = buffer[:min(uint64(len(buffer)), header.Filesz-skip)]
		if header.Off+skip > math.MaxInt64 {
			return 0
		}
		read, err := i.reader.ReadAt(buffer, int64(header.Off+skip))
		if err != nil && !errors.Is(err, io.EOF) {
			return 0
		}
		return read
	}
	return 0
}

// frameSections are those that a table is made of, the better one first.
func (i *image) frameSections() ([]*frameSection, error) {
	if i.sections != nil {
		return i.sections, nil
	}
	var sections []*frameSection
	for _, name := range [...]string{".eh_frame", ".debug_frame"} {
		section := i.file.Section(name)
		if section == nil || section.Type == elf.SHT_NOBITS {
			continue
		}
		if name == ".debug_frame" && i.found.Go != nil {
			continue // It describes code of Go, which has frame pointers.
		}
		opened, err := i.openFrames(section, name != ".eh_frame")
		if err != nil {
			return nil, err
		}
		if opened != nil {
			sections = append(sections, opened)
		}
	}
	if len(sections) == 0 || sections[0].debug {
		if found := i.framesByHeader(); found != nil {
			sections = append([]*frameSection{found}, sections...)
		}
	}
	i.sections = sections
	return sections, nil
}

func (i *image) openFrames(section *elf.Section, debug bool) (*frameSection, error) {
	if section.Flags&elf.SHF_COMPRESSED != 0 {
		return i.unpackFrames(section, debug)
	}
	if section.FileSize > maxFrameBytes {
		return nil, failure(ReasonTooLarge, "%s has %d bytes", section.Name, section.FileSize)
	}
	if section.Offset > uint64(i.size) {
		return nil, failure(ReasonMalformed, "%s lies behind the end of the file", section.Name)
	}
	size := min(int64(section.FileSize), i.size-int64(section.Offset))
	return &frameSection{
		reader: io.NewSectionReader(i.reader, int64(section.Offset), size), size: size, address: section.Addr, debug: debug,
	}, nil
}

// unpackFrames reads a compressed section into memory.
func (i *image) unpackFrames(section *elf.Section, debug bool) (*frameSection, error) {
	if section.Size > maxUnpackedBytes || section.FileSize > maxUnpackedBytes {
		return nil, failure(ReasonTooLarge, "%s has %d bytes", section.Name, section.Size)
	}
	data, err := io.ReadAll(io.LimitReader(section.Open(), maxUnpackedBytes))
	if err != nil {
		return nil, failure(ReasonMalformed, "unpack %s: %w", section.Name, err)
	}
	return &frameSection{reader: bytes.NewReader(data), size: int64(len(data)), address: section.Addr, debug: debug}, nil
}

// framesByHeader finds .eh_frame of a file without section headers by .eh_frame_hdr, which has its address (LSB, "The
// .eh_frame_hdr section"). Where it ends is known by a record of length zero only.
func (i *image) framesByHeader() *frameSection {
	for _, header := range i.file.Progs {
		if header.Type != elf.PT_GNU_EH_FRAME {
			continue
		}
		var data [12]byte
		c := cursor{data: data[:i.bytesAt(header.Vaddr, data[:])]}
		const version = 1
		if c.uint8() != version {
			return nil
		}
		encoding := c.uint8()
		c.take(2) // encodings of the search table
		var address uint64
		if encoding&pointerBase == 0x30 { // relative to this section
			address = header.Vaddr + c.number(encoding)
		} else {
			address = c.pointer(encoding, header.Vaddr)
		}
		if c.failed {
			return nil
		}
		for _, segment := range i.file.Progs {
			if segment.Type != elf.PT_LOAD || address < segment.Vaddr || address-segment.Vaddr >= segment.Filesz {
				continue
			}
			skip := address - segment.Vaddr
			if segment.Off+skip < skip || segment.Off+skip > uint64(i.size) {
				return nil
			}
			size := min(int64(min(segment.Filesz-skip, maxFrameBytes)), i.size-int64(segment.Off+skip))
			return &frameSection{
				reader: io.NewSectionReader(i.reader, int64(segment.Off+skip), size), size: size, address: address, unbounded: true,
			}
		}
	}
	return nil
}

// readTable makes the table.
func (i *image) readTable() error {
	sections, err := i.frameSections()
	if err != nil {
		return err
	}
	c := newCollector(i.machine, i.base, i.found.Segments)
	for _, section := range sections {
		first := len(c.functions)
		if err := c.read(section); err != nil {
			return fmt.Errorf("read the stack frames of a file: %w", err)
		}
		if first > 0 {
			c.preferred(first)
		}
		c.sort()
	}
	i.found.Table, i.found.Counts = c.table(i.fillers()), c.counts
	return nil
}

// fillers are the ranges of code that is known without being described.
func (i *image) fillers() []filler {
	fillers := i.linkages()
	if i.found.Go != nil {
		fillers = append(fillers, filler{
			start: uint32(i.found.Go.Start - i.base), end: uint32(i.found.Go.End - i.base),
			row: Row{Rule: RuleGo, FramePointer: FramePointerKept},
		})
	}
	if i.vdso {
		fillers = append(fillers, i.signalReturns()...)
	}
	// Where two overlap, which happens only if sections do, the one that begins first ends where the second begins.
	slices.SortFunc(fillers, func(a, b filler) int { return cmp.Compare(a.start, b.start) })
	for index := 1; index < len(fillers); index++ {
		before := &fillers[index-1]
		before.end = min(before.end, fillers[index].start)
	}
	return fillers
}

// readNumber reads an aligned word of the file's memory image.
func (i *image) readNumber(address uint64) (uint64, bool) {
	var data [8]byte
	if i.bytesAt(address, data[:]) < len(data) {
		return 0, false
	}
	return binary.LittleEndian.Uint64(data[:]), true
}
