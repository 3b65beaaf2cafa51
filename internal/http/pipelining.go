//go:build linux

package http

import (
	"github.com/cilium/ebpf"
	"go.uber.org/zap"

	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

// maxPipelining bounds the processes of which more is copied: see bpf/include/http/pipelining.h.
const maxPipelining = 1024

// pipelining knows the processes that move more messages in a call than are copied of it. It belongs to the goroutine that
// drains the ring.
type pipelining struct {
	collection *ebpf.Collection
	logger     *zap.Logger
	known      map[workload.Key]struct{}
}

func newPipelining(collection *ebpf.Collection, logger *zap.Logger) *pipelining {
	return &pipelining{collection: collection, logger: logger, known: map[workload.Key]struct{}{}}
}

// note has more copied of a process's calls.
func (p *pipelining) note(head *messageHead) {
	key := head.processKey()
	if _, known := p.known[key]; known {
		return
	}
	if len(p.known) >= maxPipelining {
		clear(p.known) // the kernel side keeps those that it has seen last
	}
	p.known[key] = struct{}{}
	err := p.collection.Maps["pipelining"].Put(head.Pid, head.StartBootNs)
	if err == nil {
		err = p.collection.Variables["pipelining_seen"].Set(true)
	}
	if err != nil {
		p.logger.Warn("Have more copied of what a process sends and receives", zap.Uint32("pid", head.Pid), zap.Error(err))
	}
}
