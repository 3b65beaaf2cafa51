//go:build linux

package kernel_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"go.uber.org/zap/zaptest/observer"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel/kerneltest"
)

// object is a BPF object of one raw tracepoint program and a counter map for each CPU.
func object(instructions asm.Instructions) *ebpf.CollectionSpec {
	return &ebpf.CollectionSpec{
		Maps: map[string]*ebpf.MapSpec{
			"losses": {Name: "losses", Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 3},
			"table":  {Name: "table", Type: ebpf.Hash, KeySize: 4, ValueSize: 8, MaxEntries: 100},
		},
		Programs: map[string]*ebpf.ProgramSpec{
			"look_at_me": {Name: "look_at_me", Type: ebpf.RawTracepoint, Instructions: instructions, License: "Dual BSD/GPL"},
		},
	}
}

func harmless() asm.Instructions { return asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()} }

func open(t *testing.T, options kernel.Options) *kernel.Kernel {
	t.Helper()
	opened, err := kernel.Open(options, zaptest.NewLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := opened.Close(); err != nil {
			t.Error(err)
		}
	})
	return opened
}

func TestLoad(t *testing.T) {
	kerneltest.RequireRoot(t)
	opened := open(t, kernel.Options{})
	collection, err := opened.Load(object(harmless()))
	if err != nil {
		t.Fatal(err)
	}
	defer collection.Close()
	if collection.Programs["look_at_me"] == nil || collection.Maps["losses"] == nil {
		t.Error("the collection is not whole")
	}
}

func TestLoadReplacesMaps(t *testing.T) {
	kerneltest.RequireRoot(t)
	opened := open(t, kernel.Options{})
	shared, err := ebpf.NewMap(object(harmless()).Maps["table"])
	if err != nil {
		t.Fatal(err)
	}
	defer shared.Close()
	collection, err := opened.Load(object(harmless()), map[string]*ebpf.Map{"table": shared})
	if err != nil {
		t.Fatal(err)
	}
	defer collection.Close()
	if err := collection.Maps["table"].Put(uint32(1), uint64(2)); err != nil {
		t.Fatal(err)
	}
	var value uint64
	if err := shared.Lookup(uint32(1), &value); err != nil || value != 2 {
		t.Errorf("the shared map holds %d (%v), want 2", value, err)
	}
}

func TestVerifierErrorsAreReadable(t *testing.T) {
	kerneltest.RequireRoot(t)
	opened := open(t, kernel.Options{})
	_, err := opened.Load(object(asm.Instructions{
		asm.Mov.Imm(asm.R1, 0),
		asm.LoadMem(asm.R0, asm.R1, 0, asm.DWord), // of no address
		asm.Return(),
	}))
	var rejected *kernel.RejectedError
	if !errors.As(err, &rejected) {
		t.Fatalf("Load() = %v, want a RejectedError", err)
	}
	var verifier *ebpf.VerifierError
	if !errors.As(err, &verifier) {
		t.Error("the library's error is lost")
	}
	message := err.Error()
	for _, part := range []string{"load BPF programs", "look_at_me", "R1 invalid mem access", "end of the verifier's log:\n\t"} {
		if !strings.Contains(message, part) {
			t.Errorf("the message does not say %q:\n%s", part, message)
		}
	}
	if last := rejected.Tail[len(rejected.Tail)-1]; strings.HasPrefix(last, "processed ") {
		t.Errorf("the message ends in statistics: %q", last)
	}
}

func TestOpenWithWrongBTF(t *testing.T) {
	directory := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(directory, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ path, says string }{
		"a file that is not there": {filepath.Join(directory, "none"), "no such file"},
		"an empty file":            {write("empty", ""), "it is empty"},
		"a text":                   {write("text", "not BTF at all, but long enough for a header"), "text"},
		"a directory":              {directory, "no regular file"},
		"an ELF file without BTF":  {executable, "without a .BTF section"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := kernel.Open(kernel.Options{BTFPath: test.path}, zaptest.NewLogger(t))
			if err == nil {
				t.Fatal("accepted")
			}
			for _, part := range []string{test.path, test.says, "leave the setting empty", "running kernel"} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the message does not say %q: %v", part, err)
				}
			}
			if checked := kernel.CheckBTF(test.path); checked == nil || checked.Error() != err.Error() {
				t.Errorf("CheckBTF says otherwise: %v", checked)
			}
		})
	}
}

func TestOpenWithBTFFromFile(t *testing.T) {
	kerneltest.RequireFeature(t, kernel.HaveBTF())
	types, err := os.ReadFile("/sys/kernel/btf/vmlinux")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kernel.btf")
	if err := os.WriteFile(path, types, 0o600); err != nil {
		t.Fatal(err)
	}
	opened := open(t, kernel.Options{BTFPath: path})
	if opened.BTF() == nil {
		t.Error("there are no types")
	}
	opened.ForgetTypes()
	if opened.BTF() != nil {
		t.Error("there are still types")
	}
}

func TestProgramStatistics(t *testing.T) {
	kerneltest.RequireRoot(t)
	kerneltest.RequireFeature(t, kernel.HaveRunTimeStats())
	kerneltest.RequireFeature(t, kernel.HaveRawTracepoint("sched_process_exec"))
	counting := open(t, kernel.Options{ProgramStats: true})

	collection, err := counting.Load(object(harmless()))
	if err != nil {
		t.Fatal(err)
	}
	defer collection.Close()
	attached, err := link.AttachRawTracepoint(link.RawTracepointOptions{
		Name: "sched_process_exec", Program: collection.Programs["look_at_me"],
	})
	if err != nil {
		t.Fatal(err)
	}
	defer attached.Close()
	const runs = 10
	for range runs {
		if err := exec.Command("/bin/true").Run(); err != nil {
			t.Fatal(err)
		}
	}
	statistics := kernel.ProgramStatistics("test", collection)
	if len(statistics) != 1 {
		t.Fatalf("%d programs, want 1", len(statistics))
	}
	// Others may run programs too while the test counts.
	if got := statistics[0]; got.Probe != "test" || got.Program != "look_at_me" || got.RunCount < runs || got.RunTime <= 0 {
		t.Errorf("got %+v, want %d runs at least", got, runs)
	}
}

func TestReadLosses(t *testing.T) {
	kerneltest.RequireRoot(t)
	collection, err := open(t, kernel.Options{}).Load(object(harmless()))
	if err != nil {
		t.Fatal(err)
	}
	defer collection.Close()
	losses := collection.Maps["losses"]
	perCPU := make([]uint64, ebpf.MustPossibleCPU())
	var want uint64
	for cpu := range perCPU {
		perCPU[cpu] = uint64(cpu + 1)
		want += uint64(cpu + 1)
	}
	if err := losses.Put(uint32(1), perCPU); err != nil {
		t.Fatal(err)
	}
	counts, err := kernel.ReadLosses("test", losses, []string{"ring_full", "storage_full", ""})
	if err != nil {
		t.Fatal(err)
	}
	if len(counts) != 2 || counts[0] != (kernel.LossCount{Probe: "test", Reason: "ring_full"}) ||
		counts[1] != (kernel.LossCount{Probe: "test", Reason: "storage_full", Count: want}) {
		t.Errorf("got %+v", counts)
	}
	if _, err := kernel.ReadLosses("test", losses, []string{"a", "b", "c", "too many"}); err == nil ||
		!strings.Contains(err.Error(), "too many") {
		t.Errorf("a counter beyond the map: %v", err)
	}
}

func TestReadMapUsage(t *testing.T) {
	kerneltest.RequireRoot(t)
	collection, err := open(t, kernel.Options{}).Load(object(harmless()))
	if err != nil {
		t.Fatal(err)
	}
	defer collection.Close()
	table := collection.Maps["table"]
	for entries := range uint32(101) {
		usage, err := kernel.ReadMapUsage("test", "table", table)
		if want := (kernel.MapUsage{Probe: "test", Map: "table", Entries: uint64(entries), Capacity: 100}); err != nil || usage != want {
			t.Fatalf("got %+v, %v; want %+v", usage, err, want)
		}
		if entries < 100 {
			if err := table.Put(entries, uint64(0)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestOpenWithoutLogger(t *testing.T) {
	opened, err := kernel.Open(kernel.Options{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := opened.Close(); err != nil {
		t.Error(err)
	}
	if err := opened.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestOpenLogsNothingAboutAGoodHost(t *testing.T) {
	kerneltest.RequireRoot(t)
	kerneltest.RequireFeature(t, kernel.HaveBTF())
	core, logs := observer.New(zap.WarnLevel)
	opened, err := kernel.Open(kernel.Options{ProgramStats: true}, zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	if logs.Len() != 0 {
		t.Errorf("logged %+v", logs.All())
	}
}
