package http1

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

const (
	// repeatedHeads is how many heads are remembered, of requests and of responses each: a power of two.
	repeatedHeads = 128
	// maxRepeatedBytes bounds each of them.
	maxRepeatedBytes = 1 << 10
	// hashedBytes is how much of the beginning of a head says where it is remembered.
	hashedBytes = 64
)

// repeated remembers heads that were read, by their bytes. Clients that poll and servers that answer alike send the same head
// again and again: to compare it takes a fifth of the time that it takes to read it. Of other traffic nearly nothing is
// remembered, so it does not pay for that.
type repeated[head any] struct {
	heads [repeatedHeads]struct {
		bytes  []byte // empty: there is none
		head   head
		misses uint32 // other heads that came since this one did
	}
}

// place is where a head is remembered. What follows it in the call may be in its first bytes, and in its length: the same
// head mostly comes with as much.
func place(captured []byte) int {
	hash := uint64(len(captured))
	for first := captured[:min(len(captured), hashedBytes)]; len(first) >= 8; first = first[8:] {
		hash = bits.RotateLeft64(hash^binary.LittleEndian.Uint64(first), 29) * 0x9e3779b97f4a7c15
	}
	return int(hash >> 32 % repeatedHeads)
}

// at gives the head that captured starts with, if it is the one that is remembered there; else nil.
func (r *repeated[head]) at(place int, captured []byte) *head {
	known := &r.heads[place]
	if len(known.bytes) == 0 || !bytes.HasPrefix(captured, known.bytes) {
		return nil
	}
	known.misses = 0
	return &known.head
}

// learns says whether a head is to be remembered in a place. The more others came there since one came again, the rarer.
func (r *repeated[head]) learns(place int, size int) bool {
	known := &r.heads[place]
	known.misses++
	return size <= maxRepeatedBytes && known.misses&(known.misses-1) == 0
}

// Requests reads the heads of requests, and remembers those that come again. Its zero value is ready for use. It is not safe
// for concurrent use.
type Requests struct {
	repeated repeated[Request]
	last     Request
}

// Parse is that of a Request. What it gives is valid until the next call, and is not to be changed.
func (r *Requests) Parse(captured []byte) (*Request, Result) {
	place := place(captured)
	if known := r.repeated.at(place, captured); known != nil {
		return known, Complete
	}
	result := r.last.Parse(captured)
	if result == Complete && r.repeated.learns(place, r.last.Bytes) {
		known := &r.repeated.heads[place]
		known.bytes = append(known.bytes[:0], captured[:r.last.Bytes]...)
		known.head.Parse(known.bytes)
	}
	return &r.last, result
}

// Responses reads the heads of responses, and remembers those that come again. Its zero value is ready for use. It is not
// safe for concurrent use.
type Responses struct {
	repeated repeated[Response]
	last     Response
}

// Parse is that of a Response. What it gives is valid until the next call, and is not to be changed.
func (r *Responses) Parse(captured, requestMethod []byte) (*Response, Result) {
	if method := string(requestMethod); method == "HEAD" || method == "CONNECT" { // no allocation
		return &r.last, r.last.Parse(captured, requestMethod) // the same head says something else there
	}
	place := place(captured)
	if known := r.repeated.at(place, captured); known != nil {
		return known, Complete
	}
	result := r.last.Parse(captured, requestMethod)
	if result == Complete && r.repeated.learns(place, r.last.Bytes) {
		known := &r.repeated.heads[place]
		known.bytes, known.head = append(known.bytes[:0], captured[:r.last.Bytes]...), r.last
	}
	return &r.last, result
}
