//go:build linux

package http

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	lru "github.com/hashicorp/golang-lru/v2"
	"go.uber.org/zap"

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
	// maxExamining bounds the processes that wait to be looked into.
	maxExamining = 256
	// maxExamined is how many processes are remembered to have been looked into, each for examinedFor: it may load a
	// library later.
	maxExamined = 4096
	examinedFor = 2 * time.Second
	// tlsSweepInterval is how often libraries are looked for that nobody uses any more.
	tlsSweepInterval = time.Minute
)

// secure finds what processes encrypt with when they are seen to speak TLS, and attaches the kernel side to it.
type secure struct {
	finder *tls.Finder
	procFS string
	clock  *kernel.Clock
	logger *zap.Logger

	examined *lru.Cache[workload.Key, time.Time] // when it may be looked into again
	waiting  chan uint32                         // pids
	// attachedNs is when a library was attached to last, on the kernel's monotonic clock: connections that began after that
	// were seen from their beginning.
	attachedNs atomic.Uint64
	toldDenied sync.Once
	skipped    atomic.Uint64 // processes that were not looked into for want of room among those that wait

	unable     bool          // this host has no uprobes for us: nothing is looked for, all TLS is only counted
	unobserved atomic.Uint64 // connections that speak TLS meanwhile

	scanned chan struct{} // closed when all that ran at the start was looked into
	stop    chan struct{}
	done    sync.WaitGroup
}

// haveTLS says why TLS cannot be observed on this host, nil if it can.
func haveTLS() error {
	if runtime.GOARCH != "amd64" {
		return fmt.Errorf("the machine code of %s is not read, only that of amd64: %w", runtime.GOARCH, kernel.ErrNotSupported)
	}
	return kernel.HaveUprobes()
}

// newSecure makes what looks for libraries, once it is started. openSSL and golang are the kernel side's, for uprobes.
func newSecure(config TLSConfig, procFS string, openSSL, golang *ebpf.Program, logger *zap.Logger) (*secure, error) {
	examined, err := lru.New[workload.Key, time.Time](maxExamined)
	if err != nil {
		return nil, fmt.Errorf("remember processes that speak TLS: %w", err)
	}
	s := &secure{
		procFS: procFS, clock: kernel.NewClock(), logger: logger, examined: examined,
		waiting: make(chan uint32, maxExamining), scanned: make(chan struct{}), stop: make(chan struct{}),
	}
	s.finder = tls.NewFinder(
		tls.Config{ProcFS: procFS, WithoutOpenSSL: !config.OpenSSL, WithoutGo: !config.Go},
		&attachments{secure: s, uprobes: tls.Uprobes{
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
		}},
		logger)
	return s, nil
}

// start begins to look for libraries, if there is a way to attach to them: have says why not.
func (s *secure) start(have func() error) (*kernel.Attachment, error) {
	attachment, err := kernel.Climb("http.tls", kernel.Rung{
		Name: "uprobe_multi",
		Attach: func() (io.Closer, error) {
			if err := have(); err != nil {
				return nil, err
			}
			return io.NopCloser(nil), nil // the uprobes come and go with what they are attached to, until close
		},
	})
	if err != nil {
		s.unable = true
		close(s.scanned)
		return nil, err
	}
	s.done.Go(s.run)
	return attachment, nil
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
	if again, known := s.examined.Get(head.processKey()); !known || now.After(again) {
		select {
		case s.waiting <- head.Pid:
			s.examined.Add(head.processKey(), now.Add(examinedFor))
		default:
			s.skipped.Add(1)
		}
	}
	return m.has(bpfMessageFlagMESSAGE_BEGINNING) && m.TimeNs > s.attachedNs.Load()
}

func (s *secure) run() {
	s.keepLibraries()
	s.examineAll()
	close(s.scanned)
	sweep := time.NewTicker(tlsSweepInterval)
	defer sweep.Stop()
	for {
		select {
		case <-s.stop:
			return
		case pid := <-s.waiting:
			s.examine(pid)
		case now := <-sweep.C:
			detached, err := s.finder.Sweep(now)
			if err != nil {
				s.logger.Warn("Detach from libraries for TLS that nobody uses", zap.Error(err))
			}
			if detached > 0 {
				s.examined.Purge()
			}
		}
	}
}

// keepLibraries attaches to the host's own libraries, so that the first process that loads one is seen from its beginning.
func (s *secure) keepLibraries() {
	for _, pattern := range []string{"/lib*/libssl.so*", "/lib*/*/libssl.so*", "/usr/lib*/libssl.so*", "/usr/lib*/*/libssl.so*"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			s.logger.Warn("Look for libraries for TLS", zap.Error(err))
			continue
		}
		for _, path := range paths {
			if _, err := s.finder.Keep(path); err != nil && !errors.Is(err, tls.ErrClosed) {
				s.logger.Debug("Look into a library for TLS", zap.String("path", path), zap.Error(err))
			}
		}
	}
}

// examineAll looks into the processes that run already.
func (s *secure) examineAll() {
	entries, err := os.ReadDir(s.procFS)
	if err != nil {
		s.logger.Warn("Look for processes that speak TLS", zap.Error(err))
	}
	for _, entry := range entries {
		pid, err := strconv.ParseUint(entry.Name(), 10, 32)
		if err != nil {
			continue
		}
		select {
		case <-s.stop:
			return
		default:
			if s.mayExamine(uint32(pid)) {
				s.examine(uint32(pid))
			}
		}
	}
}

// mayExamine says whether a process can be looked into. One that cannot is counted when it is seen to speak TLS.
func (s *secure) mayExamine(pid uint32) bool {
	maps, err := os.Open(fmt.Sprintf("%s/%d/maps", s.procFS, pid))
	if err != nil {
		return false
	}
	defer maps.Close()
	var first [1]byte
	_, err = maps.Read(first[:])
	return err == nil // a thread of the kernel has none
}

func (s *secure) examine(pid uint32) {
	if pid == uint32(os.Getpid()) {
		return
	}
	_, err := s.finder.Examine(pid, time.Now())
	if errors.Is(err, fs.ErrPermission) {
		s.toldDenied.Do(func() {
			s.logger.Info("what a process encrypts with cannot be read (CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH would allow it, "+
				"and CAP_CHECKPOINT_RESTORE where the file was deleted): the TLS of such processes is not seen; "+
				"the loss tls_file_denied counts them", zap.Uint32("pid", pid), zap.Error(err))
		})
	}
	if err != nil && !errors.Is(err, tls.ErrClosed) && !errors.Is(err, fs.ErrNotExist) {
		s.logger.Debug("Look for what a process encrypts with", zap.Uint32("pid", pid), zap.Error(err))
	}
}

// close detaches from everything. Nothing is noticed after it.
func (s *secure) close() error {
	if s == nil {
		return nil
	}
	close(s.stop)
	err := s.finder.Close() // ends what is looked into at the moment
	s.done.Wait()
	return err
}

func (s *secure) stats() kernel.Stats {
	if s == nil {
		return kernel.Stats{}
	}
	stats := s.finder.Stats(ProbeName)
	stats.Losses = append(stats.Losses,
		kernel.LossCount{Probe: ProbeName, Reason: "tls_process_skipped", Count: s.skipped.Load()},
		kernel.LossCount{Probe: ProbeName, Reason: "tls_unobserved", Count: s.unobserved.Load()},
	)
	return stats
}
