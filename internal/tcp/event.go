//go:build linux

package tcp

import (
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

// flow is one report of the kernel side about one socket: struct flow of bpf/tcp.bpf.c.
type flow bpfFlow

const flowSize = int(unsafe.Sizeof(flow{}))

// decodeFlow gives a view of a sample, valid as long as the sample is: nothing is copied.
func decodeFlow(sample []byte) (*flow, error) {
	// A perf buffer pads samples, so there may be more.
	if len(sample) < flowSize {
		return nil, fmt.Errorf("decode flow: the sample has %d bytes, a flow has %d", len(sample), flowSize)
	}
	if uintptr(unsafe.Pointer(&sample[0]))%unsafe.Alignof(flow{}) != 0 {
		return nil, fmt.Errorf("decode flow: the sample is not aligned to %d bytes", unsafe.Alignof(flow{}))
	}
	return (*flow)(unsafe.Pointer(&sample[0])), nil
}

func (f *flow) kind() bpfFlowKind { return bpfFlowKind(f.Kind) }
func (f *flow) role() bpfFlowRole { return bpfFlowRole(f.Role) }

func (f *flow) has(flag bpfFlowFlags) bool { return f.Flags&uint32(flag) != 0 }

// failed says that the connection ended before it was established.
func (f *flow) failed() bool {
	if f.kind() != bpfFlowKindFLOW_END || f.EstablishedNs != 0 {
		return false
	}
	return f.State == tcpSynSent || f.State == tcpSynRecv
}

// first says that no report before this one told of the connection.
func (f *flow) first() bool { return !f.has(bpfFlowFlagsFLAG_OPEN_REPORTED) }

// servicePort is the port that the server listens on.
func (f *flow) servicePort() uint16 {
	if f.role() == bpfFlowRoleROLE_CLIENT {
		return f.PeerPort
	}
	return f.LocalPort
}

func (f *flow) local() netip.Addr { return kernel.SocketAddress(f.Family, &f.LocalAddress) }
func (f *flow) peer() netip.Addr  { return kernel.SocketAddress(f.Family, &f.PeerAddress) }

// networkType is the value of network.type.
func networkType(address netip.Addr) string {
	if address.Is4() {
		return "ipv4"
	}
	return "ipv6"
}

// id names the connection. It is made of the two initial sequence numbers, so it is the same on both ends, on this
// host and on another, and address translation between them does not change it. Empty: the handshake never ended.
func (f *flow) id() string {
	value := kernel.ConnectionID(f.LocalSequence, f.RemoteSequence)
	if value == 0 {
		return ""
	}
	const digits = "0123456789abcdef"
	var text [16]byte
	for i := len(text) - 1; i >= 0; i-- {
		text[i] = digits[value&0xf]
		value >>= 4
	}
	return string(text[:])
}

// errorType is why the connection failed or broke; empty where it did neither.
func (f *flow) errorType() string {
	switch {
	case f.Error != 0:
		if name := unix.ErrnoName(unix.Errno(f.Error)); name != "" {
			return name
		}
		return errorOther
	case !f.failed():
		return ""
	case f.has(bpfFlowFlagsFLAG_APPLICATION_CLOSED):
		return errorAborted
	default:
		return errorOther
	}
}

func (f *flow) processKey() workload.Key {
	return workload.Key{PID: f.Owner.Pid, StartBootNs: f.Owner.StartBootNs}
}

// TCP states (include/net/tcp_states.h).
const (
	tcpSynSent = 2
	tcpSynRecv = 3
)

// stateName is the value of network.connection.state.
func (f *flow) stateName() string {
	names := [...]string{
		1: "established", 2: "syn_sent", 3: "syn_received", 4: "fin_wait_1", 5: "fin_wait_2", 6: "time_wait",
		7: "closed", 8: "close_wait", 9: "last_ack", 10: "listen", 11: "closing",
	}
	if int(f.State) < len(names) {
		return names[f.State]
	}
	return ""
}

func roleName(role bpfFlowRole) string {
	switch role {
	case bpfFlowRoleROLE_CLIENT:
		return "client"
	case bpfFlowRoleROLE_SERVER:
		return "server"
	case bpfFlowRoleROLE_LISTENER:
		return "listener"
	}
	return ""
}
