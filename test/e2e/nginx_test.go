//go:build linux

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// nginx is a web server of the test's own: a master and two workers that serve files of some sizes.
type nginx struct {
	*process
	port       int
	securePort int // of HTTPS, HTTP/1.1 and HTTP/2
	accessLog  string
}

// fileSizes are the sizes of the files that nginx serves; each file is named after its size.
var fileSizes = []int{0, 1, 1000, 100_000, 3_000_000}

func startNginx(t *testing.T, address string) *nginx {
	t.Helper()
	directory := t.TempDir()
	for _, size := range fileSizes {
		require.NoError(t, os.WriteFile(filepath.Join(directory, fmt.Sprint(size)), bytes.Repeat([]byte("x"), size), 0o644))
	}
	server := &nginx{port: freePort(t), securePort: freePort(t), accessLog: filepath.Join(directory, "access.log")}
	config := filepath.Join(directory, "nginx.conf")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, `
daemon off;
user root;
worker_processes 2;
pid %[1]s/nginx.pid;
error_log stderr;
events {}
http {
	log_format account '{"peer_port":$remote_port,"pid":$pid,"sent":$bytes_sent,"received":$request_length}';
	access_log %[1]s/access.log account;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	server {
		listen %[2]s:%[3]d reuseport;
		listen %[2]s:%[4]d ssl http2 reuseport;
		ssl_certificate %[5]s;
		ssl_certificate_key %[5]s;
		root %[1]s;
	}
}
`, directory, address, server.port, server.securePort, certificate(t)), 0o644))
	server.process = start(t, "nginx", []string{"nginx", "-p", directory, "-c", config, "-e", "stderr"})
	t.Cleanup(func() {
		// The master alone can be killed without a trace of its workers.
		_ = server.Process.Signal(syscall.SIGTERM)
		<-server.ended
	})
	require.Eventually(t, func() bool {
		return exec.Command("curl", "-so", os.DevNull, fmt.Sprintf("http://%s:%d/1", address, server.port)).Run() == nil
	}, patience, tick, "nginx does not answer:\n%s", server.stderr())
	return server
}

// account is what nginx wrote about the connection of a client.
func (n *nginx) account(t *testing.T, clientPort int) account {
	t.Helper()
	var found account
	require.Eventually(t, func() bool {
		content, err := os.ReadFile(n.accessLog)
		require.NoError(t, err)
		for line := range strings.Lines(string(content)) {
			var a account
			if json.Unmarshal([]byte(line), &a) == nil && a.PeerPort == clientPort {
				found = a
			}
		}
		return found.PID != 0
	}, patience, tick, "nginx's log has nothing of port %d", clientPort)
	return found
}

// curl is what curl says of its request.
type curl struct {
	pid         int
	LocalPort   int     `json:"local_port"`
	Request     int     `json:"size_request"`
	Header      int     `json:"size_header"`
	Download    int     `json:"size_download"`
	TimeConnect float64 `json:"time_connect"`
	TimeTotal   float64 `json:"time_total"`
	Code        int     `json:"response_code"`
	Version     string  `json:"http_version"`
}

func (c curl) sent() int     { return c.Request }
func (c curl) received() int { return c.Header + c.Download }

// fetch runs curl once. It takes any certificate.
func fetch(url string, options ...string) (curl, error) {
	command := exec.Command("curl", append(options, "-sk", "--noproxy", "*", "-o", os.DevNull, "-w", "%{json}", url)...)
	text, err := command.Output()
	if err != nil {
		return curl{}, fmt.Errorf("%v: %w", command, err)
	}
	result := curl{pid: command.Process.Pid}
	return result, json.Unmarshal(text, &result)
}

// Every request of curl to nginx is one connection, of which both programs, tcpdump and the receiver tell the same.
func TestCurlAndNginx(t *testing.T) {
	server := startNginx(t, "127.0.0.1")
	capture := startCapture(t, server.port)
	c := startCollector(t, setup{})
	curlPath, err := exec.LookPath("curl")
	require.NoError(t, err)

	var fetched []curl
	for round := range 10 {
		for _, size := range fileSizes {
			result, err := fetch(fmt.Sprintf("http://127.0.0.1:%d/%d?round=%d", server.port, size, round))
			require.NoError(t, err)
			require.Equal(t, 200, result.Code)
			fetched = append(fetched, result)
		}
	}
	c.waitFlows(t, len(fetched), serverPort(server.port), role("server"), ends)
	c.waitFlows(t, len(fetched), serverPort(server.port), role("client"), ends)
	workers := map[int]bool{}
	captured := capture.payloads(t)
	for _, request := range fetched {
		where := fmt.Sprintf("curl %d from port %d", request.pid, request.LocalPort)
		logged := server.account(t, request.LocalPort)
		payload := captured[request.LocalPort]
		require.Equal(t, payload.fromClient, request.sent(), where)
		require.Equal(t, payload.fromServer, request.received(), where)
		require.Equal(t, payload.fromServer, logged.Sent, where)
		require.Equal(t, payload.fromClient, logged.Received, where)

		client := c.only(t, connection(request.LocalPort, server.port), role("client"), ends)
		assert.Equal(t, request.sent(), client.number("tcp.sent.bytes"), where)
		assert.Equal(t, request.received(), client.number("tcp.received.bytes"), where)
		assert.Equal(t, request.pid, client.number("process.pid"), where)
		assert.Equal(t, curlPath, client.text("process.executable.path"), where)
		assert.Equal(t, "curl", client.resource.text("process.executable.name"), where)
		assert.Equal(t, "curl", client.resource.text("service.name"), where)
		latency := client.seconds("tcp.handshake.duration")
		assert.Positive(t, latency, where)
		assert.LessOrEqual(t, latency, request.TimeConnect, "%s: curl waited no longer than this for the connection", where)
		assert.NotContains(t, client.fields, "error.type", where)

		accepted := c.only(t, connection(request.LocalPort, server.port), role("server"), ends)
		assert.Equal(t, logged.Sent, accepted.number("tcp.sent.bytes"), where)
		assert.Equal(t, logged.Received, accepted.number("tcp.received.bytes"), where)
		assert.Equal(t, logged.PID, accepted.number("process.pid"), "%s: the worker that nginx logged", where)
		assert.Equal(t, server.pid(), parent(t, accepted.number("process.pid")), "%s: a worker, not the master", where)
		assert.Equal(t, executable(t, server.pid()), accepted.text("process.executable.path"), where)
		assert.Equal(t, "nginx", accepted.resource.text("service.name"), where)
		assert.Equal(t, client.text("network.flow.id"), accepted.text("network.flow.id"), "%s: both ends have one id", where)
		workers[accepted.number("process.pid")] = true
	}
	assert.Len(t, workers, 2, "both workers served")
	c.shutdown(t)

	sent, received := 0, 0
	for _, payload := range captured {
		sent += payload.fromClient
		received += payload.fromServer
	}
	assertTotals(t, c.exports, server.port, len(fetched), sent, received)
}

// Programs that live for some milliseconds are named like all others.
func TestManyShortPrograms(t *testing.T) {
	const programs, atOnce = 200, 4
	server := startNginx(t, "127.0.0.1")
	c := startCollector(t, setup{})
	curlPath, err := exec.LookPath("curl")
	require.NoError(t, err)

	results := make(chan curl, programs)
	var running sync.WaitGroup
	for range atOnce {
		running.Go(func() {
			for range programs / atOnce {
				result, err := fetch(fmt.Sprintf("http://127.0.0.1:%d/1000", server.port))
				assert.NoError(t, err)
				results <- result
			}
		})
	}
	running.Wait()
	close(results)
	c.waitFlows(t, programs, serverPort(server.port), role("client"), ends)
	for result := range results {
		client := c.only(t, connection(result.LocalPort, server.port), role("client"), ends)
		assert.Equal(t, result.pid, client.number("process.pid"))
		assert.Equal(t, curlPath, client.text("process.executable.path"), "pid %d", result.pid)
		assert.Equal(t, "curl", client.resource.text("process.executable.name"), "pid %d", result.pid)
		assert.Equal(t, result.received(), client.number("tcp.received.bytes"), "pid %d", result.pid)
	}
	c.shutdown(t)
	// All of them are one service, in one series.
	assert.Len(t, services(c.points(t, onPort(server.port), named("system.network.tcp.io"))), 2, "curl and nginx")
}
