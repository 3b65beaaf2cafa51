//go:build linux

package http

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

// message is one call that moved bytes, or the end of a socket: struct message of bpf/include/http/message.h.
type message bpfMessage

// messageHead describes a connection and the process at this end: struct message_head of bpf/include/http/message.h.
type messageHead bpfMessageHead

const (
	messageSize     = int(unsafe.Sizeof(message{}))
	messageHeadSize = int(unsafe.Sizeof(messageHead{}))
)

// decode gives views of a sample, valid as long as the sample is: nothing is copied. head is nil unless the message
// describes its connection.
func decode(sample []byte) (m *message, head *messageHead, data []byte, err error) {
	// A perf buffer pads samples, so there may be more.
	if len(sample) < messageSize {
		return nil, nil, nil, fmt.Errorf("decode message: the sample has %d bytes, a message has %d", len(sample), messageSize)
	}
	if uintptr(unsafe.Pointer(&sample[0]))%unsafe.Alignof(message{}) != 0 {
		return nil, nil, nil, fmt.Errorf("decode message: the sample is not aligned to %d bytes", unsafe.Alignof(message{}))
	}
	m = (*message)(unsafe.Pointer(&sample[0]))
	rest := sample[messageSize:]
	want := int(m.Captured)
	if m.kind() == bpfMessageKindMESSAGE_CONNECTION {
		want += messageHeadSize
	}
	if len(rest) < want {
		return nil, nil, nil, fmt.Errorf("decode message: the sample has %d bytes, the message should have %d with what follows it",
			len(sample), messageSize+want)
	}
	if m.kind() == bpfMessageKindMESSAGE_CONNECTION {
		head = (*messageHead)(unsafe.Pointer(&rest[0]))
		rest = rest[messageHeadSize:]
	}
	return m, head, rest[:m.Captured], nil
}

func (m *message) kind() bpfMessageKind { return bpfMessageKind(m.Kind) }

func (m *message) has(flag bpfMessageFlag) bool { return bpfMessageFlag(m.Flags)&flag != 0 }

// ends are the offsets after the last bytes that were sent and received, of a message that tells of a socket's end.
func (m *message) ends() (sent, received uint32) { return m.Offset, m.Length }

// unreadable says whether a call's first bytes were in memory that could not be read.
func (m *message) unreadable() bool { return m.Error == -int32(unix.EFAULT) }

// tailBytes are the bytes of message.Tail in the order of the stream.
func tailBytes(tail uint64) (bytes [8]byte) {
	binary.LittleEndian.PutUint64(bytes[:], tail)
	return bytes
}

func (h *messageHead) local() netip.AddrPort {
	return netip.AddrPortFrom(kernel.SocketAddress(h.Family, &h.LocalAddress), h.LocalPort)
}

func (h *messageHead) peer() netip.AddrPort {
	return netip.AddrPortFrom(kernel.SocketAddress(h.Family, &h.PeerAddress), h.PeerPort)
}

func (h *messageHead) flowID() uint64 { return kernel.ConnectionID(h.LocalSequence, h.RemoteSequence) }

func (h *messageHead) processKey() workload.Key {
	return workload.Key{PID: h.Pid, StartBootNs: h.StartBootNs}
}

func (h *messageHead) hint() workload.Hint {
	return workload.Hint{Comm: kernel.Text(h.Comm[:]), CgroupID: h.CgroupId}
}

// Values of error.type that are not errno names.
const errorConnectionClosed = "connection_closed" // the connection ended before the response did

// errorType is why a connection ended in the middle of an exchange.
func (m *message) errorType() string {
	if m.Error != 0 {
		if name := unix.ErrnoName(unix.Errno(m.Error)); name != "" {
			return name
		}
	}
	return errorConnectionClosed
}
