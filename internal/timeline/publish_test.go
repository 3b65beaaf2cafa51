//go:build linux

package timeline

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel/kerneltest"
)

// bpfFileSystem mounts one for the test.
func bpfFileSystem(t *testing.T) string {
	kerneltest.RequireRoot(t)
	directory := t.TempDir()
	require.NoError(t, unix.Mount("bpf", directory, "bpf", 0, ""))
	t.Cleanup(func() { assert.NoError(t, unix.Unmount(directory, 0)) })
	return directory
}

func TestPublish(t *testing.T) {
	path := filepath.Join(bpfFileSystem(t), "otel", "traces_ctx_v1")
	publisher, err := NewPublisher(path)
	require.NoError(t, err)
	reader, err := ebpf.LoadPinnedMap(path, nil)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, reader.Close()) })
	require.Equal(t, ebpf.LRUHash, reader.Type())

	thread := Unit{PID: 7, Number: 8}
	line := New(4)
	line.PublishBy(publisher)
	read := func() []byte {
		value := make([]byte, 24)
		if err := reader.Lookup(uint64(7)<<32|8, &value); err != nil {
			require.ErrorIs(t, err, ebpf.ErrKeyNotExist)
			return nil
		}
		return value
	}
	told := func(s Span) []byte { return append(append([]byte{}, s.Trace[:]...), s.Span[:]...) }

	line.Begin(thread, 100, span(1))
	line.Begin(Unit{PID: 7, Number: 8, Goroutine: true}, 100, span(9))
	require.NoError(t, line.Publish())
	assert.Equal(t, told(span(1)), read())
	line.End(thread, 200, span(1))
	require.NoError(t, line.Publish())
	assert.Nil(t, read())

	line.Begin(thread, 300, span(2))
	line.End(thread, 310, span(2))
	line.Begin(thread, 320, span(3))
	require.NoError(t, line.Publish())
	assert.Equal(t, told(span(3)), read(), "what is served now")
	line.Mix(thread, 330)
	require.NoError(t, line.Publish())
	assert.Nil(t, read(), "nobody knows which one it is at")
	line.End(thread, 340, span(3))
	line.Begin(thread, 350, span(4))
	require.NoError(t, line.Publish())
	require.NoError(t, publisher.Close())
	assert.Nil(t, read(), "taken back")
	_, err = os.Stat(path)
	assert.ErrorIs(t, err, os.ErrNotExist)
}

func TestPublisherTakesTheMapThatIsThere(t *testing.T) {
	path := filepath.Join(bpfFileSystem(t), "traces_ctx_v1")
	first, err := NewPublisher(path)
	require.NoError(t, err)
	second, err := NewPublisher(path)
	require.NoError(t, err)
	require.NoError(t, second.Close())
	_, err = os.Stat(path)
	require.NoError(t, err, "it is the first one's")
	require.NoError(t, first.Close())

	other, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	require.NoError(t, err)
	require.NoError(t, other.Pin(path))
	_, err = NewPublisher(path)
	require.ErrorContains(t, err, "it has another layout")
	require.NoError(t, other.Unpin())
	require.NoError(t, other.Close())
}

func TestPublisherNeedsABPFFileSystem(t *testing.T) {
	kerneltest.RequireRoot(t)
	_, err := NewPublisher(filepath.Join(t.TempDir(), "traces_ctx_v1"))
	require.ErrorContains(t, err, "has to be in a BPF file system")
}
