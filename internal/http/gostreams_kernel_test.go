//go:build linux

package http

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// requestIDHeader tells requests apart, all along a chain.
const requestIDHeader = "x-request-id"

// buildNumbered builds the program with the flags for the linker: the test's own does not name its modules.
func buildNumbered(t *testing.T, linker string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "numbered")
	source := filepath.Join("testdata", "programs", "numbered", "main.go")
	output, err := exec.Command("go", "build", "-ldflags="+linker, "-o", path, source).CombinedOutput()
	require.NoError(t, err, string(output))
	return path
}

// askNumbered makes requests to a relay, each with its number.
func askNumbered(t *testing.T, path, protocol string, port, first, count, atOnce int) {
	t.Helper()
	if protocol == "gRPC" {
		client := start(t, nil, path, "call", strconv.Itoa(port), strconv.Itoa(first), strconv.Itoa(count), strconv.Itoa(atOnce))
		client.finish(t)
		return
	}
	p := plan{AtOnce: atOnce, KeepAlive: true, HTTP2: protocol == "HTTP/2"}
	for number := first; number < first+count; number++ {
		p.Requests = append(p.Requests, planned{
			Method: "GET", URL: at(port, "/relay/"+strconv.Itoa(number)), Headers: map[string]string{requestIDHeader: strconv.Itoa(number)},
		})
	}
	fetchGo(t, p)
}

// numberedSpans gives the spans of the relay on a port, by their numbers: as the server, and as the client of a target.
func (o *observation) numberedSpans(port, target int) (received, sent map[string]ptrace.Span) {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	received, sent = map[string]ptrace.Span{}, map[string]ptrace.Span{}
	for _, span := range o.spans {
		id, ok := span.Attributes().Get(attrRequestID)
		if !ok || id.Slice().Len() != 1 {
			continue
		}
		switch number := id.Slice().At(0).Str(); {
		case span.Kind() == ptrace.SpanKindServer && localPort(span) == port:
			received[number] = span
		case span.Kind() == ptrace.SpanKindClient && peerPort(span) == target:
			sent[number] = span
		}
	}
	return received, sent
}

func localPort(span ptrace.Span) int { return int(number(span, attrLocalPort)) }
func peerPort(span ptrace.Span) int  { return int(number(span, attrPeerPort)) }

// TestParentsOfGoStreams lets a program of Go ask another server for the sake of each request, 16 at once, with streams of
// HTTP/2 on either side. Every parent is known, and the right one.
func TestParentsOfGoStreams(t *testing.T) {
	paths := map[bool]string{false: buildNumbered(t, ""), true: buildNumbered(t, "-s -w")}
	for _, test := range []struct {
		from, serves, asks string
		stripped           bool
	}{
		{"gRPC", "gRPC", "gRPC", false},
		{"gRPC", "gRPC", "gRPC", true},
		{"gRPC", "gRPC", "gRPC child", false},
		{"gRPC", "gRPC", "HTTP/1", false},
		{"gRPC", "gRPC", "HTTP/2", false},
		{"HTTP/1", "HTTP", "HTTP/1", false},
		{"HTTP/1", "HTTP", "gRPC", false},
		{"HTTP/2", "HTTP", "gRPC", false},
		{"HTTP/2", "HTTP", "HTTP/1", false},
		{"HTTP/2", "HTTP", "HTTP/2", false},
	} {
		name := test.from + " to " + test.asks
		path := paths[test.stripped]
		if test.stripped {
			name += " stripped"
		}
		t.Run(name, func(t *testing.T) {
			const count, atOnce = 200, 16
			o := observe(t, selecting(t, path))
			var target int
			if test.asks == "HTTP/1" || test.asks == "HTTP/2" {
				_, target = serveGo(t)
			} else {
				target = start(t, nil, path, "serve").record(t).Port
			}
			relay := start(t, nil, path, "relay", test.serves, test.asks, strconv.Itoa(target))
			port := relay.record(t).Port
			askNumbered(t, path, test.from, port, 1000, 1, 1)
			o.recognized(relay, schedulingGoroutines)
			askNumbered(t, path, test.from, port, 1001, 1, 1)
			o.clientsAttached()

			askNumbered(t, path, test.from, port, 0, count, atOnce)
			var received, sent map[string]ptrace.Span
			require.Eventually(t, func() bool {
				received, sent = o.numberedSpans(port, target)
				return len(received) >= count+2 && len(sent) >= count+2 // with those that were asked first
			}, patience, patience/1000, "lost %v", o.losses())
			right, wrong, none := 0, 0, 0
			for number := range count {
				name := strconv.Itoa(number)
				require.Contains(t, received, name)
				require.Contains(t, sent, name)
				switch sent[name].ParentSpanID() {
				case received[name].SpanID():
					assert.Equal(t, received[name].TraceID(), sent[name].TraceID())
					right++
				case [8]byte{}:
					none++
				default:
					wrong++
				}
			}
			assert.Equal(t, count, right, "of the parents, %d are wrong and %d are missing; %v", wrong, none, o.Stats().Events)
			assert.Zero(t, wrong)
			assert.Empty(t, o.losses())
		})
	}
}

// clientsAttached waits until a program is attached to that serves and asks.
func (o *observation) clientsAttached() {
	o.t.Helper()
	require.Eventually(o.t, func() bool {
		for _, event := range o.inspector.stats().Events {
			if event.Kind == "go_client_attached" && event.Count > 0 {
				return true
			}
		}
		return false
	}, patience, time.Millisecond)
	time.Sleep(200 * time.Millisecond)
}
