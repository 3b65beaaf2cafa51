//go:build linux

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// Every request of curl to nginx is two spans of one trace, which say what curl says.
func TestRequestsOfCurlToNginx(t *testing.T) {
	server := startNginx(t, "127.0.0.1")
	c := startCollector(t, setup{receivers: map[string]string{"ebpf": quickHTTP}})

	fetched := map[string]curl{} // by path
	for round := range 5 {
		for _, size := range fileSizes {
			path := fmt.Sprintf("/%d?round=%d", size, round)
			result, err := fetch(fmt.Sprintf("http://127.0.0.1:%d%s", server.port, path))
			require.NoError(t, err)
			fetched[path] = result
		}
		result, err := fetch(fmt.Sprintf("http://127.0.0.1:%d/absent?round=%d", server.port, round))
		require.NoError(t, err)
		fetched[fmt.Sprintf("/absent?round=%d", round)] = result
	}
	onServer := func(s span) bool { return s.number("server.port") == server.port }
	kind := func(kind ptrace.SpanKind) func(span) bool { return func(s span) bool { return s.kind == kind } }
	require.Eventually(t, func() bool { return len(c.spans(t, onServer)) >= 2*len(fetched) }, patience, tick,
		"%d spans", len(c.spans(t, onServer)))
	c.shutdown(t)

	served := map[string]span{}
	for _, s := range c.spans(t, onServer, kind(ptrace.SpanKindServer)) {
		served[s.text("url.path")+"?"+s.text("url.query")] = s
		assert.Equal(t, "nginx", s.resource.text("process.executable.name"))
	}
	asked := c.spans(t, onServer, kind(ptrace.SpanKindClient))
	assert.Len(t, asked, len(fetched))
	assert.Len(t, served, len(fetched))
	for _, client := range asked {
		_, path, _ := strings.Cut(strings.TrimPrefix(client.text("url.full"), "http://"), "/")
		path = "/" + path
		result, own := fetched[path], served[path]
		assert.Equal(t, "curl", client.resource.text("process.executable.name"))
		for name, s := range map[string]span{"client": client, "server": own} {
			where := name + " " + path
			assert.Equal(t, "GET", s.text("http.request.method"), where)
			assert.Equal(t, result.Code, s.number("http.response.status_code"), where)
			assert.Equal(t, result.Download, s.number("http.response.body.size"), where)
			assert.Equal(t, client.trace, s.trace, where)
			assert.False(t, s.end.Before(s.start), where)
		}
		assert.Equal(t, client.id, own.parent, path)
		assert.False(t, own.start.Before(client.start), "%s: the server began before the client", path)
		// curl counts from before it connects, and the connection is not a part of the exchange.
		took := time.Duration((result.TimeTotal - result.TimeConnect) * float64(time.Second))
		assert.InDelta(t, took, client.end.Sub(client.start), float64(2*time.Millisecond), path)
		assert.Equal(t, result.pid, client.number("process.pid"), path)
	}
	for role, want := range map[string]int{"server": len(fetched), "client": len(fetched)} {
		assert.Equal(t, want, cumulative(c.points(t, named("http."+role+".request.duration"), func(p point) bool {
			return role == "server" && p.resource.text("process.executable.name") == "nginx" || p.number("server.port") == server.port
		})), role)
	}
}
