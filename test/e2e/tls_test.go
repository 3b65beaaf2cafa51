//go:build linux

package e2e

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// certificate makes a file with a certificate for this host, and its key.
func certificate(t *testing.T) string {
	t.Helper()
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	own := server.TLS.Certificates[0]
	private, err := x509.MarshalPKCS8PrivateKey(own.PrivateKey)
	require.NoError(t, err)
	content := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: own.Certificate[0]}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...)
	path := filepath.Join(t.TempDir(), "certificate.pem")
	require.NoError(t, os.WriteFile(path, content, 0o600))
	return path
}

// quickPrograms is quickHTTP for programs of some names alone: what it loses is then theirs.
func quickPrograms(names ...string) map[string]string {
	var rules []string
	for _, name := range names {
		rules = append(rules, "{executable: "+name+"}")
	}
	return map[string]string{"ebpf": quickHTTP + "\n    select: {include: [" + strings.Join(rules, ", ") + "]}"}
}

func onServer(port int) func(span) bool {
	return func(s span) bool { return s.number("server.port") == port }
}

func ofKind(kind ptrace.SpanKind) func(span) bool {
	return func(s span) bool { return s.kind == kind }
}

// waitSpans waits until at least count spans match.
func (c *collector) waitSpans(t *testing.T, count int, match ...func(span) bool) []span {
	t.Helper()
	var found []span
	require.Eventually(t, func() bool {
		found = c.spans(t, match...)
		return len(found) >= count
	}, patience, tick, "want %d spans, have %d", count, len(c.spans(t, match...)))
	return found
}

// looked waits until the receiver has looked into all that ran when it started: what ran then is seen from here on.
func (c *collector) looked(t *testing.T) {
	t.Helper()
	examined := ""
	require.Eventually(t, func() bool {
		before := examined
		examined = ""
		for line := range strings.Lines(c.ownMetrics(t)) {
			if strings.Contains(line, `"tls_process_examined"`) {
				examined = line
			}
		}
		return examined != "" && !strings.HasSuffix(strings.TrimSpace(examined), " 0") && examined == before
	}, patience, 20*tick, "the receiver goes on looking into processes: %s", examined)
}

// Every request of curl to nginx in TLS is two spans of one trace, in HTTP/1.1 and in HTTP/2, which say what curl says.
func TestHTTPSOfCurlToNginx(t *testing.T) {
	server := startNginx(t, "127.0.0.1")
	c := startCollector(t, setup{receivers: quickPrograms("curl", "nginx")})
	c.looked(t)

	fetched := map[string]curl{} // by url
	ask := func(option, path string) {
		url := fmt.Sprintf("https://127.0.0.1:%d%s", server.securePort, path)
		result, err := fetch(url, option)
		require.NoError(t, err)
		require.Equal(t, strings.TrimPrefix(option, "--http"), result.Version)
		fetched[url] = result
	}
	for _, version := range []string{"1.1", "2"} {
		for round := range 3 {
			for _, size := range fileSizes {
				ask("--http"+version, fmt.Sprintf("/%d?version=%s&round=%d", size, version, round))
			}
			ask("--http"+version, fmt.Sprintf("/absent?version=%s&round=%d", version, round))
		}
	}
	secure := onServer(server.securePort)
	c.waitSpans(t, len(fetched), secure, ofKind(ptrace.SpanKindServer))
	c.waitSpans(t, len(fetched), secure, ofKind(ptrace.SpanKindClient))
	assert.Empty(t, lostOf(c.losses(), "http"))
	c.shutdown(t)

	served := map[string]span{} // by url
	for _, s := range c.spans(t, secure, ofKind(ptrace.SpanKindServer)) {
		assert.Equal(t, "https", s.text("url.scheme"))
		assert.Equal(t, "nginx", s.resource.text("process.executable.name"))
		served[fmt.Sprintf("https://127.0.0.1:%d%s?%s", server.securePort, s.text("url.path"), s.text("url.query"))] = s
	}
	asked := c.spans(t, secure, ofKind(ptrace.SpanKindClient))
	assert.Len(t, asked, len(fetched))
	assert.Len(t, served, len(fetched))
	for _, client := range asked {
		url := client.text("url.full")
		require.Contains(t, fetched, url)
		result, own := fetched[url], served[url]
		for name, s := range map[string]span{"client": client, "server": own} {
			where := name + " " + url
			assert.Equal(t, "GET", s.text("http.request.method"), where)
			assert.Equal(t, result.Code, s.number("http.response.status_code"), where)
			assert.Equal(t, result.Download, s.number("http.response.body.size"), where)
			assert.Equal(t, result.Version, s.text("network.protocol.version"), where)
			assert.Equal(t, client.trace, s.trace, where)
			assert.False(t, s.end.Before(s.start), where)
		}
		assert.Equal(t, client.id, own.parent, url)
		assert.Equal(t, "curl", client.resource.text("process.executable.name"), url)
		assert.Equal(t, result.pid, client.number("process.pid"), url)
		assert.Equal(t, server.pid(), parent(t, own.number("process.pid")), "%s: a worker", url)
		took := result.TimeTotal - result.TimeConnect
		assert.LessOrEqual(t, client.end.Sub(client.start).Seconds(), took+0.002, "%s: within curl's own time", url)
	}
	for role, program := range map[string]string{"server": "nginx", "client": "curl"} {
		assert.Equal(t, len(fetched), cumulative(c.points(t, named("http."+role+".request.duration"), func(p point) bool {
			return p.resource.text("process.executable.name") == program && p.text("url.scheme") == "https"
		})), role)
	}
}

// lostOf are the lines of a probe's losses that are not zero.
func lostOf(losses, probe string) string {
	var lost strings.Builder
	for line := range strings.Lines(losses) {
		if strings.HasPrefix(line, "otelcol_receiver_ebpf_events_lost") && strings.Contains(line, fmt.Sprintf("probe=%q", probe)) &&
			!strings.HasSuffix(strings.TrimSpace(line), " 0") {
			lost.WriteString(line)
		}
	}
	return lost.String()
}

// Every call of gRPC between programs in Go is two spans of one trace and counts in the metrics of both, plain and in TLS.
func TestCallsOfGRPC(t *testing.T) {
	const calls, atOnce = 90, 2 // each of two clients
	for name, secure := range map[string]bool{"plain": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			var withServer, withClient []string
			if secure {
				withServer, withClient = []string{certificate(t)}, []string{"tls"}
			}
			server, port := serve(t, inGoWith(withServer...), "127.0.0.1")
			c := startCollector(t, setup{receivers: quickPrograms("peer")})
			c.looked(t)
			address := "127.0.0.1:" + strconv.Itoa(port)
			pids := map[int]bool{}
			for range atOnce {
				client := start(t, "client", append([]string{prepare(t).peer, "call", address}, withClient...))
				defer client.wait(t)
				defer client.input.Close()
				client.tell(t, strconv.Itoa(calls))
				assert.Equal(t, calls, client.account(t, "called").Sent)
				pids[client.pid()] = true
			}
			ofPort := onServer(port)
			c.waitSpans(t, atOnce*calls, ofPort, ofKind(ptrace.SpanKindServer))
			c.waitSpans(t, atOnce*calls, ofPort, ofKind(ptrace.SpanKindClient))
			assert.Empty(t, lostOf(c.losses(), "http"))
			c.shutdown(t)

			clients := map[string]span{}
			statuses := map[string]int{}
			for _, s := range c.spans(t, ofPort, ofKind(ptrace.SpanKindClient)) {
				clients[s.id] = s
				statuses["client "+s.text("rpc.response.status_code")]++
				assert.Contains(t, pids, s.number("process.pid"))
			}
			assert.Len(t, clients, atOnce*calls)
			for _, s := range c.spans(t, ofPort, ofKind(ptrace.SpanKindServer)) {
				statuses["server "+s.text("rpc.response.status_code")]++
				assert.Equal(t, server.pid(), s.number("process.pid"))
				require.Contains(t, clients, s.parent)
				called := clients[s.parent]
				assert.Equal(t, called.trace, s.trace)
				for _, end := range []span{called, s} {
					assert.Equal(t, "grpc.testing.TestService/UnaryCall", end.text("rpc.method"))
					assert.Equal(t, "grpc", end.text("rpc.system.name"))
					assert.Equal(t, called.text("rpc.response.status_code"), end.text("rpc.response.status_code"))
				}
			}
			assert.Equal(t, map[string]int{
				"client OK": atOnce * calls * 2 / 3, "server OK": atOnce * calls * 2 / 3,
				"client NOT_FOUND": atOnce * calls / 3, "server NOT_FOUND": atOnce * calls / 3,
			}, statuses)
			for _, role := range []string{"server", "client"} {
				metric := named("rpc." + role + ".call.duration")
				ofPeer := func(p point) bool { return p.resource.text("process.executable.name") == "peer" }
				assert.Equal(t, atOnce*calls, cumulative(c.points(t, metric, ofPeer)), role)
				assert.Equal(t, atOnce*calls/3, cumulative(c.points(t, metric, ofPeer, func(p point) bool {
					return p.text("rpc.response.status_code") == "NOT_FOUND"
				})), role)
			}
		})
	}
}

// inGoWith serves gRPC, with a certificate in TLS.
func inGoWith(certificates ...string) language {
	return func(t *testing.T, _, host string, port int, _ ...string) []string {
		return append(inGo(t, "serve-grpc", host, port), certificates...)
	}
}
