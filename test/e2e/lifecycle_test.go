//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// holdings are the ids of what a process holds in the kernel.
type holdings struct {
	programs []ebpf.ProgramID
	maps     []ebpf.MapID
	links    []link.ID
}

// holds reads the ids from the process's file descriptors.
func holds(pid int) holdings {
	descriptions, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid)) // the pattern is valid
	programs, maps, links := map[ebpf.ProgramID]bool{}, map[ebpf.MapID]bool{}, map[link.ID]bool{}
	for _, description := range descriptions {
		content, err := os.ReadFile(description)
		if err != nil {
			continue // closed meanwhile
		}
		for line := range strings.Lines(string(content)) {
			key, text, _ := strings.Cut(line, ":")
			id, err := strconv.ParseUint(strings.TrimSpace(text), 10, 32)
			if err != nil {
				continue
			}
			switch key {
			case "prog_id":
				programs[ebpf.ProgramID(id)] = true
			case "map_id":
				maps[ebpf.MapID(id)] = true
			case "link_id":
				links[link.ID(id)] = true
			}
		}
	}
	var held holdings
	for id := range programs {
		held.programs = append(held.programs, id)
	}
	for id := range maps {
		held.maps = append(held.maps, id)
	}
	for id := range links {
		held.links = append(held.links, id)
	}
	return held
}

// left says what of it the kernel still has.
func (h holdings) left() []string {
	var left []string
	note := func(kind string, id any, closer interface{ Close() error }, err error) {
		if err == nil {
			closer.Close()
		}
		if !errors.Is(err, os.ErrNotExist) {
			left = append(left, fmt.Sprintf("%s %v", kind, id))
		}
	}
	for _, id := range h.links {
		found, err := link.NewFromID(id)
		note("link", id, found, err)
	}
	for _, id := range h.programs {
		found, err := ebpf.NewProgramFromID(id)
		note("program", id, found, err)
	}
	for _, id := range h.maps {
		found, err := ebpf.NewMapFromID(id)
		note("map", id, found, err)
	}
	return left
}

// A Collector that is killed leaves nothing in the kernel; the next one takes up what stands.
func TestKilledCollector(t *testing.T) {
	first := startCollector(t, setup{})
	server, port := serve(t, inPython, "127.0.0.1")
	client := start(t, "client", inGo(t, "connect", "127.0.0.1", port))
	own := client.account(t, "connected")
	client.tell(t, "1000")
	client.account(t, "answered")
	first.waitFlows(t, 2, connection(own.LocalPort, port), snapshots)

	held := holds(first.pid())
	require.NotEmpty(t, held.programs)
	require.NotEmpty(t, held.maps)
	require.NotEmpty(t, held.links)
	require.Len(t, held.left(), len(held.programs)+len(held.maps)+len(held.links), "all of it is in the kernel")

	require.NoError(t, first.Process.Signal(syscall.SIGKILL))
	<-first.ended
	assert.Eventually(t, func() bool { return len(held.left()) == 0 }, 5*time.Second, tick, "the kernel frees all of it")
	assert.Empty(t, held.left())

	second := startCollector(t, setup{})
	client.tell(t, "30")
	client.account(t, "answered")
	require.NoError(t, client.input.Close())
	closed, accepted := client.account(t, "closed"), server.account(t, "closed")
	second.waitFlows(t, 2, connection(own.LocalPort, port), ends)
	for role, own := range map[string]account{"client": closed, "server": accepted} {
		end := assertEnd(t, second.exports, role, port, closed.LocalPort, own)
		assert.True(t, end.is("network.flow.preexisting"), role)
	}
	second.shutdown(t)
	sent := 0
	for _, report := range second.flows(t, connection(own.LocalPort, port), role("client")) {
		sent += report.number("tcp.sent.bytes.delta")
	}
	assert.Equal(t, 30, sent, "what the first Collector reported is not reported again")
}

// A Collector that is stopped leaves nothing either, and loses nothing: what happened just before is reported.
func TestStoppedCollector(t *testing.T) {
	c := startCollector(t, setup{receivers: map[string]string{
		"ebpf": "\n    tcp: {flow_logs: true, snapshot_interval: 1h}\n    metrics: {interval: 1h}",
	}})
	held := holds(c.pid())
	_, port := serve(t, inGo, "127.0.0.1")
	exchange(t, inGo, "127.0.0.1", port, 100, 200)
	standing := start(t, "client", inGo(t, "connect", "127.0.0.1", port))
	standing.account(t, "connected")
	standing.tell(t, "300")
	standing.account(t, "answered")
	c.shutdown(t)
	assert.Eventually(t, func() bool { return len(held.left()) == 0 }, 5*time.Second, tick)
	assert.Empty(t, held.left())

	sent := c.points(t, onPort(port), named("system.network.tcp.io"), func(p point) bool {
		return p.text("network.flow.role") == "client" && p.text("network.io.direction") == "transmit"
	})
	assert.Equal(t, 600, cumulative(sent))
	assert.Len(t, c.flows(t, serverPort(port), role("client"), ends), 2)
	assert.NotEmpty(t, c.flows(t, serverPort(port), role("client"), snapshots))
}
