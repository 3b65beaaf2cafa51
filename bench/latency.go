//go:build linux

package main

import (
	"fmt"
	"slices"
	"time"
)

// latencyLimit is when an event must have reached the consumer.
const latencyLimit = 150 * time.Millisecond

func runLatency(opts options, r *report) error {
	var rows [][]string
	type outcome struct {
		name   string
		delays []int64
		missed int
	}
	var outcomes []outcome
	for _, perSecond := range []int{50, 5000} {
		order := stormOrder{Window: 3 * opts.window, Concurrency: stormConcurrency, Addresses: 1, PerSecond: perSecond, Record: true}
		// A port is used once, so that it names the connection.
		connections := order.traffic(namespaceSettings(false))

		records, err := measure[stormResult, stormCounts](connections, &receiverOrder{Config: flowLogs(), Logs: true, Inspect: true})
		if err != nil {
			return err
		}
		delays, missed := recordDelays(records)
		outcomes = append(outcomes, outcome{fmt.Sprintf("flow record, %d connections/s", perSecond), delays, missed})

		metrics, err := measure[stormResult, stormCounts](connections, &receiverOrder{Config: map[string]any{"metrics::interval": "100ms"}})
		if err != nil {
			return err
		}
		delays, missed = metricDelays(metrics)
		outcomes = append(outcomes, outcome{fmt.Sprintf("metrics each 100 ms, %d connections/s", perSecond), delays, missed})
	}
	for _, o := range outcomes {
		rows = append(rows, []string{
			o.name, fmt.Sprint(len(o.delays)), fmt.Sprint(o.missed),
			milliseconds(quantile(o.delays, 0.5)), milliseconds(quantile(o.delays, 0.99)), milliseconds(quantile(o.delays, 1)),
		})
	}
	r.table("time from close() to the consumer, both ends of each connection, in ms",
		[]string{"what", "events", "never", "median", "p99", "max"}, rows)
	for _, o := range outcomes {
		longest := quantile(o.delays, 1)
		r.target(o.name, "within 150 ms", fmt.Sprintf("p99 %s ms, max %s ms, %d never",
			milliseconds(quantile(o.delays, 0.99)), milliseconds(longest), o.missed),
			o.missed == 0 && longest <= float64(latencyLimit))
	}
	return nil
}

func milliseconds(nanoseconds float64) string { return fmt.Sprintf("%.1f", nanoseconds/1e6) }

// recordDelays joins the client's account of each close with the records' arrival. Both ends of a connection end with
// the client's close, since the server has closed before.
func recordDelays(w *stormWindow) (delays []int64, missed int) {
	closed := make(map[int]int64, len(w.client.Closed))
	for _, c := range w.client.Closed {
		closed[c.Port] = c.Time
	}
	for _, a := range w.totals.Arrivals {
		if at, known := closed[a.ClientPort]; known {
			delays = append(delays, a.Time-at)
		}
	}
	return delays, 2*len(w.client.Closed) - len(delays)
}

// metricDelays takes the n-th connection as seen when n are counted.
func metricDelays(w *stormWindow) (delays []int64, missed int) {
	var events, times []int64
	var clients, servers []int
	for _, c := range w.client.Closed {
		events = append(events, c.Time)
	}
	slices.Sort(events)
	for _, c := range w.totals.Counts {
		times, clients, servers = append(times, c.Time), append(clients, c.Client), append(servers, c.Server)
	}
	delays = append(visibleAfter(events, times, clients), visibleAfter(events, times, servers)...)
	return delays, 2*len(events) - len(delays)
}
