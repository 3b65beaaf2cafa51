// Package http2 decodes one direction of an HTTP/2 connection (RFC 9113, HPACK of RFC 7541) from what the kernel side tells
// of it: its calls without the payload of DATA frames. It takes up a connection at any place, and goes on after losses.
//
// Everything here is pure, allocates nothing for each frame, and never panics on any input. What cannot be known, because
// bytes of it were not seen, is said to be unknown.
package http2
