//go:build linux

package kernel_test

import (
	"errors"
	"testing"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel/kerneltest"
)

// On every kernel each answer is yes, or a no that the kernel's age or build explains: RequireFeature sees to it.
func TestFeatures(t *testing.T) {
	kerneltest.RequireRoot(t)
	of := func(have func(string) error, name string) func() error { return func() error { return have(name) } }
	for name, have := range map[string]func() error{
		"BTF":                         kernel.HaveBTF,
		"ring buffer":                 kernel.HaveRingBuffer,
		"perf event array":            kernel.HavePerfEventArray,
		"tp_btf/inet_sock_set_state":  of(kernel.HaveTracingTracepoint, "inet_sock_set_state"),
		"tp_btf/sched_process_exit":   of(kernel.HaveTracingTracepoint, "sched_process_exit"),
		"raw_tp/sched_process_exit":   of(kernel.HaveRawTracepoint, "sched_process_exit"),
		"socket storage":              kernel.HaveSocketStorage,
		"iter/bpf_sk_storage_map":     of(kernel.HaveIterator, "bpf_sk_storage_map"),
		"iter/task_file":              of(kernel.HaveIterator, "task_file"),
		"atomic compare-and-exchange": kernel.HaveAtomics64,
		"bpf_loop":                    kernel.HaveLoopHelper,
		"clock samples":               kernel.HaveClockSamples,
		"uprobes":                     kernel.HaveUprobes,
		"run-time statistics":         kernel.HaveRunTimeStats,
		"fentry/tcp_connect":          of(kernel.HaveFentry, "tcp_connect"),
		"kprobe/tcp_connect":          of(kernel.HaveKprobe, "tcp_connect"),
	} {
		t.Run(name, func(t *testing.T) { kerneltest.RequireFeature(t, have()) })
	}
}

func TestTracefs(t *testing.T) {
	kerneltest.MountTracefs(t)
	if err := kernel.HaveTracefs(); err != nil {
		t.Error(err)
	}
}

func TestWhatNoKernelHas(t *testing.T) {
	kerneltest.RequireRoot(t)
	for name, err := range map[string]error{
		"tp_btf": kernel.HaveTracingTracepoint("no_such_tracepoint"),
		"raw_tp": kernel.HaveRawTracepoint("no_such_tracepoint"),
		"iter":   kernel.HaveIterator("no_such_iterator"),
		"fentry": kernel.HaveFentry("no_such_function"),
		"kprobe": kernel.HaveKprobe("no_such_function"),
	} {
		var unsupported *kernel.UnsupportedError
		if !errors.Is(err, kernel.ErrNotSupported) || !errors.As(err, &unsupported) {
			t.Errorf("%s: %v, want a plain no", name, err)
		}
	}
}
