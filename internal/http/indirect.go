//go:build linux

package http

import (
	"errors"

	"github.com/cilium/ebpf"
	"go.uber.org/zap"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
)

// indirectHooks see what processes receive where the ordinary hooks do not: see bpf/include/http/indirect.h. They are on the
// way of all that the host receives, so each is attached once the kernel side has seen a need of it.
func indirectHooks() []struct {
	hook
	need string // a variable of the kernel side
} {
	return []struct {
		hook
		need string
	}{
		{hook{program: "http_receive_packet", tracepoint: "skb_copy_datagram_iovec"}, "need_packets"},
		{hook{program: "http_receive_moved", tracepoint: "tcp_rcv_space_adjust"}, "need_moved"},
	}
}

// indirect attaches the indirect hooks. It belongs to the goroutine that drains the ring. A nil one does nothing.
type indirect struct {
	collection  *ebpf.Collection
	logger      *zap.Logger
	tried       map[string]bool // by program
	attachments []*kernel.Attachment
}

func newIndirect(collection *ebpf.Collection, logger *zap.Logger) *indirect {
	return &indirect{collection: collection, logger: logger, tried: map[string]bool{}}
}

// follow attaches what is needed by now.
func (i *indirect) follow() {
	for _, h := range indirectHooks() {
		if i.tried[h.program] {
			continue
		}
		var needed bool
		if err := i.collection.Variables[h.need].Get(&needed); err != nil {
			i.tried[h.program] = true
			i.logger.Error("Read what the HTTP probe's kernel side needs", zap.String("variable", h.need), zap.Error(err))
			continue
		}
		if !needed {
			continue
		}
		i.tried[h.program] = true
		attachment, err := kernel.AttachTracing("http."+h.tracepoint, i.collection.Programs[h.program])
		if err != nil {
			i.logger.Warn("What programs receive by io_uring or splice is not seen", zap.Error(err))
			continue
		}
		i.attachments = append(i.attachments, attachment)
	}
}

// close detaches. Closing twice is harmless.
func (i *indirect) close() error {
	if i == nil {
		return nil
	}
	var errs []error
	for _, attachment := range i.attachments {
		errs = append(errs, attachment.Close())
	}
	return errors.Join(errs...)
}
