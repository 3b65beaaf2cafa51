//go:build linux

// Package workload tells which program, container and service a process belongs to.
package workload

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// Key identifies a process for good: a pid is reused, a pid with its start time is not.
type Key struct {
	// PID is the thread group id in the initial pid namespace.
	PID uint32
	// StartBootNs is task_struct.start_boottime of the thread group's leader, zero when it is not known.
	StartBootNs uint64
}

// Hint is what an event carried about its process: it serves when the process has gone.
type Hint struct {
	Comm         string
	CgroupID     uint64
	KernelThread bool
}

// Service is the identity that a user gave to a program, or that it gets from its executable.
type Service struct {
	Name       string
	Namespace  string
	Version    string
	InstanceID string
}

// Attribute is one resource attribute that a user set in OTEL_RESOURCE_ATTRIBUTES.
type Attribute struct {
	Key   string
	Value string
}

// Workload is what is known about a process. It is immutable once returned, and shared: do not write to it.
type Workload struct {
	PID       uint32
	StartTime time.Time // zero when it is not known

	ExecutablePath string // as the process's own mount namespace names it; empty when unknown
	ExecutableName string
	Command        string // the first argument, which programs may rewrite
	CommandLine    string
	Comm           string
	KernelThread   bool

	CgroupPath  string
	ContainerID string
	PodUID      string

	Service    Service
	Attributes []Attribute // of OTEL_RESOURCE_ATTRIBUTES without the service's own, sorted by key
	HostName   string

	// Complete is false when the process had gone (or could not be read) and only what the kernel told is known.
	Complete bool

	resource    []Attribute
	resourceKey string
	environment environment // for processes that inherit it
}

// PutResource writes the resource attributes of the workload: the identity that every signal shares.
//
// The pid and the command line are not in it: all processes of one service instance are one resource.
func (w *Workload) PutResource(attributes pcommon.Map) {
	attributes.EnsureCapacity(attributes.Len() + len(w.resource))
	for _, attribute := range w.resource {
		attributes.PutStr(attribute.Key, attribute.Value)
	}
}

// ResourceKey is equal for two workloads exactly when PutResource writes the same attributes for both.
func (w *Workload) ResourceKey() string { return w.resourceKey }

// newResource spells the resource attributes, sorted by key. What was observed wins over what the environment claims,
// except for the host's name, which the user may know better.
func newResource(w *Workload) []Attribute {
	resource := make([]Attribute, 0, len(w.Attributes)+8)
	has := func(key string) bool {
		return slices.ContainsFunc(resource, func(attribute Attribute) bool { return attribute.Key == key })
	}
	put := func(key attribute.Key, value string) {
		if value != "" && !has(string(key)) {
			resource = append(resource, Attribute{Key: string(key), Value: value})
		}
	}
	put(semconv.ServiceNameKey, w.Service.Name)
	put(semconv.ServiceNamespaceKey, w.Service.Namespace)
	put(semconv.ServiceVersionKey, w.Service.Version)
	put(semconv.ServiceInstanceIDKey, w.Service.InstanceID)
	put(semconv.ContainerIDKey, w.ContainerID)
	put(semconv.K8SPodUIDKey, w.PodUID)
	put(semconv.ProcessExecutableNameKey, w.ExecutableName)
	for _, set := range w.Attributes {
		put(attribute.Key(set.Key), set.Value)
	}
	put(semconv.HostNameKey, w.HostName)
	slices.SortFunc(resource, func(a, b Attribute) int { return strings.Compare(a.Key, b.Key) })
	return resource
}

// facts is what one source (/proc, an exec event, a hint) tells about a process.
type facts struct {
	comm           string
	executablePath string
	executableName string // only where there is no path
	command        string
	commandLine    string
	kernelThread   bool
	cgroup         cgroupIdentity
	environment    environment
	complete       bool
}

// facts gives back what the workload was made of.
func (w *Workload) facts() facts {
	return facts{
		comm:           w.Comm,
		executablePath: w.ExecutablePath,
		executableName: w.ExecutableName,
		command:        w.Command,
		commandLine:    w.CommandLine,
		kernelThread:   w.KernelThread,
		cgroup:         w.cgroup(),
		environment:    w.environment,
		complete:       w.Complete,
	}
}

func (w *Workload) cgroup() cgroupIdentity {
	return cgroupIdentity{path: w.CgroupPath, containerID: w.ContainerID, podUID: w.PodUID}
}

// newWorkload makes the immutable Workload of a process from what is known about it.
func newWorkload(pid uint32, start time.Time, known facts, host host) *Workload {
	w := &Workload{
		PID:            pid,
		StartTime:      start,
		ExecutablePath: known.executablePath,
		ExecutableName: executableName(known),
		Command:        known.command,
		CommandLine:    known.commandLine,
		Comm:           known.comm,
		KernelThread:   known.kernelThread,
		CgroupPath:     known.cgroup.path,
		ContainerID:    known.cgroup.containerID,
		PodUID:         known.cgroup.podUID,
		Attributes:     known.environment.attributes,
		HostName:       host.name,
		Complete:       known.complete,
		environment:    known.environment,
	}
	w.Service = newService(w, known.environment, host)

	w.resource = newResource(w)

	var key strings.Builder
	for _, attribute := range w.resource {
		key.WriteString(attribute.Key)
		key.WriteByte(0)
		key.WriteString(attribute.Value)
		key.WriteByte(0)
	}
	w.resourceKey = key.String()
	return w
}

func executableName(known facts) string {
	if known.executablePath != "" {
		return known.executablePath[strings.LastIndexByte(known.executablePath, '/')+1:]
	}
	if known.executableName != "" {
		return known.executableName
	}
	if known.kernelThread {
		// One name for all threads of a kind: "kworker", not "kworker/u4:2-events".
		name, _, _ := strings.Cut(known.comm, "/")
		return name
	}
	return known.comm
}

// Compare orders workloads by their service, the same way each time.
func Compare(x, y *Workload) int {
	return cmp.Or(
		cmp.Compare(x.Service.Name, y.Service.Name),
		cmp.Compare(x.Service.InstanceID, y.Service.InstanceID),
		cmp.Compare(x.ExecutableName, y.ExecutableName),
	)
}
