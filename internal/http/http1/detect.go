package http1

import "bytes"

// LooksLikeRequest says whether b may be the first bytes of a request: one of the methods of RFC 9110, or PATCH, and a
// space. It says no where b is too short to tell.
func LooksLikeRequest(b []byte) bool {
	space := bytes.IndexByte(b[:min(len(b), len("CONNECT "))], ' ')
	if space < 0 {
		return false
	}
	switch string(b[:space]) {
	case "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH":
		return true
	}
	return false
}

// LooksLikeResponse says whether b may be the first bytes of a response.
func LooksLikeResponse(b []byte) bool {
	const prefix = "HTTP/1."
	return len(b) >= len(prefix) && string(b[:len(prefix)]) == prefix
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
