//go:build linux

package http

import (
	"net/netip"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http/genai"
	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

// Role is the end of the connection from which an exchange was seen.
type Role uint8

// The two ends.
const (
	RoleServer Role = iota + 1
	RoleClient
)

// Exchange is one request and its response, as one end of the connection saw them. What is not known has its zero value,
// or what its comment says.
type Exchange struct {
	Role  Role
	Owner *workload.Workload // the process at this end

	// Times on the kernel's monotonic clock, in nanoseconds. A server starts with the first byte of the request that it
	// read and ends with the last byte of the response that it wrote; a client starts with the first byte that it wrote
	// and ends with the last byte that it read. ResponseNs is the first byte of the response, 0 if there was none.
	StartNs, ResponseNs, EndNs uint64

	// Of the request, as sent.
	Method                  string // empty: unknown
	Target                  string // path and query, or absolute form; empty: unknown
	Host                    string // Host header
	UserAgent               string
	TraceParent, TraceState string // W3C Trace Context headers
	B3                      string // b3 header, or the x-b3-* headers in its form; empty: none
	TraceBin                string // grpc-trace-bin header, as sent; empty: none
	RequestID               string // x-request-id header
	MajorVersion            int    // of HTTP; 0 is 1
	MinorVersion            int    // of HTTP/1.x
	Secure                  bool   // it was carried by TLS
	// GRPC says that the request is a call of gRPC or gRPC-Web: its content type begins with application/grpc.
	GRPC bool

	// GenAI is what the bodies tell of a request to a model server; nil where it is none, or they were not looked at.
	GenAI *genai.Exchange

	// Status is of the final response, 0 where there was none or it is not known.
	Status int
	// GRPCStatus is the grpc-status of the response's trailers; -1 where it is not known. It has no meaning unless GRPC.
	GRPCStatus int
	// ErrorType says why there is no whole response (a value of error.type); empty: there is one.
	ErrorType string

	// Sizes of the bodies as transferred, without the framing of chunks; -1 where they are not known.
	RequestBodyBytes, ResponseBodyBytes int64

	Local, Peer netip.AddrPort

	// FlowID and RequestOffset name the exchange on both of its ends: the initial sequence numbers of the connection, and
	// the place of the request in its stream, or the stream's id in HTTP/2. FlowID is 0 where it is not known.
	FlowID        uint64
	RequestOffset uint32
	// ClientSeen says that this receiver also reports the client's end of the same exchange (for a server's).
	ClientSeen bool

	// id is its place in a trace, since it began, and origin that of the exchange that it comes from: for a client, the one
	// that its process serves; for a server, that of the client. Zero: it is not known.
	id, origin identity
	service    service // who serves it, or waits for it
	matched    string  // the route by the patterns of its server\'s mux; empty: not known
	known      *facts  // of the last exchange of the connection; nil: there are none

	// Of the connection when the exchange ended; SRTTUs is 0 where the kernel has no sample.
	SRTTUs      uint32 // microseconds
	Retransmits uint32 // of the whole connection, this end
}
