//go:build linux

package cpu

import (
	"errors"
	"fmt"
	"math/bits"
	"sync"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/ebpfreceiver/ebpfreceiver/internal/unwind"
)

// rowsPerBucket is how many rows of a table each entry of its index is for, on average: a search then takes three steps.
const rowsPerBucket = 8

// maxShift is by how much a 32-bit address can be shifted.
const maxShift = 31

// placement is where the kernel side finds a table.
type placement struct {
	slot          uint32
	buckets, rows uint32
	shift         uint8
}

// tables puts tables into maps of the kernel side. To put some there takes as long as all programs that might look at what
// was there before (synchronize_rcu, tens of milliseconds), so it is done by a goroutine of its own, for all that wait.
type tables struct {
	outer   *ebpf.Map
	single  bool   // there is no batch for such a map: before Linux 5.13
	changed func() // called when a table has become ready
	failed  func(error)

	mutex  sync.Mutex
	ready  *sync.Cond
	queue  []*unwind.Table
	known  map[*unwind.Table]*tableState
	slots  []uint32 // that are free
	drop   []uint32 // slots to be emptied
	bytes  uint64   // in the kernel
	full   uint64   // tables for which there was no slot
	closed bool
	done   sync.WaitGroup
}

type tableState struct {
	placement
	placed, failed, dropped bool
	bytes                   uint64
}

func newTables(outer *ebpf.Map, changed func(), failed func(error)) *tables {
	t := &tables{outer: outer, changed: changed, failed: failed, known: map[*unwind.Table]*tableState{}}
	t.ready = sync.NewCond(&t.mutex)
	for slot := outer.MaxEntries(); slot > 0; slot-- {
		t.slots = append(t.slots, slot-1)
	}
	t.done.Go(t.work)
	return t
}

func (t *tables) close() {
	t.mutex.Lock()
	t.closed = true
	t.ready.Signal()
	t.mutex.Unlock()
	t.done.Wait()
}

// find tells where a table is. The first call for a table lets it be put there; pending says that it is worth asking again.
func (t *tables) find(table *unwind.Table) (where placement, placed, pending bool) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	state := t.known[table]
	if state == nil {
		if len(t.slots) == 0 {
			t.full++
			return placement{}, false, false
		}
		state = &tableState{placement: layout(table)}
		state.slot = t.slots[len(t.slots)-1]
		t.slots = t.slots[:len(t.slots)-1]
		t.known[table] = state
		t.queue = append(t.queue, table)
		t.ready.Signal()
	}
	return state.placement, state.placed, !state.placed && !state.failed
}

// forget lets a table be removed that no process uses any more.
func (t *tables) forget(table *unwind.Table) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	state := t.known[table]
	if state == nil {
		return
	}
	delete(t.known, table)
	state.dropped = true
	if state.placed || state.failed {
		t.bytes -= state.bytes
		t.drop = append(t.drop, state.slot)
		t.ready.Signal()
	}
}

// stats tells how many tables there are, how many there may be, their bytes, and for how many there was no room.
func (t *tables) stats() (count, capacity int, bytes, full uint64) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	return len(t.known), int(t.outer.MaxEntries()), t.bytes, t.full
}

func (t *tables) work() {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	for {
		switch {
		case t.closed:
			return
		case len(t.queue) > 0 && (len(t.slots) > 0 || len(t.drop) == 0):
			t.place(t.next())
		case len(t.drop) > 0:
			t.remove()
		default:
			t.ready.Wait()
		}
	}
}

// batchRows bounds how many rows are put into maps before the kernel side sees the first of them.
const batchRows = 1 << 20

// next takes tables from the queue that are still wanted. The mutex is held.
func (t *tables) next() []*queued {
	var taken []*queued
	for rows := 0; len(t.queue) > 0 && rows < batchRows; t.queue = t.queue[1:] {
		table := t.queue[0]
		if state := t.known[table]; state != nil {
			taken = append(taken, &queued{table: table, state: state})
			rows += len(table.Rows)
		}
	}
	return taken
}

// place puts tables there, and takes note of that. The mutex is held, but not meanwhile.
func (t *tables) place(taken []*queued) {
	t.mutex.Unlock()
	t.put(taken)
	t.mutex.Lock()
	for _, one := range taken {
		one.state.placed, one.state.failed, one.state.bytes = one.err == nil, one.err != nil, one.bytes
		if one.state.dropped {
			t.drop = append(t.drop, one.state.slot)
		} else {
			t.bytes += one.bytes
		}
	}
	t.mutex.Unlock()
	for _, one := range taken {
		if one.err != nil {
			t.failed(one.err)
		}
	}
	t.changed()
	t.mutex.Lock()
}

// remove empties the slots of tables that nobody uses any more. The mutex is held, but not meanwhile.
func (t *tables) remove() {
	slot := t.drop[0]
	t.drop = t.drop[1:]
	t.mutex.Unlock()
	if err := t.outer.Delete(slot); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		t.failed(fmt.Errorf("remove an unwind table from slot %d: %w", slot, err))
	}
	t.mutex.Lock()
	t.slots = append(t.slots, slot)
}

// layout says how large the index of a table is.
func layout(table *unwind.Table) placement {
	rows := uint32(len(table.Rows))
	if rows == 0 {
		return placement{}
	}
	last := table.Rows[rows-1].Address
	wanted := max(rows/rowsPerBucket, 1)
	shift := uint8(0)
	if perBucket := last / wanted; perBucket > 1 {
		shift = uint8(min(bits.Len32(perBucket-1), maxShift))
	}
	return placement{buckets: last>>shift + 1, rows: rows, shift: shift}
}

// contents are the entries of a table's map: its index (struct bucket of bpf/include/cpu/table.h), then its rows.
func contents(table *unwind.Table, where placement) []uint64 {
	entries := make([]uint64, int(where.buckets)+len(table.Rows))
	next := 0 // the first row behind the bucket
	for bucket := range where.buckets {
		end := (uint64(bucket) + 1) << where.shift
		low := max(next-1, 0) // the last row in front of the bucket holds in it, too
		if next < len(table.Rows) && uint64(table.Rows[next].Address) == uint64(bucket)<<where.shift {
			low = next
		}
		for next < len(table.Rows) && uint64(table.Rows[next].Address) < end {
			next++
		}
		entries[bucket] = uint64(low) | uint64(max(next-1, 0))<<32
	}
	for i, row := range table.Rows {
		entries[int(where.buckets)+i] = uint64(row.Address) | uint64(uint16(row.Offset))<<32 |
			uint64(row.Rule)<<48 | uint64(uint8(row.FramePointer))<<56
	}
	return entries
}

// queued is a table on its way into the kernel.
type queued struct {
	table *unwind.Table
	state *tableState
	inner *ebpf.Map
	bytes uint64
	err   error
}

// put makes the maps of tables and lets the kernel side see them.
func (t *tables) put(taken []*queued) {
	var slots, descriptors []uint32
	var made []*queued
	for _, one := range taken {
		if one.inner, one.err = newTableMap(one.table, one.state.placement); one.err != nil {
			continue
		}
		defer one.inner.Close() // the outer map keeps it
		one.bytes = uint64(one.inner.MaxEntries()) * unwind.RowBytes
		slots, descriptors = append(slots, one.state.slot), append(descriptors, uint32(one.inner.FD()))
		made = append(made, one)
	}
	if len(made) > 1 && !t.single {
		if _, err := t.outer.BatchUpdate(slots, descriptors, nil); err == nil {
			return
		}
		t.single = true
	}
	for _, one := range made {
		if err := t.outer.Put(one.state.slot, one.inner); err != nil {
			one.bytes, one.err = 0, fmt.Errorf("put an unwind table into slot %d: %w", one.state.slot, err)
		}
	}
}

// newTableMap makes the map of a table.
func newTableMap(table *unwind.Table, where placement) (made *ebpf.Map, err error) {
	entries := contents(table, where)
	inner, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "unwind_table", Type: ebpf.Array, KeySize: 4, ValueSize: unwind.RowBytes, MaxEntries: uint32(len(entries)),
		Flags: unix.BPF_F_INNER_MAP,
	})
	if err != nil {
		return nil, fmt.Errorf("make a map for an unwind table of %d rows: %w", len(table.Rows), err)
	}
	const batch = 1 << 15
	keys := make([]uint32, min(batch, len(entries)))
	for start := 0; start < len(entries); start += batch {
		part := entries[start:min(start+batch, len(entries))]
		for i := range part {
			keys[i] = uint32(start + i)
		}
		if _, err := inner.BatchUpdate(keys[:len(part)], part, nil); err != nil {
			inner.Close()
			return nil, fmt.Errorf("write an unwind table of %d rows: %w", len(table.Rows), err)
		}
	}
	return inner, nil
}
