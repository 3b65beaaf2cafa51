//go:build linux

package kernel

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// PermissionError says what the kernel would not let this process do, and what is likely to be missing.
type PermissionError struct {
	Doing   string       // "load BPF programs"
	Missing []Capability // capabilities that it needs and does not hold
	Causes  []string     // why they are missing, or where none is: what else may refuse
	Err     error
}

func (e *PermissionError) Error() string {
	var message strings.Builder
	var errno unix.Errno
	if len(e.Missing) > 0 && errors.As(e.Err, &errno) {
		// The libraries guess at causes, which misleads where the cause is known.
		fmt.Fprintf(&message, "%s: %v", e.Doing, errno)
	} else {
		fmt.Fprintf(&message, "%s: %v", e.Doing, e.Err)
	}
	if len(e.Missing) > 0 {
		message.WriteString(": this process lacks ")
		for i, capability := range e.Missing {
			if i > 0 {
				message.WriteString(", ")
			}
			fmt.Fprintf(&message, "%s (%s)", capability.Name(), capability.Purpose())
		}
		if len(e.Causes) > 0 {
			message.WriteString("; ")
			message.WriteString(strings.Join(e.Causes, "; "))
		} else {
			message.WriteString("; run as root, or grant them with setcap or the container's securityContext")
		}
	} else if len(e.Causes) > 0 {
		message.WriteString("; possible causes: ")
		message.WriteString(strings.Join(e.Causes, "; "))
	}
	return message.String()
}

func (e *PermissionError) Unwrap() error { return e.Err }

// Explain says what was attempted, and turns a refusal (EPERM, or EACCES of perf_event_open) into a *PermissionError that
// names the capabilities of need which this process lacks. A nil err stays nil.
func Explain(doing string, err error, need ...Capability) error {
	if err == nil {
		return nil
	}
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%s: %w", doing, err)
	}
	explained := &PermissionError{Doing: doing, Err: err}
	missing, capErr := MissingCapabilities(need)
	explained.Missing = missing
	if capErr != nil {
		explained.Causes = append(explained.Causes, capErr.Error())
	}
	explained.Causes = append(explained.Causes, namespaceCause()...)
	if len(missing) == 0 {
		explained.Causes = append(explained.Causes, refusalCauses()...)
	}
	return explained
}

// namespaceCause says so if this process is in a user namespace, where no capability counts for BPF.
func namespaceCause() []string {
	if initial, err := InInitialUserNamespace(); err != nil || initial {
		return nil
	}
	return []string{"the process is in a user namespace (a rootless container), where no capability counts for BPF: " +
		"run it in the host's"}
}

// refusalCauses lists what may refuse BPF to a process that holds the right capabilities.
func refusalCauses() []string {
	var causes []string
	if mode, err := ReadLockdown(); err == nil {
		if mode != LockdownNone {
			causes = append(causes, fmt.Sprintf("the kernel is in lockdown mode %s", mode))
		}
	} else {
		causes = append(causes, fmt.Sprintf("kernel lockdown (mode unknown: %v)", err))
	}
	if value, err := UnprivilegedBPFDisabled(); err == nil && value != 0 {
		causes = append(causes, fmt.Sprintf("sysctl kernel.unprivileged_bpf_disabled is %d, so that BPF needs CAP_BPF "+
			"in the initial user namespace", value))
	}
	return append(causes, "a seccomp profile or security module that refuses bpf(2) or perf_event_open(2)",
		"a kernel built without this way to attach")
}
