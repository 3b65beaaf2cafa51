//go:build linux

package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ebpfreceiver/ebpfreceiver/internal/tcp"
)

const (
	stormConcurrency = 64
	stormAddresses   = 4
	// settle is more than what is in the ring needs to reach the consumer.
	settle = 300 * time.Millisecond
)

// variant is a way to run the receiver; a nil order means without it.
type variant struct {
	name  string
	order *receiverOrder
}

func stormVariants(opts options) []variant {
	return append([]variant{
		{"without", nil},
		{"metrics", &receiverOrder{}},
		{"metrics + flow logs", &receiverOrder{Config: flowLogs(), Logs: true}},
	}, opts.against...)
}

func flowLogs() map[string]any { return map[string]any{"tcp::flow_logs": true} }

// window is what came of one window.
type window struct {
	client        stormResult
	server        stormCounts
	before, after receiverUsage // zero without the receiver
	totals        receiverTotals
}

func (w *window) receiverTime() (user, system time.Duration) {
	return w.after.User - w.before.User, w.after.System - w.before.System
}

// perConnection is a time in microseconds for each connection.
func (w *window) perConnection(spent time.Duration) float64 {
	return float64(spent.Nanoseconds()) / 1e3 / float64(w.client.Connections)
}

// stormWindow makes connections in a namespace of their own, beside a receiver of their own.
func stormWindow(traffic stormOrder, settings map[string]string, order *receiverOrder) (*window, error) {
	life := traffic.WarmUp + traffic.Window + 30*time.Second
	ns, err := newNamespace(settings)
	if err != nil {
		return nil, err
	}
	defer func() {
		ns.close()
		time.Sleep(settle) // the kernel frees a namespace later
	}()

	w := &window{}
	var receiver *child
	if order != nil {
		if receiver, err = startReceiverChild(order, life); err != nil {
			return nil, err
		}
		defer receiver.stop()
	}
	server, err := ns.start(stormServerName, life)
	if err != nil {
		return nil, err
	}
	defer server.stop()
	if _, err := call[none](server, "listen", none{}); err != nil {
		return nil, err
	}
	client, err := ns.start(stormClientName, life)
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
	if w.client, err = call[stormResult](client, "run", traffic); err != nil {
		return nil, err
	}
	time.Sleep(settle)
	if receiver != nil {
		if w.after, err = call[receiverUsage](receiver, "use", none{}); err != nil {
			return nil, err
		}
	}
	if w.server, err = call[stormCounts](server, "finish", none{}); err != nil {
		return nil, err
	}
	if receiver != nil {
		if w.totals, err = call[receiverTotals](receiver, "stop", none{}); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// differences says where the receiver's account is not that of the traffic itself.
func (w *window) differences(inspected bool) []string {
	var found []string
	compare := func(what string, expected, got int) {
		if expected != got {
			found = append(found, fmt.Sprintf("%s: %d, the receiver says %d", what, expected, got))
		}
	}
	compareSides := func(by string, got sides) {
		for role, made := range map[string]stormCounts{"client": w.client.stormCounts, "server": w.server} {
			account := got[role]
			if account == nil {
				account = &side{}
			}
			compare(by+": connections of the "+role, made.Connections, account.Connections)
			compare(by+": bytes sent by the "+role, made.Sent, account.Sent)
			compare(by+": bytes received by the "+role, made.Received, account.Received)
		}
	}
	if w.client.Connections != w.server.Connections {
		found = append(found, fmt.Sprintf("the client has made %d connections, the server has served %d",
			w.client.Connections, w.server.Connections))
	}
	compareSides("metrics", w.totals.Metrics)
	compare("metrics: connections with an error", 0, w.totals.Failed)
	if inspected {
		compareSides("flow records", w.totals.Records)
	}
	slices.Sort(found)
	if len(found) > 0 {
		found = append(found, fmt.Sprintf("events of the probe: %v, lost: %v", w.after.Events, w.after.Lost))
	}
	return found
}

// lost counts the events of connections. (What the receiver could not find out about a process is not an event.)
func lost(used receiverUsage) (uint64, string) {
	total := uint64(0)
	var reasons []string
	for _, reason := range slices.Sorted(maps.Keys(used.Lost)) {
		if count := used.Lost[reason]; count > 0 && strings.HasPrefix(reason, tcp.ProbeName+" ") {
			total += count
			reasons = append(reasons, fmt.Sprintf("%s %d", reason, count))
		}
	}
	return total, strings.Join(reasons, ", ")
}

func runStorm(opts options, r *report) error {
	traffic := stormOrder{
		WarmUp: opts.warmUp, Window: opts.window,
		Concurrency: stormConcurrency, Addresses: stormAddresses,
	}
	variants := stormVariants(opts)
	rates := make([][][]float64, len(variants)) // by variant and round
	windows := make([][]*window, len(variants))
	complete := completeness{}
	for round := range opts.rounds {
		for i := range variants {
			rates[i] = append(rates[i], nil)
		}
		for _, i := range mirrored(len(variants)) {
			v := variants[i]
			order := v.order
			if order != nil && opts.profile != "" && round == 0 {
				profiled := *order
				profiled.Profile = opts.profile + "." + strings.ReplaceAll(v.name, " ", "")
				order = &profiled
			}
			w, err := stormWindow(traffic, namespaceSettings(true), order)
			if err != nil {
				return err
			}
			rates[i][round] = append(rates[i][round], w.client.PerSecond)
			windows[i] = append(windows[i], w)
			if order != nil && order.Binary == "" {
				complete.add(w, false)
			}
		}
		r.progress("round %d: connections/s %s", round+1, roundText(variants, rates, round))
	}

	statistics, err := stormWithStatistics(traffic, "", r, &complete)
	if err != nil {
		return err
	}
	for _, other := range opts.against {
		if _, err := stormWithStatistics(traffic, other.order.Binary, r, &complete); err != nil {
			return err
		}
	}
	reportStorm(r, variants, rates, windows)
	throughput := spreadOf(ratios(rates[1], rates[0]))
	r.target("throughput with metrics / without", ">= 0.95, hoped 0.97", throughput.format("%.3f"), throughput.Median >= 0.95)
	withLogs := spreadOf(ratios(rates[2], rates[0]))
	r.target("throughput with metrics and flow logs / without", ">= 0.95, hoped 0.97", withLogs.format("%.3f"), withLogs.Median >= 0.95)
	r.target("connections and bytes seen", "exactly those made", complete.text(), len(complete.differences) == 0)
	r.target("lost events", "0", complete.lostText(), complete.lost == 0)
	r.target("BPF time per connection, both ends", "< 3 us", fmt.Sprintf("%.2f us", statistics), statistics < 3)
	for i, v := range variants[1:3] {
		spent := processorPerConnection(windows[i+1])
		r.target("processor time of the receiver per connection, "+v.name, "< 5 us", spent.format("%.2f")+" us", spent.Median < 5)
	}
	return nil
}

func roundText(variants []variant, rates [][][]float64, round int) string {
	var texts []string
	for i, v := range variants {
		texts = append(texts, fmt.Sprintf("%s %.0f", v.name, sum(rates[i][round])/float64(len(rates[i][round]))))
	}
	return strings.Join(texts, ", ")
}

// completeness is what was seen of all windows together.
type completeness struct {
	windows, connections int
	differences          []string
	lost                 uint64
	lostReasons          []string
}

func (c *completeness) add(w *window, inspected bool) {
	c.windows++
	c.connections += w.client.Connections
	c.differences = append(c.differences, w.differences(inspected)...)
	count, reasons := lost(w.after)
	if count > 0 {
		c.lost += count
		c.lostReasons = append(c.lostReasons, reasons)
	}
}

func (c *completeness) text() string {
	if len(c.differences) == 0 {
		return fmt.Sprintf("all of %d connections in %d windows, both ends", c.connections, c.windows)
	}
	return strings.Join(c.differences, "; ")
}

func (c *completeness) lostText() string {
	if c.lost == 0 {
		return "0"
	}
	return fmt.Sprintf("%d (%s)", c.lost, strings.Join(c.lostReasons, "; "))
}

// processorPerConnection is what the receiver's process uses, in microseconds.
func processorPerConnection(windows []*window) spread {
	var values []float64
	for _, w := range windows {
		user, system := w.receiverTime()
		values = append(values, w.perConnection(user+system))
	}
	return spreadOf(values)
}

func reportStorm(r *report, variants []variant, rates [][][]float64, windows [][]*window) {
	var rows [][]string
	for i, v := range variants {
		var rate, traffic, user, system, resident []float64
		for _, w := range windows[i] {
			rate = append(rate, w.client.PerSecond)
			traffic = append(traffic, w.perConnection(w.client.Processor+w.server.Processor))
			userTime, systemTime := w.receiverTime()
			user, system = append(user, w.perConnection(userTime)), append(system, w.perConnection(systemTime))
			resident = append(resident, float64(w.after.ResidentBytes)/(1<<20))
		}
		row := []string{
			v.name, spreadOf(rate).format("%.0f"), spreadOf(ratios(rates[i], rates[0])).format("%.3f"),
			spreadOf(traffic).format("%.2f"),
		}
		if v.order == nil {
			row = append(row, "-", "-", "-")
		} else {
			row = append(row, fmt.Sprintf("%.2f", median(user)), fmt.Sprintf("%.2f", median(system)), fmt.Sprintf("%.0f", median(resident)))
		}
		rows = append(rows, row)
	}
	r.table("connections (median, min .. max); processor time in us per connection",
		[]string{"receiver", "connections/s", "ratio", "traffic's own", "receiver user", "system", "RSS MiB"}, rows)
}

// statisticsWindows is how often the programs' time is measured.
const statisticsWindows = 3

// stormWithStatistics has the kernel account for the programs' time, in windows of their own because that costs, and
// looks into every flow record.
func stormWithStatistics(traffic stormOrder, binary string, r *report, complete *completeness) (microseconds float64, err error) {
	config := flowLogs()
	config["kernel::program_stats"] = true
	runs, nanoseconds, perConnection := map[string][]float64{}, map[string][]float64{}, map[string][]float64{}
	var totals []float64
	for range statisticsWindows {
		w, err := stormWindow(traffic, namespaceSettings(true), &receiverOrder{Config: config, Logs: true, Inspect: true, Binary: binary})
		if err != nil {
			return 0, err
		}
		if binary == "" {
			complete.add(w, true)
		}
		total := time.Duration(0)
		for name, after := range w.after.Programs {
			before := w.before.Programs[name]
			ran, spent := after.Runs-before.Runs, after.Time-before.Time
			if ran == 0 {
				continue
			}
			total += spent
			runs[name] = append(runs[name], float64(ran)/float64(w.client.Connections))
			nanoseconds[name] = append(nanoseconds[name], float64(spent.Nanoseconds())/float64(ran))
			perConnection[name] = append(perConnection[name], w.perConnection(spent))
		}
		totals = append(totals, w.perConnection(total))
	}
	var rows [][]string
	for _, name := range slices.Sorted(maps.Keys(runs)) {
		rows = append(rows, []string{
			name, fmt.Sprintf("%.2f", median(runs[name])),
			spreadOf(nanoseconds[name]).format("%.0f"), spreadOf(perConnection[name]).format("%.3f"),
		})
	}
	rows = append(rows, []string{"all", "", "", spreadOf(totals).format("%.3f")})
	r.table(strings.TrimSpace("BPF programs, by the kernel's statistics (both ends of a connection) "+binary),
		[]string{"program", "runs per connection", "ns per run", "us per connection"}, rows)
	return median(totals), nil
}
