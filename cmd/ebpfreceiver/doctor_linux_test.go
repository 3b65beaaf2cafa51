package main

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel/kerneltest"
)

// asCommand makes the test binary be the command.
const asCommand = "EBPFRECEIVER_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
	}
	os.Exit(m.Run())
}

// runAsProcess runs the command in a process of its own and returns what it printed and its exit code.
func runAsProcess(t *testing.T, attributes *syscall.SysProcAttr, arguments ...string) (output string, code int) {
	t.Helper()
	command := exec.Command(readableByAll(t), append([]string{"doctor"}, arguments...)...)
	command.Env = append(os.Environ(), asCommand+"=1")
	command.Dir = "/"
	command.SysProcAttr = attributes
	printed, err := command.CombinedOutput()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	t.Logf("%v\n%s", command.ProcessState, printed)
	return string(printed), command.ProcessState.ExitCode()
}

// readableByAll copies this executable to where every user may run it.
func readableByAll(t *testing.T) string {
	t.Helper()
	directory, err := os.MkdirTemp("", "doctor")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(directory) })
	own, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	path := filepath.Join(directory, "ebpfreceiver")
	copied, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(copied, own); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(copied.Close(), os.Chmod(directory, 0o755), os.Chmod(path, 0o755)); err != nil {
		t.Fatal(err)
	}
	return path
}

func nobody() *syscall.Credential {
	return &syscall.Credential{Uid: 65534, Gid: 65534, Groups: []uint32{}}
}

// basicsExpected are the features that doctor promises TCP metrics by, asked one by one.
func basicsExpected() bool {
	for _, answer := range []error{kernel.HaveBTF(), kernel.HaveTracingTracepoint("inet_sock_set_state"),
		kernel.HaveSocketStorage(), kernel.HaveAtomics64()} {
		if answer != nil {
			return false
		}
	}
	return true
}

func TestDoctorAsRoot(t *testing.T) {
	kerneltest.RequireRoot(t)
	output, code := runAsProcess(t, nil)
	want, says := exitGood, "\nTCP metrics and flow logs work on this host.\n"
	if !basicsExpected() {
		want, says = exitBad, "\nTCP metrics and flow logs do not work on this host: "
	}
	if code != want || !strings.Contains(output, says) {
		t.Errorf("exit code %d, want %d and %q", code, want, says)
	}
}

func TestDoctorWithoutPrivileges(t *testing.T) {
	attributes := &syscall.SysProcAttr{}
	if os.Getuid() == 0 {
		attributes.Credential = nobody()
	}
	output, code := runAsProcess(t, attributes)
	if code != exitBad {
		t.Errorf("exit code %d, want %d", code, exitBad)
	}
	for _, part := range []string{
		"lacks CAP_BPF (creating BPF maps and loading BPF programs), CAP_PERFMON (",
		"\nTCP metrics and flow logs do not work on this host: this process lacks CAP_BPF, CAP_PERFMON: run it as root",
	} {
		if !strings.Contains(output, part) {
			t.Errorf("the output does not say %q", part)
		}
	}
}

// What the README promises: two capabilities are enough.
func TestDoctorWithTwoCapabilities(t *testing.T) {
	kerneltest.RequireRoot(t)
	if !basicsExpected() {
		kerneltest.RequireFeature(t, errors.Join(kernel.HaveBTF(), kernel.HaveSocketStorage(), kernel.HaveAtomics64()))
	}
	output, code := runAsProcess(t, &syscall.SysProcAttr{
		Credential:  nobody(),
		AmbientCaps: []uintptr{unix.CAP_BPF, unix.CAP_PERFMON},
	})
	if code != exitGood || !strings.Contains(output, "CAP_BPF, CAP_PERFMON") {
		t.Errorf("exit code %d, want %d", code, exitGood)
	}
}

func TestDoctorInAUserNamespace(t *testing.T) {
	kerneltest.RequireRoot(t)
	output, code := runAsProcess(t, &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}},
	})
	if code != exitBad || !strings.Contains(output, "user namespace (a rootless container)") {
		t.Errorf("exit code %d, want %d and the user namespace named", code, exitBad)
	}
}

func TestDoctorWithAWrongBTFFile(t *testing.T) {
	output, code := runAsProcess(t, nil, "-btf", "/etc/hostname")
	if code != exitBad || !strings.Contains(output, `BTF file "/etc/hostname"`) {
		t.Errorf("exit code %d, want %d and the file named", code, exitBad)
	}
}

// A kernel without type information, played by hiding it in a mount namespace of the command's own.
func TestDoctorWithoutBTF(t *testing.T) {
	kerneltest.RequireRoot(t)
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		output, code := runAsProcess(t, nil)
		checkNoBTF(t, output, code)
		return
	}
	shell := exec.Command("/bin/sh", "-c", `mount -t tmpfs none /sys/kernel/btf && exec "$0" doctor`, readableByAll(t))
	shell.Env = append(os.Environ(), asCommand+"=1")
	shell.Dir = "/"
	shell.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	printed, _ := shell.CombinedOutput() // judged by its exit code
	checkNoBTF(t, string(printed), shell.ProcessState.ExitCode())
}

func checkNoBTF(t *testing.T, output string, code int) {
	t.Helper()
	if code != exitBad || !strings.Contains(output, "no type information (BTF) of its own") {
		t.Errorf("exit code %d, want %d and the missing types named:\n%s", code, exitBad, output)
	}
}
