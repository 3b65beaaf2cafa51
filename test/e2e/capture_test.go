//go:build linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// capture is a running tcpdump.
type capture struct {
	*process
	file string
	port int
}

// payload is what tcpdump saw one connection carry.
type payload struct{ fromClient, fromServer int }

// startCapture records the packets of a service on the loopback interface.
func startCapture(t *testing.T, port int) *capture {
	t.Helper()
	file := filepath.Join(t.TempDir(), "packets")
	c := &capture{file: file, port: port}
	c.process = start(t, "tcpdump", []string{
		"tcpdump", "-i", "lo", "-n", "-U", "--immediate-mode", "-s", "128", "-B", "65536", "-Z", "root", "-w", file, fmt.Sprintf("tcp port %d", port),
	})
	require.Eventually(t, func() bool { return strings.Contains(c.stderr(), "listening on") }, patience, tick)
	return c
}

// A line of tcpdump: ... IP 127.0.0.1.40000 > 127.0.0.1.80: Flags [P.], seq 100:178, ack 1, win 512, ... length 78: HTTP
var packet = regexp.MustCompile(`IP6? \S+\.(\d+) > \S+\.(\d+): Flags .*? seq (\d+)(?::(\d+))?,`)

// payloads ends the capture and adds up what each connection carried, by the client's port. Segments that were sent
// again count once.
func (c *capture) payloads(t *testing.T) map[int]payload {
	t.Helper()
	// At its end, tcpdump drops what still waits for it.
	size, still := int64(-1), 0
	require.Eventually(t, func() bool {
		info, err := os.Stat(c.file)
		require.NoError(t, err)
		if still++; info.Size() != size {
			size, still = info.Size(), 0
		}
		return still == 20
	}, patience, tick)
	c.stop(t, syscall.SIGINT)
	require.Contains(t, c.stderr(), "\n0 packets dropped by kernel")
	type segment struct{ source, destination, sequence string }
	seen := map[segment]bool{}
	payloads := map[int]payload{}
	for line := range strings.Lines(output(t, "tcpdump", "-n", "-S", "-r", c.file)) {
		match := packet.FindStringSubmatch(line)
		if match == nil || match[4] == "" {
			continue // without payload
		}
		one := segment{match[1], match[2], match[3]}
		if seen[one] {
			continue
		}
		seen[one] = true
		first, last := number(t, match[3]), number(t, match[4])
		size := int(uint32(last - first))
		if source := number(t, match[1]); source == c.port {
			client := number(t, match[2])
			p := payloads[client]
			p.fromServer += size
			payloads[client] = p
		} else {
			p := payloads[source]
			p.fromClient += size
			payloads[source] = p
		}
	}
	return payloads
}

func number(t *testing.T, text string) int {
	t.Helper()
	value, err := strconv.Atoi(text)
	require.NoError(t, err)
	return value
}
