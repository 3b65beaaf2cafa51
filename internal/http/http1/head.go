package http1

// Result says how a head was read.
type Result uint8

// The results of Parse.
const (
	Complete  Result = iota + 1 // the whole head, with its blank line
	Partial                     // well-formed so far; the capture ends before the blank line
	Malformed                   // no HTTP/1.x message of this kind
)

// Framing says how long a body is (RFC 9112, 6.3).
type Framing uint8

// The ways to tell where a body ends.
const (
	FramingUnknown Framing = iota // the head was cut off before all of it was seen
	FramingNone                   // no body
	FramingLength                 // Head.ContentLength bytes
	FramingChunked
	FramingClose // until the connection ends (responses only)
)

// Head is what requests and responses have in common. What was not seen has its zero value, or what its comment says.
// Of a field that is there more than once, the first one counts; lists (Connection, Transfer-Encoding) are joined.
//
// What a Partial head holds is certain: the whole head has the same. Upgrade may still become true.
type Head struct {
	Minor         int // of HTTP/1.x
	Bytes         int // size of the head with its blank line; 0 unless Complete
	Framing       Framing
	ContentLength int64 // -1 unless Framing is FramingLength
	// Upgrade in a request asks for another protocol: Connection: upgrade with an Upgrade field. In a response it says
	// that HTTP/1 ends here: status 101, or 2xx to CONNECT. Elsewhere a server only advertises what else it speaks.
	Upgrade bool
}

// maxLeadingBreaks is how many line breaks are skipped before a request line (RFC 9112, 2.2).
const maxLeadingBreaks = 2

// version reads "HTTP/1.x", which b starts with.
func version(b []byte) (minor int, result Result) {
	const prefix = "HTTP/1."
	seen := min(len(b), len(prefix))
	if string(b[:seen]) != prefix[:seen] {
		return 0, Malformed
	}
	if len(b) < versionBytes {
		return 0, Partial
	}
	digit := b[len(prefix)]
	if !isDigit(digit) {
		return 0, Malformed
	}
	return int(digit - '0'), Complete
}

const versionBytes = len("HTTP/1.x")

// lineBreak reads the line break that b starts with: CRLF, or LF alone as servers accept it. Partial: there may be one,
// b ends too early to tell. Malformed: b starts with something else.
func lineBreak(b []byte) (size int, result Result) {
	switch {
	case len(b) == 0:
		return 0, Partial
	case b[0] == '\n':
		return 1, Complete
	case b[0] != '\r':
		return 0, Malformed
	case len(b) == 1:
		return 0, Partial
	case b[1] == '\n':
		return 2, Complete
	}
	return 0, Malformed
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// isControl says whether c is one of the control characters, of which the horizontal tab is one.
func isControl(c byte) bool { return c < ' ' || c == 0x7f }

// isName says whether name is the one that lower is in lower case.
func isName(name []byte, lower string) bool { return len(name) == len(lower) && equalFold(name, lower) }

// equalFold compares letters of ASCII without regard to case. The two have the same length.
func equalFold(b []byte, lower string) bool {
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// trim cuts optional whitespace off both ends.
func trim(b []byte) []byte {
	for len(b) > 0 && isBlank(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && isBlank(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }
