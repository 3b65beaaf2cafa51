//go:build linux && (amd64 || arm64)

package ebpfreceiver

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/receivertest"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/zap"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel/kerneltest"
	"github.com/ebpfreceiver/ebpfreceiver/internal/tcp"
	"github.com/ebpfreceiver/ebpfreceiver/receiver/ebpfreceiver/internal/metadata"
)

const (
	patience    = 30 * time.Second // a busy machine under the race detector
	connections = 20
	request     = "a request of 32 bytes, no more.\n"
	response    = "a response of some other length\nand two lines\n"
)

// TestHelperTraffic is no test: run in a child process, it makes connections to itself, because a receiver does not
// observe its own process. It prints the port of its server.
func TestHelperTraffic(t *testing.T) {
	if os.Getenv("EBPFRECEIVER_HELPER") != "traffic" {
		return
	}
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer connection.Close()
				if _, err := io.ReadFull(connection, make([]byte, len(request))); err == nil {
					_, _ = io.WriteString(connection, response)
				}
			}()
		}
	}()
	for range connections {
		connection, err := net.Dial("tcp4", listener.Addr().String())
		require.NoError(t, err)
		_, err = io.WriteString(connection, request)
		require.NoError(t, err)
		answer, err := io.ReadAll(connection)
		require.NoError(t, err)
		require.Equal(t, response, string(answer))
		require.NoError(t, connection.Close())
	}
	fmt.Printf("port %d\n", listener.Addr().(*net.TCPAddr).Port)
}

// TestHelperHTTP is no test: run in a child process, it sends requests to itself, as "instrumented" after an export of
// traces. It prints the port of its server.
func TestHelperHTTP(t *testing.T) {
	kind := os.Getenv("EBPFRECEIVER_HELPER")
	if kind != "http" && kind != "instrumented" {
		return
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, response)
	}))
	defer server.Close()
	if kind == "instrumented" {
		answer, err := http.Post(server.URL+"/v1/traces", "application/x-protobuf", strings.NewReader("spans"))
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, answer.Body)
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
	}
	for i := range connections {
		answer, err := http.Get(server.URL + "/orders/" + strconv.Itoa(1000+i))
		require.NoError(t, err)
		body, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		require.Equal(t, response, string(body))
	}
	fmt.Printf("port %d\n", server.Listener.Addr().(*net.TCPAddr).Port)
}

// helper is a command that runs one of the TestHelper functions in a child process.
func helper(t *testing.T, name, test string, wrapper ...string) *exec.Cmd {
	t.Helper()
	executable, err := os.Executable()
	require.NoError(t, err)
	arguments := append(slices.Clone(wrapper), executable, "-test.run=^"+test+"$", "-test.v")
	command := exec.CommandContext(t.Context(), arguments[0], arguments[1:]...)
	command.Env = append(os.Environ(), "EBPFRECEIVER_HELPER="+name)
	return command
}

// makeTraffic returns the port of a server that has served connections.
func makeTraffic(t *testing.T) int {
	t.Helper()
	return portOf(t, helper(t, "traffic", "TestHelperTraffic"))
}

func portOf(t *testing.T, command *exec.Cmd) int {
	t.Helper()
	output, err := command.CombinedOutput()
	require.NoError(t, err, "%s", output)
	lines := bufio.NewScanner(strings.NewReader(string(output)))
	for lines.Scan() {
		if text, found := strings.CutPrefix(lines.Text(), "port "); found {
			port, err := strconv.Atoi(text)
			require.NoError(t, err)
			return port
		}
	}
	t.Fatalf("no port in: %s", output)
	return 0
}

// liveConfig observes the helpers only, whatever else happens on this host.
func liveConfig(t *testing.T) *Config {
	t.Helper()
	executable, err := os.Executable()
	require.NoError(t, err)
	config := quickConfig()
	config.TCP.FlowLogs = true
	config.Select.Include = []SelectRule{{Executable: filepath.Base(executable)}}
	return config
}

// live is a running receiver of all signals with what it has sent.
type live struct {
	traces    consumertest.TracesSink
	metrics   consumertest.MetricsSink
	logs      consumertest.LogsSink
	host      recordingHost
	telemetry *componenttest.Telemetry
	created   [3]receiver.Logs
}

func startLive(t *testing.T, factory receiver.Factory, config *Config) *live {
	t.Helper()
	l := &live{telemetry: componenttest.NewTelemetry()}
	t.Cleanup(func() { assert.NoError(t, l.telemetry.Shutdown(context.Background())) })
	settings := receivertest.NewNopSettings(metadata.Type)
	settings.TelemetrySettings = l.telemetry.NewTelemetrySettings()
	settings.Logger = zap.NewNop()
	var err error
	l.created[0], err = factory.CreateMetrics(t.Context(), settings, config, &l.metrics)
	require.NoError(t, err)
	l.created[1], err = factory.CreateLogs(t.Context(), settings, config, &l.logs)
	require.NoError(t, err)
	l.created[2], err = factory.CreateTraces(t.Context(), settings, config, &l.traces)
	require.NoError(t, err)

	// What runs in the background must not end with the context of Start.
	ctx, cancel := context.WithCancel(t.Context())
	for _, pipeline := range l.created {
		require.NoError(t, pipeline.Start(ctx, &l.host))
	}
	cancel()
	t.Cleanup(func() { l.shutdown(t) })
	for _, status := range l.host.statuses() {
		require.Equal(t, componentstatus.StatusOK, status)
	}
	return l
}

func (l *live) shutdown(t *testing.T) {
	t.Helper()
	for _, pipeline := range l.created {
		assert.NoError(t, pipeline.Shutdown(context.Background()))
	}
}

// ends returns the flow records of connections to a server's port that have ended, for one role.
func (l *live) ends(role string, port int) []plog.LogRecord {
	var found []plog.LogRecord
	for _, logs := range l.logs.AllLogs() {
		for _, resource := range logs.ResourceLogs().All() {
			for _, scope := range resource.ScopeLogs().All() {
				for _, record := range scope.LogRecords().All() {
					attributes := record.Attributes()
					if text(attributes, "network.flow.role") == role && text(attributes, "network.flow.report") == "end" &&
						text(attributes, "server.port") == strconv.Itoa(port) {
						found = append(found, record)
					}
				}
			}
		}
	}
	return found
}

func text(attributes pcommon.Map, key string) string {
	value, found := attributes.Get(key)
	if !found {
		return ""
	}
	return value.AsString()
}

// Two receivers in one process see the same connections, each for itself.
func TestTwoReceiversSideBySide(t *testing.T) {
	kerneltest.RequireRoot(t)
	config := func(temporality string) *Config {
		config := liveConfig(t)
		config.Metrics.Temporality = temporality
		config.Kernel.ProgramStats = true
		return config
	}
	sharedFactory := NewFactory()
	receivers := []*live{
		startLive(t, sharedFactory, config(temporalityCumulative)),
		startLive(t, sharedFactory, config(temporalityDelta)),
		startLive(t, NewFactory(), config(temporalityCumulative)),
	}
	port := makeTraffic(t)
	for i, l := range receivers {
		for _, role := range []string{"client", "server"} {
			require.Eventually(t, func() bool { return len(l.ends(role, port)) == connections }, patience, 20*time.Millisecond,
				"receiver %d, %s: %d ends of connections, want %d", i, role, len(l.ends(role, port)), connections)
			sent, received := len(request), len(response)
			if role == "server" {
				sent, received = received, sent
			}
			for _, record := range l.ends(role, port) {
				assert.Equal(t, strconv.Itoa(sent), text(record.Attributes(), "tcp.sent.bytes"))
				assert.Equal(t, strconv.Itoa(received), text(record.Attributes(), "tcp.received.bytes"))
			}
		}
		require.Eventually(t, func() bool { return l.metrics.DataPointCount() > 0 }, patience, 20*time.Millisecond)
		runs, err := l.telemetry.GetMetric("otelcol_receiver_ebpf_program_runs")
		require.NoError(t, err)
		assert.NotEmpty(t, runs.Data.(metricdata.Sum[int64]).DataPoints)
		capability, err := l.telemetry.GetMetric("otelcol_receiver_ebpf_capability")
		require.NoError(t, err)
		assert.NotEmpty(t, capability.Data.(metricdata.Gauge[int64]).DataPoints)
	}

	// One stops, the others go on.
	receivers[0].shutdown(t)
	port = makeTraffic(t)
	require.Eventually(t, func() bool { return len(receivers[1].ends("client", port)) == connections },
		patience, 20*time.Millisecond)
	assert.Empty(t, receivers[0].ends("client", port))
}

// A consumer that blocks holds up neither the other pipeline nor, beyond its deadline, the shutdown.
func TestHTTPBecomesSpansAndMetrics(t *testing.T) {
	kerneltest.RequireRoot(t)
	config := liveConfig(t)
	config.HTTP.Enabled = true
	config.HTTP.Routes.Patterns = []string{"/orders/{order}"}
	l := startLive(t, NewFactory(), config)
	port := portOf(t, helper(t, "http", "TestHelperHTTP"))
	require.Eventually(t, func() bool { return l.traces.SpanCount() >= 2*connections }, patience, 10*time.Millisecond)
	l.shutdown(t)

	clients := map[string]pcommon.SpanID{} // by trace
	servers := map[string]pcommon.SpanID{} // parents by trace
	for _, traces := range l.traces.AllTraces() {
		for _, resource := range traces.ResourceSpans().All() {
			for _, scope := range resource.ScopeSpans().All() {
				for _, span := range scope.Spans().All() {
					assert.Equal(t, strconv.Itoa(port), text(span.Attributes(), "server.port"))
					assert.Equal(t, "200", text(span.Attributes(), "http.response.status_code"))
					if span.Kind() == ptrace.SpanKindServer {
						assert.Equal(t, "GET /orders/{order}", span.Name())
						servers[span.TraceID().String()] = span.ParentSpanID()
					} else {
						clients[span.TraceID().String()] = span.SpanID()
					}
				}
			}
		}
	}
	assert.Len(t, clients, connections)
	assert.Equal(t, clients, servers, "each server's span has its client's as parent")

	counted := map[string]uint64{}
	for _, metrics := range l.metrics.AllMetrics() { // they are cumulative: the last is the largest
		for _, resource := range metrics.ResourceMetrics().All() {
			for _, scope := range resource.ScopeMetrics().All() {
				for _, metric := range scope.Metrics().All() {
					if strings.HasPrefix(metric.Name(), "http.") {
						var count uint64
						for _, point := range metric.Histogram().DataPoints().All() {
							count += point.Count()
						}
						counted[metric.Name()] = max(counted[metric.Name()], count)
					}
				}
			}
		}
	}
	assert.EqualValues(t, connections, counted["http.server.request.duration"])
	assert.EqualValues(t, connections, counted["http.client.request.duration"])
	assert.EqualValues(t, connections, counted["http.server.response.body.size"])
}

func TestProcessesThatSendTheirOwnTracesAreLeftOut(t *testing.T) {
	kerneltest.RequireRoot(t)
	config := liveConfig(t)
	config.HTTP.Enabled = true
	l := startLive(t, NewFactory(), config)
	left := portOf(t, helper(t, "instrumented", "TestHelperHTTP"))
	portOf(t, helper(t, "http", "TestHelperHTTP"))
	require.Eventually(t, func() bool { return l.traces.SpanCount() >= 2*connections }, patience, 10*time.Millisecond)
	l.shutdown(t)
	for _, traces := range l.traces.AllTraces() {
		for _, resource := range traces.ResourceSpans().All() {
			for _, scope := range resource.ScopeSpans().All() {
				for _, span := range scope.Spans().All() {
					if text(span.Attributes(), "server.port") == strconv.Itoa(left) {
						// Its own server, which answers before the client is known by its export.
						assert.Equal(t, "/v1/traces", text(span.Attributes(), "url.path"))
					}
				}
			}
		}
	}
}

func TestConsumerThatBlocks(t *testing.T) {
	kerneltest.RequireRoot(t)
	factory := NewFactory()
	config := liveConfig(t)
	settings := receivertest.NewNopSettings(metadata.Type)
	next, blocked := blockingConsumer(t)
	var sink consumertest.MetricsSink
	logs, err := factory.CreateLogs(t.Context(), settings, config, next)
	require.NoError(t, err)
	metrics, err := factory.CreateMetrics(t.Context(), settings, config, &sink)
	require.NoError(t, err)
	require.NoError(t, logs.Start(t.Context(), componenttest.NewNopHost()))
	require.NoError(t, metrics.Start(t.Context(), componenttest.NewNopHost()))

	makeTraffic(t)
	select {
	case <-blocked:
	case <-time.After(patience):
		t.Fatal("no flow record came")
	}
	sink.Reset() // wait for metrics that were made after logs were blocked
	require.Eventually(t, func() bool { return sink.DataPointCount() > 0 }, patience, 20*time.Millisecond,
		"metrics flow while logs are blocked")

	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	started := time.Now()
	require.NoError(t, logs.Shutdown(ctx))
	require.NoError(t, metrics.Shutdown(ctx))
	assert.Less(t, time.Since(started), shutdownPatience)
}

// TestHelperUnprivileged runs in a child process without capabilities: the receiver starts, and says what is missing.
func TestHelperUnprivileged(t *testing.T) {
	if os.Getenv("EBPFRECEIVER_HELPER") != "unprivileged" {
		return
	}
	factory := NewFactory()
	r, err := factory.CreateMetrics(t.Context(), receivertest.NewNopSettings(metadata.Type), quickConfig(), consumertest.NewNop())
	require.NoError(t, err)
	host := &recordingHost{}
	require.NoError(t, r.Start(t.Context(), host))
	require.Equal(t, []componentstatus.Status{componentstatus.StatusRecoverableError}, host.statuses())
	fmt.Println("status:", host.events[0].Err())
	require.NoError(t, r.Shutdown(t.Context()))
}

func TestStartWithoutPrivileges(t *testing.T) {
	var wrapper []string
	if os.Getuid() == 0 {
		wrapper = []string{"setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--no-new-privs"}
	}
	output, err := helper(t, "unprivileged", "TestHelperUnprivileged", wrapper...).CombinedOutput()
	require.NoError(t, err, "%s", output)
	t.Logf("%s", output)
	for _, expected := range []string{
		"CAP_BPF (creating BPF maps and loading BPF programs)",
		"CAP_PERFMON (attaching BPF programs to tracepoints and reading kernel memory)",
		"CAP_SYS_PTRACE (reading the executable, command line and environment of other processes)",
		"run it as root",
		"setcap cap_bpf,cap_perfmon,cap_sys_ptrace",
	} {
		assert.Contains(t, string(output), expected)
	}
}

// telemetry.md describes what is really sent: every metric with its unit and type, and every attribute.
func TestTelemetryIsDocumented(t *testing.T) {
	kerneltest.RequireRoot(t)
	content, err := os.ReadFile("telemetry.md")
	require.NoError(t, err)
	documentation := string(content)

	config := liveConfig(t)
	l := startLive(t, NewFactory(), config)
	port := makeTraffic(t)
	require.Eventually(t, func() bool { return len(l.ends("server", port)) == connections }, patience, 20*time.Millisecond)
	l.metrics.Reset()
	require.Eventually(t, func() bool { return l.metrics.DataPointCount() > 0 }, patience, 20*time.Millisecond)

	documented := func(attributes pcommon.Map, where string) {
		for key := range attributes.All() {
			assert.Contains(t, documentation, "| `"+key+"` |", "attribute of %s", where)
		}
	}
	seen := 0
	for _, metrics := range l.metrics.AllMetrics() {
		for _, resource := range metrics.ResourceMetrics().All() {
			documented(resource.Resource().Attributes(), "a resource")
			for _, scope := range resource.ScopeMetrics().All() {
				assert.Equal(t, metadata.ScopeName, scope.Scope().Name())
				for _, metric := range scope.Metrics().All() {
					seen++
					assert.Contains(t, documentation,
						fmt.Sprintf("| `%s` | %s | `%s` | ", metric.Name(), strings.ToLower(metric.Type().String()), metric.Unit()))
				}
			}
		}
	}
	assert.Positive(t, seen)
	for _, logs := range l.logs.AllLogs() {
		for _, resource := range logs.ResourceLogs().All() {
			for _, scope := range resource.ScopeLogs().All() {
				for _, record := range scope.LogRecords().All() {
					assert.Equal(t, tcp.EventFlow, record.EventName())
					documented(record.Attributes(), "a flow record")
				}
			}
		}
	}
}
