//go:build linux && (amd64 || arm64)

package ebpfreceiver

import (
	"math"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/confmaptest"

	"github.com/ebpfreceiver/ebpfreceiver/receiver/ebpfreceiver/internal/metadata"
)

func TestLoadConfig(t *testing.T) {
	conf, err := confmaptest.LoadConf(filepath.Join("testdata", "config.yaml"))
	require.NoError(t, err)

	for name, expected := range map[string]func(*Config){
		"": func(*Config) {},
		"everything": func(c *Config) {
			c.Select = SelectConfig{
				Include: []SelectRule{
					{Executable: "/usr/bin/python3*"},
					{Port: "8080-8090"},
					{Port: "443", ContainerID: "0123456789ab"},
					{Cgroup: "/kubepods/**"},
				},
				Exclude: []SelectRule{{PID: 1}, {Executable: "sshd"}},
			}
			c.TCP = TCPConfig{Enabled: false, SnapshotInterval: time.Minute, FlowLogs: true}
			c.HTTP = HTTPConfig{
				Enabled:     true,
				TLS:         TLSConfig{},
				Routes:      RouteConfig{Patterns: []string{"/users/{id}"}, Unmatched: "drop", GoMux: true},
				GenAI:       true,
				Propagators: []string{"b3"},
				Sampling: SamplingConfig{Ratio: 0.25, Routes: []SamplingRoute{
					{Route: "GET /healthz"}, {Route: "grpc.health.v1.Health/Check", Ratio: 0.01},
				}},
				HeadBytes: 1024, MaxConnections: 1024,
			}
			c.Metrics = MetricsConfig{Interval: 30 * time.Second, Temporality: "delta", MaxSeries: 2000}
			c.Kernel = KernelConfig{
				BTF: "/boot/vmlinux.btf", ProgramStats: true, RingBytes: 1 << 20, PollInterval: 10 * time.Millisecond,
			}
			c.Process = ProcessConfig{ProcFS: "/host/proc", CgroupFS: "/host/cgroup", MaxProcesses: 1024}
		},
	} {
		t.Run(name, func(t *testing.T) {
			section, err := conf.Sub(component.NewIDWithName(metadata.Type, name).String())
			require.NoError(t, err)
			config := createDefaultConfig()
			require.NoError(t, section.Unmarshal(&config))
			require.NoError(t, confmap.Validate(config))

			want := createDefaultConfig().(*Config)
			expected(want)
			assert.Equal(t, want, config)
		})
	}
}

func TestUnmarshalRefusesUnknownKeys(t *testing.T) {
	for name, input := range map[string]map[string]any{
		"top":  {"flow_logs": true},
		"tcp":  {"tcp": map[string]any{"flowlogs": true}},
		"rule": {"select": map[string]any{"include": []any{map[string]any{"exe": "nginx"}}}},
	} {
		t.Run(name, func(t *testing.T) {
			config := createDefaultConfig()
			require.ErrorContains(t, confmap.NewFromStringMap(input).Unmarshal(&config), "invalid keys")
		})
	}
}

// A list in the configuration replaces the default one: an empty list believes no header.
func TestPropagatorsReplaceTheDefault(t *testing.T) {
	for _, names := range [][]any{{}, {"b3"}} {
		config := createDefaultConfig()
		input := map[string]any{"http": map[string]any{"propagators": names}}
		require.NoError(t, confmap.NewFromStringMap(input).Unmarshal(&config))
		require.NoError(t, confmap.Validate(config))
		assert.Len(t, config.(*Config).HTTP.Propagators, len(names))
	}
}

// One run names every mistake: a user must not have to correct them one by one.
func TestValidateReportsEveryErrorWithItsPath(t *testing.T) {
	config := &Config{
		Select: SelectConfig{
			Include: []SelectRule{{Executable: "nginx"}, {Port: "80-", Executable: "bin/["}},
			Exclude: []SelectRule{{}},
		},
		TCP: TCPConfig{SnapshotInterval: 5 * time.Millisecond},
		HTTP: HTTPConfig{
			Routes:      RouteConfig{Patterns: []string{"users"}, Unmatched: "guess"},
			Propagators: []string{"b3", "jaeger"},
			Sampling: SamplingConfig{Ratio: math.NaN(), Routes: []SamplingRoute{
				{Route: "/healthz"}, {Route: "healthz", Ratio: 2},
			}},
		},
		Metrics: MetricsConfig{Interval: 2 * time.Hour, Temporality: "sometimes", MaxSeries: 0},
		Kernel:  KernelConfig{RingBytes: 1, PollInterval: time.Minute},
		Process: ProcessConfig{ProcFS: "proc", CgroupFS: "", MaxProcesses: -1},
	}
	err := confmap.Validate(config)
	require.Error(t, err)
	for _, message := range []string{
		`select.include[1].port: "80-"`,
		`select.include[1].executable: "bin/["`,
		"select.exclude[0]: the rule is empty; set at least one of executable, port, pid, cgroup, container_id",
		"tcp.snapshot_interval: must be between 100ms and 1h, got 5ms",
		`http.routes.patterns[0]: route "users": does not begin with a slash`,
		`http.routes.unmatched: must be "heuristic" or "path" or "drop", got "guess"`,
		`http.propagators[1]: must be "tracecontext", "grpc_trace_bin" or "b3", got "jaeger"`,
		"http.sampling.ratio: must be between 0 and 1, got NaN",
		`http.sampling.routes[1].route: "healthz" is neither a path`,
		"http.sampling.routes[1].ratio: must be between 0 and 1, got 2",
		"http.head_bytes: must be between 64 and 4096, got 0",
		"http.max_connections: must be between 64 and 4194304, got 0",
		"metrics.interval: must be between 100ms and 1h, got 2h",
		`metrics.temporality: must be "cumulative" or "delta", got "sometimes"`,
		"metrics.max_series: must be between 1 and 10000000, got 0",
		"kernel.ring_bytes: must be between 65536 and 268435456, got 1",
		"kernel.poll_interval: must be between 1ms and 10s, got 1m",
		`process.procfs: must be an absolute path, got "proc"`,
		`process.cgroupfs: must be an absolute path, got ""`,
		"process.max_processes: must be between 64 and 4194304, got -1",
	} {
		assert.ErrorContains(t, err, message)
	}
	assert.NotContains(t, err.Error(), "include[0]", "a good rule is not mentioned")
	assert.NotContains(t, err.Error(), "sampling.routes[0]")
}
