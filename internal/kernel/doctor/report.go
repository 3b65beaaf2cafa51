//go:build linux

package doctor

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
)

// NewReport judges findings. It asks the kernel nothing.
func NewReport(f Findings) Report {
	report := Report{Rows: []Row{
		{Capability: "kernel", State: Note, Rung: "Linux " + orDash(f.Release)},
		privileges(f),
		types(f),
		events(f),
		single("TCP connection states", "tp_btf/"+socketStateTracepoint, f.SocketState, "no TCP metrics or flow logs"),
		single("TCP state per connection", "socket-local storage", f.SocketStorage, "no TCP metrics or flow logs"),
		single("TCP byte deltas", "compare-and-exchange in BPF", f.Atomics, "no TCP metrics or flow logs"),
		single("TCP snapshots", "iter/bpf_sk_storage_map", f.Snapshots, "connections report only when they end"),
		single("TCP connections open before start", "iter/task_file", f.Seeding, "they are counted as untracked when they end"),
		each("TCP resets, retransmits, readers", f.TCPEvents),
		all("HTTP messages", f.HTTPMessages, "no HTTP spans and metrics"),
		secureMessages(f),
		profiles(f),
		waits(f),
		processes(f),
		single("run time of BPF programs", "accounted on request", f.RunTimeStats,
			"known only while the sysctl kernel.bpf_stats_enabled is 1"),
		cgroups(f),
		lockdown(f),
		note("helper bpf_loop", f.LoopHelper),
		note("fentry", f.Fentry),
		note("kprobes", f.Kprobe),
		note("tracefs", f.Tracefs),
	}}
	report.Obstacles = obstacles(f)
	return report
}

// obstacles collects why TCP metrics and flow logs do not work. A cause that hides all others stands alone.
func obstacles(f Findings) []string {
	needed := []struct {
		what   string
		answer error
	}{
		{"type information", f.BTF},
		{"connection states", f.SocketState},
		{"state per connection", f.SocketStorage},
		{"byte deltas", f.Atomics},
		{"events to user space", either(f.RingBuffer, f.PerfBuffer)},
	}
	var (
		lacking []kernel.Capability
		refused *kernel.PermissionError
		found   []string
	)
	for _, need := range needed {
		if need.answer == nil {
			continue
		}
		found = append(found, need.what+": "+reason(need.answer))
		var permission *kernel.PermissionError
		if errors.As(need.answer, &permission) {
			refused = permission
			lacking = append(lacking, permission.Missing...)
		}
	}
	switch {
	case len(lacking) > 0:
		slices.Sort(lacking)
		lacking = slices.Compact(lacking)
		slices.Reverse(lacking) // CAP_BPF first
		advice := ": run it as root, or grant them with setcap or the container's securityContext"
		if len(refused.Causes) > 0 {
			advice = ": " + strings.Join(refused.Causes, "; ")
		}
		return []string{"this process lacks " + names(lacking) + advice}
	case refused != nil:
		return []string{reason(refused) + "; possible causes: " + strings.Join(refused.Causes, "; ")}
	case f.BTF != nil && f.BTFPath == "":
		return []string{reason(f.BTF) + ", which all of it needs"}
	}
	return found
}

// either is nil if one of two ways works, else why the first does not.
func either(first, second error) error {
	if first == nil || second == nil {
		return nil
	}
	return first
}

func privileges(f Findings) Row {
	row := Row{Capability: "Linux capabilities"}
	if f.CapabilitiesErr != nil {
		row.State, row.WhyNot = Missing, reason(f.CapabilitiesErr)
		return row
	}
	wanted := wantedCapabilities()
	missing := f.Capabilities.Missing(wanted)
	held := slices.DeleteFunc(wanted, func(capability kernel.Capability) bool { return slices.Contains(missing, capability) })
	row.Rung = names(held)
	switch {
	case len(missing) == 0:
		row.State = Good
		return row
	case slices.Contains(missing, kernel.CapBPF) || slices.Contains(missing, kernel.CapPerfmon):
		row.State = Missing
	default:
		row.State = Reduced
	}
	var lacks []string
	for _, capability := range missing {
		lacks = append(lacks, fmt.Sprintf("%s (%s)", capability.Name(), capability.Purpose()))
	}
	row.WhyNot = "lacks " + strings.Join(lacks, ", ")
	return row
}

func types(f Findings) Row {
	row := Row{Capability: "kernel type information (BTF)", State: Good, Rung: "the kernel's own"}
	if f.BTFPath != "" {
		row.Rung = "file " + f.BTFPath
	}
	if f.BTF != nil {
		row.State, row.Rung, row.WhyNot = Missing, "", reason(f.BTF)
	}
	return row
}

func events(f Findings) Row {
	const capability = "events to user space"
	switch {
	case f.RingBuffer == nil:
		return Row{capability, Good, "ring buffer", ""}
	case f.PerfBuffer == nil:
		return Row{capability, Reduced, "perf buffer", "no ring buffer: " + reason(f.RingBuffer)}
	}
	return Row{capability, Missing, "", reason(f.RingBuffer) + "; no perf buffer either: " + reason(f.PerfBuffer)}
}

// single is a capability with one rung.
func single(capability, rung string, answer error, without string) Row {
	if answer == nil {
		return Row{capability, Good, rung, ""}
	}
	return Row{capability, Missing, "", without + ": " + reason(answer)}
}

// each is a capability of several hooks that work without each other.
func each(capability string, answers map[string]error) Row {
	have, lack := split(answers)
	row := Row{Capability: capability, State: Good}
	if len(have) > 0 {
		row.Rung = "tp_btf/{" + strings.Join(have, ",") + "}"
	}
	if len(lack) > 0 {
		row.State = Reduced
		if len(have) == 0 {
			row.State = Missing
		}
		row.WhyNot = "no " + strings.Join(lack, ", ") + ": " + reason(answers[lack[0]])
	}
	return row
}

// all is a capability of several hooks of which none can be missing.
func all(capability string, answers map[string]error, without string) Row {
	have, lack := split(answers)
	if len(lack) > 0 {
		return Row{capability, Missing, "", without + ": " + reason(answers[lack[0]])}
	}
	return Row{capability, Good, "tp_btf/{" + strings.Join(have, ",") + "}", ""}
}

// secureMessages is HTTP in TLS: it needs what HTTP needs, and uprobes at machine code that the receiver can read.
func secureMessages(f Findings) Row {
	const capability = "HTTP messages in TLS"
	const without = "no HTTP spans and metrics of what is encrypted"
	if _, lack := split(f.HTTPMessages); len(lack) > 0 {
		return Row{capability, Missing, "", without + ": it needs what HTTP messages need"}
	}
	if f.Architecture != "amd64" {
		return Row{capability, Missing, "", without + ": of machine code, only that of amd64 is read, not of " + f.Architecture}
	}
	row := single(capability, "uprobe_multi", f.Uprobes, without)
	if row.State == Good && f.CapabilitiesErr == nil {
		if missing := f.Capabilities.Missing([]kernel.Capability{kernel.CapSysPtrace}); len(missing) > 0 {
			row.State = Reduced
			row.WhyNot = "lacks " + names(missing) + ": of other users' processes, only those that use the host's own OpenSSL"
		}
	}
	return row
}

func profiles(f Findings) Row {
	const capability = "profiles of what runs"
	const without = "no profiles"
	if f.LoopHelper != nil {
		return single(capability, "", f.LoopHelper, without)
	}
	row := single(capability, "perf_event/cpu-clock", f.ClockSamples, without)
	if row.State == Good && f.CapabilitiesErr == nil {
		if missing := f.Capabilities.Missing([]kernel.Capability{kernel.CapSysPtrace, kernel.CapDACReadSearch}); len(missing) > 0 {
			row.State = Reduced
			row.WhyNot = "lacks " + names(missing) + ": of other users' processes, stacks by frame pointers and without names"
		}
	}
	return row
}

func waits(f Findings) Row {
	const capability = "profiles of what waits"
	const without = "no off-CPU profiles"
	row := single(capability, "tp_btf/"+switchTracepoint, f.Switches, without)
	if row.State != Good {
		return row
	}
	if f.Resumptions != nil {
		row.State, row.WhyNot = Reduced, "stacks are walked before it is known how long a wait will be: "+reason(f.Resumptions)
		return row
	}
	row.Rung = "tp_btf/{" + switchTracepoint + "," + resumedTracepoint + "}"
	return row
}

func processes(f Findings) Row {
	const capability = "processes start and end"
	hooks := func(prefix string, tracepoints []string) string {
		return prefix + "/{" + strings.Join(tracepoints, ",") + "}"
	}
	typed, typedLack := split(f.ProcessTyped)
	if len(typedLack) == 0 && f.BTF == nil {
		return Row{capability, Good, hooks("tp_btf", typed), ""}
	}
	why := "no type information"
	if len(typedLack) > 0 {
		why = "no tp_btf/" + typedLack[0] + ": " + reason(f.ProcessTyped[typedLack[0]])
	}
	raw, rawLack := split(f.ProcessRaw)
	if len(rawLack) == 0 && f.BTF == nil {
		return Row{capability, Good, hooks("raw_tp", raw), why}
	}
	return Row{capability, Reduced, "/proc, read when a process is first seen", why}
}

func cgroups(f Findings) Row {
	const capability = "containers by cgroup"
	if f.Cgroup2Err == nil {
		return Row{capability, Good, "cgroup2 on " + f.Cgroup2, ""}
	}
	why := reason(f.Cgroup2Err)
	if errors.Is(f.Cgroup2Err, os.ErrNotExist) {
		why = "cgroup2 is not mounted"
	}
	return Row{capability, Reduced, "/proc/PID/cgroup", why + ": a process that ends early is not told by its cgroup id"}
}

func lockdown(f Findings) Row {
	row := Row{Capability: "kernel lockdown", State: Note}
	switch {
	case errors.Is(f.LockdownErr, os.ErrNotExist):
		row.Rung, row.WhyNot = "unknown", "this kernel has none, or securityfs is not mounted on /sys/kernel/security"
	case f.LockdownErr != nil:
		row.Rung, row.WhyNot = "unknown", reason(f.LockdownErr)
	default:
		row.Rung = string(f.Lockdown)
		if f.Lockdown == kernel.LockdownConfidentiality {
			row.State, row.WhyNot = Missing, "BPF programs may not read kernel memory: boot with lockdown=integrity"
		}
	}
	return row
}

// note is what no probe depends on.
func note(capability string, answer error) Row {
	if answer == nil {
		return Row{capability, Note, "there", ""}
	}
	var permission *kernel.PermissionError
	if errors.As(answer, &permission) {
		return Row{capability, Note, "unknown", "not needed: " + reason(answer)}
	}
	return Row{capability, Note, "not there", "not needed: " + reason(answer)}
}

// split sorts tracepoints by whether they can be had, each in order of name.
func split(answers map[string]error) (have, lack []string) {
	for tracepoint, answer := range answers {
		if answer == nil {
			have = append(have, tracepoint)
		} else {
			lack = append(lack, tracepoint)
		}
	}
	slices.Sort(have)
	slices.Sort(lack)
	return have, lack
}

// reason makes one short line of an error.
func reason(err error) string {
	var (
		permission  *kernel.PermissionError
		unsupported *kernel.UnsupportedError
	)
	switch {
	case errors.As(err, &permission) && len(permission.Missing) > 0:
		return "lacks " + names(permission.Missing)
	case errors.As(err, &permission):
		return "refused, although no capability is missing"
	case errors.As(err, &unsupported) && unsupported.Refused:
		return "this hardened kernel refuses " + unsupported.Feature
	case errors.As(err, &unsupported):
		needs := "needs Linux " + unsupported.Floor
		if unsupported.Config != "" {
			needs += " with " + unsupported.Config
		}
		return "no " + unsupported.Feature + " (" + needs + ")"
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

func names(capabilities []kernel.Capability) string {
	list := make([]string, 0, len(capabilities))
	for _, capability := range capabilities {
		list = append(list, capability.Name())
	}
	return strings.Join(list, ", ")
}
