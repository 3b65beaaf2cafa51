//go:build linux

package symbol

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"path"
	"slices"
)

// lineProgram is the table of lines of a unit (DWARF 5, section 6.2, and versions 2 to 4). debug/dwarf is not used for it,
// as it takes as much memory as the table claims to need.
type lineProgram struct {
	rows        []lineRow
	directories []lineName
	files       []lineFile
	data        region // of .debug_line, which names are in up to version 4
	base        string // the directory of the compiler
	fileStart   uint32 // the number of the first file: 0 from version 5 on
}

type lineRow struct {
	address uint64
	file    uint32
	line    uint32 // 0: not known, or behind the end of code
	column  uint16
	end     bool
}

// lineName is a text in one of the sections.
type lineName struct {
	place   uint32
	section uint8
}

type lineFile struct {
	name      lineName
	directory uint32
}

const (
	inLine uint8 = iota // .debug_line
	inLineText
	inText

	rowBytes     = 24
	maxRows      = 2 << 20
	maxLineFiles = 64 << 10
)

// cursor reads a table from its start; after the end it is not ok, and all values are zero.
type cursor struct {
	data  region
	place uint64
	bad   bool
}

func (c *cursor) bytes(count uint64) []byte {
	view := c.data.at(c.place, count)
	if view == nil || c.bad {
		c.bad = true
		return nil
	}
	c.place += count
	return view
}

func (c *cursor) fixed(count uint64) uint64 {
	var buffer [8]byte
	copy(buffer[:], c.bytes(count))
	return binary.LittleEndian.Uint64(buffer[:])
}

func (c *cursor) unsigned() (value uint64) {
	for shift := 0; ; shift += 7 {
		current := c.fixed(1)
		if shift < 64 {
			value |= (current & 0x7f) << shift
		}
		if current < 0x80 {
			return value
		}
	}
}

func (c *cursor) signed() (value int64) {
	for shift := 0; ; shift += 7 {
		current := c.fixed(1)
		if shift < 64 {
			value |= int64(current&0x7f) << shift
		}
		if current < 0x80 {
			if shift += 7; shift < 64 && current&0x40 != 0 {
				value |= -1 << shift
			}
			return value
		}
	}
}

func (c *cursor) text() lineName {
	name := lineName{place: uint32(c.place), section: inLine}
	view := c.data.name(c.place)
	if view == nil || c.bad {
		c.bad = true
		return name
	}
	c.place += uint64(len(view)) + 1
	return name
}

// readLineProgram reads the table at the start of a region of .debug_line.
func readLineProgram(data region, base string) (p lineProgram, err error) {
	p.base, p.data = base, data
	c := cursor{data: data}
	offsetBytes := uint64(4)
	length := c.fixed(4)
	if length == 0xffffffff {
		offsetBytes, length = 8, c.fixed(8)
	}
	if c.bad || length > data.size()-c.place {
		return p, fmt.Errorf("read a table of lines: %w", ErrMalformed)
	}
	c.data = data.sub(0, c.place+length)
	version := c.fixed(2)
	if version < 2 || version > 5 {
		return p, fmt.Errorf("read a table of lines of version %d: %w", version, ErrUnsupported)
	}
	if version == 5 {
		c.fixed(2) // Sizes of addresses and segments.
	}
	program := c.fixed(offsetBytes)
	program += c.place
	quantum := c.fixed(1)
	if version >= 4 {
		c.fixed(1) // Operations in an instruction: 1 but for VLIW machines.
	}
	c.fixed(1) // The default of is_stmt.
	lineBase, lineRange, opcodeBase := int64(int8(c.fixed(1))), c.fixed(1), c.fixed(1)
	if c.bad || lineRange == 0 || opcodeBase == 0 || quantum == 0 {
		return p, fmt.Errorf("read the head of a table of lines: %w", ErrMalformed)
	}
	arguments := c.bytes(opcodeBase - 1)
	if version == 5 {
		p.names5(&c, offsetBytes)
	} else {
		p.names(&c)
	}
	if c.bad || program < c.place {
		return p, fmt.Errorf("read the files of a table of lines: %w", ErrMalformed)
	}
	c.place = program
	err = p.run(&c, quantum, lineBase, lineRange, opcodeBase, arguments)
	p.settle()
	return p, err
}

// names reads directories and files up to version 4. The first directory is the compiler's, and files count from 1.
func (p *lineProgram) names(c *cursor) {
	p.fileStart = 1
	p.directories = append(p.directories, lineName{})
	for !c.bad && len(p.directories) < maxLineFiles {
		view := c.data.name(c.place)
		if len(view) == 0 {
			c.fixed(1)
			break
		}
		p.directories = append(p.directories, c.text())
	}
	for !c.bad && len(p.files) < maxLineFiles {
		if view := c.data.name(c.place); len(view) == 0 {
			c.fixed(1)
			break
		}
		file := lineFile{name: c.text(), directory: uint32(c.unsigned())}
		c.unsigned() // When it was changed, and its size.
		c.unsigned()
		p.files = append(p.files, file)
	}
}

// names5 reads directories and files of version 5, whose form the table describes.
func (p *lineProgram) names5(c *cursor, offsetBytes uint64) {
	read := func(add func(lineFile)) {
		const path, directory = 1, 2 // DW_LNCT_path, DW_LNCT_directory_index
		formats := make([][2]uint64, c.fixed(1))
		for index := range formats {
			formats[index] = [2]uint64{c.unsigned(), c.unsigned()}
		}
		count := c.unsigned()
		if count > maxLineFiles || count > 0 && len(formats) == 0 {
			c.bad = true
		}
		for range count {
			var file lineFile
			for _, format := range formats {
				name, value := c.form(format[1], offsetBytes)
				switch format[0] {
				case path:
					file.name = name
				case directory:
					file.directory = uint32(value)
				}
			}
			if c.bad {
				return
			}
			add(file)
		}
	}
	read(func(file lineFile) { p.directories = append(p.directories, file.name) })
	read(func(file lineFile) { p.files = append(p.files, file) })
}

func (c *cursor) form(form, offsetBytes uint64) (name lineName, value uint64) {
	const (
		block2, block4, data2, data4, data8, text, block = 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09
		block1, data1, strp, udata, data16, lineStrp     = 0x0a, 0x0b, 0x0e, 0x0f, 0x1e, 0x1f
	)
	switch form {
	case data1:
		return name, c.fixed(1)
	case data2:
		return name, c.fixed(2)
	case data4:
		return name, c.fixed(4)
	case data8:
		return name, c.fixed(8)
	case data16:
		c.bytes(16)
	case udata:
		return name, c.unsigned()
	case text:
		return c.text(), 0
	case strp:
		return lineName{uint32(c.fixed(offsetBytes)), inText}, 0
	case lineStrp:
		return lineName{uint32(c.fixed(offsetBytes)), inLineText}, 0
	case block:
		c.bytes(c.unsigned())
	case block1:
		c.bytes(c.fixed(1))
	case block2:
		c.bytes(c.fixed(2))
	case block4:
		c.bytes(c.fixed(4))
	default:
		c.bad = true
	}
	return name, 0
}

// run carries out the program (section 6.2.5). A row is kept where something changes.
func (p *lineProgram) run(c *cursor, quantum uint64, lineBase int64, lineRange, opcodeBase uint64, arguments []byte) error {
	start := lineRow{file: 1, line: 1}
	row := start
	emit := func() {
		if last := len(p.rows) - 1; last >= 0 && !p.rows[last].end && !row.end {
			if same := p.rows[last]; same.address == row.address {
				p.rows[last] = row
				return
			} else if same.file == row.file && same.line == row.line && same.column == row.column {
				return
			}
		}
		p.rows = append(p.rows, row)
	}
	for c.place < c.data.size() && !c.bad {
		if len(p.rows) == maxRows {
			return fmt.Errorf("more than %d lines: %w", maxRows, ErrTooLarge)
		}
		opcode := c.fixed(1)
		if opcode >= opcodeBase {
			opcode -= opcodeBase
			row.address += opcode / lineRange * quantum
			row.line += uint32(lineBase + int64(opcode%lineRange))
			emit()
			continue
		}
		switch opcode {
		case 0: // Extended.
			size := c.unsigned()
			body := c.bytes(size)
			if len(body) == 0 {
				continue
			}
			switch {
			case body[0] == 1: // End of a sequence.
				row.end, row.line = true, 0
				emit()
				row = start
			case body[0] == 2 && len(body) == 9:
				row.address = binary.LittleEndian.Uint64(body[1:])
			}
		case 1: // Copy.
			emit()
		case 2:
			row.address += c.unsigned() * quantum
		case 3:
			row.line += uint32(c.signed())
		case 4:
			row.file = uint32(c.unsigned())
		case 5:
			row.column = uint16(min(c.unsigned(), 1<<16-1))
		case 8: // As the special opcode 255 does.
			row.address += (255 - opcodeBase) / lineRange * quantum
		case 9:
			row.address += c.fixed(2)
		default: // What does not change address, file or line.
			if int(opcode) <= len(arguments) {
				for range arguments[opcode-1] {
					c.unsigned()
				}
			}
		}
	}
	return nil
}

// settle sorts rows by address. Sequences do not overlap, but may be in any order; the end of one and the start of the next
// may be at the same address.
func (p *lineProgram) settle() {
	slices.SortStableFunc(p.rows, func(a, b lineRow) int {
		if a.address != b.address {
			return cmp.Compare(a.address, b.address)
		}
		switch {
		case a.end == b.end:
			return 0
		case a.end:
			return -1
		}
		return 1
	})
	p.rows = slices.Clip(p.rows)
}

func (p *lineProgram) lookup(address uint64) (file, line, column uint32) {
	index, _ := slices.BinarySearchFunc(p.rows, address, func(row lineRow, address uint64) int {
		if row.address <= address {
			return -1
		}
		return 1
	})
	if index == 0 || p.rows[index-1].end {
		return 0, 0, 0
	}
	row := p.rows[index-1]
	return row.file, row.line, uint32(row.column)
}

// file is the path of a file, joined with those of its directory and of the compiler where it is relative.
func (p *lineProgram) file(t *lineTable, number uint32) string {
	if number < p.fileStart || uint64(number-p.fileStart) >= uint64(len(p.files)) {
		return ""
	}
	file := p.files[number-p.fileStart]
	name := t.text(p, file.name)
	if name == "" || path.IsAbs(name) {
		return name
	}
	directory := ""
	if uint64(file.directory) < uint64(len(p.directories)) && (file.directory > 0 || p.fileStart == 0) {
		directory = t.text(p, p.directories[file.directory])
	}
	if !path.IsAbs(directory) {
		directory = path.Join(p.base, directory)
	}
	return path.Join(directory, name)
}

// text reads a name of the table.
func (t *lineTable) text(p *lineProgram, name lineName) string {
	text, _ := []region{p.data, t.lineTexts, t.texts}[name.section].text(uint64(name.place))
	return text
}

func (p *lineProgram) retained() int64 {
	return int64(cap(p.rows))*rowBytes + int64(cap(p.directories))*8 + int64(cap(p.files))*12
}
