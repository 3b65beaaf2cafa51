//go:build linux

package tcp

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"golang.org/x/sys/unix"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

func TestSummary(t *testing.T) {
	owner := testWorkload(t, "curl")
	for _, test := range []struct {
		change func(*flow)
		want   string
	}{
		{func(*flow) {}, "curl client 192.0.2.1:40000 -> 192.0.2.2:443 closed, sent 100 B, received 200 B, 2s"},
		{as(bpfFlowKindFLOW_SNAPSHOT), "curl client 192.0.2.1:40000 -> 192.0.2.2:443 open, sent 100 B, received 200 B, 2s"},
		{asRole(bpfFlowRoleROLE_SERVER), "curl server 192.0.2.2:443 -> 192.0.2.1:40000 closed, sent 100 B, received 200 B, 2s"},
		{func(f *flow) { f.Error = int32(unix.ECONNRESET) },
			"curl client 192.0.2.1:40000 -> 192.0.2.2:443 broken: ECONNRESET, sent 100 B, received 200 B, 2s"},
		{func(f *flow) { f.EstablishedNs, f.State, f.Error = 0, tcpSynSent, int32(unix.ECONNREFUSED) },
			"curl client 192.0.2.1:40000 -> 192.0.2.2:443 failed: ECONNREFUSED"},
	} {
		assert.Equal(t, test.want, connection(test.change).summary(owner))
	}
}

func TestRecordsOfOneServiceShareAResource(t *testing.T) {
	curl, nginx := testWorkload(t, "curl"), testWorkload(t, "nginx")
	r := newRecords(testScope)
	for _, owner := range []*workload.Workload{curl, nginx, curl} {
		r.add(connection(), owner, kernel.NewClock(), testStart)
	}
	require.Equal(t, 3, r.count)
	logs := r.take()
	require.Equal(t, 2, logs.ResourceLogs().Len())
	assert.Equal(t, 2, logs.ResourceLogs().At(0).ScopeLogs().At(0).LogRecords().Len())
	record := logs.ResourceLogs().At(1).ScopeLogs().At(0).LogRecords().At(0)
	assert.Equal(t, EventFlow, record.EventName())
	assert.Equal(t, pcommon.NewTimestampFromTime(testStart), record.ObservedTimestamp())
	assert.Zero(t, r.count)
	assert.Zero(t, r.take().LogRecordCount())
}

func BenchmarkRecord(b *testing.B) {
	table, err := workload.NewTable(workload.Config{}, nil, nil)
	require.NoError(b, err)
	defer table.Close()
	owner := table.Lookup(workload.Key{PID: 1 << 30, StartBootNs: 1}, workload.Hint{Comm: "curl"})
	r := newRecords(testScope)
	f, clock, now := connection(), kernel.NewClock(), time.Now()
	b.ReportAllocs()
	for b.Loop() {
		r.add(f, owner, clock, now)
		if r.count == 1000 {
			r.take()
		}
	}
}
