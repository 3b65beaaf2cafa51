//go:build linux

package doctor

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
)

// goodHost answers yes to everything.
func goodHost() Findings {
	return Findings{
		Release:      "6.12.0-test",
		Capabilities: kernel.CapabilitySet(wantedCapabilities()...),
		TCPEvents:    answers(tcpEventTracepoints(), nil),
		HTTPMessages: answers(httpTracepoints(), nil),
		Architecture: "amd64",
		ProcessTyped: answers(processTracepoints(), nil),
		ProcessRaw:   answers(processTracepoints(), nil),
		Cgroup2:      "/sys/fs/cgroup",
		Lockdown:     kernel.LockdownNone,
	}
}

func answers(tracepoints []string, answer error) map[string]error {
	return askEach(tracepoints, func(string) error { return answer })
}

func no(feature, floor, config string) error {
	return &kernel.UnsupportedError{Feature: feature, Floor: floor, Config: config, Err: unix.EINVAL}
}

func TestReport(t *testing.T) {
	noTypes := no("type information (BTF) of its own", "5.4", "CONFIG_DEBUG_INFO_BTF")
	noRing := no("BPF ring buffer", "5.8", "")
	denied := func(missing ...kernel.Capability) error {
		return &kernel.PermissionError{Doing: "probe", Missing: missing, Err: unix.EPERM}
	}
	type row struct {
		capability string
		state      State
		rung       string // part of it
		whyNot     string // part of it
	}
	for name, test := range map[string]struct {
		change    func(*Findings)
		works     bool
		concludes string
		rows      []row
	}{
		"a good host": {
			change: func(*Findings) {}, works: true, concludes: "TCP metrics and flow logs work on this host.",
			rows: []row{
				{"kernel", Note, "Linux 6.12.0-test", ""},
				{"Linux capabilities", Good, "CAP_BPF, CAP_PERFMON", ""},
				{"kernel type information (BTF)", Good, "the kernel's own", ""},
				{"events to user space", Good, "ring buffer", ""},
				{"TCP connection states", Good, "tp_btf/inet_sock_set_state", ""},
				{"TCP snapshots", Good, "iter/bpf_sk_storage_map", ""},
				{"TCP resets, retransmits, readers", Good, "tp_btf/{tcp_rcv_space_adjust,tcp_receive_reset,", ""},
				{"HTTP messages", Good, "tp_btf/{sock_recv_length,tcp_destroy_sock,tcp_sendmsg_locked}", ""},
				{"HTTP messages in TLS", Good, "uprobe_multi", ""},
				{"profiles of what runs", Good, "perf_event/cpu-clock", ""},
				{"profiles of what waits", Good, "tp_btf/{sched_switch,sched_exit_tp}", ""},
				{"processes start and end", Good, "tp_btf/{sched_process_exec,sched_process_exit,sched_process_fork}", ""},
				{"containers by cgroup", Good, "cgroup2 on /sys/fs/cgroup", ""},
				{"kernel lockdown", Note, "none", ""},
				{"fentry", Note, "there", ""},
			},
		},
		"before Linux 6.16": {
			change: func(f *Findings) {
				f.HTTPMessages["tcp_sendmsg_locked"] = no("typed tracepoint tp_btf/tcp_sendmsg_locked", "6.16", "")
			},
			works: true, concludes: "TCP metrics and flow logs work on this host.",
			rows: []row{
				{"HTTP messages", Missing, "", "no HTTP spans and metrics: no typed tracepoint tp_btf/tcp_sendmsg_locked"},
				{"HTTP messages in TLS", Missing, "", "it needs what HTTP messages need"},
			},
		},
		"before Linux 6.15": {
			change: func(f *Findings) { f.Resumptions = no("typed tracepoint tp_btf/sched_exit_tp", "6.15", "") },
			works:  true, concludes: "work on",
			rows: []row{{"profiles of what waits", Reduced, "tp_btf/sched_switch", "before it is known how long a wait will be: no typed"}},
		},
		"before Linux 5.17": {
			change: func(f *Findings) { f.LoopHelper = no("helper bpf_loop", "5.17", "") },
			works:  true, concludes: "work on",
			rows: []row{{"profiles of what runs", Missing, "", "no profiles: no helper bpf_loop"}},
		},
		"without uprobes": {
			change: func(f *Findings) { f.Uprobes = no("uprobe_multi links", "6.6", "CONFIG_UPROBE_EVENTS") },
			works:  true, concludes: "work on",
			rows: []row{
				{"HTTP messages", Good, "tp_btf/", ""},
				{"HTTP messages in TLS", Missing, "", "of what is encrypted: no uprobe_multi links (needs Linux 6.6 with CONFIG_UPROBE_EVENTS)"},
			},
		},
		"another architecture": {
			change: func(f *Findings) { f.Architecture = "arm64" }, works: true, concludes: "work on",
			rows: []row{{"HTTP messages in TLS", Missing, "", "only that of amd64 is read, not of arm64"}},
		},
		"least privileges": {
			change: func(f *Findings) { f.Capabilities = kernel.CapabilitySet(kernel.CapBPF, kernel.CapPerfmon) },
			works:  true, concludes: "work on",
			rows: []row{
				{"HTTP messages", Good, "tp_btf/", ""},
				{"HTTP messages in TLS", Reduced, "uprobe_multi", "lacks CAP_SYS_PTRACE: of other users' processes"},
				{"profiles of what runs", Reduced, "perf_event/cpu-clock", "lacks CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH"},
			},
		},
		"no BTF": {
			change: func(f *Findings) {
				f.BTF = noTypes
				f.SocketState = no("typed tracepoint tp_btf/inet_sock_set_state", "5.5", "CONFIG_DEBUG_INFO_BTF")
				f.SocketStorage = no("socket-local storage", "5.11", "CONFIG_DEBUG_INFO_BTF")
				f.Snapshots = no("iterator iter/bpf_sk_storage_map", "5.9", "CONFIG_DEBUG_INFO_BTF")
				f.ProcessTyped = answers(processTracepoints(), f.SocketState)
			},
			concludes: "do not work on this host: no type information (BTF) of its own (needs Linux 5.4 with CONFIG_DEBUG_INFO_BTF), " +
				"which all of it needs.",
			rows: []row{
				{"kernel type information (BTF)", Missing, "", "needs Linux 5.4"},
				{"TCP connection states", Missing, "", "no TCP metrics or flow logs: no typed tracepoint"},
				{"TCP snapshots", Missing, "", "only when they end"},
				{"processes start and end", Reduced, "/proc", "no tp_btf/sched_process_exec"},
			},
		},
		"BTF from a file": {
			change: func(f *Findings) { f.BTFPath = "/boot/my.btf" }, works: true, concludes: "work on",
			rows: []row{{"kernel type information (BTF)", Good, "file /boot/my.btf", ""}},
		},
		"BTF from a wrong file": {
			change: func(f *Findings) {
				f.BTFPath, f.BTF = "/etc/passwd", errors.New(`read kernel types from the BTF file "/etc/passwd": not BTF`)
			},
			concludes: `type information: read kernel types from the BTF file "/etc/passwd": not BTF.`,
		},
		"no root": {
			change: func(f *Findings) {
				f.Capabilities = kernel.Capabilities{}
				both := denied(kernel.CapBPF, kernel.CapPerfmon)
				f.RingBuffer, f.PerfBuffer = denied(kernel.CapBPF), both
				f.SocketState, f.SocketStorage, f.Atomics, f.Snapshots, f.Seeding = both, both, both, both, both
				f.TCPEvents = answers(tcpEventTracepoints(), both)
				f.HTTPMessages = answers(httpTracepoints(), both)
				f.Uprobes = both
				f.ProcessTyped = answers(processTracepoints(), both)
				f.ProcessRaw = answers(processTracepoints(), both)
				f.RunTimeStats = denied(kernel.CapSysAdmin)
				f.Fentry = both
			},
			concludes: "this process lacks CAP_BPF, CAP_PERFMON: run it as root",
			rows: []row{
				{"Linux capabilities", Missing, "", "CAP_BPF (creating BPF maps and loading BPF programs)"},
				{"events to user space", Missing, "", "lacks CAP_BPF; no perf buffer either: lacks CAP_BPF, CAP_PERFMON"},
				{"TCP resets, retransmits, readers", Missing, "", "lacks CAP_BPF, CAP_PERFMON"},
				{"processes start and end", Reduced, "/proc", "lacks CAP_BPF"},
				{"run time of BPF programs", Missing, "", "lacks CAP_SYS_ADMIN"},
				{"fentry", Note, "unknown", "lacks CAP_BPF"},
			},
		},
		"root of a rootless container": {
			change: func(f *Findings) {
				f.Capabilities = kernel.Capabilities{}
				f.SocketState = &kernel.PermissionError{
					Missing: []kernel.Capability{kernel.CapBPF}, Causes: []string{"a user namespace"}, Err: unix.EPERM,
				}
			},
			concludes: "this process lacks CAP_BPF: a user namespace.",
		},
		"refused for another reason": {
			change: func(f *Findings) {
				f.SocketState = &kernel.PermissionError{Causes: []string{"lockdown", "seccomp"}, Err: unix.EPERM}
			},
			concludes: "refused, although no capability is missing; possible causes: lockdown; seccomp.",
			rows: []row{
				{"TCP connection states", Missing, "", "refused, although no capability is missing"},
			},
		},
		"only what BPF needs": {
			change: func(f *Findings) {
				f.Capabilities = kernel.CapabilitySet(kernel.CapBPF, kernel.CapPerfmon)
				f.RunTimeStats = denied(kernel.CapSysAdmin)
			},
			works: true, concludes: "work on",
			rows: []row{
				{"Linux capabilities", Reduced, "CAP_BPF, CAP_PERFMON", "lacks CAP_SYS_PTRACE (reading the executable"},
				{"run time of BPF programs", Missing, "", "kernel.bpf_stats_enabled"},
			},
		},
		"no ring buffer": {
			change: func(f *Findings) { f.RingBuffer = noRing }, works: true, concludes: "work on",
			rows: []row{{"events to user space", Reduced, "perf buffer", "no ring buffer: no BPF ring buffer (needs Linux 5.8)"}},
		},
		"no way to send events": {
			change: func(f *Findings) {
				f.RingBuffer, f.PerfBuffer = noRing, no("perf event array", "4.4", "CONFIG_PERF_EVENTS")
			},
			concludes: "events to user space: no BPF ring buffer (needs Linux 5.8).",
			rows:      []row{{"events to user space", Missing, "", "no perf buffer either"}},
		},
		"Linux 5.10": {
			change: func(f *Findings) {
				f.SocketStorage = no("socket-local storage in tracing programs", "5.11", "CONFIG_DEBUG_INFO_BTF")
				f.Atomics = no("atomic compare-and-exchange in BPF", "5.12", "")
			},
			concludes: "state per connection: no socket-local storage in tracing programs (needs Linux 5.11 with " +
				"CONFIG_DEBUG_INFO_BTF); byte deltas: no atomic compare-and-exchange in BPF (needs Linux 5.12).",
		},
		"without one event": {
			change: func(f *Findings) {
				f.TCPEvents["tcp_send_reset"] = no("typed tracepoint tp_btf/tcp_send_reset", "5.5", "CONFIG_DEBUG_INFO_BTF")
			},
			works: true, concludes: "work on",
			rows: []row{{"TCP resets, retransmits, readers", Reduced, "tp_btf/{tcp_rcv_space_adjust,tcp_receive_reset,tcp_retransmit_synack}",
				"no tcp_send_reset: no typed tracepoint"}},
		},
		"raw tracepoints for processes": {
			change: func(f *Findings) {
				f.ProcessTyped["sched_process_exit"] = no("typed tracepoint", "5.5", "CONFIG_DEBUG_INFO_BTF")
			},
			works: true, concludes: "work on",
			rows: []row{{"processes start and end", Good, "raw_tp/{", "no tp_btf/sched_process_exit"}},
		},
		"a hardened kernel": {
			change: func(f *Findings) {
				f.Fentry = &kernel.UnsupportedError{Feature: "fentry/tcp_connect", Floor: "5.5", Refused: true, Err: unix.EPERM}
				f.Lockdown = kernel.LockdownIntegrity
			},
			works: true, concludes: "work on",
			rows: []row{
				{"fentry", Note, "not there", "this hardened kernel refuses fentry/tcp_connect"},
				{"kernel lockdown", Note, "integrity", ""},
			},
		},
		"confidentiality": {
			change: func(f *Findings) { f.Lockdown = kernel.LockdownConfidentiality }, works: true, concludes: "work on",
			rows: []row{{"kernel lockdown", Missing, "confidentiality", "may not read kernel memory"}},
		},
		"unknown lockdown": {
			change: func(f *Findings) { f.LockdownErr = os.ErrNotExist }, works: true, concludes: "work on",
			rows: []row{{"kernel lockdown", Note, "unknown", "securityfs"}},
		},
		"unreadable lockdown": {
			change: func(f *Findings) { f.LockdownErr = errors.New("garbage\nin two lines") }, works: true, concludes: "work on",
			rows: []row{{"kernel lockdown", Note, "unknown", "garbage"}},
		},
		"cgroup v1 alone": {
			change: func(f *Findings) { f.Cgroup2Err = os.ErrNotExist }, works: true, concludes: "work on",
			rows: []row{{"containers by cgroup", Reduced, "/proc/PID/cgroup", "cgroup2 is not mounted"}},
		},
		"no /proc": {
			change: func(f *Findings) { f.CapabilitiesErr = errors.New("is /proc mounted?") }, works: true, concludes: "work on",
			rows: []row{{"Linux capabilities", Missing, "", "is /proc mounted?"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			findings := goodHost()
			test.change(&findings)
			report := NewReport(findings)
			if report.BasicsWork() != test.works || !strings.Contains(report.Conclusion(), test.concludes) {
				t.Errorf("concluded %q, want %q", report.Conclusion(), test.concludes)
			}
			for _, want := range test.rows {
				found := false
				for _, got := range report.Rows {
					if got.Capability != want.capability {
						continue
					}
					found = true
					if got.State != want.state || !strings.Contains(got.Rung, want.rung) || !strings.Contains(got.WhyNot, want.whyNot) ||
						want.rung == "" && got.Rung != "" {
						t.Errorf("got %+v, want %+v", got, want)
					}
				}
				if !found {
					t.Errorf("no row %q", want.capability)
				}
			}
			for _, got := range report.Rows {
				if strings.Contains(got.WhyNot, "\n") {
					t.Errorf("row %q has several lines: %q", got.Capability, got.WhyNot)
				}
			}
		})
	}
}

func TestWriteAligns(t *testing.T) {
	var output strings.Builder
	report := Report{
		Rows:      []Row{{"short", Good, "this", ""}, {"rather long", Missing, "", "because"}},
		Obstacles: []string{"one", "two"},
	}
	if err := report.Write(&output); err != nil {
		t.Fatal(err)
	}
	const want = `CAPABILITY   WORKS  THIS HOST GETS  WHY NOT BETTER
short        yes    this            
rather long  no     -               because

TCP metrics and flow logs do not work on this host: one; two.
`
	if output.String() != want {
		t.Errorf("got\n%s\nwant\n%s", output.String(), want)
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, unix.EPIPE }

func TestWriteFails(t *testing.T) {
	if err := NewReport(goodHost()).Write(brokenPipe{}); !errors.Is(err, unix.EPIPE) {
		t.Errorf("got %v", err)
	}
}
