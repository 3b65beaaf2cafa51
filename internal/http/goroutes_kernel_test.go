//go:build linux

package http

import (
	"crypto/tls"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// buildRoutes builds the program with a version of Go; empty: this one.
func buildRoutes(t *testing.T, version, linker string) string {
	t.Helper()
	directory := t.TempDir()
	require.NoError(t, os.CopyFS(directory, os.DirFS(filepath.Join("testdata", "programs", "routes"))))
	if version == "" {
		version = strings.Fields(runtime.Version())[0]
	}
	// Up to Go 1.21, a module asks for its language alone; without it, the mux would be that of before 1.22.
	language := strings.Join(strings.SplitN(strings.TrimPrefix(version, "go"), ".", 3)[:2], ".")
	require.NoError(t, os.WriteFile(filepath.Join(directory, "go.mod"), []byte("module routes\n\ngo "+language+"\n"), 0o600))
	path := filepath.Join(directory, "routes")
	command := exec.Command("go", "build", "-ldflags="+linker, "-o", path, ".")
	// go test has set GOROOT, and put its own tools first.
	command.Env = slices.DeleteFunc(append(os.Environ(), "GOTOOLCHAIN="+version), func(variable string) bool {
		return strings.HasPrefix(variable, "GOROOT=") || strings.HasPrefix(variable, "GOTOOLCHAIN_INTERNAL")
	})
	command.Dir = directory
	output, err := command.CombinedOutput()
	require.NoError(t, err, string(output))
	return path
}

// routed is a request to the program.
type routed struct{ method, host, path string }

func routedRequests(count int) []routed {
	all := make([]routed, count)
	for number := range all {
		n := strconv.Itoa(number)
		all[number] = []routed{
			{"GET", "", "/items/" + n},
			{"POST", "", "/items/name" + n},
			{"GET", "", "/files/" + n + "/and/more"},
			{"GET", "example.com", "/hosted/" + n},
			{"GET", "example.com", "/hosted/" + n + "/both"},
			{"GET", "", "/exact/"},
			{"GET", "", "/tree/" + n + "/leaf"},
			{"GET", "", "/static/readme?n=" + n},
			{"GET", "", "/large/" + n},
			{"GET", "", "/api/v1/users/" + n},
			{"GET", "", "/stripped/orders/" + n},
			{"GET", "", "/slow/" + n},
			{"GET", "", "/context/" + n},
			{"GET", "", "/items/with%2Fslash" + n},
			{"HEAD", "", "/items/" + n},
		}[number%15]
	}
	return all
}

// askRouted makes the requests, some at once, each with its number.
func askRouted(t *testing.T, transport http.RoundTripper, base string, requests []routed, first, atOnce int) {
	t.Helper()
	next := make(chan int)
	var done sync.WaitGroup
	for range atOnce {
		done.Go(func() {
			for number := range next {
				ask := requests[number]
				request, err := http.NewRequest(ask.method, base+ask.path, http.NoBody)
				if !assert.NoError(t, err) {
					continue
				}
				if ask.host != "" {
					request.Host = ask.host
				}
				request.Header.Set(requestIDHeader, strconv.Itoa(first+number))
				response, err := transport.RoundTrip(request)
				if assert.NoError(t, err) {
					_, err = io.Copy(io.Discard, response.Body)
					assert.NoError(t, err)
					response.Body.Close()
				}
			}
		})
	}
	for number := range requests {
		next <- number
	}
	close(next)
	done.Wait()
}

// eventCount is how often the probe has counted something.
func (o *observation) eventCount(kind string) (count uint64) {
	for _, event := range o.Stats().Events {
		if event.Kind == kind {
			count += event.Count
		}
	}
	return count
}

type routesTest struct {
	name, version, linker string
	tls, http2            bool
}

func (test *routesTest) transport(t *testing.T) (transport *http.Transport, scheme string) {
	transport = &http.Transport{Protocols: &http.Protocols{}, MaxIdleConnsPerHost: 16}
	scheme = "http"
	switch {
	case test.tls && test.http2:
		transport.Protocols.SetHTTP2(true)
	case test.http2:
		transport.Protocols.SetUnencryptedHTTP2(true)
	default:
		transport.Protocols.SetHTTP1(true)
	}
	if test.tls {
		scheme = "https"
		transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // a test's own certificate
	}
	t.Cleanup(transport.CloseIdleConnections)
	return transport, scheme
}

// TestRoutesOfGoMux has a server say which pattern it has found for each request: all spans have it.
func TestRoutesOfGoMux(t *testing.T) {
	tests := []routesTest{
		{name: "HTTP/1"},
		{name: "HTTP/1 stripped", linker: "-s -w"},
		{name: "HTTP/1 in TLS", tls: true},
		{name: "HTTP/2", http2: true},
		{name: "HTTP/2 in TLS", tls: true, http2: true},
	}
	for _, version := range strings.Fields(os.Getenv("EBPFRECEIVER_TEST_GO")) {
		tests = append(tests,
			routesTest{name: "HTTP/1 of " + version, version: version},
			routesTest{name: "HTTP/2 in TLS of " + version, version: version, linker: "-s -w", tls: true, http2: true})
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			testRoutesOfGoMux(t, &test, buildRoutes(t, test.version, test.linker))
		})
	}
}

func testRoutesOfGoMux(t *testing.T, test *routesTest, path string) {
	const count, atOnce = 1000, 16
	o := observe(t, selecting(t, path), func(p *Probe) { p.config.RouteGoMux = true })
	command := []string{path}
	if test.tls {
		command = append(command, certificate(t))
	}
	server := start(t, nil, command...)
	port := server.record(t).Port
	if test.tls {
		o.attached(server)
	}
	transport, scheme := test.transport(t)
	base := scheme + "://127.0.0.1:" + strconv.Itoa(port)

	askRouted(t, transport, base, routedRequests(1), 100_000, 1)
	o.recognized(server, schedulingGoroutines)
	askRouted(t, transport, base, routedRequests(1), 100_001, 1)
	if strings.HasPrefix(test.version, "go1.21") {
		o.checkUnrouted(transport, base, port)
		return
	}
	require.Eventually(t, func() bool {
		stats := o.inspector.stats()
		for _, event := range stats.Events {
			if event.Kind == "go_mux_attached" && event.Count > 0 {
				return true
			}
		}
		return false
	}, patience, time.Millisecond)
	time.Sleep(200 * time.Millisecond)

	askRouted(t, transport, base, routedRequests(count), 0, atOnce)
	said := map[string]string{}
	for range count + 2 {
		told := server.record(t)
		said[told.Path] = told.Method
	}
	var received map[string]ptrace.Span
	require.Eventually(t, func() bool {
		received, _ = o.numberedSpans(port, 0)
		return len(received) >= count+2
	}, patience, patience/1000, "lost %v", o.losses())
	wrong := map[string]int{}
	for number := range count {
		span, expected := received[strconv.Itoa(number)], said[strconv.Itoa(number)]
		require.NotEmpty(t, expected, number)
		if route := text(span, attrRoute); route != expected {
			wrong[expected+" as "+route]++
		}
		if span.Name() != text(span, attrMethod)+" "+expected {
			wrong["name "+span.Name()]++
		}
	}
	assert.Empty(t, wrong, "%v", o.Stats().Events)
	assert.Empty(t, o.losses())
	assert.Zero(t, o.eventCount("go_route_untied"))

	// What is too long, and what has no pattern, is guessed as before.
	askRouted(t, transport, base, []routed{
		{"GET", "", "/long/" + strings.Repeat("a", 130)}, {"GET", "", "/nothing/12345"}, {"GET", "", "//items//7"},
	}, 200_000, 1)
	require.Eventually(t, func() bool {
		received, _ = o.numberedSpans(port, 0)
		return len(received) >= count+5
	}, patience, patience/1000, "lost %v", o.losses())
	assert.Equal(t, "/long/{id}", text(received["200000"], attrRoute))
	assert.Equal(t, uint64(1), o.eventCount("go_route_too_long"))
	assert.NotContains(t, text(received["200001"], attrRoute), "12345")
	assert.Equal(t, "/items/{id}", text(received["200002"], attrRoute), "it is redirected by the pattern")
}

// checkUnrouted checks that a program without patterns is observed as any other.
func (o *observation) checkUnrouted(transport http.RoundTripper, base string, port int) {
	askRouted(o.t, transport, base, routedRequests(15), 0, 4)
	require.Eventually(o.t, func() bool {
		received, _ := o.numberedSpans(port, 0)
		return len(received) >= 17
	}, patience, patience/1000, "lost %v", o.losses())
	received, _ := o.numberedSpans(port, 0)
	assert.Equal(o.t, "/static/readme", text(received["7"], attrRoute), "%v", received)
	assert.Zero(o.t, o.eventCount("go_route"))
	assert.Zero(o.t, o.eventCount("go_mux_attached"))
	assert.Empty(o.t, o.losses())
}
