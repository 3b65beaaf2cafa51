//go:build linux

package workload

import (
	"bytes"
	"regexp"
	"strings"
)

// cgroupIdentity is what the place of a process in the cgroup tree tells.
type cgroupIdentity struct {
	path        string
	containerID string
	podUID      string
}

const maxCgroupPathBytes = 4096

// parseCgroup reads /proc/PID/cgroup (cgroups(7)): one line for each hierarchy, "0::/path" for version 2 and
// "number:controllers:/path" for version 1. On a hybrid host the container is often seen in version 1 only, so the line
// with the most deeply nested container is taken, then version 2, then the hierarchies that every container runtime
// manages.
func parseCgroup(content []byte) cgroupIdentity {
	var best cgroupIdentity
	bestDepth, bestRank := -1, 0
	for line := range bytes.Lines(content) {
		_, rest, found := strings.Cut(clean(bytes.TrimRight(line, "\n"), maxCgroupPathBytes), ":")
		if !found {
			continue
		}
		controllers, path, found := strings.Cut(rest, ":")
		if !found || !strings.HasPrefix(path, "/") {
			continue
		}
		identity, depth := identifyCgroup(path)
		rank := hierarchyRank(controllers)
		if identity.path == "/" {
			rank = 0 // Nothing is said by a hierarchy that nobody uses.
		}
		if depth > bestDepth || depth == bestDepth && rank > bestRank {
			best, bestDepth, bestRank = identity, depth, rank
		}
	}
	return best
}

// hierarchyRank orders the hierarchies by how much their paths mean.
func hierarchyRank(controllers string) int {
	switch controllers {
	case "":
		return 5
	case "name=systemd":
		return 4
	case "memory":
		return 3
	case "pids", "cpu", "cpu,cpuacct", "cpuacct,cpu":
		return 2
	default:
		return 1
	}
}

// A segment names a container by its 64 hexadecimal digits, alone or after the runtime's prefix: "docker-ID.scope",
// "cri-containerd-ID.scope", "crio-ID", "libpod-ID.scope", "libpod-payload-ID".
var containerSegment = regexp.MustCompile(`^(?:([A-Za-z0-9_.-]+)-)?([0-9a-f]{64})(?:\.scope)?$`)

// Amazon ECS on Fargate and Cloud Foundry's Garden name containers otherwise, below a segment of their own.
var (
	fargateSegment = regexp.MustCompile(`^[0-9a-f]{32}-[0-9]{1,20}$`)
	gardenSegment  = regexp.MustCompile(`^[0-9a-f]{8}(?:-[0-9a-f]{4}){4}$|^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
)

// A pod's segment is "podUID" with the cgroupfs driver and "kubepods-CLASS-podUID.slice", dashes of the UID turned to
// underscores, with systemd's. Static pods have the hash of their manifest instead of a UUID.
var podSegment = regexp.MustCompile(
	`(?:^|-)pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}|[0-9a-f]{32})(?:\.slice)?$`)

// identifyCgroup finds the innermost container and pod in a cgroup path, and tells how many containers are nested.
func identifyCgroup(path string) (identity cgroupIdentity, depth int) {
	path = cleanCgroupPath(path)
	identity.path = path
	var previous string
	kubernetes, fargate := false, false
	for segment := range strings.SplitSeq(path, "/") {
		kubernetes = kubernetes || strings.Contains(segment, "kubepods")
		fargate = fargate || segment == "ecs"
		// A runtime that takes systemd's "slice:prefix:name" for a path leaves it as one segment.
		for part := range strings.SplitSeq(segment, ":") {
			if match := podSegment.FindStringSubmatch(part); match != nil && kubernetes {
				identity.podUID = strings.ReplaceAll(match[1], "_", "-")
			}
		}
		if id := containerOf(segment, previous, fargate); id != "" {
			identity.containerID = id
			depth++
		}
		previous = segment
	}
	return identity, depth
}

// containerOf tells which container a segment of a cgroup path names, if any.
func containerOf(segment, parent string, fargate bool) string {
	name := segment[strings.LastIndexByte(segment, ':')+1:]
	if match := containerSegment.FindStringSubmatch(name); match != nil {
		// conmon watches a container from outside; a bare id below podman's parent is a pod of several containers.
		if strings.HasSuffix(match[1], "conmon") || match[1] == "" && parent == "libpod_parent" {
			return ""
		}
		return match[2]
	}
	if fargate && fargateSegment.MatchString(name) || parent == "garden" && gardenSegment.MatchString(name) {
		return name
	}
	return ""
}

// cleanCgroupPath takes away what is no part of the name: the steps up out of our own cgroup namespace, and the
// kernel's mark of a removed cgroup.
func cleanCgroupPath(path string) string {
	path = strings.TrimSuffix(path, " (deleted)")
	for strings.HasPrefix(path, "/../") {
		path = path[len("/.."):]
	}
	if path == "/.." || path == "" {
		return "/"
	}
	return path
}
