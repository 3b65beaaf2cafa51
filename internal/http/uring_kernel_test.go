//go:build linux

package http

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
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
