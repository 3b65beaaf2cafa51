//go:build linux

package cpu

import (
	"testing"

	"go.uber.org/goleak"
)

// Variables of the environment let some tests do more:
//
//	EBPFRECEIVER_TEST_LONG          the shares of CPU time are measured over a minute at 99 Hz
//	EBPFRECEIVER_TEST_SOAK_SECONDS  so long processes come and go; 20 without it
//	EBPFRECEIVER_TEST_HOTPLUG       CPU 1 is taken away for some seconds
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
