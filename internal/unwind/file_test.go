//go:build linux

package unwind

import (
	"bytes"
	"compress/zlib"
	"debug/elf"
	"encoding/binary"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// oneFunction is .eh_frame of one function of 64 bytes at testCode.
func oneFunction() testSection {
	var written frames
	written.function(written.amd64Common(), testCode, 64)
	written.data.Write(make([]byte, 4))
	return written.inFile()
}

func read(data []byte) (*File, error) { return ReadFile(bytes.NewReader(data), int64(len(data))) }

func readPath(t testing.TB, path string) *File {
	opened, err := os.Open(path)
	require.NoError(t, err)
	defer opened.Close()
	info, err := opened.Stat()
	require.NoError(t, err)
	file, err := ReadFile(opened, info.Size())
	require.NoError(t, err, path)
	return file
}

func TestReadFile(t *testing.T) {
	note := bytes.Join([][]byte{{4, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0}, []byte("GNU\x00"), {0xab, 0xcd, 0xef, 0}}, nil)
	sections := []testSection{oneFunction(), {name: ".note.gnu.build-id", kind: elf.SHT_NOTE, data: note}}
	file, err := read(elfFile(elf.EM_X86_64, sections, nil))
	require.NoError(t, err)
	assert.Equal(t, elf.EM_X86_64, file.Machine)
	assert.Equal(t, "abcdef", file.BuildID.GNU)
	assert.Equal(t, "gnu:abcdef", file.BuildID.Key())
	assert.Equal(t, []Segment{{Offset: 0x1000, FileBytes: codeBytes, Address: testCode, MemoryBytes: codeBytes}}, file.Segments)
	assert.Nil(t, file.Go)
	assert.Equal(t, []Row{row(0, RuleStack, 1, kept), row(64, RuleNone, 0, kept)}, file.Table.Rows)
	assert.EqualValues(t, testCode, file.Table.Base)

	// Loaded at 0x7f0000000000: the page of the file at 0x1000 is that of testCode.
	bias, ok := file.Bias(0x7f0000000000, 0x1000)
	assert.True(t, ok)
	assert.EqualValues(t, 0x7f0000000000-testCode, bias)
	bias, ok = file.Bias(0x7f0000000800, 0x1800) // a part of it
	assert.True(t, ok)
	assert.EqualValues(t, 0x7f0000000000-testCode, bias)
	bias, ok = file.Bias(0x7f0000000000, 0) // larger pages
	assert.True(t, ok)
	assert.EqualValues(t, 0x7f0000001000-testCode, bias)
	_, ok = file.Bias(0x7f0000000000, 0x2000)
	assert.False(t, ok)
}

func TestFilesWithoutSectionHeaders(t *testing.T) {
	section := oneFunction()
	// .eh_frame_hdr in front of it: version, pcrel|sdata4, no table.
	header := []byte{1, 0x1b, 0xff, 0xff, 4, 0, 0, 0}
	section.data = append(header, section.data...)
	section.address -= 8
	data := elfFile(elf.EM_X86_64, []testSection{section}, func(head *elf.Header64, programs []elf.Prog64) {
		head.Shoff, head.Shnum, head.Shstrndx = 0, 0, 0
		head.Phnum++ // Its place is free.
	})
	const at = 64 + 2*56
	var program bytes.Buffer
	require.NoError(t, binary.Write(&program, binary.LittleEndian, elf.Prog64{
		Type: uint32(elf.PT_GNU_EH_FRAME), Vaddr: section.address, Filesz: 8, Memsz: 8,
	}))
	copy(data[at:], program.Bytes())
	file, err := read(data)
	require.NoError(t, err)
	assert.Equal(t, []Row{row(0, RuleStack, 1, kept), row(64, RuleNone, 0, kept)}, file.Table.Rows)
	assert.True(t, strings.HasPrefix(file.BuildID.Key(), "htlhash:"))
}

func TestLinkageTablesThatAreNotDescribed(t *testing.T) {
	section := func(name string, address uint64) testSection {
		return testSection{
			name: name, kind: elf.SHT_PROGBITS, flags: elf.SHF_ALLOC | elf.SHF_EXECINSTR, address: address, data: make([]byte, 64),
		}
	}
	dynamic := testSection{name: ".dynamic", kind: elf.SHT_PROGBITS, flags: elf.SHF_ALLOC}
	none := func(at uint32) Row { return row(at, RuleNone, 0, kept) }
	for name, test := range map[string]struct {
		machine  elf.Machine
		sections []testSection
		want     []Row
	}{
		"static": {elf.EM_X86_64, []testSection{section(".plt", testCode+256)}, []Row{row(256, RulePLT, 11, kept), none(320)}},
		"dynamic": {
			elf.EM_X86_64, []testSection{section(".plt", testCode+256), dynamic},
			[]Row{row(272, RulePLT, 11, kept), none(320)},
		},
		"tracked branches": {
			elf.EM_X86_64, []testSection{section(".plt", testCode+256), section(".plt.sec", testCode+320), dynamic},
			[]Row{row(272, RulePLT, 9, kept), row(320, RuleStack, 1, kept), none(384)},
		},
		"arm64": {
			elf.EM_AARCH64, []testSection{section(".plt", testCode+256), dynamic},
			[]Row{row(288, RuleStack|ReturnLink, 0, kept), none(320)},
		},
		"outside": {elf.EM_X86_64, []testSection{section(".plt", testCode+codeBytes-32)}, nil},
		"overlap": {
			elf.EM_X86_64, []testSection{section(".plt", testCode+256), section(".plt.sec", testCode+288)},
			[]Row{row(256, RulePLT, 9, kept), row(288, RuleStack, 1, kept), none(352)},
		},
	} {
		file, err := read(elfFile(test.machine, test.sections, nil))
		require.NoError(t, err, name)
		assert.Equal(t, test.want, append([]Row(nil), file.Table.Rows...), name)
	}
}

func TestCompressedDebugFrame(t *testing.T) {
	written := frames{debug: true}
	written.function(written.amd64Common(), testCode, 64)
	var packed bytes.Buffer
	require.NoError(t, binary.Write(&packed, binary.LittleEndian, elf.Chdr64{
		Type: uint32(elf.COMPRESS_ZLIB), Size: uint64(written.data.Len()), Addralign: 8,
	}))
	writer := zlib.NewWriter(&packed)
	_, err := writer.Write(written.data.Bytes())
	require.NoError(t, err)
	require.NoError(t, writer.Close())
	section := testSection{name: ".debug_frame", kind: elf.SHT_PROGBITS, flags: elf.SHF_COMPRESSED, data: packed.Bytes()}
	file, err := read(elfFile(elf.EM_X86_64, []testSection{section}, nil))
	require.NoError(t, err)
	assert.Equal(t, []Row{row(0, RuleStack, 1, kept), row(64, RuleNone, 0, kept)}, file.Table.Rows)
}

func TestFilesThatCannotBeRead(t *testing.T) {
	sections := []testSection{oneFunction()}
	for name, test := range map[string]struct {
		data   []byte
		reason Reason
	}{
		"empty":  {nil, ReasonNotELF},
		"script": {[]byte("#!/bin/sh\n"), ReasonNotELF},
		"head":   {elfFile(elf.EM_X86_64, sections, nil)[:40], ReasonMalformed},
		"object": {elfFile(elf.EM_X86_64, sections, func(h *elf.Header64, _ []elf.Prog64) { h.Type = uint16(elf.ET_REL) }),
			ReasonNotELF},
		"i386": {elfFile(elf.EM_386, sections, nil), ReasonArchitecture},
		"big":  {elfFile(elf.EM_RISCV, sections, nil), ReasonArchitecture},
		"no code": {elfFile(elf.EM_X86_64, sections, func(_ *elf.Header64, p []elf.Prog64) { p[0].Flags = uint32(elf.PF_R) }),
			ReasonMalformed},
		"wraps around": {elfFile(elf.EM_X86_64, sections, func(_ *elf.Header64, p []elf.Prog64) { p[0].Vaddr = 1<<64 - 8 }),
			ReasonMalformed},
		"more than 4 GiB": {elfFile(elf.EM_X86_64, sections, func(_ *elf.Header64, p []elf.Prog64) { p[0].Memsz = 1 << 33 }),
			ReasonTooLarge},
	} {
		_, err := read(test.data)
		require.Error(t, err, name)
		assert.Equal(t, test.reason, ReasonOf(err), "%s: %v", name, err)
		var failed *Failure
		assert.ErrorAs(t, err, &failed, name)
	}
	_, err := ReadFile(brokenReader{bytes.NewReader(make([]byte, 100)), 0}, 100)
	assert.Equal(t, ReasonUnreadable, ReasonOf(err))
}

// A sparse file of a gigabyte costs nothing on disk. Whatever its headers claim, it must cost little to read.
func TestSparseFiles(t *testing.T) {
	const size = 1 << 30
	type change = func(*elf.Header64, []elf.Prog64, []elf.Section64)
	for name, lie := range map[string]change{
		"frames":      func(_ *elf.Header64, _ []elf.Prog64, s []elf.Section64) { s[1].Size = size / 2 },
		"some frames": func(_ *elf.Header64, _ []elf.Prog64, s []elf.Section64) { s[1].Size = maxFrameBytes },
		"more than all": func(_ *elf.Header64, _ []elf.Prog64, s []elf.Section64) {
			s[1].Size = math.MaxUint64
		},
		"names": func(_ *elf.Header64, _ []elf.Prog64, s []elf.Section64) { s[2].Size = size / 2 },
		"notes": func(_ *elf.Header64, p []elf.Prog64, _ []elf.Section64) {
			p[1].Type, p[1].Filesz = uint32(elf.PT_NOTE), size/2
		},
		"sections": func(h *elf.Header64, _ []elf.Prog64, s []elf.Section64) { h.Shnum, s[0].Size = 0, size/64 },
		"compressed": func(_ *elf.Header64, _ []elf.Prog64, s []elf.Section64) {
			s[1].Flags, s[1].Size = uint64(elf.SHF_COMPRESSED), size/2
		},
	} {
		var head elf.Header64
		section := oneFunction()
		data := elfFile(elf.EM_X86_64, []testSection{section}, nil)
		require.NoError(t, binary.Read(bytes.NewReader(data), binary.LittleEndian, &head))
		programs, sections := [2]elf.Prog64{}, [3]elf.Section64{}
		require.NoError(t, binary.Read(bytes.NewReader(data[64:]), binary.LittleEndian, &programs))
		require.NoError(t, binary.Read(bytes.NewReader(data[head.Shoff:]), binary.LittleEndian, &sections))
		lie(&head, programs[:], sections[:])
		path := filepath.Join(t.TempDir(), "sparse")
		opened, err := os.Create(path)
		require.NoError(t, err)
		defer opened.Close()
		_, err = opened.Write(data)
		require.NoError(t, err)
		for offset, what := range map[int64]any{0: head, 64: programs, int64(head.Shoff): sections} {
			var part bytes.Buffer
			require.NoError(t, binary.Write(&part, binary.LittleEndian, what))
			_, err = opened.WriteAt(part.Bytes(), offset)
			require.NoError(t, err)
		}
		require.NoError(t, opened.Truncate(size))

		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		started := time.Now()
		file, err := ReadFile(opened, size)
		took := time.Since(started)
		runtime.ReadMemStats(&after)
		assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(48<<20), name)
		assert.Less(t, took, 2*time.Second, name)
		t.Logf("%s: %v, %d KiB allocated, %v", name, took, (after.TotalAlloc-before.TotalAlloc)>>10, err)
		switch {
		case err == nil:
			assert.Equal(t, RuleStack, file.Table.Lookup(testCode).Rule, name)
		case file != nil:
			assert.Empty(t, file.Table.Rows, name)
			assert.NotEmpty(t, file.BuildID.HTLHash, name)
		}
	}
}

func TestHTLHash(t *testing.T) {
	// sha256 over head, tail and length, made with dd and sha256sum.
	for size, want := range map[int]string{
		0:     "af5570f5a1810b7af78caf4bc70a660f",
		5:     "",
		10000: "",
	} {
		data := bytes.Repeat([]byte("ab"), size/2+1)[:size]
		got, err := htlHash(bytes.NewReader(data), int64(size))
		require.NoError(t, err)
		if want == "" {
			want = htlHashByTools(t, data)
		}
		assert.Equal(t, want, got, size)
	}
}

// htlHashByTools computes the hash as the specification spells it, with other programs.
func htlHashByTools(t *testing.T, data []byte) string {
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, data, 0o600))
	script := `( head -c 4096 "$1"; tail -c 4096 "$1"
	printf "$(printf '%016x' "$(stat -c %s "$1")" | sed 's/../\\x&/g')" ) | sha256sum`
	output, err := exec.Command("bash", "-c", script, "bash", path).Output()
	require.NoError(t, err)
	return string(output[:32])
}

func TestBuildIDsOfRealFiles(t *testing.T) {
	executable, err := os.Executable()
	require.NoError(t, err)
	file := readPath(t, executable)
	output, err := exec.Command("go", "tool", "buildid", executable).Output()
	require.NoError(t, err)
	assert.Equal(t, strings.TrimSpace(string(output)), file.BuildID.Go)

	readelf, err := exec.LookPath("readelf")
	if err != nil {
		t.Skip("readelf is not installed")
	}
	bash, err := exec.LookPath("bash")
	require.NoError(t, err)
	output, err = exec.Command(readelf, "-n", bash).Output()
	require.NoError(t, err)
	_, rest, found := strings.Cut(string(output), "Build ID: ")
	require.True(t, found)
	want, _, _ := strings.Cut(rest, "\n")
	assert.Equal(t, want, readPath(t, bash).BuildID.GNU)
}

// goRange is where code of Go is, as the symbol table says.
func goRange(t *testing.T, path string) (start, end uint64) {
	opened, err := elf.Open(path)
	require.NoError(t, err)
	defer opened.Close()
	symbols, err := opened.Symbols()
	require.NoError(t, err)
	for _, symbol := range symbols {
		switch symbol.Name {
		case "runtime.text":
			start = symbol.Value
		case "runtime.etext":
			end = symbol.Value
		}
	}
	return start, end
}

const cgoProgram = `package main

/*
#include <stdlib.h>
__attribute__((noinline)) int twice(int number) { return 2 * abs(number); }
*/
import "C"

func main() { println(C.twice(21)) }
`

// buildGo builds a program of Go, or skips the test where that cannot be.
func buildGo(t *testing.T, source string, environment []string, arguments ...string) string {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("go is not installed")
	}
	directory := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(directory, "main.go"), []byte(source), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(directory, "go.mod"), []byte("module program\n\ngo 1.26\n"), 0o600))
	command := exec.Command("go", append([]string{"build", "-o", "program"}, arguments...)...)
	command.Dir = directory
	command.Env = append(os.Environ(), environment...)
	output, err := command.CombinedOutput()
	require.NoError(t, err, string(output))
	return filepath.Join(directory, "program")
}

func TestProgramsOfGo(t *testing.T) {
	for name, test := range map[string]struct {
		source    string
		cgo       string
		arguments []string
	}{
		"pure":              {"package main\n\nfunc main() {}\n", "0", nil},
		"position-free":     {"package main\n\nfunc main() {}\n", "0", []string{"-buildmode=pie"}},
		"cgo":               {cgoProgram, "1", nil},
		"cgo position-free": {cgoProgram, "1", []string{"-buildmode=pie"}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath("gcc"); err != nil && test.cgo == "1" {
				t.Skip("gcc is not installed")
			}
			path := buildGo(t, test.source, []string{"CGO_ENABLED=" + test.cgo}, test.arguments...)
			start, end := goRange(t, path)
			file := readPath(t, path)
			require.NotNil(t, file.Go)
			t.Logf("%+v, runtime.text %#x, runtime.etext %#x, %d rows, %+v", *file.Go, start, end, len(file.Table.Rows), file.Counts)
			assert.Equal(t, RuleGo, file.Table.Lookup(start).Rule)
			assert.True(t, file.Go.Exact)
			assert.Equal(t, RuleGo, file.Table.Lookup(file.Go.End-1).Rule)
			assert.Equal(t, RuleNone, file.Table.Lookup(file.Go.End).Rule)
			if file.Go.Exact {
				assert.GreaterOrEqual(t, file.Go.Start, start)
				assert.LessOrEqual(t, file.Go.End, end)
				assert.Less(t, file.Go.Start-start, uint64(64))
				assert.Less(t, end-file.Go.End, uint64(64))
			}
			opened, err := elf.Open(path)
			require.NoError(t, err)
			defer opened.Close()
			symbols, err := opened.Symbols()
			require.NoError(t, err)
			for _, symbol := range symbols {
				if symbol.Name == "twice" {
					assert.Equal(t, RuleStack, file.Table.Lookup(symbol.Value).Rule, "C has call frame information")
				}
				if symbol.Name == "main.main" {
					assert.Equal(t, RuleGo, file.Table.Lookup(symbol.Value).Rule)
				}
			}
			if test.cgo == "1" {
				compare(t, path, file.Table, dump(t, path, "eh-frame", architectureOf(file.Machine)), file)
			}
		})
	}
}

// The parser of hostile files holds nothing back.
func FuzzReadFile(f *testing.F) {
	note := bytes.Join([][]byte{{4, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0}, []byte("Go\x00\x00"), {'a', 'b', 'c', 0}}, nil)
	for _, machine := range []elf.Machine{elf.EM_X86_64, elf.EM_AARCH64} {
		sections := []testSection{oneFunction(), {name: ".note.go.buildid", kind: elf.SHT_NOTE, data: note}}
		f.Add(elfFileAt(0x200, machine, sections, nil))
		table := make([]byte, 8+8*8+12)
		copy(table, []byte{0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8, 1})
		binary.LittleEndian.PutUint64(table[8+8*2:], testCode)
		binary.LittleEndian.PutUint64(table[8+8*7:], 8+8*8)
		table[len(table)-4] = 64
		sections = append(sections, testSection{name: ".gopclntab", kind: elf.SHT_PROGBITS, data: table})
		f.Add(elfFileAt(0x200, machine, sections, nil))
		header := oneFunction()
		header.address -= 8
		header.data = append([]byte{1, 0x1b, 0xff, 0xff, 4, 0, 0, 0}, header.data...)
		sections = []testSection{header, sections[1]}
		f.Add(elfFileAt(0x200, machine, sections, func(head *elf.Header64, programs []elf.Prog64) {
			head.Shoff, head.Shnum, head.Shstrndx = 0, 0, 0
			programs[2] = elf.Prog64{Type: uint32(elf.PT_GNU_EH_FRAME), Vaddr: header.address, Filesz: 8, Memsz: 8}
		}))
		plt := testSection{
			name: ".plt", kind: elf.SHT_PROGBITS, flags: elf.SHF_ALLOC | elf.SHF_EXECINSTR, address: testCode + 256,
			data: make([]byte, 64),
		}
		f.Add(elfFileAt(0x200, machine, []testSection{oneFunction(), plt}, nil))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := ReadFile(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			var failed *Failure
			require.ErrorAs(t, err, &failed)
			if file == nil {
				return
			}
		}
		checkTable(t, file.Table)
		_, _ = ReadVDSO(data)
	})
}

// FuzzFrames lets any bytes be .eh_frame and .debug_frame.
func FuzzFrames(f *testing.F) {
	for _, instructions := range [][]byte{
		nil, {0x41, 0x0e, 16, 0x86, 2, 0x43, 0x0d, 6}, {0x0a, 0x0f, 3, 0x76, 0x78, 6, 0x42, 0x0b}, {0x10, 6, 2, 0x76, 0, 0x07, 16},
		{0x0f, 11, 0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22},
	} {
		for _, debug := range []bool{false, true} {
			written := frames{debug: debug}
			common := written.amd64Common()
			written.function(common, testCode, 64, instructions...)
			written.function(common, testCode+80, 64, instructions...)
			f.Add(written.data.Bytes(), debug)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, debug bool) {
		for _, machine := range []elf.Machine{elf.EM_X86_64, elf.EM_AARCH64} {
			section := &frameSection{reader: bytes.NewReader(data), size: int64(len(data)), address: testFrames, debug: debug}
			other := &frameSection{reader: bytes.NewReader(data), size: int64(len(data)), address: testFrames, debug: true}
			table, _, err := tableOf(machine, section, other)
			require.NoError(t, err)
			checkTable(t, table)
		}
	})
}

// checkTable checks what a program in the kernel relies on.
func checkTable(t *testing.T, table *Table) {
	for index, row := range table.Rows {
		if index > 0 {
			require.Greater(t, row.Address, table.Rows[index-1].Address, "rows are sorted and differ")
			require.False(t, same(row, table.Rows[index-1]), "neighbours differ")
		} else {
			require.NotEqual(t, RuleNone, row.Rule)
		}
		if row.Rule&RuleRegister == 0 {
			require.LessOrEqual(t, row.Rule&ruleMask, RuleFrameDerefWord)
		}
		if row.Rule&RuleRegister == 0 && row.Rule&ruleMask < RuleStack {
			require.Equal(t, FramePointerKept, row.FramePointer)
		}
	}
	if last := len(table.Rows) - 1; last >= 0 {
		require.Equal(t, RuleNone, table.Rows[last].Rule, "the last one says where the table ends")
	}
}
