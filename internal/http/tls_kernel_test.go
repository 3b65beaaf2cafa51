//go:build linux

package http

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http/tls/tlstest"
)

// certificate makes a file with a certificate for this host and its key.
func certificate(t *testing.T) string {
	t.Helper()
	content, err := tlstest.Certificate()
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "certificate.pem")
	require.NoError(t, os.WriteFile(path, content, 0o600))
	return path
}

func serveGoTLS(t *testing.T) (*program, int) {
	t.Helper()
	server := start(t, []string{programVariable + "=serve", certificateVariable + "=" + certificate(t)},
		executable(t), "tcp", "127.0.0.1:0")
	return server, server.record(t).Port
}

func securely(port int, path string) string { return fmt.Sprintf("https://127.0.0.1:%d%s", port, path) }

// attached waits until the probe has attached to what programs encrypt with: those that run, and the libraries of the host.
func (o *observation) attached(programs ...*program) {
	o.t.Helper()
	<-o.inspector.scanned
	for _, p := range programs {
		observed, err := o.inspector.finder.Examine(uint32(p.Process.Pid), time.Now())
		require.NoError(o.t, err, p.name)
		require.True(o.t, observed, p.name)
	}
}

// endsApart gives the two spans of an exchange in TLS or HTTP/2. A client that has all that it was promised does not wait for
// the end of the stream, so that its server may end later.
func (o *observation) endsApart(port int, path string) (client, server ptrace.Span) {
	o.t.Helper()
	clients := o.wait(1, ptrace.SpanKindClient, port, path)
	servers := o.wait(1, ptrace.SpanKindServer, port, path)
	require.Len(o.t, clients, 1, path)
	require.Len(o.t, servers, 1, path)
	client, server = clients[0], servers[0]
	assert.Equal(o.t, client.TraceID(), server.TraceID(), "%s: one trace", path)
	assert.Equal(o.t, client.SpanID(), server.ParentSpanID(), "%s: the server's parent", path)
	assert.LessOrEqual(o.t, client.StartTimestamp(), server.StartTimestamp()+50_000, "%s: the client begins", path)
	return client, server
}

func TestCurlToGoTLS(t *testing.T) {
	server, port := serveGoTLS(t)
	o := observe(t)
	o.attached(server)
	for _, version := range []string{"--http1.1", "--http2"} {
		path := "/curl/" + version[2:]
		told := curl(t, "-k", version, "-X", "POST", "--data-binary", "hello", securely(port, path+"?size=100000"))
		client, accepted := o.endsApart(port, path)
		check(t, client, told, false, false)
		check(t, accepted, server.record(t), false, false)
		for _, span := range []ptrace.Span{client, accepted} {
			assert.Equal(t, "https", scheme(span), path)
		}
	}
	assert.Empty(t, o.losses())
}

// A request in HTTP/1 that is answered in HTTP/2.
func TestUpgradeToHTTP2(t *testing.T) {
	server := start(t, []string{programVariable + "=serve upgraded"}, executable(t))
	port := server.record(t).Port
	o := observe(t)
	told := curl(t, "--http2", at(port, "/upgrade"))
	require.EqualValues(t, 200, told.Status)
	client, accepted := o.endsApart(port, "/upgrade")
	check(t, client, told, false, false)
	check(t, accepted, told.other(), false, false)
	assert.Empty(t, o.losses())
}

// Servers and clients of several libraries, each with each other.
func TestTLSLibraries(t *testing.T) {
	script := filepath.Join("testdata", "programs", "library.js")
	servers := map[string]func(*testing.T) (*program, int){
		"Go":     serveGoTLS,
		"Python": servePythonTLS,
		"node": func(t *testing.T) (*program, int) {
			server := start(t, []string{certificateVariable + "=" + certificate(t)}, "node", script, "serve")
			return server, server.record(t).Port
		},
	}
	clients := map[string]func(*testing.T, []string) *program{
		"Python": func(t *testing.T, urls []string) *program {
			return startPython(t, append([]string{"library.py", "fetch"}, urls...)...)
		},
		"asyncio": func(t *testing.T, urls []string) *program {
			return startPython(t, append([]string{"library.py", "fetch_async"}, urls...)...)
		},
		"node": func(t *testing.T, urls []string) *program {
			return start(t, nil, append([]string{"node", script, "fetch"}, urls...)...)
		},
	}
	for serverName, serve := range servers {
		for clientName, fetch := range clients {
			if clientName == "node" && serverName == "Python" {
				continue // the one sends chunks, the other does not understand them
			}
			t.Run(clientName+" to "+serverName, func(t *testing.T) {
				server, port := serve(t)
				o := observe(t)
				o.attached(server)
				var urls []string
				for i, query := range []string{"?size=0", "?size=10", "?size=100000", "?size=7", "?size=3000"} {
					urls = append(urls, securely(port, fmt.Sprintf("/%d%s", i, query)))
				}
				if clientName == "node" {
					o.attachToNode(script)
				}
				told := fetch(t, urls).records(t, len(urls))
				for path, served := range server.records(t, len(urls)) {
					requested, accepted := o.endsApart(port, path)
					check(t, requested, told[path], true, false)
					check(t, accepted, served, true, false)
				}
				assert.Empty(t, o.losses())
			})
		}
	}
}

// attachToNode lets the probe see node once: a program that no process runs is not known.
func (o *observation) attachToNode(script string) {
	o.t.Helper()
	waiting := start(o.t, nil, "node", script, "serve")
	waiting.record(o.t)
	o.attached(waiting)
}

func TestCurlToNginxTLS(t *testing.T) {
	server := startNginx(t, 1)
	o := observe(t)
	o.attached(server.program)
	for _, version := range []string{"--http1.1", "--http2"} {
		for _, path := range []string{"/large", "/small", "/missing"} {
			address := securely(server.securePort, path+"?"+version[2:])
			told := curl(t, "-k", version, address)
			requests := o.wait(1, ptrace.SpanKindClient, server.securePort, path)
			assert.Len(t, requests, 1)
			client, accepted := o.endsApart(server.securePort, path)
			check(t, client, told, false, false)
			check(t, accepted, told.other(), false, false)
			assert.Equal(t, map[string]string{"--http1.1": "1.1", "--http2": "2"}[version], text(client, attrProtocolVersion))
			o.forget()
		}
	}
	assert.Empty(t, o.losses())
}

// other is what the other end of an exchange would say.
func (r record) other() record {
	r.Sent, r.Received = r.Received, r.Sent
	return r
}

// forget leaves the spans out that were seen so far.
func (o *observation) forget() {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	o.spans = nil
}

// scheme is url.scheme of a server, and that in url.full of a client.
func scheme(span ptrace.Span) string { return text(span, attrScheme) }
