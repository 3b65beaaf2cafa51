package http2

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// headerBytes is the length of a frame's header (RFC 9113 section 4.1).
const headerBytes = 9

// Types of frames (RFC 9113 section 6).
const (
	typeData         = 0x0
	typeHeaders      = 0x1
	typePriority     = 0x2
	typeReset        = 0x3
	typeSettings     = 0x4
	typePushPromise  = 0x5
	typePing         = 0x6
	typeGoAway       = 0x7
	typeWindowUpdate = 0x8
	typeContinuation = 0x9
)

// Flags of frames.
const (
	flagEndStream  = 0x1
	flagAck        = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

// settingHeaderTableSize is SETTINGS_HEADER_TABLE_SIZE (RFC 9113 section 6.5.2).
const (
	settingHeaderTableSize = 0x1
	settingBytes           = 6
)

const priorityBytes = 5

// frame is the header of a frame.
type frame struct {
	length uint32
	kind   uint8
	flags  uint8
	stream uint32
}

func readFrame(header []byte) frame {
	return frame{
		length: uint32(header[0])<<16 | uint32(header[1])<<8 | uint32(header[2]),
		kind:   header[3],
		flags:  header[4],
		stream: binary.BigEndian.Uint32(header[5:]) &^ (1 << 31),
	}
}

func (f *frame) has(flag uint8) bool { return f.flags&flag != 0 }

// carriesBlock says whether a part of a header block is in the frame.
func (f *frame) carriesBlock() bool {
	return f.kind == typeHeaders || f.kind == typePushPromise || f.kind == typeContinuation
}

var (
	errStream = errors.New("it is of the wrong stream")
	errLength = errors.New("it has the wrong length")
)

// check says what is wrong with a frame's header, where RFC 9113 section 6 makes it an error of the connection. What is
// no frame mostly fails here.
func (f *frame) check() error {
	ofStream, least, most := true, uint32(0), uint32(1<<24)
	switch f.kind {
	case typeData:
		least = f.front()
	case typeHeaders, typePushPromise:
		least = f.front()
	case typeContinuation:
	case typePriority:
		least, most = priorityBytes, priorityBytes
	case typeReset:
		least, most = 4, 4
	case typeSettings:
		ofStream = false
		if f.length%settingBytes != 0 || f.has(flagAck) && f.length > 0 {
			return f.failed(errLength)
		}
	case typePing:
		ofStream, least, most = false, 8, 8
	case typeGoAway:
		ofStream, least = false, 8
	case typeWindowUpdate:
		ofStream, least, most = f.stream != 0, 4, 4
	default:
		return nil // unknown types are to be ignored (section 5.5)
	}
	if ofStream != (f.stream != 0) {
		return f.failed(errStream)
	}
	if f.length < least || f.length > most {
		return f.failed(errLength)
	}
	return nil
}

// front is the number of bytes before what the frame carries.
func (f *frame) front() (length uint32) {
	if f.has(flagPadded) {
		length++
	}
	switch {
	case f.kind == typeHeaders && f.has(flagPriority):
		length += priorityBytes
	case f.kind == typePushPromise:
		length += 4
	}
	return length
}

func (f *frame) failed(err error) error {
	return fmt.Errorf("read frame of type %d with %d bytes on stream %d: %w", f.kind, f.length, f.stream, err)
}
