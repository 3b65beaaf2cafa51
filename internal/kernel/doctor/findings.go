//go:build linux

package doctor

import (
	"runtime"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
)

// The tracepoints that the probes hang on, each with a floor of its own.
const (
	socketStateTracepoint = "inet_sock_set_state"
	switchTracepoint      = "sched_switch"
	resumedTracepoint     = "sched_exit_tp"
	probedFunction        = "tcp_connect" // for the hooks that are only noted
)

// tcpEventTracepoints are the optional hooks of the TCP probe.
func tcpEventTracepoints() []string {
	return []string{"tcp_receive_reset", "tcp_send_reset", "tcp_retransmit_synack", "tcp_rcv_space_adjust"}
}

// httpTracepoints are the hooks of the HTTP probe, which needs them all.
func httpTracepoints() []string {
	return []string{"tcp_sendmsg_locked", "sock_recv_length", "tcp_destroy_sock"}
}

// processTracepoints show processes start and end.
func processTracepoints() []string {
	return []string{"sched_process_fork", "sched_process_exec", "sched_process_exit"}
}

// wantedCapabilities are what the receiver uses, most needed first.
func wantedCapabilities() []kernel.Capability {
	return []kernel.Capability{kernel.CapBPF, kernel.CapPerfmon, kernel.CapSysPtrace, kernel.CapDACReadSearch}
}

// Findings are the kernel's answers that a report is made from; nil is yes.
type Findings struct {
	Release string

	Capabilities    kernel.Capabilities
	CapabilitiesErr error

	BTFPath string // the file to read types from, empty for the kernel's own
	BTF     error

	RingBuffer, PerfBuffer error

	SocketState, SocketStorage, Atomics error
	Snapshots, Seeding                  error
	TCPEvents                           map[string]error // by tracepoint
	HTTPMessages                        map[string]error // by tracepoint

	Architecture string // as Go calls it
	Uprobes      error

	ClockSamples, Switches, Resumptions error

	ProcessTyped, ProcessRaw map[string]error // by tracepoint

	RunTimeStats error

	Cgroup2    string
	Cgroup2Err error

	Lockdown    kernel.Lockdown
	LockdownErr error

	Fentry, Kprobe, LoopHelper, Tracefs error
}

// Examine asks the running kernel everything. btfPath is the file to read types from, empty for the kernel's own.
func Examine(btfPath string) Findings {
	findings := Findings{
		BTFPath:       btfPath,
		RingBuffer:    kernel.HaveRingBuffer(),
		PerfBuffer:    kernel.HavePerfEventArray(),
		SocketState:   kernel.HaveTracingTracepoint(socketStateTracepoint),
		SocketStorage: kernel.HaveSocketStorage(),
		Atomics:       kernel.HaveAtomics64(),
		Snapshots:     kernel.HaveIterator("bpf_sk_storage_map"),
		Seeding:       kernel.HaveIterator("task_file"),
		TCPEvents:     askEach(tcpEventTracepoints(), kernel.HaveTracingTracepoint),
		HTTPMessages:  askEach(httpTracepoints(), kernel.HaveTracingTracepoint),
		Architecture:  runtime.GOARCH,
		Uprobes:       kernel.HaveUprobes(),
		ClockSamples:  kernel.HaveClockSamples(),
		Switches:      kernel.HaveTracingTracepoint(switchTracepoint),
		Resumptions:   kernel.HaveTracingTracepoint(resumedTracepoint),
		ProcessTyped:  askEach(processTracepoints(), kernel.HaveTracingTracepoint),
		ProcessRaw:    askEach(processTracepoints(), kernel.HaveRawTracepoint),
		RunTimeStats:  kernel.HaveRunTimeStats(),
		Fentry:        kernel.HaveFentry(probedFunction),
		Kprobe:        kernel.HaveKprobe(probedFunction),
		LoopHelper:    kernel.HaveLoopHelper(),
		Tracefs:       kernel.HaveTracefs(),
	}
	findings.BTF = kernel.CheckBTF(btfPath)
	findings.Release, _ = kernel.Release() // only shown; uname does not fail
	findings.Capabilities, findings.CapabilitiesErr = kernel.EffectiveCapabilities()
	findings.Cgroup2, findings.Cgroup2Err = kernel.Cgroup2Mount()
	findings.Lockdown, findings.LockdownErr = kernel.ReadLockdown()
	return findings
}

func askEach(tracepoints []string, have func(string) error) map[string]error {
	answers := make(map[string]error, len(tracepoints))
	for _, tracepoint := range tracepoints {
		answers[tracepoint] = have(tracepoint)
	}
	return answers
}
