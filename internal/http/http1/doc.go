// Package http1 reads the heads of HTTP/1.x messages from the first bytes that were captured of them.
//
// It follows RFC 9110 and RFC 9112 the way an observer has to: what endpoints accept is read, what they reject is
// malformed. Byte slices in its results are views of the captured bytes, and valid as long as those are.
package http1
