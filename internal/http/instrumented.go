//go:build linux

package http

import (
	"strings"

	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

// maxInstrumented bounds the processes that are remembered to send their own traces. When there are more, all are
// forgotten, and recognized again at their next export.
const maxInstrumented = 4096

// instrumented recognizes processes that send their own traces, so that their requests are not reported a second time.
// The sign is an export of OTLP: a POST to /v1/traces ("OTLP/HTTP Request" in the specification), or a call of
// exportMethod. It is not safe for concurrent use.
type instrumented struct {
	processes map[processKey]struct{}
}

// processKey names a process: its pid alone is used again.
type processKey struct {
	pid     uint32
	startNs int64
}

func keyOf(owner *workload.Workload) processKey {
	return processKey{owner.PID, owner.StartTime.UnixNano()}
}

func newInstrumented() *instrumented {
	return &instrumented{processes: map[processKey]struct{}{}}
}

// knows says whether a process sends its own traces. A nil *instrumented knows none.
func (i *instrumented) knows(owner *workload.Workload) bool {
	if i == nil || len(i.processes) == 0 {
		return false
	}
	_, known := i.processes[keyOf(owner)]
	return known
}

// exportMethod is what exports traces by OTLP/gRPC (opentelemetry/proto/collector/trace/v1/trace_service.proto).
const exportMethod = "opentelemetry.proto.collector.trace.v1.TraceService/Export"

// note says whether an exchange is an export of traces, and remembers the process that makes it.
func (i *instrumented) note(e *Exchange) bool {
	if i == nil || e.Role != RoleClient || !e.exportsTraces() {
		return false
	}
	if len(i.processes) >= maxInstrumented {
		clear(i.processes)
	}
	i.processes[keyOf(e.Owner)] = struct{}{}
	return true
}

// exportsTraces says whether an exchange is an export of traces by OTLP.
func (e *Exchange) exportsTraces() bool {
	if e.Method != "POST" && e.Method != "" {
		return false // both are POST, and most requests are not
	}
	return e.Method == "POST" && strings.HasSuffix(e.facts().path, "/v1/traces") || e.rpcMethod() == exportMethod
}
