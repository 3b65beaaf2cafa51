//go:build linux

package kernel

import (
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// SocketAddress reads an address as a socket has it (struct sock_common): the first four bytes for AF_INET. An IPv4
// address mapped into IPv6 is an IPv4 address.
func SocketAddress(family uint16, bytes *[16]uint8) netip.Addr {
	if family == unix.AF_INET6 {
		return netip.AddrFrom16(*bytes).Unmap()
	}
	return netip.AddrFrom4([4]byte(bytes[:4]))
}

// ConnectionID names a TCP connection by the two initial sequence numbers, so it is the same on both ends, on this host and
// on another, and address translation between them does not change it. Zero: the handshake never ended.
func ConnectionID(localSequence, remoteSequence uint32) uint64 {
	return uint64(min(localSequence, remoteSequence))<<32 | uint64(max(localSequence, remoteSequence))
}

// Text reads a NUL-terminated string of the kernel.
func Text(bytes []uint8) string {
	text, _, _ := strings.Cut(string(bytes), "\x00")
	return text
}
