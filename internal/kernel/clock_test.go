//go:build linux

package kernel

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestClockFollowsWallTime(t *testing.T) {
	clock := NewClock()
	for name, test := range map[string]struct {
		clock   int32
		convert func(uint64) time.Time
	}{
		"monotonic": {unix.CLOCK_MONOTONIC, clock.Wall},
		"boot time": {unix.CLOCK_BOOTTIME, clock.WallFromBoot},
	} {
		t.Run(name, func(t *testing.T) {
			clock.Refresh()
			before := time.Now()
			converted := test.convert(uint64(readClock(test.clock)))
			after := time.Now()
			const tolerance = 5 * time.Millisecond // of a machine that is busy while the offset is measured
			if converted.Before(before.Add(-tolerance)) || converted.After(after.Add(tolerance)) {
				t.Errorf("converted to %v, which is not between %v and %v", converted, before, after)
			}
		})
	}
}

func TestClockKeepsIntervals(t *testing.T) {
	clock := NewClock()
	if interval := clock.Wall(7_000_000_123).Sub(clock.Wall(7_000_000_000)); interval != 123 {
		t.Errorf("123 ns became %v", interval)
	}
}

func TestClockConvertsBack(t *testing.T) {
	clock := NewClock()
	if back := clock.Monotonic(clock.Wall(7_000_000_123)); back != 7_000_000_123 {
		t.Errorf("7000000123 ns became %d", back)
	}
}

func BenchmarkClockWall(b *testing.B) {
	clock := NewClock()
	b.ReportAllocs()
	for b.Loop() {
		_ = clock.Wall(1)
	}
}
