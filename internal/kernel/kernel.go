//go:build linux

package kernel

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/rlimit"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// Options override what Open finds by itself.
type Options struct {
	// BTFPath is a file with the running kernel's type information, raw BTF or an ELF file with a .BTF section. Empty
	// takes the kernel's own.
	BTFPath string

	// ProgramStats makes the kernel account run time and run count of every BPF program while the Kernel is open. It
	// costs two clock reads for each run.
	ProgramStats bool
}

// Kernel is the running kernel, ready to load BPF programs into.
type Kernel struct {
	types    *btf.Spec
	typesErr error // why types is nil
	stats    io.Closer
	logger   *zap.Logger
}

// Open finds the kernel's types and lifts RLIMIT_MEMLOCK where the kernel counts BPF memory against it.
//
// A kernel without BTF is no error here: BTF returns nil then, and Load says what is missing where a program needs it. A
// BTF file that was asked for and cannot be used is one.
func Open(options Options, logger *zap.Logger) (*Kernel, error) {
	if logger == nil {
		logger = zap.NewNop()
	}
	kernel := &Kernel{logger: logger}

	if options.BTFPath != "" {
		types, err := loadTypes(options.BTFPath)
		if err != nil {
			return nil, err
		}
		kernel.types = types
	} else if types, err := btf.LoadKernelSpec(); err != nil {
		kernel.typesErr = fmt.Errorf("the kernel's own type information (/sys/kernel/btf/vmlinux, since Linux 5.4 with "+
			"CONFIG_DEBUG_INFO_BTF) cannot be read: %w; a file with the running kernel's BTF may be set in its place", err)
		logger.Warn("no kernel type information: only programs without CO-RE can be loaded", zap.Error(kernel.typesErr))
	} else {
		kernel.types = types
	}

	// Needed before 5.11 only, and refused without CAP_SYS_RESOURCE: the default limit may still do, and where it does
	// not the load's own error says so.
	if err := rlimit.RemoveMemlock(); err != nil {
		logger.Info("RLIMIT_MEMLOCK stays as it is", zap.Error(err))
	}

	if options.ProgramStats {
		stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
		if err != nil {
			logger.Warn("run time of BPF programs will not be known",
				zap.Error(Explain("enable run-time statistics of BPF programs", err, CapSysAdmin)))
		} else {
			kernel.stats = stats
		}
	}
	return kernel, nil
}

// BTF returns the kernel's types, nil where there are none.
func (k *Kernel) BTF() *btf.Spec { return k.types }

// ForgetTypes lets go of the kernel's types, which are some MiB of many small objects that every collection of garbage would
// mark. It is called when everything is loaded: what is loaded later takes the kernel's own types, also where Options names
// others.
func (k *Kernel) ForgetTypes() { k.types = nil }

// Close turns run-time statistics off again, unless somebody else wants them. Loaded collections stay.
func (k *Kernel) Close() error {
	k.types = nil
	if k.stats == nil {
		return nil
	}
	stats := k.stats
	k.stats = nil
	if err := stats.Close(); err != nil {
		return fmt.Errorf("disable run-time statistics of BPF programs: %w", err)
	}
	return nil
}

// CheckBTF says why kernel types cannot be had from a file, or with an empty path from the kernel itself; nil if they can.
func CheckBTF(path string) error {
	if path == "" {
		return HaveBTF()
	}
	_, err := loadTypes(path)
	return err
}

// loadTypes reads a file with kernel types, and checks that they are a kernel's.
func loadTypes(path string) (*btf.Spec, error) {
	const advice = "give the vmlinux or the BTF file of the running kernel%s, or leave the setting empty to use the " +
		"kernel's own /sys/kernel/btf/vmlinux"
	release := ""
	if name, err := Release(); err == nil {
		release = " (" + name + ")"
	}
	fail := func(err error) error {
		return fmt.Errorf("read kernel types from the BTF file %q: %w: "+advice, path, err, release)
	}

	info, err := os.Stat(path)
	if err != nil {
		return nil, fail(err)
	}
	if !info.Mode().IsRegular() {
		return nil, fail(fmt.Errorf("it is no regular file (%s)", info.Mode().Type()))
	}
	if info.Size() == 0 {
		return nil, fail(errors.New("it is empty"))
	}
	types, err := btf.LoadSpec(path)
	if errors.Is(err, btf.ErrNotFound) {
		return nil, fail(errors.New("it is an ELF file without a .BTF section"))
	}
	if err != nil {
		return nil, fail(err)
	}
	var task *btf.Struct
	if err := types.TypeByName("task_struct", &task); err != nil {
		if errors.Is(err, btf.ErrNotFound) {
			err = errors.New("it has no struct task_struct, so it is not a kernel's")
		}
		return nil, fail(err)
	}
	return types, nil
}
