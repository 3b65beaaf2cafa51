//go:build linux

package unwind

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Mappings reads the executable mappings of a process from a proc file system, in the order of their addresses. The error is
// a *Failure; with ReasonTooLarge there are the first ones, with ReasonMalformed those that were understood.
func Mappings(procfs string, pid uint32) ([]Mapping, error) {
	path := filepath.Join(procfs, strconv.FormatUint(uint64(pid), 10), "maps")
	file, err := os.Open(path)
	if err != nil {
		return nil, failure(reasonOfOpen(err), "read the mappings of a process: %w", err)
	}
	defer file.Close()
	mappings, truncated, skipped, err := parseMappings(file)
	switch {
	case err != nil:
		return nil, failure(reasonOfOpen(err), "read %s: %w", path, err)
	case truncated:
		return mappings, failure(ReasonTooLarge, "%s has more than %d executable mappings or %d bytes", path, maxMappings,
			maxMapsBytes)
	case skipped > 0:
		return mappings, failure(ReasonMalformed, "%s has %d lines that were not understood", path, skipped)
	}
	return mappings, nil
}

// reasonOfOpen is why something of a process cannot be read.
func reasonOfOpen(err error) Reason {
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH):
		return ReasonGone
	case errors.Is(err, fs.ErrPermission):
		return ReasonDenied
	}
	return ReasonUnreadable
}

// Open opens the very file that is mapped, and nothing else. The error is a *Failure.
//
// The kernel opens it by its mapping if we may (CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN), also if it has no name any more.
// Else the path has to do, in the file system that the process sees, and what is there has to be what is mapped.
func (m *Mapping) Open(procfs string, pid uint32) (*os.File, error) {
	if m.Kind != MappingFile {
		return nil, failure(ReasonNoFile, "%q is no file", m.Path)
	}
	directory := filepath.Join(procfs, strconv.FormatUint(uint64(pid), 10))
	link := filepath.Join(directory, "map_files", m.span())
	// Non-blocking: a device or a pipe, if that is what somebody put there, must not hold us.
	const flags = os.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	byMapping, err := os.OpenFile(link, flags, 0)
	if err == nil {
		if err = m.verify(byMapping, link); err == nil {
			return byMapping, nil
		}
		byMapping.Close()
		return nil, err
	}
	if m.Deleted {
		return nil, failure(reasonOfOpen(err), "open a file that was deleted or replaced, by its mapping: %w", err)
	}
	byPath, err := openInRoot(filepath.Join(directory, "root"), m.Path, flags)
	if err != nil {
		return nil, failure(reasonOfOpen(err), "open the file of a mapping: %w", err)
	}
	if err := m.verify(byPath, ""); err != nil {
		byPath.Close()
		return nil, err
	}
	return byPath, nil
}

// span is the name of the mapping in /proc/PID/map_files.
func (m *Mapping) span() string { return fmt.Sprintf("%x-%x", m.Start, m.End) }

// is tells whether a status is that of the file which maps shows, on a file system that has no numbers of its own there.
func (m *Mapping) is(status *unix.Stat_t) bool {
	return status.Mode&unix.S_IFMT == unix.S_IFREG && status.Ino == m.Inode &&
		unix.Major(status.Dev) == m.Major && unix.Minor(status.Dev) == m.Minor
}

// openInRoot opens a path as a process does whose root directory is another one: links do not lead out of it.
func openInRoot(root, path string, flags int) (*os.File, error) {
	directory, err := os.OpenFile(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer directory.Close()
	how := unix.OpenHow{Flags: uint64(flags), Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for range 16 {
		descriptor, err := unix.Openat2(int(directory.Fd()), path, &how)
		switch {
		case err == nil:
			return os.NewFile(uintptr(descriptor), path), nil
		case errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN): // something was renamed meanwhile
		case errors.Is(err, unix.ENOSYS): // before Linux 5.6; that it is the right file is seen by its inode
			return os.OpenFile(root+path, flags, 0)
		default:
			return nil, &fs.PathError{Op: "openat2", Path: root + path, Err: err}
		}
	}
	return nil, &fs.PathError{Op: "openat2", Path: root + path, Err: unix.EAGAIN}
}

// verify checks that a file is the one that is mapped. link is the name in map_files that it was opened by, if it was.
//
// Some file systems show another device in maps than for the file (btrfs: that of the whole file system rather than of the
// subvolume), overlay may show another inode too (those of the file below, before Linux 6.8).
func (m *Mapping) verify(file *os.File, link string) error {
	var status unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &status); err != nil {
		return failure(ReasonUnreadable, "identify the file of a mapping, %s: %w", m.Path, err)
	}
	if status.Mode&unix.S_IFMT != unix.S_IFREG {
		return failure(ReasonNoFile, "%s is no regular file", m.Path)
	}
	if m.is(&status) {
		return nil
	}
	sameInode := status.Ino == m.Inode
	var system unix.Statfs_t
	if err := unix.Fstatfs(int(file.Fd()), &system); err != nil {
		return failure(ReasonUnreadable, "identify the file system of a mapping's file, %s: %w", m.Path, err)
	}
	overlay := system.Type == unix.OVERLAYFS_SUPER_MAGIC
	if sameInode && (overlay || system.Type == unix.BTRFS_SUPER_MAGIC) {
		return nil
	}
	if overlay && link != "" {
		// It was opened by its mapping. All that may have happened is that something else was mapped there meanwhile.
		if target, err := os.Readlink(link); err == nil && strings.TrimSuffix(target, " (deleted)") == m.Path {
			return nil
		}
	}
	return failure(ReasonReplaced, "%s has inode %d on device %d:%d, but inode %d on device %d:%d is mapped",
		m.Path, status.Ino, unix.Major(status.Dev), unix.Minor(status.Dev), m.Inode, m.Major, m.Minor)
}

// ReadImage reads the ELF file that a mapping of MappingVDSO is, from the memory of a process. The error is a *Failure.
func (m *Mapping) ReadImage(procfs string, pid uint32) ([]byte, error) {
	if m.End-m.Start > maxImageBytes {
		return nil, failure(ReasonTooLarge, "%s has %d bytes", m.Path, m.End-m.Start)
	}
	image := make([]byte, m.End-m.Start)
	count, err := m.readMemory(procfs, pid, image)
	if err != nil {
		return nil, err
	}
	return image[:count], nil
}

// readMemory reads what a mapping begins with.
func (m *Mapping) readMemory(procfs string, pid uint32, buffer []byte) (int, error) {
	path := filepath.Join(procfs, strconv.FormatUint(uint64(pid), 10), "mem")
	memory, err := os.Open(path)
	if err != nil {
		return 0, failure(reasonOfOpen(err), "open the memory of a process: %w", err)
	}
	defer memory.Close()
	count, err := memory.ReadAt(buffer, int64(m.Start))
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, failure(reasonOfOpen(err), "read the memory of a process at %#x: %w", m.Start, err)
	}
	if count == 0 {
		return 0, failure(ReasonGone, "the process has no memory any more")
	}
	return count, nil
}
