//go:build linux

package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http"
)

const (
	// agreeing is how far a span and the server's own log may be apart.
	agreeing = time.Millisecond
	// mixedShown bounds the differences that are printed.
	mixedShown = 20
	// missingSpan begins the text of a difference.
	missingSpan = "no span of"
)

type mixedWindow = window[mixedResult, []mixedRecord]

func runMixed(opts options, r *report) error {
	if err := findMixedPrograms(); err != nil {
		return err
	}
	directory, err := os.MkdirTemp("", "bench-mixed-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(directory) }() // what is left does no harm
	if err := writeMixedPrograms(directory); err != nil {
		return fmt.Errorf("write the programs: %w", err)
	}
	requests := traffic{
		server: mixedServerName, client: mixedClientName, listen: directory,
		run:      mixedOrder{Count: opts.requests, Seed: 1, Directory: directory},
		settings: namespaceSettings(true), life: 10 * time.Minute,
	}
	order := httpReceiver(mixedGoPort, true)
	order.Config["select::include"] = []any{map[string]any{"port": fmt.Sprintf("%d-%d", mixedGoPort, mixedNginxPort)}}
	order.Keep = true
	w, err := measure[mixedResult, []mixedRecord](requests, order)
	if err != nil {
		return err
	}
	r.progress("%d requests in %.1f s", len(w.client.Records), w.client.Took.Seconds())
	found := compareMixed(w)
	found.report(r)
	lost := lostOf(http.ProbeName, w.after)
	r.target("lost events", "0", textOr(lost, "0"), len(lost) == 0)
	return nil
}

// findMixedPrograms says what is missing of what others have made.
func findMixedPrograms() error {
	var errs []error
	for _, needed := range [][2]string{{"python3", "python3"}, {"node", "nodejs"}, {"nginx", "nginx-light"}, {"curl", "curl"}} {
		if _, err := exec.LookPath(needed[0]); err != nil {
			errs = append(errs, fmt.Errorf("%w (apt install %s)", err, needed[1]))
		}
	}
	return errors.Join(errs...)
}

// exchangeEnd names a request at one of its ends.
type exchangeEnd struct {
	role string
	port int
	path string
}

// mixedProgramSpans is what came of the spans of one program.
type mixedProgramSpans struct {
	requests int
	spans    int
	untold   int     // sizes
	apart    []int64 // nanoseconds by which the span and the program's own time differ
	within   int     // of apart: that agree
}

// asked is the number of requests, of a program that may have had none.
func (p *mixedProgramSpans) asked() int {
	if p == nil {
		return 0
	}
	return p.requests
}

// mixedPlace is a row of the table.
type mixedPlace struct{ role, program string }

func (p mixedPlace) compare(other mixedPlace) int {
	return cmp.Or(cmp.Compare(p.role, other.role), cmp.Compare(p.program, other.program))
}

// mixedComparison is what came of all.
type mixedComparison struct {
	programs map[mixedPlace]*mixedProgramSpans
	askers   map[exchangeEnd]string // the client's program
	requests int
	// Differences between spans and programs, by whether the request was pipelined; and between the programs themselves.
	differences map[bool][]string
	missing     map[bool]int // of the differences: spans
	disagreeing []string
}

func (c *mixedComparison) report(r *report) {
	var rows [][]string
	agreed, compared := 0, 0
	for _, place := range slices.SortedFunc(maps.Keys(c.programs), mixedPlace.compare) {
		p := c.programs[place]
		rows = append(rows, []string{
			place.role, place.program, fmt.Sprint(p.requests), fmt.Sprint(p.spans), fmt.Sprint(p.untold),
			microseconds(quantile(p.apart, 0.5)), microseconds(quantile(p.apart, 0.99)), microseconds(quantile(p.apart, 1)),
			fmt.Sprintf("%.2f %%", 100*float64(p.within)/float64(len(p.apart))),
		})
		// nginx's log cannot tell, and requests that wait behind others are not in a program's hands yet.
		if place.role == "server" && place.program != mixedNginx && !strings.HasSuffix(place.program, pipelinedSuffix) {
			agreed, compared = agreed+p.within, compared+len(p.apart)
		}
	}
	r.table("requests that programs tell of, and their spans; sizes that no message told before its body, or before it was "+
		"answered; how far spans and the program's own times are apart, in us (nginx has a clock of whole milliseconds, which it "+
		"reads now and then; of requests that are pipelined, spans begin when they come in)",
		[]string{"end", "program", "requests", "spans", "sizes not told", "median", "p99", "max", "within 1 ms"}, rows)
	for _, differences := range [][]string{c.disagreeing, c.differences[false], c.differences[true]} {
		// What is wrong is worse than what is missing.
		slices.SortStableFunc(differences, func(a, b string) int {
			return cmp.Compare(strings.Count(a, missingSpan), strings.Count(b, missingSpan))
		})
		for _, difference := range differences[:min(mixedShown, len(differences))] {
			r.progress("%s", difference)
		}
	}
	pipelined := c.programs[mixedPlace{"client", mixedPipelining}].asked()
	r.target("differences of the programs from each other", "0",
		fmt.Sprintf("%d, of %d requests", len(c.disagreeing), c.requests), len(c.disagreeing) == 0)
	for _, kind := range []struct {
		name      string
		pipelined bool
		requests  int
	}{
		{"differences of spans and what the programs say", false, c.requests - pipelined},
		{"the same of pipelined requests", true, pipelined},
	} {
		found := len(c.differences[kind.pipelined])
		r.target(kind.name, "0", fmt.Sprintf("%d (%d of them spans that are missing), of %d requests with both ends",
			found, c.missing[kind.pipelined], kind.requests), found == 0)
	}
	share := 100 * float64(agreed) / float64(compared)
	r.target("spans within 1 ms of the own logs of the servers in Go, Python and node, not pipelined", ">= 99 %",
		fmt.Sprintf("%.2f %% of %d", share, compared), share >= 99)
}

func microseconds(nanoseconds float64) string { return fmt.Sprintf("%.0f", nanoseconds/1e3) }

// pipelinedSuffix tells the requests apart that a server had from a client that pipelines.
const pipelinedSuffix = ", pipelined"

func (c *mixedComparison) differ(at exchangeEnd, format string, arguments ...any) {
	what := fmt.Sprintf("%s of %s at port %d, %s: ", at.path, c.askers[at], at.port, at.role)
	pipelined := c.pipelined(at)
	c.differences[pipelined] = append(c.differences[pipelined], what+fmt.Sprintf(format, arguments...))
}

// pipelined says whether a request was written with others at once.
func (c *mixedComparison) pipelined(at exchangeEnd) bool { return c.askers[at] == mixedPipelining }

// compareMixed joins spans and records by their path: each request has one of its own.
func compareMixed(w *mixedWindow) *mixedComparison {
	c := &mixedComparison{
		programs: map[mixedPlace]*mixedProgramSpans{}, askers: map[exchangeEnd]string{}, differences: map[bool][]string{},
		missing: map[bool]int{}, requests: len(w.client.Records),
	}
	asked := map[exchangeEnd]*mixedRecord{}
	for i := range w.client.Records {
		record := &w.client.Records[i]
		served := exchangeEnd{"server", record.Port, record.Path}
		asked[served] = record
		c.askers[served], c.askers[exchangeEnd{"client", record.Port, record.Path}] = record.Program, record.Program
	}
	spans := c.joinSpans(w.totals.Kept)
	for i := range w.client.Records {
		c.compareRecord("client", &w.client.Records[i], spans)
	}
	answered := map[exchangeEnd]bool{}
	for i := range w.server {
		record := &w.server[i]
		at := exchangeEnd{"server", record.Port, record.Path}
		if asked[at] == nil || answered[at] {
			c.disagreeing = append(c.disagreeing, fmt.Sprintf("%v was not asked for, or was answered twice", at))
			continue
		}
		answered[at] = true
		c.compareEnds(record, asked[at])
		c.compareRecord("server", record, spans)
	}
	if len(answered) != len(asked) {
		c.disagreeing = append(c.disagreeing, fmt.Sprintf("%d requests were made and %d answered", len(asked), len(answered)))
	}
	for at := range spans { // what is left
		c.differ(at, "a span of no request")
	}
	c.compareMetrics(w)
	return c
}

// compareMetrics compares with the spans: where one is missing, that is one difference.
func (c *mixedComparison) compareMetrics(w *mixedWindow) {
	spans := map[string]int{}
	for _, span := range w.totals.Kept {
		spans[span.Role]++
	}
	for _, role := range []string{"client", "server"} {
		counted := 0
		for _, exchanges := range w.totals.Exchanges[role] {
			counted += exchanges
		}
		if counted != spans[role] {
			c.differences[false] = append(c.differences[false],
				fmt.Sprintf("%s: the metrics count %d requests, and there are %d spans", role, counted, spans[role]))
		}
	}
}

func (c *mixedComparison) joinSpans(kept []keptSpan) map[exchangeEnd]keptSpan {
	spans := map[exchangeEnd]keptSpan{}
	for _, span := range kept {
		at := exchangeEnd{span.Role, span.Port, span.URL}
		if parsed, err := url.Parse(span.URL); err == nil {
			at.path = parsed.Path
		}
		if _, twice := spans[at]; twice {
			c.differ(at, "two spans")
		}
		spans[at] = span
	}
	return spans
}

// compareEnds compares what server and client say, which is not the receiver's concern. What the server does not know, it
// takes from the client.
func (c *mixedComparison) compareEnds(server, client *mixedRecord) {
	if server.ReceivedBytes < 0 {
		server.ReceivedBytes = client.SentBytes
	}
	if server.Method != client.Method || server.Status != client.Status || server.Version != client.Version ||
		server.ReceivedBytes != client.SentBytes || server.SentBytes != client.ReceivedBytes {
		c.disagreeing = append(c.disagreeing, fmt.Sprintf("the programs say %+v and %+v", *server, *client))
	}
}

// compareRecord compares what a program says with its span, which is taken out.
func (c *mixedComparison) compareRecord(role string, record *mixedRecord, spans map[exchangeEnd]keptSpan) {
	at := exchangeEnd{role, record.Port, record.Path}
	place := mixedPlace{role, record.Program}
	if role == "server" && c.pipelined(at) {
		place.program += pipelinedSuffix
	}
	program := c.programs[place]
	if program == nil {
		program = &mixedProgramSpans{}
		c.programs[place] = program
	}
	program.requests++
	span, found := spans[at]
	if !found {
		c.missing[c.pipelined(at)]++
		c.differ(at, missingSpan+" %s with status %d of %s", record.Method, record.Status, record.Program)
		return
	}
	delete(spans, at)
	program.spans++
	apart := max(span.Ns-record.Ns, record.Ns-span.Ns)
	program.apart = append(program.apart, apart)
	if apart <= int64(agreeing) {
		program.within++
	}
	if span.Method != record.Method || span.Status != record.Status || span.Version != record.Version {
		c.differ(at, "the span has %s %d, HTTP %s; %s says %s %d, HTTP %s",
			span.Method, span.Status, span.Version, record.Program, record.Method, record.Status, record.Version)
	}
	failure := "" // as the semantic conventions of HTTP have it
	if record.Status >= 500 || role == "client" && record.Status >= 400 {
		failure = strconv.Itoa(record.Status)
	}
	if span.Error != failure {
		c.differ(at, "%s with status %d has the error %q", record.Method, record.Status, span.Error)
	}
	request, response := record.SentBytes, record.ReceivedBytes
	if role == "server" {
		request, response = response, request
	}
	// Only HTTP/1 has messages that do not tell their size: chunked ones. Of a request that is answered before its body was
	// sent or read, which only nginx does, it is not known what comes of the rest.
	old := record.Version != "2"
	early := record.Port == mixedNginxPort && request > 0
	for _, size := range []struct {
		message     string
		made, told  int64
		mayBeUntold bool
	}{
		{"request", request, span.RequestBytes, record.ChunkedRequest && old || early},
		{"response", response, span.ResponseBytes, record.ChunkedResponse && old},
	} {
		switch {
		case size.told == size.made:
		case size.told < 0 && size.mayBeUntold:
			program.untold++
		default:
			c.differ(at, "%s %d: the %s of %s has %d bytes, the span says %d",
				record.Method, record.Status, size.message, record.Program, size.made, size.told)
		}
	}
}
