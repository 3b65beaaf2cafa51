//go:build linux

package workload

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// How much of a file in /proc is read at most. Its length is in the hands of the process that it tells about.
const (
	maxStatFileBytes        = 4 << 10
	maxCommandLineFileBytes = 4 << 10
	maxEnvironFileBytes     = 128 << 10
	maxCgroupFileBytes      = 64 << 10
	maxSmallFileBytes       = 4 << 10
)

// clockTickNs is the unit of start times in /proc: USER_HZ is 100 on every architecture that we run on.
const clockTickNs = 10_000_000

// errGone says that the process asked for does not exist any more, even if its pid is in use again.
var errGone = errors.New("process has gone")

// errUnsettled says that a process executed another program each time that it was read.
var errUnsettled = errors.New("process keeps executing other programs")

// procFS reads processes from a proc file system.
type procFS struct {
	root             string
	bootTimeOffsetNs int64 // of our time namespace
	truncated        atomic.Uint64
	buffers          sync.Pool
}

// processView is one consistent reading of a process.
type processView struct {
	facts
	ended bool // it is a zombie: what is there is right, but its executable and arguments are gone
}

// denied tells whether a living process's executable could not be read: without CAP_SYS_PTRACE only our own user's can.
func (v *processView) denied() bool { return !v.complete && !v.ended }

func newProcFS(root string) *procFS {
	p := &procFS{root: root}
	p.buffers.New = func() any {
		buffer := make([]byte, maxEnvironFileBytes)
		return &buffer
	}
	// Before time namespaces (5.6) there is no such file, and no offset.
	if content, err := readSmallFile(filepath.Join(root, "self/timens_offsets")); err == nil {
		p.bootTimeOffsetNs, _ = parseBootTimeOffset(content)
	}
	return p
}

// startTicks is the start time that /proc shows for a process: the kernel truncates (nsec_to_clock_t), so comparing
// truncated times has no rounding edge.
func (p *procFS) startTicks(startBootNs uint64) uint64 {
	return (startBootNs + uint64(p.bootTimeOffsetNs)) / clockTickNs
}

// startBootNs is the earliest start time that /proc shows as startTicks.
func (p *procFS) startBootNs(startTicks uint64) uint64 {
	return startTicks*clockTickNs - uint64(p.bootTimeOffsetNs)
}

// identify reads only what is needed to tell a process from any other with the same pid.
func (p *procFS) identify(pid uint32) (stat, error) {
	directory, err := p.open(pid)
	if err != nil {
		return stat{}, err
	}
	defer unix.Close(directory)
	buffer := p.buffers.Get().(*[]byte)
	defer p.buffers.Put(buffer)
	return p.readStat(directory, *buffer)
}

// read tells what /proc knows about a process, or errGone. What cannot be read of a living process is left empty.
//
// The open directory stays bound to the process that it was opened for: once that has gone, reading through it fails
// even if the pid is in use again. So one comparison of the start time rules out an earlier reuse. A second reading at
// the end rules out that the process executed another program meanwhile, or died.
func (p *procFS) read(pid uint32, startTicks uint64) (processView, error) {
	directory, err := p.open(pid)
	if err != nil {
		return processView{}, err
	}
	defer unix.Close(directory)
	buffer := p.buffers.Get().(*[]byte)
	defer p.buffers.Put(buffer)

	const attempts = 3 // A process that executes this often while we read is described by its exec events.
	for range attempts {
		view, consistent, err := p.readOnce(directory, startTicks, *buffer)
		if err != nil || consistent {
			return view, err
		}
	}
	return processView{}, errUnsettled
}

func (p *procFS) open(pid uint32) (int, error) {
	path := p.root + "/" + strconv.FormatUint(uint64(pid), 10)
	directory, err := retryInterrupted(func() (int, error) {
		return unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
		return -1, errGone
	}
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", path, err)
	}
	return directory, nil
}

func (p *procFS) readOnce(directory int, startTicks uint64, buffer []byte) (view processView, consistent bool, err error) {
	before, err := p.readStat(directory, buffer)
	if err != nil {
		return processView{}, false, err
	}
	if before.startTicks != startTicks {
		return processView{}, false, errGone
	}
	view.comm = before.comm
	view.kernelThread = before.kernelThread
	if content := p.readFile(directory, "cgroup", buffer[:maxCgroupFileBytes]); content != nil {
		view.cgroup = parseCgroup(content)
	}
	if before.kernelThread {
		view.complete = true
		return view, true, nil
	}

	executable, executableErr := readLink(directory, "exe", buffer)
	if errors.Is(executableErr, unix.ENOENT) || errors.Is(executableErr, unix.ESRCH) {
		// It has given back its memory already, even if it does not count as a zombie yet.
		view.ended = true
		return view, true, nil
	}
	view.executablePath = parseExecutable(executable)
	view.command, view.commandLine = parseCommandLine(
		p.readFile(directory, "cmdline", buffer[:maxCommandLineFileBytes]))
	view.environment = p.readEnvironment(directory, buffer)

	after, err := p.readStat(directory, buffer)
	if err != nil || after.startTicks != startTicks {
		return processView{}, false, errGone
	}
	if after.exited() {
		view.ended = true
		return view, true, nil
	}
	executable, _ = readLink(directory, "exe", buffer)
	if parseExecutable(executable) != view.executablePath || after.comm != before.comm {
		return view, false, nil
	}
	view.complete = executableErr == nil
	return view, true, nil
}

func (p *procFS) readStat(directory int, buffer []byte) (stat, error) {
	content, _, err := readAt(directory, "stat", buffer[:maxStatFileBytes])
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
		return stat{}, errGone
	}
	if err != nil {
		return stat{}, fmt.Errorf("read stat of a process: %w", err)
	}
	parsed, err := parseStat(content)
	if err != nil {
		return stat{}, fmt.Errorf("parse stat of a process: %w", err)
	}
	return parsed, nil
}

func (p *procFS) readEnvironment(directory int, buffer []byte) environment {
	content, truncated, err := readAt(directory, "environ", buffer[:maxEnvironFileBytes])
	if err != nil {
		return environment{}
	}
	if truncated {
		p.truncated.Add(1)
		// Half a value would be a wrong one.
		content = content[:bytes.LastIndexByte(content, 0)+1]
	}
	return parseEnviron(content)
}

// readFile returns nil when the file cannot be read.
func (p *procFS) readFile(directory int, name string, buffer []byte) []byte {
	content, truncated, err := readAt(directory, name, buffer)
	if err != nil {
		return nil
	}
	if truncated {
		p.truncated.Add(1)
	}
	return content
}

// readAt reads a file until its end or until buffer is full.
func readAt(directory int, name string, buffer []byte) (content []byte, truncated bool, err error) {
	file, err := retryInterrupted(func() (int, error) {
		return unix.Openat(directory, name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	})
	if err != nil {
		return nil, false, err
	}
	defer unix.Close(file)
	length := 0
	for length < len(buffer) {
		n, err := retryInterrupted(func() (int, error) { return unix.Read(file, buffer[length:]) })
		if err != nil {
			return nil, false, err
		}
		if n == 0 {
			return buffer[:length], false, nil
		}
		length += n
	}
	return buffer, true, nil
}

func readLink(directory int, name string, buffer []byte) ([]byte, error) {
	n, err := retryInterrupted(func() (int, error) { return unix.Readlinkat(directory, name, buffer) })
	if err != nil {
		return nil, err
	}
	return buffer[:n], nil
}

func retryInterrupted(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// readSmallFile reads one of the host's own little files, whatever its length turns out to be.
func readSmallFile(path string) ([]byte, error) {
	content, _, err := readAt(unix.AT_FDCWD, path, make([]byte, maxSmallFileBytes))
	if err != nil {
		return nil, &os.PathError{Op: "read", Path: path, Err: err}
	}
	return content, nil
}
