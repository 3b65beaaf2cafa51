//go:build linux

package workload

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest"
	"golang.org/x/sys/unix"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel/kerneltest"
	"github.com/ebpfreceiver/ebpfreceiver/internal/ring"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// startTable starts a table that follows the kernel's process events.
func startTable(t testing.TB, config Config) *Table {
	t.Helper()
	kerneltest.RequireRoot(t)
	kern, err := kernel.Open(kernel.Options{}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, kern.Close()) })
	table, err := NewTable(config, kern, zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel)))
	require.NoError(t, err)
	require.NoError(t, table.Start())
	t.Cleanup(func() { require.NoError(t, table.Close()) })
	require.NotEmpty(t, table.Attachments(), "the table follows no process events")
	return table
}

// keyOfStarted finds the exact key of a process that the table has seen to start, alive or not.
func (t *Table) keyOfStarted(test testing.TB, pid int) Key {
	test.Helper()
	t.events.catchUp()
	t.mutex.Lock()
	defer t.mutex.Unlock()
	for _, id := range t.processes.Keys() {
		if id.pid == uint32(pid) {
			return Key{PID: id.pid, StartBootNs: t.proc.startBootNs(id.startTicks)}
		}
	}
	test.Fatalf("no event told about process %d", pid)
	return Key{}
}

func count(t testing.TB, table *Table, kind string) uint64 {
	t.Helper()
	for _, event := range table.Stats().Events {
		if event.Kind == kind {
			return event.Count
		}
	}
	t.Fatalf("no count of %s events", kind)
	return 0
}

func loss(t testing.TB, table *Table, reason string) uint64 {
	t.Helper()
	for _, loss := range table.Stats().Losses {
		if loss.Reason == reason {
			return loss.Count
		}
	}
	t.Fatalf("no loss counter %s", reason)
	return 0
}

func TestShortLivedProcessesAreNamed(t *testing.T) {
	table := startTable(t, Config{})
	truePath, err := exec.LookPath("true")
	require.NoError(t, err)
	resolved, err := filepath.EvalSymlinks(truePath)
	require.NoError(t, err)

	complete := 0
	const runs = 50
	for range runs {
		command := exec.Command(truePath, "an argument")
		require.NoError(t, command.Run())
		workload := table.Lookup(table.keyOfStarted(t, command.Process.Pid), Hint{Comm: "true"})
		assert.Equal(t, "true", workload.ExecutableName)
		assert.Equal(t, "true", workload.Service.Name)
		assert.Contains(t, []string{truePath, resolved}, workload.ExecutablePath)
		assert.Equal(t, truePath+" an argument", workload.CommandLine)
		if workload.Complete {
			complete++
		}
	}
	t.Logf("%d of %d were read while they lived", complete, runs)
	assert.Zero(t, loss(t, table, "process_gone"))
}

func TestRateLimitLeavesTheKernelsFacts(t *testing.T) {
	table := startTable(t, Config{ReadsPerSecond: 1e-9, ReadBurst: 1e-9})
	before := count(t, table, "exec_read_later")
	command := exec.Command("/bin/sh", "-c", "exit 0")
	require.NoError(t, command.Run())
	workload := table.Lookup(table.keyOfStarted(t, command.Process.Pid), Hint{})
	assert.False(t, workload.Complete)
	assert.Equal(t, "/bin/sh", workload.ExecutablePath)
	assert.Equal(t, "/bin/sh -c exit 0", workload.CommandLine)
	assert.Equal(t, "sh", workload.Comm)
	assert.Greater(t, count(t, table, "exec_read_later"), before)
}

func TestEnvironmentOfRealPrograms(t *testing.T) {
	table := startTable(t, Config{})
	for _, program := range [][]string{
		{"sh", "-c", "read line || true"},
		{"python3", "-c", "import sys; sys.stdin.readline()"},
		{"cat"},
	} {
		t.Run(program[0], func(t *testing.T) {
			path, err := exec.LookPath(program[0])
			require.NoError(t, err)
			command := exec.Command(path, program[1:]...)
			command.Env = append(os.Environ(), "OTEL_SERVICE_NAME=checkout",
				"OTEL_RESOURCE_ATTRIBUTES=service.namespace=shop,service.version=1%2E2,team=a%2Cb")
			stdin, err := command.StdinPipe()
			require.NoError(t, err)
			require.NoError(t, command.Start())
			key := table.keyOfStarted(t, command.Process.Pid)
			var workload *Workload
			// A wrapper (pyenv) executes the program itself a moment later.
			require.Eventually(t, func() bool {
				workload = table.Lookup(key, Hint{})
				return strings.HasPrefix(workload.ExecutableName, program[0]) || program[0] == "sh"
			}, 10*time.Second, 10*time.Millisecond)
			executable, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", command.Process.Pid))
			require.NoError(t, err)
			assert.Equal(t, executable, workload.ExecutablePath)
			assert.Equal(t, "checkout", workload.Service.Name)
			assert.Equal(t, "shop", workload.Service.Namespace)
			assert.Equal(t, "1.2", workload.Service.Version)
			assert.Equal(t, []Attribute{{Key: "team", Value: "a,b"}}, workload.Attributes)
			assert.True(t, workload.Complete)
			assert.WithinDuration(t, time.Now(), workload.StartTime, time.Minute)
			require.NoError(t, stdin.Close())
			require.NoError(t, command.Wait())
		})
	}
}

func TestExecReplacesTheIdentity(t *testing.T) {
	table := startTable(t, Config{})
	command := exec.Command("/bin/sh", "-c", "read line; exec cat")
	stdin, err := command.StdinPipe()
	require.NoError(t, err)
	stdout, err := command.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, command.Start())
	key := table.keyOfStarted(t, command.Process.Pid)
	before := table.Lookup(key, Hint{})
	shell, err := filepath.EvalSymlinks("/bin/sh")
	require.NoError(t, err)
	require.Equal(t, shell, before.ExecutablePath)

	_, err = io.WriteString(stdin, "go\nhello\n")
	require.NoError(t, err)
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "hello\n", line, "cat does not run")

	table.events.catchUp()
	after := table.Lookup(key, Hint{})
	assert.Equal(t, "cat", after.ExecutableName)
	assert.Equal(t, "cat", after.CommandLine)
	assert.True(t, after.Complete)
	assert.Equal(t, shell, before.ExecutablePath, "a workload changed after it was returned")
	require.NoError(t, stdin.Close())
	require.NoError(t, command.Wait())
}

// buildC compiles a C program for a test.
func buildC(t *testing.T, name, source string) string {
	t.Helper()
	directory := t.TempDir()
	file := filepath.Join(directory, name+".c")
	require.NoError(t, os.WriteFile(file, []byte(source), 0o600))
	program := filepath.Join(directory, name)
	output, err := exec.Command("cc", "-O1", "-pthread", "-o", program, file).CombinedOutput()
	require.NoError(t, err, "compile: %s", output)
	return program
}

func TestForkWithoutExecInheritsTheIdentity(t *testing.T) {
	program := buildC(t, "forker", `
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
int main(void)
{
	int child, grandchild = 0, ends[2];
	char line;
	if (read(0, &line, 1) != 1 || pipe(ends))
		return 1;
	if (!(child = fork())) {
		if (!(grandchild = fork()))
			_exit(0);
		wait(0);
		_exit(write(ends[1], &grandchild, sizeof(grandchild)) < 0);
	}
	wait(0);
	if (read(ends[0], &grandchild, sizeof(grandchild)) < 0)
		return 1;
	printf("%d %d\n", child, grandchild);
	fflush(stdout);
	return read(0, &line, 1) < 0;
}`)
	for _, parentKnown := range []bool{true, false} {
		t.Run(fmt.Sprintf("parent known %v", parentKnown), func(t *testing.T) {
			command := exec.Command(program, "--flag")
			command.Env = []string{"OTEL_SERVICE_NAME=forking"}
			stdin, err := command.StdinPipe()
			require.NoError(t, err)
			stdout, err := command.StdoutPipe()
			require.NoError(t, err)
			var table *Table
			if parentKnown {
				table = startTable(t, Config{})
				require.NoError(t, command.Start())
				table.Lookup(table.keyOfStarted(t, command.Process.Pid), Hint{})
			} else {
				// It runs already, and has been forgotten.
				require.NoError(t, command.Start())
				table = startTable(t, Config{})
				key, err := table.KeyOf(uint32(command.Process.Pid))
				require.NoError(t, err)
				require.Eventually(t, func() bool {
					table.mutex.Lock()
					defer table.mutex.Unlock()
					return table.processes.Remove(table.identify(key))
				}, 10*time.Second, time.Millisecond, "processes that run already are not read")
			}
			_, err = io.WriteString(stdin, "x")
			require.NoError(t, err)
			var child, grandchild int
			_, err = fmt.Fscan(stdout, &child, &grandchild)
			require.NoError(t, err)
			for _, pid := range []int{child, grandchild} {
				require.Error(t, unix.Kill(pid, 0), "the child is alive")
				workload := table.Lookup(table.keyOfStarted(t, pid), Hint{Comm: "forker"})
				assert.Equal(t, program, workload.ExecutablePath)
				assert.Equal(t, "forking", workload.Service.Name)
				assert.Equal(t, program+" --flag", workload.CommandLine)
				assert.Equal(t, uint32(pid), workload.PID)
				assert.False(t, workload.Complete)
			}
			assert.Zero(t, loss(t, table, "process_gone"))
			require.NoError(t, stdin.Close())
			require.NoError(t, command.Wait())
		})
	}
}

func TestLookupOvertakesTheExecEvent(t *testing.T) {
	table := startTable(t, Config{})
	command := exec.Command("/bin/true")
	require.NoError(t, command.Start())
	key, err := table.KeyOf(uint32(command.Process.Pid)) // A zombie still has its start time.
	require.NoError(t, err)
	require.NoError(t, command.Wait())
	workload := table.Lookup(key, Hint{Comm: "other"})
	assert.Equal(t, "true", workload.ExecutableName)
}

func TestDeletedExecutable(t *testing.T) {
	program := buildC(t, "vanishing", "#include <unistd.h>\nint main(void) { char line; return read(0, &line, 1) < 0; }")
	command := exec.Command(program)
	stdin, err := command.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, command.Start())
	require.NoError(t, os.Remove(program))
	table, err := NewTable(Config{}, nil, nil)
	require.NoError(t, err)
	defer table.Close()
	key, err := table.KeyOf(uint32(command.Process.Pid))
	require.NoError(t, err)
	workload := table.Lookup(key, Hint{})
	assert.Equal(t, program, workload.ExecutablePath)
	assert.Equal(t, "vanishing", workload.Service.Name)
	require.NoError(t, stdin.Close())
	require.NoError(t, command.Wait())
}

// startWithPID starts a program under a pid of our choice, which needs a moment without other forks.
func startWithPID(t *testing.T, pid int, program string, arguments ...string) *exec.Cmd {
	t.Helper()
	for range 200 {
		command := exec.Command(program, arguments...)
		stdin, err := command.StdinPipe()
		require.NoError(t, err)
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", fmt.Append(nil, pid-1), 0); errors.Is(err, os.ErrPermission) {
			t.Skipf("the kernel does not let us choose a pid (CAP_CHECKPOINT_RESTORE): %v", err)
		} else {
			require.NoError(t, err)
		}
		require.NoError(t, command.Start())
		if command.Process.Pid == pid {
			t.Cleanup(func() { stdin.Close(); command.Wait() })
			return command
		}
		require.NoError(t, stdin.Close())
		require.NoError(t, command.Wait())
	}
	t.Fatalf("pid %d was never given to us", pid)
	return nil
}

func TestReusedPID(t *testing.T) {
	for _, follow := range []bool{true, false} {
		t.Run(fmt.Sprintf("following %v", follow), func(t *testing.T) {
			var table *Table
			if follow {
				table = startTable(t, Config{})
			} else {
				var err error
				table, err = NewTable(Config{}, nil, nil)
				require.NoError(t, err)
				defer table.Close()
			}
			first := exec.Command("tee")
			stdin, err := first.StdinPipe()
			require.NoError(t, err)
			stdout, err := first.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, first.Start())
			// Only an answer says that it has executed its program: a signal may still end it within exec.
			_, err = stdin.Write([]byte("?"))
			require.NoError(t, err)
			_, err = io.ReadFull(stdout, make([]byte, 1))
			require.NoError(t, err)
			pid := first.Process.Pid
			key, err := table.KeyOf(uint32(pid))
			require.NoError(t, err)
			require.NoError(t, first.Process.Kill())
			require.Error(t, first.Wait())
			time.Sleep(20 * time.Millisecond) // Two clock ticks: the next cannot have started with it.

			startWithPID(t, pid, "cat")
			newKey, err := table.KeyOf(uint32(pid))
			require.NoError(t, err)
			require.NotEqual(t, key, newKey)

			old := table.Lookup(key, Hint{Comm: "tee"})
			assert.Equal(t, "tee", old.ExecutableName)
			assert.NotContains(t, old.CommandLine, "cat")
			assert.False(t, old.Complete && !follow)
			current := table.Lookup(newKey, Hint{})
			assert.Equal(t, "cat", current.ExecutableName)
			assert.Same(t, old, table.Lookup(key, Hint{}))
		})
	}
}

func TestStormOfExecs(t *testing.T) {
	table := startTable(t, Config{})
	before := count(t, table, "exec")
	lostBefore := table.events.lost()
	const runs, parallel = 1000, 4
	var pids sync.Map
	var running sync.WaitGroup
	for range parallel {
		running.Go(func() {
			for range runs / parallel {
				command := exec.Command("/bin/true")
				if assert.NoError(t, command.Run()) {
					pids.Store(command.Process.Pid, true)
				}
			}
		})
	}
	running.Wait()
	table.events.catchUp()
	seen := count(t, table, "exec") - before
	lost := table.events.lost() - lostBefore
	assert.GreaterOrEqual(t, seen+lost, uint64(runs), "an exec was neither seen nor counted as lost")
	assert.Zero(t, lost)
	complete, named := 0, 0
	pids.Range(func(pid, _ any) bool {
		workload := table.Lookup(table.keyOfStarted(t, pid.(int)), Hint{})
		if workload.Complete {
			complete++
		}
		if workload.ExecutableName == "true" {
			named++
		}
		return true
	})
	t.Logf("of %d: %d named, %d of them read while they lived; %d left to the first lookup", runs, named, complete,
		count(t, table, "exec_read_later"))
	assert.Equal(t, runs, named)
}

func TestSmallRingCountsWhatItLoses(t *testing.T) {
	table := startTable(t, Config{RingBytes: 4096})
	before := count(t, table, "fork") + count(t, table, "exec") + count(t, table, "exit")
	lostBefore := table.events.lost()
	// One shell forks faster than a page can hold.
	const forks = 2000
	output, err := exec.Command("/bin/sh", "-c", fmt.Sprintf(
		"i=0; while [ $i -lt %d ]; do (:); i=$((i+1)); done", forks)).CombinedOutput()
	require.NoError(t, err, "%s", output)
	table.events.catchUp()
	seen := count(t, table, "fork") + count(t, table, "exec") + count(t, table, "exit") - before
	lost := table.events.lost() - lostBefore
	t.Logf("%d seen, %d lost", seen, lost)
	assert.GreaterOrEqual(t, seen+lost, uint64(2*forks))
	assert.Equal(t, lost, loss(t, table, "ring_full")-lostBefore)
}

func TestExitsAreForgotten(t *testing.T) {
	table := startTable(t, Config{ExitGrace: 200 * time.Millisecond})
	command := exec.Command("/bin/true")
	require.NoError(t, command.Run())
	key := table.keyOfStarted(t, command.Process.Pid)
	require.Equal(t, "true", table.Lookup(key, Hint{}).ExecutableName)
	require.Eventually(t, func() bool {
		table.mutex.Lock()
		defer table.mutex.Unlock()
		return !table.processes.Contains(table.identify(key))
	}, 10*time.Second, 20*time.Millisecond, "a process that has ended is kept for good")
}

func TestThreadsAreNoProcesses(t *testing.T) {
	program := buildC(t, "threads", `
#include <pthread.h>
#include <unistd.h>
static void *run(void *unused) { return unused; }
int main(void)
{
	char line;
	for (int i = 0; i < 100; i++) {
		pthread_t thread;
		if (pthread_create(&thread, 0, run, 0) || pthread_join(thread, 0))
			return 1;
	}
	return read(0, &line, 1) < 0;
}`)
	table := startTable(t, Config{})
	command := exec.Command(program)
	stdin, err := command.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, command.Start())
	key := table.keyOfStarted(t, command.Process.Pid)
	require.NoError(t, stdin.Close())
	require.NoError(t, command.Wait())
	table.events.catchUp()
	table.mutex.Lock()
	defer table.mutex.Unlock()
	known, found := table.processes.Peek(table.identify(key))
	require.True(t, found)
	assert.True(t, known.exited)
	for _, id := range table.processes.Keys() {
		other, _ := table.processes.Peek(id)
		assert.False(t, other.parent == key, "a thread was taken for a process")
	}
}

// The raw tracepoints serve where a kernel has no BTF tracepoints; the same events come through both, and through both
// kinds of ring.
func TestRawTracepoints(t *testing.T) {
	kerneltest.RequireRoot(t)
	kern, err := kernel.Open(kernel.Options{}, nil)
	require.NoError(t, err)
	defer kern.Close()
	for _, kind := range []ring.Kind{ring.RingBuffer, ring.PerfBuffer} {
		t.Run(kind.String(), func(t *testing.T) { testRawTracepoints(t, kern, ring.Config{Kind: kind}) })
	}
}

func testRawTracepoints(t *testing.T, kern *kernel.Kernel, config ring.Config) {
	events := newProcessEvents()
	attached, err := events.attachRaw(kern, config)
	require.NoError(t, err)
	defer attached.Close()
	events.reader, err = ring.NewReader(events.collection.Maps[bpfMapEvents], config)
	require.NoError(t, err)
	defer events.reader.Close()

	command := exec.Command("/bin/true", "raw")
	require.NoError(t, command.Run())
	kinds := map[bpfProcessEventKind]int{}
	require.NoError(t, events.reader.Wake())
	require.NoError(t, events.drain(func(sample []byte) {
		event, err := decodeEvent(sample)
		require.NoError(t, err)
		if event.process.PID == uint32(command.Process.Pid) {
			kinds[event.kind]++
			if event.executed != nil {
				assert.Equal(t, "/bin/true raw", event.executed.commandLine)
			}
		}
	}))
	assert.Equal(t, 1, kinds[bpfProcessEventKindPROCESS_FORK])
	assert.Equal(t, 1, kinds[bpfProcessEventKindPROCESS_EXEC])
	assert.Equal(t, 1, kinds[bpfProcessEventKindPROCESS_EXIT])
}

func TestCgroupByID(t *testing.T) {
	kerneltest.RequireRoot(t)
	tree, err := openCgroupTree("/proc", "/sys/fs/cgroup")
	require.NoError(t, err)
	defer tree.close()
	const id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	directory := filepath.Join(tree.mountPoint, "workload-test", "docker-"+id+".scope")
	require.NoError(t, os.MkdirAll(directory, 0o755))
	t.Cleanup(func() {
		assert.NoError(t, os.Remove(directory))
		assert.NoError(t, os.Remove(filepath.Dir(directory)))
	})
	var status unix.Stat_t
	require.NoError(t, unix.Stat(directory, &status))
	want := "/workload-test/docker-" + id + ".scope"

	t.Run("handle", func(t *testing.T) {
		path, err := tree.openByHandle(status.Ino)
		require.NoError(t, err)
		assert.Equal(t, want, path)
	})
	t.Run("walk", func(t *testing.T) {
		walking, err := openCgroupTree("/proc", "/sys/fs/cgroup")
		require.NoError(t, err)
		defer walking.close()
		walking.byHandle = false
		assert.Equal(t, want, walking.path(status.Ino))
		assert.Empty(t, walking.path(1<<40), "a cgroup that does not exist has a path")
	})
	t.Run("gone process", func(t *testing.T) {
		table, err := NewTable(Config{}, nil, nil)
		require.NoError(t, err)
		defer table.Close()
		workload := table.Lookup(Key{PID: 1, StartBootNs: 1e15}, Hint{Comm: "gone", CgroupID: status.Ino})
		assert.Equal(t, id, workload.ContainerID)
		assert.Equal(t, "gone", workload.Service.Name)
		assert.False(t, workload.Complete)
	})
	t.Run("process in it", func(t *testing.T) {
		table := startTable(t, Config{ReadsPerSecond: 1e-9, ReadBurst: 1e-9})
		command := exec.Command("/bin/sh", "-c", "echo $$ > "+directory+"/cgroup.procs && exec /bin/true")
		require.NoError(t, command.Run())
		workload := table.Lookup(table.keyOfStarted(t, command.Process.Pid), Hint{})
		assert.Equal(t, id, workload.ContainerID, "the cgroup of the exec event was not used")
		assert.Equal(t, "true", workload.ExecutableName)
	})
	t.Run("root", func(t *testing.T) {
		require.NoError(t, unix.Stat(tree.mountPoint, &status))
		assert.Equal(t, "/", tree.path(status.Ino))
	})
	t.Run("removed", func(t *testing.T) {
		other := filepath.Join(tree.mountPoint, "workload-test-removed")
		require.NoError(t, os.Mkdir(other, 0o755))
		require.NoError(t, unix.Stat(other, &status))
		require.NoError(t, os.Remove(other))
		assert.Empty(t, tree.path(status.Ino))
	})
}

// nginx writes the title of its processes over their environment, and its workers never execute anything.
func TestWorkersOfNginxAreOneInstance(t *testing.T) {
	nginx, err := exec.LookPath("nginx")
	require.NoError(t, err, "install nginx")
	directory := t.TempDir()
	configuration := filepath.Join(directory, "nginx.conf")
	require.NoError(t, os.WriteFile(configuration, fmt.Appendf(nil, `
daemon off;
worker_processes 2;
pid %[1]s/pid;
error_log %[1]s/log;
events {}
http { access_log off; server { listen unix:%[1]s/socket; } }
`, directory), 0o600))
	table := startTable(t, Config{})
	command := exec.Command(nginx, "-c", configuration)
	command.Env = append(os.Environ(), "OTEL_SERVICE_NAME=gateway")
	require.NoError(t, command.Start())
	children := fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", command.Process.Pid)
	var workers []int
	require.Eventually(t, func() bool {
		workers = nil
		content, _ := os.ReadFile(children)
		for field := range strings.FieldsSeq(string(content)) {
			var worker int
			if _, err := fmt.Sscan(field, &worker); err == nil {
				workers = append(workers, worker)
			}
		}
		return len(workers) == 2
	}, 10*time.Second, 10*time.Millisecond, "nginx has no workers")

	master := table.Lookup(table.keyOfStarted(t, command.Process.Pid), Hint{})
	assert.Equal(t, "gateway", master.Service.Name)
	for _, pid := range workers {
		require.Eventually(t, func() bool {
			title, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			return strings.HasPrefix(string(title), "nginx: worker process")
		}, 10*time.Second, 10*time.Millisecond)
		worker := table.Lookup(table.keyOfStarted(t, pid), Hint{})
		assert.True(t, worker.Complete)
		assert.Equal(t, "nginx: worker process", worker.CommandLine)
		assert.Equal(t, master.ResourceKey(), worker.ResourceKey())
		assert.Equal(t, master.Service.InstanceID, worker.Service.InstanceID)
	}
	require.NoError(t, command.Process.Signal(unix.SIGTERM))
	require.NoError(t, command.Wait())
}

// In a time namespace /proc shows other start times than the kernel's events tell.
func TestTimeNamespace(t *testing.T) {
	const variable = "WORKLOAD_TEST_KEY"
	if text := os.Getenv(variable); text != "" {
		var key Key
		var startedUnix int64
		_, err := fmt.Sscan(text, &key.PID, &key.StartBootNs, &startedUnix)
		require.NoError(t, err)
		table, err := NewTable(Config{}, nil, nil)
		require.NoError(t, err)
		defer table.Close()
		require.NotZero(t, table.proc.bootTimeOffsetNs)
		workload := table.Lookup(key, Hint{})
		assert.True(t, workload.Complete)
		assert.Equal(t, "sleep", workload.ExecutableName)
		assert.WithinDuration(t, time.Unix(startedUnix, 0), workload.StartTime, time.Minute)
		return
	}
	kerneltest.RequireRoot(t)
	if _, err := os.Stat("/proc/self/ns/time"); err != nil {
		t.Skipf("the kernel has no time namespaces (CONFIG_TIME_NS, 5.6): %v", err)
	}
	sleep := exec.Command("sleep", "100")
	require.NoError(t, sleep.Start())
	defer func() {
		assert.NoError(t, sleep.Process.Kill())
		assert.Error(t, sleep.Wait())
	}()
	table, err := NewTable(Config{}, nil, nil)
	require.NoError(t, err)
	defer table.Close()
	key, err := table.KeyOf(uint32(sleep.Process.Pid))
	require.NoError(t, err)
	program, err := os.Executable()
	require.NoError(t, err)
	for _, offset := range []string{"100000", "-100"} {
		command := exec.Command("unshare", "--time", "--boottime", offset, "--fork", program,
			"-test.run", "^TestTimeNamespace$")
		command.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d %d", variable, key.PID, key.StartBootNs, time.Now().Unix()))
		output, err := command.CombinedOutput()
		require.NoError(t, err, "%s", output)
	}
}

func BenchmarkLookupHitFollowing(b *testing.B) {
	table := startTable(b, Config{})
	key, err := table.KeyOf(uint32(os.Getpid()))
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		if table.Lookup(key, Hint{Comm: "workload.test"}) == nil {
			b.Fatal("nothing")
		}
	}
}

// What a short process costs with and without the table, in the life of the process itself.
func BenchmarkShortProcess(b *testing.B) {
	run := func(b *testing.B) {
		for b.Loop() {
			require.NoError(b, exec.Command("/bin/true").Run())
		}
	}
	b.Run("alone", run)
	b.Run("followed", func(b *testing.B) {
		startTable(b, Config{})
		run(b)
	})
}

func TestStartWithoutPrivileges(t *testing.T) {
	var log bytes.Buffer
	table, err := NewTable(Config{}, nil, bufferLogger(&log))
	require.NoError(t, err)
	require.NoError(t, table.Start())
	require.Error(t, table.Start(), "started twice")
	assert.Empty(t, table.Attachments())
	key, err := table.KeyOf(uint32(os.Getpid()))
	require.NoError(t, err)
	assert.Equal(t, "workload.test", table.Lookup(key, Hint{}).ExecutableName)
	require.NoError(t, table.Close())
	require.NoError(t, table.Close())
	assert.Equal(t, 1, strings.Count(log.String(), "processes are followed by reading /proc only"), log.String())
}

// bufferLogger writes what a user would see.
func bufferLogger(buffer *bytes.Buffer) *zap.Logger {
	encoder := zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig())
	return zap.New(zapcore.NewCore(encoder, zapcore.AddSync(buffer), zap.InfoLevel))
}

func TestExecutionsAreTold(t *testing.T) {
	table := startTable(t, Config{})
	first, second := make(chan Key, 1000), make(chan Key, 1000)
	stopFirst := table.OnExec(func(key Key) { first <- key })
	stopSecond := table.OnExec(func(key Key) { second <- key })
	defer stopSecond()
	told := func(told chan Key, pid int) bool {
		for {
			select {
			case key := <-told:
				if int(key.PID) == pid {
					assert.NotZero(t, key.StartBootNs)
					return true
				}
			case <-time.After(5 * time.Second):
				return false
			}
		}
	}
	run := func() int {
		command := exec.Command("/bin/true")
		require.NoError(t, command.Run())
		return command.Process.Pid
	}
	pid := run()
	assert.True(t, told(first, pid))
	assert.True(t, told(second, pid))

	stopFirst()
	for len(first) > 0 {
		<-first
	}
	assert.True(t, told(second, run()))
	assert.Empty(t, first)
}
