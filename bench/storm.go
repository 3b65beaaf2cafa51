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
)

func stormVariants(opts options) []variant {
	return append([]variant{
		{"without", nil},
		{"metrics", &receiverOrder{}},
		{"metrics + flow logs", &receiverOrder{Config: flowLogs(), Logs: true}},
	}, opts.against...)
}

func flowLogs() map[string]any { return map[string]any{"tcp::flow_logs": true} }

// stormWindow is what came of one window of connections.
type stormWindow = window[stormResult, stormCounts]

func (r stormResult) units() int         { return r.Connections }
func (r stormResult) perSecond() float64 { return r.PerSecond }

// traffic makes the connections of an order.
func (order stormOrder) traffic(settings map[string]string) traffic {
	return traffic{
		server: stormServerName, client: stormClientName, listen: none{}, run: order,
		settings: settings, life: order.WarmUp + order.Window + 30*time.Second,
	}
}

// stormDifferences says where the receiver's account is not that of the traffic itself.
func stormDifferences(w *stormWindow, inspected bool) []string {
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
	order := stormOrder{
		WarmUp: opts.warmUp, Window: opts.window,
		Concurrency: stormConcurrency, Addresses: stormAddresses,
	}
	connections := order.traffic(namespaceSettings(true))
	compared, err := compare[stormResult, stormCounts]("", connections, stormVariants(opts), opts, r)
	if err != nil {
		return err
	}
	complete := completeness{}
	for i, v := range compared.variants {
		if v.order != nil && v.order.Binary == "" {
			for _, w := range compared.windows[i] {
				complete.add(w, false)
			}
		}
	}
	statistics, err := stormStatistics(connections, variant{}, r, &complete)
	if err != nil {
		return err
	}
	for _, other := range opts.against {
		if _, err := stormStatistics(connections, variant{name: other.name, order: other.order}, r, &complete); err != nil {
			return err
		}
	}
	compared.table(r, "", "connection", column[stormResult, stormCounts]{
		"traffic's own us", "%.2f",
		func(w *stormWindow) float64 { return w.perUnit(w.client.Processor + w.server.Processor) },
	})
	throughput, withLogs := compared.ratio(1), compared.ratio(2)
	r.target("throughput with metrics / without", ">= 0.95, hoped 0.97", throughput.format("%.3f"), throughput.Median >= 0.95)
	r.target("throughput with metrics and flow logs / without", ">= 0.95, hoped 0.97", withLogs.format("%.3f"), withLogs.Median >= 0.95)
	r.target("connections and bytes seen", "exactly those made", complete.text(), len(complete.differences) == 0)
	r.target("lost events", "0", complete.lostText(), complete.lost == 0)
	r.target("BPF time per connection, both ends", "< 3 us", fmt.Sprintf("%.2f us", statistics), statistics < 3)
	for i, v := range compared.variants[1:3] {
		spent := compared.processor(i + 1)
		r.target("processor time of the receiver per connection, "+v.name, "< 5 us", spent.format("%.2f")+" us", spent.Median < 5)
	}
	return nil
}

// stormStatistics accounts for the programs' time, and looks into every flow record. A variant may have another build.
func stormStatistics(t traffic, of variant, r *report, complete *completeness) (microseconds float64, err error) {
	order := receiverOrder{Config: flowLogs(), Logs: true, Inspect: true}
	if of.order != nil {
		order.Binary = of.order.Binary
	}
	microseconds, windows, err := withStatistics[stormResult, stormCounts](of.name, "connection", t, &order, r)
	if err != nil {
		return 0, err
	}
	if order.Binary == "" {
		for _, w := range windows {
			complete.add(w, true)
		}
	}
	return microseconds, nil
}

// completeness is what was seen of all windows together.
type completeness struct {
	windows, connections int
	differences          []string
	lost                 uint64
	lostReasons          []string
}

func (c *completeness) add(w *stormWindow, inspected bool) {
	c.windows++
	c.connections += w.client.Connections
	c.differences = append(c.differences, stormDifferences(w, inspected)...)
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
