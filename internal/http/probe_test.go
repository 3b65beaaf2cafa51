//go:build linux

package http

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.uber.org/zap/zaptest"
	"golang.org/x/sys/unix"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel/kerneltest"
	"github.com/ebpfreceiver/ebpfreceiver/internal/ring"
	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

// patience is how long a test waits for anything. What it waits for takes milliseconds, on a busy machine seconds.
const patience = 10 * time.Second

// tolerance is by how much a time that a program takes of itself may differ from the probe's: the two look at slightly
// different moments, and the machine may be busy in between.
const tolerance = time.Millisecond

const (
	megabyte = 1 << 20
	large    = 10 * megabyte
)

// observation is a running probe and what it has handed over.
type observation struct {
	took time.Duration // of the calls that were made last
	*Probe
	t       *testing.T
	mutex   sync.Mutex
	spans   []ptrace.Span
	metrics []pmetric.Metrics
	over    []time.Duration // of the test's goroutine alone
}

func observe(t *testing.T, changes ...func(*Probe)) *observation {
	t.Helper()
	kerneltest.RequireRoot(t)
	logger := zaptest.NewLogger(t)
	kern, err := kernel.Open(kernel.Options{}, logger)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, kern.Close()) })
	workloads, err := workload.NewTable(workload.Config{ProcFS: os.Getenv(procFSVariable)}, kern, logger)
	require.NoError(t, err)
	require.NoError(t, workloads.Start())
	t.Cleanup(func() { assert.NoError(t, workloads.Close()) })

	// The programs of these tests alone: whatever else this host does is none of a test's business.
	var selection workload.Selection
	for _, path := range []string{executable(t), python(), "/usr/bin/curl", "/usr/sbin/nginx", "/usr/bin/node"} {
		resolved, err := filepath.EvalSymlinks(path)
		if err != nil {
			continue // the test that needs it says so
		}
		selection.Include = append(selection.Include, workload.Rule{Executable: resolved})
	}
	selector, err := selection.Compile()
	require.NoError(t, err)
	o := &observation{t: t}
	o.Probe, err = New(Config{
		HeadBytes:       512,
		MaxConnections:  10_000,
		Sampling:        Sampling{Ratio: 1},
		Propagators:     []string{PropagatorTraceContext, PropagatorGRPCTraceBin},
		MetricsInterval: time.Hour, // at the end alone
		Delta:           true,
		MaxSeries:       10_000,
		TLS:             TLSConfig{OpenSSL: true, Go: true},
		Ring:            ring.Config{Bytes: 4 << 20, WakeupBytes: 1 << 20, PollInterval: 10 * time.Millisecond},
		Scope:           func(pcommon.InstrumentationScope) {},
	}, kern, workloads, selector, Sinks{Traces: o.takeTraces, Metrics: o.takeMetrics}, logger)
	require.NoError(t, err)
	for _, change := range changes {
		change(o.Probe)
	}
	require.NoError(t, o.Start())
	t.Cleanup(o.stopObserving)
	return o
}

func (o *observation) takeTraces(_ context.Context, traces ptrace.Traces) error {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	for _, resource := range traces.ResourceSpans().All() {
		for _, scope := range resource.ScopeSpans().All() {
			for _, span := range scope.Spans().All() {
				o.spans = append(o.spans, span)
			}
		}
	}
	return nil
}

func (o *observation) takeMetrics(_ context.Context, metrics pmetric.Metrics) error {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	o.metrics = append(o.metrics, metrics)
	return nil
}

func (o *observation) stopObserving() {
	assert.NoError(o.t, o.Shutdown(context.Background()))
	o.checkOver()
}

// losses are all that were counted, by reason.
func (o *observation) losses() map[string]uint64 {
	counts := map[string]uint64{}
	for _, loss := range o.Stats().Losses {
		if loss.Count > 0 {
			counts[loss.Reason] += loss.Count
		}
	}
	return counts
}

// spanPath is the path that the request of a span asked for.
func spanPath(span ptrace.Span) string {
	if path, ok := span.Attributes().Get(attrPath); ok {
		return path.Str()
	}
	full, _ := span.Attributes().Get(attrFullURL)
	parsed, err := url.Parse(full.Str())
	if err != nil {
		return full.Str()
	}
	return parsed.Path
}

func number(span ptrace.Span, attribute string) int64 {
	value, ok := span.Attributes().Get(attribute)
	if !ok {
		return -1
	}
	return value.Int()
}

func text(span ptrace.Span, attribute string) string {
	value, _ := span.Attributes().Get(attribute)
	return value.Str()
}

// find gives the spans of a service's port, by path; of all paths where prefix ends in a slash.
func (o *observation) find(kind ptrace.SpanKind, port int, prefix string) []ptrace.Span {
	attribute := attrLocalPort
	if kind == ptrace.SpanKindClient {
		attribute = attrPeerPort
	}
	o.mutex.Lock()
	defer o.mutex.Unlock()
	var found []ptrace.Span
	for _, span := range o.spans {
		path := spanPath(span)
		if span.Kind() == kind && number(span, attribute) == int64(port) &&
			(path == prefix || strings.HasSuffix(prefix, "/") && strings.HasPrefix(path, prefix)) {
			found = append(found, span)
		}
	}
	return found
}

// wait gives the spans once there are so many.
func (o *observation) wait(count int, kind ptrace.SpanKind, port int, prefix string) []ptrace.Span {
	o.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		found := o.find(kind, port, prefix)
		if len(found) >= count {
			return found
		}
		if time.Now().After(deadline) {
			require.Failf(o.t, "missing spans", "%d of %d, %v to port %d with %q; lost %v; all:\n%s",
				len(found), count, kind, port, prefix, o.losses(), o.dump())
		}
	}
}

func (o *observation) dump() string {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	var b strings.Builder
	for _, span := range o.spans[:min(len(o.spans), 50)] {
		fmt.Fprintln(&b, span.Kind(), span.Attributes().AsRaw())
	}
	return b.String()
}

// ends gives the two spans of one exchange, and checks what they have to have in common.
func (o *observation) ends(port int, path string) (client, server ptrace.Span) {
	o.t.Helper()
	clients := o.wait(1, ptrace.SpanKindClient, port, path)
	servers := o.wait(1, ptrace.SpanKindServer, port, path)
	require.Len(o.t, clients, 1, path)
	require.Len(o.t, servers, 1, path)
	client, server = clients[0], servers[0]
	o.checkLink(client, server)
	return client, server
}

func (o *observation) checkLink(client, server ptrace.Span) {
	o.t.Helper()
	path := spanPath(server)
	assert.Equal(o.t, client.TraceID(), server.TraceID(), "%s: one trace", path)
	assert.Equal(o.t, client.SpanID(), server.ParentSpanID(), "%s: the server's parent", path)
	assert.LessOrEqual(o.t, client.StartTimestamp(), server.StartTimestamp()+50_000, "%s: the client begins", path)
	// The server's write may return after the client has read; its end is told of before it.
	assert.LessOrEqual(o.t, server.EndTimestamp(), client.EndTimestamp()+50_000, "%s: the client ends last", path)
}

func duration(span ptrace.Span) time.Duration {
	return time.Duration(span.EndTimestamp() - span.StartTimestamp())
}

// check compares a span with what a program says. Sizes may be missing where the message does not tell its size.
func check(t *testing.T, span ptrace.Span, told record, chunkedRequest, chunkedResponse bool) {
	t.Helper()
	where := fmt.Sprintf("%v %s %s", span.Kind(), told.Method, told.Path)
	if told.Method != "" {
		assert.Equal(t, told.Method, text(span, attrMethod), where)
	}
	assert.Equal(t, told.Path, spanPath(span), where)
	assert.EqualValues(t, told.Status, number(span, attrStatusCode), where)
	request, response := told.Sent, told.Received
	if span.Kind() == ptrace.SpanKindServer {
		request, response = response, request
	}
	if size := number(span, attrRequestBodySize); size >= 0 || !chunkedRequest {
		assert.EqualValues(t, request, size, "%s: request", where)
	}
	if size := number(span, attrResponseBodySize); size >= 0 || !chunkedResponse {
		assert.EqualValues(t, response, size, "%s: response", where)
	}
	if told.Status < 400 {
		assert.Empty(t, text(span, attrErrorType), where)
	}
}

// program is a running program of a test. The test's end kills it.
type program struct {
	*exec.Cmd
	name   string
	input  io.WriteCloser
	lines  chan string // of the standard output
	ended  chan struct{}
	result error
	errors bytes.Buffer // to be read when it has ended
}

func start(t *testing.T, environment []string, command ...string) *program {
	t.Helper()
	p := &program{
		Cmd: exec.Command(command[0], command[1:]...), name: strings.Join(command, " "),
		lines: make(chan string, 1<<14), ended: make(chan struct{}),
	}
	p.Env = append(os.Environ(), environment...)
	p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.Stderr = &p.errors
	var err error
	p.input, err = p.StdinPipe()
	require.NoError(t, err)
	output, err := p.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, p.Start(), p.name)
	go func() {
		scanner := bufio.NewScanner(output)
		for scanner.Scan() {
			p.lines <- scanner.Text()
		}
		close(p.lines)
		p.result = p.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() && p.errors.Len() > 0 {
			t.Logf("errors of %s:\n%s", p.name, p.errors.String())
		}
	})
	return p
}

func (p *program) kill() {
	_ = p.Process.Kill()
	<-p.ended
}

// record waits for what the program says next.
func (p *program) record(t *testing.T) record {
	t.Helper()
	select {
	case line, open := <-p.lines:
		if !open {
			<-p.ended
			require.Fail(t, "program has ended", "%s: %v\n%s", p.name, p.result, p.errors.String())
		}
		var told record
		require.NoError(t, json.Unmarshal([]byte(line), &told), "%s said %q", p.name, line)
		require.Empty(t, told.Error, p.name)
		return told
	case <-time.After(patience):
		require.Fail(t, "program says nothing", p.name)
		return record{}
	}
}

// records reads as many as are expected, by path.
func (p *program) records(t *testing.T, count int) map[string]record {
	t.Helper()
	all := make(map[string]record, count)
	for range count {
		told := p.record(t)
		require.NotContains(t, all, told.Path, p.name)
		all[told.Path] = told
	}
	return all
}

func (p *program) tell(t *testing.T, line string) {
	t.Helper()
	_, err := io.WriteString(p.input, line+"\n")
	require.NoError(t, err)
}

// finish waits until the program has ended well.
func (p *program) finish(t *testing.T) {
	t.Helper()
	if err := p.input.Close(); !errors.Is(err, os.ErrClosed) { // it is where the program has ended
		require.NoError(t, err)
	}
	select {
	case <-p.ended:
		require.NoError(t, p.result, "%s\n%s", p.name, p.errors.String())
	case <-time.After(patience):
		require.Fail(t, "program still runs", p.name)
	}
}

func executable(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	require.NoError(t, err)
	return path
}

// python is the interpreter itself: what is in the path may be a script that starts it.
var python = sync.OnceValue(func() string {
	if path, err := exec.Command("python3", "-c", "import sys; print(sys.executable)").Output(); err == nil {
		return strings.TrimSpace(string(path))
	}
	return ""
})

func serveGo(t *testing.T, address ...string) (*program, int) {
	t.Helper()
	listen := []string{"tcp", "127.0.0.1:0"}
	if len(address) > 0 {
		listen = address
	}
	server := start(t, []string{programVariable + "=serve"}, executable(t), listen[0], listen[1])
	return server, server.record(t).Port
}

// fetchGo lets a client follow a plan and gives its records, by path.
func fetchGo(t *testing.T, p plan) map[string]record {
	t.Helper()
	return fetch(t, executable(t), 0, p)
}

// fetch lets a copy of this program follow a plan, a while after it has begun.
func fetch(t *testing.T, path string, pause time.Duration, p plan) map[string]record {
	t.Helper()
	client := start(t, []string{programVariable + "=fetch"}, path)
	time.Sleep(pause)
	require.NoError(t, json.NewEncoder(client.input).Encode(p))
	told := client.records(t, len(p.Requests))
	client.finish(t)
	return told
}

func startPython(t *testing.T, arguments ...string) *program {
	t.Helper()
	require.NotEmpty(t, python(), "there is no python3: apt install python3")
	arguments[0] = filepath.Join("testdata", "programs", arguments[0])
	return start(t, nil, append([]string{python(), "-u"}, arguments...)...)
}

func servePythonTLS(t *testing.T) (*program, int) {
	t.Helper()
	require.NotEmpty(t, python(), "there is no python3: apt install python3")
	server := start(t, []string{certificateVariable + "=" + certificate(t)},
		python(), "-u", filepath.Join("testdata", "programs", "library.py"), "serve")
	return server, server.record(t).Port
}

func servePython(t *testing.T, arguments ...string) (*program, int) {
	t.Helper()
	server := startPython(t, arguments...)
	return server, server.record(t).Port
}

func at(port int, path string) string { return fmt.Sprintf("http://127.0.0.1:%d%s", port, path) }

// curl makes one request, and says how many bytes of a body it received and how long it took.
func curl(t *testing.T, arguments ...string) record {
	t.Helper()
	path, err := exec.LookPath("curl")
	require.NoError(t, err, "apt install curl")
	output, err := exec.Command(path, append([]string{
		"-s", "--noproxy", "*", "-o", os.DevNull, "-w", "%{method} %{http_code} %{size_upload} %{size_download} %{time_total} %{time_connect}",
	}, arguments...)...).Output()
	require.NoError(t, err)
	var told record
	var total, connected float64
	_, err = fmt.Sscan(string(output), &told.Method, &told.Status, &told.Sent, &told.Received, &total, &connected)
	require.NoError(t, err, string(output))
	told.Ns = int64((total - connected) * 1e9)
	parsed, err := url.Parse(arguments[len(arguments)-1])
	require.NoError(t, err)
	told.Path = parsed.Path
	return told
}

// checkDuration compares what a client took of its own time with its span: it has more to do than to send and receive.
func (o *observation) checkDuration(span ptrace.Span, told record) {
	o.over = append(o.over, duration(span)-time.Duration(told.Ns))
}

// checkHandler compares what a handler took, which is within its server's span.
func (o *observation) checkHandler(span ptrace.Span, told record) {
	o.over = append(o.over, time.Duration(told.Ns)-duration(span))
}

// checkLogged compares nginx's time of a request. It reads its clock once for each round of its loop, and logs whole
// milliseconds.
func (o *observation) checkLogged(span ptrace.Span, logged record) {
	o.over = append(o.over, (duration(span)-time.Duration(logged.Ns)).Abs()-2*time.Millisecond)
}

// checkOver looks at by how much the one was over the other. A program may lose its CPU between the two.
func (o *observation) checkOver() {
	slices.Sort(o.over)
	if len(o.over) > 0 {
		assert.LessOrEqual(o.t, o.over[len(o.over)/2], tolerance, "the half of %d", len(o.over))
		assert.LessOrEqual(o.t, o.over[len(o.over)*9/10], 5*tolerance, "nine in ten of %d", len(o.over))
	}
}

func TestCurlToPython(t *testing.T) {
	o := observe(t)
	server, port := servePython(t, "library.py", "serve")
	for _, told := range []record{
		curl(t, at(port, "/get?size=20000")),
		curl(t, "--data-binary", strings.Repeat("x", 70_000), at(port, "/post?size=5&status=201")),
		curl(t, "-X", "DELETE", at(port, "/gone?status=404&size=9")),
		curl(t, at(port, "/broken?status=500")),
	} {
		served := server.record(t)
		require.Equal(t, told.Path, served.Path)
		client, accepted := o.ends(port, told.Path)
		check(t, client, told, false, false)
		check(t, accepted, served, false, false)
		o.checkDuration(client, told)
		o.checkHandler(accepted, served)
		assert.EqualValues(t, server.Process.Pid, number(accepted, attrPID))
		assert.Equal(t, "1.1", text(client, attrProtocolVersion))
		if told.Status >= 400 {
			assert.Equal(t, strconv.Itoa(told.Status), text(client, attrErrorType))
		}
	}
}

func TestPythonToGo(t *testing.T) {
	o := observe(t)
	server, port := serveGo(t)
	var urls []string
	for i := range 10 {
		urls = append(urls, at(port, fmt.Sprintf("/%d?size=%d", i, 1<<i)))
	}
	client := startPython(t, append([]string{"library.py", "fetch"}, urls...)...)
	told := client.records(t, len(urls))
	for path, served := range server.records(t, len(urls)) {
		requested, accepted := o.ends(port, path)
		check(t, requested, told[path], false, false)
		check(t, accepted, served, false, false)
		o.checkDuration(requested, told[path])
		o.checkHandler(accepted, served)
	}
}

// freePort is a port that nobody listens on, for a program that does not choose one itself.
func freePort(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

// nginx is a web server of the test's own, which serves a file and is a proxy.
type nginx struct {
	*program
	port       int
	securePort int // of HTTPS
	log        string
}

func startNginx(t *testing.T, upstream int) *nginx {
	t.Helper()
	path, err := exec.LookPath("nginx")
	require.NoError(t, err, "apt install nginx-light")
	directory := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(directory, "large"), make([]byte, large), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(directory, "small"), make([]byte, 100), 0o644))
	port := freePort(t)
	server := &nginx{port: port, securePort: freePort(t), log: filepath.Join(directory, "access.log")}
	config := filepath.Join(directory, "nginx.conf")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, `
daemon off;
user root;
worker_processes 2;
pid %[1]s/nginx.pid;
error_log stderr;
events {}
http {
	log_format account '$request_method $uri $status $body_bytes_sent $request_time';
	access_log %[1]s/access.log account;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	client_max_body_size 20m;
	sendfile on;
	tcp_nopush on;
	upstream go {
		server 127.0.0.1:%[3]d;
		keepalive 4;
	}
	ssl_certificate %[4]s;
	ssl_certificate_key %[4]s;
	server {
		listen 127.0.0.1:%[2]d;
		listen 127.0.0.1:%[5]d ssl http2;
		root %[1]s;
		location /proxy/ {
			proxy_pass http://go;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
		}
	}
}
`, directory, port, upstream, certificate(t), server.securePort), 0o644))
	server.program = start(t, nil, path, "-p", directory, "-c", config, "-e", "stderr")
	t.Cleanup(func() {
		// The master alone can be killed without a trace of its workers.
		_ = server.Process.Signal(syscall.SIGTERM)
		<-server.ended
	})
	require.Eventually(t, func() bool {
		return exec.Command("curl", "-so", os.DevNull, at(port, "/nothing")).Run() == nil
	}, patience, 10*time.Millisecond, "nginx does not answer")
	return server
}

// records waits for what nginx logged of so many paths with a prefix.
func (n *nginx) records(t *testing.T, count int, prefix string) map[string]record {
	t.Helper()
	all := map[string]record{}
	require.Eventually(t, func() bool {
		content, err := os.ReadFile(n.log)
		require.NoError(t, err)
		for line := range strings.Lines(string(content)) {
			var (
				told    record
				seconds float64
			)
			_, err := fmt.Sscan(line, &told.Method, &told.Path, &told.Status, &told.Sent, &seconds)
			if err == nil && strings.HasPrefix(told.Path, prefix) {
				told.Ns = int64(seconds * 1e9)
				all[told.Path] = told
			}
		}
		return len(all) >= count
	}, patience, 10*time.Millisecond, "nginx's log has not %d requests of %s", count, prefix)
	return all
}

func TestCurlToNginx(t *testing.T) {
	server := startNginx(t, 1)
	o := observe(t)
	for _, path := range []string{"/large", "/small", "/missing"} {
		told := curl(t, at(server.port, path))
		logged := server.records(t, 1, path)[path]
		client, accepted := o.ends(server.port, path)
		check(t, client, told, false, false)
		check(t, accepted, logged, false, false)
		o.checkDuration(client, told)
		o.checkLogged(accepted, logged)
		assert.NotEqualValues(t, server.Process.Pid, number(accepted, attrPID), "a worker, not the master")
	}
	assert.NotContains(t, o.losses(), "message_gap")
}

func TestGoThroughNginxToGo(t *testing.T) {
	upstream, upstreamPort := serveGo(t)
	proxy := startNginx(t, upstreamPort)
	o := observe(t)
	p := plan{AtOnce: 2, KeepAlive: true}
	chunked := map[string]bool{}
	for i, size := range []int{0, 1, 300, 5000, 100_000, 3 * megabyte} {
		for _, chunk := range []bool{false, true} {
			path := fmt.Sprintf("/proxy/%d/%t", i, chunk)
			chunked[path] = chunk
			query := fmt.Sprintf("?size=%d&ms=5", size)
			if chunk {
				query += "&chunked=1"
			}
			p.Requests = append(p.Requests, planned{Method: "POST", URL: at(proxy.port, path+query), Size: size, Chunked: chunk})
		}
	}
	told := fetchGo(t, p)
	served, logged := upstream.records(t, len(told)), proxy.records(t, len(told), "/proxy/")
	for path, requested := range told {
		client, accepted := o.ends(proxy.port, path)
		check(t, client, requested, chunked[path], chunked[path])
		check(t, accepted, record{
			Method: "POST", Path: path, Status: 200, Received: requested.Sent, Sent: requested.Received,
		}, chunked[path], chunked[path])
		o.checkDuration(client, requested)
		o.checkLogged(accepted, logged[path])
		forwarded, answered := o.ends(upstreamPort, path)
		// A proxy reads what comes in pieces before it passes it on, with its length.
		check(t, forwarded, requested, false, chunked[path])
		check(t, answered, served[path], false, chunked[path])
		o.checkHandler(answered, served[path])
		assert.Equal(t, number(accepted, attrPID), number(forwarded, attrPID), "the worker that serves is the client")
	}
	assert.NotContains(t, o.losses(), "message_gap")
}

// mixed is a plan of all sorts of requests, each with a path of its own.
func mixed(at func(path string) string, count, large int) []planned {
	random := rand.New(rand.NewPCG(1, 2))
	sizes := []int{0, 0, 1, 7, 8, 100, 511, 512, 513, 4000, 4096, 5000, 40_000, 65_536, 100_000}
	methods := []string{"GET", "HEAD", "POST", "PUT", "DELETE"}
	statuses := []int{200, 200, 200, 204, 304, 404, 500, 302}
	requests := make([]planned, 0, count)
	for i := range count {
		r := planned{Method: methods[random.IntN(len(methods))], Chunked: random.IntN(3) == 0}
		size, status := sizes[random.IntN(len(sizes))], statuses[random.IntN(len(statuses))]
		if r.Method == "POST" || r.Method == "PUT" {
			r.Size = sizes[random.IntN(len(sizes))]
		} else {
			r.Chunked = false
		}
		if i%50 == 0 {
			r.Method, r.Size, size, status = "PUT", random.IntN(megabyte), random.IntN(megabyte), 200
		}
		if i%(count/large) == 1 {
			r.Method, r.Size, size, status = "POST", 10*megabyte, 10*megabyte, 200
		}
		r.URL = at(fmt.Sprintf("/mixed/%d?status=%d&size=%d&chunked=%d", i, status, size, random.IntN(2)))
		requests = append(requests, r)
	}
	return requests
}

// Of every request there is a span on each end, which says what the programs say.
func TestMixedRequests(t *testing.T) {
	for _, test := range []struct {
		name      string
		keepAlive bool
		http2     bool
		secure    bool
	}{
		{name: "kept alive", keepAlive: true},
		{name: "a connection each"},
		{name: "HTTP/2", keepAlive: true, http2: true},
		{name: "TLS", keepAlive: true, secure: true},
		{name: "TLS, a connection each", secure: true},
		{name: "HTTP/2 in TLS", keepAlive: true, http2: true, secure: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			const count = 1000
			o := observe(t)
			serve, scheme := func(t *testing.T) (*program, int) { return serveGo(t) }, "http"
			if test.secure {
				serve, scheme = serveGoTLS, "https"
			}
			server, port := serve(t)
			if test.secure {
				o.attached(server)
			}
			at := func(path string) string { return fmt.Sprintf("%s://127.0.0.1:%d%s", scheme, port, path) }
			p := plan{
				AtOnce: 8, KeepAlive: test.keepAlive, HTTP2: test.http2, Insecure: test.secure,
				Requests: mixed(at, count, 2),
			}
			planned := map[string]planned{}
			for _, r := range p.Requests {
				parsed, err := url.Parse(r.URL)
				require.NoError(t, err)
				planned[parsed.Path] = r
			}
			told := fetchGo(t, p)
			served := server.records(t, count)
			clients := o.wait(count, ptrace.SpanKindClient, port, "/mixed/")
			servers := o.wait(count, ptrace.SpanKindServer, port, "/mixed/")
			require.Len(t, clients, count)
			require.Len(t, servers, count)
			byPath := map[string]ptrace.Span{}
			missing := 0
			for _, span := range clients {
				path := spanPath(span)
				assert.NotContains(t, byPath, path, "reported twice")
				byPath[path] = span
				chunked := strings.Contains(planned[path].URL, "chunked=1")
				check(t, span, told[path], !test.http2 && planned[path].Chunked, !test.http2 && chunked)
				o.checkDuration(span, told[path])
				if number(span, attrRequestBodySize) < 0 {
					missing++
				}
			}
			t.Logf("%d of %d request sizes are not told", missing, count)
			for _, span := range servers {
				path := spanPath(span)
				require.Contains(t, byPath, path)
				o.checkLink(byPath[path], span)
				delete(byPath, path)
				chunked := strings.Contains(planned[path].URL, "chunked=1")
				check(t, span, served[path], !test.http2 && planned[path].Chunked, !test.http2 && chunked)
				o.checkHandler(span, served[path])
			}
			assert.Empty(t, byPath, "without a server's span")
			assert.Empty(t, o.losses())
		})
	}
}

// Whatever calls a program sends and receives with, and however few bytes each of them moves.
func TestCalls(t *testing.T) {
	for _, test := range []struct {
		clientSends, serverReceives, serverSends, clientReceives string
		request, response                                        int
	}{
		{"plain", "bytes", "plain", "bytes", 100, 100},
		{"pieces", "plain", "pieces", "plain", 100, 100},
		{"pieces", "bytes", "pieces", "bytes", 100, 100},
		{"sendmsg", "recvmsg", "sendmsg", "recvmsg", 300_000, 300_000},
		{"writev", "readv", "writev", "readv", 300_000, 300_000},
		{"more", "peek", "more", "peek", 5000, 50_000},
		{"apart", "plain", "sendfile", "plain", 5000, large},
		{"nonblocking", "nonblocking", "nonblocking", "nonblocking", large, large},
		{"chunks", "plain", "chunks", "plain", 100_000, 100_000},
		{"chunks", "bytes", "chunks", "bytes", 1000, 1000},
		{"chunksv", "recvmsg", "chunksv", "readv", 100_000, 100_000},
		{"sendmmsg", "recvmmsg", "sendmmsg", "recvmmsg", 300_000, 300_000},
		{"pwritev2", "preadv2", "pwritev2", "preadv2", 300_000, 300_000},
		{"lines", "segments", "lines", "segments", 20_000, 20_000},
		{"plain", "truncated", "zerocopy", "truncated", 300_000, 300_000},
		{"zerocopy", "waitall", "plain", "waitall", 300_000, 300_000},
		{"spliced", "bodyspliced", "spliced", "bodyspliced", 300_000, 300_000},
		{"vmspliced", "plain", "vmspliced", "plain", 300_000, 300_000},
	} {
		name := strings.Join([]string{test.clientSends, test.serverReceives, test.serverSends, test.clientReceives}, "-")
		t.Run(name, func(t *testing.T) {
			o := observe(t)
			switch test.serverReceives {
			case "bodyspliced":
				o.need("need_moved")
			case "recvmmsg":
				o.need("need_packets")
			}
			server, port := servePython(t, "raw.py", "serve", test.serverReceives, test.serverSends)
			client := startPython(t, "raw.py", "fetch", test.clientSends, test.clientReceives, "127.0.0.1",
				strconv.Itoa(port), "POST", "/calls", strconv.Itoa(test.request), strconv.Itoa(test.response))
			told, served := client.record(t), server.record(t)
			chunked := strings.HasPrefix(test.clientSends, "chunks")
			requested, accepted := o.ends(port, "/calls")
			check(t, requested, told, chunked, chunked)
			check(t, accepted, served, chunked, chunked)
			assert.Equal(t, "POST", text(requested, attrMethod))
			assert.Empty(t, o.losses())
		})
	}
}

func TestPipelining(t *testing.T) {
	const count = 5
	for name, serve := range map[string]func(t *testing.T) (*program, int){
		"Go":                   func(t *testing.T) (*program, int) { return serveGo(t) },
		"Python, byte by byte": func(t *testing.T) (*program, int) { return servePython(t, "raw.py", "serve", "bytes", "plain") },
	} {
		t.Run(name, func(t *testing.T) {
			o := observe(t)
			server, port := serve(t)
			client := startPython(t, "raw.py", "pipeline", "127.0.0.1", strconv.Itoa(port), strconv.Itoa(count), "/pipeline")
			told := client.records(t, count)
			for path, served := range server.records(t, count) {
				requested, accepted := o.ends(port, path)
				// The client may read all responses at once, and the last head may be beyond what is copied.
				check(t, requested, told[path], false, true)
				check(t, accepted, served, false, false)
			}
			assert.Empty(t, o.losses())
		})
	}
}

// Of a connection that moves several requests in a call, as much is copied at once as can be. Where that is not enough, what
// was not seen is counted, and nothing is paired wrongly.
func TestPipeliningOfMany(t *testing.T) {
	o := observe(t)
	for _, test := range []struct {
		name  string
		count int
		seen  bool
	}{{"within what can be copied", 20, true}, {"beyond it", 200, false}} {
		t.Run(test.name, func(t *testing.T) {
			server, port := serveGo(t)
			client := startPython(t, "raw.py", "pipeline", "127.0.0.1", strconv.Itoa(port), strconv.Itoa(test.count), "/many")
			told := client.records(t, test.count)
			served := server.records(t, test.count)
			if test.seen {
				for path := range served {
					requested, accepted := o.ends(port, path)
					check(t, requested, told[path], false, false)
					check(t, accepted, served[path], false, false)
				}
				assert.Empty(t, o.losses())
				return
			}
			time.Sleep(5 * o.config.Ring.PollInterval)
			assert.NotZero(t, o.losses()["hidden_message"])
			for _, kind := range []ptrace.SpanKind{ptrace.SpanKindServer, ptrace.SpanKindClient} {
				for _, span := range o.find(kind, port, "/many/") {
					number, err := strconv.Atoi(strings.TrimPrefix(spanPath(span), "/many/"))
					require.NoError(t, err)
					if size, known := span.Attributes().Get(attrResponseBodySize); known {
						assert.EqualValues(t, number, size.Int())
					}
				}
			}
		})
	}
}

// A server that answers before it has read the whole request reads the rest of it together with the next one.
func TestEarlyAnswers(t *testing.T) {
	const count = 5
	for name, writes := range map[string]string{"the next request on its own": "2", "with the rest of the one before": "1"} {
		t.Run(name, func(t *testing.T) {
			o := observe(t)
			server, port := servePython(t, "raw.py", "hasty")
			client := startPython(t, "raw.py", "early", strconv.Itoa(port), writes, "/early", strconv.Itoa(count))
			told := client.records(t, count)
			for path, served := range server.records(t, count) {
				requested, accepted := o.ends(port, path)
				served.Received = 1000
				check(t, requested, told[path], true, false)
				check(t, accepted, served, true, false)
			}
			assert.Empty(t, o.losses())
		})
	}
}

// A head that is longer than what is copied of it still tells its first line. What its end would have told is missing.
func TestLongHead(t *testing.T) {
	o := observe(t)
	server, port := serveGo(t)
	path := "/long?size=3000"
	told := curl(t, "-H", "X-Long: "+strings.Repeat("x", 3000), "--data-binary", "12345", at(port, path))
	served := server.record(t)
	client, accepted := o.ends(port, "/long")
	check(t, client, told, true, false)
	check(t, accepted, served, true, false)
}

func TestNodeToNode(t *testing.T) {
	_, err := exec.LookPath("node")
	require.NoError(t, err, "apt install nodejs")
	o := observe(t)
	script := filepath.Join("testdata", "programs", "library.js")
	server := start(t, nil, "node", script, "serve")
	port := server.record(t).Port
	command := []string{"node", script, "fetch"}
	for i, query := range []string{"?size=0", "?size=10&chunked=1", "?size=100000&chunked=1", "?size=100000"} {
		command = append(command, at(port, fmt.Sprintf("/node/%d%s", i, query)))
	}
	client := start(t, nil, command...)
	told := client.records(t, len(command)-3)
	for path, served := range server.records(t, len(command)-3) {
		requested, accepted := o.ends(port, path)
		check(t, requested, told[path], true, true)
		check(t, accepted, served, true, true)
	}
	assert.Empty(t, o.losses())
}

// What an application propagates is taken over, and its decision that a trace is not sampled is kept.
func TestTraceParent(t *testing.T) {
	o := observe(t)
	_, port := serveGo(t)
	const trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	curl(t, "-H", "traceparent: 00-"+trace+"-"+parent+"-00", at(port, "/unsampled"))
	curl(t, "-H", "Traceparent: 00-"+trace+"-"+parent+"-01", "-H", "tracestate: a=b", at(port, "/sampled"))
	for _, kind := range []ptrace.SpanKind{ptrace.SpanKindClient, ptrace.SpanKindServer} {
		span := o.wait(1, kind, port, "/sampled")[0]
		assert.Equal(t, trace, span.TraceID().String())
		assert.Equal(t, parent, span.ParentSpanID().String())
		assert.Equal(t, "a=b", span.TraceState().AsRaw())
		assert.Empty(t, o.find(kind, port, "/unsampled"))
	}
}

func TestAborts(t *testing.T) {
	o := observe(t)
	server, port := serveGo(t)

	t.Run("the client leaves before the response", func(t *testing.T) {
		client := startPython(t, "raw.py", "leave", strconv.Itoa(port), "/left?ms=200&size=3")
		client.finish(t)
		server.record(t)
		span := o.wait(1, ptrace.SpanKindClient, port, "/left")[0]
		assert.EqualValues(t, -1, number(span, attrStatusCode), "there was none")
		assert.Equal(t, errorConnectionClosed, text(span, attrErrorType))
		assert.Equal(t, ptrace.StatusCodeError, span.Status().Code())
		assert.GreaterOrEqual(t, duration(span), 50*time.Millisecond)
		assert.Len(t, o.wait(1, ptrace.SpanKindServer, port, "/left"), 1)
	})
	t.Run("the server is killed while it responds", func(t *testing.T) {
		client := start(t, []string{programVariable + "=fetch"}, executable(t))
		require.NoError(t, json.NewEncoder(client.input).Encode(plan{AtOnce: 1, Requests: []planned{
			{Method: "GET", URL: at(port, "/killed?size=1000000&stop=100000")},
		}}))
		sent := server.record(t)
		assert.Equal(t, "/killed", sent.Path)
		time.Sleep(50 * time.Millisecond)
		server.kill()
		for _, kind := range []ptrace.SpanKind{ptrace.SpanKindClient, ptrace.SpanKindServer} {
			span := o.wait(1, kind, port, "/killed")[0]
			assert.EqualValues(t, 200, number(span, attrStatusCode), kind)
			assert.NotEmpty(t, text(span, attrErrorType), kind)
			assert.Equal(t, ptrace.StatusCodeError, span.Status().Code(), kind)
			assert.GreaterOrEqual(t, duration(span), 50*time.Millisecond, kind)
		}
	})
}

// A response that is written in one call ends when the last of it was taken, not when the call began.
func TestSlowReader(t *testing.T) {
	o := observe(t)
	_, port := serveGo(t)
	const size = 20 * megabyte
	told := curl(t, "--limit-rate", "40M", at(port, fmt.Sprintf("/slow?size=%d&once=1", size)))
	require.EqualValues(t, size, told.Received)
	require.Greater(t, told.Ns, int64(200*time.Millisecond))
	client, server := o.ends(port, "/slow")
	o.checkDuration(client, told)
	assert.Greater(t, duration(server), 100*time.Millisecond, "the buffers hold a part of it")
}

// The end of a stream takes a sequence number too. A call that reads it with the last bytes must not count it as one.
func TestEndReadWithMessage(t *testing.T) {
	o := observe(t)
	server, port := servePython(t, "raw.py", "serve", "late", "plain")
	paths := []string{"/first", "/second", "/last"}
	client := startPython(t, append([]string{"raw.py", "finish", strconv.Itoa(port)}, paths...)...)
	told, served := client.records(t, len(paths)), server.records(t, len(paths))
	for _, path := range paths {
		requested, accepted := o.ends(port, path)
		check(t, requested, told[path], false, false)
		check(t, accepted, served[path], false, false)
	}
	client.finish(t)
	assert.Empty(t, o.losses())
}

// A response that a process has without reading it is not told of; that there was none would be a lie.
func TestSplicedResponse(t *testing.T) {
	for reason, need := range map[string]bool{"message_gap": false, "unreadable_head": true} {
		t.Run(reason, func(t *testing.T) {
			o := observe(t)
			if need {
				o.need("need_moved")
			}
			server, port := servePython(t, "raw.py", "serve", "plain", "plain")
			client := startPython(t, "raw.py", "fetch", "plain", "spliced", "127.0.0.1", strconv.Itoa(port),
				"GET", "/spliced", "0", "500")
			told := client.record(t)
			client.finish(t)
			require.EqualValues(t, 500, told.Received)
			span := o.wait(1, ptrace.SpanKindServer, port, "/spliced")[0]
			check(t, span, server.record(t), false, false)
			require.Eventually(t, func() bool { return len(o.losses()) > 0 }, patience, 5*time.Millisecond)
			assert.Equal(t, map[string]uint64{reason: 1}, o.losses())
			assert.Empty(t, o.find(ptrace.SpanKindClient, port, "/spliced"))
		})
	}
}

// need has the kernel side say that it needs a further program, as it does when a program first receives in a way that has
// need of it. What it receives until the program is attached is not seen.
func (o *observation) need(variable string) {
	o.t.Helper()
	require.NoError(o.t, o.collection.Variables[variable].Set(true))
	require.NoError(o.t, o.reader.Wake())
	o.needs(variable)
}

// needs waits until the kernel side has said so, and the program is attached.
func (o *observation) needs(variable string) {
	o.t.Helper()
	require.Eventually(o.t, func() bool {
		var needed bool
		require.NoError(o.t, o.collection.Variables[variable].Get(&needed))
		return needed
	}, patience, time.Millisecond, variable)
	time.Sleep(10 * o.config.Ring.PollInterval)
}

// A proxy that moves bodies from socket to socket without reading them.
func TestSplicingRelay(t *testing.T) {
	o := observe(t)
	server, port := serveGo(t)
	relay, relayPort := servePython(t, "raw.py", "relay", strconv.Itoa(port))
	fetchGo(t, plan{AtOnce: 1, Requests: []planned{{Method: "PUT", URL: at(relayPort, "/first?size=1000"), Size: 1000}}})
	relay.record(t)
	server.record(t)
	time.Sleep(5 * o.config.Ring.PollInterval) // that it splices is seen now

	p := plan{AtOnce: 1, KeepAlive: true}
	sizes := []int{0, 10, 100_000, 3 * megabyte, 1, 50_000}
	for i, size := range sizes {
		p.Requests = append(p.Requests, planned{
			Method: "PUT", URL: at(relayPort, fmt.Sprintf("/relay/%d?size=%d&ms=20", i, sizes[len(sizes)-1-i])), Size: size,
		})
	}
	told := fetchGo(t, p)
	served, relayed := server.records(t, len(sizes)), relay.records(t, len(sizes))
	for path := range told {
		requested, accepted := o.ends(relayPort, path)
		forwarded, answered := o.ends(port, path)
		check(t, requested, told[path], false, false)
		check(t, accepted, relayed[path], false, false)
		check(t, forwarded, told[path], false, false)
		check(t, answered, served[path], false, false)
		o.checkDuration(requested, told[path])
		o.checkHandler(answered, served[path])
		o.checkHandler(accepted, relayed[path])
		assert.GreaterOrEqual(t, duration(forwarded), 20*time.Millisecond)
	}
	assert.Empty(t, o.losses())
}

// The head of a response in a file that is sent without being read is not seen.
func TestHeadInFile(t *testing.T) {
	o := observe(t)
	server, port := servePython(t, "raw.py", "serve", "plain", "file")
	client := startPython(t, "raw.py", "fetch", "plain", "plain", "127.0.0.1", strconv.Itoa(port), "GET", "/file", "0", "5")
	told := client.record(t)
	span := o.wait(1, ptrace.SpanKindClient, port, "/file")[0]
	check(t, span, told, false, false)
	server.record(t)
	require.Eventually(t, func() bool { return len(o.losses()) > 0 }, patience, 5*time.Millisecond)
	assert.Equal(t, map[string]uint64{"unreadable_head": 1}, o.losses())
	assert.Empty(t, o.find(ptrace.SpanKindServer, port, "/file"))
}

// A message in memory that is not there yet cannot be read before it is sent.
func TestUnreadableHead(t *testing.T) {
	o := observe(t)
	server, port := servePython(t, "raw.py", "serve", "plain", "mapped")
	client := startPython(t, "raw.py", "fetch", "plain", "plain", "127.0.0.1", strconv.Itoa(port), "GET", "/mapped", "0", "5")
	told := client.record(t)
	span := o.wait(1, ptrace.SpanKindClient, port, "/mapped")[0]
	check(t, span, told, false, false)
	server.record(t)
	require.Eventually(t, func() bool { return len(o.losses()) > 0 }, patience, 5*time.Millisecond)
	assert.Equal(t, map[string]uint64{"unreadable_head": 1}, o.losses())
	assert.Empty(t, o.find(ptrace.SpanKindServer, port, "/mapped"))
}

// The probe comes and goes while requests are under way, and its programs one after the other.
func TestTrafficFromBeforeToAfter(t *testing.T) {
	kerneltest.RequireRoot(t)
	server, port := serveGo(t)
	p := plan{AtOnce: 8, KeepAlive: true}
	for i := range 15_000 { // seconds, which the probe takes a part of
		p.Requests = append(p.Requests, planned{Method: "GET", URL: at(port, fmt.Sprintf("/always/%d?size=10&ms=1", i))})
	}
	client := start(t, []string{programVariable + "=fetch"}, executable(t))
	require.NoError(t, json.NewEncoder(client.input).Encode(p))
	for range 1000 {
		client.record(t)
		server.record(t)
	}
	o := observe(t)
	o.wait(100, ptrace.SpanKindClient, port, "/always/")
	o.wait(100, ptrace.SpanKindServer, port, "/always/")
	require.NoError(t, o.Shutdown(context.Background()))
	select {
	case <-client.ended:
		require.Fail(t, "the client ended before the probe")
	default:
	}
	assert.Empty(t, o.losses())
	for _, kind := range []ptrace.SpanKind{ptrace.SpanKindClient, ptrace.SpanKindServer} {
		for _, span := range o.find(kind, port, "/always/") {
			require.EqualValues(t, 200, number(span, attrStatusCode))
			require.Empty(t, text(span, attrErrorType))
		}
	}
}

// followed is of how many sockets of a program the kernel side has state.
func (o *observation) followed(p *program) (count int) {
	o.t.Helper()
	process, err := unix.PidfdOpen(p.Process.Pid, 0)
	require.NoError(o.t, err)
	defer unix.Close(process)
	directory := fmt.Sprintf("/proc/%d/fd", p.Process.Pid)
	entries, err := os.ReadDir(directory)
	require.NoError(o.t, err)
	for _, entry := range entries {
		target, err := os.Readlink(filepath.Join(directory, entry.Name()))
		if err != nil || !strings.HasPrefix(target, "socket:") {
			continue
		}
		number, err := strconv.Atoi(entry.Name())
		require.NoError(o.t, err)
		descriptor, err := unix.PidfdGetfd(process, number, 0)
		require.NoError(o.t, err)
		value, err := o.collection.Maps["sockets"].LookupBytes(int32(descriptor)) // nil where there is none
		require.NoError(o.t, err)
		if value != nil {
			count++
		}
		require.NoError(o.t, unix.Close(descriptor))
	}
	return count
}

// What is no HTTP gives nothing, however it begins.
func TestOtherProtocols(t *testing.T) {
	o := observe(t)
	server, port := servePython(t, "raw.py", "echo")
	client := startPython(t, "raw.py", "talk", strconv.Itoa(port),
		"hello", "G", "GETS", "PING\r\n", "POSTGRES", strings.Repeat("HTTPS/1.1 ", 1000), "P", "O", "S", "T", "A", "L")
	client.record(t)
	assert.Zero(t, o.followed(server))
	assert.Zero(t, o.followed(client))
	client.finish(t)

	_, port = servePython(t, "raw.py", "serve", "plain", "plain")
	client = startPython(t, "raw.py", "stand", strconv.Itoa(port))
	client.tell(t, "/http")
	client.record(t)
	assert.Equal(t, 1, o.followed(client), "of HTTP there is state")
}

// HTTP may follow on something else, as after the greeting of a proxy. When that was long, not each call is looked at.
func TestHTTPAfterOther(t *testing.T) {
	const request = "GET /after HTTP/1.1\r\n\r\n"
	for name, test := range map[string]struct{ before, requests int }{
		"a few words":         {before: 10, requests: 1},
		"a long conversation": {before: 200, requests: 34},
	} {
		t.Run(name, func(t *testing.T) {
			o := observe(t)
			server, port := servePython(t, "raw.py", "echo")
			said := slices.Concat(slices.Repeat([]string{"hello"}, test.before), slices.Repeat([]string{request}, test.requests))
			client := startPython(t, append([]string{"raw.py", "talk", strconv.Itoa(port)}, said...)...)
			client.record(t)
			assert.Equal(t, 1, o.followed(client))
			assert.Equal(t, 1, o.followed(server))
			client.finish(t)
		})
	}
}

func TestConnectionFromBefore(t *testing.T) {
	kerneltest.RequireRoot(t)
	_, port := serveGo(t)
	client := startPython(t, "raw.py", "stand", strconv.Itoa(port))
	client.tell(t, "/before?size=5")
	client.record(t)
	o := observe(t)
	client.tell(t, "/after?size=5")
	client.record(t)
	requested, accepted := o.ends(port, "/after")
	assert.EqualValues(t, 5, number(requested, attrResponseBodySize))
	assert.EqualValues(t, 5, number(accepted, attrResponseBodySize))
	assert.Empty(t, o.losses())
}

func TestIPv6(t *testing.T) {
	o := observe(t)
	server, port := serveGo(t, "tcp6", "[::1]:0")
	told := curl(t, fmt.Sprintf("http://[::1]:%d/six?size=6", port))
	client, accepted := o.ends(port, "/six")
	check(t, client, told, false, false)
	check(t, accepted, server.record(t), false, false)
	assert.Equal(t, "::1", text(accepted, attrPeerAddress))
	assert.Equal(t, "::1", text(client, attrServerAddress))
}

func TestIPv4ToIPv6Listener(t *testing.T) {
	o := observe(t)
	server, port := serveGo(t, "tcp", "[::]:0")
	told := curl(t, at(port, "/mapped?size=6"))
	client, accepted := o.ends(port, "/mapped")
	check(t, client, told, false, false)
	check(t, accepted, server.record(t), false, false)
	assert.Equal(t, "127.0.0.1", text(accepted, attrPeerAddress))
}

func TestNetworkNamespace(t *testing.T) {
	o := observe(t)
	server := start(t, []string{programVariable + "=serve"}, "unshare", "--net", "sh", "-c",
		`ip link set lo up && exec "$0" tcp 127.0.0.1:0`, executable(t))
	port := server.record(t).Port
	path, err := exec.LookPath("curl")
	require.NoError(t, err)
	output, err := exec.Command("nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", server.Process.Pid),
		path, "-s", at(port, "/namespace?size=7")).Output()
	require.NoError(t, err)
	require.Len(t, output, 7)
	client, accepted := o.ends(port, "/namespace")
	assert.EqualValues(t, 7, number(client, attrResponseBodySize))
	check(t, accepted, server.record(t), false, false)
}

// Metrics are of the same exchanges as spans.
func TestMetricsOfTraffic(t *testing.T) {
	o := observe(t)
	_, port := serveGo(t)
	const count = 20
	p := plan{AtOnce: 2, KeepAlive: true}
	for i := range count {
		p.Requests = append(p.Requests, planned{Method: "GET", URL: at(port, fmt.Sprintf("/metrics/%d?size=10", i))})
	}
	fetchGo(t, p)
	o.wait(count, ptrace.SpanKindClient, port, "/metrics/")
	o.wait(count, ptrace.SpanKindServer, port, "/metrics/")
	require.NoError(t, o.Shutdown(context.Background()))
	counts, bytes := map[string]uint64{}, map[string]float64{}
	for _, metrics := range o.metrics {
		for _, resource := range metrics.ResourceMetrics().All() {
			for _, scope := range resource.ScopeMetrics().All() {
				for _, metric := range scope.Metrics().All() {
					require.Equal(t, pmetric.MetricTypeHistogram, metric.Type(), metric.Name())
					for _, point := range metric.Histogram().DataPoints().All() {
						counts[metric.Name()] += point.Count()
						bytes[metric.Name()] += point.Sum()
					}
				}
			}
		}
	}
	for _, name := range []string{MetricServerRequestDuration, MetricClientRequestDuration} {
		assert.EqualValues(t, count, counts[name], name)
	}
	for _, name := range []string{MetricServerResponseBodySize, MetricClientResponseBodySize} {
		assert.EqualValues(t, count*10, bytes[name], name)
	}
}
