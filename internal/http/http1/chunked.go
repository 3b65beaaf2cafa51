package http1

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
