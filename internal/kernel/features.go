//go:build linux

package kernel

import (
	"errors"
	"fmt"
	"io"
	"os"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// ErrNotSupported is in the tree of every error that says: the running kernel does not have this.
//
// All functions named HaveX answer in one shape: nil is yes; an error that is ErrNotSupported is no; any other error is a
// fault or a missing permission, and leaves the question open. They load (and where that tells more, attach) a tiny program
// instead of comparing versions, because distributions backport and leave out. Nothing is kept between calls: the answer
// changes with the privileges of the process, and a caller asks once.
var ErrNotSupported = ebpf.ErrNotSupported

// UnsupportedError names a feature that the running kernel lacks.
type UnsupportedError struct {
	Feature string
	Floor   string // the first Linux release that has it
	Config  string // the build option that leaves it out of newer kernels, empty if there is none
	Refused bool   // the kernel was hardened: it refuses this even to a process that holds every capability it needs
	Err     error  // what the kernel answered
}

func (e *UnsupportedError) Error() string {
	option := ""
	if e.Config != "" {
		option = " built with " + e.Config
	}
	return fmt.Sprintf("this kernel has no %s, which needs Linux %s%s: %v", e.Feature, e.Floor, option, e.Err)
}

// Is makes every UnsupportedError an ErrNotSupported.
func (e *UnsupportedError) Is(target error) bool { return target == ErrNotSupported }

func (e *UnsupportedError) Unwrap() error { return e.Err }

// feature says how to word the answer of one probe.
type feature struct {
	name, floor, config string
	need                []Capability
}

// errnoNotSupported is the kernel's internal ENOTSUPP, which leaks to user space and has no name there.
const errnoNotSupported = unix.Errno(524)

// answer sorts what the kernel said to a program or map that is known to be right: a refusal to understand is a no.
func (f feature) answer(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM):
		return Explain("probe for "+f.name, err, f.need...)
	case errors.Is(err, ErrNotSupported), errors.Is(err, btf.ErrNotFound), errors.Is(err, os.ErrNotExist),
		errors.Is(err, unix.EINVAL), errors.Is(err, unix.E2BIG), errors.Is(err, unix.EACCES),
		errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, errnoNotSupported):
		// Without the capabilities the kernel stops before the question: what looks like a no may be none.
		if missing, capErr := MissingCapabilities(f.need); capErr == nil && len(missing) > 0 {
			return &PermissionError{Doing: "probe for " + f.name, Missing: missing, Causes: namespaceCause(), Err: err}
		}
		return f.missing(err)
	}
	return fmt.Errorf("probe for %s: %w", f.name, err)
}

func (f feature) missing(err error) error {
	return &UnsupportedError{Feature: f.name, Floor: f.floor, Config: f.config, Err: err}
}

// HaveBTF asks for the kernel's own type information, which every program that reads kernel structures needs.
//
// Linux 5.4 (341dfcf8d78e "btf: expose BTF info through sysfs") with CONFIG_DEBUG_INFO_BTF.
func HaveBTF() error {
	f := feature{name: "type information (BTF) of its own", floor: "5.4", config: "CONFIG_DEBUG_INFO_BTF"}
	_, err := btf.LoadKernelSpec()
	return f.answer(err)
}

// HaveRingBuffer asks for the BPF ring buffer.
//
// Linux 5.8 (457f44363a88 "bpf: Implement BPF ring buffer and verifier support for it").
func HaveRingBuffer() error {
	f := feature{name: "BPF ring buffer", floor: "5.8", need: []Capability{CapBPF}}
	ring, err := ebpf.NewMap(&ebpf.MapSpec{
		Name:       "probe_ring",
		Type:       ebpf.RingBuf,
		MaxEntries: uint32(os.Getpagesize()),
	})
	if err != nil {
		return f.answer(err)
	}
	return f.answer(ring.Close())
}

// HavePerfEventArray asks for output of BPF programs to perf buffers.
//
// Linux 4.4 (a43eec304259 "bpf: introduce bpf_perf_event_output() helper") with CONFIG_PERF_EVENTS.
func HavePerfEventArray() error {
	f := feature{name: "perf event array", floor: "4.4", config: "CONFIG_PERF_EVENTS",
		need: []Capability{CapBPF, CapPerfmon}}
	array, err := ebpf.NewMap(&ebpf.MapSpec{
		Name:       "probe_perf",
		Type:       ebpf.PerfEventArray,
		KeySize:    4,
		ValueSize:  4,
		MaxEntries: 1,
	})
	if err != nil {
		return f.answer(err)
	}
	defer array.Close()

	output, err := unix.PerfEventOpen(&unix.PerfEventAttr{
		Type:        unix.PERF_TYPE_SOFTWARE,
		Config:      unix.PERF_COUNT_SW_BPF_OUTPUT,
		Size:        unix.PERF_ATTR_SIZE_VER0,
		Sample_type: unix.PERF_SAMPLE_RAW,
	}, -1, 0, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if errors.Is(err, unix.EACCES) {
		return Explain("probe for "+f.name, err, f.need...)
	}
	if err != nil {
		return f.answer(err)
	}
	return f.answer(unix.Close(output))
}

// HaveTracingTracepoint asks whether a BPF program with typed arguments can be attached to the named tracepoint (tp_btf),
// such as "inet_sock_set_state".
//
// Linux 5.5 (9e15db66136a "bpf: Implement accurate raw_tp context access via BTF") with CONFIG_DEBUG_INFO_BTF; each
// tracepoint has a floor of its own.
func HaveTracingTracepoint(tracepoint string) error {
	f := feature{name: "typed tracepoint tp_btf/" + tracepoint, floor: "5.5", config: "CONFIG_DEBUG_INFO_BTF",
		need: []Capability{CapBPF, CapPerfmon}}
	return f.answer(tryProgram(&ebpf.ProgramSpec{
		Name:         "probe_tp_btf",
		Type:         ebpf.Tracing,
		AttachType:   ebpf.AttachTraceRawTp,
		AttachTo:     tracepoint,
		Instructions: returnZero(),
		License:      probeLicense,
	}, attachTracing))
}

// HaveRawTracepoint asks whether a BPF program can be attached to the named tracepoint without type information (raw_tp).
//
// Linux 4.17 (c4f6699dfcb8 "bpf: introduce BPF_RAW_TRACEPOINT"); each tracepoint has a floor of its own.
func HaveRawTracepoint(tracepoint string) error {
	f := feature{name: "raw tracepoint raw_tp/" + tracepoint, floor: "4.17", config: "CONFIG_BPF_EVENTS",
		need: []Capability{CapBPF, CapPerfmon}}
	return f.answer(tryProgram(&ebpf.ProgramSpec{
		Name:         "probe_raw_tp",
		Type:         ebpf.RawTracepoint,
		Instructions: returnZero(),
		License:      probeLicense,
	}, func(program *ebpf.Program) (io.Closer, error) {
		return link.AttachRawTracepoint(link.RawTracepointOptions{Name: tracepoint, Program: program})
	}))
}

// HaveClockSamples asks whether a BPF program can be run by a timer on each CPU: on the perf event cpu-clock.
//
// Linux 4.9 (0515e5999a46 "bpf: introduce BPF_PROG_TYPE_PERF_EVENT program type"), attached by a link since 5.15
// (b89fbfbb854c "bpf: Implement minimal BPF perf link"), with CONFIG_PERF_EVENTS.
func HaveClockSamples() error {
	f := feature{name: "perf event cpu-clock with BPF", floor: "5.15", config: "CONFIG_PERF_EVENTS",
		need: []Capability{CapBPF, CapPerfmon}}
	return f.answer(tryProgram(&ebpf.ProgramSpec{
		Name:         "probe_clock",
		Type:         ebpf.PerfEvent,
		Instructions: returnZero(),
		License:      probeLicense,
	}, func(program *ebpf.Program) (io.Closer, error) {
		descriptor, err := unix.PerfEventOpen(&unix.PerfEventAttr{
			Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK,
			Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{})), Sample: 1, Bits: unix.PerfBitFreq | unix.PerfBitDisabled,
		}, -1, 0, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if err != nil {
			return nil, fmt.Errorf("open the perf event: %w", err)
		}
		defer unix.Close(descriptor) // the link keeps it
		return link.AttachRawLink(link.RawLinkOptions{Target: descriptor, Program: program, Attach: ebpf.AttachPerfEvent})
	}))
}

// HaveSocketStorage asks whether programs on typed tracepoints may keep state in sockets (BPF_MAP_TYPE_SK_STORAGE).
//
// Linux 5.11 (8e4597c627fb "bpf: Allow using bpf_sk_storage in FENTRY/FEXIT/RAW_TP") with CONFIG_DEBUG_INFO_BTF.
func HaveSocketStorage() error {
	f := feature{name: "socket-local storage in tracing programs", floor: "5.11", config: "CONFIG_DEBUG_INFO_BTF",
		need: []Capability{CapBPF, CapPerfmon}}
	storage, err := newSocketStorage()
	if err != nil {
		return f.answer(err)
	}
	defer storage.Close()

	return f.answer(tryProgram(&ebpf.ProgramSpec{
		Name:       "probe_sk_store",
		Type:       ebpf.Tracing,
		AttachType: ebpf.AttachTraceRawTp,
		AttachTo:   "inet_sock_set_state", // whose first argument is a socket
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R2, asm.R1, 0, asm.DWord),
			asm.LoadMapPtr(asm.R1, storage.FD()),
			asm.Mov.Imm(asm.R3, 0),
			asm.Mov.Imm(asm.R4, 1), // BPF_SK_STORAGE_GET_F_CREATE
			asm.FnSkStorageGet.Call(),
			asm.Mov.Imm(asm.R0, 0),
			asm.Return(),
		},
		License: probeLicense,
	}, nil))
}

// HaveIterator asks for a BPF iterator, by its name without "bpf_iter_": "task_file", "bpf_sk_storage_map", "tcp".
//
// Linux 5.8 (15d83c4d7cef "bpf: Allow loading of a bpf_iter program") with CONFIG_DEBUG_INFO_BTF. Task and task_file
// came with 5.8 (eaaacd23910f), bpf_sk_storage_map with 5.9 (5ce6e77c7edf).
func HaveIterator(target string) error {
	floor := "5.8"
	if target == "bpf_sk_storage_map" {
		floor = "5.9"
	}
	f := feature{name: "iterator iter/" + target, floor: floor, config: "CONFIG_DEBUG_INFO_BTF",
		need: []Capability{CapBPF, CapPerfmon}}

	options := link.IterOptions{}
	if target == "bpf_sk_storage_map" {
		storage, err := newSocketStorage()
		if err != nil {
			return f.answer(err)
		}
		defer storage.Close()
		options.Map = storage
	}
	return f.answer(tryProgram(&ebpf.ProgramSpec{
		Name:         "probe_iter",
		Type:         ebpf.Tracing,
		AttachType:   ebpf.AttachTraceIter,
		AttachTo:     target,
		Instructions: returnZero(),
		License:      probeLicense,
	}, func(program *ebpf.Program) (io.Closer, error) {
		options.Program = program
		iterator, err := link.AttachIter(options)
		if err != nil {
			return nil, err
		}
		defer func() { _ = iterator.Close() }() // the open iterator holds what it needs
		return iterator.Open()
	}))
}

// HaveAtomics64 asks for atomic instructions that return a value, such as compare-and-exchange.
//
// Linux 5.12 (5ffa25502b5a "bpf: Add instructions for atomic_[cmp]xchg").
func HaveAtomics64() error {
	f := feature{name: "atomic compare-and-exchange in BPF", floor: "5.12", need: []Capability{CapBPF, CapPerfmon}}
	return f.answer(tryProgram(&ebpf.ProgramSpec{
		Name: "probe_cmpxchg",
		Type: ebpf.RawTracepoint,
		Instructions: asm.Instructions{
			asm.Mov.Imm(asm.R0, 0),
			asm.StoreMem(asm.RFP, -8, asm.R0, asm.DWord),
			asm.Mov.Imm(asm.R1, 1),
			asm.CmpXchg.Mem(asm.RFP, asm.R1, asm.DWord, -8),
			asm.Mov.Imm(asm.R0, 0),
			asm.Return(),
		},
		License: probeLicense,
	}, nil))
}

// HaveLoopHelper asks for bpf_loop(), which walks more than the verifier would unroll.
//
// Linux 5.17 (e6f2dd0f8067 "bpf: Add bpf_loop helper").
func HaveLoopHelper() error {
	f := feature{name: "helper bpf_loop", floor: "5.17", need: []Capability{CapBPF, CapPerfmon}}
	return f.answer(features.HaveProgramHelper(ebpf.RawTracepoint, asm.FnLoop))
}

// HaveFentry asks whether a BPF program can be attached to the entry of the named kernel function without a breakpoint.
//
// Linux 5.5 on amd64 (fec56f5890d9 "bpf: Introduce BPF trampoline"), 6.0 on arm64, with
// CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS. Hardened kernels refuse it with EPERM even to root: that is a no.
func HaveFentry(function string) error {
	f := feature{name: "fentry/" + function, floor: "5.5", config: "CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS",
		need: []Capability{CapBPF, CapPerfmon}}
	return f.answerOrPolicy(tryProgram(&ebpf.ProgramSpec{
		Name:         "probe_fentry",
		Type:         ebpf.Tracing,
		AttachType:   ebpf.AttachTraceFEntry,
		AttachTo:     function,
		Instructions: returnZero(),
		License:      probeLicense,
	}, attachTracing))
}

// HaveKprobe asks whether a BPF program can be attached to a breakpoint in the named kernel function.
//
// Linux 4.1 (2541517c32be "tracing, perf: Implement BPF programs attached to kprobes") with CONFIG_KPROBES.
func HaveKprobe(function string) error {
	f := feature{name: "kprobe/" + function, floor: "4.1", config: "CONFIG_KPROBES",
		need: []Capability{CapBPF, CapPerfmon}}
	// The library falls back to tracefs where there is no kprobe PMU (Linux before 4.17, e12f03d7031a, or no kprobes).
	if _, err := os.Stat("/sys/bus/event_source/devices/kprobe/type"); err != nil {
		if tracefsErr := HaveTracefs(); tracefsErr != nil {
			return f.answer(errors.Join(fmt.Errorf("look for the kprobe PMU: %w", err), tracefsErr))
		}
	}
	return f.answerOrPolicy(tryProgram(&ebpf.ProgramSpec{
		Name:         "probe_kprobe",
		Type:         ebpf.Kprobe,
		Instructions: returnZero(),
		License:      probeLicense,
	}, func(program *ebpf.Program) (io.Closer, error) {
		return link.Kprobe(function, program, nil)
	}))
}

// HaveUprobes asks whether a BPF program can be attached to instructions of a file, and is told at which it runs. CAP_BPF and
// CAP_PERFMON are enough for that, where uprobes of perf_event_open(2) need CAP_SYS_ADMIN.
//
// Linux 6.6 (89ae89f53d20 "bpf: Add multi uprobe link") with CONFIG_UPROBE_EVENTS. No process maps the file that is asked
// with: the kernel writes no breakpoint.
func HaveUprobes() error {
	f := feature{name: "uprobe_multi links", floor: "6.6", config: "CONFIG_UPROBE_EVENTS", need: []Capability{CapBPF, CapPerfmon}}
	fd, err := unix.MemfdCreate("probe_uprobe", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("probe for %s: make a file: %w", f.name, err)
	}
	file := os.NewFile(uintptr(fd), "probe_uprobe")
	defer file.Close()
	if err := file.Truncate(int64(os.Getpagesize())); err != nil {
		return fmt.Errorf("probe for %s: make a file: %w", f.name, err)
	}
	return f.answerOrPolicy(tryProgram(&ebpf.ProgramSpec{
		Name:         "probe_uprobe",
		Type:         ebpf.Kprobe,
		AttachType:   ebpf.AttachTraceUprobeMulti,
		Instructions: asm.Instructions{asm.FnGetAttachCookie.Call(), asm.Mov.Imm(asm.R0, 0), asm.Return()},
		License:      probeLicense,
	}, func(program *ebpf.Program) (io.Closer, error) {
		executable, err := link.OpenExecutable(fmt.Sprintf("/proc/self/fd/%d", fd))
		if err != nil {
			return nil, err
		}
		return executable.UprobeMulti(nil, program, &link.UprobeMultiOptions{Addresses: []uint64{64}, Cookies: []uint64{1}})
	}))
}

// HaveRunTimeStats asks whether the kernel accounts run time of BPF programs on request.
//
// Linux 5.8 (d46edd671a14 "bpf: Sharing bpf runtime stats with BPF_ENABLE_STATS").
func HaveRunTimeStats() error {
	f := feature{name: "run-time statistics of BPF programs on request", floor: "5.8", need: []Capability{CapSysAdmin}}
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		return f.answer(err)
	}
	return f.answer(stats.Close())
}

// HaveTracefs asks whether the tracing file system is mounted, which stable tracepoints and old kprobes need.
//
// Linux 4.1 (4282d60689d4 "tracefs: Add new tracefs file system") with CONFIG_TRACING.
func HaveTracefs() error {
	f := feature{name: "tracefs mounted on /sys/kernel/tracing or /sys/kernel/debug/tracing", floor: "4.1",
		config: "CONFIG_TRACING"}
	var failures []error
	for _, path := range []string{"/sys/kernel/tracing", "/sys/kernel/debug/tracing"} {
		var mount unix.Statfs_t
		if err := unix.Statfs(path, &mount); err != nil {
			failures = append(failures, fmt.Errorf("stat %s: %w", path, err))
		} else if mount.Type == unix.TRACEFS_MAGIC {
			return nil
		}
	}
	failures = append(failures, errors.New("mount it with: mount -t tracefs tracefs /sys/kernel/tracing"))
	return f.missing(errors.Join(failures...))
}

// answerOrPolicy takes EPERM for a no where the process holds all that the attachment needs: the kernel was hardened.
func (f feature) answerOrPolicy(err error) error {
	if errors.Is(err, unix.EPERM) {
		if missing, capErr := MissingCapabilities(f.need); capErr == nil && len(missing) == 0 {
			return &UnsupportedError{Feature: f.name, Floor: f.floor, Config: f.config, Refused: true,
				Err: fmt.Errorf("a hardened kernel refuses it even to root: %w", unix.EPERM)}
		}
	}
	return f.answer(err)
}

// probeLicense lets a probe use every helper: it is part of the kernel's answer which helpers exist.
const probeLicense = "Dual BSD/GPL"

func returnZero() asm.Instructions {
	return asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}
}

// tryProgram loads a program, attaches it if attach is given, and takes everything back.
func tryProgram(spec *ebpf.ProgramSpec, attach func(*ebpf.Program) (io.Closer, error)) error {
	program, err := ebpf.NewProgram(spec)
	if err != nil {
		return err
	}
	defer program.Close()
	if attach == nil {
		return nil
	}
	attached, err := attach(program)
	if err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	return attached.Close()
}

func attachTracing(program *ebpf.Program) (io.Closer, error) {
	return link.AttachTracing(link.TracingOptions{Program: program})
}

func newSocketStorage() (*ebpf.Map, error) {
	return ebpf.NewMap(&ebpf.MapSpec{
		Name:      "probe_storage",
		Type:      ebpf.SkStorage,
		KeySize:   4,
		ValueSize: 8,
		Flags:     unix.BPF_F_NO_PREALLOC,
		Key:       &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed},
		Value:     &btf.Int{Name: "unsigned long long", Size: 8},
	})
}
