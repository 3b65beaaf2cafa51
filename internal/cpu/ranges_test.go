//go:build linux

package cpu

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRanges(t *testing.T) {
	now := time.Unix(1000, 0)
	r := newRanges(10)
	first, ok := r.take(4, now)
	require.True(t, ok)
	second, ok := r.take(6, now)
	require.True(t, ok)
	assert.Equal(t, span{0, 4}, first)
	assert.Equal(t, span{4, 6}, second)
	assert.EqualValues(t, 10, r.used)
	_, ok = r.take(1, now)
	assert.False(t, ok, "it is full")
	none, ok := r.take(0, now)
	assert.True(t, ok, "nothing fits always")
	assert.Zero(t, none)

	r.giveBack(first, now)
	_, ok = r.take(1, now.Add(reuseDelay-1))
	assert.False(t, ok, "programs may still look at it")
	again, ok := r.take(1, now.Add(reuseDelay))
	assert.True(t, ok)
	assert.Equal(t, span{0, 1}, again)

	r.giveBack(again, now.Add(reuseDelay))
	r.giveBack(second, now.Add(reuseDelay))
	whole, ok := r.take(10, now.Add(3*reuseDelay))
	assert.True(t, ok, "neighbours are one piece again")
	assert.Equal(t, span{0, 10}, whole)
}

// TestRangesAgainstAList takes and gives back at random, and keeps a list of what is taken.
func TestRangesAgainstAList(t *testing.T) {
	const capacity = 200
	random := rand.New(rand.NewPCG(1, 2))
	r := newRanges(capacity)
	var taken [capacity]bool
	var mine []span
	now := time.Unix(1000, 0)
	for range 20_000 {
		now = now.Add(time.Duration(random.IntN(500)) * time.Millisecond)
		if len(mine) > 0 && random.IntN(2) == 0 {
			i := random.IntN(len(mine))
			r.giveBack(mine[i], now)
			for at := range mine[i].count {
				taken[mine[i].first+at] = false
			}
			mine[i] = mine[len(mine)-1]
			mine = mine[:len(mine)-1]
			continue
		}
		piece, ok := r.take(uint32(random.IntN(20)), now)
		if !ok {
			continue
		}
		for at := range piece.count {
			require.False(t, taken[piece.first+at], "%v was taken already", piece)
			taken[piece.first+at] = true
		}
		mine = append(mine, piece)
		for i := 1; i < len(r.free); i++ {
			require.Less(t, r.free[i-1].first+r.free[i-1].count, r.free[i].first, "sorted, with something between")
		}
	}
	for _, piece := range mine {
		r.giveBack(piece, now)
	}
	whole, ok := r.take(capacity, now.Add(reuseDelay))
	require.True(t, ok)
	assert.Equal(t, span{0, capacity}, whole)
	assert.EqualValues(t, capacity, r.used)
}
