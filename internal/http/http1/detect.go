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
