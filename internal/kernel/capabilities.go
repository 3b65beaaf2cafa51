//go:build linux

package kernel

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Capability is one Linux capability, see capabilities(7).
type Capability uint8

// The capabilities that observing with BPF may need.
const (
	CapDACReadSearch Capability = unix.CAP_DAC_READ_SEARCH
	CapNetAdmin      Capability = unix.CAP_NET_ADMIN
	CapSysPtrace     Capability = unix.CAP_SYS_PTRACE
	CapSysAdmin      Capability = unix.CAP_SYS_ADMIN
	CapSysResource   Capability = unix.CAP_SYS_RESOURCE
	CapSyslog        Capability = unix.CAP_SYSLOG
	CapPerfmon       Capability = unix.CAP_PERFMON
	CapBPF           Capability = unix.CAP_BPF
)

// Name is the capability's name as capabilities(7) and container runtimes spell it.
func (c Capability) Name() string {
	switch c {
	case CapDACReadSearch:
		return "CAP_DAC_READ_SEARCH"
	case CapNetAdmin:
		return "CAP_NET_ADMIN"
	case CapSysPtrace:
		return "CAP_SYS_PTRACE"
	case CapSysAdmin:
		return "CAP_SYS_ADMIN"
	case CapSysResource:
		return "CAP_SYS_RESOURCE"
	case CapSyslog:
		return "CAP_SYSLOG"
	case CapPerfmon:
		return "CAP_PERFMON"
	case CapBPF:
		return "CAP_BPF"
	}
	return fmt.Sprintf("capability %d", uint8(c))
}

// Purpose says what this project needs the capability for.
func (c Capability) Purpose() string {
	switch c {
	case CapDACReadSearch:
		return "reading /proc of processes of other users"
	case CapNetAdmin:
		return "loading networking BPF programs and reading socket options"
	case CapSysPtrace:
		return "reading the executable, command line and environment of other processes"
	case CapSysAdmin:
		return "BPF before Linux 5.8, and run-time statistics of BPF programs"
	case CapSysResource:
		return "raising RLIMIT_MEMLOCK, which kernels before 5.11 count BPF memory against"
	case CapSyslog:
		return "reading kernel symbol addresses"
	case CapPerfmon:
		return "attaching BPF programs to tracepoints and reading kernel memory"
	case CapBPF:
		return "creating BPF maps and loading BPF programs"
	}
	return "a purpose that is not known here"
}

func (c Capability) String() string { return c.Name() }

// impliedBySysAdmin reports whether the kernel takes CAP_SYS_ADMIN in this capability's place.
//
// CAP_BPF and CAP_PERFMON were split off CAP_SYS_ADMIN in 5.8 (a17b53c4a4b5, 980737282232), which still implies both;
// for CAP_SYSLOG see do_syslog().
func (c Capability) impliedBySysAdmin() bool {
	return c == CapBPF || c == CapPerfmon || c == CapSyslog
}

// Capabilities is a set of capabilities.
type Capabilities struct{ bits uint64 }

// CapabilitySet holds exactly the named capabilities.
func CapabilitySet(members ...Capability) Capabilities {
	var set Capabilities
	for _, member := range members {
		set.bits |= 1 << (member & 63)
	}
	return set
}

// Has reports whether the kernel would take the set as holding the capability.
func (c Capabilities) Has(capability Capability) bool {
	if c.bits&(1<<(capability&63)) != 0 {
		return true
	}
	return capability.impliedBySysAdmin() && c.bits&(1<<CapSysAdmin) != 0
}

// Missing returns those of need that the set lacks, in the order of need.
func (c Capabilities) Missing(need []Capability) []Capability {
	var missing []Capability
	for _, capability := range need {
		if !c.Has(capability) {
			missing = append(missing, capability)
		}
	}
	return missing
}

// EffectiveCapabilities returns the capabilities that the calling thread holds now and that count for BPF: none inside a
// user namespace, whatever /proc says there (see InInitialUserNamespace).
func EffectiveCapabilities() (Capabilities, error) {
	const path = "/proc/thread-self/status"
	status, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		status, err = os.ReadFile("/proc/self/status")
	}
	if err != nil {
		return Capabilities{}, fmt.Errorf("read this process's capabilities (is /proc mounted?): %w", err)
	}
	capabilities, err := parseCapabilities(status)
	if err != nil {
		return Capabilities{}, fmt.Errorf("read this process's capabilities from %s: %w", path, err)
	}
	if initial, err := InInitialUserNamespace(); err == nil && !initial {
		return Capabilities{}, nil
	}
	return capabilities, nil
}

// MissingCapabilities returns those of need that the calling thread does not hold.
func MissingCapabilities(need []Capability) ([]Capability, error) {
	held, err := EffectiveCapabilities()
	if err != nil {
		return nil, err
	}
	return held.Missing(need), nil
}

var errNoCapabilityLine = errors.New("no CapEff line")

// parseCapabilities reads the CapEff line of a /proc/PID/status file.
func parseCapabilities(status []byte) (Capabilities, error) {
	lines := bufio.NewScanner(bytes.NewReader(status))
	for lines.Scan() {
		digits, found := strings.CutPrefix(lines.Text(), "CapEff:")
		if !found {
			continue
		}
		bits, err := strconv.ParseUint(strings.TrimSpace(digits), 16, 64)
		if err != nil {
			return Capabilities{}, fmt.Errorf("parse the CapEff line: %w", err)
		}
		return Capabilities{bits: bits}, nil
	}
	if err := lines.Err(); err != nil {
		return Capabilities{}, fmt.Errorf("split into lines: %w", err)
	}
	return Capabilities{}, errNoCapabilityLine
}
