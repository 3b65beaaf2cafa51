//go:build linux

package workload

import (
	"strings"
	"testing"
	"unicode/utf8"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// execSample is an exec event as the kernel side sends it, up to the end of its environment.
func execSample(filename, comm, arguments, environment string, environmentBytes int) []byte {
	raw := bpfExecEvent{CgroupId: 77}
	raw.Process = bpfProcessEvent{
		StartBootNs: 5_000, ParentStartBootNs: 4_000, Pid: 42, ParentPid: 41,
		Kind: uint32(bpfProcessEventKindPROCESS_EXEC),
	}
	raw.FilenameLength = uint32(copy(characters(raw.Filename[:]), filename))
	raw.ArgumentsLength = uint32(copy(characters(raw.Arguments[:]), arguments))
	raw.EnvironmentLength = uint32(copy(characters(raw.Environment[:]), environment))
	raw.EnvironmentBytes = uint64(environmentBytes)
	copy(characters(raw.Comm[:]), comm)
	return unsafe.Slice((*byte)(unsafe.Pointer(&raw)), execHeaderBytes+int(raw.EnvironmentLength))
}

func TestDecodeEvent(t *testing.T) {
	long := strings.Repeat("E", 4000) + "=1\x00OTEL_SERVICE_NAME=" + strings.Repeat("c", 100)
	tests := []struct {
		name   string
		sample []byte
		want   execution
	}{
		{
			"ordinary", execSample("/usr/bin/curl", "curl", "curl\x00-s\x00", "A=1\x00OTEL_SERVICE_NAME=fetch\x00", 28),
			execution{
				comm: "curl", executablePath: "/usr/bin/curl", executableName: "curl", command: "curl", commandLine: "curl -s",
				environment: environment{service: Service{Name: "fetch"}}, cgroupID: 77,
			},
		},
		{
			"relative name", execSample("./server", "server", "", "", 0),
			execution{comm: "server", executableName: "server", cgroupID: 77},
		},
		{
			"by descriptor", execSample("/dev/fd/5", "5", "runc\x00init\x00", "", 0),
			execution{comm: "5", executableName: "5", command: "runc", commandLine: "runc init", cgroupID: 77},
		},
		{
			"a value that was cut off", execSample("/a", "a", "", long, 5000),
			execution{comm: "a", executablePath: "/a", executableName: "a", cgroupID: 77},
		},
		{
			"no text", execSample("/\xff", "\xff", "\xff\x00\xfe", "", 0),
			execution{
				comm: "\uFFFD", executablePath: "/\uFFFD", executableName: "\uFFFD", command: "\uFFFD",
				commandLine: "\uFFFD \uFFFD", cgroupID: 77,
			},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			decoded, err := decodeEvent(test.sample)
			require.NoError(t, err)
			assert.Equal(t, bpfProcessEventKindPROCESS_EXEC, decoded.kind)
			assert.Equal(t, Key{PID: 42, StartBootNs: 5_000}, decoded.process)
			assert.Equal(t, Key{PID: 41, StartBootNs: 4_000}, decoded.parent)
			require.NotNil(t, decoded.executed)
			assert.Equal(t, test.want, *decoded.executed)
		})
	}

	whole := execSample("/usr/bin/curl", "curl", "", "", 0)
	for _, length := range []int{0, processEventBytes - 1, processEventBytes, execHeaderBytes - 1} {
		_, err := decodeEvent(whole[:length])
		assert.Error(t, err, "%d bytes", length)
	}
	unknown := make([]byte, processEventBytes)
	_, err := decodeEvent(unknown)
	assert.ErrorContains(t, err, "unknown kind")
}

func FuzzDecodeEvent(f *testing.F) {
	f.Add(execSample("/usr/bin/curl", "curl", "curl\x00-s\x00", "OTEL_SERVICE_NAME=x\x00", 100))
	f.Add(execSample("x", "y", "", "", 0)[:processEventBytes])
	f.Fuzz(func(t *testing.T, sample []byte) {
		decoded, err := decodeEvent(sample)
		if err != nil || decoded.executed == nil {
			return
		}
		executed := decoded.executed
		for _, text := range []string{
			executed.comm, executed.executablePath, executed.executableName, executed.command, executed.commandLine,
		} {
			assert.True(t, utf8.ValidString(text))
		}
	})
}
