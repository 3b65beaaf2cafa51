//go:build linux

package http

import (
	"net/netip"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

// sampleOf lays a message out as the ring has it.
func sampleOf(m message, head *messageHead, data []byte) []byte {
	size := messageSize
	if head != nil {
		size += messageHeadSize + len(data)
	}
	words := make([]uint64, (size+7)/8) // aligned
	sample := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), size)
	*(*message)(unsafe.Pointer(&sample[0])) = m
	if head != nil {
		*(*messageHead)(unsafe.Pointer(&sample[messageSize])) = *head
		copy(sample[messageSize+messageHeadSize:], data)
	}
	return sample
}

func TestDecode(t *testing.T) {
	want := message{
		TimeNs: 1, Cookie: 2, Length: 20, Captured: 3, Kind: uint8(bpfMessageKindMESSAGE_CONNECTION),
	}
	wantHead := messageHead{Pid: 7, LocalPort: 80}
	sample := sampleOf(want, &wantHead, []byte("abc"))

	m, head, data, err := decode(sample)
	require.NoError(t, err)
	assert.Equal(t, want, *m)
	assert.Equal(t, wantHead, *head)
	assert.Equal(t, "abc", string(data))
	assert.Equal(t, unsafe.Pointer(&sample[0]), unsafe.Pointer(m), "nothing is copied")

	padded := append(append(make([]byte, 0, len(sample)+32), sample...), make([]byte, 16)...)
	_, _, data, err = decode(padded)
	require.NoError(t, err, "a perf buffer pads")
	assert.Equal(t, "abc", string(data))

	undescribed := want
	undescribed.Kind = uint8(bpfMessageKindMESSAGE_HEAD)
	next := append(sampleOf(undescribed, nil, nil), "abc"...)
	m, head, data, err = decode(next)
	require.NoError(t, err)
	assert.Equal(t, undescribed, *m)
	assert.Nil(t, head)
	assert.Equal(t, "abc", string(data), "the connection was described before")

	without := message{TimeNs: 1, Length: 20, Kind: uint8(bpfMessageKindMESSAGE_DATA)}
	m, head, data, err = decode(sampleOf(without, nil, nil))
	require.NoError(t, err)
	assert.Equal(t, without, *m)
	assert.Nil(t, head)
	assert.Empty(t, data)

	for _, size := range []int{0, messageSize - 1, messageSize, messageSize + messageHeadSize, len(sample) - 1} {
		_, _, _, err = decode(sample[:size])
		assert.ErrorContains(t, err, "bytes", "%d bytes", size)
	}
	m, _, _, err = decode(padded[1:])
	assert.Nil(t, m)
	assert.ErrorContains(t, err, "aligned")
}

func TestMessageHead(t *testing.T) {
	head := messageHead{
		Family: unix.AF_INET, LocalAddress: [16]uint8{127, 0, 0, 1}, PeerAddress: [16]uint8{10, 0, 0, 2},
		LocalPort: 80, PeerPort: 40000, LocalSequence: 9, RemoteSequence: 5,
		Pid: 3, StartBootNs: 4, CgroupId: 6, Comm: [16]uint8{'n', 'g', 'i', 'n', 'x', 0, 'x'},
	}
	assert.Equal(t, netip.MustParseAddrPort("127.0.0.1:80"), head.local())
	assert.Equal(t, netip.MustParseAddrPort("10.0.0.2:40000"), head.peer())
	assert.Equal(t, workload.Key{PID: 3, StartBootNs: 4}, head.processKey())
	assert.Equal(t, workload.Hint{Comm: "nginx", CgroupID: 6}, head.hint())

	other := head
	other.LocalSequence, other.RemoteSequence = head.RemoteSequence, head.LocalSequence
	assert.Equal(t, uint64(5)<<32|9, head.flowID())
	assert.Equal(t, head.flowID(), other.flowID(), "the same on both ends")

	head.Family = unix.AF_INET6
	head.LocalAddress = netip.MustParseAddr("2001:db8::1").As16()
	head.PeerAddress = netip.MustParseAddr("::ffff:10.0.0.2").As16()
	assert.Equal(t, "[2001:db8::1]:80", head.local().String())
	assert.Equal(t, "10.0.0.2:40000", head.peer().String(), "mapped")
}

func TestMessageErrorType(t *testing.T) {
	for number, want := range map[int32]string{
		0:                      "connection_closed",
		int32(unix.ECONNRESET): "ECONNRESET",
		int32(unix.ETIMEDOUT):  "ETIMEDOUT",
		99999:                  "connection_closed",
		-1:                     "connection_closed",
	} {
		assert.Equal(t, want, (&message{Error: number}).errorType(), number)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(sampleOf(message{Length: 9, Captured: 3, Kind: uint8(bpfMessageKindMESSAGE_CONNECTION)}, &messageHead{}, []byte("abc")))
	f.Add([]byte{})
	f.Fuzz(func(_ *testing.T, sample []byte) {
		m, head, _, err := decode(sample)
		if err != nil {
			return
		}
		// Whatever the bytes are, nothing that is derived from them panics.
		m.errorType()
		tailBytes(m.Tail)
		if head != nil {
			head.local()
			head.peer()
			head.flowID()
			head.hint()
		}
	})
}
