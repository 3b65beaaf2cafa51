package http1

// B3 is a trace context in the header fields of Zipkin (https://github.com/openzipkin/b3-propagation): the single one, or
// those that begin with x-b3-. Fields that are not there are nil.
type B3 struct {
	Single                                        []byte // b3
	TraceID, SpanID, ParentSpanID, Sampled, Debug []byte // x-b3-traceid, -spanid, -parentspanid, -sampled, -flags
}

// take keeps a field, if it is one of B3: the first one of each name.
func (b *B3) take(name, value []byte) bool {
	const prefix = "x-b3-"
	if len(name) == 0 || name[0]|0x20 != 'b' && name[0]|0x20 != 'x' {
		return false // most fields
	}
	if isName(name, "b3") {
		first(&b.Single, value)
		return true
	}
	if len(name) <= len(prefix) || !equalFold(name[:len(prefix)], prefix) {
		return false
	}
	switch name = name[len(prefix):]; {
	case isName(name, "traceid"):
		first(&b.TraceID, value)
	case isName(name, "spanid"):
		first(&b.SpanID, value)
	case isName(name, "parentspanid"):
		first(&b.ParentSpanID, value)
	case isName(name, "sampled"):
		first(&b.Sampled, value)
	case isName(name, "flags"):
		first(&b.Debug, value)
	default:
		return false
	}
	return true
}

// Text is the context in the form of the single header, {trace id}-{span id}-{sampling state}-{parent span id}. The single
// header comes before the others. Without ids it is the sampling state alone; empty: there is none of it. It does not say
// whether the ids are well-formed.
func (b *B3) Text() string {
	if b.Single != nil {
		return string(b.Single)
	}
	state := b.state()
	if len(b.TraceID) == 0 || len(b.SpanID) == 0 {
		return state
	}
	text := make([]byte, 0, len(b.TraceID)+len(b.SpanID)+len(b.ParentSpanID)+len("---d"))
	text = append(append(append(text, b.TraceID...), '-'), b.SpanID...)
	if state == "" {
		return string(text) // the single header has no place for the parent then
	}
	text = append(append(text, '-'), state...)
	if len(b.ParentSpanID) > 0 {
		text = append(append(text, '-'), b.ParentSpanID...)
	}
	return string(text)
}

// state is the sampling state in the single header's spelling; empty: it is left to who reads it, or is none.
func (b *B3) state() string {
	switch {
	case string(b.Debug) == "1":
		return "d"
	case string(b.Sampled) == "1" || string(b.Sampled) == "true": // true and false are from before the specification
		return "1"
	case string(b.Sampled) == "0" || string(b.Sampled) == "false":
		return "0"
	}
	return ""
}
