package site

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// requireArchitecture skips what needs machine code of amd64 on this machine.
func requireArchitecture(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the machine code of this machine is not read")
	}
}

// build makes the test program with further arguments to go build.
func build(t testing.TB, toolchain string, arguments ...string) *os.File {
	path := filepath.Join(t.TempDir(), "program")
	command := exec.Command("go", append(append([]string{"build", "-o", path}, arguments...), "main.go")...)
	command.Dir = "testdata/program"
	command.Env = append(os.Environ(), "GOARCH=amd64", "GOOS=linux")
	if toolchain != "" {
		// The module of this project asks for a newer version: the program is built without it.
		source, err := os.ReadFile("testdata/program/main.go")
		require.NoError(t, err)
		command.Dir = t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(command.Dir, "main.go"), source, 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(command.Dir, "go.mod"), []byte("module program\n\ngo 1.21\n"), 0o600))
		// go test has set GOROOT, and put its own tools first.
		command.Env = slices.DeleteFunc(append(command.Env, "GOTOOLCHAIN="+toolchain), func(variable string) bool {
			return strings.HasPrefix(variable, "GOROOT=") || strings.HasPrefix(variable, "GOTOOLCHAIN_INTERNAL")
		})
	}
	output, err := command.CombinedOutput()
	require.NoError(t, err, "%s", output)
	file, err := os.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { file.Close() })
	return file
}

const (
	transportRoundTrip = "net/http.(*Transport).roundTrip"
	absent             = "google.golang.org/grpc.(*ClientConn).Invoke"
)

func TestGo(t *testing.T) {
	for _, test := range []struct {
		name      string
		arguments []string
		stripped  []string
	}{
		{name: "plain"},
		{name: "stripped", stripped: []string{"-ldflags=-s -w"}},
		{name: "position independent", arguments: []string{"-buildmode=pie"}, stripped: []string{"-ldflags=-s -w"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			symbols := build(t, "", test.arguments...)
			program := checkGo(t, symbols, runtime.Version())
			if test.stripped != nil {
				stripped, err := Go(build(t, "", append(test.arguments, test.stripped...)...), transportRoundTrip, absent)
				require.NoError(t, err)
				assert.Equal(t, program, stripped)
			}
		})
	}
}

// The versions that the project supports cannot all be installed: EBPFRECEIVER_TEST_GO names those to fetch, such as
// "go1.21.13 go1.24.6".
func TestGoVersions(t *testing.T) {
	versions := strings.Fields(os.Getenv("EBPFRECEIVER_TEST_GO"))
	if len(versions) == 0 {
		t.Skip("EBPFRECEIVER_TEST_GO names no versions of Go")
	}
	for _, version := range versions {
		t.Run(version, func(t *testing.T) { checkGo(t, build(t, version), version) })
	}
	// This builds the standard library anew.
	t.Run("without inlining", func(t *testing.T) { checkGo(t, build(t, "", "-gcflags=all=-l"), runtime.Version()) })
}

// checkGo compares the sites with what Go's own disassembler shows.
func checkGo(t *testing.T, file *os.File, version string) Program {
	program, err := Go(file, transportRoundTrip, absent)
	require.NoError(t, err)
	assert.Equal(t, version, program.Version)
	events := map[string]Event{}
	for _, site := range program.Sites {
		t.Log(site)
		events[site.Function] = site.Event
		requireEmulated(t, file, site)
		before, at := disassembled(t, file.Name(), site)
		switch site.Event {
		case ReadReturn:
			register := strings.ToUpper(strings.TrimPrefix(site.Result.Register.String(), "r"))
			assert.Contains(t, before, fmt.Sprintf("TESTQ %s, %s", register, register))
			assert.Contains(t, before, "conn.go")
			assert.Regexp(t, `\bJ(E|NE|EQ) `, at)
			assert.Equal(t, Place{Register: RBP, Offset: 16, Memory: true, Bits: 64}, site.Connection)
			assert.Equal(t, Place{Register: RBP, Offset: 24, Memory: true, Bits: 64}, site.Buffer)
		default:
			assert.Contains(t, at, "PUSHQ BP")
		}
	}
	assert.Equal(t, map[string]Event{
		goTLSRead: ReadReturn, goTLSWrite: WriteCall, transportRoundTrip: Entry,
	}, events)
	return program
}

// disassembled is what Go's own disassembler shows of the function at a site, and before it.
func disassembled(t *testing.T, path string, site Site) (before, at string) {
	output, err := exec.Command("go", "tool", "objdump", "-s", "^"+regexp.QuoteMeta(site.Function)+"$", path).Output()
	require.NoError(t, err)
	for line := range strings.Lines(string(output)) {
		before, at = at, strings.TrimSpace(line)
		if strings.Contains(line, fmt.Sprintf("\t%#x\t", site.Address)) {
			return before, at
		}
	}
	require.Fail(t, "the site is not in the function", "%s", site)
	return "", ""
}

// buildMux makes a program with a ServeMux of net/http; empty: with this version of Go.
func buildMux(t *testing.T, toolchain string, arguments ...string) *os.File {
	const source = `package main

import (
	"net/http"
	"os"
)

func main() {
	mux := http.NewServeMux()
	mux.HandleFunc("/items/", func(http.ResponseWriter, *http.Request) {})
	http.ListenAndServe(os.Args[1], mux)
}
`
	directory := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(directory, "main.go"), []byte(source), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(directory, "go.mod"), []byte("module program\n\ngo 1.21\n"), 0o600))
	command := exec.Command("go", append([]string{"build", "-o", "program"}, arguments...)...)
	command.Dir = directory
	command.Env = slices.DeleteFunc(append(os.Environ(), "GOARCH=amd64", "GOOS=linux"), func(variable string) bool {
		return toolchain != "" && (strings.HasPrefix(variable, "GOROOT=") || strings.HasPrefix(variable, "GOTOOLCHAIN_INTERNAL"))
	})
	if toolchain != "" {
		command.Env = append(command.Env, "GOTOOLCHAIN="+toolchain)
	}
	output, err := command.CombinedOutput()
	require.NoError(t, err, "%s", output)
	file, err := os.Open(filepath.Join(directory, "program"))
	require.NoError(t, err)
	t.Cleanup(func() { file.Close() })
	return file
}

// matched gives the site of a program's mux.
func matched(t *testing.T, file *os.File) (sites []Site) {
	program, err := Go(file, GoMux)
	require.NoError(t, err)
	for _, site := range program.Sites {
		if site.Function == GoMux {
			sites = append(sites, site)
		}
	}
	return sites
}

// checkMux compares the site with what Go's own disassembler shows.
func checkMux(t *testing.T, file *os.File) []Site {
	sites := matched(t, file)
	require.Len(t, sites, 1)
	site := sites[0]
	t.Log(site)
	requireEmulated(t, file, site)
	before, at := disassembled(t, file.Name(), site)
	assert.Contains(t, before, "runtime.writeBarrier")
	assert.Regexp(t, `\bJ(E|NE|EQ) `, at)
	assert.Equal(t, Matched, site.Event)
	assert.Equal(t, "rcx:64 rdi:64", fmt.Sprint(site.Buffer, " ", site.Length))
	return sites
}

func TestGoMux(t *testing.T) {
	for _, arguments := range [][]string{{}, {"-buildmode=pie"}} {
		symbols := checkMux(t, buildMux(t, "", arguments...))
		assert.Equal(t, symbols, matched(t, buildMux(t, "", append(arguments, "-ldflags=-s -w")...)))
	}
	program, err := Go(buildMux(t, ""))
	require.NoError(t, err)
	for _, site := range program.Sites {
		assert.NotEqual(t, Matched, site.Event, "nobody has asked for it")
	}
	for _, version := range strings.Fields(os.Getenv("EBPFRECEIVER_TEST_GO")) {
		t.Run(version, func(t *testing.T) {
			file := buildMux(t, version)
			if strings.HasPrefix(version, "go1.21") {
				assert.Empty(t, matched(t, file))
				return
			}
			checkMux(t, file)
		})
	}
}

func TestGoWithoutGo(t *testing.T) {
	requireArchitecture(t)
	file := systemLibrary(t)
	_, err := Go(file)
	require.ErrorIs(t, err, ErrNone)
	_, err = Go(bytes.NewReader(nil))
	require.Error(t, err)
}

func TestGoMemory(t *testing.T) {
	file := build(t, "", "-ldflags=-s -w")
	result := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Go(file, transportRoundTrip); err != nil {
				b.Fatal(err)
			}
		}
	})
	t.Log(result, result.MemString())
	assert.Less(t, result.AllocedBytesPerOp(), int64(2<<20))
}

// smallTable is the table of functions of a Go program with some functions.
func smallTable(count uint64, names string, pairs ...uint32) []byte {
	const headerBytes = 72
	table := append([]byte(nil), functionTableHeader...)
	namesAt := uint64(headerBytes)
	functionsAt := namesAt + uint64(len(names))
	for _, field := range []uint64{count, 0, 0, namesAt, functionsAt, functionsAt, functionsAt, functionsAt} {
		table = binary.LittleEndian.AppendUint64(table, field)
	}
	table = append(table, names...)
	for _, word := range pairs {
		table = binary.LittleEndian.AppendUint32(table, word)
	}
	return table
}

// openTable reads a table that is all that there is in a file.
func openTable(data []byte) (*functionTable, error) {
	section := &elf.Section{SectionHeader: elf.SectionHeader{Type: elf.SHT_PROGBITS, FileSize: uint64(len(data))}}
	return (&image{reader: bytes.NewReader(data), file: &elf.File{}}).readFunctionTable(section, 0)
}

func TestFunctionTable(t *testing.T) {
	// Two pairs of entry and place of the description, the end of the text, then the descriptions: entry, name.
	table, err := openTable(smallTable(2, "a.First\x00b.Second\x00", 0x10, 20, 0x50, 28, 0x90, 0x10, 0, 0x50, 8))
	require.NoError(t, err)
	found, err := table.find([]string{"a.First", "b.Second", "c.Third"})
	require.NoError(t, err)
	assert.Equal(t, map[string]function{"a.First": {address: 0x10, size: 0x40}, "b.Second": {address: 0x50, size: 0x40}}, found)

	_, err = openTable(smallTable(1<<40, "a.First\x00"))
	require.ErrorContains(t, err, "malformed")
	_, err = openTable(make([]byte, 100))
	require.ErrorIs(t, err, ErrUnsupported)
}

func FuzzFunctionTable(f *testing.F) {
	f.Add(smallTable(2, "a.First\x00b.Second\x00", 0x10, 20, 0x50, 28, 0x90, 0x10, 0, 0x50, 8))
	f.Fuzz(func(_ *testing.T, data []byte) {
		if table, err := openTable(data); err == nil {
			table.find([]string{"a.First", "b.Second"})
		}
	})
}
