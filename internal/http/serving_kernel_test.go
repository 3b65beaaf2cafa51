//go:build linux

package http

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// relays are requests to a relay: all that it is asked for, it asks of another server before it answers.
func relays(from, count, relay, target, atOnce, milliseconds int) plan {
	p := plan{AtOnce: atOnce, KeepAlive: true}
	for number := range count {
		p.Requests = append(p.Requests, planned{
			Method: "GET", URL: at(relay, fmt.Sprintf("/relay/%d?port=%d&ms=%d", from+number, target, milliseconds)),
		})
	}
	return p
}

// recognized waits until it is known what a program schedules with. Of requests before that, no parent is known.
func (o *observation) recognized(p *program, by scheduling) {
	o.t.Helper()
	require.Eventually(o.t, func() bool {
		for _, process := range o.runtimes.known.Keys() {
			if found, _ := o.runtimes.known.Peek(process); int(process.PID) == p.Process.Pid && scheduling(found.by.Load()) == by {
				return true
			}
		}
		return false
	}, patience, time.Millisecond, "the runtime of %s", p.name)
}

// warmUp lets a relay be recognized.
func (o *observation) warmUp(relay *program, port, target int, by scheduling) {
	o.t.Helper()
	fetchGo(o.t, relays(0, 1, port, target, 1, 0))
	o.recognized(relay, by)
}

// chain are the spans of one request through a relay.
type chain struct{ received, sent, served ptrace.Span }

// chains gives the spans of requests to a relay, by their number.
func (o *observation) chains(from, count, relay, target int) map[string]chain {
	o.t.Helper()
	o.wait(count+from, ptrace.SpanKindServer, relay, "/relay/")
	o.wait(count+from, ptrace.SpanKindClient, target, "/next/")
	o.wait(count+from, ptrace.SpanKindServer, target, "/next/")
	byNumber := func(spans []ptrace.Span) map[string]ptrace.Span {
		found := map[string]ptrace.Span{}
		for _, span := range spans {
			path := spanPath(span)
			found[path[strings.LastIndexByte(path, '/')+1:]] = span
		}
		return found
	}
	received := byNumber(o.find(ptrace.SpanKindServer, relay, "/relay/"))
	sent := byNumber(o.find(ptrace.SpanKindClient, target, "/next/"))
	served := byNumber(o.find(ptrace.SpanKindServer, target, "/next/"))
	all := map[string]chain{}
	for number := from; number < from+count; number++ {
		name := fmt.Sprint(number)
		require.Contains(o.t, received, name)
		require.Contains(o.t, sent, name)
		require.Contains(o.t, served, name)
		all[name] = chain{received[name], sent[name], served[name]}
	}
	return all
}

// told says whether the parent of what the relay has sent is known, and checks that it is right then.
func (c *chain) told(t *testing.T, number string) bool {
	t.Helper()
	assert.Equal(t, c.sent.TraceID(), c.served.TraceID(), "%s: one trace with the other server", number)
	assert.Equal(t, c.sent.SpanID(), c.served.ParentSpanID(), "%s: the other server's parent", number)
	if c.sent.ParentSpanID().IsEmpty() {
		assert.NotEqual(t, c.received.TraceID(), c.sent.TraceID(), number)
		return false
	}
	assert.Equal(t, c.received.TraceID(), c.sent.TraceID(), "%s: one trace", number)
	assert.Equal(t, c.received.SpanID(), c.sent.ParentSpanID(), "%s: the parent", number)
	return true
}

// checkAllTold checks that every parent is known, and right.
func (o *observation) checkAllTold(from, count, relay, target int) {
	o.t.Helper()
	for number, c := range o.chains(from, count, relay, target) {
		assert.True(o.t, c.told(o.t, number), "%s: no parent", number)
	}
}

// checkTold checks that no parent is wrong, and gives how many are known.
func (o *observation) checkTold(from, count, relay, target int) (told int) {
	o.t.Helper()
	for number, c := range o.chains(from, count, relay, target) {
		if c.told(o.t, number) {
			told++
		}
	}
	return told
}

func TestParentsInThreads(t *testing.T) {
	o := observe(t)
	_, target := serveGo(t)
	relay, port := servePython(t, "relay.py", "threads")
	o.warmUp(relay, port, target, schedulingThreads)
	fetchGo(t, relays(1, 200, port, target, 16, 1))
	o.checkAllTold(1, 200, port, target)

	// The whole way is one trace, from the client that began it.
	for number, c := range o.chains(1, 200, port, target) {
		first := o.wait(1, ptrace.SpanKindClient, port, "/relay/"+number)
		require.Len(t, first, 1)
		assert.Equal(t, first[0].TraceID(), c.served.TraceID())
		assert.Equal(t, first[0].SpanID(), c.received.ParentSpanID())
	}
}

func TestParentsInOneThread(t *testing.T) {
	o := observe(t)
	_, target := serveGo(t)
	relay, port := servePython(t, "relay.py", "single")
	o.warmUp(relay, port, target, schedulingThreads)
	fetchGo(t, relays(1, 50, port, target, 1, 0))
	o.checkAllTold(1, 50, port, target)
}

func serveNode(t *testing.T) (*program, int) {
	t.Helper()
	node, err := exec.LookPath("node")
	require.NoError(t, err, "apt install nodejs")
	server := start(t, nil, node, filepath.Join("testdata", "programs", "relay.js"))
	return server, server.record(t).Port
}

func TestParentsInAnEventLoop(t *testing.T) {
	for name, serve := range map[string]func(t *testing.T) (*program, int){
		"node":    serveNode,
		"asyncio": func(t *testing.T) (*program, int) { return servePython(t, "relay.py", "asyncio") },
	} {
		t.Run(name, func(t *testing.T) {
			o := observe(t)
			_, target := serveGo(t)
			relay, port := serve(t)
			o.warmUp(relay, port, target, schedulingThreads)
			fetchGo(t, relays(1, 50, port, target, 1, 0))
			o.checkAllTold(1, 50, port, target)

			fetchGo(t, relays(51, 300, port, target, 16, 2))
			told := o.checkTold(51, 300, port, target)
			t.Logf("several at a time: %d of 300 parents are told", told)
			assert.Less(t, told, 16, "it shows soon that it is a loop")
		})
	}
}

func relayGo(t *testing.T, how string) (*program, int) {
	t.Helper()
	relay := start(t, []string{programVariable + "=relay"}, executable(t), how)
	return relay, relay.record(t).Port
}

// warmUpGo lets a relay of Go be recognized, and attached to.
func (o *observation) warmUpGo(relay *program, port, target int) (requests int) {
	o.t.Helper()
	o.warmUp(relay, port, target, schedulingGoroutines)
	fetchGo(o.t, relays(1, 1, port, target, 1, 0))
	o.clientsAttached()
	return 2
}

func TestParentsInGoroutines(t *testing.T) {
	for _, how := range []string{"http1", "http1 child", "http2", "http2 child", "https1", "https2"} {
		t.Run(how, func(t *testing.T) {
			o := observe(t)
			_, target := serveGo(t)
			if strings.HasPrefix(how, "https") {
				var server *program
				server, target = serveGoTLS(t)
				o.attached(server)
			}
			relay, port := relayGo(t, how)
			from := 2
			if strings.Contains(how, "1") {
				from = o.warmUpGo(relay, port, target)
			} else {
				o.warmUp(relay, port, target, schedulingGoroutines)
				fetchGo(o.t, relays(1, 1, port, target, 1, 0))
			}
			fetchGo(t, relays(from, 400, port, target, 16, 1))
			if how == "http2 child" { // the goroutine that writes it is a child of the child
				assert.Zero(t, o.checkTold(from, 400, port, target))
				return
			}
			o.checkAllTold(from, 400, port, target)
		})
	}
}

// TestParentsOfWhatIsLeftBehind lets goroutines go on after the response, while the next request is served. It shows that
// they do; what was told before that may be wrong.
func TestParentsOfWhatIsLeftBehind(t *testing.T) {
	o := observe(t)
	_, target := serveGo(t)
	relay, port := relayGo(t, "http1")
	from := o.warmUpGo(relay, port, target)
	p := relays(from, 400, port, target, 4, 0)
	for i := range p.Requests {
		p.Requests[i].URL += "&left"
	}
	fetchGo(t, p)
	wrong, told := 0, 0
	for _, c := range o.chains(from, 400, port, target) {
		switch {
		case c.sent.ParentSpanID().IsEmpty():
		case c.sent.ParentSpanID() == c.received.SpanID():
			told++
		default:
			wrong++
		}
	}
	t.Logf("of 400 parents, %d are told and %d are wrong", told, wrong)
	assert.LessOrEqual(t, wrong, 4, "one for each connection, at most")

	// Nobody is left behind here: the goroutines that serve are believed all the same.
	fetchGo(t, relays(from+400, 100, port, target, 4, 0))
	o.checkAllTold(from+400, 100, port, target)
}

// TestParentsOfStreams lets the streams of a connection of HTTP/2 be served by goroutines, which tell whose they are.
func TestParentsOfStreams(t *testing.T) {
	o := observe(t)
	_, target := serveGo(t)
	relay, port := relayGo(t, "http1")
	from := o.warmUpGo(relay, port, target)
	p := relays(from, 200, port, target, 8, 1)
	p.HTTP2 = true
	fetchGo(t, p)
	o.checkAllTold(from, 200, port, target)
}
