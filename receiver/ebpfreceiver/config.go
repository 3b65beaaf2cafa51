package ebpfreceiver

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"strconv"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
)

// Config is the configuration of the receiver. The zero value of every key is not its default: see createDefaultConfig,
// and config.schema.yaml for what each key means.
type Config struct {
	Select   SelectConfig   `mapstructure:"select"`
	TCP      TCPConfig      `mapstructure:"tcp"`
	HTTP     HTTPConfig     `mapstructure:"http"`
	CPU      CPUConfig      `mapstructure:"cpu"`
	OffCPU   OffCPUConfig   `mapstructure:"off_cpu"`
	Metrics  MetricsConfig  `mapstructure:"metrics"`
	Profiles ProfilesConfig `mapstructure:"profiles"`
	Kernel   KernelConfig   `mapstructure:"kernel"`
	Process  ProcessConfig  `mapstructure:"process"`
}

// SelectConfig says which processes are observed.
type SelectConfig struct {
	Include []SelectRule `mapstructure:"include"`
	Exclude []SelectRule `mapstructure:"exclude"`
}

// SelectRule describes processes. A process must have every property that the rule names.
type SelectRule struct {
	Executable  string `mapstructure:"executable"`
	Port        string `mapstructure:"port"`
	PID         uint32 `mapstructure:"pid"`
	Cgroup      string `mapstructure:"cgroup"`
	ContainerID string `mapstructure:"container_id"`
}

// TCPConfig configures the TCP probe.
type TCPConfig struct {
	Enabled          bool          `mapstructure:"enabled"`
	SnapshotInterval time.Duration `mapstructure:"snapshot_interval"`
	FlowLogs         bool          `mapstructure:"flow_logs"`
}

// HTTPConfig configures the HTTP probe.
type HTTPConfig struct {
	Enabled             bool           `mapstructure:"enabled"`
	TLS                 TLSConfig      `mapstructure:"tls"`
	Routes              RouteConfig    `mapstructure:"routes"`
	GenAI               bool           `mapstructure:"gen_ai"`
	ExcludeInstrumented bool           `mapstructure:"exclude_instrumented"`
	Propagators         []string       `mapstructure:"propagators"`
	Sampling            SamplingConfig `mapstructure:"sampling"`
	HeadBytes           int            `mapstructure:"head_bytes"`
	MaxConnections      int            `mapstructure:"max_connections"`
	TraceContextMap     string         `mapstructure:"trace_context_map"`
}

// RouteConfig says how the path of a request becomes a route.
type RouteConfig struct {
	Patterns  []string `mapstructure:"patterns"`
	Unmatched string   `mapstructure:"unmatched"`
	GoMux     bool     `mapstructure:"go_mux"`
}

// TLSConfig says which encrypted connections are observed.
type TLSConfig struct {
	OpenSSL bool `mapstructure:"openssl"`
	Go      bool `mapstructure:"go"`
}

// SamplingConfig says which share of the traces has its spans sent.
type SamplingConfig struct {
	Ratio  float64         `mapstructure:"ratio"`
	Routes []SamplingRoute `mapstructure:"routes"`
}

// SamplingRoute is the share of the traces of some requests.
type SamplingRoute struct {
	Route string  `mapstructure:"route"`
	Ratio float64 `mapstructure:"ratio"`
}

// CPUConfig configures samples of what threads run.
type CPUConfig struct {
	Enabled   bool `mapstructure:"enabled"`
	Frequency int  `mapstructure:"frequency"`
}

// OffCPUConfig configures samples of what threads wait in.
type OffCPUConfig struct {
	Enabled          bool          `mapstructure:"enabled"`
	MinDuration      time.Duration `mapstructure:"min_duration"`
	SamplesPerSecond int           `mapstructure:"samples_per_second"`
}

// ProfilesConfig configures the profiles of all probes.
type ProfilesConfig struct {
	Interval    time.Duration `mapstructure:"interval"`
	Threads     bool          `mapstructure:"threads"`
	CPUs        bool          `mapstructure:"cpus"`
	Lines       bool          `mapstructure:"lines"`
	MaxStacks   int           `mapstructure:"max_stacks"`
	TableBytes  int           `mapstructure:"table_bytes"`
	SymbolBytes int           `mapstructure:"symbol_bytes"`
}

// MetricsConfig configures the metrics of all probes.
type MetricsConfig struct {
	Interval    time.Duration `mapstructure:"interval"`
	Temporality string        `mapstructure:"temporality"`
	MaxSeries   int           `mapstructure:"max_series"`
}

// KernelConfig configures how BPF programs are loaded and how their events are read.
type KernelConfig struct {
	BTF          string        `mapstructure:"btf"`
	ProgramStats bool          `mapstructure:"program_stats"`
	RingBytes    int           `mapstructure:"ring_bytes"`
	PollInterval time.Duration `mapstructure:"poll_interval"`
}

// ProcessConfig configures where the identity of processes is read from.
type ProcessConfig struct {
	ProcFS       string `mapstructure:"procfs"`
	CgroupFS     string `mapstructure:"cgroupfs"`
	MaxProcesses int    `mapstructure:"max_processes"`
}

const (
	temporalityCumulative = "cumulative"
	temporalityDelta      = "delta"
)

const (
	unmatchedHeuristic = "heuristic"
	unmatchedPath      = "path"
	unmatchedDrop      = "drop"
)

var (
	_ component.Config    = (*Config)(nil)
	_ confmap.Validator   = (*Config)(nil)
	_ confmap.Unmarshaler = (*SelectRule)(nil)
)

func createDefaultConfig() component.Config {
	return &Config{
		TCP: TCPConfig{
			Enabled:          true,
			SnapshotInterval: 10 * time.Second,
		},
		HTTP: HTTPConfig{
			TLS:                 TLSConfig{OpenSSL: true, Go: true},
			Routes:              RouteConfig{Unmatched: unmatchedHeuristic},
			ExcludeInstrumented: true,
			Propagators:         []string{"tracecontext", "grpc_trace_bin"},
			Sampling:            SamplingConfig{Ratio: 1},
			HeadBytes:           512,
			MaxConnections:      65_536,
		},
		CPU: CPUConfig{
			Enabled:   true,
			Frequency: 19,
		},
		OffCPU: OffCPUConfig{
			MinDuration:      time.Millisecond,
			SamplesPerSecond: 100,
		},
		Profiles: ProfilesConfig{
			Interval:    10 * time.Second,
			MaxStacks:   16_384,
			TableBytes:  64 << 20,
			SymbolBytes: 64 << 20,
		},
		Metrics: MetricsConfig{
			Interval:    10 * time.Second,
			Temporality: temporalityCumulative,
			MaxSeries:   10_000,
		},
		Kernel: KernelConfig{
			RingBytes:    4 << 20,
			PollInterval: 50 * time.Millisecond,
		},
		Process: ProcessConfig{
			ProcFS:       "/proc",
			CgroupFS:     "/sys/fs/cgroup",
			MaxProcesses: 16_384,
		},
	}
}

// Unmarshal takes a port that is written as a number, which is how YAML reads `port: 8080`, as the text that it is.
func (r *SelectRule) Unmarshal(conf *confmap.Conf) error {
	if port, isNumber := conf.Get("port").(int); isNumber {
		if err := conf.Merge(confmap.NewFromStringMap(map[string]any{"port": strconv.Itoa(port)})); err != nil {
			return fmt.Errorf("reading port %d: %w", port, err)
		}
	}
	return conf.Unmarshal(r)
}

// Validate checks every key and returns all errors at once, each with the path of its key.
func (c *Config) Validate() error {
	return errors.Join(
		c.Select.validate("select"),
		inRange("tcp.snapshot_interval", c.TCP.SnapshotInterval, 100*time.Millisecond, time.Hour),
		validateRoutes("http.routes", c.HTTP.Routes.Patterns),
		oneOf("http.routes.unmatched", c.HTTP.Routes.Unmatched, unmatchedHeuristic, unmatchedPath, unmatchedDrop),
		validatePropagators("http", c.HTTP.Propagators),
		inRange("http.sampling.ratio", c.HTTP.Sampling.Ratio, 0, 1),
		validateSampledRoutes("http.sampling", c.HTTP.Sampling.Routes),
		inRange("http.head_bytes", c.HTTP.HeadBytes, 64, 4096),
		inRange("http.max_connections", c.HTTP.MaxConnections, 64, 4<<20),
		absoluteIfSet("http.trace_context_map", c.HTTP.TraceContextMap),
		inRange("cpu.frequency", c.CPU.Frequency, 1, 999),
		inRange("off_cpu.min_duration", c.OffCPU.MinDuration, 0, time.Hour),
		inRange("off_cpu.samples_per_second", c.OffCPU.SamplesPerSecond, 1, 10_000),
		inRange("profiles.interval", c.Profiles.Interval, 100*time.Millisecond, time.Hour),
		inRange("profiles.max_stacks", c.Profiles.MaxStacks, 256, 1<<20),
		inRange("profiles.table_bytes", c.Profiles.TableBytes, 1<<20, 1<<30),
		inRange("profiles.symbol_bytes", c.Profiles.SymbolBytes, 1<<20, 1<<30),
		inRange("metrics.interval", c.Metrics.Interval, 100*time.Millisecond, time.Hour),
		oneOf("metrics.temporality", c.Metrics.Temporality, temporalityCumulative, temporalityDelta),
		inRange("metrics.max_series", c.Metrics.MaxSeries, 1, 10_000_000),
		inRange("kernel.ring_bytes", c.Kernel.RingBytes, 64<<10, 256<<20),
		inRange("kernel.poll_interval", c.Kernel.PollInterval, time.Millisecond, 10*time.Second),
		absolute("process.procfs", c.Process.ProcFS),
		absolute("process.cgroupfs", c.Process.CgroupFS),
		inRange("process.max_processes", c.Process.MaxProcesses, 64, 4<<20),
	)
}

func inRange[T cmp.Ordered](key string, value, lowest, highest T) error {
	if !(value >= lowest && value <= highest) { // nor not a number
		return fmt.Errorf("%s: must be between %v and %v, got %v", key, shortest(lowest), shortest(highest), shortest(value))
	}
	return nil
}

// shortest prints a duration as a user would write it: 1h, not 1h0m0s.
func shortest(value any) any {
	if duration, ok := value.(time.Duration); ok && duration > 0 {
		switch {
		case duration%time.Hour == 0:
			return fmt.Sprintf("%dh", duration/time.Hour)
		case duration%time.Minute == 0:
			return fmt.Sprintf("%dm", duration/time.Minute)
		}
	}
	return value
}

func oneOf(key, value string, allowed ...string) error {
	quoted := ""
	for i, candidate := range allowed {
		if value == candidate {
			return nil
		}
		if i > 0 {
			quoted += " or "
		}
		quoted += strconv.Quote(candidate)
	}
	return fmt.Errorf("%s: must be %s, got %q", key, quoted, value)
}

// absoluteIfSet takes the empty path, too.
func absoluteIfSet(key, file string) error {
	if file == "" {
		return nil
	}
	return absolute(key, file)
}

func absolute(key, directory string) error {
	if !path.IsAbs(directory) {
		return fmt.Errorf("%s: must be an absolute path, got %q", key, directory)
	}
	return nil
}
