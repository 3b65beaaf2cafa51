//go:build linux

package http

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

func TestProcessesThatSendTheirOwnTracesAreKnownByTheirExport(t *testing.T) {
	owner := &workload.Workload{PID: 7, StartTime: time.Unix(1, 0)}
	for name, test := range map[string]struct {
		exchange Exchange
		export   bool
	}{
		"export":                    {Exchange{Role: RoleClient, Method: "POST", Target: "/v1/traces"}, true},
		"below a path":              {Exchange{Role: RoleClient, Method: "POST", Target: "/otlp/v1/traces?key=1"}, true},
		"absolute target":           {Exchange{Role: RoleClient, Method: "POST", Target: "http://proxy/v1/traces"}, true},
		"metrics":                   {Exchange{Role: RoleClient, Method: "POST", Target: "/v1/metrics"}, false},
		"not a POST":                {Exchange{Role: RoleClient, Method: "GET", Target: "/v1/traces"}, false},
		"a collector's":             {Exchange{Role: RoleServer, Method: "POST", Target: "/v1/traces"}, false},
		"another's path":            {Exchange{Role: RoleClient, Method: "POST", Target: "/v1/traces/7"}, false},
		"by gRPC":                   {Exchange{Role: RoleClient, Method: "POST", Target: "/" + exportMethod, GRPC: true}, true},
		"by gRPC, method not known": {Exchange{Role: RoleClient, Target: "/" + exportMethod, GRPC: true}, true},
		"metrics by gRPC": {Exchange{
			Role: RoleClient, Method: "POST", GRPC: true,
			Target: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
		}, false},
		"a collector's by gRPC":           {Exchange{Role: RoleServer, Target: "/" + exportMethod, GRPC: true}, false},
		"by gRPC, other fields not known": {Exchange{Role: RoleClient, Target: "/" + exportMethod}, true},
		"gRPC, target not known":          {Exchange{Role: RoleClient, Method: "POST", GRPC: true}, false},
		"target not known":                {Exchange{Role: RoleClient, Method: "POST"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			known := newInstrumented()
			test.exchange.Owner = owner
			assert.Equal(t, test.export, known.note(&test.exchange))
			assert.Equal(t, test.export, known.knows(owner))
			again := &workload.Workload{PID: 7, StartTime: time.Unix(2, 0)}
			assert.False(t, known.knows(again), "another process with the same pid")
		})
	}
}

func TestInstrumentedIsBounded(t *testing.T) {
	known := newInstrumented()
	for pid := range uint32(3 * maxInstrumented) {
		owner := &workload.Workload{PID: pid + 1}
		known.note(&Exchange{Role: RoleClient, Method: "POST", Target: "/v1/traces", Owner: owner})
		assert.True(t, known.knows(owner))
	}
	assert.LessOrEqual(t, len(known.processes), maxInstrumented)
}

func TestNobodyIsInstrumentedWhereThatIsNotAsked(t *testing.T) {
	var none *instrumented
	assert.False(t, none.note(&Exchange{Role: RoleClient, Method: "POST", Target: "/v1/traces"}))
	assert.False(t, none.knows(&workload.Workload{}))
}
