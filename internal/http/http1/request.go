package http1

// Request is the head of a request. Fields that are not there are nil.
type Request struct {
	Head
	Method, Target          []byte
	Host, UserAgent         []byte
	ContentType             []byte
	TraceParent, TraceState []byte // W3C Trace Context
	TraceBin                []byte // Grpc-Trace-Bin
	B3                      B3
	RequestID               []byte // X-Request-Id
	ExpectContinue          bool   // the body may wait for status 100
}

const maxMethodBytes = 24

// Parse reads the head that captured starts with. Of a request line that is cut off it keeps the method and the target
// if a space follows them, of a malformed head nothing.
func (r *Request) Parse(captured []byte) Result {
	*r = Request{Head: Head{ContentLength: -1}}
	result := r.parse(captured)
	if result == Malformed {
		*r = Request{Head: Head{ContentLength: -1}}
	}
	return result
}

func (r *Request) parse(captured []byte) Result {
	position, result := r.parseLine(captured)
	if result != Complete {
		return result
	}
	fields := fieldLines{captured: captured, position: position, contentLength: -1}
	for fields.next() {
		if !fields.common() {
			r.take(fields.name, fields.value)
		}
	}
	r.Upgrade = fields.upgrading && fields.hasProtocol
	if fields.result != Complete {
		return fields.result
	}
	switch {
	case fields.badFraming:
		return Malformed
	case fields.chunked:
		r.Framing = FramingChunked
	case fields.codings || fields.badLength:
		return Malformed // the end of the body cannot be told; servers answer 400
	case fields.contentLength >= 0:
		r.Framing = FramingLength
		r.ContentLength = fields.contentLength
	default:
		r.Framing = FramingNone
	}
	r.Bytes = fields.position
	return Complete
}

// parseLine reads the request line, and returns where it ends.
func (r *Request) parseLine(captured []byte) (position int, result Result) {
	for range maxLeadingBreaks {
		size, result := lineBreak(captured[position:])
		if result == Partial {
			return 0, Partial
		}
		position += size
	}

	method, result := methodOf(captured[position:])
	if result != Complete {
		return 0, result
	}
	r.Method = method
	position += len(method) + 1

	target, result := targetOf(captured[position:])
	if result != Complete {
		return 0, result
	}
	r.Target = target
	position += len(target) + 1

	minor, result := version(captured[position:])
	if result != Complete {
		return 0, result
	}
	position += versionBytes
	size, result := lineBreak(captured[position:])
	if result != Complete {
		return 0, result
	}
	r.Minor = minor
	return position + size, Complete
}

// methodOf returns the method that b starts with and a space follows.
func methodOf(b []byte) ([]byte, Result) {
	for i, c := range b {
		switch {
		case c == ' ' && i > 0:
			return b[:i], Complete
		case i == maxMethodBytes || !isMethod(c):
			return nil, Malformed
		}
	}
	return nil, Partial
}

// isMethod says whether methods are made of c: those of the registry, WebDAV and own ones as applications name them.
func isMethod(c byte) bool { return 'A' <= c && c <= 'Z' || isDigit(c) || c == '-' || c == '_' }

// targetOf returns the target that b starts with and a space follows. It may hold any byte beyond ASCII, as clients
// send them.
func targetOf(b []byte) ([]byte, Result) {
	for i, c := range b {
		switch {
		case c == ' ' && i > 0:
			return b[:i], Complete
		case c == ' ' || isControl(c):
			return nil, Malformed
		}
	}
	return nil, Partial
}

func (r *Request) take(name, value []byte) {
	switch {
	case isName(name, "host"):
		first(&r.Host, value)
	case isName(name, "user-agent"):
		first(&r.UserAgent, value)
	case isName(name, "content-type"):
		first(&r.ContentType, value)
	case isName(name, "traceparent"):
		first(&r.TraceParent, value)
	case isName(name, "tracestate"):
		first(&r.TraceState, value)
	case isName(name, "grpc-trace-bin"):
		first(&r.TraceBin, value)
	case isName(name, "x-request-id"):
		first(&r.RequestID, value)
	case isName(name, "expect"):
		r.ExpectContinue = r.ExpectContinue || isName(value, "100-continue")
	default:
		r.B3.take(name, value)
	}
}
