package http2

// Field is a header field that is of interest. Values of others are not kept.
type Field uint8

// The fields. The names of HTTP/2 are in lower case (RFC 9113 section 8.2).
const (
	fieldOther   Field = iota // of no interest
	fieldUnknown              // it was not seen which

	FieldMethod
	FieldPath
	FieldAuthority
	FieldScheme
	FieldStatus
	FieldProtocol
	FieldHost
	FieldContentType
	FieldContentLength
	FieldUserAgent
	FieldTraceParent
	FieldTraceState
	FieldB3
	FieldB3TraceID
	FieldB3SpanID
	FieldB3ParentSpanID
	FieldB3Sampled
	FieldB3Flags
	FieldTraceBin
	FieldRequestID
	FieldGRPCStatus

	fieldCount
)

// longestName is the length of x-b3-parentspanid. A Huffman code for it is not longer.
const longestName = 17

// fieldNamed gives the field with the name.
func fieldNamed(name []byte) Field {
	switch string(name) { // no allocation
	case ":method":
		return FieldMethod
	case ":path":
		return FieldPath
	case ":authority":
		return FieldAuthority
	case ":scheme":
		return FieldScheme
	case ":status":
		return FieldStatus
	case ":protocol":
		return FieldProtocol
	case "host":
		return FieldHost
	case "content-type":
		return FieldContentType
	case "content-length":
		return FieldContentLength
	case "user-agent":
		return FieldUserAgent
	case "traceparent":
		return FieldTraceParent
	case "tracestate":
		return FieldTraceState
	case "b3":
		return FieldB3
	case "x-b3-traceid":
		return FieldB3TraceID
	case "x-b3-spanid":
		return FieldB3SpanID
	case "x-b3-parentspanid":
		return FieldB3ParentSpanID
	case "x-b3-sampled":
		return FieldB3Sampled
	case "x-b3-flags":
		return FieldB3Flags
	case "grpc-trace-bin":
		return FieldTraceBin
	case "x-request-id":
		return FieldRequestID
	case "grpc-status":
		return FieldGRPCStatus
	}
	return fieldOther
}

// staticEntries is the length of the static table.
const staticEntries = 61

// staticEntry is an entry of the static table (RFC 7541, appendix A).
func staticEntry(index uint64) entry {
	switch index {
	case 1:
		return entry{field: FieldAuthority, value: ""}
	case 2:
		return entry{field: FieldMethod, value: "GET"}
	case 3:
		return entry{field: FieldMethod, value: "POST"}
	case 4:
		return entry{field: FieldPath, value: "/"}
	case 5:
		return entry{field: FieldPath, value: "/index.html"}
	case 6:
		return entry{field: FieldScheme, value: "http"}
	case 7:
		return entry{field: FieldScheme, value: "https"}
	case 8:
		return entry{field: FieldStatus, value: "200"}
	case 9:
		return entry{field: FieldStatus, value: "204"}
	case 10:
		return entry{field: FieldStatus, value: "206"}
	case 11:
		return entry{field: FieldStatus, value: "304"}
	case 12:
		return entry{field: FieldStatus, value: "400"}
	case 13:
		return entry{field: FieldStatus, value: "404"}
	case 14:
		return entry{field: FieldStatus, value: "500"}
	case 28:
		return entry{field: FieldContentLength, value: ""}
	case 31:
		return entry{field: FieldContentType, value: ""}
	case 38:
		return entry{field: FieldHost, value: ""}
	case 58:
		return entry{field: FieldUserAgent, value: ""}
	}
	return entry{}
}
