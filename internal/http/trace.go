//go:build linux

package http

import (
	"encoding/binary"

	"go.opentelemetry.io/collector/pdata/pcommon"
)

// Trace flags of W3C Trace Context.
const flagSampled = 0x01

// maxTraceState is how long a tracestate may be to be passed on: W3C Trace Context, "tracestate Limits", asks for at
// least this much of everybody, and lets nobody expect more.
const maxTraceState = 512

// traceContext is what a traceparent header says.
type traceContext struct {
	trace  pcommon.TraceID
	parent pcommon.SpanID
	flags  uint8
}

// parseTraceParent reads a traceparent header as W3C Trace Context level 2 has it: exactly version 00, and of a higher
// version the part that version 00 has too. False stands for a header that has to be treated as if it were not there.
func parseTraceParent(header string) (traceContext, bool) {
	// 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
	const length = 55
	var parsed traceContext
	if len(header) < length || header[2] != '-' || header[35] != '-' || header[52] != '-' {
		return parsed, false
	}
	var version, flags [1]byte
	if !decodeHex(version[:], header[:2]) || version[0] == 0xff {
		return parsed, false
	}
	if len(header) > length && (version[0] == 0 || header[length] != '-') {
		return parsed, false
	}
	if !decodeHex(parsed.trace[:], header[3:35]) ||
		!decodeHex(parsed.parent[:], header[36:52]) ||
		!decodeHex(flags[:], header[53:55]) ||
		parsed.trace.IsEmpty() || parsed.parent.IsEmpty() {
		return traceContext{}, false
	}
	parsed.flags = flags[0]
	return parsed, true
}

// decodeHex fills target with text, which is twice as long. Upper case is an error, unlike in encoding/hex.
func decodeHex(target []byte, text string) bool {
	for i := range target {
		high, low := hexDigit(text[2*i]), hexDigit(text[2*i+1])
		if high > 15 || low > 15 {
			return false
		}
		target[i] = high<<4 | low
	}
	return true
}

func hexDigit(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	default:
		return 0xff
	}
}

// identity is the place of an exchange in a trace.
type identity struct {
	trace  pcommon.TraceID
	span   pcommon.SpanID
	parent pcommon.SpanID // zero: none
	flags  uint8          // of W3C Trace Context
	state  string         // tracestate
	// sampled says that the span is reported. Until a sampler has decided, it says what the flags say.
	sampled bool
}

// identifier gives exchanges their identities. It is not safe for concurrent use, unless random is.
type identifier struct {
	random func() uint64 // for exchanges that cannot be recognized on their other end
}

// identify tells the place of an exchange in a trace.
//
// An application that propagates W3C Trace Context decides trace, parent, flags and state. Without, trace and span id
// are derived from what names the exchange on both of its ends: these then agree on the trace, also on two hosts, with
// nothing sent, and a server knows the span of its client. What is not known on both ends is random.
func (i *identifier) identify(e *Exchange) identity {
	id := identity{flags: flagSampled}
	own, named := purposeServerSpan, e.FlowID != 0
	if e.Role == RoleClient {
		own = purposeClientSpan
	}
	if named {
		id.span = derivedSpan(e, own)
	} else {
		putUint64(id.span[:], i.random())
	}

	context, ok := parseTraceParent(e.TraceParent)
	switch {
	case ok:
		id.trace, id.parent, id.flags = context.trace, context.parent, context.flags
		id.state = passedState(e.TraceState)
	case named:
		// Two halves from two purposes: that one of them collides says nothing of the other.
		putUint64(id.trace[:8], derive(e.FlowID, e.RequestOffset, purposeTraceHigh))
		putUint64(id.trace[8:], derive(e.FlowID, e.RequestOffset, purposeTraceLow))
		if e.Role == RoleServer && e.ClientSeen {
			id.parent = derivedSpan(e, purposeClientSpan)
		}
	default:
		putUint64(id.trace[:8], i.random())
		putUint64(id.trace[8:], i.random())
	}
	id.sampled = id.flags&flagSampled != 0
	return id
}

// passedState gives back a tracestate that may be passed on: one of a length that everybody has to take, in printable
// ASCII, to which W3C Trace Context limits it.
func passedState(state string) string {
	if len(state) > maxTraceState {
		return ""
	}
	for i := range len(state) {
		if c := state[i]; (c < ' ' && c != '\t') || c > '~' {
			return ""
		}
	}
	return state
}

// What an id is derived for. Random numbers: an id for one purpose then says nothing of that for another. They and
// derive are a protocol between hosts: to change them takes the spans of two versions apart.
const (
	purposeTraceHigh  uint64 = 0x8f0c3fb7a1d2e659
	purposeTraceLow   uint64 = 0x2b7e94d1c6083af5
	purposeServerSpan uint64 = 0x5ad6f1920e4c7b83
	purposeClientSpan uint64 = 0xc3191a6e85b0d74f
)

// derive hashes what names an exchange. Anybody who knows both may recompute it: ids are no secrets.
func derive(flow uint64, offset uint32, purpose uint64) uint64 {
	return mix(mix(flow^purpose) + uint64(offset)*0x9e3779b97f4a7c15)
}

// mix is the finalizer of splitmix64 (Steele, Lea, Flood 2014, variant 13 of Stafford): a bijection in which every bit
// of x changes about half of the result's.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func derivedSpan(e *Exchange, purpose uint64) (span pcommon.SpanID) {
	putUint64(span[:], derive(e.FlowID, e.RequestOffset, purpose))
	return span
}

// putUint64 never writes zero: an id (or half of one) of all zeros would be none.
func putUint64(target []byte, value uint64) {
	binary.BigEndian.PutUint64(target, max(value, 1))
}
