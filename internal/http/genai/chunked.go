package genai

import "bytes"

// sizeLine reads the line of chunked transfer coding (RFC 9112 section 7.1) that data begins with: the size of a chunk,
// and how long the line is with its line break. ok is false where there is none.
func sizeLine(data []byte) (size, length int, ok bool) {
	digits := 0
	for ; digits < len(data) && digits < 8; digits++ {
		digit := bytes.IndexByte([]byte("0123456789abcdef"), data[digits]|0x20)
		if digit < 0 || data[digits] < '0' {
			break
		}
		size = size<<4 | digit
	}
	if digits == 0 {
		return 0, 0, false
	}
	end := bytes.IndexByte(data[digits:], '\n')
	if end < 1 || data[digits+end-1] != '\r' || end > 1 && data[digits] != ';' && !isSpace(data[digits]) {
		return 0, 0, false
	}
	return size, digits + end + 1, true
}

// dechunkBeginning is the content of a body's first bytes, without the framing of chunked transfer coding if there is one:
// no body that is read here begins with a line that is a number, but for that.
func dechunkBeginning(data []byte) []byte {
	if _, _, chunked := sizeLine(data); !chunked {
		return data
	}
	var content []byte
	for {
		size, length, ok := sizeLine(data)
		if !ok || size == 0 {
			return content
		}
		data = data[length:]
		content = append(content, data[:min(size, len(data))]...)
		if len(data) < size+2 {
			return content
		}
		data = data[size+2:]
	}
}

// dechunkEnd is the content of a body's last bytes, without the framing of chunked transfer coding if they end as it does.
// What looks like the line before a chunk is one if chunk after chunk leads from there to the end.
func dechunkEnd(data []byte) []byte {
	const lineBreak = "\r\n"
	if !bytes.HasSuffix(data, []byte(lineBreak+lineBreak)) {
		return data
	}
	leads := make([]bool, len(data)) // whether a line at this place leads to the end
	first := -1
	for at := len(data) - 1; at >= 0; at-- {
		if at > 0 && !bytes.HasSuffix(data[:at], []byte(lineBreak)) {
			continue
		}
		size, length, ok := sizeLine(data[at:])
		if !ok {
			continue
		}
		next := at + length + size + len(lineBreak)
		// What comes after the last chunk are its trailers.
		leads[at] = size == 0 && first < 0 || size > 0 && next < len(data) && leads[next]
		if leads[at] {
			first = at
		}
	}
	if first < 0 {
		return data
	}
	content := append([]byte(nil), data[:max(0, first-len(lineBreak))]...)
	for at := first; ; {
		size, length, _ := sizeLine(data[at:])
		if size == 0 {
			return content
		}
		content = append(content, data[at+length:at+length+size]...)
		at += length + size + len(lineBreak)
	}
}
