//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// canonical is one text for equal fields.
func canonical(f fields) string {
	text, err := json.Marshal(f) // sorts the keys
	if err != nil {
		panic(err)
	}
	return string(text)
}

// account is what a peer program says about a connection.
type account struct {
	Event     string `json:"event"`
	PID       int    `json:"pid"`
	LocalPort int    `json:"local_port"`
	PeerPort  int    `json:"peer_port"`
	Sent      int    `json:"sent"`
	Received  int    `json:"received"`
	Error     string `json:"error"`
}

func (p *process) account(t *testing.T, event string) account {
	t.Helper()
	var a account
	line := p.line(t)
	require.NoError(t, json.Unmarshal([]byte(line), &a), "%s said %q", p.name, line)
	require.Equal(t, event, a.Event, "%s said %q", p.name, line)
	return a
}

// accounts reads as many as are expected.
func (p *process) accounts(t *testing.T, event string, count int) []account {
	t.Helper()
	all := make([]account, 0, count)
	for range count {
		all = append(all, p.account(t, event))
	}
	return all
}

// language is what a peer program is written in.
type language func(t *testing.T, mode, host string, port int, more ...string) []string

func inPython(t *testing.T, mode, host string, port int, more ...string) []string {
	t.Helper()
	prepare(t)
	return append([]string{"python3", "testdata/peer.py", mode, host, strconv.Itoa(port)}, more...)
}

func inGo(t *testing.T, mode, host string, port int, _ ...string) []string {
	t.Helper()
	return []string{prepare(t).peer, mode, net.JoinHostPort(host, strconv.Itoa(port))}
}

// serve starts a server on a port of its choice.
func serve(t *testing.T, in language, host string, more ...string) (*process, int) {
	t.Helper()
	server := start(t, "server", in(t, "serve", host, 0, more...))
	return server, server.account(t, "listening").LocalPort
}

// exchange lets one client process make a connection for each size, and returns the client's accounts.
func exchange(t *testing.T, in language, host string, port int, sizes ...int) []account {
	t.Helper()
	client := start(t, "client", in(t, "each", host, port))
	for _, size := range sizes {
		client.tell(t, strconv.Itoa(size))
	}
	require.NoError(t, client.input.Close())
	accounts := client.accounts(t, "closed", len(sizes))
	client.wait(t)
	return accounts
}

// executable is what a running process runs.
func executable(t *testing.T, pid int) string {
	t.Helper()
	path, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	require.NoError(t, err)
	return path
}

// parent is the parent of a running process.
func parent(t *testing.T, pid int) int {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	require.NoError(t, err)
	_, rest, found := strings.Cut(string(stat), ") ")
	require.True(t, found)
	number, err := strconv.Atoi(strings.Fields(rest)[1])
	require.NoError(t, err)
	return number
}
