//go:build linux

package http

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// Whatever a program sends and receives with by io_uring, in whichever thread the kernel does it.
func TestUring(t *testing.T) {
	for _, test := range []struct{ send, receive string }{
		{"send", "recv"},
		{"sendmsg", "recvmsg"},
		{"write", "read"},
		{"writev", "readv"},
		{"async", "async"},
		{"send", "polled"},
		{"send", "deferred"},
		{"send", "elsewhere"},
		{"zerocopy", "selected"},
		{"zerocopymsg", "multishot"},
		{"send", "fixed"},
		{"send", "small"},
	} {
		t.Run(test.send+"-"+test.receive, func(t *testing.T) {
			o := observe(t)
			environment := []string{programVariable + "=uring"}
			server := start(t, environment, executable(t), "serve", test.receive, test.send)
			port := server.record(t).Port
			o.needs("need_packets")
			command := []string{executable(t), "fetch", test.send, test.receive, strconv.Itoa(port)}
			const count = 4
			for i := range count {
				command = append(command, fmt.Sprintf("/uring/%d", i), strconv.Itoa(i*i*i*10_000), strconv.Itoa(i*i*10_000))
			}
			client := start(t, environment, command...)
			told, served := client.records(t, count), server.records(t, count)
			for i := range count {
				path := fmt.Sprintf("/uring/%d", i)
				requested, accepted := o.ends(port, path)
				check(t, requested, told[path], false, false)
				check(t, accepted, served[path], false, false)
				o.checkDuration(requested, told[path])
				assert.EqualValues(t, client.Process.Pid, number(requested, attrPID))
				assert.EqualValues(t, server.Process.Pid, number(accepted, attrPID))
			}
			client.finish(t)
			assert.Empty(t, o.losses())
		})
	}
}

// The frames of HTTP/2 are found in packets that are longer than what is looked at at a time.
func TestUringHTTP2(t *testing.T) {
	for _, receive := range []string{"recv", "recvmsg", "small", "multishot"} {
		t.Run(receive, func(t *testing.T) {
			o := observe(t)
			server := start(t, []string{programVariable + "=uring"}, executable(t), "serve HTTP/2", receive, "send")
			port := server.record(t).Port
			o.needs("need_packets")
			const count = 60
			p := plan{AtOnce: 6, KeepAlive: true, HTTP2: true}
			sizes := []int{0, 1, 100, 4096, 16_384, 60_000, 250_000}
			for i := range count {
				size := sizes[i%len(sizes)]
				if receive == "small" {
					size = min(size, 1000)
				}
				p.Requests = append(p.Requests, planned{
					Method: "POST", URL: at(port, fmt.Sprintf("/frames/%d?size=%d", i, sizes[i%5])), Size: size,
				})
			}
			told := fetchGo(t, p)
			served := server.records(t, count)
			o.wait(count, ptrace.SpanKindServer, port, "/frames/")
			for path := range told {
				requested, accepted := o.ends(port, path)
				check(t, requested, told[path], false, false)
				check(t, accepted, served[path], false, false)
			}
			assert.Empty(t, o.losses())
		})
	}
}
