//go:build linux

package tls

import (
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const further = "testing.(*T).Run" // of all programs that a test can copy

func readProgramAt(t *testing.T, path string) (Program, error) {
	opened, err := os.Open(path)
	require.NoError(t, err)
	defer opened.Close()
	return readProgram(opened)
}

func TestReadProgram(t *testing.T) {
	own, err := readProgramAt(t, "/proc/self/exe")
	require.NoError(t, err)
	assert.Equal(t, Program{Known: true, Go: true, GoVersion: runtime.Version(), GoArch: runtime.GOARCH}, own)

	other, err := readProgramAt(t, "/bin/sh")
	require.NoError(t, err)
	assert.Equal(t, Program{Known: true}, other)

	none := filepath.Join(t.TempDir(), "none")
	require.NoError(t, os.WriteFile(none, []byte("#!/bin/sh\n"), 0o700))
	unknown, err := readProgramAt(t, none)
	require.Error(t, err)
	assert.Equal(t, Program{}, unknown)
}

// Whoever asks what a process executes has it observed as well: its file is read once for both.
func TestFinderKnowsPrograms(t *testing.T) {
	requireArchitecture(t)
	path := filepath.Join(t.TempDir(), "program")
	copyProgram(t, path)
	tls, functions := &recorder{}, &recorder{}
	finder := NewFinder(Config{TLS: tls, Functions: functions, GoFunctions: []string{further}}, nil)
	for range 3 {
		pid, end := run(t, path)
		program, err := finder.Program(pid)
		require.NoError(t, err)
		assert.Equal(t, Program{Known: true, Go: true, GoVersion: runtime.Version(), GoArch: runtime.GOARCH}, program)
		assert.True(t, examine(t, finder, pid, start))
		assert.Empty(t, functions.targets, "nobody has asked for them")
		end()
	}
	require.Len(t, tls.targets, 1)
	assert.Len(t, tls.targets[0].Sites, 2)
	assert.Equal(t, path, tls.targets[0].Name)

	pid, _ := run(t, path)
	for range 2 {
		require.NoError(t, finder.ObserveFunctions(pid))
	}
	require.Len(t, functions.targets, 1)
	require.Len(t, functions.targets[0].Sites, 1)
	assert.Equal(t, further, functions.targets[0].Sites[0].Function)
	for _, event := range finder.Stats("http").Events {
		if event.Kind == "tls_file_attached" || event.Kind == "go_client_attached" {
			assert.EqualValues(t, 1, event.Count, event.Kind)
		}
	}
	require.NoError(t, finder.Close())
	assert.Equal(t, 1, tls.closed)
	assert.Equal(t, 1, functions.closed)
}

func TestFinderWithoutRoomStillTellsPrograms(t *testing.T) {
	finder := NewFinder(Config{MaxFiles: 1}, nil)
	finder.files[identity{}] = &file{attachments: [uses]io.Closer{toTLS: &recorder{}}}
	program, err := finder.Program(ownPID())
	require.NoError(t, err)
	assert.True(t, program.Go)
}

// What cannot be read of a process is lost when it was seen to speak TLS, and not before.
func TestFinderCountsWhatItCannotReadOnceItMatters(t *testing.T) {
	procFS := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(procFS, "7"), 0o700))
	stat, err := os.ReadFile("/proc/self/stat")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(procFS, "7", "stat"), stat, 0o600))
	require.NoError(t, os.Mkdir(filepath.Join(procFS, "7", "maps"), 0o700)) // cannot be read
	finder := NewFinder(Config{ProcFS: procFS, TLS: &recorder{}}, nil)
	_, err = finder.ExamineRunning(7, start)
	require.Error(t, err)
	assert.Empty(t, lossesOf(finder))
	_, err = finder.Examine(7, start)
	require.Error(t, err, "though it was examined a moment ago")
	assert.Equal(t, []string{"tls_file_unreadable"}, lossesOf(finder))
}
