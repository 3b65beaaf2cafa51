//go:build linux

package unwind

import (
	"bufio"
	"bytes"
	"io"
	"strconv"
)

// MappingKind is what executable memory of a process is.
type MappingKind uint8

// The kinds.
const (
	// MappingFile is a file that can be opened.
	MappingFile MappingKind = iota
	// MappingVDSO is the code that the kernel lends to every process: an ELF file in memory.
	MappingVDSO
	// MappingAnonymous has no file, or one that has only ever been memory: code that was made at run time. Frame pointers are
	// all there is to try, and every one has to be checked.
	MappingAnonymous
	// MappingSpecial is a page of the kernel's that no stack leads through: [vsyscall], [uprobes].
	MappingSpecial
)

// Mapping is a range of a process's addresses that may be executed.
type Mapping struct {
	Start, End uint64
	// Offset is where the range begins in the file, in bytes.
	Offset       uint64
	Major, Minor uint32 // of the device that the file is on
	Inode        uint64
	// Path is in the mount namespace of the process, as it was when the file was opened.
	Path string
	// Deleted says that the path names another file by now, or none.
	Deleted bool
	Kind    MappingKind
}

// parseMappings reads what /proc/PID/maps says (proc_pid_maps(5)): the executable mappings in the order of their addresses.
// truncated says that there are more of them than the limits allow; skipped is how many lines were not understood.
func parseMappings(reader io.Reader) (mappings []Mapping, truncated bool, skipped int, err error) {
	limited := &io.LimitedReader{R: reader, N: maxMapsBytes}
	buffered := bufio.NewReaderSize(limited, 64<<10)
	for {
		line, err := buffered.ReadSlice('\n')
		if err == bufio.ErrBufferFull { //nolint:errorlint // bufio returns it as it is
			// No path of the kernel's is so long (PAGE_SIZE).
			for err == bufio.ErrBufferFull { //nolint:errorlint // as above
				_, err = buffered.ReadSlice('\n')
			}
			skipped++
			line = nil
		}
		if len(line) > 0 {
			mapping, executable, ok := parseMapping(bytes.TrimSuffix(line, []byte{'\n'}))
			switch {
			case !ok && (err == nil || limited.N > 0):
				skipped++
			case !ok || !executable:
			case len(mappings) == maxMappings:
				return mappings, true, skipped, nil
			case len(mappings) > 0 && mapping.Start < mappings[len(mappings)-1].End:
				skipped++ // It was moved while the file was read.
			default:
				mappings = append(mappings, mapping)
			}
		}
		if err == io.EOF {
			return mappings, limited.N <= 0, skipped, nil
		}
		if err != nil {
			return mappings, true, skipped, err
		}
	}
}

// parseMapping reads one line.
func parseMapping(line []byte) (mapping Mapping, executable, ok bool) {
	span, rest, _ := bytes.Cut(line, []byte{' '})
	permissions, rest, _ := bytes.Cut(rest, []byte{' '})
	offset, rest, _ := bytes.Cut(rest, []byte{' '})
	device, rest, found := bytes.Cut(rest, []byte{' '})
	inode, path, _ := bytes.Cut(rest, []byte{' '})
	if !found || len(permissions) != 4 {
		return Mapping{}, false, false
	}
	if permissions[2] != 'x' {
		return Mapping{}, false, true
	}
	start, end, found := bytes.Cut(span, []byte{'-'})
	major, minor, foundDevice := bytes.Cut(device, []byte{':'})
	number := func(text []byte, base, bits int) uint64 {
		value, err := strconv.ParseUint(string(text), base, bits)
		found = found && err == nil
		return value
	}
	mapping = Mapping{
		Start: number(start, 16, 64), End: number(end, 16, 64), Offset: number(offset, 16, 64),
		Major: uint32(number(major, 16, 32)), Minor: uint32(number(minor, 16, 32)), Inode: number(inode, 10, 64),
	}
	if !found || !foundDevice || mapping.Start >= mapping.End {
		return Mapping{}, false, false
	}
	mapping.describe(bytes.TrimLeft(path, " "))
	return mapping, true, true
}

// memoryFiles are what begins the paths of files that are memory, in which code is made at run time.
var memoryFiles = [...]string{"/memfd:", "/dev/zero", "/SYSV", "/dev/shm/", "/anon_hugepage", "anon_inode:"}

// describe reads the last column.
func (m *Mapping) describe(path []byte) {
	name, deleted := bytes.CutSuffix(path, []byte(" (deleted)"))
	m.Deleted = deleted
	m.Path = string(bytes.ReplaceAll(name, []byte(`\012`), []byte{'\n'})) // the only thing that is escaped
	switch {
	case m.Path == "[vdso]":
		m.Kind = MappingVDSO
	case m.Path == "[vsyscall]" || m.Path == "[uprobes]":
		m.Kind = MappingSpecial
	case m.Inode == 0 || len(name) == 0 || name[0] == '[':
		m.Kind = MappingAnonymous
	}
	for _, prefix := range memoryFiles {
		if bytes.HasPrefix(name, []byte(prefix)) {
			m.Kind = MappingAnonymous
		}
	}
}
