//go:build linux

package main

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

const ringPackage = "github.com/ebpfreceiver/ebpfreceiver/internal/ring"

// runRing runs the benchmarks of the ring's own package and reads what they print.
func runRing(opts options, r *report) error {
	command := exec.Command("go", "test", "-run", "^$", "-bench", ".", "-benchtime", opts.window.String(),
		"-count", strconv.Itoa(opts.rounds), ringPackage)
	output, err := command.CombinedOutput()
	if err != nil {
		return fmt.Errorf("run the ring's benchmarks (in the repository): %w\n%s", err, output)
	}
	var names []string
	figures := map[string]map[string][]float64{} // by benchmark and unit
	for line := range strings.Lines(string(output)) {
		name, measured, ok := parseBenchmark(line)
		if !ok {
			continue
		}
		if figures[name] == nil {
			names = append(names, name)
			figures[name] = map[string][]float64{}
		}
		for unit, value := range measured {
			figures[name][unit] = append(figures[name][unit], value)
		}
	}
	var rows [][]string
	for _, name := range names {
		row := []string{name}
		for _, unit := range []string{"ns/op", "events/s", "%lost"} {
			cell := "-"
			if values := figures[name][unit]; len(values) > 0 {
				cell = spreadOf(values).format("%.4g")
			}
			row = append(row, cell)
		}
		rows = append(rows, row)
	}
	r.table("events of 64 bytes (median, min .. max)", []string{"benchmark", "ns/event", "events/s received", "% lost"}, rows)
	saturated := spreadOf(figures["BenchmarkSaturated/ring_buffer"]["events/s"])
	r.target("ring buffer's reader in a saturated concurrent test", "> 2.1 M events/s",
		spread{saturated.Median / 1e6, saturated.Min / 1e6, saturated.Max / 1e6}.format("%.2f")+" M events/s", saturated.Median > 2.1e6)
	return nil
}

// parseBenchmark reads a result line of `go test -bench`: a name, a count, and pairs of value and unit.
func parseBenchmark(line string) (name string, measured map[string]float64, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
		return "", nil, false
	}
	measured = map[string]float64{}
	for i := 2; i+1 < len(fields); i += 2 {
		value, err := strconv.ParseFloat(fields[i], 64)
		if err != nil {
			return "", nil, false
		}
		measured[fields[i+1]] = value
	}
	name = fields[0]
	if i := strings.LastIndex(name, "-"); i > 0 { // the number of processors
		if _, err := strconv.Atoi(name[i+1:]); err == nil {
			name = name[:i]
		}
	}
	return name, measured, true
}
