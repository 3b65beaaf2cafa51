//go:build linux

package profile_test

import (
	"github.com/ebpfreceiver/ebpfreceiver/internal/signal/profile"
	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

// Profiles have the identity of spans and metrics.
var _ profile.Identity = (*workload.Workload)(nil)
