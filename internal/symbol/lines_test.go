//go:build linux

package symbol

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// randomCode are addresses in functions that have debug information.
func randomCode(t *testing.T, file string) []uint64 {
	random := rand.New(rand.NewPCG(1, 2))
	var addresses []uint64
	functions := functionsOf(t, file)
	for len(addresses) < 2000 {
		function := functions[random.IntN(len(functions))]
		if function.Size > 0 {
			addresses = append(addresses, function.Value+random.Uint64N(function.Size))
		}
	}
	return addresses
}

// llvmFrames asks llvm-symbolizer, which names functions as the file does.
func llvmFrames(t *testing.T, file string, addresses []uint64) [][]Frame {
	t.Helper()
	var input bytes.Buffer
	for _, address := range addresses {
		fmt.Fprintf(&input, "0x%x\n", address)
	}
	command := exec.Command(tool(t, "llvm-symbolizer-19", "llvm-symbolizer"), "--obj="+file, "--no-demangle",
		"--output-style=JSON")
	command.Stdin = &input
	output, err := command.Output()
	require.NoError(t, err)
	var all [][]Frame
	for line := range strings.Lines(string(output)) {
		var answer struct {
			Symbol []struct {
				FunctionName, FileName  string
				Line, Column, StartLine int
			}
		}
		require.NoError(t, json.Unmarshal([]byte(line), &answer), line)
		var frames []Frame
		for _, symbol := range answer.Symbol {
			frames = append(frames, Frame{
				Function: symbol.FunctionName, File: symbol.FileName, Line: symbol.Line, Column: symbol.Column,
			})
		}
		all = append(all, frames)
	}
	require.Len(t, all, len(addresses))
	return all
}

// gnuFrames asks addr2line of binutils, which tells no columns.
func gnuFrames(t *testing.T, file string, addresses []uint64) [][]Frame {
	t.Helper()
	var input bytes.Buffer
	for _, address := range addresses {
		fmt.Fprintf(&input, "0x%x\n", address)
	}
	command := exec.Command(tool(t, "addr2line"), "-afi", "-e", file)
	command.Stdin = &input
	output, err := command.Output()
	require.NoError(t, err)
	var all [][]Frame
	lines := strings.Split(strings.TrimSpace(string(output)), "\n")
	for index := 0; index < len(lines); {
		if strings.HasPrefix(lines[index], "0x") {
			all = append(all, nil)
			index++
			continue
		}
		place, _, _ := strings.Cut(lines[index+1], " (")
		name, number, _ := strings.Cut(place, ":")
		line, _ := strconv.Atoi(number)
		all[len(all)-1] = append(all[len(all)-1], Frame{Function: lines[index], File: name, Line: line})
		index += 2
	}
	require.Len(t, all, len(addresses))
	return all
}

// clones are parts of names in symbol tables that debug information does not have: gcc makes copies and parts of functions,
// and constructors and destructors have several names, one of which is taken.
var clones = regexp.MustCompile(`\.(isra|part|constprop|cold)(\.\d+)?|[1245]E`)

func compareLines(t *testing.T, image *Image, addresses []uint64, expected [][]Frame, columns bool) {
	t.Helper()
	inlined, lines, differ := 0, 0, 0
	for index, address := range addresses {
		frames, err := image.Lookup(address, nil)
		require.NoError(t, err)
		want, got := "", ""
		for _, frame := range expected[index] {
			if frame.File == "" || frame.File == "??" || frame.Line == 0 {
				frame.File, frame.Line, frame.Column = "", 0, 0
			}
			if !columns {
				frame.Column = 0
			}
			want += fmt.Sprintf("%s %s:%d:%d; ", frame.Function, path.Clean("/"+frame.File), frame.Line, frame.Column)
		}
		for _, frame := range frames {
			if frame.Line == 0 {
				frame.File, frame.Column = "", 0
			} else {
				lines++
			}
			if !columns {
				frame.Column = 0
			}
			got += fmt.Sprintf("%s %s:%d:%d; ", linkage(frame), path.Clean("/"+frame.File), frame.Line, frame.Column)
		}
		if alike := clones.ReplaceAllString; got != want && alike(got, "") != alike(want, "") {
			if differ++; differ < 6 {
				t.Errorf("%#x:\n got %s\nwant %s", address, got, want)
			}
		}
		if len(frames) > 1 {
			inlined++
		}
	}
	t.Logf("%d addresses, %d frames with lines, %d with inlined calls, %d differ", len(addresses), lines, inlined, differ)
	assert.Zero(t, differ)
	assert.Greater(t, lines, 1000)
}

func TestNativeLines(t *testing.T) {
	t.Parallel()
	for name, arguments := range map[string][]string{
		"dwarf 5":    {"-O2", "-g", "-gdwarf-5"},
		"dwarf 4":    {"-O2", "-g", "-gdwarf-4"},
		"O0":         {"-O0", "-g"},
		"compressed": {"-O2", "-g", "-gz=zlib"},
		"sections":   {"-O2", "-g", "-ffunction-sections", "-Wl,--gc-sections"},
	} {
		t.Run(name, func(t *testing.T) {
			file := compile(t, arguments...)
			image := open(t, symbolizer(t, Config{Lines: true}), file)
			addresses := randomCode(t, file)
			compareLines(t, image, addresses, llvmFrames(t, file, addresses), true)
			if name == "dwarf 4" {
				compareLines(t, image, addresses, gnuFrames(t, file, addresses), false)
			}
		})
	}
	t.Run("gcc", func(t *testing.T) {
		file := t.TempDir() + "/native"
		run(t, tool(t, "g++"), "-O2", "-g", "-o", file, "testdata/native/native.cpp")
		image := open(t, symbolizer(t, Config{Lines: true}), file)
		addresses := randomCode(t, file)
		compareLines(t, image, addresses, llvmFrames(t, file, addresses), true)
	})
}

// FuzzLines reads any table of lines.
func FuzzLines(f *testing.F) {
	f.Add([]byte("\x30\x00\x00\x00\x04\x00\x14\x00\x00\x00\x01\x01\x01\xfb\x0e\x0d"+
		"\x00\x01\x01\x01\x01\x00\x00\x00\x01\x00\x00\x01"), uint64(1))
	f.Fuzz(func(_ *testing.T, data []byte, address uint64) {
		program, err := readLineProgram(region{bytes: data}, "/")
		if err != nil {
			return
		}
		file, _, _ := program.lookup(address)
		program.file(&lineTable{}, file)
	})
}

// FuzzDebug reads any debug information.
func FuzzDebug(f *testing.F) {
	f.Add([]byte("\x01\x11\x01\x11\x01\x12\x07\x00\x00\x02\x2e\x00\x03\x08\x11\x01\x12\x07\x00\x00\x00"),
		[]byte("\x2b\x00\x00\x00\x04\x00\x00\x00\x00\x00\x08\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x02"+
			"f\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00"), []byte{}, uint64(1))
	f.Fuzz(func(t *testing.T, abbreviations, info, lines []byte, address uint64) {
		o, err := openObject(&file{bytes: elfOf(map[string][]byte{
			".debug_abbrev": append(abbreviations, 0), ".debug_info": info, ".debug_line": lines,
		})})
		require.NoError(t, err)
		_ = guarded(func() error {
			table, err := openLines(o)
			if err == nil {
				_, err = table.lookup(address, nil)
				table.retained()
			}
			return err
		})
	})
}

// BenchmarkLines tells what the lines of a large native program cost.
func BenchmarkLines(b *testing.B) {
	file := os.Getenv("NATIVE_WITH_DEBUG")
	if file == "" {
		b.Skip("NATIVE_WITH_DEBUG names no program")
	}
	for b.Loop() {
		s := New(Config{Lines: true})
		image, err := s.Open(File{Direct: file})
		require.NoError(b, err)
		started := time.Now()
		_, err = image.Lookup(image.object.entry+0x1000, nil)
		b.ReportMetric(float64(time.Since(started).Microseconds()), "first-lookup-µs")
		if err != nil {
			b.Log(err)
		}
		b.ReportMetric(float64(s.Stats().RetainedBytes), "retained-bytes")
		image.Close()
		s.Shutdown()
	}
}
