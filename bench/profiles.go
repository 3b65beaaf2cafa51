//go:build linux

package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pprofile"

	"github.com/ebpfreceiver/ebpfreceiver/internal/cpu"
)

const (
	// profileInterval is how often profiles are made.
	profileInterval = 5 * time.Second
	// profileSettle is how long the receiver has before it is measured, to look into the programs and to name their functions
	// for the first time.
	profileSettle = profileInterval + 2*time.Second
)

// sampleCounts are samples of one program.
type sampleCounts struct {
	All        int
	Incomplete map[string]int // by reason
	Bottoms    map[string]int // complete ones, by the outermost function
}

// bottoms are the functions that stacks begin with: of C, of threads, of Go.
var bottoms = []string{
	"_start", "__libc_start_main", "__libc_start_call_main", "clone", "__clone", "clone3", "__clone3", "ret_from_fork_asm",
	"ret_from_fork", "runtime.goexit", "runtime.mstart", "runtime.rt0_go", "runtime.mcall", "runtime.systemstack", "_rt0_amd64",
	"_rt0_amd64_linux", "runtime.morestack", "runtime.sigreturn__sigaction", "runtime.gcBgMarkWorker", "runtime.asmcgocall",
}

// complete is the share of samples whose outermost function is known to be one.
func (c *sampleCounts) complete() float64 {
	whole := 0
	for _, name := range bottoms {
		whole += c.Bottoms[name]
	}
	return float64(whole) / float64(max(c.All, 1))
}

func (o *observedReceiver) takeProfiles(_ context.Context, profiles pprofile.Profiles) error {
	dictionary := profiles.Dictionary()
	strings := dictionary.StringTable()
	o.mutex.Lock()
	defer o.mutex.Unlock()
	o.totals.ProfileBytes += (&pprofile.ProtoMarshaler{}).ProfilesSize(profiles)
	for _, resource := range profiles.ResourceProfiles().All() {
		service := text(resource.Resource().Attributes(), "service.name")
		counts := o.totals.Samples[service]
		if counts == nil {
			counts = &sampleCounts{Incomplete: map[string]int{}, Bottoms: map[string]int{}}
			o.totals.Samples[service] = counts
		}
		for _, scope := range resource.ScopeProfiles().All() {
			for _, profile := range scope.Profiles().All() {
				for _, sample := range profile.Samples().All() {
					counts.add(dictionary, strings, sample)
				}
			}
		}
	}
	return nil
}

func (c *sampleCounts) add(dictionary pprofile.ProfilesDictionary, strings pcommon.StringSlice, sample pprofile.Sample) {
	value := int(sample.Values().At(0))
	c.All += value
	for _, index := range sample.AttributeIndices().All() {
		attribute := dictionary.AttributeTable().At(int(index))
		if strings.At(int(attribute.KeyStrindex())) == "profile.stack.incomplete" {
			c.Incomplete[attribute.Value().Str()] += value
			return
		}
	}
	locations := dictionary.StackTable().At(int(sample.StackIndex())).LocationIndices()
	name := ""
	if locations.Len() > 0 {
		lines := dictionary.LocationTable().At(int(locations.At(locations.Len() - 1))).Lines()
		if lines.Len() > 0 {
			function := dictionary.FunctionTable().At(int(lines.At(lines.Len() - 1).FunctionIndex()))
			name = strings.At(int(function.NameStrindex()))
		}
	}
	c.Bottoms[name] += value
}

func profileReceiver(frequency int, statistics bool) *receiverOrder {
	return &receiverOrder{
		Config: map[string]any{
			"tcp":      map[string]any{"enabled": false},
			"cpu":      map[string]any{"frequency": frequency},
			"profiles": map[string]any{"interval": profileInterval.String()},
			"kernel":   map[string]any{"program_stats": statistics},
		},
		Probe: cpu.ProbeName, Profiles: true,
	}
}

// profiled is one measurement, with a receiver or without.
type profiled struct {
	perCPUSecond map[string]float64 // units of each program
	programs     programUsage
	user, system float64 // of a processor
	resident     int     // more than without a receiver
	walks        uint64
	lost         []string
	totals       receiverTotals
}

// measureProfiles lets a receiver look at what runs; without an order, there is none.
func measureProfiles(order *receiverOrder, running []*burner, window time.Duration) (measured profiled, err error) {
	var process *child
	var before, after receiverUsage
	if order != nil {
		if process, err = startBinary(ownBinary, receiverName, window+profileSettle+time.Minute); err != nil {
			return measured, err
		}
		defer process.stop()
		rest, err := call[int](process, "rest", none{})
		if err != nil {
			return measured, err
		}
		measured.resident = -rest
		if _, err := call[none](process, "start", order); err != nil {
			return measured, err
		}
		time.Sleep(profileSettle)
		if before, err = call[receiverUsage](process, "use", none{}); err != nil {
			return measured, err
		}
		if _, err := call[none](process, "forget", none{}); err != nil {
			return measured, err
		}
	}
	begin := make([]progress, len(running))
	for i, one := range running {
		begin[i] = one.progress()
	}
	from := time.Now()
	time.Sleep(window)
	measured.perCPUSecond = map[string]float64{}
	for i, one := range running {
		now := one.progress()
		measured.perCPUSecond[one.name] = (now.units - begin[i].units) / (now.usedNs - begin[i].usedNs) * 1e9
	}
	if order == nil {
		return measured, nil
	}
	if after, err = call[receiverUsage](process, "use", none{}); err != nil {
		return measured, err
	}
	passed := time.Since(from)
	measured.user = (after.User - before.User).Seconds() / passed.Seconds()
	measured.system = (after.System - before.System).Seconds() / passed.Seconds()
	measured.resident += after.ResidentBytes
	measured.programs.Runs = after.Programs["cpu_sample"].Runs - before.Programs["cpu_sample"].Runs
	measured.programs.Time = after.Programs["cpu_sample"].Time - before.Programs["cpu_sample"].Time
	measured.walks = after.Events["walk"] - before.Events["walk"]
	measured.lost = lostOf(cpu.ProbeName, after)
	measured.totals, err = call[receiverTotals](process, "stop", none{})
	return measured, err
}

func (p *profiled) perRun() time.Duration {
	return p.programs.Time / time.Duration(max(p.programs.Runs, 1))
}

// ofProcessor is what the programs in the kernel take, as a share of one processor.
func (p *profiled) ofProcessor(window time.Duration) float64 {
	return p.programs.Time.Seconds() / window.Seconds()
}

func runProfiles(opts options, r *report) error {
	directory, err := writeBurners()
	defer func() { _ = os.RemoveAll(directory) }()
	if err != nil {
		return err
	}
	window := 5 * opts.window
	var alone [2]profiled
	depths := []int{50, 200}
	for i, depth := range depths {
		if err := profileMix(directory, depth, window, opts, r); err != nil {
			return err
		}
		if alone[i], err = profileAlone(directory, depth, window, r); err != nil {
			return err
		}
	}
	each := float64(alone[1].perRun()-alone[0].perRun()) / float64(depths[1]-depths[0])
	r.target("BPF of a stack of 50 frames", "<= 8 us", alone[0].perRun().String(), alone[0].perRun() <= 8*time.Microsecond)
	r.target("BPF of each frame beyond", "<= 100 ns", fmt.Sprintf("%.0f ns", each), each <= 100)
	return nil
}

// profileAlone measures the program in C by itself, on all processors.
func profileAlone(directory string, depth int, window time.Duration, r *report) (measured profiled, err error) {
	var running []*burner
	for range r.CPUs {
		one, err := startBurner(directory, "c", burnerKinds(directory, depth)["c"])
		if err != nil {
			return measured, err
		}
		defer one.stop()
		running = append(running, one)
	}
	return measureProfiles(profileReceiver(499, true), running, window)
}

// profileMix measures programs of all kinds at a time.
func profileMix(directory string, depth int, window time.Duration, opts options, r *report) error {
	kinds := burnerKinds(directory, depth)
	names := slices.Sorted(maps.Keys(kinds))
	var running []*burner
	for _, name := range names {
		one, err := startBurner(directory, name, kinds[name])
		if err != nil {
			return err
		}
		defer one.stop()
		running = append(running, one)
	}
	time.Sleep(3 * time.Second) // compilers have done their work
	orders := []*receiverOrder{nil, profileReceiver(19, false), profileReceiver(99, false)}
	titles := []string{"without", "19 Hz", "99 Hz"}
	rates := make([]map[string][][]float64, len(orders))
	users := make([][]float64, len(orders))
	for i := range rates {
		rates[i] = map[string][][]float64{}
	}
	for round := range opts.rounds {
		for _, which := range mirrored(len(orders)) {
			measured, err := measureProfiles(orders[which], running, window)
			if err != nil {
				return err
			}
			for name, rate := range measured.perCPUSecond {
				for len(rates[which][name]) <= round {
					rates[which][name] = append(rates[which][name], nil)
				}
				rates[which][name][round] = append(rates[which][name][round], rate)
			}
			users[which] = append(users[which], 100*(measured.user+measured.system))
		}
	}
	var rows [][]string
	slowest := 1.0
	for _, name := range names {
		row := []string{name}
		for which := 1; which < len(orders); which++ {
			ratio := spreadOf(ratios(rates[which][name], rates[0][name]))
			row = append(row, ratio.format("%.4f"))
			if which == 2 {
				slowest = min(slowest, ratio.Median)
			}
		}
		rows = append(rows, row)
	}
	title := fmt.Sprintf("C at depth %d: ", depth)
	r.table(title+"work done per second of processor time, with / without", append([]string{"program"}, titles[1:]...), rows)
	r.target(title+"slow-down at 99 Hz, of the program that suffers most", "< 0.5 %", fmt.Sprintf("%.2f %%", 100*(1-slowest)), slowest > 0.995)

	costs := [][]string{}
	limits := map[int]float64{19: 0.15, 99: 0.5}
	if depth > 50 {
		limits[99] = 0.8
	}
	for i, frequency := range []int{19, 99} {
		order := profileReceiver(frequency, true)
		if opts.profile != "" {
			order.Profile = fmt.Sprintf("%s.%d", opts.profile, frequency)
		}
		inspected, err := measureProfiles(order, running, window)
		if err != nil {
			return err
		}
		inKernel, own := 100*inspected.ofProcessor(window), spreadOf(users[i+1])
		costs = append(costs, []string{
			titles[i+1], fmt.Sprintf("%.1f us", float64(inspected.perRun().Nanoseconds())/1e3), fmt.Sprintf("%.3f %%", inKernel),
			own.format("%.3f") + " %", fmt.Sprintf("%.1f MB", float64(inspected.resident)/1e6),
			textOr(inspected.lost, "none"),
		})
		whole := inKernel + own.Median
		r.target(fmt.Sprintf("%swhole receiver at %d Hz, of one processor", title, frequency), fmt.Sprintf("<= %.2f %%", limits[frequency]),
			fmt.Sprintf("%.3f %%", whole), whole <= limits[frequency])
		if frequency == 99 {
			r.target(title+"more memory", "<= 60 MB", fmt.Sprintf("%.1f MB", float64(inspected.resident)/1e6), inspected.resident <= 60e6)
			reportCompleteness(title, inspected.totals, r)
		}
	}
	r.table(title+"cost", []string{"", "BPF a sample", "BPF of a processor", "receiver of a processor", "memory", "lost"}, costs)
	return nil
}

func reportCompleteness(title string, totals receiverTotals, r *report) {
	wanted := map[string]float64{"burn": 0.99, "python3": 0.99, "node": 0.98, "bench": 0.99}
	var rows [][]string
	for _, service := range slices.Sorted(maps.Keys(totals.Samples)) {
		counts := totals.Samples[service]
		share := counts.complete()
		rows = append(rows, []string{service, fmt.Sprint(counts.All), fmt.Sprintf("%.2f %%", 100*share), fmt.Sprint(counts.Incomplete)})
		for prefix, limit := range wanted {
			if strings.HasPrefix(service, prefix) {
				r.target(title+"complete stacks of "+service, fmt.Sprintf(">= %.0f %%", 100*limit), fmt.Sprintf("%.2f %%", 100*share), share >= limit)
			}
		}
	}
	r.table(title+"stacks", []string{"service", "samples", "complete", "incomplete"}, rows)
}
