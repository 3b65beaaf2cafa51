//go:build linux

package http

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"go.opentelemetry.io/collector/pdata/pcommon"
)

// Propagators of trace context, as a configuration names them.
const (
	PropagatorTraceContext = "tracecontext"   // traceparent and tracestate, of W3C Trace Context
	PropagatorGRPCTraceBin = "grpc_trace_bin" // grpc-trace-bin, in the binary format of OpenCensus
	PropagatorB3           = "b3"             // b3 and x-b3-*, of Zipkin
)

// propagators says which headers are believed.
type propagators struct{ traceContext, grpcTraceBin, b3 bool }

func compilePropagators(names []string) (propagators, error) {
	var compiled propagators
	var errs []error
	for i, name := range names {
		switch name {
		case PropagatorTraceContext:
			compiled.traceContext = true
		case PropagatorGRPCTraceBin:
			compiled.grpcTraceBin = true
		case PropagatorB3:
			compiled.b3 = true
		default:
			errs = append(errs, fmt.Errorf("propagators[%d]: must be %q, %q or %q, got %q",
				i, PropagatorTraceContext, PropagatorGRPCTraceBin, PropagatorB3, name))
		}
	}
	return compiled, errors.Join(errs...)
}

// read gives what the first header says that is there, well-formed and believed: W3C Trace Context, which is the one that
// OpenTelemetry sends, before grpc-trace-bin and that before B3. False: none is.
func (p propagators) read(e *Exchange) (traceContext, bool) {
	if p.traceContext {
		if context, ok := parseTraceParent(e.TraceParent); ok {
			context.state = passedState(e.TraceState)
			return context, true
		}
	}
	if p.grpcTraceBin {
		if context, ok := parseTraceBin(e.TraceBin); ok {
			return context, true
		}
	}
	if p.b3 {
		return parseB3(e.B3)
	}
	return traceContext{}, false
}

// Trace flags of W3C Trace Context.
const flagSampled = 0x01

// maxTraceState is how long a tracestate may be to be passed on: W3C Trace Context, "tracestate Limits", asks for at
// least this much of everybody, and lets nobody expect more.
const maxTraceState = 512

// traceContext is what a header says of a trace.
type traceContext struct {
	trace  pcommon.TraceID // zero: only whether the trace is sampled is known
	parent pcommon.SpanID
	flags  uint8  // of W3C Trace Context; sampled where the header leaves the decision to who reads it
	state  string // tracestate
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

// parseTraceBin reads a grpc-trace-bin header: Trace Context in the binary encoding of OpenCensus
// (https://github.com/census-instrumentation/opencensus-specs/blob/master/encodings/BinaryEncoding.md), which gRPC sends
// as base64, padded or not ("gRPC over HTTP2", Custom-Metadata).
func parseTraceBin(header string) (traceContext, bool) {
	const (
		fieldTrace   = 0 // 16 bytes
		fieldSpan    = 1 // 8 bytes
		fieldOptions = 2 // 1 byte, whose lowest bit is that of W3C Trace Context
	)
	if header == "" {
		return traceContext{}, false
	}
	// A header that is there twice is joined by a comma. Fields of the future come after those that are known, and are
	// left out: 64 digits have room for all of these.
	var encoded [64]byte
	header, _, _ = strings.Cut(header, ",")
	digits := encoded[:copy(encoded[:], strings.TrimRight(header, "="))]
	var decoded [48]byte
	size, err := base64.RawStdEncoding.Decode(decoded[:], digits)
	if err != nil || size == 0 || decoded[0] != 0 { // the version
		return traceContext{}, false
	}
	parsed := traceContext{flags: flagSampled}
	for rest := decoded[1:size]; len(rest) > 0; {
		field, value := rest[0], rest[1:]
		var length int
		switch {
		case field == fieldTrace && len(value) >= len(parsed.trace):
			length = copy(parsed.trace[:], value)
		case field == fieldSpan && len(value) >= len(parsed.parent):
			length = copy(parsed.parent[:], value)
		case field == fieldOptions && len(value) >= 1:
			parsed.flags = value[0] & flagSampled
			length = 1
		case field <= fieldOptions: // cut off
			return traceContext{}, false
		default:
			length = len(value)
		}
		rest = value[length:]
	}
	if parsed.trace.IsEmpty() || parsed.parent.IsEmpty() {
		return traceContext{}, false
	}
	return parsed, true
}

// parseB3 reads a b3 header: {trace id}-{span id}, and after them -{sampling state} and -{parent span id} where they are
// known; or the sampling state alone (https://github.com/openzipkin/b3-propagation, "Single Header"). A trace id of 64
// bits is the lower half of one of 128.
func parseB3(header string) (traceContext, bool) {
	const spanDigits = 16
	if flags, ok := samplingState(header); ok {
		return traceContext{flags: flags}, true
	}
	parsed := traceContext{flags: flagSampled}
	trace, rest, _ := strings.Cut(header, "-")
	if len(trace) != 2*len(parsed.trace) && len(trace) != len(parsed.trace) {
		return traceContext{}, false
	}
	span, rest, hasState := strings.Cut(rest, "-")
	if len(span) != spanDigits ||
		!decodeHex(parsed.trace[len(parsed.trace)-len(trace)/2:], trace) || !decodeHex(parsed.parent[:], span) ||
		parsed.trace.IsEmpty() || parsed.parent.IsEmpty() {
		return traceContext{}, false
	}
	if !hasState {
		return parsed, true
	}
	state, grandparent, hasGrandparent := strings.Cut(rest, "-")
	flags, ok := samplingState(state)
	if !ok {
		return traceContext{}, false
	}
	parsed.flags = flags
	if hasGrandparent { // the span above the one that sent the request: nothing of ours
		var unused [spanDigits / 2]byte
		if len(grandparent) != spanDigits || !decodeHex(unused[:], grandparent) {
			return traceContext{}, false
		}
	}
	return parsed, true
}

// samplingState reads B3's: accept, deny, or debug, which is accept with emphasis.
func samplingState(state string) (flags uint8, ok bool) {
	switch state {
	case "1", "d":
		return flagSampled, true
	case "0":
		return 0, true
	}
	return 0, false
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
	// threshold is below which no trace is kept for what comes from here: see sampler.
	threshold uint64
	// sampled says that the span is reported. Until a sampler has decided, it says what the flags say.
	sampled bool
}

// identifier gives exchanges their identities. It is not safe for concurrent use, unless random is.
type identifier struct {
	random      func() uint64 // for exchanges that cannot be recognized on their other end
	propagators propagators
}

// identify tells the place of an exchange in a trace.
//
// An application that propagates a trace context decides trace, parent, flags and state. Without, it is the exchange that
// this one comes from, if that is known. Else the trace is derived from what names the exchange on both of its ends: these
// then agree on the trace, also on two hosts, with nothing sent, and a server knows the span of its client. So is the
// span id, in any case. What is not known on both ends is random.
func (i *identifier) identify(e *Exchange) identity {
	id := identity{flags: flagSampled, threshold: e.origin.threshold}
	own, named := purposeServerSpan, e.FlowID != 0
	if e.Role == RoleClient {
		own = purposeClientSpan
	}
	if named {
		id.span = derivedSpan(e, own)
	} else {
		putUint64(id.span[:], i.random())
	}

	context, ok := i.propagators.read(e)
	if ok {
		id.flags, id.state = context.flags, context.state
	}
	switch {
	case ok && !context.trace.IsEmpty():
		id.trace, id.parent = context.trace, context.parent
	case !e.origin.trace.IsEmpty():
		id.trace, id.parent, id.state = e.origin.trace, e.origin.span, e.origin.state
		if !ok {
			id.flags = e.origin.flags
		}
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
