//go:build linux

package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/require"
)

// quick makes every connection visible within some hundred milliseconds.
const quick = `
    tcp: {flow_logs: true, snapshot_interval: 200ms}
    metrics: {interval: 200ms}`

// quickHTTP also makes spans.
const quickHTTP = quick + `
    http: {enabled: true}`

// collector is a running Collector that writes what its receivers make into files.
type collector struct {
	*process
	*exports
	directory string
	health    string // URLs
	telemetry string
}

// setup says how a Collector is started.
type setup struct {
	receivers map[string]string // configuration by id; without any, one ebpf receiver with quick
	wrapper   []string          // a command that starts the Collector
	user      int               // who owns the files, 0 is root
}

// startCollector starts a Collector and waits until it is healthy.
func startCollector(t *testing.T, how setup) *collector {
	t.Helper()
	built := prepare(t)
	if how.receivers == nil {
		how.receivers = map[string]string{"ebpf": quick}
	}
	directory, err := os.MkdirTemp("", "ebpfreceiver-e2e-")
	require.NoError(t, err)
	t.Cleanup(func() {
		if !t.Failed() {
			os.RemoveAll(directory)
		}
	})
	require.NoError(t, os.Chmod(directory, 0o755))
	require.NoError(t, os.Chown(directory, how.user, how.user))

	c := &collector{
		directory: directory,
		exports:   newExports(directory),
		health:    fmt.Sprintf("http://127.0.0.1:%d/", freePort(t)),
		telemetry: fmt.Sprintf("http://127.0.0.1:%d/metrics", freePort(t)),
	}
	config := filepath.Join(directory, "config.yaml")
	require.NoError(t, os.WriteFile(config, []byte(c.config(how.receivers)), 0o644))
	c.process = start(t, "collector", slices.Concat(how.wrapper, []string{built.collector, "--feature-gates=service.profilesSupport", "--config", config}))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the Collector's files are in %s; what it lost, and programs that the kernel did not run:\n%s%s",
				directory, c.losses(), c.misses())
		}
	})
	require.Eventually(t, func() bool {
		response, err := http.Get(c.health)
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK
	}, patience, tick, "the Collector is not healthy:\n%s", c.stderr())
	return c
}

func (c *collector) config(receivers map[string]string) string {
	var config, pipelines strings.Builder
	config.WriteString("receivers:\n")
	for id, settings := range receivers {
		fmt.Fprintf(&config, "  %s:%s\n", id, settings)
	}
	config.WriteString("exporters:\n")
	for id, settings := range receivers {
		signals := []string{"metrics", "logs"}
		if strings.Contains(settings, "http:") {
			signals = append(signals, "traces")
		}
		if strings.Contains(settings, "profiles:") {
			signals = append(signals, "profiles")
		}
		for _, signal := range signals {
			exporter := "file/" + signal + "_" + fileName(id)
			fmt.Fprintf(&config, "  %s: {path: %q, flush_interval: 50ms}\n", exporter, c.path(signal, id))
			fmt.Fprintf(&pipelines, "    %s/%s: {receivers: [%s], exporters: [%s]}\n", signal, fileName(id), id, exporter)
		}
	}
	fmt.Fprintf(&config, `
extensions:
  health_check: {endpoint: %q}
service:
  extensions: [health_check]
  telemetry:
    metrics:
      readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: %s}}}}]
  pipelines:
%s`, hostPort(c.health), portOf(c.telemetry), pipelines.String())
	return config.String()
}

// shutdown ends the Collector as a service manager does, and waits for its last words.
func (c *collector) shutdown(t *testing.T) {
	t.Helper()
	time.Sleep(100 * time.Millisecond) // the Collector is healthy before it listens to signals
	c.stop(t, syscall.SIGTERM)
}

// ownMetrics reads the Collector's internal telemetry: the value of each line of the Prometheus text format.
func (c *collector) ownMetrics(t *testing.T) string {
	t.Helper()
	response, err := http.Get(c.telemetry)
	require.NoError(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return string(text)
}

// lost reads how many events a probe has counted as lost for a reason.
func (c *collector) lost(t *testing.T, probe, reason string) int {
	t.Helper()
	labels := fmt.Sprintf("{probe=%q,reason=%q,", probe, reason)
	for line := range strings.Lines(c.losses()) {
		if strings.Contains(line, labels) {
			count, err := strconv.ParseFloat(strings.Fields(line)[1], 64)
			require.NoError(t, err)
			return int(count)
		}
	}
	t.Fatalf("the %s probe has no loss reason %q", probe, reason)
	return 0
}

// losses are the lines of the internal telemetry that tell of lost events.
func (c *collector) losses() string {
	response, err := http.Get(c.telemetry)
	if err != nil {
		return err.Error() + "\n"
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err.Error() + "\n"
	}
	return matchingLines(string(text), "otelcol_receiver_ebpf_events")
}

// misses tells at how many events each program was not run, because it was running already on the same CPU.
func (c *collector) misses() string {
	var misses strings.Builder
	for _, id := range holds(c.pid()).programs {
		program, err := ebpf.NewProgramFromID(id)
		if err != nil {
			continue
		}
		if stats, err := program.Stats(); err == nil && stats.RecursionMisses > 0 {
			fmt.Fprintf(&misses, "%v: %d\n", program, stats.RecursionMisses)
		}
		program.Close()
	}
	return misses.String()
}

func matchingLines(text, prefix string) string {
	var matching strings.Builder
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, prefix) {
			matching.WriteString(line)
		}
	}
	return matching.String()
}

// validate checks a configuration with the Collector's own command and returns what it says.
func validate(t *testing.T, receiver string) (string, error) {
	t.Helper()
	built := prepare(t)
	config := filepath.Join(t.TempDir(), "config.yaml")
	require.NoError(t, os.WriteFile(config, []byte("receivers:\n  ebpf:"+receiver+`
exporters: {debug: {}}
service: {pipelines: {metrics: {receivers: [ebpf], exporters: [debug]}}}
`), 0o644))
	text, err := exec.Command(built.collector, "validate", "--config", config).CombinedOutput()
	return string(text), err
}

// freePort finds a port that nobody listens on, outside of the range of ephemeral ports.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := 20000 + int(time.Now().UnixNano()/1000%12000)
		listener, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err == nil {
			listener.Close()
			return port
		}
	}
	require.Fail(t, "no free port")
	return 0
}

func hostPort(url string) string {
	return strings.Split(strings.TrimPrefix(url, "http://"), "/")[0]
}

func portOf(url string) string {
	_, port, _ := net.SplitHostPort(hostPort(url))
	return port
}

func fileName(id string) string { return strings.ReplaceAll(id, "/", "_") }
