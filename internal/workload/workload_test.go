//go:build linux

package workload

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
)

var testHost = host{name: "node-1", id: "machine"}

func TestServiceRules(t *testing.T) {
	tests := []struct {
		name  string
		known facts
		want  Service // without its instance id
	}{
		{"the executable's name", facts{executablePath: "/usr/sbin/nginx", comm: "ng"}, Service{Name: "nginx"}},
		{"of an interpreter too", facts{executablePath: "/usr/bin/python3.11"}, Service{Name: "python3.11"}},
		{"an executable without a path", facts{executableName: "server", comm: "thread-1"}, Service{Name: "server"}},
		{"the kernel's name for it", facts{comm: "curl"}, Service{Name: "curl"}},
		{"a kernel thread", facts{comm: "kworker/u4:2-events", kernelThread: true}, Service{Name: "kworker"}},
		{"nothing", facts{}, Service{Name: "unknown_service"}},
		{
			"the environment",
			facts{executablePath: "/a/b", environment: environment{service: Service{Name: "n", Namespace: "s", Version: "1"}}},
			Service{Name: "n", Namespace: "s", Version: "1"},
		},
		{
			"a version alone", facts{executablePath: "/a/b", environment: environment{service: Service{Version: "1"}}},
			Service{Name: "b", Version: "1"},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			service := newWorkload(1, time.Time{}, test.known, testHost).Service
			assert.NotEmpty(t, service.InstanceID)
			service.InstanceID = ""
			assert.Equal(t, test.want, service)
		})
	}
}

func TestInstanceID(t *testing.T) {
	nginx := facts{executablePath: "/usr/sbin/nginx", cgroup: cgroupIdentity{path: "/system.slice/nginx.service"}}
	id := func(known facts, host host) string {
		return newWorkload(1, time.Time{}, known, host).Service.InstanceID
	}
	first := id(nginx, testHost)

	parsed, err := uuid.Parse(first)
	require.NoError(t, err)
	assert.Equal(t, uuid.Version(5), parsed.Version())

	worker := newWorkload(2, time.Now(), nginx, testHost)
	assert.Equal(t, first, worker.Service.InstanceID, "the workers of a service are one instance, also after a restart")
	renamed := testHost
	renamed.name = "other"
	assert.Equal(t, first, id(nginx, renamed), "a host may be renamed")
	assert.NotEqual(t, first, id(nginx, host{name: "node-1", id: "other machine"}))

	elsewhere := nginx
	elsewhere.cgroup.path = "/system.slice/other.service"
	assert.NotEqual(t, first, id(elsewhere, testHost))

	contained := nginx
	contained.cgroup = cgroupIdentity{path: "/docker/c1", containerID: "c1"}
	inContainer := id(contained, testHost)
	assert.NotEqual(t, first, inContainer)
	contained.cgroup.path = "/docker/c1/init.scope"
	assert.Equal(t, inContainer, id(contained, testHost), "within a container its cgroups do not matter")

	set := nginx
	set.environment.service.InstanceID = "mine"
	assert.Equal(t, "mine", id(set, testHost))
}

func TestPutResource(t *testing.T) {
	known := facts{
		executablePath: "/usr/bin/python3", command: "python3", commandLine: "python3 x.py", comm: "python3",
		cgroup: cgroupIdentity{path: "/kubepods/pod1/c1", containerID: "c1", podUID: "pod1"},
		environment: environment{
			service: Service{Name: "checkout", Namespace: "shop", Version: "2", InstanceID: "i-1"},
			attributes: []Attribute{
				{"container.id", "claimed"}, {"deployment.environment.name", "prod"}, {"host.name", "named-by-user"},
			},
		},
	}
	workload := newWorkload(1234, time.Now(), known, testHost)
	attributes := pcommon.NewMap()
	workload.PutResource(attributes)
	want := map[string]any{
		"service.name": "checkout", "service.namespace": "shop", "service.version": "2", "service.instance.id": "i-1",
		"container.id": "c1", "k8s.pod.uid": "pod1", "process.executable.name": "python3",
		"deployment.environment.name": "prod", "host.name": "named-by-user",
	}
	assert.Equal(t, want, attributes.AsRaw())

	other := newWorkload(99, time.Time{}, known, testHost)
	assert.Equal(t, workload.ResourceKey(), other.ResourceKey(), "pid and start are no part of the resource")
	known.environment.attributes = known.environment.attributes[1:]
	assert.Equal(t, workload.ResourceKey(), newWorkload(1, time.Time{}, known, testHost).ResourceKey(),
		"an attribute that is overridden makes no difference")
	known.environment.attributes = nil
	assert.NotEqual(t, workload.ResourceKey(), newWorkload(1, time.Time{}, known, testHost).ResourceKey())

	bare := pcommon.NewMap()
	newWorkload(0, time.Time{}, facts{}, host{}).PutResource(bare)
	assert.Len(t, bare.AsRaw(), 2, "only the service's name and instance are always there")
}

func TestNewHost(t *testing.T) {
	files := func(content map[string]string) string {
		root := t.TempDir()
		for path, text := range content {
			path = filepath.Join(root, path)
			require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
			require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		}
		return root
	}
	root := files(map[string]string{"1/root/etc/machine-id": "abc\n", "sys/kernel/random/boot_id": "boot\n"})
	assert.Equal(t, host{name: "node", id: "abc"}, newHost(root, "node"))

	for _, empty := range []string{"", "\n", "uninitialized\n"} {
		root := files(map[string]string{"1/root/etc/machine-id": empty, "sys/kernel/random/boot_id": "boot\n"})
		found := newHost(root, "")
		assert.NotContains(t, []string{"", "uninitialized"}, found.id)
		assert.NotEmpty(t, found.name)
	}
	assert.NotEmpty(t, newHost(t.TempDir(), "node").id)
}

func TestEpitaph(t *testing.T) {
	parent := newWorkload(1, time.Time{}, facts{
		comm: "sh", executablePath: "/bin/sh", commandLine: "sh run.sh",
		cgroup:      cgroupIdentity{path: "/docker/c1", containerID: "c1"},
		environment: environment{service: Service{Name: "job"}},
	}, testHost)
	curl := &execution{
		comm: "curl", executablePath: "/usr/bin/curl", executableName: "curl", commandLine: "curl x", cgroupID: 5,
	}
	cgroups := map[uint64]cgroupIdentity{
		1: {path: "/"},
		5: {path: "/system.slice/a.service"},
		6: {path: "/docker/c2", containerID: "c2"},
	}
	cgroupOf := func(id uint64) cgroupIdentity { return cgroups[id] }

	forked := &process{}
	forked.fork(&process{workload: parent}, Key{PID: 1})
	last := forked.epitaph(processView{}, Hint{Comm: "sh-child"}, cgroupOf)
	assert.Equal(t, "/bin/sh", last.executablePath)
	assert.Equal(t, "sh-child", last.comm)
	assert.Equal(t, "c1", last.cgroup.containerID)
	assert.Equal(t, "job", last.environment.service.Name)
	assert.False(t, last.complete)

	grandchild := &process{}
	grandchild.fork(forked, Key{PID: 2})
	assert.Equal(t, last.executablePath, grandchild.epitaph(processView{}, Hint{}, cgroupOf).executablePath)

	executed := &process{}
	executed.fork(&process{workload: parent}, Key{PID: 1})
	executed.execute(curl, Key{PID: 1})
	last = executed.epitaph(processView{}, Hint{CgroupID: 1}, cgroupOf)
	assert.Equal(t, "/usr/bin/curl", last.executablePath)
	assert.Equal(t, "curl x", last.commandLine)
	assert.Equal(t, "/system.slice/a.service", last.cgroup.path, "the root says less than the exec event's cgroup")
	assert.Empty(t, last.environment.service.Name, "an environment does not pass into another container")

	last = executed.epitaph(processView{}, Hint{CgroupID: 6}, cgroupOf)
	assert.Equal(t, "c2", last.cgroup.containerID, "the socket's cgroup comes first")

	onVersion1 := &process{}
	onVersion1.fork(&process{workload: parent}, Key{PID: 1})
	onVersion1.execute(&execution{comm: "curl", cgroupID: 1}, Key{PID: 1})
	last = onVersion1.epitaph(processView{}, Hint{CgroupID: 1}, cgroupOf)
	assert.Equal(t, "c1", last.cgroup.containerID, "without version 2 the parent's container is the best guess")
	assert.Equal(t, "job", last.environment.service.Name)

	zombie := processView{ended: true, facts: facts{comm: "new", cgroup: cgroups[6]}}
	last = executed.epitaph(zombie, Hint{Comm: "hint", CgroupID: 5}, cgroupOf)
	assert.Equal(t, "new", last.comm)
	assert.Equal(t, "c2", last.cgroup.containerID)

	nothing := &process{}
	assert.True(t, nothing.unknown())
	last = nothing.epitaph(processView{}, Hint{Comm: "kworker/0:1", KernelThread: true}, cgroupOf)
	assert.Equal(t, facts{comm: "kworker/0:1", kernelThread: true}, last)
}

func TestForkAfterExec(t *testing.T) {
	// The events of two CPUs may come in any order through a perf buffer.
	child := &process{}
	child.execute(&execution{comm: "curl", executableName: "curl"}, Key{PID: 1})
	child.fork(&process{executed: &execution{comm: "sh", executableName: "sh"}}, Key{PID: 1})
	assert.Equal(t, "curl", child.executed.comm)
}

func TestLimiter(t *testing.T) {
	now := time.Unix(0, 0)
	bucket := newLimiter(10, 3, now)
	taken := func() (count int) {
		for bucket.take(now) {
			count++
		}
		return count
	}
	assert.Equal(t, 3, taken())
	now = now.Add(100 * time.Millisecond)
	assert.Equal(t, 1, taken())
	now = now.Add(-time.Hour)
	assert.Equal(t, 0, taken(), "time that goes back gives nothing")
	now = now.Add(2 * time.Hour)
	assert.Equal(t, 3, taken(), "no more than the burst is saved up")
}
