//go:build linux

package kernel

import (
	"errors"
	"os"
	"strings"
	"testing"
)

func TestParseLockdown(t *testing.T) {
	for content, want := range map[string]Lockdown{
		"[none] integrity confidentiality\n": LockdownNone,
		"none [integrity] confidentiality\n": LockdownIntegrity,
		"none integrity [confidentiality]":   LockdownConfidentiality,
		"none integrity confidentiality":     "",
		"":                                   "",
		"[":                                  "",
		"[]":                                 "",
		"[none integrity]":                   "",
		"none [mode-of-tomorrow]":            "mode-of-tomorrow",
	} {
		got, err := parseLockdown([]byte(content))
		if got != want || (err == nil) != (want != "") {
			t.Errorf("parseLockdown(%q) = %q, %v; want %q", content, got, err, want)
		}
	}
}

func FuzzParseLockdown(f *testing.F) {
	f.Add([]byte("none [integrity] confidentiality\n"))
	f.Add([]byte("[none"))
	f.Fuzz(func(t *testing.T, content []byte) {
		mode, err := parseLockdown(content)
		if (err == nil) != (mode != "") || strings.ContainsAny(string(mode), " \n") {
			t.Errorf("parseLockdown(%q) = %q, %v", content, mode, err)
		}
		if err != nil && len(err.Error()) > 1000 {
			t.Errorf("an error of %d bytes", len(err.Error()))
		}
	})
}

func TestParseMountOfType(t *testing.T) {
	const hybrid = `24 30 0:22 / /proc rw,relatime shared:13 - proc proc rw
31 30 0:27 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
32 31 0:28 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw,nsdelegate
33 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
`
	for name, test := range map[string]struct {
		mountinfo, want string
		found           bool
	}{
		"hybrid":           {hybrid, "/sys/fs/cgroup/unified", true},
		"no such type":     {"24 30 0:22 / /proc rw - proc proc rw\n", "", false},
		"only v1":          {"33 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n", "", false},
		"blanks in a path": {`1 2 0:3 / /mnt/my\040cgroup\134s rw - cgroup2 none rw`, `/mnt/my cgroup\s`, true},
		"a bad escape":     {`1 2 0:3 / /mnt/\9 rw - cgroup2 none rw`, `/mnt/\9`, true},
		"too few fields":   {"1 2 - cgroup2 none rw\n", "", false},
		"nothing after":    {"1 2 0:3 / /mnt rw - \n", "", false},
		"empty":            {"", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			got, found := parseMountOfType([]byte(test.mountinfo), "cgroup2")
			if got != test.want || found != test.found {
				t.Errorf("got %q, %v; want %q, %v", got, found, test.want, test.found)
			}
		})
	}
}

func FuzzParseMountOfType(f *testing.F) {
	f.Add([]byte("32 31 0:28 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw\n"))
	f.Add([]byte(`1 2 0:3 / /mnt/\04 rw - cgroup2 none rw`))
	f.Fuzz(func(t *testing.T, mountinfo []byte) {
		if mount, found := parseMountOfType(mountinfo, "cgroup2"); found != (mount != "") {
			t.Errorf("got %q, %v", mount, found)
		}
	})
}

func TestIsIdentityMapping(t *testing.T) {
	for mapping, want := range map[string]bool{
		"         0          0 4294967295\n": true,
		"         0       1000          1\n": false,
		"0 100000 65536\n":                   false,
		"0 0 4294967295\n5 5 5\n":            false,
		"":                                   false,
	} {
		if got := isIdentityMapping([]byte(mapping)); got != want {
			t.Errorf("isIdentityMapping(%q) = %v", mapping, got)
		}
	}
}

func TestThisHost(t *testing.T) {
	if release, err := Release(); err != nil || release == "" {
		t.Errorf("Release() = %q, %v", release, err)
	}
	if _, err := InInitialUserNamespace(); err != nil {
		t.Error(err)
	}
	if _, err := ReadLockdown(); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission) {
		t.Error(err)
	}
	if _, err := Cgroup2Mount(); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if value, err := UnprivilegedBPFDisabled(); err == nil && (value < 0 || value > 2) {
		t.Errorf("kernel.unprivileged_bpf_disabled is %d", value)
	}
}
