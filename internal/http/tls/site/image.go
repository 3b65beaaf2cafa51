package site

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

const (
	chunkBytes = 64 << 10
	// Limits that no real program comes near to: node, with all its symbols, has 8 MB of names.
	maxNameBytes   = 256 << 20
	maxSymbolBytes = 256 << 20
)

// image is an ELF file of which nothing is kept in memory but its headers.
type image struct {
	reader io.ReaderAt
	file   *elf.File
}

// guarded runs a function that reads a file with debug/elf, which panics on some malformed ones.
func guarded(read func() error) (err error) {
	defer func() {
		if panicked := recover(); panicked != nil {
			err = fmt.Errorf("the file is malformed: %v", panicked)
		}
	}()
	return read()
}

func openImage(reader io.ReaderAt) (*image, error) {
	file, err := elf.NewFile(reader)
	if err != nil {
		return nil, fmt.Errorf("read the headers of an ELF file: %w", err)
	}
	if file.Type != elf.ET_EXEC && file.Type != elf.ET_DYN {
		return nil, fmt.Errorf("an ELF file of %v is no program and no library: %w", file.Type, ErrNone)
	}
	if file.Machine != elf.EM_X86_64 || file.Class != elf.ELFCLASS64 || file.Data != elf.ELFDATA2LSB {
		return nil, fmt.Errorf("machine code of %v: %w", file.Machine, ErrUnsupported)
	}
	return &image{reader: reader, file: file}, nil
}

// offset finds the place of an instruction in the file.
func (i *image) offset(address uint64) (uint64, bool) {
	for _, segment := range i.file.Progs {
		if segment.Type == elf.PT_LOAD && segment.Flags&elf.PF_X != 0 &&
			address >= segment.Vaddr && address-segment.Vaddr < segment.Filesz {
			return address - segment.Vaddr + segment.Off, true
		}
	}
	return 0, false
}

// read fills a buffer with what the file has for an address, and tells how much there was.
func (i *image) read(buffer []byte, address uint64) int {
	for _, segment := range i.file.Progs {
		if segment.Type != elf.PT_LOAD || address < segment.Vaddr || address-segment.Vaddr >= segment.Filesz {
			continue
		}
		skip := address - segment.Vaddr
		if rest := segment.Filesz - skip; rest < uint64(len(buffer)) {
			buffer = buffer[:rest]
		}
		place := segment.Off + skip
		if place > math.MaxInt64 {
			return 0
		}
		count, err := i.reader.ReadAt(buffer, int64(place))
		if err != nil && !errors.Is(err, io.EOF) {
			return 0
		}
		return count
	}
	return 0
}

func (i *image) pointer(address uint64) (uint64, bool) {
	var buffer [8]byte
	if i.read(buffer[:], address) != len(buffer) {
		return 0, false
	}
	return binary.LittleEndian.Uint64(buffer[:]), true
}

// function is a symbol.
type function struct {
	address uint64
	size    uint64 // 0: not known
}

// symbols finds functions by their names: in the dynamic symbols, and of those that are not there, in the static ones.
func (i *image) symbols(names []string) (map[string]function, error) {
	found := make(map[string]function, len(names))
	for _, kind := range []elf.SectionType{elf.SHT_DYNSYM, elf.SHT_SYMTAB} {
		for _, table := range i.file.Sections {
			if table.Type != kind || table.Link == 0 || int(table.Link) >= len(i.file.Sections) || len(found) == len(names) {
				continue
			}
			if err := i.symbolsOf(table, i.file.Sections[table.Link], names, found); err != nil {
				return nil, fmt.Errorf("look for symbols in %s: %w", table.Name, err)
			}
		}
	}
	return found, nil
}

// symbolsOf adds what one table has. Two passes over the file need no more memory than one chunk: for the places of the
// names, and for the symbols that have them.
func (i *image) symbolsOf(table, strings *elf.Section, names []string, found map[string]function) error {
	if strings.Type != elf.SHT_STRTAB || strings.FileSize > maxNameBytes || table.FileSize > maxSymbolBytes {
		return errors.New("the table has no names, or more than any program")
	}
	places, err := findNames(i.section(strings), names)
	if err != nil || len(places) == 0 {
		return err
	}
	const symbolBytes = 24 // Elf64_Sym
	return eachChunk(i.section(table), symbolBytes, func(chunk []byte) bool {
		for ; len(chunk) >= symbolBytes; chunk = chunk[symbolBytes:] {
			name, wanted := places[binary.LittleEndian.Uint32(chunk)]
			if !wanted {
				continue
			}
			defined := elf.ST_TYPE(chunk[4]) == elf.STT_FUNC && binary.LittleEndian.Uint16(chunk[6:]) != uint16(elf.SHN_UNDEF)
			if _, known := found[name]; defined && !known {
				found[name] = function{
					address: binary.LittleEndian.Uint64(chunk[8:]),
					size:    binary.LittleEndian.Uint64(chunk[16:]),
				}
			}
		}
		return len(found) < len(names)
	})
}

// section reads the bytes of a section as the file has them.
func (i *image) section(section *elf.Section) *io.SectionReader {
	if section.Type == elf.SHT_NOBITS || section.Offset > math.MaxInt64 || section.FileSize > math.MaxInt64 {
		return io.NewSectionReader(i.reader, 0, 0)
	}
	return io.NewSectionReader(i.reader, int64(section.Offset), int64(section.FileSize))
}

// findNames finds strings that end with a zero byte, also as the ends of longer ones: linkers share those.
func findNames(table *io.SectionReader, names []string) (map[uint32]string, error) {
	longest := 0
	var byEnd [256][]string // by the last character
	for _, name := range names {
		if name == "" {
			continue
		}
		longest = max(longest, len(name)+1)
		end := name[len(name)-1]
		byEnd[end] = append(byEnd[end], name)
	}
	places := map[uint32]string{}
	// Each window begins with the end of the one before.
	buffer := make([]byte, 0, chunkBytes+longest)
	kept := 0
	for read := int64(0); read < table.Size(); {
		window := buffer[:min(int64(cap(buffer)), int64(kept)+table.Size()-read)]
		count, err := table.ReadAt(window[kept:], read)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("read names: %w", err)
		}
		if count == 0 {
			break
		}
		window = window[:kept+count]
		start := read - int64(kept)
		read += int64(count)
		for from := kept; ; {
			length := bytes.IndexByte(window[from:], 0)
			if length < 0 {
				break
			}
			end := from + length
			if end > 0 {
				for _, name := range byEnd[window[end-1]] {
					if len(name) <= end && string(window[end-len(name):end]) == name {
						places[uint32(start)+uint32(end-len(name))] = name
					}
				}
			}
			from = end + 1
		}
		kept = copy(buffer[:cap(buffer)], window[max(0, len(window)-longest):])
	}
	return places, nil
}

// eachChunk hands out a table piece by piece, in whole records, until it is told to stop.
func eachChunk(table *io.SectionReader, recordBytes int, handle func(chunk []byte) bool) error {
	buffer := make([]byte, chunkBytes/recordBytes*recordBytes)
	for start := int64(0); start < table.Size(); start += int64(len(buffer)) {
		count, err := table.ReadAt(buffer, start)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read a table: %w", err)
		}
		if !handle(buffer[:count]) || count < len(buffer) {
			return nil
		}
	}
	return nil
}

// relocated reads pointers that the dynamic linker fills in when it loads the file. Those without a relocation are as the
// file has them.
func (i *image) relocated(addresses []uint64) (map[uint64]uint64, error) {
	values := make(map[uint64]uint64, len(addresses))
	for _, address := range addresses {
		if value, ok := i.pointer(address); ok {
			values[address] = value
		}
	}
	const relocationBytes = 24 // Elf64_Rela
	for _, section := range i.file.Sections {
		if section.Type != elf.SHT_RELA || section.Flags&elf.SHF_ALLOC == 0 || section.FileSize > maxSymbolBytes {
			continue
		}
		err := eachChunk(i.section(section), relocationBytes, func(chunk []byte) bool {
			for ; len(chunk) >= relocationBytes; chunk = chunk[relocationBytes:] {
				address := binary.LittleEndian.Uint64(chunk)
				if _, wanted := values[address]; wanted &&
					binary.LittleEndian.Uint32(chunk[8:]) == uint32(elf.R_X86_64_RELATIVE) {
					values[address] = binary.LittleEndian.Uint64(chunk[16:])
				}
			}
			return true
		})
		if err != nil {
			return nil, fmt.Errorf("read relocations in %s: %w", section.Name, err)
		}
	}
	return values, nil
}
