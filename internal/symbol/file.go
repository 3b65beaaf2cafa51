//go:build linux

package symbol

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// file is the contents of a file: mapped into memory, or unpacked there.
//
// A mapped file can be truncated by whoever owns it; reading it then is a fault (SIGBUS). All reads happen inside of
// guarded, which makes an error of that.
type file struct {
	bytes  []byte
	mapped bool
}

// mapFile maps a regular file. It can be closed afterwards.
func mapFile(opened *os.File) (*file, error) {
	status, err := opened.Stat()
	if err != nil {
		return nil, fmt.Errorf("find the size of %s: %w", opened.Name(), err)
	}
	if !status.Mode().IsRegular() {
		return nil, fmt.Errorf("map %s, which is no regular file: %w", opened.Name(), ErrRefused)
	}
	if status.Size() <= 0 || status.Size() > math.MaxInt {
		return nil, fmt.Errorf("map %s, which has %d bytes: %w", opened.Name(), status.Size(), ErrUnsupported)
	}
	mapped, err := unix.Mmap(int(opened.Fd()), 0, int(status.Size()), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("map the %d bytes of %s: %w", status.Size(), opened.Name(), err)
	}
	return &file{bytes: mapped, mapped: true}, nil
}

func (f *file) close() {
	if f != nil && f.mapped {
		_ = unix.Munmap(f.bytes) // Fails only for what is not mapped.
		f.bytes, f.mapped = nil, false
	}
}

// errPanic is what a fault or a panic becomes.
var errPanic = errors.New("the file has changed, or contradicts itself")

// guarded runs what reads foreign files. Faults of a file that has become shorter, and panics of libraries over malformed
// ones, become errors.
func guarded(read func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if panicked := recover(); panicked != nil {
			err = fmt.Errorf("%w: %v: %w", errPanic, panicked, ErrMalformed)
		}
	}()
	return read()
}

// region is a part of a file: places count from its start, and nothing outside of it can be read.
type region struct {
	bytes []byte
	start uint64 // in the file
}

// region cuts a part out of a file, shortened to what the file has.
func (f *file) region(start, size uint64) region {
	return region{bytes: f.bytes}.sub(start, size)
}

func (r region) size() uint64 { return uint64(len(r.bytes)) }

func (r region) sub(start, size uint64) region {
	if start > r.size() {
		return region{}
	}
	return region{bytes: r.bytes[start : start+min(size, r.size()-start)], start: r.start + start}
}

// at is so many bytes at a place, nil if the region has fewer.
func (r region) at(place, count uint64) []byte {
	if place > r.size() || count > r.size()-place {
		return nil
	}
	return r.bytes[place : place+count]
}

func (r region) uint32(place uint64) (uint32, bool) {
	if view := r.at(place, 4); view != nil {
		return binary.LittleEndian.Uint32(view), true
	}
	return 0, false
}

// maxNameBytes is where names end at the latest: the longest seen, of C++ templates, have some 10,000 characters.
const maxNameBytes = 16 << 10

// name is a string that ends with a zero byte, in place. It is nil if there is no such end before the limit.
func (r region) name(place uint64) []byte {
	if place >= r.size() {
		return nil
	}
	view := r.bytes[place:min(place+maxNameBytes, r.size())]
	end := bytes.IndexByte(view, 0)
	if end < 0 {
		return nil
	}
	return view[:end]
}

// text is a copy of a name.
func (r region) text(place uint64) (string, bool) {
	name := r.name(place)
	return string(name), name != nil
}
