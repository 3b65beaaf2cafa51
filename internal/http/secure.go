//go:build linux

package http

import (
	"fmt"
	"io"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http/tls"
	"github.com/ebpfreceiver/ebpfreceiver/internal/http/tls/site"
	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

// The kernel side's programs for uprobes.
const (
	openSSLProgram  = "http_tls"
	goProgram       = "http_go_tls"
	goClientProgram = "http_go_client"
)

const (
	// maxExamined is how many processes are remembered to have been looked into, each for examinedFor: it may load a
	// library later.
	maxExamined = 4096
	examinedFor = 2 * time.Second
)

// secure has the kernel side attached to what processes encrypt with, when they are seen to speak TLS.
type secure struct {
	ask      func(inspection) bool
	clock    *kernel.Clock
	examined *lru.Cache[workload.Key, time.Time] // when it may be looked into again
	// attachedNs is when a library was attached to last, on the kernel's monotonic clock: connections that began after that
	// were seen from their beginning.
	attachedNs atomic.Uint64

	unable     bool          // this host has no uprobes for us: nothing is looked for, all TLS is only counted
	unobserved atomic.Uint64 // connections that speak TLS meanwhile
}

// haveTLS says why TLS cannot be observed on this host, nil if it can.
func haveTLS() error {
	if runtime.GOARCH != "amd64" {
		return fmt.Errorf("the machine code of %s is not read, only that of amd64: %w", runtime.GOARCH, kernel.ErrNotSupported)
	}
	return kernel.HaveUprobes()
}

// newSecure makes what waits for processes that speak TLS, and has them looked into by ask.
func newSecure(ask func(inspection) bool) (*secure, error) {
	examined, err := lru.New[workload.Key, time.Time](maxExamined)
	if err != nil {
		return nil, fmt.Errorf("remember processes that speak TLS: %w", err)
	}
	return &secure{ask: ask, clock: kernel.NewClock(), examined: examined}, nil
}

// allow says whether there is a way to attach to libraries: have says why not.
func (s *secure) allow(have func() error) (*kernel.Attachment, error) {
	attachment, err := kernel.Climb("http.tls", kernel.Rung{
		Name: "uprobe_multi",
		Attach: func() (io.Closer, error) {
			if err := have(); err != nil {
				return nil, err
			}
			return io.NopCloser(nil), nil // the uprobes come and go with what they are attached to
		},
	})
	s.unable = err != nil
	return attachment, err
}

// uprobes attach openSSL and golang, programs of the kernel side.
func (s *secure) uprobes(openSSL, golang *ebpf.Program) tls.Attacher {
	return &attachments{secure: s, uprobes: tls.Uprobes{
		Program: func(target tls.Target, at site.Site) *ebpf.Program {
			if siteCookie(target, at) == 0 {
				return nil // the kernel side does without it
			}
			if target.GoVersion != "" {
				return golang
			}
			return openSSL
		},
		Cookie: siteCookie,
	}}
}

// attachments notes when the last of them was made.
type attachments struct {
	secure  *secure
	uprobes tls.Uprobes
}

var _ tls.Attacher = (*attachments)(nil)

// Attach implements tls.Attacher.
func (a *attachments) Attach(target tls.Target) (io.Closer, error) {
	attached, err := a.uprobes.Attach(target)
	if err != nil {
		return nil, fmt.Errorf("observe the TLS of %s: %w", target.Name, err)
	}
	a.secure.clock.Refresh()
	a.secure.attachedNs.Store(a.secure.clock.Monotonic(time.Now()))
	return attached, nil
}

// notice takes note of a connection that carries TLS. It says whether all that the connection carries can be seen from its
// beginning on, if it begins with the message. A nil *secure sees nothing.
func (s *secure) notice(m *message, head *messageHead, now time.Time) bool {
	if s == nil {
		return false
	}
	if s.unable {
		s.unobserved.Add(1)
		return false
	}
	process := head.processKey()
	if again, known := s.examined.Get(process); !known || now.After(again) {
		if s.ask(inspection{process, toFindTLS}) {
			s.examined.Add(process, now.Add(examinedFor))
		}
	}
	return m.has(bpfMessageFlagMESSAGE_BEGINNING) && m.TimeNs > s.attachedNs.Load()
}

func (s *secure) unobservedCount() uint64 {
	if s == nil {
		return 0
	}
	return s.unobserved.Load()
}
