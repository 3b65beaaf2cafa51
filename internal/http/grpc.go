//go:build linux

package http

// contentTypeGRPC is what the content type of every call of gRPC begins with ("gRPC over HTTP2", Requests), and of
// gRPC-Web.
const contentTypeGRPC = "application/grpc"

// isGRPC says whether a request with the content type is a call of gRPC or gRPC-Web. Media types have no case (RFC 9110
// section 8.3.1).
func isGRPC(contentType []byte) bool {
	if len(contentType) < len(contentTypeGRPC) {
		return false
	}
	for i := range len(contentTypeGRPC) {
		if lowerCase(contentType[i]) != contentTypeGRPC[i] {
			return false
		}
	}
	return true
}

// Statuses of gRPC (https://github.com/grpc/grpc/blob/master/doc/statuscodes.md).
const (
	grpcOK               = 0
	grpcUnknown          = 2
	grpcDeadlineExceeded = 4
	grpcUnimplemented    = 12
	grpcInternal         = 13
	grpcUnavailable      = 14
	grpcDataLoss         = 15
)

// grpcStatusName is a status as rpc.response.status_code spells it. What is not in the list of gRPC is UNKNOWN, which
// that list allows for, and which keeps the values few; empty: it is not known.
func grpcStatusName(status int) string {
	names := [...]string{
		"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
		"PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
		"INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
	}
	switch {
	case status < 0:
		return ""
	case status >= len(names):
		return names[grpcUnknown]
	}
	return names[status]
}

// grpcFailed says whether a known status is an error to the one whose span it is (semantic conventions for gRPC): all but
// OK for a client, for a server only those that are not the client's doing.
func grpcFailed(role Role, status int) bool {
	if role == RoleClient {
		return status != grpcOK
	}
	switch status {
	case grpcUnknown, grpcDeadlineExceeded, grpcUnimplemented, grpcInternal, grpcUnavailable, grpcDataLoss:
		return true
	}
	return grpcStatusName(status) == grpcStatusName(grpcUnknown)
}
