//go:build linux

package http

import "strings"

// systemGRPC is the value of rpc.system.name.
const systemGRPC = "grpc"

// contentTypeGRPC is what the content type of every call of gRPC begins with ("gRPC over HTTP2", Requests), and of
// gRPC-Web.
const contentTypeGRPC = "application/grpc"

// isGRPC says whether a request with the content type is a call of gRPC or gRPC-Web. Media types have no case (RFC 9110
// section 8.3.1).
func isGRPC[text string | []byte](contentType text) bool {
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

// rpcMethod is the full name of the method that a call of gRPC asks for, such as helloworld.Greeter/SayHello: its path
// without the slash before it ("gRPC over HTTP2", Requests). Empty: it is not known.
func (e *Exchange) rpcMethod() string {
	return strings.TrimPrefix(e.facts().path, "/")
}

// Statuses of gRPC (https://github.com/grpc/grpc/blob/master/doc/statuscodes.md).
const (
	grpcNoStatus         = -1 // it is not known
	grpcOK               = 0
	grpcUnknown          = 2
	grpcDeadlineExceeded = 4
	grpcUnimplemented    = 12
	grpcInternal         = 13
	grpcUnavailable      = 14
	grpcDataLoss         = 15
	grpcStatuses         = 17 // so many are there, from 0 on
)

// knownGRPCStatus is a status of the list of gRPC, or grpcNoStatus. A number that is not in the list is UNKNOWN, which the
// list allows for, and which keeps the values few.
func knownGRPCStatus(status int) int {
	switch {
	case status < 0:
		return grpcNoStatus
	case status >= grpcStatuses:
		return grpcUnknown
	}
	return status
}

// grpcStatusName is a status as rpc.response.status_code spells it; empty: it is not known.
func grpcStatusName(status int) string {
	names := [grpcStatuses]string{
		"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
		"PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
		"INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
	}
	if status = knownGRPCStatus(status); status == grpcNoStatus {
		return ""
	}
	return names[status]
}

// grpcFailed says whether a known status is an error to the one whose span it is (semantic conventions for gRPC): all but
// OK for a client, for a server only those that are not the client's doing.
func grpcFailed(role Role, status int) bool {
	if role == RoleClient {
		return status != grpcOK
	}
	switch knownGRPCStatus(status) {
	case grpcUnknown, grpcDeadlineExceeded, grpcUnimplemented, grpcInternal, grpcUnavailable, grpcDataLoss:
		return true
	}
	return false
}
