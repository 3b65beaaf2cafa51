//go:build linux

package ring

import (
	"github.com/cilium/ebpf"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
)

// Load loads the maps and programs of a probe, and opens the ring that they send events through. The caller closes both.
func Load(kern *kernel.Kernel, spec *ebpf.CollectionSpec, config Config) (*ebpf.Collection, *Reader, error) {
	if err := Configure(spec, config); err != nil {
		return nil, nil, err
	}
	collection, err := kern.Load(spec)
	if err != nil {
		return nil, nil, err
	}
	reader, err := NewReader(collection.Maps[mapName], config)
	if err != nil {
		collection.Close()
		return nil, nil, err
	}
	return collection, reader, nil
}

// Stats is what the kernel's side of a probe says of itself: how full the ring is, what did not get into it or could not be
// read, and what its programs cost. reasons are those of kernel.ReadLosses. Where an error says why the losses are not known,
// the rest is.
func Stats(probe string, collection *ebpf.Collection, reader *Reader, reasons []string) (kernel.Stats, error) {
	used, capacity := reader.Usage()
	losses, err := kernel.ReadLosses(probe, collection.Maps["losses"], reasons)
	return kernel.Stats{
		Losses:   append(losses, kernel.LossCount{Probe: probe, Reason: "unreadable_event", Count: reader.Lost()}),
		Maps:     []kernel.MapUsage{{Probe: probe, Map: mapName, Entries: used, Capacity: capacity}},
		Programs: kernel.ProgramStatistics(probe, collection),
	}, err
}
