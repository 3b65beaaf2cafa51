//go:build linux

package symbol

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestFilesAreKnownByContents(t *testing.T) {
	t.Parallel()
	path := compile(t, "-O1")
	other := filepath.Join(t.TempDir(), "copy")
	run(t, "cp", path, other)
	s := symbolizer(t, Config{})
	first, second, again := open(t, s, path), open(t, s, other), open(t, s, path)
	assert.Same(t, first, second, "copies share their tables")
	assert.Same(t, first, again)
	assert.Equal(t, 1, s.Stats().Files)

	identity := first.Identity()
	assert.Len(t, identity.GNU, 40)
	assert.Len(t, identity.HTLHash, 32)
	own := open(t, s, "/proc/self/exe")
	assert.NotSame(t, first, own)
	assert.NotEmpty(t, own.Identity().Go)
}

// TestHTLHash follows the definition: SHA-256 of the first and last 4096 bytes and the length.
func TestHTLHash(t *testing.T) {
	small, large := bytes.Repeat([]byte{1}, 10), bytes.Repeat([]byte{1}, 10000)
	assert.NotEqual(t, hash(region{bytes: small}), hash(region{bytes: large}))
	middle := bytes.Clone(large)
	middle[5000] = 2
	assert.Equal(t, hash(region{bytes: middle}), hash(region{bytes: large}), "what lies between is not looked at")
}

func TestFilesThatAreNone(t *testing.T) {
	t.Parallel()
	s := symbolizer(t, Config{})
	directory := t.TempDir()
	for name, text := range map[string]string{"empty": "", "text": "#!/bin/sh\n", "cut": "\x7fELF\x02\x01\x01"} {
		path := filepath.Join(directory, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		for range 2 { // The second time it is remembered.
			_, err := s.Open(File{Direct: path})
			require.ErrorIs(t, err, ErrUnsupported, name)
		}
	}
	assert.Equal(t, 3, s.Stats().Files)
	_, err := s.Open(File{Direct: "/dev/null"})
	require.ErrorIs(t, err, ErrRefused)
	_, err = s.Open(File{Direct: directory})
	require.ErrorIs(t, err, ErrRefused)
	_, err = s.Open(File{Root: directory, Path: "/absent"})
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = s.Open(File{})
	require.ErrorIs(t, err, ErrUnsupported)
	// A link does not lead out of the root directory.
	require.NoError(t, os.Symlink("/proc/self/exe", filepath.Join(directory, "link")))
	_, err = s.Open(File{Root: directory, Path: "/link"})
	require.Error(t, err)
	require.NoError(t, os.Symlink("../../../../../../../../proc/self/exe", filepath.Join(directory, "up")))
	_, err = s.Open(File{Root: directory, Path: "/up"})
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestBounds(t *testing.T) {
	t.Parallel()
	paths := []string{compile(t, "-O1"), compile(t, "-O2"), compile(t, "-O0")}
	t.Run("files", func(t *testing.T) {
		s := symbolizer(t, Config{MaxFiles: 2})
		first, err := s.Open(File{Direct: paths[0]})
		require.NoError(t, err)
		second, err := s.Open(File{Direct: paths[1]})
		require.NoError(t, err)
		_, err = s.Open(File{Direct: paths[2]})
		require.ErrorIs(t, err, ErrTooLarge)
		second.Close()
		third, err := s.Open(File{Direct: paths[2]})
		require.NoError(t, err)
		_, err = first.Lookup(first.object.entry, nil)
		require.NoError(t, err)
		first.Close()
		third.Close()
		assert.Equal(t, 2, s.Stats().Files)
	})
	t.Run("one file", func(t *testing.T) {
		s := symbolizer(t, Config{MemoryBytes: 3400})
		image := open(t, s, paths[2])
		_, err := image.Lookup(image.object.entry, nil)
		require.NoError(t, err)
		for range 2 { // It is not read again.
			_, err = image.Lookup(image.object.entry, nil)
			require.ErrorIs(t, err, ErrTooLarge)
		}
		assert.LessOrEqual(t, s.Stats().RetainedBytes, int64(3400))
	})
	t.Run("memory", func(t *testing.T) {
		s := symbolizer(t, Config{MemoryBytes: 7000})
		for range 3 {
			for _, path := range paths {
				image := open(t, s, path)
				frames, err := image.Lookup(image.object.entry, nil)
				require.NoError(t, err)
				assert.Equal(t, "_start", frames[0].Function)
				assert.LessOrEqual(t, s.Stats().RetainedBytes, int64(7000))
			}
		}
		assert.Positive(t, s.Stats().Evicted)
	})
}

// TestConcurrent is for the race detector.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	paths := []string{compile(t, "-O1"), compile(t, "-O2"), "/proc/self/exe"}
	s := symbolizer(t, Config{MemoryBytes: 8000, Lines: true})
	var group sync.WaitGroup
	for worker := range 4 {
		group.Go(func() {
			for round := range 50 {
				image, err := s.Open(File{Direct: paths[(worker+round)%len(paths)]})
				if !assert.NoError(t, err) {
					return
				}
				_, err = image.Lookup(image.object.entry, nil)
				assert.NoError(t, err)
				image.Close()
				_, _ = s.LookupProcess(Process{"/proc/self", uint64(round)}, 1, nil)
				s.Stats()
			}
		})
	}
	group.Wait()
}

// elfOf is a small file with the sections that a fuzz test wants to change.
func elfOf(sections map[string][]byte) []byte {
	order := binary.LittleEndian
	names := []byte{0}
	body := make([]byte, headerBytes+segmentBytes)
	table := make([]byte, sectionBytes)
	add := func(name string, kind uint32, content []byte, link uint32) {
		entry := make([]byte, sectionBytes)
		order.PutUint32(entry, uint32(len(names)))
		names = append(append(names, name...), 0)
		order.PutUint32(entry[4:], kind)
		order.PutUint64(entry[8:], 6)
		for len(body)%8 != 0 {
			body = append(body, 0)
		}
		order.PutUint64(entry[16:], uint64(len(body)))
		order.PutUint64(entry[24:], uint64(len(body)))
		order.PutUint64(entry[32:], uint64(len(content)))
		order.PutUint32(entry[40:], link)
		body = append(body, content...)
		table = append(table, entry...)
	}
	add(".strtab", 3, []byte("\x00main\x00_ZN1a1bE\x00"), 0)
	add(".symtab", 2, sections[".symtab"], 1)
	for _, name := range []string{".gopclntab", ".go.module", ".gnu_debugdata", ".gnu_debuglink", ".note", ".plt", ".debug_info",
		".debug_abbrev", ".debug_line"} {
		kind := uint32(1)
		if name == ".note" {
			kind = 7
		}
		if content := sections[name]; content != nil {
			add(name, kind, content, 0)
		}
	}
	add(".shstrtab", 3, append(bytes.Clone(names), ".shstrtab\x00"...), 0)
	copy(body, "\x7fELF\x02\x01\x01")
	order.PutUint16(body[16:], 2)
	order.PutUint16(body[18:], 62)
	order.PutUint64(body[32:], headerBytes)
	order.PutUint64(body[40:], uint64(len(body)))
	order.PutUint16(body[54:], segmentBytes)
	order.PutUint16(body[56:], 1)
	order.PutUint16(body[58:], sectionBytes)
	order.PutUint16(body[60:], uint16(len(table)/sectionBytes))
	order.PutUint16(body[62:], uint16(len(table)/sectionBytes-1))
	segment := body[headerBytes:]
	order.PutUint32(segment, 1)
	order.PutUint32(segment[4:], 5)
	order.PutUint64(segment[32:], uint64(len(body)))
	order.PutUint64(segment[40:], uint64(len(body)))
	return append(body, table...)
}

// goSections are a table of functions and a description of a module that are right.
func goSections() map[string][]byte {
	order := binary.LittleEndian
	table := bytes.Clone(goMagic)
	table = append(table, 1, 8)
	for _, word := range []uint64{1, 1, 0x40, 72, 80, 88, 96, 112} {
		table = order.AppendUint64(table, word)
	}
	table = append(table, "main\x00\x00\x00\x00"...)             // 72: names
	table = append(table, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff)    // 80: units
	table = append(table, "main.go\x00"...)                      // 88: files
	table = append(table, 0, 2, 0x40, 0, 8, 0x40, 0, 0, 0, 0, 0) // 96: values
	table = append(table, 0, 0, 0, 0, 0)
	table = append(table, 0, 0, 0, 0, 12, 0, 0, 0, 0x40, 0, 0, 0) // 112: one function and the end
	description := make([]byte, goFunctionBytes+16)
	order.PutUint32(description[20:], 1)
	order.PutUint32(description[24:], 4)
	order.PutUint32(description[36:], 3)
	return map[string][]byte{".gopclntab": append(table, description...)}
}

func TestSmallGo(t *testing.T) {
	f := &file{bytes: elfOf(goSections())}
	o, err := openObject(f)
	require.NoError(t, err)
	table, err := openGo(o)
	require.NoError(t, err)
	frames, err := table.lookup(0x41, nil)
	require.NoError(t, err)
	assert.Equal(t, []Frame{{Function: "main", File: "main.go", Line: 3, StartLine: 3, Type: Go}}, frames)
}

func imageOf(s *Symbolizer, content []byte) (*Image, error) {
	image := &Image{owner: s}
	image.holder = &holder{drop: image.drop}
	err := guarded(func() (err error) {
		image.object, err = openObject(&file{bytes: content})
		return err
	})
	return image, err
}

// FuzzImage reads anything as a program: it has to come to an end, with an error at most.
func FuzzImage(f *testing.F) {
	symbol := binary.LittleEndian.AppendUint32(nil, 1)
	symbol = append(symbol, 0x12, 0, 1, 0)
	symbol = binary.LittleEndian.AppendUint64(symbol, 0x80)
	symbol = binary.LittleEndian.AppendUint64(symbol, 0x10)
	f.Add(elfOf(goSections()), uint64(0x41))
	f.Add(elfOf(map[string][]byte{".symtab": symbol, ".plt": []byte("\xff\x25\x00\x00\x00\x00aaaaaaaaaa"),
		".note": []byte("\x04\x00\x00\x00\x04\x00\x00\x00\x03\x00\x00\x00GNU\x00abcd"), ".gnu_debuglink": []byte("a\x00\x00\x00abcd")}),
		uint64(0x81))
	f.Add(elfOf(map[string][]byte{".gnu_debugdata": []byte("\xfd7zXZ\x00\x00\x04")}), uint64(0x81))
	s := New(Config{HostRoot: f.TempDir(), Lines: true, Now: func() time.Time { return time.Unix(0, 0) }})
	f.Fuzz(func(t *testing.T, content []byte, address uint64) {
		image, err := imageOf(s, content)
		if err != nil {
			return
		}
		for _, at := range []uint64{address, image.object.entry} {
			if frames, err := image.Lookup(at, nil); err == nil && len(frames) == 0 {
				t.Fatal("neither frames nor an error")
			} else if errors.Is(err, errPanic) {
				t.Fatal(err) // Nothing but a file that has changed may be caught by this.
			}
		}
		image.Identity().Offset(address)
		image.Identity().Address(address)
	})
}

// BenchmarkMemory tells what is kept of a program after it has been looked into.
func BenchmarkMemory(b *testing.B) {
	for _, name := range []string{os.Getenv("OTELCOL_EBPF"), "/proc/self/exe", "/lib/x86_64-linux-gnu/libc.so.6",
		"/usr/bin/node"} {
		if _, err := os.Stat(name); err != nil {
			continue
		}
		b.Run(filepath.Base(name), func(b *testing.B) {
			for b.Loop() {
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				s := New(Config{})
				image, err := s.Open(File{Direct: name})
				require.NoError(b, err)
				started := time.Now()
				_, _ = image.Lookup(image.object.entry, nil)
				first := time.Since(started)
				runtime.GC()
				runtime.ReadMemStats(&after)
				b.ReportMetric(float64(int64(after.HeapAlloc)-int64(before.HeapAlloc)), "retained-bytes")
				b.ReportMetric(float64(first.Microseconds()), "first-lookup-µs")
				image.Close()
				s.Shutdown()
			}
		})
	}
}
