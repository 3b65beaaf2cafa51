//go:build linux

package cpu

import (
	"slices"
	"time"
)

// reuseDelay is how long after it was given back a piece of the array of mappings may be used again: programs that began to
// look at it before end within microseconds.
const reuseDelay = time.Second

// span is a piece of an array.
type span struct{ first, count uint32 }

// ranges gives out pieces of an array.
type ranges struct {
	free    []span // sorted, with something between each two
	waiting []returned
	used    uint32
}

type returned struct {
	span
	at time.Time
}

func newRanges(capacity uint32) *ranges {
	return &ranges{free: []span{{0, capacity}}}
}

// take finds a piece with so many elements. There may be none.
func (r *ranges) take(count uint32, now time.Time) (span, bool) {
	r.reclaim(now)
	if count == 0 {
		return span{}, true
	}
	for i := range r.free {
		if piece := &r.free[i]; piece.count >= count {
			taken := span{piece.first, count}
			piece.first += count
			piece.count -= count
			if piece.count == 0 {
				r.free = slices.Delete(r.free, i, i+1)
			}
			r.used += count
			return taken, true
		}
	}
	return span{}, false
}

// giveBack takes a piece back, to be used again after a while.
func (r *ranges) giveBack(piece span, now time.Time) {
	if piece.count > 0 {
		r.waiting = append(r.waiting, returned{piece, now})
	}
}

func (r *ranges) reclaim(now time.Time) {
	done := 0
	for ; done < len(r.waiting) && now.Sub(r.waiting[done].at) >= reuseDelay; done++ {
		r.insert(r.waiting[done].span)
	}
	r.waiting = slices.Delete(r.waiting, 0, done)
}

func (r *ranges) insert(piece span) {
	r.used -= piece.count
	i, _ := slices.BinarySearchFunc(r.free, piece.first, func(s span, first uint32) int { return int(int64(s.first) - int64(first)) })
	if i < len(r.free) && piece.first+piece.count == r.free[i].first {
		r.free[i].first = piece.first
		r.free[i].count += piece.count
	} else {
		r.free = slices.Insert(r.free, i, piece)
	}
	if i > 0 && r.free[i-1].first+r.free[i-1].count == r.free[i].first {
		r.free[i-1].count += r.free[i].count
		r.free = slices.Delete(r.free, i, i+1)
	}
}
