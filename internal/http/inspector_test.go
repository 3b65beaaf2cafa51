//go:build linux

package http

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"go.uber.org/zap"

	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

func TestInspectorIsBounded(t *testing.T) {
	i := newInspector("/proc", zap.NewNop()) // nobody takes what waits
	for pid := range uint32(maxInspections) {
		i.execute(workload.Key{PID: pid})
	}
	assert.Len(t, i.waiting, maxInspections/2, "a storm of programs leaves room for others")
	assert.EqualValues(t, maxInspections/2, i.tooLate.Load())
	assert.Zero(t, i.skipped.Load(), "nothing is lost by that")
	for pid := range uint32(maxInspections / 2) {
		assert.True(t, i.ask(inspection{workload.Key{PID: pid}, toFindTLS}))
	}
	assert.False(t, i.ask(inspection{workload.Key{PID: 1}, toFindTLS}))
	assert.EqualValues(t, 1, i.skipped.Load())
}

func TestAllowance(t *testing.T) {
	var a allowance
	now := time.Unix(1, 0)
	assert.True(t, a.left(now))
	a.spend(executedBurst + 100*time.Millisecond)
	assert.False(t, a.left(now))
	assert.False(t, a.left(now.Add(time.Second)), "a tenth of it is not enough")
	assert.True(t, a.left(now.Add(1100*time.Millisecond)))
	a.spend(20 * time.Millisecond)
	assert.False(t, a.left(now.Add(1100*time.Millisecond)))
	assert.False(t, a.left(now), "a clock that goes back gives nothing")

	a.left(now.Add(time.Hour))
	a.spend(executedBurst)
	assert.False(t, a.left(now.Add(time.Hour)), "no more than that is saved up")
}
