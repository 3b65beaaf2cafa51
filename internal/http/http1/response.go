package http1

import "math"

// Response is the head of a response.
type Response struct {
	Head
	Status int // 0: the status line was cut off before its end could be told
	// GRPCStatus is the grpc-status among the header fields, as a response of gRPC-Web without messages has it; -1: none.
	GRPCStatus int
	// UpgradeHTTP2 says that the connection goes on in HTTP/2, in which the request is answered (h2c, RFC 7540 section 3.2).
	UpgradeHTTP2 bool
}

// Parse reads the head that captured starts with. requestMethod is that of the request that is answered: HEAD and
// CONNECT change the framing. nil: not known. Of a malformed head nothing is kept.
func (r *Response) Parse(captured []byte, requestMethod []byte) Result {
	r.reset()
	result := r.parse(captured, requestMethod)
	if result == Malformed {
		r.reset()
	}
	return result
}

func (r *Response) reset() { *r = Response{Head: Head{ContentLength: -1}, GRPCStatus: -1} }

func (r *Response) parse(captured, requestMethod []byte) Result {
	position, result := r.parseLine(captured)
	if result == Malformed {
		return Malformed
	}
	interim := r.Status/100 == 1
	r.Upgrade = r.Status == 101 || r.Status/100 == 2 && string(requestMethod) == "CONNECT"
	if interim || r.Upgrade || r.Status == 204 || r.Status == 304 || string(requestMethod) == "HEAD" {
		r.Framing = FramingNone
	}
	if result != Complete {
		return result
	}

	fields := fieldLines{captured: captured, position: position, contentLength: -1}
	for fields.next() {
		if !fields.common() && isName(fields.name, "grpc-status") && r.GRPCStatus < 0 {
			r.GRPCStatus = GRPCStatus(fields.value)
		}
	}
	if fields.result != Complete {
		return fields.result
	}
	r.Bytes = fields.position
	r.UpgradeHTTP2 = r.Status == 101 && fields.toHTTP2
	if r.Framing == FramingNone {
		return Complete
	}
	switch {
	case fields.badFraming:
		r.Framing = FramingClose
	case fields.chunked:
		r.Framing = FramingChunked
	case fields.codings || fields.badLength || fields.contentLength < 0:
		r.Framing = FramingClose
	default:
		r.Framing = FramingLength
		r.ContentLength = fields.contentLength
	}
	return Complete
}

// parseLine reads the status line, and returns where it ends. The reason may be missing, with its space or without.
func (r *Response) parseLine(captured []byte) (position int, result Result) {
	minor, result := version(captured)
	if result != Complete {
		return 0, result
	}
	rest := captured[versionBytes:]
	if len(rest) == 0 {
		return 0, Partial
	}
	if rest[0] != ' ' {
		return 0, Malformed
	}
	r.Minor = minor

	status, result := statusOf(rest[1:])
	if result != Complete {
		return 0, result
	}
	r.Status = status

	for i := versionBytes + 1 + statusBytes; i < len(captured); i++ {
		if !isControl(captured[i]) || captured[i] == '\t' {
			continue
		}
		size, result := lineBreak(captured[i:])
		return i + size, result
	}
	return 0, Partial
}

const statusBytes = len("200")

// GRPCStatus reads the value of grpc-status; -1: it is no status.
func GRPCStatus(value []byte) int {
	if status, ok := number(value); ok && status <= math.MaxInt32 {
		return int(status)
	}
	return -1
}

// statusOf reads the three digits that b starts with, and a space or line break follows.
func statusOf(b []byte) (int, Result) {
	status := 0
	for i, c := range b {
		switch {
		case i == statusBytes:
			if c == ' ' || c == '\r' || c == '\n' {
				return status, Complete
			}
			return 0, Malformed
		case !isDigit(c) || i == 0 && c == '0':
			return 0, Malformed
		}
		status = status*10 + int(c-'0')
	}
	return 0, Partial
}
