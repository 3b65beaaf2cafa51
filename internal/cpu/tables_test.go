//go:build linux

package cpu

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ebpfreceiver/ebpfreceiver/internal/unwind"
)

// searchSteps is TABLE_SEARCH_STEPS of bpf/include/cpu/table.h.
const searchSteps = 24

// findRow does what find_row of bpf/include/cpu/table.h does.
func findRow(entries []uint64, where placement, address uint64) (row uint64, steps int, ok bool) {
	wanted := uint32(address)
	index := wanted >> (where.shift & 31)
	if address>>32 != 0 || index >= where.buckets {
		return 0, 0, false
	}
	low, high := uint32(entries[index]), uint32(entries[index]>>32)
	for ; steps < searchSteps && low < high; steps++ {
		middle := high - (high-low)/2
		if uint32(entries[where.buckets+middle]) <= wanted {
			low = middle
		} else {
			high = middle - 1
		}
	}
	row = entries[where.buckets+low]
	return row, steps, uint32(row) <= wanted
}

// entryOf is a row as it is in the map.
func entryOf(row unwind.Row) uint64 {
	return uint64(row.Address) | uint64(uint16(row.Offset))<<32 | uint64(row.Rule)<<48 | uint64(uint8(row.FramePointer))<<56
}

// tableOf makes a table with rows at these addresses, each different.
func tableOf(addresses ...uint32) *unwind.Table {
	table := &unwind.Table{}
	for i, address := range addresses {
		row := unwind.Row{Address: address, Offset: int16(i), Rule: unwind.RuleStack, FramePointer: int8(i)}
		table.Rows = append(table.Rows, row)
	}
	return table
}

// checkTable compares the search of the kernel side with that of the table itself.
func checkTable(t *testing.T, table *unwind.Table, addresses func(yield func(uint64) bool)) {
	t.Helper()
	where := layout(table)
	entries := contents(table, where)
	require.Len(t, entries, int(where.buckets)+len(table.Rows))
	most := 2*max(len(table.Rows)/rowsPerBucket, 1) + 2
	assert.LessOrEqual(t, int(where.buckets), most, "the index is smaller than the table")
	for address := range addresses {
		want, wantFound := lookup(table, address)
		row, steps, found := findRow(entries, where, address)
		last := uint64(table.Rows[len(table.Rows)-1].Address)
		if address > last && !found {
			// Behind the last row's bucket: it has no end of its own, and code behind it is not of this file.
			require.Greater(t, address>>where.shift, last>>where.shift)
			continue
		}
		require.Equal(t, wantFound, found, "%#x", address)
		if found {
			require.Equal(t, entryOf(want), row, "%#x", address)
		}
		require.Less(t, steps, searchSteps)
	}
}

// lookup is the last row that does not begin behind the address.
func lookup(table *unwind.Table, address uint64) (found unwind.Row, ok bool) {
	for _, row := range table.Rows {
		if uint64(row.Address) > address {
			break
		}
		found, ok = row, true
	}
	return found, ok
}

func TestTableAsTheKernelSideSearchesIt(t *testing.T) {
	tables := map[string]*unwind.Table{
		"one row":                 tableOf(0),
		"one row, not at 0":       tableOf(100),
		"two":                     tableOf(0, 1),
		"at bounds of buckets":    tableOf(0, 16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256),
		"a gap":                   tableOf(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 5000, 5001, 5002),
		"all in one place":        tableOf(4000, 4001, 4002, 4003, 4004, 4005, 4006, 4007, 4008, 4009, 4010, 4011, 4012, 4013),
		"one before the next one": tableOf(15, 31, 47, 63, 79, 95, 111, 127, 143, 159, 175, 191, 207, 223, 239, 255, 271),
	}
	for name, table := range tables {
		t.Run(name, func(t *testing.T) {
			checkTable(t, table, func(yield func(uint64) bool) {
				for address := range uint64(table.Rows[len(table.Rows)-1].Address) + 1000 {
					if !yield(address) {
						return
					}
				}
			})
		})
	}
}

func TestRandomTables(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		var addresses []uint32
		next, widest := uint32(random.IntN(1000)), 1+random.IntN(1<<random.IntN(12))
		for range 1 + random.IntN(400) {
			addresses = append(addresses, next)
			next += 1 + uint32(random.IntN(widest))
		}
		table := tableOf(addresses...)
		checkTable(t, table, func(yield func(uint64) bool) {
			for _, address := range addresses {
				for _, near := range []uint64{uint64(address) - 1, uint64(address), uint64(address) + 1} {
					if near < 1<<32 && !yield(near) {
						return
					}
				}
			}
			for range 1000 {
				if !yield(uint64(random.IntN(int(next) + 10))) {
					return
				}
			}
		})
	}
}

// TestTableUpToTheLastAddress has rows at the end of what an address of a table can be.
func TestTableUpToTheLastAddress(t *testing.T) {
	table := tableOf(0, 1<<31, 1<<32-1)
	checkTable(t, table, func(yield func(uint64) bool) {
		for _, address := range []uint64{0, 1, 1<<31 - 1, 1 << 31, 1<<32 - 2, 1<<32 - 1} {
			if !yield(address) {
				return
			}
		}
	})
	_, _, found := findRow(contents(table, layout(table)), layout(table), 1<<32)
	assert.False(t, found)
}
