//go:build linux

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// options are what the command line says.
type options struct {
	rounds      int
	window      time.Duration
	warmUp      time.Duration
	connections int
	requests    int
	profile     string
	json        string
	against     []variant // receivers of other builds of this program
}

// scenario is one question and the way to its answer.
type scenario struct {
	name, question string
	run            func(options, *report) error
}

func scenarios() []scenario {
	return []scenario{
		{"storm", "short connections, as many as the host makes: throughput, completeness, processor time", runStorm},
		{"latency", "time from the end of a connection to the consumer", runLatency},
		{"bulk", "one connection at full speed: throughput", runBulk},
		{"http", "keep-alive requests to a Go server and to nginx, by wrk: throughput, latency, completeness, processor time", runHTTP},
		{"https", "the same over TLS", runHTTPS},
		{"grpc", "unary calls of grpc-go to grpc-go: throughput, completeness, processor time", runGRPC},
		{"mixed", "requests of all sorts between Go, nginx, Python, node and curl, some pipelined: each span is what the programs say", runMixed},
		{"echo", "sockets that are not HTTP, with the HTTP probe alone: throughput", runEcho},
		{"profiles", "programs in C, Go, Python and JavaScript under the CPU probe: slow-down, processor time, complete stacks", runProfiles},
		{"idle", "many open idle connections: memory, and what a snapshot takes", runIdle},
		{"ring", "events that the ring's reader keeps up with", runRing},
	}
}

// roles are what child processes do.
func roles() map[string]func() operations {
	return map[string]func() operations{
		receiverName:    receiverRole,
		stormServerName: stormServerRole,
		stormClientName: stormClientRole,
		bulkServerName:  bulkServerRole,
		bulkClientName:  bulkClientRole,
		httpServerName:  httpServerRole,
		nginxName:       nginxRole,
		wrkName:         wrkRole,
		grpcServerName:  grpcServerRole,
		grpcClientName:  grpcClientRole,
		mixedServerName: mixedServerRole,
		mixedClientName: mixedClientRole,
		echoServerName:  echoServerRole,
		echoClientName:  echoClientRole,
		burnerName:      burnerRole,
		idleServerName:  idleServerRole,
		idleClientName:  idleClientRole,
	}
}

const (
	receiverName    = "receiver"
	stormServerName = "storm server"
	stormClientName = "storm client"
	bulkServerName  = "bulk server"
	bulkClientName  = "bulk client"
	httpServerName  = "http server"
	nginxName       = "nginx"
	wrkName         = "wrk"
	grpcServerName  = "grpc server"
	grpcClientName  = "grpc client"
	mixedServerName = "mixed server"
	mixedClientName = "mixed client"
	echoServerName  = "echo server"
	echoClientName  = "echo client"
	burnerName      = "burner"
	idleServerName  = "idle server"
	idleClientName  = "idle client"
)

func main() {
	if role := roles()[os.Getenv(roleVariable)]; role != nil {
		signal.Ignore(unix.SIGINT) // the parent stops us, in its order
		if err := serve(role()); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	if err := run(os.Args[1:], os.Stdout); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
		os.Exit(1)
	}
}

func run(arguments []string, output io.Writer) error {
	chosen, opts, err := parse(arguments)
	if err != nil {
		return err
	}
	if err := checkHost(); err != nil {
		return err
	}
	r := newReport(output)
	for _, s := range chosen {
		r.begin(s.name, s.question)
		if err := s.run(opts, r); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	r.summary()
	if opts.json != "" {
		return r.writeJSON(opts.json)
	}
	return nil
}

// parse reads scenarios and flags in any order; no scenario means all.
func parse(arguments []string) ([]scenario, options, error) {
	var opts options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&opts.rounds, "rounds", 7, "how often each comparison is repeated")
	flags.DurationVar(&opts.window, "window", 2*time.Second, "how long one measurement takes")
	flags.DurationVar(&opts.warmUp, "warmup", 500*time.Millisecond, "how long traffic runs before a measurement")
	flags.IntVar(&opts.connections, "connections", 50_000, "how many idle connections are opened")
	flags.IntVar(&opts.requests, "requests", 100_000, "how many mixed requests are made")
	flags.StringVar(&opts.profile, "cpuprofile", "", "write processor profiles of the receiver to `FILE`.metrics and so on")
	flags.StringVar(&opts.json, "json", "", "write the results to `FILE` as well")
	flags.Func("against", "storm, bulk: compare with the receiver of another build of this program, as `NAME=FILE` (may be repeated)",
		func(value string) error {
			name, file, found := strings.Cut(value, "=")
			if !found {
				return errors.New("must be NAME=FILE")
			}
			if _, err := os.Stat(file); err != nil {
				return err
			}
			opts.against = append(opts.against, variant{name, &receiverOrder{Binary: file}})
			return nil
		})
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "Usage: go run ./bench [SCENARIO...] [FLAG...]   (as root; all scenarios if none is named)")
		for _, s := range scenarios() {
			fmt.Fprintf(flags.Output(), "  %-8s %s\n", s.name, s.question)
		}
		flags.PrintDefaults()
	}

	var names []string
	for len(arguments) > 0 {
		if !strings.HasPrefix(arguments[0], "-") {
			names, arguments = append(names, arguments[0]), arguments[1:]
			continue
		}
		if err := flags.Parse(arguments); err != nil {
			return nil, opts, err
		}
		arguments = flags.Args()
	}
	if opts.rounds < 1 || opts.window <= 0 || opts.connections < 1 || opts.requests < 1 {
		return nil, opts, errors.New("-rounds, -window, -connections and -requests must be positive")
	}
	if len(names) == 0 {
		return scenarios(), opts, nil
	}
	var chosen []scenario
	for _, name := range names {
		i := slices.IndexFunc(scenarios(), func(s scenario) bool { return s.name == name })
		if i < 0 {
			return nil, opts, fmt.Errorf("there is no scenario %q: see -help", name)
		}
		chosen = append(chosen, scenarios()[i])
	}
	return chosen, opts, nil
}

// checkHost refuses where figures would not mean anything.
func checkHost() error {
	if os.Geteuid() != 0 {
		return errors.New("root is needed: the receiver loads BPF programs, and traffic runs in a network namespace of its own")
	}
	const file = "/proc/sys/kernel/bpf_stats_enabled"
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if strings.TrimSpace(string(content)) != "0" {
		return errors.New("run-time statistics of BPF programs are on and would be measured too: sysctl kernel.bpf_stats_enabled=0")
	}
	return nil
}
