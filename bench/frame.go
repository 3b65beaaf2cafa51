//go:build linux

package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// What the scenarios that compare windows of traffic with and without the receiver have in common.

const (
	// settle is more than what is in the ring needs to reach the consumer.
	settle = 300 * time.Millisecond
	// statisticsWindows is how often the programs' time is measured.
	statisticsWindows = 3
)

// variant is a way to run the receiver; a nil order means without it.
type variant struct {
	name  string
	order *receiverOrder
}

// work is what the client of a window has done.
type work interface {
	units() int // connections, requests or calls
	perSecond() float64
}

// window is what came of one window.
type window[Client work, Server any] struct {
	client        Client
	server        Server
	before, after receiverUsage // zero without the receiver
	totals        receiverTotals
}

func (w *window[Client, Server]) receiverTime() (user, system time.Duration) {
	return w.after.User - w.before.User, w.after.System - w.before.System
}

// perUnit is a time in microseconds for each unit of work.
func (w *window[Client, Server]) perUnit(spent time.Duration) float64 {
	return float64(spent.Nanoseconds()) / 1e3 / float64(w.client.units())
}

// traffic is what runs in a window: a server, which is asked to listen and in the end to finish, and a client, which is
// asked to run.
type traffic struct {
	server, client string // roles
	listen, run    any    // what the two are asked
	settings       map[string]string
	life           time.Duration // how long a process may live
}

// measure runs traffic once, in a namespace of its own and beside a receiver of its own.
func measure[Client work, Server any](t traffic, order *receiverOrder) (*window[Client, Server], error) {
	ns, err := newNamespace(t.settings)
	if err != nil {
		return nil, err
	}
	defer func() {
		ns.close()
		time.Sleep(settle) // the kernel frees a namespace later
	}()

	w := &window[Client, Server]{}
	var receiver *child
	if order != nil {
		if receiver, err = startReceiverChild(order, t.life); err != nil {
			return nil, err
		}
		defer receiver.stop()
	}
	server, err := ns.start(t.server, t.life)
	if err != nil {
		return nil, err
	}
	defer server.stop()
	if _, err := call[none](server, "listen", t.listen); err != nil {
		return nil, err
	}
	client, err := ns.start(t.client, t.life)
	if err != nil {
		return nil, err
	}
	defer client.stop()
	time.Sleep(settle)

	if receiver != nil {
		if w.before, err = call[receiverUsage](receiver, "use", none{}); err != nil {
			return nil, err
		}
	}
	if w.client, err = call[Client](client, "run", t.run); err != nil {
		return nil, err
	}
	time.Sleep(settle)
	if receiver != nil {
		if w.after, err = call[receiverUsage](receiver, "use", none{}); err != nil {
			return nil, err
		}
	}
	if w.server, err = call[Server](server, "finish", none{}); err != nil {
		return nil, err
	}
	if receiver != nil {
		if w.totals, err = call[receiverTotals](receiver, "stop", none{}); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// comparison is the windows of some variants, of which the first one is what the others are compared with.
type comparison[Client work, Server any] struct {
	variants []variant
	rates    [][][]float64 // by variant and round
	windows  [][]*window[Client, Server]
}

// compare measures the variants in turn. The name, if there is one, tells apart what a scenario compares.
func compare[Client work, Server any](
	name string, t traffic, variants []variant, opts options, r *report,
) (*comparison[Client, Server], error) {
	c := &comparison[Client, Server]{
		variants: variants,
		rates:    make([][][]float64, len(variants)),
		windows:  make([][]*window[Client, Server], len(variants)),
	}
	prefix := ""
	if name != "" {
		prefix = name + ", "
	}
	for round := range opts.rounds {
		for i := range variants {
			c.rates[i] = append(c.rates[i], nil)
		}
		for _, i := range mirrored(len(variants)) {
			order := variants[i].order
			if order != nil && opts.profile != "" && round == 0 {
				profiled := *order
				profiled.Profile = opts.profile + "." + strings.ReplaceAll(strings.TrimPrefix(name+"."+variants[i].name, "."), " ", "")
				order = &profiled
			}
			w, err := measure[Client, Server](t, order)
			if err != nil {
				return nil, err
			}
			c.rates[i][round] = append(c.rates[i][round], w.client.perSecond())
			c.windows[i] = append(c.windows[i], w)
		}
		r.progress("%sround %d: each second %s", prefix, round+1, roundText(variants, c.rates, round))
	}
	return c, nil
}

func roundText(variants []variant, rates [][][]float64, round int) string {
	var texts []string
	for i, v := range variants {
		texts = append(texts, fmt.Sprintf("%s %.0f", v.name, sum(rates[i][round])/float64(len(rates[i][round]))))
	}
	return strings.Join(texts, ", ")
}

// ratio is the throughput of a variant in that of the first one.
func (c *comparison[Client, Server]) ratio(i int) spread {
	return spreadOf(ratios(c.rates[i], c.rates[0]))
}

// processor is what the receiver's process uses for each unit of work, in microseconds.
func (c *comparison[Client, Server]) processor(i int) spread {
	var values []float64
	for _, w := range c.windows[i] {
		user, system := w.receiverTime()
		values = append(values, w.perUnit(user+system))
	}
	return spreadOf(values)
}

// medianOf is the median of a figure over the windows of a variant.
func (c *comparison[Client, Server]) medianOf(i int, figure func(*window[Client, Server]) float64) float64 {
	var values []float64
	for _, w := range c.windows[i] {
		values = append(values, figure(w))
	}
	return median(values)
}

// column is a figure of each window that a scenario adds to the table.
type column[Client work, Server any] struct {
	name, format string
	figure       func(*window[Client, Server]) float64
}

// table prints the throughput and cost of the variants. unit is the singular of what is counted.
func (c *comparison[Client, Server]) table(r *report, name, unit string, columns ...column[Client, Server]) {
	header := []string{"receiver", unit + "s/s", "ratio"}
	for _, extra := range columns {
		header = append(header, extra.name)
	}
	header = append(header, "receiver user", "system", "RSS MiB")
	var rows [][]string
	for i, v := range c.variants {
		var rate []float64
		for _, w := range c.windows[i] {
			rate = append(rate, w.client.perSecond())
		}
		row := []string{v.name, spreadOf(rate).format("%.0f"), c.ratio(i).format("%.3f")}
		for _, extra := range columns {
			row = append(row, fmt.Sprintf(extra.format, c.medianOf(i, extra.figure)))
		}
		if v.order == nil {
			row = append(row, "-", "-", "-")
		} else {
			row = append(row,
				fmt.Sprintf("%.2f", c.medianOf(i, func(w *window[Client, Server]) float64 { return w.perUnit(w.after.User - w.before.User) })),
				fmt.Sprintf("%.2f", c.medianOf(i, func(w *window[Client, Server]) float64 { return w.perUnit(w.after.System - w.before.System) })),
				fmt.Sprintf("%.0f", c.medianOf(i, func(w *window[Client, Server]) float64 { return float64(w.after.ResidentBytes) / (1 << 20) })))
		}
		rows = append(rows, row)
	}
	r.table(titled(name, unit+"s (median, min .. max); receiver's processor time in us per "+unit), header, rows)
}

// titled puts what a table or target is of before its title.
func titled(name, title string) string {
	if name == "" {
		return title
	}
	return name + ": " + title
}

// withStatistics has the kernel account for the programs' time, in windows of their own because that costs. The result is
// the microseconds of all programs for each unit of work, both ends.
func withStatistics[Client work, Server any](
	name, unit string, t traffic, order *receiverOrder, r *report,
) (microseconds float64, windows []*window[Client, Server], err error) {
	accounted := *order
	accounted.Config = maps.Clone(order.Config)
	if accounted.Config == nil {
		accounted.Config = map[string]any{}
	}
	accounted.Config["kernel::program_stats"] = true
	runs, nanoseconds, perUnit := map[string][]float64{}, map[string][]float64{}, map[string][]float64{}
	var totals []float64
	for range statisticsWindows {
		w, err := measure[Client, Server](t, &accounted)
		if err != nil {
			return 0, nil, err
		}
		windows = append(windows, w)
		total := time.Duration(0)
		for name, after := range w.after.Programs {
			before := w.before.Programs[name]
			ran, spent := after.Runs-before.Runs, after.Time-before.Time
			if ran == 0 {
				continue
			}
			total += spent
			runs[name] = append(runs[name], float64(ran)/float64(w.client.units()))
			nanoseconds[name] = append(nanoseconds[name], float64(spent.Nanoseconds())/float64(ran))
			perUnit[name] = append(perUnit[name], w.perUnit(spent))
		}
		totals = append(totals, w.perUnit(total))
	}
	var rows [][]string
	for _, program := range slices.Sorted(maps.Keys(runs)) {
		rows = append(rows, []string{
			program, fmt.Sprintf("%.2f", median(runs[program])),
			spreadOf(nanoseconds[program]).format("%.0f"), spreadOf(perUnit[program]).format("%.3f"),
		})
	}
	rows = append(rows, []string{"all", "", "", spreadOf(totals).format("%.3f")})
	r.table(titled(name, "BPF programs, by the kernel's statistics (both ends of a "+unit+")"),
		[]string{"program", "runs per " + unit, "ns per run", "us per " + unit}, rows)
	return median(totals), windows, nil
}

// observed joins the windows of all variants with the receiver.
func (c *comparison[Client, Server]) observed() []*window[Client, Server] {
	var windows []*window[Client, Server]
	for i, v := range c.variants {
		if v.order != nil {
			windows = append(windows, c.windows[i]...)
		}
	}
	return windows
}

// lostOf tells what a probe has lost until the end of a window.
func lostOf(probe string, used receiverUsage) (found []string) {
	for _, reason := range slices.Sorted(maps.Keys(used.Lost)) {
		if count := used.Lost[reason]; count > 0 && strings.HasPrefix(reason, probe+" ") {
			found = append(found, fmt.Sprintf("lost: %s %d", reason, count))
		}
	}
	return found
}

// textOr joins what was found, or says that all is well.
func textOr(found []string, well string) string {
	if len(found) == 0 {
		return well
	}
	return strings.Join(found, "; ")
}
