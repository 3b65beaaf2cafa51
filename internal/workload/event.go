//go:build linux

package workload

import (
	"bytes"
	"fmt"
	"strings"
	"unsafe"
)

// event is one event of bpf/process.bpf.c. Fork and exit fill the part that is common to all.
type event struct {
	kind     bpfProcessEventKind
	process  Key
	parent   Key
	executed *execution // of an exec
}

const (
	processEventBytes = int(unsafe.Sizeof(bpfProcessEvent{}))
	execEventBytes    = int(unsafe.Sizeof(bpfExecEvent{}))
	execHeaderBytes   = int(unsafe.Offsetof(bpfExecEvent{}.Environment))
)

// decodeEvent reads an event as the kernel side sent it.
func decodeEvent(sample []byte) (event, error) {
	if len(sample) < processEventBytes {
		return event{}, fmt.Errorf("process event of %d bytes, want at least %d", len(sample), processEventBytes)
	}
	// Copied, because a perf buffer aligns its samples to four bytes only; it also pads them.
	var raw bpfExecEvent
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&raw)), execEventBytes), sample)

	decoded := event{
		kind:    bpfProcessEventKind(raw.Process.Kind),
		process: Key{PID: raw.Process.Pid, StartBootNs: raw.Process.StartBootNs},
		parent:  Key{PID: raw.Process.ParentPid, StartBootNs: raw.Process.ParentStartBootNs},
	}
	switch decoded.kind {
	case bpfProcessEventKindPROCESS_FORK, bpfProcessEventKindPROCESS_EXIT:
		return decoded, nil
	case bpfProcessEventKindPROCESS_EXEC:
		if len(sample) < execHeaderBytes {
			return event{}, fmt.Errorf("exec event of %d bytes, want at least %d", len(sample), execHeaderBytes)
		}
		decoded.executed = newExecution(&raw)
		return decoded, nil
	}
	return event{}, fmt.Errorf("process event of unknown kind %d", raw.Process.Kind)
}

func newExecution(raw *bpfExecEvent) *execution {
	comm, _, _ := bytes.Cut(characters(raw.Comm[:]), []byte{0})
	filename := characters(raw.Filename[:])
	filename = filename[:min(int(raw.FilenameLength), len(filename))]
	arguments := characters(raw.Arguments[:])
	arguments = arguments[:min(int(raw.ArgumentsLength), len(arguments))]

	environment := characters(raw.Environment[:])
	environment = environment[:min(int(raw.EnvironmentLength), len(environment))]

	executed := &execution{comm: clean(comm, maxCommBytes), cgroupID: raw.CgroupId}
	executed.command, executed.commandLine = parseCommandLine(arguments)
	if uint64(len(environment)) < raw.EnvironmentBytes {
		environment = environment[:bytes.LastIndexByte(environment, 0)+1] // Half a value would be a wrong one.
	}
	executed.environment = parseEnviron(environment)
	path := clean(filename, maxPathBytes)
	executed.executableName = path[strings.LastIndexByte(path, '/')+1:]
	// A relative name, and what execveat names by a descriptor, is no path that anybody else could use.
	switch {
	case strings.HasPrefix(path, "/dev/fd/"):
		executed.executableName = executed.comm
	case strings.HasPrefix(path, "/"):
		executed.executablePath = path
	}
	return executed
}

// characters is what bpf2go makes of a C char array.
func characters(array []int8) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(array))), len(array))
}
