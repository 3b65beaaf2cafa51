//go:build linux

package cpu

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
)

// onlineFile lists the CPUs that run, such as "0-3,6" (Documentation/admin-guide/cputopology.rst).
const onlineFile = "/sys/devices/system/cpu/online"

// maxCPU is more than any kernel has (CONFIG_NR_CPUS).
const maxCPU = 1 << 16

// parseCPUs reads a list of CPUs as the kernel writes it.
func parseCPUs(list string) ([]int, error) {
	var cpus []int
	for part := range strings.SplitSeq(strings.TrimSpace(list), ",") {
		if part == "" {
			continue
		}
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err := strconv.ParseUint(first, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("read a list of CPUs, %q: %w", list, err)
		}
		to, err := strconv.ParseUint(last, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("read a list of CPUs, %q: %w", list, err)
		}
		if to < from || to >= maxCPU {
			return nil, fmt.Errorf("read a list of CPUs, %q: %s is no range", list, part)
		}
		if uint64(len(cpus))+to-from >= maxCPU {
			return nil, fmt.Errorf("read a list of CPUs, %q: it has more than %d", list, maxCPU)
		}
		for cpu := from; cpu <= to; cpu++ {
			cpus = append(cpus, int(cpu))
		}
	}
	if len(cpus) == 0 {
		return nil, fmt.Errorf("read a list of CPUs, %q: it is empty", list)
	}
	return cpus, nil
}

// clocks are the perf events that let a program run many times a second on each CPU.
type clocks struct {
	program   *ebpf.Program
	frequency int
	online    func() ([]byte, error)
	list      string // what the file said last
	running   map[int]*clock
}

// clock is the event of a CPU: the software event cpu-clock, a timer that all machines have, virtual ones too.
type clock struct {
	event *os.File
	link  link.Link // nil: the event itself holds the program
}

func newClocks(program *ebpf.Program, frequency int) *clocks {
	return &clocks{
		program: program, frequency: frequency, running: map[int]*clock{},
		online: func() ([]byte, error) { return os.ReadFile(onlineFile) },
	}
}

// follow starts clocks on CPUs that have come, and closes those of CPUs that have gone.
func (c *clocks) follow() error {
	content, err := c.online()
	if err != nil {
		return fmt.Errorf("find the CPUs: %w", err)
	}
	if string(content) == c.list {
		return nil
	}
	cpus, err := parseCPUs(string(content))
	if err != nil {
		return err
	}
	here := make(map[int]bool, len(cpus))
	var errs []error
	for _, cpu := range cpus {
		here[cpu] = true
		if c.running[cpu] != nil {
			continue
		}
		started, err := c.start(cpu)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		c.running[cpu] = started
	}
	for cpu, running := range c.running {
		if !here[cpu] {
			errs = append(errs, running.close())
			delete(c.running, cpu)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err // to be tried again
	}
	c.list = string(content)
	return nil
}

func (c *clocks) start(cpu int) (*clock, error) {
	attributes := unix.PerfEventAttr{
		Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK,
		Size:   uint32(unsafe.Sizeof(unix.PerfEventAttr{})),
		Sample: uint64(c.frequency), Bits: unix.PerfBitFreq | unix.PerfBitDisabled,
	}
	descriptor, err := unix.PerfEventOpen(&attributes, -1, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return nil, kernel.Explain(fmt.Sprintf("open the clock event of CPU %d", cpu), err, kernel.CapPerfmon)
	}
	started := &clock{event: os.NewFile(uintptr(descriptor), "perf event")}
	started.link, err = link.AttachRawLink(link.RawLinkOptions{
		Target: descriptor, Program: c.program, Attach: ebpf.AttachPerfEvent,
	})
	if err != nil {
		// Before Linux 5.15 (b89fbfbb854c "bpf: Implement minimal BPF perf link").
		started.link = nil
		if again := unix.IoctlSetInt(descriptor, unix.PERF_EVENT_IOC_SET_BPF, c.program.FD()); again != nil {
			return nil, errors.Join(fmt.Errorf("attach a program to the clock event of CPU %d: %w", cpu, err), started.close())
		}
	}
	if err := unix.IoctlSetInt(descriptor, unix.PERF_EVENT_IOC_ENABLE, 0); err != nil {
		return nil, errors.Join(fmt.Errorf("enable the clock event of CPU %d: %w", cpu, err), started.close())
	}
	return started, nil
}

func (c *clock) close() error {
	var errs []error
	if c.link != nil {
		errs = append(errs, c.link.Close())
	}
	errs = append(errs, c.event.Close())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close a clock event: %w", err)
	}
	return nil
}

// Close stops all clocks.
func (c *clocks) Close() error {
	var errs []error
	for cpu, running := range c.running {
		errs = append(errs, running.close())
		delete(c.running, cpu)
	}
	c.list = ""
	return errors.Join(errs...)
}
