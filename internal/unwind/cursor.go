//go:build linux

package unwind

import (
	"bytes"
	"encoding/binary"
)

// cursor reads numbers from bytes. Behind their end it reads zeros and has failed.
type cursor struct {
	data   []byte
	at     int
	failed bool
}

func (c *cursor) more() bool { return c.at < len(c.data) && !c.failed }

// take returns the next bytes; nil if there are not so many.
func (c *cursor) take(count uint64) []byte {
	if count > uint64(len(c.data)-c.at) {
		c.failed = true
		c.at = len(c.data)
		return nil
	}
	taken := c.data[c.at : c.at+int(count)]
	c.at += int(count)
	return taken
}

func (c *cursor) uint8() uint8 {
	if c.at >= len(c.data) {
		c.failed = true
		return 0
	}
	c.at++
	return c.data[c.at-1]
}

func (c *cursor) uint16() uint16 {
	if taken := c.take(2); taken != nil {
		return binary.LittleEndian.Uint16(taken)
	}
	return 0
}

func (c *cursor) uint32() uint32 {
	if taken := c.take(4); taken != nil {
		return binary.LittleEndian.Uint32(taken)
	}
	return 0
}

func (c *cursor) uint64() uint64 {
	if taken := c.take(8); taken != nil {
		return binary.LittleEndian.Uint64(taken)
	}
	return 0
}

// unsigned reads a ULEB128 (DWARF 5, 7.6). More bits than 64 are a failure.
func (c *cursor) unsigned() uint64 {
	var value uint64
	for shift := uint(0); ; shift += 7 {
		next := c.uint8()
		bits := uint64(next & 0x7f)
		if shift >= 64 && bits != 0 || shift == 63 && bits > 1 {
			c.failed = true
		}
		if shift < 64 {
			value |= bits << shift
		}
		if next < 0x80 || c.failed {
			return value
		}
	}
}

// signed reads an SLEB128. Bits beyond 64 have to repeat the sign.
func (c *cursor) signed() int64 {
	var value int64
	for shift := uint(0); ; shift += 7 {
		next := c.uint8()
		bits := int64(next & 0x7f)
		switch {
		case shift < 63:
			value |= bits << shift
		case shift == 63:
			value |= bits << shift
			if bits != 0 && bits != 0x7f {
				c.failed = true
			}
		default:
			if bits != 0 && value >= 0 || bits != 0x7f && value < 0 {
				c.failed = true
			}
		}
		if next < 0x80 || c.failed {
			if next&0x40 != 0 && shift < 57 {
				value |= -1 << (shift + 7)
			}
			return value
		}
	}
}

// text reads a string that ends with a zero, which is not returned.
func (c *cursor) text() []byte {
	length := bytes.IndexByte(c.data[c.at:], 0)
	if length < 0 {
		c.failed = true
		c.at = len(c.data)
		return nil
	}
	taken := c.data[c.at : c.at+length]
	c.at += length + 1
	return taken
}

// Encodings of pointers (LSB, "DWARF Exception Header Encoding"): DW_EH_PE_*.
const (
	pointerAbsolute = 0x00
	pointerRelative = 0x10 // to where the pointer is
	pointerFormat   = 0x0f
	pointerBase     = 0x70
	pointerIndirect = 0x80
	pointerOmitted  = 0xff
)

// pointer reads a pointer; address is where the data begins in the file's address space. Those that only the dynamic linker
// can resolve are a failure: they are not used for places of code.
func (c *cursor) pointer(encoding uint8, address uint64) uint64 {
	at := address + uint64(c.at)
	value := c.number(encoding)
	switch {
	case encoding == pointerOmitted || encoding&pointerIndirect != 0:
		c.failed = true
	case encoding&pointerBase == pointerRelative:
		value += at
	case encoding&pointerBase != pointerAbsolute:
		c.failed = true
	}
	return value
}

// number reads what a pointer consists of, whatever it is relative to.
func (c *cursor) number(encoding uint8) uint64 {
	switch encoding & pointerFormat {
	case 0x0, 0x4, 0xc: // absptr, udata8, sdata8
		return c.uint64()
	case 0x1: // uleb128
		return c.unsigned()
	case 0x2: // udata2
		return uint64(c.uint16())
	case 0x3: // udata4
		return uint64(c.uint32())
	case 0x9: // sleb128
		return uint64(c.signed())
	case 0xa: // sdata2
		return uint64(int64(int16(c.uint16())))
	case 0xb: // sdata4
		return uint64(int64(int32(c.uint32())))
	}
	c.failed = true
	return 0
}
