//go:build linux

package main

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http"
)

func (r grpcResult) units() int         { return r.Calls }
func (r grpcResult) perSecond() float64 { return r.PerSecond }

type grpcWindow = window[grpcResult, none]

func runGRPC(opts options, r *report) error {
	calls := traffic{
		server: grpcServerName, client: grpcClientName, listen: none{}, run: grpcOrder{WarmUp: opts.warmUp, Window: opts.window},
		settings: namespaceSettings(true), life: opts.warmUp + opts.window + 60*time.Second,
	}
	compared, err := compare[grpcResult, none]("", calls, httpVariants(grpcPort), opts, r)
	if err != nil {
		return err
	}
	inspecting := httpReceiver(grpcPort, true)
	inspecting.Inspect = true
	programs, inspected, err := withStatistics[grpcResult, none]("", "call", calls, inspecting, r)
	if err != nil {
		return err
	}
	compared.table(r, "", "call",
		column[grpcResult, none]{"p50 us", "%.0f", func(w *grpcWindow) float64 { return float64(w.client.Median.Nanoseconds()) / 1e3 }},
		column[grpcResult, none]{"p99 us", "%.0f", func(w *grpcWindow) float64 { return float64(w.client.P99.Nanoseconds()) / 1e3 }})

	throughput := compared.ratio(2)
	r.target("throughput with metrics and traces / without", ">= 0.93", throughput.format("%.3f"), throughput.Median >= 0.93)
	r.target("BPF time per call, both ends", "<= 2.5 us", fmt.Sprintf("%.2f us", programs), programs <= 2.5)
	processorTarget(r, "", "call", compared.processor(2))
	count := 0
	var wrong, lost []string
	for _, w := range slices.Concat(compared.observed(), inspected) {
		count += w.client.Calls
		wrong = append(wrong, differentCounts("metrics", w.client.Outcomes, w.totals.Exchanges)...)
		lost = append(lost, lostOf(http.ProbeName, w.after)...)
	}
	for _, w := range compared.windows[2] {
		if w.totals.SpanCount != 2*w.client.Calls {
			wrong = append(wrong, fmt.Sprintf("spans: %d for %d calls", w.totals.SpanCount, w.client.Calls))
		}
	}
	for _, w := range inspected {
		wrong = append(wrong, differentCounts("spans", w.client.Outcomes, w.totals.Spans)...)
	}
	r.target("calls seen, with method and status", "all", textOr(wrong, fmt.Sprintf("all of %d, both ends", count)), len(wrong) == 0)
	r.target("lost events", "0", textOr(lost, "0"), len(lost) == 0)
	return nil
}

// differentCounts says where what was seen on either end is not what a client has counted.
func differentCounts(by string, made map[string]int, seen exchangeCounts) (found []string) {
	for _, role := range []string{"client", "server"} {
		all := maps.Clone(made)
		for what := range seen[role] {
			all[what] += 0
		}
		for _, what := range slices.Sorted(maps.Keys(all)) {
			if got := seen[role][what]; got != made[what] {
				found = append(found, fmt.Sprintf("%s of the %s: %d of %d %s", by, role, got, made[what], what))
			}
		}
	}
	return found
}
