//go:build linux

package tcp

import (
	"net/netip"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
)

func TestDecodeFlowRefusesWhatIsNoFlow(t *testing.T) {
	whole := make([]byte, flowSize+16)
	_, err := decodeFlow(whole[:flowSize-1])
	assert.ErrorContains(t, err, "bytes")
	_, err = decodeFlow(nil)
	assert.ErrorContains(t, err, "bytes")
	_, err = decodeFlow(whole[1:])
	assert.ErrorContains(t, err, "aligned")
	f, err := decodeFlow(whole)
	require.NoError(t, err, "a perf buffer pads")
	assert.Equal(t, unsafe.Pointer(&whole[0]), unsafe.Pointer(f), "nothing is copied")
}

func FuzzDecodeFlow(f *testing.F) {
	f.Add(make([]byte, flowSize))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, sample []byte) {
		decoded, err := decodeFlow(sample)
		if err != nil {
			return
		}
		// Whatever the bytes are, nothing that is derived from them panics.
		decoded.id()
		decoded.errorType()
		decoded.stateName()
		decoded.servicePort()
		decoded.duration()
		decoded.handshakeDuration()
		assert.True(t, decoded.local().IsValid())
		assert.True(t, decoded.peer().IsValid())
		assert.NotContains(t, kernel.Text(decoded.Congestion[:]), "\x00")
	})
}

func TestAddress(t *testing.T) {
	var v4 [16]uint8
	copy(v4[:], []uint8{192, 0, 2, 7})
	mapped := netip.MustParseAddr("::ffff:192.0.2.7").As16()
	v6 := netip.MustParseAddr("2001:db8::1").As16()
	for _, test := range []struct {
		name        string
		family      uint16
		bytes       [16]uint8
		address     string
		networkType string
	}{
		{"IPv4", unix.AF_INET, v4, "192.0.2.7", "ipv4"},
		{"IPv4 on an IPv6 socket", unix.AF_INET6, mapped, "192.0.2.7", "ipv4"},
		{"IPv6", unix.AF_INET6, v6, "2001:db8::1", "ipv6"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := kernel.SocketAddress(test.family, &test.bytes)
			assert.Equal(t, test.address, got.String())
			assert.Equal(t, test.networkType, networkType(got))
		})
	}
}

func TestFlowIDIsTheSameOnBothEnds(t *testing.T) {
	client := &flow{LocalSequence: 0x11, RemoteSequence: 0xfffffffe}
	server := &flow{LocalSequence: 0xfffffffe, RemoteSequence: 0x11}
	assert.Equal(t, "00000011fffffffe", client.id())
	assert.Equal(t, client.id(), server.id())
	assert.Empty(t, (&flow{}).id(), "an attempt that failed has none")
}

func TestErrorType(t *testing.T) {
	failed := flow{Kind: uint8(bpfFlowKindFLOW_END), Role: uint8(bpfFlowRoleROLE_CLIENT), State: tcpSynSent}
	for _, test := range []struct {
		name   string
		change func(*flow)
		want   string
	}{
		{"refused", func(f *flow) { f.Error = int32(unix.ECONNREFUSED) }, "ECONNREFUSED"},
		{"an errno without a name", func(f *flow) { f.Error = 4000 }, "_OTHER"},
		{"the application gave up", func(f *flow) { f.Flags = uint32(bpfFlowFlagsFLAG_APPLICATION_CLOSED) }, "aborted"},
		{"failed inside connect", func(*flow) {}, "_OTHER"},
		{"an ordinary end", func(f *flow) { f.State, f.EstablishedNs = 9, 1 }, ""},
		{"broken", func(f *flow) { f.State, f.EstablishedNs, f.Error = 1, 1, int32(unix.ECONNRESET) }, "ECONNRESET"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := failed
			test.change(&f)
			assert.Equal(t, test.want, f.errorType())
		})
	}
}
