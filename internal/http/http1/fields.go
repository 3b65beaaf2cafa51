package http1

import (
	"bytes"
	"math"
)

// maxFieldLines bounds the work on one head.
const maxFieldLines = 256

// fieldLines goes through the field lines of a head, and keeps what they say about framing and connection.
type fieldLines struct {
	captured []byte
	position int // where the next line starts
	lines    int // how many were looked at
	result   Result

	name, value []byte // of the current field

	codings       bool  // there is Transfer-Encoding
	chunked       bool  // its last coding
	contentLength int64 // -1: none
	// Content-Length is no number or not one only, or a field of framing is folded, which endpoints read differently.
	badLength, badFraming bool
	framingField          bool // the current field is one of framing

	upgrading   bool // an option of Connection
	hasProtocol bool // there is Upgrade
	toHTTP2     bool // it says h2c
}

// next goes to the next field. Without one, result says what the head is.
func (f *fieldLines) next() bool {
	for {
		line, size := f.line()
		switch {
		case size == 0:
			f.result = Partial
			return false
		case len(line) == 0:
			f.position += size
			f.result = Complete
			return false
		case f.lines == maxFieldLines:
			f.result = Partial
			return false
		}
		f.position += size
		f.lines++
		if isBlank(line[0]) {
			if f.lines == 1 { // nothing that it could belong to
				f.result = Malformed
				return false
			}
			f.badFraming = f.badFraming || f.framingField
			continue
		}
		if !f.split(line) {
			f.result = Malformed
			return false
		}
		return true
	}
}

// line returns the next line without its line break, and its size with it: 0 if it is cut off.
func (f *fieldLines) line() (line []byte, size int) {
	rest := f.captured[f.position:]
	end := bytes.IndexByte(rest, '\n')
	if end < 0 {
		return nil, 0
	}
	line = rest[:end]
	if end > 0 && line[end-1] == '\r' {
		line = line[:end-1]
	}
	return line, end + 1
}

// split takes a field line apart. Names are not held to be tokens: servers skip unusual ones, and go on.
func (f *fieldLines) split(line []byte) bool {
	for i, c := range line {
		switch {
		case c == ':':
			f.name, f.value = line[:i], trim(line[i+1:])
			return i > 0
		case c == ' ' || isControl(c):
			return false
		}
	}
	return false
}

// common reads the current field if it is about framing or the connection.
func (f *fieldLines) common() bool {
	f.framingField = false
	switch {
	case isName(f.name, "content-length"):
		f.framingField = true
		f.readContentLength()
	case isName(f.name, "transfer-encoding"):
		f.framingField = true
		f.readTransferEncoding()
	case isName(f.name, "connection"):
		f.readConnection()
	case isName(f.name, "upgrade"):
		f.hasProtocol = f.hasProtocol || len(f.value) > 0
		f.toHTTP2 = f.toHTTP2 || isName(f.value, "h2c")
	default:
		return false
	}
	return true
}

// first keeps the first of several values.
func first(kept *[]byte, value []byte) {
	if *kept == nil {
		*kept = value
	}
}

// readContentLength reads a number, or the same number several times, which is what joined fields look like.
func (f *fieldLines) readContentLength() {
	for rest, more := f.value, true; more; {
		var element []byte
		element, rest, more = nextElement(rest)
		length, ok := number(element)
		if !ok || f.contentLength >= 0 && length != f.contentLength {
			f.badLength = true
			return
		}
		f.contentLength = length
	}
}

// number reads digits; more than an int64 holds are none.
func number(digits []byte) (int64, bool) {
	var value int64
	for _, c := range digits {
		if !isDigit(c) {
			return 0, false
		}
		digit := int64(c - '0')
		if value > (math.MaxInt64-digit)/10 {
			return 0, false
		}
		value = value*10 + digit
	}
	return value, len(digits) > 0
}

func (f *fieldLines) readTransferEncoding() {
	f.codings = true
	for rest, more := f.value, true; more; {
		var coding []byte
		coding, rest, more = nextElement(rest)
		if len(coding) > 0 {
			f.chunked = isName(coding, "chunked")
		}
	}
}

func (f *fieldLines) readConnection() {
	for rest, more := f.value, true; more; {
		var option []byte
		option, rest, more = nextElement(rest)
		f.upgrading = f.upgrading || isName(option, "upgrade")
	}
}

// nextElement cuts the first element off a comma-separated list.
func nextElement(list []byte) (element, rest []byte, more bool) {
	comma := bytes.IndexByte(list, ',')
	if comma < 0 {
		return trim(list), nil, false
	}
	return trim(list[:comma]), list[comma+1:], true
}
