//go:build linux

package unwind

import (
	"cmp"
	"slices"
)

// filler says what holds between functions that are described.
type filler struct {
	start, end uint32
	row        Row
}

// preferred drops the functions from an index on that lie where others are: .debug_frame only completes .eh_frame. Those in
// front of the index have to be sorted.
func (c *collector) preferred(index int) {
	first := c.functions[:index]
	kept := first
	for _, candidate := range c.functions[index:] {
		at, _ := slices.BinarySearchFunc(first, candidate.start, func(f function, start uint32) int {
			return cmp.Compare(f.start, start)
		})
		if at > 0 && first[at-1].end > candidate.start || at < len(first) && first[at].start < candidate.end {
			continue
		}
		kept = append(kept, candidate)
	}
	c.functions = kept
}

func (c *collector) sort() {
	slices.SortFunc(c.functions, func(a, b function) int {
		return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.first, b.first))
	})
}

// table brings the rows of all functions into order, with rows for what lies between them.
func (c *collector) table(fillers []filler) *Table {
	c.sort()
	found := len(c.functions)
	c.functions = slices.CompactFunc(c.functions, func(a, b function) bool { return a.start == b.start })
	c.counts.Overlapping += found - len(c.functions)
	rows := make([]Row, 0, len(c.rows)+len(fillers)+16)
	put := func(row Row) {
		if last := len(rows) - 1; last >= 0 {
			if rows[last].Address == row.Address {
				rows = rows[:last]
				last--
			}
			if last >= 0 && same(rows[last], row) {
				return
			}
		} else if row.Rule == RuleNone {
			return
		}
		rows = append(rows, row)
	}
	gap := func(start, end uint32) {
		none := Row{Address: start, FramePointer: FramePointerKept}
		put(none)
		for _, fill := range fillers {
			if from, to := max(start, fill.start), min(end, fill.end); from < to {
				row := fill.row
				row.Address = from
				put(row)
				if to < end {
					none.Address = to
					put(none)
				}
			}
		}
	}
	at := uint32(0)
	for index, current := range c.functions {
		if current.start > at && (current.start-at > maxPadding || index == 0) {
			gap(at, current.start)
		}
		end := current.end
		if index+1 < len(c.functions) && end > c.functions[index+1].start {
			end = c.functions[index+1].start // It is not known which is right from there on; the later one is more exact.
			c.counts.Overlapping++
		}
		for _, row := range c.rows[current.first:][:current.count] {
			if row.Address < end {
				put(row)
			}
		}
		at = end
	}
	last := at
	for _, fill := range fillers {
		last = max(last, fill.end)
	}
	gap(at, last)
	put(Row{Address: last, FramePointer: FramePointerKept}) // The last row says where the table ends.
	return &Table{Base: c.base, Rows: slices.Clone(rows)}
}

// same tells whether two rows differ in nothing but their addresses.
func same(a, b Row) bool {
	return a.Rule == b.Rule && a.Offset == b.Offset && a.FramePointer == b.FramePointer
}
