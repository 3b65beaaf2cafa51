//go:build linux

package symbol

import (
	"bytes"
	"cmp"
	"container/heap"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"time"
)

// perfMap is what a process has compiled while it runs and tells in a file /tmp/perf-PID.map: lines of start, size and name
// (tools/perf/Documentation/jit-interface.txt of the kernel). The file grows; later lines replace earlier ones that they
// overlap.
type perfMap struct {
	open func() (*os.File, error)
	kept *os.File // what was opened last: the process may end, and its file be out of reach, before the names are asked for

	identity fileIdentity
	consumed int64 // bytes of the file, in whole lines
	checked  time.Time
	entries  []perfEntry // sorted, without overlaps
	names    []byte
	skipped  int // lines that are none
	full     bool
	err      error
}

type perfEntry struct {
	start, end uint64
	name       uint32
	length     uint16
}

const (
	perfEntryBytes   = 24
	maxPerfEntries   = 500_000
	maxPerfNames     = 32 << 20
	maxPerfNameBytes = 4096
	maxPerfLine      = maxPerfNameBytes + 64
	// perfReadAtMost is how often a map is looked at for what was added.
	perfReadAtMost = time.Second
	// maxPerfRead bounds one reading; the rest follows the next time.
	maxPerfRead = 64 << 20
)

func (m *perfMap) lookup(address uint64, now time.Time) (Frame, error) {
	if m.checked.IsZero() || now.Sub(m.checked) >= perfReadAtMost {
		m.checked = now
		m.err = m.refresh()
	}
	index, found := slices.BinarySearchFunc(m.entries, address, func(entry perfEntry, address uint64) int {
		return cmp.Compare(entry.start, address)
	})
	if !found {
		index--
	}
	if index < 0 || address >= m.entries[index].end {
		return Frame{}, cmp.Or(m.err, ErrNoSymbol)
	}
	return perfFrame(string(m.name(m.entries[index]))), nil
}

func (m *perfMap) name(entry perfEntry) []byte {
	return m.names[entry.name : entry.name+uint32(entry.length)]
}

// refresh reads what was added since the last time, or everything if it is another file.
func (m *perfMap) refresh() error {
	err := m.keep()
	opened := m.kept
	if opened == nil {
		return err
	}
	status, err := opened.Stat()
	if err != nil {
		return fmt.Errorf("find the size of %s: %w", opened.Name(), err)
	}
	identity := inodeOf(status)
	if identity != m.identity || status.Size() < m.consumed {
		*m = perfMap{open: m.open, kept: opened, checked: m.checked, identity: identity}
	}
	if status.Size() == m.consumed || m.full {
		return m.limit()
	}
	if _, err := opened.Seek(m.consumed, io.SeekStart); err != nil {
		return fmt.Errorf("read %s from %d on: %w", opened.Name(), m.consumed, err)
	}
	if err := m.readFrom(io.LimitReader(opened, maxPerfRead)); err != nil {
		return fmt.Errorf("read %s: %w", opened.Name(), err)
	}
	return m.limit()
}

// keep opens the file, and lets go of the one before. Where there is none any more, that one is kept.
func (m *perfMap) keep() error {
	opened, err := m.open()
	if err != nil {
		return err
	}
	m.close()
	m.kept = opened
	return nil
}

func (m *perfMap) close() {
	if m.kept != nil {
		m.kept.Close()
		m.kept = nil
	}
}

func (m *perfMap) limit() error {
	if m.full {
		return fmt.Errorf("a map of more than %d functions or %d bytes of names: %w", maxPerfEntries, maxPerfNames, ErrTooLarge)
	}
	return nil
}

func (m *perfMap) readFrom(reader io.Reader) error {
	buffer := make([]byte, 64<<10)
	filled := 0
	var added []perfEntry
	for {
		count, err := reader.Read(buffer[filled:])
		filled += count
		rest := buffer[:filled]
		for {
			end := bytes.IndexByte(rest, '\n')
			if end < 0 {
				break
			}
			added = m.add(rest[:end], added)
			m.consumed += int64(end) + 1
			rest = rest[end+1:]
		}
		if len(rest) == len(buffer) { // No line is so long: go past it.
			m.consumed += int64(len(rest))
			m.skipped++
			rest = nil
		}
		filled = copy(buffer, rest)
		if err != nil || m.full {
			m.merge(added)
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			return nil
		}
	}
}

func (m *perfMap) add(line []byte, added []perfEntry) []perfEntry {
	start, rest, ok := hexadecimal(bytes.TrimPrefix(line, []byte("0x")))
	if !ok || len(line) > maxPerfLine || len(rest) == 0 || rest[0] != ' ' {
		m.skipped++
		return added
	}
	size, rest, ok := hexadecimal(bytes.TrimPrefix(rest[1:], []byte("0x")))
	if !ok || len(rest) < 2 || rest[0] != ' ' || size == 0 || size > math.MaxUint64-start {
		m.skipped++
		return added
	}
	name := rest[1:min(len(rest), maxPerfNameBytes+1)]
	if len(m.entries)+len(added) >= maxPerfEntries || len(m.names)+len(name) > maxPerfNames {
		m.full = true
		return added
	}
	added = append(added, perfEntry{start: start, end: start + size, name: uint32(len(m.names)), length: uint16(len(name))})
	m.names = append(m.names, name...)
	return added
}

// merge lets the added entries, the last of them first, hide the older ones where they overlap.
func (m *perfMap) merge(added []perfEntry) {
	if len(added) == 0 {
		return
	}
	all := slices.Concat(m.entries, added)
	order := make([]int, len(all)) // by start
	for index := range order {
		order[index] = index
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(all[a].start, all[b].start) })
	// Those that have begun, the newest on top; ended ones are dropped when they come to the top.
	var open newest
	merged := make([]perfEntry, 0, len(all))
	emit := func(index int, from, to uint64) {
		entry := all[index]
		if from >= to {
			return
		}
		if last := len(merged) - 1; last >= 0 && merged[last].end == from && merged[last].name == entry.name {
			merged[last].end = to
			return
		}
		entry.start, entry.end = from, to
		merged = append(merged, entry)
	}
	at := uint64(0)
	advance := func(to uint64) {
		for len(open) > 0 && at < to {
			top := open[0]
			if all[top].end <= at {
				heap.Pop(&open)
				continue
			}
			until := min(all[top].end, to)
			emit(top, at, until)
			at = until
		}
		at = to
	}
	for _, index := range order {
		advance(all[index].start)
		heap.Push(&open, index)
	}
	advance(math.MaxUint64)
	m.entries = slices.Clip(merged)
	m.compact()
}

// newest is a heap of places in a list, the last one on top.
type newest []int

func (n newest) Len() int           { return len(n) }
func (n newest) Less(a, b int) bool { return n[a] > n[b] }
func (n newest) Swap(a, b int)      { n[a], n[b] = n[b], n[a] }

// Push is for container/heap.
func (n *newest) Push(value any) { *n = append(*n, value.(int)) }

// Pop is for container/heap.
func (n *newest) Pop() any {
	last := (*n)[len(*n)-1]
	*n = (*n)[:len(*n)-1]
	return last
}

// compact drops the names of hidden entries when they are the greater part.
func (m *perfMap) compact() {
	used := 0
	for _, entry := range m.entries {
		used += int(entry.length)
	}
	if used*2 > len(m.names) {
		return
	}
	names := make([]byte, 0, used)
	for index := range m.entries {
		entry := &m.entries[index]
		name := m.name(*entry)
		entry.name = uint32(len(names))
		names = append(names, name...)
	}
	m.names = names
}

func (m *perfMap) retained() int64 {
	return int64(cap(m.entries))*perfEntryBytes + int64(cap(m.names))
}
