//go:build linux

package kernel

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

func TestPermissionErrorSays(t *testing.T) {
	for name, test := range map[string]struct {
		err  PermissionError
		want string
	}{
		"what is missing": {
			PermissionError{
				Doing: "load BPF programs", Missing: []Capability{CapBPF, CapPerfmon},
				Err: fmt.Errorf("map create: %w (MEMLOCK may be too low)", unix.EPERM),
			},
			"load BPF programs: operation not permitted: this process lacks CAP_BPF (creating BPF maps and loading BPF " +
				"programs), CAP_PERFMON (attaching BPF programs to tracepoints and reading kernel memory); run as root, or " +
				"grant them with setcap or the container's securityContext",
		},
		"why it is missing": {
			PermissionError{Doing: "load BPF programs", Missing: []Capability{CapSyslog}, Causes: []string{"a namespace"}, Err: unix.EPERM},
			"load BPF programs: operation not permitted: this process lacks CAP_SYSLOG (reading kernel symbol addresses); a namespace",
		},
		"what else it may be": {
			PermissionError{Doing: "load BPF programs", Causes: []string{"lockdown", "seccomp"}, Err: unix.EPERM},
			"load BPF programs: operation not permitted; possible causes: lockdown; seccomp",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := test.err.Error(); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestExplain(t *testing.T) {
	if err := Explain("look", nil); err != nil {
		t.Errorf("no error became %v", err)
	}
	if err := Explain("look", os.ErrNotExist); !errors.Is(err, os.ErrNotExist) || !strings.HasPrefix(err.Error(), "look: ") {
		t.Errorf("another error became %v", err)
	}
	var permission *PermissionError
	if err := Explain("look", fmt.Errorf("deep: %w", unix.EACCES)); !errors.As(err, &permission) || !errors.Is(err, unix.EACCES) {
		t.Errorf("EACCES became %v", err)
	}
	if len(permission.Missing) != 0 || len(permission.Causes) == 0 {
		t.Errorf("nothing was needed, so that something else has to be the cause: %+v", permission)
	}
}

// A probe's program is known to be right: how the answer to it is sorted.
func TestAnswer(t *testing.T) {
	f := feature{name: "thing", floor: "5.8", config: "CONFIG_THING"}
	for name, test := range map[string]struct {
		err         error
		unsupported bool
		permission  bool
	}{
		"yes":                     {nil, false, false},
		"an unknown map type":     {unix.EINVAL, true, false},
		"an unknown attribute":    {unix.E2BIG, true, false},
		"an unknown helper":       {fmt.Errorf("load: %w", unix.EINVAL), true, false},
		"a refused helper":        {unix.EACCES, true, false},
		"no such tracepoint":      {os.ErrNotExist, true, false},
		"no such type":            {btf.ErrNotFound, true, false},
		"the kernel's ENOTSUPP":   {errnoNotSupported, true, false},
		"the library's word":      {fmt.Errorf("map: %w", ebpf.ErrNotSupported), true, false},
		"refused":                 {unix.EPERM, false, true},
		"out of memory":           {unix.ENOMEM, false, false},
		"too many open files":     {unix.EMFILE, false, false},
		"something else entirely": {errors.New("?"), false, false},
	} {
		t.Run(name, func(t *testing.T) {
			err := f.answer(test.err)
			if test.err == nil {
				if err != nil {
					t.Errorf("answer() = %v", err)
				}
				return
			}
			var permission *PermissionError
			if errors.Is(err, ErrNotSupported) != test.unsupported || errors.As(err, &permission) != test.permission {
				t.Errorf("answer() = %v", err)
			}
			if !errors.Is(err, test.err) || !strings.Contains(err.Error(), "thing") {
				t.Errorf("answer() = %v, want it to wrap %v and name the feature", err, test.err)
			}
		})
	}
}

func TestUnsupportedErrorSays(t *testing.T) {
	err := &UnsupportedError{Feature: "thing", Floor: "5.8", Config: "CONFIG_THING", Err: unix.EINVAL}
	const want = "this kernel has no thing, which needs Linux 5.8 built with CONFIG_THING: invalid argument"
	if err.Error() != want {
		t.Errorf("got  %s\nwant %s", err, want)
	}
}

func TestLoadCapabilities(t *testing.T) {
	of := func(types ...ebpf.ProgramType) *ebpf.CollectionSpec {
		spec := &ebpf.CollectionSpec{Programs: make(map[string]*ebpf.ProgramSpec)}
		for i, programType := range types {
			spec.Programs[fmt.Sprint(i)] = &ebpf.ProgramSpec{Type: programType}
		}
		return spec
	}
	for name, test := range map[string]struct {
		spec *ebpf.CollectionSpec
		want []Capability
	}{
		"only maps":  {of(), []Capability{CapBPF}},
		"tracing":    {of(ebpf.Tracing, ebpf.RawTracepoint, ebpf.PerfEvent), []Capability{CapBPF, CapPerfmon}},
		"networking": {of(ebpf.CGroupSKB), []Capability{CapBPF, CapNetAdmin}},
		"both":       {of(ebpf.Kprobe, ebpf.SockOps), []Capability{CapBPF, CapPerfmon, CapNetAdmin}},
		"a syscall":  {of(ebpf.Syscall), []Capability{CapBPF}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := loadCapabilities(test.spec); !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestLogTail(t *testing.T) {
	log := []string{"0: (b7) r0 = 0", "1: (95) exit", "", "mark_precise: frame0: last_idx 1", "R1 invalid mem access 'scalar'  ",
		"processed 2 insns (limit 1000000)", "verification time 22 usec", "stack depth 0"}
	want := []string{"0: (b7) r0 = 0", "1: (95) exit", "R1 invalid mem access 'scalar'"}
	if got := logTail(log); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	long := make([]string, 100)
	for i := range long {
		long[i] = fmt.Sprint("line ", i)
	}
	if got := logTail(long); len(got) != 8 || got[7] != "line 99" || got[0] != "line 92" {
		t.Errorf("got %q", got)
	}
	if got := logTail(nil); len(got) != 0 {
		t.Errorf("got %q of nothing", got)
	}
}

func TestExplainLoadWithoutTypes(t *testing.T) {
	missing, err := MissingCapabilities([]Capability{CapBPF})
	if err != nil {
		t.Fatal(err)
	}
	noTypes := errors.New("no types, set a file")
	explained := explainLoad(fmt.Errorf("CO-RE: %w", ebpf.ErrNotSupported), &ebpf.CollectionSpec{}, noTypes)
	if len(missing) > 0 {
		var permission *PermissionError
		if !errors.As(explained, &permission) {
			t.Errorf("without CAP_BPF: %v", explained)
		}
		return
	}
	if !errors.Is(explained, noTypes) || !errors.Is(explained, ebpf.ErrNotSupported) {
		t.Errorf("got %v", explained)
	}
}
