//go:build linux

package e2e

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// newCgroup makes a cgroup in the version 2 hierarchy, and returns its directory and its path in the hierarchy.
func newCgroup(t *testing.T) (directory, path string) {
	t.Helper()
	mounts, err := os.Open("/proc/self/mounts")
	require.NoError(t, err)
	defer mounts.Close()
	for lines := bufio.NewScanner(mounts); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if fields[2] != "cgroup2" {
			continue
		}
		path = fmt.Sprintf("/ebpfreceiver-e2e-%d", os.Getpid())
		directory = filepath.Join(fields[1], path)
		require.NoError(t, os.Mkdir(directory, 0o755))
		t.Cleanup(func() {
			// The processes in it end with the test, too: it is empty when the kernel has seen them off.
			assert.Eventually(t, func() bool { return os.Remove(directory) == nil }, patience, tick)
		})
		return directory, path
	}
	require.Fail(t, "no version 2 hierarchy is mounted")
	return "", ""
}

// One Collector has a receiver for each selection. Every receiver reports exactly the ends that it is to observe: of a
// Python server (A) and a Go server in a cgroup (B), each with a client in its own language.
func TestSelection(t *testing.T) {
	directory, path := newCgroup(t)
	serverA, portA := serve(t, inPython, "127.0.0.1")
	serverB, portB := serve(t, inGo, "127.0.0.1")
	require.NoError(t, os.WriteFile(filepath.Join(directory, "cgroup.procs"), fmt.Append(nil, serverB.pid()), 0o644))
	t.Cleanup(serverB.kill)
	python, peer := executable(t, serverA.pid()), executable(t, serverB.pid())

	tests := []struct {
		name, rules string
		want        []string
	}{
		{"all", "", []string{"client of A", "client of B", "server of A", "server of B"}},
		{"path", "include: [{executable: " + peer + "}]", []string{"client of B", "server of B"}},
		{"path_glob", "include: [{executable: " + filepath.Dir(python) + "/pyth*}]", []string{"client of A", "server of A"}},
		{"name", "include: [{executable: peer}]", []string{"client of B", "server of B"}},
		{"name_glob", `include: [{executable: "python*"}]`, []string{"client of A", "server of A"}},
		{"port", fmt.Sprintf("include: [{port: %d}]", portA), []string{"client of A", "server of A"}},
		{"ports", fmt.Sprintf("include: [{port: %d-%d}]", portB, portB), []string{"client of B", "server of B"}},
		{"pid", fmt.Sprintf("include: [{pid: %d}]", serverA.pid()), []string{"server of A"}},
		{"cgroup", fmt.Sprintf("include: [{cgroup: %s}]", path), []string{"server of B"}},
		{"cgroup_glob", fmt.Sprintf("include: [{cgroup: %s/**}]", path), []string{"server of B"}},
		{"both", fmt.Sprintf("include: [{pid: %d, port: %d}]", serverA.pid(), portB), nil},
		{"either", fmt.Sprintf("include: [{pid: %d}, {cgroup: %s}]", serverA.pid(), path), []string{"server of A", "server of B"}},
		{"not_name", "exclude: [{executable: peer}]", []string{"client of A", "server of A"}},
		{"not_cgroup", fmt.Sprintf("exclude: [{cgroup: %s}]", path), []string{"client of A", "client of B", "server of A"}},
		{"exclude_wins", fmt.Sprintf("include: [{port: %d}], exclude: [{pid: %d}]", portA, serverA.pid()), []string{"client of A"}},
	}
	receivers := map[string]string{}
	for _, test := range tests {
		receivers["ebpf/"+test.name] = quick + "\n    select: {" + test.rules + "}"
	}
	c := startCollector(t, setup{receivers: receivers})
	exchange(t, inPython, "127.0.0.1", portA, 10, 20)
	exchange(t, inGo, "127.0.0.1", portB, 30, 40)
	c.shutdown(t)

	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			inLogs, inMetrics := map[string]int{}, map[string]int{}
			count := func(counts map[string]int, f fields) {
				switch f.number("server.port") {
				case portA:
					counts[f.text("network.flow.role")+" of A"]++
				case portB:
					counts[f.text("network.flow.role")+" of B"]++
				}
			}
			for _, f := range c.flowsOf(t, "ebpf/"+test.name, ends) {
				count(inLogs, f.fields)
			}
			for _, p := range c.pointsOf(t, "ebpf/"+test.name, named("system.network.tcp.connections.closed")) {
				count(inMetrics, p.fields)
			}
			for end, connections := range inLogs {
				assert.Equal(t, 2, connections, end)
			}
			assert.Equal(t, test.want, sortedKeys(inLogs))
			assert.Equal(t, test.want, sortedKeys(inMetrics))
		})
	}
}

func sortedKeys(counts map[string]int) []string {
	var keys []string
	for key := range counts {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
