//go:build linux

package http

import (
	"os"
	"testing"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

func TestOwners(t *testing.T) {
	table, err := workload.NewTable(workload.Config{}, nil, nil)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, table.Close()) })
	key, err := table.KeyOf(uint32(os.Getpid()))
	require.NoError(t, err)
	o := newOwners(table)
	own := &messageHead{Pid: key.PID, StartBootNs: key.StartBootNs}
	assert.Same(t, table.Lookup(key, own.hint()), o.find(own))
	other := &workload.Workload{}
	o.known[key] = other
	assert.Same(t, other, o.find(own), "the table is not asked again")
	o.forget()
	assert.Same(t, table.Lookup(key, own.hint()), o.find(own))

	o.known[key] = other
	for range maxOwnersUses {
		o.find(own)
	}
	assert.Same(t, table.Lookup(key, own.hint()), o.find(own), "the ring was not empty for long")

	// Of those without a process, the hint tells.
	for _, comm := range []string{"a", "b"} {
		head := &messageHead{}
		for i, letter := range []byte(comm) {
			head.Comm[i] = letter
		}
		assert.Equal(t, comm, o.find(head).Comm)
	}
}

func TestSchedulers(t *testing.T) {
	processes, err := lru.New[workload.Key, *runtimeProcess](maxRuntimes)
	require.NoError(t, err)
	in := &runtimes{known: processes, ask: func(inspection) bool { return true }}
	key := workload.Key{PID: 1, StartBootNs: 2}
	var s schedulers
	assert.Equal(t, schedulingUnknown, s.find(in, key, RoleServer))
	process, known := processes.Get(key)
	require.True(t, known, "it was asked for")

	process.by.Store(uint32(schedulingThreads))
	assert.Equal(t, schedulingThreads, s.find(in, key, RoleServer), "that it is not known is not remembered")
	process.by.Store(uint32(schedulingGoroutines))
	assert.Equal(t, schedulingThreads, s.find(in, key, RoleServer), "the ring has not been read again")
	assert.Equal(t, schedulingThreads, s.find(in, key, 0))
	assert.Equal(t, schedulingUnknown, s.find(in, workload.Key{PID: 1 + recentSchedulers}, RoleServer), "another process")
	assert.Equal(t, schedulingGoroutines, s.find(in, key, RoleServer))
	assert.True(t, process.serves)
	assert.False(t, process.asks)
	assert.Equal(t, schedulingGoroutines, s.find(in, key, RoleClient))
	assert.True(t, process.asks, "it was seen in both roles")
	process.by.Store(uint32(schedulingThreads))
	s.forget()
	assert.Equal(t, schedulingThreads, s.find(in, key, 0))
}
