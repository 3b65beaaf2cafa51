//go:build linux

package http

import (
	"os"
	"testing"

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
