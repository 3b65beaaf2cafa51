//go:build linux

package symbol

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// fileIdentity tells files apart, and versions of a file.
type fileIdentity struct {
	device, inode    uint64
	size             int64
	modified, change int64 // nanoseconds
}

func identityOf(status fs.FileInfo) fileIdentity {
	identity := inodeOf(status)
	identity.size = status.Size()
	if system, ok := status.Sys().(*syscall.Stat_t); ok {
		identity.modified, identity.change = system.Mtim.Nano(), system.Ctim.Nano()
	}
	return identity
}

// inodeOf stays the same while a file grows.
func inodeOf(status fs.FileInfo) fileIdentity {
	system, ok := status.Sys().(*syscall.Stat_t)
	if !ok {
		return fileIdentity{}
	}
	return fileIdentity{device: system.Dev, inode: system.Ino}
}

// openRegular opens a file by a path that is trusted, such as PROCFS/PID/map_files/START-END, if it is a regular file. A
// device or a pipe is not even opened, as that can have effects or wait forever.
func openRegular(path string) (*os.File, error) {
	place, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", path, err)
	}
	defer unix.Close(place)
	return reopen(place, path)
}

// openInRoot opens a file by its path in the file system of a process, PROCFS/PID/root. Symbolic links of the process do not
// lead out of it.
func openInRoot(root, path string) (*os.File, error) {
	directory, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the root directory %s: %w", root, err)
	}
	defer unix.Close(directory)
	shown := filepath.Join(root, path)
	place, err := unix.Openat2(directory, path, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) { // Before Linux 5.6, or refused by a filter of system calls.
		return openBeneath(root, path)
	}
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", shown, err)
	}
	defer unix.Close(place)
	return reopen(place, shown)
}

func reopen(place int, shown string) (*os.File, error) {
	var status unix.Stat_t
	if err := unix.Fstat(place, &status); err != nil {
		return nil, fmt.Errorf("find out what %s is: %w", shown, err)
	}
	if status.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("open %s, which is no regular file: %w", shown, ErrRefused)
	}
	opened, err := unix.Open("/proc/self/fd/"+strconv.Itoa(place), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", shown, err)
	}
	return os.NewFile(uintptr(opened), shown), nil
}

// openBeneath does what openat2 would but for absolute symbolic links, which it refuses.
func openBeneath(root, path string) (*os.File, error) {
	directory, err := os.OpenRoot(root)
	if err != nil {
		return nil, fmt.Errorf("open the root directory %s: %w", root, err)
	}
	defer func() { _ = directory.Close() }() // Nothing was written.
	path = strings.TrimLeft(path, "/")
	status, err := directory.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("find %s in %s: %w", path, root, err)
	}
	if !status.Mode().IsRegular() {
		return nil, fmt.Errorf("open %s in %s, which is no regular file: %w", path, root, ErrRefused)
	}
	opened, err := directory.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s in %s: %w", path, root, err)
	}
	return opened, nil
}

// Process is one whose map of compiled code is read.
type Process struct {
	// Directory is PROCFS/PID.
	Directory string
	// Start tells processes with the same number apart: when it was started, in any unit.
	Start uint64
}

// openPerfMap opens the file that the process tells its compiled code in: in its own file system, with its number as it sees
// it itself. Only a file of the process's user, or of root, is believed, as perf does (tools/perf/util/symbol.c).
func (p Process) openPerfMap() (*os.File, error) {
	number, user, err := readStatus(filepath.Join(p.Directory, "status"))
	if err != nil {
		return nil, err
	}
	opened, err := openInRoot(filepath.Join(p.Directory, "root"), "/tmp/perf-"+strconv.Itoa(number)+".map")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("find a map of compiled code: %w", errors.Join(err, ErrNoSymbols))
	}
	if err != nil {
		return nil, err
	}
	status, err := opened.Stat()
	if err != nil {
		opened.Close()
		return nil, fmt.Errorf("find the owner of %s: %w", opened.Name(), err)
	}
	system, ok := status.Sys().(*syscall.Stat_t)
	if !ok || system.Uid != user && system.Uid != 0 || !status.Mode().IsRegular() {
		opened.Close()
		return nil, fmt.Errorf("open %s, which does not belong to the process's user %d: %w", opened.Name(), user, ErrRefused)
	}
	return opened, nil
}

// readStatus takes the process's number in its innermost name space and its effective user from PROCFS/PID/status.
func readStatus(path string) (number int, user uint32, err error) {
	opened, err := os.Open(path)
	if err != nil {
		return 0, 0, fmt.Errorf("find a process's own number: %w", err)
	}
	defer opened.Close()
	hasUser := false
	scanner := bufio.NewScanner(opened)
	for scanner.Scan() {
		key, value, _ := strings.Cut(scanner.Text(), ":")
		fields := strings.Fields(value)
		switch {
		case key == "NSpid" && len(fields) > 0, key == "Pid" && len(fields) > 0 && number == 0:
			if number, err = strconv.Atoi(fields[len(fields)-1]); err != nil {
				return 0, 0, fmt.Errorf("read %s in %s: %w", key, path, err)
			}
		case key == "Uid" && len(fields) > 1:
			effective, err := strconv.ParseUint(fields[1], 10, 32)
			if err != nil {
				return 0, 0, fmt.Errorf("read Uid in %s: %w", path, err)
			}
			user, hasUser = uint32(effective), true
		}
	}
	if err := scanner.Err(); err != nil {
		return 0, 0, fmt.Errorf("read %s: %w", path, err)
	}
	if number <= 0 || !hasUser {
		return 0, 0, fmt.Errorf("read %s, which has no NSpid and Uid: %w", path, ErrMalformed)
	}
	return number, user, nil
}
