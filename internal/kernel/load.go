//go:build linux

package kernel

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// RejectedError is a BPF program that the kernel's verifier did not accept, with the end of the verifier's log.
type RejectedError struct {
	Err  error    // names the program
	Tail []string // the last meaningful lines of the log
}

func (e *RejectedError) Error() string {
	var message strings.Builder
	fmt.Fprintf(&message, "the kernel's verifier rejected a BPF program (please report this with the kernel's release): %v", e.Err)
	if len(e.Tail) > 0 {
		message.WriteString("\nend of the verifier's log:")
		for _, line := range e.Tail {
			message.WriteString("\n\t")
			message.WriteString(line)
		}
	}
	return message.String()
}

func (e *RejectedError) Unwrap() error { return e.Err }

// Load loads the maps and programs of spec, with the kernel types that Open found. Maps named in replacements are used in
// place of new ones. The caller closes the collection.
func (k *Kernel) Load(spec *ebpf.CollectionSpec, replacements ...map[string]*ebpf.Map) (*ebpf.Collection, error) {
	merged := make(map[string]*ebpf.Map)
	for _, replacement := range replacements {
		for name, replaced := range replacement {
			merged[name] = replaced
		}
	}
	collection, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
		Programs:        ebpf.ProgramOptions{KernelTypes: k.types},
		MapReplacements: merged,
	})
	if err != nil {
		return nil, explainLoad(err, spec, k.typesErr)
	}
	return collection, nil
}

// explainLoad makes an error of ebpf.NewCollectionWithOptions readable. typesErr is why there are no kernel types.
func explainLoad(err error, spec *ebpf.CollectionSpec, typesErr error) error {
	const doing = "load BPF programs"
	need := loadCapabilities(spec)
	// Without the capabilities a library's probe for some detail may fail first and name that instead.
	if missing, capErr := MissingCapabilities(need); capErr == nil && len(missing) > 0 {
		return &PermissionError{Doing: doing, Missing: missing, Causes: namespaceCause(), Err: err}
	}
	var verifier *ebpf.VerifierError
	switch {
	case errors.Is(err, unix.EPERM):
		return Explain(doing, err, need...)
	case errors.As(err, &verifier) && len(verifier.Log) > 0:
		return fmt.Errorf("%s: %w", doing, &RejectedError{Err: err, Tail: logTail(verifier.Log)})
	case typesErr != nil && (errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, btf.ErrNotFound)):
		return fmt.Errorf("%s: %w: %w", doing, err, typesErr)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// loadCapabilities returns what the kernel asks for to load these programs, see bpf_prog_load() in kernel/bpf/syscall.c.
func loadCapabilities(spec *ebpf.CollectionSpec) []Capability {
	need := []Capability{CapBPF}
	add := func(capability Capability) {
		if !slices.Contains(need, capability) {
			need = append(need, capability)
		}
	}
	for _, program := range spec.Programs {
		switch program.Type {
		case ebpf.Tracing, ebpf.TracePoint, ebpf.RawTracepoint, ebpf.RawTracepointWritable, ebpf.Kprobe,
			ebpf.PerfEvent, ebpf.LSM:
			add(CapPerfmon)
		case ebpf.Syscall:
		default:
			add(CapNetAdmin)
		}
	}
	slices.Sort(need)
	slices.Reverse(need) // CAP_BPF first
	return need
}

// logTail picks the end of a verifier log, without the statistics and the verifier's notes to itself.
func logTail(log []string) []string {
	const lines = 8
	var tail []string
	for _, line := range slices.Backward(log) {
		if isLogNoise(line) {
			continue
		}
		tail = append(tail, strings.TrimRight(line, " \t"))
		if len(tail) == lines {
			break
		}
	}
	slices.Reverse(tail)
	return tail
}

func isLogNoise(line string) bool {
	line = strings.TrimSpace(line)
	if line == "" {
		return true
	}
	for _, prefix := range []string{"processed ", "verification time ", "stack depth ", "mark_precise: ",
		"parent didn't have regs=", "parent already had regs=", "last_idx ", "regs=", "insns processed"} {
		if strings.HasPrefix(line, prefix) {
			return true
		}
	}
	return false
}
