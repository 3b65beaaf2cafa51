//go:build linux

package kernel

import (
	"math"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Clock turns the kernel's monotonic and boot-time nanoseconds (bpf_ktime_get_ns, bpf_ktime_get_boot_ns) into wall time.
//
// It keeps the offsets of the last Refresh: refresh it now and then, or wall time that was stepped or slewed since is not
// followed. Safe for concurrent use.
type Clock struct {
	monotonicOffset atomic.Int64 // wall minus monotonic, nanoseconds
	bootOffset      atomic.Int64
}

// NewClock returns a Clock that has been refreshed once.
func NewClock() *Clock {
	clock := &Clock{}
	clock.Refresh()
	return clock
}

// Refresh measures the offsets again.
func (c *Clock) Refresh() {
	c.monotonicOffset.Store(wallOffset(unix.CLOCK_MONOTONIC))
	c.bootOffset.Store(wallOffset(unix.CLOCK_BOOTTIME))
}

// Wall converts nanoseconds of CLOCK_MONOTONIC.
func (c *Clock) Wall(monotonicNs uint64) time.Time {
	return time.Unix(0, int64(monotonicNs)+c.monotonicOffset.Load())
}

// Monotonic converts wall time to nanoseconds of CLOCK_MONOTONIC.
func (c *Clock) Monotonic(wall time.Time) uint64 {
	return uint64(wall.UnixNano() - c.monotonicOffset.Load())
}

// WallFromBoot converts nanoseconds of CLOCK_BOOTTIME, which also counts while the machine sleeps.
func (c *Clock) WallFromBoot(bootNs uint64) time.Time {
	return time.Unix(0, int64(bootNs)+c.bootOffset.Load())
}

// wallOffset reads wall time between two reads of the other clock, and takes the try with the smallest gap: a thread that
// was descheduled in between would be off by its wait.
func wallOffset(clock int32) int64 {
	const tries = 5
	best, offset := int64(math.MaxInt64), int64(0)
	for range tries {
		before := readClock(clock)
		wall := readClock(unix.CLOCK_REALTIME)
		after := readClock(clock)
		if gap := after - before; gap < best {
			best, offset = gap, wall-(before+gap/2)
		}
	}
	return offset
}

// readClock cannot fail for the clocks that are asked here: they exist on every kernel since 2.6.39.
func readClock(clock int32) int64 {
	var now unix.Timespec
	_ = unix.ClockGettime(clock, &now)
	return now.Nano()
}
