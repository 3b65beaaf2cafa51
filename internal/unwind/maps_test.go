//go:build linux

package unwind

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const someMaps = `00400000-00500000 r-xp 00000000 fe:01 80                                 /usr/bin/fixed
55d0c0a00000-55d0c0a02000 r--p 00000000 fe:01 1049 /usr/bin/program
55d0c0a02000-55d0c0a06000 r-xp 00002000 fe:01 1049                       /usr/bin/program
55d0c2000000-55d0c2021000 rw-p 00000000 00:00 0                          [heap]
7f0000000000-7f0000001000 rwxp 00000000 00:00 0 
7f1000000000-7f1000001000 r-xp 00000000 fe:01 77                         /opt/with space/libssl.so.3 (deleted)
7f1000001000-7f1000002000 r-xp 00001000 103:0a 18446744073709551615      /a\012b
7f2000000000-7f2000001000 r-xs 00000000 00:0e 9                          anon_inode:[perf_event]
7f3000000000-7f3000001000 r-xs 00000000 00:01 3                          /memfd:doublemapper (deleted)
7f4000000000-7f4000001000 r-xp 00000000 00:00 0                          [anon:v8]
7f5000000000-7f5000001000 --xp 00000000 00:00 0                          [uprobes]
7ffd00000000-7ffd00002000 r-xp 00000000 00:00 0                          [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
`

func TestParseMappings(t *testing.T) {
	found, truncated, skipped, err := parseMappings(strings.NewReader(someMaps))
	require.NoError(t, err)
	assert.False(t, truncated)
	assert.Zero(t, skipped)
	assert.Equal(t, []Mapping{
		{Start: 0x400000, End: 0x500000, Major: 0xfe, Minor: 1, Inode: 80, Path: "/usr/bin/fixed"},
		{Start: 0x55d0c0a02000, End: 0x55d0c0a06000, Offset: 0x2000, Major: 0xfe, Minor: 1, Inode: 1049, Path: "/usr/bin/program"},
		{Start: 0x7f0000000000, End: 0x7f0000001000, Kind: MappingAnonymous},
		{
			Start: 0x7f1000000000, End: 0x7f1000001000, Major: 0xfe, Minor: 1, Inode: 77, Path: "/opt/with space/libssl.so.3",
			Deleted: true,
		},
		{Start: 0x7f1000001000, End: 0x7f1000002000, Offset: 0x1000, Major: 0x103, Minor: 10, Inode: 1<<64 - 1, Path: "/a\nb"},
		{
			Start: 0x7f2000000000, End: 0x7f2000001000, Minor: 0xe, Inode: 9, Path: "anon_inode:[perf_event]",
			Kind: MappingAnonymous,
		},
		{
			Start: 0x7f3000000000, End: 0x7f3000001000, Minor: 1, Inode: 3, Path: "/memfd:doublemapper", Deleted: true,
			Kind: MappingAnonymous,
		},
		{Start: 0x7f4000000000, End: 0x7f4000001000, Path: "[anon:v8]", Kind: MappingAnonymous},
		{Start: 0x7f5000000000, End: 0x7f5000001000, Path: "[uprobes]", Kind: MappingSpecial},
		{Start: 0x7ffd00000000, End: 0x7ffd00002000, Path: "[vdso]", Kind: MappingVDSO},
		{Start: 0xffffffffff600000, End: 0xffffffffff601000, Path: "[vsyscall]", Kind: MappingSpecial},
	}, found)
}

func TestParseMappingsThatAreStrange(t *testing.T) {
	for line, skipped := range map[string]int{
		"\n": 1, "a\n": 1, "1-2 r-xp\n": 1, "1-2 r-xp 0 0:0 x\n": 1, "2-1 r-xp 0 0:0 0\n": 1, "1-1 r-xp 0 0:0 0\n": 1,
		"1 r-xp 0 0:0 0\n": 1, "1-2 r-xp 0 00 0\n": 1, "1-2 rx 0 0:0 0\n": 1, "1-2 r-xp z 0:0 0\n": 1,
		"10000000000000000-20000000000000000 r-xp 0 0:0 0\n":    1,
		"1-2 r-xp 0 0:0 0\n1-3 r-xp 0 0:0 0\n":                  1,
		"1-2 r-xp 0 0:0 0 " + strings.Repeat("x", 1<<18) + "\n": 1,
		"1-2 r-xp 0 0:0 0": 0,
		"1-2 rw-p what is not executable does not matter at all \n": 0,
		"": 0,
	} {
		_, truncated, found, err := parseMappings(strings.NewReader(line))
		require.NoError(t, err)
		assert.False(t, truncated)
		assert.Equal(t, skipped, found, "%.100q", line)
	}
	many := strings.Builder{}
	for number := range maxMappings + 1 {
		fmt.Fprintf(&many, "%x000-%x800 r-xp 00000000 00:00 0\n", number+1, number+1)
	}
	found, truncated, _, err := parseMappings(strings.NewReader(many.String()))
	require.NoError(t, err)
	assert.True(t, truncated)
	assert.Len(t, found, maxMappings)

	long := strings.Repeat("1-2 rw-p 00000000 00:00 0 "+strings.Repeat("x", 64)+"\n", maxMapsBytes/64)
	_, truncated, _, err = parseMappings(strings.NewReader(long))
	require.NoError(t, err)
	assert.True(t, truncated)
	found, truncated, _, err = parseMappings(io.MultiReader(strings.NewReader("1-2 r-xp 0 0:0 0\n"), failing{}))
	assert.Len(t, found, 1)
	assert.True(t, truncated)
	assert.ErrorIs(t, err, errBroken)
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errBroken }

func FuzzParseMappings(f *testing.F) {
	f.Add(someMaps)
	f.Fuzz(func(t *testing.T, text string) {
		found, _, _, err := parseMappings(strings.NewReader(text))
		require.NoError(t, err)
		end := uint64(0)
		for _, mapping := range found {
			if mapping.Start < end || mapping.End <= mapping.Start {
				t.Fatalf("%+v is not behind %#x", mapping, end)
			}
			end = mapping.End
			if mapping.Kind == MappingFile && (mapping.Inode == 0 || mapping.Path == "") {
				t.Fatalf("%+v is no file", mapping)
			}
		}
	})
}

// sleeper runs a program from a path of the test's own until the test ends.
func sleeper(t *testing.T, path string) uint32 {
	source, err := exec.LookPath("sleep")
	require.NoError(t, err)
	content, err := os.ReadFile(source)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, content, 0o700))
	command := exec.Command(path, "60")
	require.NoError(t, command.Start())
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_, _ = command.Process.Wait()
	})
	return uint32(command.Process.Pid)
}

// mappingOf waits for the mapping of a file in a process.
func mappingOf(t *testing.T, pid uint32, path string) Mapping {
	for range 1000 {
		mappings, _ := Mappings("/proc", pid)
		for _, mapping := range mappings {
			if mapping.Path == path {
				return mapping
			}
		}
		unix.Nanosleep(&unix.Timespec{Nsec: 2e6}, nil)
	}
	t.Fatalf("%s is not mapped in process %d", path, pid)
	return Mapping{}
}

// pathsOnly is a proc file system whose map_files cannot be used, as for a process without CAP_CHECKPOINT_RESTORE.
func pathsOnly(t *testing.T, pid uint32) string {
	root := t.TempDir()
	name := strconv.Itoa(int(pid))
	require.NoError(t, os.Mkdir(filepath.Join(root, name), 0o700))
	for _, entry := range []string{"root", "maps", "mem"} {
		require.NoError(t, os.Symlink(filepath.Join("/proc", name, entry), filepath.Join(root, name, entry)))
	}
	return root
}

func TestOpenTheFileOfAMapping(t *testing.T) {
	path := filepath.Join(t.TempDir(), "program")
	pid := sleeper(t, path)
	mapping := mappingOf(t, pid, path)
	opens := func(procfs string) error {
		file, err := mapping.Open(procfs, pid)
		if err != nil {
			return err
		}
		defer file.Close()
		_, err = ReadFile(file, 1<<20)
		return err
	}
	byMapping := opens("/proc") == nil // We may only if privileged.
	paths := pathsOnly(t, pid)
	require.NoError(t, opens(paths))

	// Replaced, as by an update.
	require.NoError(t, os.WriteFile(path+".new", []byte("another"), 0o700))
	require.NoError(t, os.Rename(path+".new", path))
	assert.Equal(t, ReasonReplaced, ReasonOf(opens(paths)))
	mapping = mappingOf(t, pid, path)
	assert.True(t, mapping.Deleted)
	assert.Equal(t, ReasonGone, ReasonOf(opens(paths)))
	if byMapping {
		assert.NoError(t, opens("/proc"))
	}

	// Something else in its place.
	mapping.Deleted = false
	require.NoError(t, os.Remove(path))
	require.NoError(t, unix.Mkfifo(path, 0o600))
	assert.Equal(t, ReasonNoFile, ReasonOf(opens(paths)))
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Symlink("/etc/passwd", path))
	assert.Error(t, opens(paths))
	_, err := Mappings(t.TempDir(), pid)
	assert.Equal(t, ReasonGone, ReasonOf(err))
}

// A process in another mount namespace has other files at the same paths.
func TestOpenInAnotherMountNamespace(t *testing.T) {
	unshare, err := exec.LookPath("unshare")
	if err != nil || os.Geteuid() != 0 {
		t.Skip("this needs root and unshare")
	}
	for name, script := range map[string]string{
		"tmpfs": `mount -t tmpfs none "$1" && cp "$(command -v sleep)" "$1/program" && exec "$1/program" 60`,
		// As containers have it: the program comes from an image below, or was written by the container.
		"overlay, below": `mount -t tmpfs none /mnt && mkdir /mnt/lower /mnt/upper /mnt/work && mkdir /mnt/lower/a &&
			cp "$(command -v sleep)" /mnt/lower/program &&
			mount -t overlay -o lowerdir=/mnt/lower,upperdir=/mnt/upper,workdir=/mnt/work none "$1" && exec "$1/program" 60`,
		"overlay, above": `mount -t tmpfs none /mnt && mkdir /mnt/lower /mnt/upper /mnt/work && touch /mnt/lower/program &&
			mount -t overlay -o lowerdir=/mnt/lower,upperdir=/mnt/upper,workdir=/mnt/work none "$1" &&
			cp "$(command -v sleep)" "$1/program" && chmod 755 "$1/program" && exec "$1/program" 60`,
	} {
		t.Run(name, func(t *testing.T) {
			hidden := filepath.Join(t.TempDir(), "mounted")
			require.NoError(t, os.Mkdir(hidden, 0o700))
			path := filepath.Join(hidden, "program")
			require.NoError(t, os.WriteFile(path, []byte("what the host has there"), 0o600))
			command := exec.Command(unshare, "--mount", "sh", "-c", script, "sh", hidden)
			require.NoError(t, command.Start())
			t.Cleanup(func() {
				_ = command.Process.Kill()
				_, _ = command.Process.Wait()
			})
			pid := uint32(command.Process.Pid)
			mapping := mappingOf(t, pid, path)
			for _, procfs := range []string{"/proc", pathsOnly(t, pid)} {
				file, err := mapping.Open(procfs, pid)
				require.NoError(t, err)
				_, err = ReadFile(file, 1<<20)
				assert.NoError(t, err)
				file.Close()
			}
		})
	}
}

// The mappings of this process are those that the kernel shows, line by line.
func TestMappingsOfThisProcess(t *testing.T) {
	found, err := Mappings("/proc", uint32(os.Getpid()))
	require.NoError(t, err)
	file, err := os.Open("/proc/self/maps")
	require.NoError(t, err)
	defer file.Close()
	executable := map[string]bool{}
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		if fields := strings.Fields(scanner.Text()); strings.Contains(fields[1], "x") {
			executable[fields[0]] = true
		}
	}
	for _, mapping := range found {
		assert.True(t, executable[fmt.Sprintf("%08x-%08x", mapping.Start, mapping.End)], "%+v", mapping)
	}
	assert.Len(t, found, len(executable))
}
