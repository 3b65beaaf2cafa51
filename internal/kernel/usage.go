//go:build linux

package kernel

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
)

// ProgramStatistics returns the kernel's account of every program of a collection, by name. A program that the kernel
// cannot account (Linux before 5.1) is left out.
func ProgramStatistics(probe string, collection *ebpf.Collection) []ProgramStats {
	statistics := make([]ProgramStats, 0, len(collection.Programs))
	for _, name := range slices.Sorted(maps.Keys(collection.Programs)) {
		account, err := collection.Programs[name].Stats()
		if err != nil {
			continue
		}
		statistics = append(statistics, ProgramStats{
			Probe:    probe,
			Program:  name,
			RunTime:  account.Runtime,
			RunCount: account.RunCount,
			Misses:   account.RecursionMisses,
		})
	}
	return statistics
}

// ReadCounter sums an entry of a per-CPU array of 64-bit counters.
func ReadCounter(counters *ebpf.Map, index uint32) (total uint64, err error) {
	var perCPU []uint64
	if err := counters.Lookup(index, &perCPU); err != nil {
		return 0, err
	}
	for _, count := range perCPU {
		total += count
	}
	return total, nil
}

// ReadLosses sums the per-CPU counters of bpf/include/loss.h. reasons names the counters in the order of enum loss_reason;
// an empty name leaves its counter out.
func ReadLosses(probe string, losses *ebpf.Map, reasons []string) ([]LossCount, error) {
	counts := make([]LossCount, 0, len(reasons))
	for index, reason := range reasons {
		if reason == "" {
			continue
		}
		total, err := ReadCounter(losses, uint32(index))
		if err != nil {
			return nil, fmt.Errorf("read loss counter %d (%s) of the %s probe: %w", index, reason, probe, err)
		}
		counts = append(counts, LossCount{Probe: probe, Reason: reason, Count: total})
	}
	return counts, nil
}

// ReadMapUsage counts the entries of a hash map, one system call an entry: for a timer, not for a hot path.
//
// The count is exact only while nobody writes; concurrent deletes may restart the walk, so it stops at the capacity.
func ReadMapUsage(probe, name string, hash *ebpf.Map) (MapUsage, error) {
	usage := MapUsage{Probe: probe, Map: name, Capacity: uint64(hash.MaxEntries())}
	key := make([]byte, hash.KeySize())
	err := hash.NextKey(nil, key)
	for err == nil && usage.Entries < usage.Capacity {
		usage.Entries++
		err = hash.NextKey(key, key)
	}
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return usage, fmt.Errorf("count the entries of the %s probe's map %s: %w", probe, name, err)
	}
	return usage, nil
}
