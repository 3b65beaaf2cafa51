//go:build linux

package main

import (
	"fmt"
	"net/url"
	"time"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http"
)

func (r mixedResult) units() int         { return len(r.Records) }
func (r mixedResult) perSecond() float64 { return float64(len(r.Records)) / r.Took.Seconds() }

type mixedWindow = window[mixedResult, []mixedRecord]

func runMixed(opts options, r *report) error {
	requests := traffic{
		server: mixedServerName, client: mixedClientName, listen: none{}, run: mixedOrder{Count: opts.requests, Seed: 1},
		settings: namespaceSettings(true), life: 10 * time.Minute,
	}
	order := httpReceiver(mixedPort, true)
	order.Keep = true
	w, err := measure[mixedResult, []mixedRecord](requests, order)
	if err != nil {
		return err
	}
	r.progress("%d requests in %.1f s", len(w.client.Records), w.client.Took.Seconds())
	found := compareMixed(w)
	var rows [][]string
	for _, end := range []*mixedEnd{&found.client, &found.server} {
		rows = append(rows, []string{
			end.role, fmt.Sprint(end.spans), fmt.Sprint(end.untold),
			microseconds(quantile(end.apart, 0)), microseconds(quantile(end.apart, 0.5)),
			microseconds(quantile(end.apart, 0.99)), microseconds(quantile(end.apart, 1)),
		})
	}
	r.table("spans; sizes that no message told before its body; what a client took of its own time, less its span, and a "+
		"server's span, less what its handler took, in us",
		[]string{"end", "spans", "sizes not told", "min", "median", "p99", "max"}, rows)
	for _, difference := range found.differences[:min(20, len(found.differences))] {
		r.progress("%s", difference)
	}
	r.target("differences of spans and what the programs say", "0",
		fmt.Sprintf("%d, of %d requests with both ends", len(found.differences), len(w.client.Records)), len(found.differences) == 0)
	lost := lostOf(http.ProbeName, w.after)
	r.target("lost events", "0", textOr(lost, "0"), len(lost) == 0)
	return nil
}

func microseconds(nanoseconds float64) string { return fmt.Sprintf("%.0f", nanoseconds/1e3) }

// mixedEnd is what came of the spans of one end.
type mixedEnd struct {
	role   string
	spans  int
	untold int     // sizes
	apart  []int64 // nanoseconds by which the span and the program's own time differ, as they should
}

// mixedComparison is what came of all.
type mixedComparison struct {
	client, server mixedEnd
	differences    []string
}

func (c *mixedComparison) differ(format string, arguments ...any) {
	c.differences = append(c.differences, fmt.Sprintf(format, arguments...))
}

// compareMixed joins spans and records by their path: each request has one of its own.
func compareMixed(w *mixedWindow) *mixedComparison {
	c := &mixedComparison{client: mixedEnd{role: "client"}, server: mixedEnd{role: "server"}}
	spans := map[string]map[string]keptSpan{"client": {}, "server": {}}
	for _, span := range w.totals.Kept {
		parsed, err := url.Parse(span.URL)
		if err != nil {
			c.differ("a span of the %s has the URL %q", span.Role, span.URL)
			continue
		}
		if _, twice := spans[span.Role][parsed.Path]; twice {
			c.differ("%s has two spans of the %s", parsed.Path, span.Role)
		}
		spans[span.Role][parsed.Path] = span
	}
	c.compareEnd(&c.client, w.client.Records, spans["client"])
	c.compareEnd(&c.server, w.server, spans["server"])
	for role, count := range map[string]int{"client": len(w.client.Records), "server": len(w.server)} {
		counted := 0
		for _, exchanges := range w.totals.Exchanges[role] {
			counted += exchanges
		}
		if counted != count {
			c.differ("the metrics count %d requests of the %s, which has %d", counted, role, count)
		}
	}
	return c
}

func (c *mixedComparison) compareEnd(end *mixedEnd, records []mixedRecord, spans map[string]keptSpan) {
	end.spans = len(spans)
	if len(spans) != len(records) {
		c.differ("the %s has %d requests and %d spans", end.role, len(records), len(spans))
	}
	for _, record := range records {
		span, found := spans[record.Path]
		if !found {
			c.differ("%s has no span of the %s", record.Path, end.role)
			continue
		}
		request, response := record.SentBytes, record.ReceivedBytes
		apart := record.Ns - span.Ns
		if end.role == "server" {
			request, response, apart = response, request, -apart
		}
		end.apart = append(end.apart, apart)
		what := fmt.Sprintf("%s %s of the %s", record.Method, record.Path, end.role)
		if span.Method != record.Method || span.Status != record.Status || span.Version != record.version() {
			c.differ("%s: the span has %s %d, HTTP %s; the program %d, HTTP %s",
				what, span.Method, span.Status, span.Version, record.Status, record.version())
		}
		if failed := record.Status >= 500 || end.role == "client" && record.Status >= 400; failed != (span.Error != "") {
			c.differ("%s with status %d: the span has the error %q", what, record.Status, span.Error)
		}
		// Only HTTP/1 has messages that do not tell their size: chunked ones.
		end.compareSize(c, what+": request", request, span.RequestBytes, record.ChunkedRequest && !record.HTTP2)
		end.compareSize(c, what+": response", response, span.ResponseBytes, record.ChunkedResponse && !record.HTTP2)
	}
}

func (end *mixedEnd) compareSize(c *mixedComparison, what string, made, told int64, mayBeUntold bool) {
	switch {
	case told == made:
	case told < 0 && mayBeUntold:
		end.untold++
	default:
		c.differ("%s: %d bytes, the span says %d", what, made, told)
	}
}

func (r *mixedRecord) version() string {
	if r.HTTP2 {
		return "2"
	}
	return "1.1"
}
