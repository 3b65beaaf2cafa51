//go:build linux

package kernel

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestParseCapabilities(t *testing.T) {
	for name, test := range map[string]struct {
		status string
		want   Capabilities
		fails  bool
	}{
		"root":            {"Name:\tcat\nCapPrm:\t0000000000000000\nCapEff:\t000001ffffffffff\nCapBnd:\t0\n", Capabilities{1<<41 - 1}, false},
		"nobody":          {"CapEff:\t0000000000000000\n", Capabilities{}, false},
		"no final line":   {"CapEff:\t0000000000001000", CapabilitySet(CapNetAdmin), false},
		"a misleading":    {"Name:\tCapEff:\nCapEff:\t0000008000000000\n", CapabilitySet(CapBPF), false},
		"no such line":    {"Name:\tcat\nCapPrm:\t000001ffffffffff\n", Capabilities{}, true},
		"empty":           {"", Capabilities{}, true},
		"not hexadecimal": {"CapEff:\tall\n", Capabilities{}, true},
		"too long":        {"CapEff:\t1ffffffffffffffff\n", Capabilities{}, true},
		"endless line":    {strings.Repeat("x", 1<<20), Capabilities{}, true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseCapabilities([]byte(test.status))
			if (err != nil) != test.fails || got != test.want {
				t.Errorf("parseCapabilities() = %x, %v; want %x", got.bits, err, test.want.bits)
			}
		})
	}
}

func FuzzParseCapabilities(f *testing.F) {
	f.Add([]byte("Name:\tcat\nCapEff:\t000001ffffffffff\n"))
	f.Add([]byte("CapEff:"))
	f.Fuzz(func(t *testing.T, status []byte) {
		if got, err := parseCapabilities(status); err != nil && got != (Capabilities{}) {
			t.Errorf("%x beside %v", got.bits, err)
		}
	})
}

func TestMissing(t *testing.T) {
	need := []Capability{CapBPF, CapPerfmon, CapNetAdmin}
	for name, test := range map[string]struct {
		held    Capabilities
		missing []Capability
	}{
		"all":                                  {CapabilitySet(need...), nil},
		"none":                                 {Capabilities{}, need},
		"one":                                  {CapabilitySet(CapPerfmon), []Capability{CapBPF, CapNetAdmin}},
		"CAP_SYS_ADMIN stands for BPF's alone": {CapabilitySet(CapSysAdmin), []Capability{CapNetAdmin}},
	} {
		t.Run(name, func(t *testing.T) {
			if missing := test.held.Missing(need); !reflect.DeepEqual(missing, test.missing) {
				t.Errorf("Missing() = %v, want %v", missing, test.missing)
			}
		})
	}
}

func TestEveryCapabilityHasANameAndAPurpose(t *testing.T) {
	for _, capability := range []Capability{CapDACReadSearch, CapNetAdmin, CapSysPtrace, CapSysAdmin, CapSysResource,
		CapSyslog, CapPerfmon, CapBPF} {
		if !strings.HasPrefix(capability.Name(), "CAP_") || capability.String() != capability.Name() {
			t.Errorf("capability %d is named %q", uint8(capability), capability.Name())
		}
		if strings.Contains(capability.Purpose(), "not known") {
			t.Errorf("%v has no purpose", capability)
		}
	}
	if unknown := Capability(63); unknown.Name() != "capability 63" || unknown.Purpose() == "" {
		t.Errorf("an unknown capability is %q for %q", unknown.Name(), unknown.Purpose())
	}
}

func TestEffectiveCapabilitiesOfThisProcess(t *testing.T) {
	held, err := EffectiveCapabilities()
	if err != nil {
		t.Fatal(err)
	}
	missing, err := MissingCapabilities([]Capability{CapBPF})
	if err != nil {
		t.Fatal(err)
	}
	if held.Has(CapBPF) == (len(missing) > 0) {
		t.Errorf("holds CAP_BPF: %v, missing: %v", held.Has(CapBPF), missing)
	}
}

func TestPermissionErrorUnwraps(t *testing.T) {
	cause := errors.New("cause")
	if err := (&PermissionError{Doing: "look", Err: cause}); !errors.Is(err, cause) || err.Error() != "look: cause" {
		t.Errorf("got %v", err)
	}
}
