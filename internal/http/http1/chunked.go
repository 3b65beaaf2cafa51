package http1

import "bytes"

// ChunkedBody is how long the chunked body is that data begins with, with its trailers, if data has its end.
func ChunkedBody(data []byte) (length int, whole bool) {
	rest := data
	for {
		line, ok := cutLine(&rest)
		if !ok {
			return 0, false
		}
		size, ok := chunkSize(line)
		if !ok {
			return 0, false
		}
		if size == 0 {
			break
		}
		if size > len(rest) {
			return 0, false
		}
		rest = rest[size:]
		if line, ok = cutLine(&rest); !ok || len(line) > 0 {
			return 0, false
		}
	}
	for {
		line, ok := cutLine(&rest)
		if !ok {
			return 0, false
		}
		if len(line) == 0 {
			return len(data) - len(rest), true
		}
	}
}

// cutLine cuts a line off, and gives it without its break.
func cutLine(rest *[]byte) (line []byte, ok bool) {
	end := bytes.IndexByte(*rest, '\n')
	if end < 0 {
		return nil, false
	}
	line = bytes.TrimSuffix((*rest)[:end], []byte{'\r'})
	*rest = (*rest)[end+1:]
	return line, true
}

// chunkSize reads the size that a chunk's first line begins with.
func chunkSize(line []byte) (size int, ok bool) {
	for i, b := range line {
		var digit int
		switch {
		case '0' <= b && b <= '9':
			digit = int(b - '0')
		case 'a' <= b|0x20 && b|0x20 <= 'f':
			digit = int(b|0x20-'a') + 10
		default:
			return size, i > 0
		}
		if size = size<<4 | digit; size > 1<<30 {
			return 0, false
		}
	}
	return size, len(line) > 0
}

// EndsChunked says whether tail, the last bytes of a write, end a chunked body that has no trailers. whole: tail is all
// of the write, which may be the last chunk alone.
func EndsChunked(tail []byte, whole bool) bool {
	const lastChunk = "0\r\n\r\n"
	const end = "\r\n" + lastChunk
	if whole && string(tail) == lastChunk {
		return true
	}
	return len(tail) >= len(end) && string(tail[len(tail)-len(end):]) == end
}
