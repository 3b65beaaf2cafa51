// Package http2test makes of the bytes of an HTTP/2 connection what the kernel side tells of them.
package http2test

import "github.com/ebpfreceiver/ebpfreceiver/internal/http/http2"

// Preface is the client's connection preface (RFC 9113 section 3.4).
const Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

const headerBytes = 9

// Compactor follows one direction of a connection as the kernel side does. It goes on whether what it tells arrives or not.
type Compactor struct {
	// MaxCaptured bounds the captured bytes of a call; 0: there is no bound.
	MaxCaptured int
	// NoPreface says that the direction does not begin with a preface, as that of a server.
	NoPreface bool
	// HidePreface leaves Call.Preface to be found out.
	HidePreface bool

	offset  uint32
	preface int // how many bytes of it were there
	header  [headerBytes]byte
	have    int
	left    int
	data    bool // the frame is DATA
	padded  bool // its first byte is the length of the padding, and comes next
}

// Call tells of the next call, which moved these bytes.
func (c *Compactor) Call(moved []byte, timeNs uint64) http2.Call {
	call := http2.Call{
		TimeNs: timeNs, Offset: c.offset, Length: uint32(len(moved)), FrameLeft: uint32(c.left), HeaderHave: uint8(c.have),
	}
	c.offset += uint32(len(moved))
	if !c.NoPreface && c.preface < len(Preface) {
		took := min(len(moved), len(Preface)-c.preface)
		c.preface += took
		moved = moved[took:]
		if !c.HidePreface {
			call.Preface = uint8(took)
		}
	}
	for len(moved) > 0 {
		var took int
		if c.left == 0 {
			took = copy(c.header[c.have:], moved)
			c.capture(&call, moved[:took])
			if c.have += took; c.have == headerBytes {
				c.have = 0
				c.left = int(c.header[0])<<16 | int(c.header[1])<<8 | int(c.header[2])
				c.data = c.header[3] == 0
				c.padded = c.data && c.header[4]&0x8 != 0
			}
		} else {
			took = min(c.left, len(moved))
			c.left -= took
			switch {
			case !c.data:
				c.capture(&call, moved[:took])
			case c.padded:
				c.capture(&call, moved[:1])
			}
			c.padded = false
		}
		moved = moved[took:]
	}
	return call
}

func (c *Compactor) capture(call *http2.Call, bytes []byte) {
	if call.Truncated {
		return
	}
	if room := c.MaxCaptured - len(call.Captured); c.MaxCaptured > 0 && len(bytes) > room {
		bytes = bytes[:room]
		call.Truncated = true
	}
	call.Captured = append(call.Captured, bytes...)
}
