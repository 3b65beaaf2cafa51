//go:build linux && (amd64 || arm64)

package ebpfreceiver

import (
	"errors"
	"fmt"
	"strings"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
)

// explainPrivileges makes a refusal for want of privileges complete: the kernel names one capability at a time, a user
// wants to grant all at once.
func explainPrivileges(err error) error {
	var refusal *kernel.PermissionError
	if !errors.As(err, &refusal) {
		return err
	}
	missing, unknown := kernel.MissingCapabilities([]kernel.Capability{
		kernel.CapBPF, kernel.CapPerfmon, kernel.CapSysPtrace, kernel.CapDACReadSearch,
	})
	if unknown != nil || len(missing) == 0 {
		return err // it was something else, which the refusal itself explains
	}
	var purposes, names []string
	for _, capability := range missing {
		purposes = append(purposes, fmt.Sprintf("%s (%s)", capability.Name(), capability.Purpose()))
		names = append(names, strings.ToLower(capability.Name()))
	}
	return fmt.Errorf("the Collector lacks privileges: %s; run it as root, or grant them: `setcap %s=ep FILE` for the executable, "+
		"AmbientCapabilities= in a systemd unit, securityContext.capabilities.add in a pod; what was refused first: %w",
		strings.Join(purposes, ", "), strings.Join(names, ","), err)
}
