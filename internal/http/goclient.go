//go:build linux

package http

import (
	"github.com/cilium/ebpf"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http/tls"
	"github.com/ebpfreceiver/ebpfreceiver/internal/http/tls/site"
)

// goRoundTrip is where net/http hands a request of HTTP/1 to its connection, whose own goroutine writes it. See
// bpf/include/http/go_client.h.
const goRoundTrip = "net/http.(*persistConn).roundTrip"

// goClients attaches program, the kernel side's, to programs of Go that serve requests and make some as well, so that it
// learns which goroutine waits for the response to one. A program that does only one of them costs nothing.
func goClients(program *ebpf.Program) tls.Attacher {
	return &tls.Uprobes{Program: func(target tls.Target, at site.Site) *ebpf.Program {
		if _, known := goLayoutOf(target.GoVersion); !known || at.Event != site.Entry || at.Function != goRoundTrip {
			return nil
		}
		return program
	}}
}
