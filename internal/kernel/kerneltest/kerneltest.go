//go:build linux

// Package kerneltest holds what tests against the real kernel share: when they may be skipped, and what they mount.
package kerneltest

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
)

// RequireRoot skips the test unless this process may load BPF programs, and names the capability that is missing.
func RequireRoot(t testing.TB) {
	t.Helper()
	missing, err := kernel.MissingCapabilities([]kernel.Capability{kernel.CapBPF, kernel.CapPerfmon, kernel.CapNetAdmin,
		kernel.CapSysAdmin})
	if err != nil {
		t.Fatal(err)
	}
	if len(missing) > 0 {
		t.Skipf("needs root: this process lacks %v (%s)", missing[0], missing[0].Purpose())
	}
}

// RequireFeature takes the answer of one of the kernel.HaveX functions. It skips the test only where the running kernel
// is older than the feature, was built without it or refuses it to everyone; a kernel that should have it and says no, or a fault, fails the
// test: a skip cannot hide a failure.
func RequireFeature(t testing.TB, answer error) {
	t.Helper()
	if answer == nil {
		return
	}
	var unsupported *kernel.UnsupportedError
	if !errors.As(answer, &unsupported) {
		t.Fatalf("cannot tell whether the kernel has what the test needs: %v", answer)
	}
	release, err := kernel.Release()
	if err != nil {
		t.Fatal(err)
	}
	older, err := isOlder(release, unsupported.Floor)
	if err != nil {
		t.Fatal(err)
	}
	if !older && !unsupported.Refused && !mayBeLeftOut(release, unsupported.Config) {
		t.Fatalf("kernel %s should have what it refuses: %v", release, answer)
	}
	t.Skip(answer)
}

// isOlder compares the first two numbers of a kernel release with those of a floor.
func isOlder(release, floor string) (bool, error) {
	var running, needed [2]int
	if _, err := fmt.Sscanf(release, "%d.%d", &running[0], &running[1]); err != nil {
		return false, fmt.Errorf("parse the kernel release %q: %w", release, err)
	}
	if _, err := fmt.Sscanf(floor, "%d.%d", &needed[0], &needed[1]); err != nil {
		return false, fmt.Errorf("parse the feature's floor %q: %w", floor, err)
	}
	if running[0] != needed[0] {
		return running[0] < needed[0], nil
	}
	return running[1] < needed[1], nil
}

// mayBeLeftOut reports whether the build option of a feature is off in the running kernel, or cannot be known.
func mayBeLeftOut(release, option string) bool {
	if option == "" {
		return false
	}
	config, err := openConfig(release)
	if err != nil {
		return true
	}
	defer config.Close()
	lines := bufio.NewScanner(config)
	for lines.Scan() {
		if value, found := strings.CutPrefix(lines.Text(), option+"="); found {
			return value != "y" && value != "m"
		}
	}
	return true
}

func openConfig(release string) (io.ReadCloser, error) {
	if plain, err := os.Open("/boot/config-" + release); err == nil {
		return plain, nil
	}
	packed, err := os.Open("/proc/config.gz")
	if err != nil {
		return nil, err
	}
	config, err := gzip.NewReader(packed)
	if err != nil {
		packed.Close()
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{config, packed}, nil
}

// MountTracefs mounts the tracing file system if nobody has, and leaves it mounted: other tests may be using it too.
func MountTracefs(t testing.TB) {
	t.Helper()
	RequireRoot(t)
	if kernel.HaveTracefs() == nil {
		return
	}
	const path = "/sys/kernel/tracing"
	if err := unix.Mount("tracefs", path, "tracefs", 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
		t.Fatalf("mount tracefs on %s: %v", path, err)
	}
}
