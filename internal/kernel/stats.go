package kernel

import "time"

// Stats is what a probe says about itself; the receiver turns it into its own telemetry.
// All counters are totals since the probe was started.
type Stats struct {
	Events   []EventCount
	Losses   []LossCount
	Maps     []MapUsage
	Programs []ProgramStats
}

// EventCount is how many events of one kind a probe has received.
type EventCount struct {
	Probe string
	Kind  string
	Count uint64
}

// LossCount is how many events a probe has lost for one reason.
type LossCount struct {
	Probe  string
	Reason string
	Count  uint64
}

// MapUsage is how full one bounded store (a BPF map or a table in user space) is.
type MapUsage struct {
	Probe    string
	Map      string
	Entries  uint64
	Capacity uint64 // zero when only memory bounds it
}

// ProgramStats is the kernel's own account of one BPF program (bpf_prog_info run_time_ns and run_cnt).
// Run time and count are zero unless run-time statistics are enabled (sysctl kernel.bpf_stats_enabled, or Options.ProgramStats).
type ProgramStats struct {
	Probe    string
	Program  string
	RunTime  time.Duration
	RunCount uint64
	// Misses is how often the kernel did not run the program because it was running already on the same CPU, where an
	// interrupt came between (bpf_prog_info recursion_misses, since 5.12).
	Misses uint64
}

// Add takes in what another part of a probe says.
func (s *Stats) Add(more Stats) {
	s.Events = append(s.Events, more.Events...)
	s.Losses = append(s.Losses, more.Losses...)
	s.Maps = append(s.Maps, more.Maps...)
	s.Programs = append(s.Programs, more.Programs...)
}
