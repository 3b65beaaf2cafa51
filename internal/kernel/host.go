//go:build linux

package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Release returns the running kernel's release, such as "6.1.0-18-amd64".
func Release() (string, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "", fmt.Errorf("read the kernel's release with uname: %w", err)
	}
	return unix.ByteSliceToString(name.Release[:]), nil
}

// Lockdown is how far the kernel protects itself from root, see kernel_lockdown(7).
type Lockdown string

// The modes of lockdown. Integrity refuses bpf_probe_write_user, confidentiality refuses every read of kernel memory.
const (
	LockdownNone            Lockdown = "none"
	LockdownIntegrity       Lockdown = "integrity"
	LockdownConfidentiality Lockdown = "confidentiality"
)

const lockdownPath = "/sys/kernel/security/lockdown"

// ReadLockdown returns the kernel's lockdown mode. The error is os.ErrNotExist where the kernel has no lockdown or
// securityfs is not mounted.
//
// Lockdown exists from Linux 5.4 (000d388ed3bb "security: Add a static lockdown policy LSM").
func ReadLockdown() (Lockdown, error) {
	content, err := os.ReadFile(lockdownPath)
	if err != nil {
		return "", fmt.Errorf("read the lockdown mode: %w", err)
	}
	mode, err := parseLockdown(content)
	if err != nil {
		return "", fmt.Errorf("read the lockdown mode from %s: %w", lockdownPath, err)
	}
	return mode, nil
}

// parseLockdown finds the chosen word of a line such as "none [integrity] confidentiality".
func parseLockdown(content []byte) (Lockdown, error) {
	for _, word := range strings.Fields(string(content)) {
		inner, opened := strings.CutPrefix(word, "[")
		if !opened {
			continue
		}
		mode, closed := strings.CutSuffix(inner, "]")
		if !closed || mode == "" {
			break
		}
		return Lockdown(mode), nil
	}
	return "", fmt.Errorf("no mode is chosen in %q", truncate(content, 80))
}

// UnprivilegedBPFDisabled returns the sysctl kernel.unprivileged_bpf_disabled: 0 lets every process use some BPF, 1 and
// 2 ask for CAP_BPF.
func UnprivilegedBPFDisabled() (int, error) {
	const path = "/proc/sys/kernel/unprivileged_bpf_disabled"
	content, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read the sysctl kernel.unprivileged_bpf_disabled: %w", err)
	}
	value, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil {
		return 0, fmt.Errorf("parse %s: %w", path, err)
	}
	return value, nil
}

// InInitialUserNamespace reports whether capabilities of this process count for the whole system. Root of a rootless
// container holds every capability, but only inside its own user namespace, and BPF asks for them outside.
func InInitialUserNamespace() (bool, error) {
	const path = "/proc/self/uid_map"
	content, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return true, nil // a kernel without user namespaces
	}
	if err != nil {
		return false, fmt.Errorf("read the user namespace's mapping: %w", err)
	}
	return isIdentityMapping(content), nil
}

// isIdentityMapping recognises the uid_map of the initial user namespace: every id is mapped to itself.
func isIdentityMapping(uidMap []byte) bool {
	fields := strings.Fields(string(uidMap))
	return len(fields) == 3 && fields[0] == "0" && fields[1] == "0" && fields[2] == "4294967295"
}

// Cgroup2Mount returns where the unified cgroup hierarchy is mounted; the error is os.ErrNotExist where it is not.
func Cgroup2Mount() (string, error) {
	const path = "/proc/self/mountinfo"
	content, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("look for the cgroup2 mount: %w", err)
	}
	mount, found := parseMountOfType(content, "cgroup2")
	if !found {
		return "", fmt.Errorf("look for the cgroup2 mount in %s: %w", path, os.ErrNotExist)
	}
	return mount, nil
}

// parseMountOfType returns the first mount point of a file system type in a mountinfo file, see proc(5).
func parseMountOfType(mountinfo []byte, fileSystem string) (string, bool) {
	const mountPoint = 4
	for line := range bytes.Lines(mountinfo) {
		mount, source, found := strings.Cut(string(line), " - ")
		if !found {
			continue
		}
		left, right := strings.Fields(mount), strings.Fields(source)
		if len(left) > mountPoint && len(right) > 0 && right[0] == fileSystem {
			return unescapeMountPoint(left[mountPoint]), true
		}
	}
	return "", false
}

// unescapeMountPoint undoes the kernel's octal escapes of blanks and backslashes.
func unescapeMountPoint(escaped string) string {
	var plain strings.Builder
	for i := 0; i < len(escaped); i++ {
		if escaped[i] == '\\' && i+3 < len(escaped) {
			if code, err := strconv.ParseUint(escaped[i+1:i+4], 8, 8); err == nil {
				plain.WriteByte(byte(code))
				i += 3
				continue
			}
		}
		plain.WriteByte(escaped[i])
	}
	return plain.String()
}

func truncate(content []byte, bytes int) []byte {
	if len(content) > bytes {
		return content[:bytes]
	}
	return content
}
