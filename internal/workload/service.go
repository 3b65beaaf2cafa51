//go:build linux

package workload

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
)

// unknownService is the name that the SDK specification gives to a service of which nothing is known.
const unknownService = "unknown_service"

// serviceInstanceNamespace is the namespace that the semantic conventions give for service.instance.id as UUIDv5.
var serviceInstanceNamespace = uuid.MustParse("4d63009a-8d0f-11ee-aad7-4c796ed8e320")

// host is what identifies the machine that all workloads of a table run on.
type host struct {
	name string
	id   string
}

// newService applies the SDK's rules: OTEL_SERVICE_NAME, then OTEL_RESOURCE_ATTRIBUTES, then the executable's name.
func newService(w *Workload, environment environment, host host) Service {
	service := environment.service
	if service.Name == "" {
		service.Name = w.ExecutableName
	}
	if service.Name == "" {
		service.Name = unknownService
	}
	if service.InstanceID == "" {
		service.InstanceID = instanceID(w, service, host)
	}
	return service
}

// instanceID stays the same over restarts of the service, and is one for all workers of it: it is made of where the
// service runs, never of a pid or a time.
func instanceID(w *Workload, service Service, host host) string {
	place := w.ContainerID
	if place == "" {
		place = w.CgroupPath
	}
	identity := strings.Join([]string{host.id, place, service.Namespace, service.Name}, "\x00")
	return uuid.NewSHA1(serviceInstanceNamespace, []byte(identity)).String()
}

// newHost finds the machine's id. The init process's root comes first: it is the host's file also when this process
// runs in a container that shares the host's pids. The boot id serves where there is no machine id.
func newHost(procFS, name string) host {
	if name == "" {
		name, _ = os.Hostname() // An unknown host name is left out of the resource.
	}
	candidates := []string{
		filepath.Join(procFS, "1/root/etc/machine-id"),
		"/etc/machine-id",
		filepath.Join(procFS, "sys/kernel/random/boot_id"),
	}
	for _, path := range candidates {
		content, err := readSmallFile(path)
		if err != nil {
			continue
		}
		// systemd writes "uninitialized" into images that are still to get their id.
		if id := strings.TrimSpace(string(content)); id != "" && id != "uninitialized" {
			return host{name: name, id: id}
		}
	}
	return host{name: name, id: name}
}
