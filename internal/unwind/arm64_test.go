//go:build linux

package unwind

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// linkObject makes a program of an object file for arm64, of which only call frame information is right: there may be no
// linker for that machine here. Each section gets an address of its own; bases are what was added to the addresses of the
// functions, in the order of their FDEs.
func linkObject(t *testing.T, path string) (file *File, bases []uint64) {
	object, err := elf.Open(path)
	require.NoError(t, err)
	defer object.Close()
	const framesAt, sectionBytes = 0x4000_0000, 0x10_0000
	var frames, relocations []byte
	sections := map[elf.SectionIndex]*elf.Section{}
	for index, section := range object.Sections {
		sections[elf.SectionIndex(index)] = section
		switch section.Name {
		case ".eh_frame":
			frames, err = section.Data()
			require.NoError(t, err)
		case ".rela.eh_frame":
			relocations, err = section.Data()
			require.NoError(t, err)
		}
	}
	require.NotEmpty(t, relocations)
	symbols, err := object.Symbols()
	require.NoError(t, err)
	var entries = make([]elf.Rela64, len(relocations)/24)
	require.NoError(t, binary.Read(bytes.NewReader(relocations), binary.LittleEndian, entries))
	for _, entry := range entries {
		symbol := symbols[elf.R_SYM64(entry.Info)-1]
		value := symbol.Value + uint64(entry.Addend)
		switch elf.R_AARCH64(elf.R_TYPE64(entry.Info)) {
		case elf.R_AARCH64_PREL32:
			if section := sections[symbol.Section]; section != nil && section.Flags&elf.SHF_EXECINSTR != 0 {
				require.Less(t, section.Size, uint64(sectionBytes))
				bases = append(bases, uint64(symbol.Section)*sectionBytes)
				value += bases[len(bases)-1]
			}
			binary.LittleEndian.PutUint32(frames[entry.Off:], uint32(value-(framesAt+entry.Off)))
		case elf.R_AARCH64_ABS64:
			binary.LittleEndian.PutUint64(frames[entry.Off:], value)
		}
	}
	c := newCollector(architectureOf(elf.EM_AARCH64), 0, []Segment{{MemoryBytes: framesAt}})
	require.NoError(t, c.read(&frameSection{reader: bytes.NewReader(frames), size: int64(len(frames)), address: framesAt}))
	return &File{Machine: elf.EM_AARCH64, Segments: c.segments, Table: c.table(nil), Counts: c.counts}, bases
}

// testdata/README.md says where the objects come from. One more belongs to Go: C++ that was compiled for its race detector.
func TestTablesOfARM64AreThoseOfLLVM(t *testing.T) {
	objects, err := filepath.Glob("testdata/arm64*.o")
	require.NoError(t, err)
	require.NotEmpty(t, objects)
	if root := goRoot(); root != "" {
		more, _ := filepath.Glob(filepath.Join(root, "src/runtime/race/race_linux_arm64.syso"))
		objects = append(objects, more...)
	}
	seen := map[Rule]int{}
	for _, path := range objects {
		file, bases := linkObject(t, path)
		functions := dump(t, path, "eh-frame", architectureOf(elf.EM_AARCH64))
		require.Len(t, functions, len(bases))
		for index := range functions {
			f := &functions[index]
			f.start, f.end = f.start+bases[index], f.end+bases[index]
			for row := range f.rows {
				f.rows[row].address += bases[index]
			}
		}
		rows := compare(t, path, file.Table, functions, file)
		t.Logf("%s: %d rows of %d functions equal; %+v", filepath.Base(path), rows, len(functions), file.Counts)
		assert.Zero(t, file.Counts.Malformed)
		for _, row := range file.Table.Rows {
			seen[row.Rule]++
		}
	}
	t.Log(seen)
	for _, rule := range []Rule{
		RuleStack | ReturnLink, RuleStack | ReturnBeside, RuleFrame | ReturnBeside, RuleStack | ReturnAlone, RuleNone,
	} {
		assert.Positive(t, seen[rule], rule)
	}
}

func goRoot() string {
	output, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(output))
}

// The vDSO of arm64 does not describe the function that signal handlers return to.
func TestSignalReturnOfARM64(t *testing.T) {
	var written frames
	written.function(written.common(1, "zR", []byte{0x1b}, 30, 0x0c, 31, 0), testCode, 32)
	data := elfFile(elf.EM_AARCH64, []testSection{written.inFile()}, nil)
	copy(data[0x1000+64:], []byte{0x68, 0x11, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4})
	file, err := ReadVDSO(data)
	require.NoError(t, err)
	assert.Equal(t, []Row{
		row(0, RuleStack|ReturnLink, 0, kept), row(32, RuleNone, 0, kept), row(63, RuleSignal, 0, kept),
		row(72, RuleNone, 0, kept),
	}, file.Table.Rows)
	ordinary, err := read(data)
	require.NoError(t, err)
	assert.Equal(t, RuleNone, ordinary.Table.Lookup(testCode+64).Rule, "only the kernel's code is looked through")
}

// The vDSO of this machine is that of every process.
func TestVDSO(t *testing.T) {
	mappings, err := Mappings("/proc", uint32(os.Getpid()))
	require.NoError(t, err)
	for _, mapping := range mappings {
		if mapping.Kind != MappingVDSO {
			continue
		}
		data, err := mapping.ReadImage("/proc", uint32(os.Getpid()))
		require.NoError(t, err)
		file, err := ReadVDSO(data)
		require.NoError(t, err)
		assert.NotEmpty(t, file.BuildID.GNU)
		bias, ok := file.Bias(mapping.Start, mapping.Offset)
		assert.True(t, ok)
		assert.Equal(t, mapping.Start, bias)
		if runtime.GOARCH == "amd64" {
			path := filepath.Join(t.TempDir(), "vdso")
			require.NoError(t, os.WriteFile(path, data, 0o600))
			rows := compare(t, "vdso", file.Table, dump(t, path, "eh-frame", architectureOf(file.Machine)), file)
			assert.Positive(t, rows)
		}
		return
	}
	t.Fatal("there is no vDSO")
}
