//go:build linux

package symbol

import (
	"bytes"
	"debug/elf"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// tool skips a test that needs a program which is not there.
func tool(t *testing.T, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skipf("none of %v", names)
	return ""
}

func run(t *testing.T, name string, arguments ...string) string {
	t.Helper()
	output, err := exec.Command(name, arguments...).CombinedOutput()
	require.NoError(t, err, "%s %v: %s", name, arguments, output)
	return string(output)
}

func compile(t *testing.T, arguments ...string) string {
	t.Helper()
	output := filepath.Join(t.TempDir(), "native")
	run(t, tool(t, "clang++-19", "clang++", "g++"),
		append([]string{"-o", output, "testdata/native/native.cpp", "-Wl,--build-id"}, arguments...)...)
	return output
}

// lookUp makes a Symbolizer that looks for debug files below a directory only.
func symbolizer(t testing.TB, config Config) *Symbolizer {
	t.Helper()
	if config.HostRoot == "" {
		config.HostRoot = t.TempDir()
	}
	s := New(config)
	t.Cleanup(s.Shutdown)
	return s
}

func open(t testing.TB, s *Symbolizer, path string) *Image {
	t.Helper()
	image, err := s.Open(File{Direct: path})
	require.NoError(t, err)
	t.Cleanup(image.Close)
	return image
}

// functionsOf are the names of the functions of a file with the addresses and sizes that debug/elf reads.
func functionsOf(t testing.TB, path string) []elf.Symbol {
	t.Helper()
	file, err := elf.Open(path)
	require.NoError(t, err)
	defer file.Close()
	symbols, _ := file.Symbols()
	dynamic, _ := file.DynamicSymbols()
	var functions []elf.Symbol
	for _, symbol := range append(symbols, dynamic...) {
		kind := elf.ST_TYPE(symbol.Info)
		if (kind == elf.STT_FUNC || kind == elf.STT_LOOS) && symbol.Section != elf.SHN_UNDEF && symbol.Value != 0 {
			functions = append(functions, symbol)
		}
	}
	return functions
}

// linkage is the name as the file has it.
func linkage(frame Frame) string {
	if frame.Linkage != "" {
		return frame.Linkage
	}
	return frame.Function
}

// compareSymbols looks up addresses in all parts of the code, and compares with the plainest way to read symbols.
func compareSymbols(t *testing.T, image *Image, functions []elf.Symbol) {
	t.Helper()
	require.NotEmpty(t, functions)
	random := rand.New(rand.NewPCG(1, 2))
	named, nameless, differ := 0, 0, 0
	for range 10000 {
		about := functions[random.IntN(len(functions))]
		address := about.Value + random.Uint64N(about.Size+64)
		expected := map[string]bool{}
		for _, function := range functions {
			if address >= function.Value && address < function.Value+function.Size {
				expected[strings.SplitN(function.Name, "@", 2)[0]] = true
			}
		}
		frames, err := image.Lookup(address, nil)
		switch {
		case len(expected) == 0:
			nameless++
			if err == nil { // Symbols without a size, of assembly, and stubs.
				name := linkage(frames[0])
				if strings.HasSuffix(name, "@plt") {
					continue
				}
				for _, function := range functions {
					if function.Name == name && function.Size != 0 {
						differ++
						t.Errorf("%#x: got %s, which ends before", address, name)
					}
				}
			}
		case err != nil || !expected[strings.SplitN(linkage(frames[len(frames)-1]), "@", 2)[0]]:
			if differ++; differ < 10 {
				t.Errorf("%#x: got %v %v, want one of %v", address, frames, err, expected)
			}
		default:
			named++
		}
		if differ >= 10 {
			return
		}
	}
	assert.Greater(t, named, 5000)
	assert.Greater(t, nameless, 100)
}

func TestNativeSymbols(t *testing.T) {
	t.Parallel()
	path := compile(t, "-O2", "-g")
	functions := functionsOf(t, path)
	t.Run("symtab", func(t *testing.T) {
		compareSymbols(t, open(t, symbolizer(t, Config{}), path), functions)
	})
	t.Run("system libraries", func(t *testing.T) {
		libraries, err := filepath.Glob("/lib/*-linux-gnu/libc.so.6")
		require.NoError(t, err)
		more, err := filepath.Glob("/usr/lib/*-linux-gnu/libstdc++.so.6")
		require.NoError(t, err)
		for _, library := range append(libraries, more...) {
			compareSymbols(t, open(t, symbolizer(t, Config{}), library), functionsOf(t, library))
		}
	})

	objcopy := tool(t, "objcopy", "llvm-objcopy-19", "llvm-objcopy")
	xz := tool(t, "xz")
	stripped := path + ".stripped"
	debug := path + ".debug"
	run(t, objcopy, "--strip-all", path, stripped)
	run(t, objcopy, "--only-keep-debug", path, debug)
	image := open(t, symbolizer(t, Config{}), stripped)
	address := uint64(0)
	for _, function := range functions {
		if strings.Contains(function.Name, "shop5check") {
			address = function.Value
		}
	}
	require.NotZero(t, address)
	t.Run("stripped", func(t *testing.T) {
		_, err := image.Lookup(address, nil)
		require.ErrorIs(t, err, ErrNoSymbols)
		require.NotEmpty(t, image.Identity().GNU)
		offset, ok := image.Identity().Offset(address)
		require.True(t, ok)
		back, ok := image.Identity().Address(offset)
		assert.True(t, ok)
		assert.Equal(t, address, back)
	})
	t.Run("separate by build ID", func(t *testing.T) {
		root := t.TempDir()
		id := image.Identity().GNU
		place := filepath.Join(root, "usr/lib/debug/.build-id", id[:2], id[2:]+".debug")
		require.NoError(t, os.MkdirAll(filepath.Dir(place), 0o755))
		run(t, "cp", debug, place)
		compareSymbols(t, open(t, symbolizer(t, Config{HostRoot: root}), stripped), functions)
		// A file of another build is not believed.
		run(t, "cp", "/proc/self/exe", place)
		_, err := open(t, symbolizer(t, Config{HostRoot: root}), stripped).Lookup(address, nil)
		require.ErrorIs(t, err, ErrNoSymbols)
	})
	t.Run("separate by name and checksum", func(t *testing.T) {
		root := t.TempDir()
		require.NoError(t, os.MkdirAll(filepath.Join(root, "bin/.debug"), 0o755))
		place := filepath.Join(root, "bin/.debug", filepath.Base(debug))
		run(t, "cp", debug, place)
		linked := filepath.Join(root, "bin/linked")
		run(t, objcopy, "--add-gnu-debuglink="+debug, stripped, linked)
		source := File{Root: root, Path: "/bin/linked"}
		image, err := symbolizer(t, Config{}).Open(source)
		require.NoError(t, err)
		compareSymbols(t, image, functions)
		image.Close()
		// With other contents it is not believed.
		file, err := os.OpenFile(place, os.O_WRONLY|os.O_APPEND, 0)
		require.NoError(t, err)
		_, err = file.WriteString("more")
		require.NoError(t, err)
		require.NoError(t, file.Close())
		image, err = symbolizer(t, Config{}).Open(source)
		require.NoError(t, err)
		_, err = image.Lookup(address, nil)
		require.ErrorIs(t, err, ErrNoSymbols)
		image.Close()
	})
	t.Run("gnu_debugdata", func(t *testing.T) {
		mini := filepath.Join(t.TempDir(), "mini")
		run(t, objcopy, "--strip-debug", "--remove-section=.comment", debug, mini)
		run(t, xz, "-k", mini)
		packed := filepath.Join(t.TempDir(), "packed")
		run(t, objcopy, "--add-section", ".gnu_debugdata="+mini+".xz", stripped, packed)
		compareSymbols(t, open(t, symbolizer(t, Config{}), packed), functions)
	})
}

func TestStubs(t *testing.T) {
	t.Parallel()
	objdump := tool(t, "objdump")
	for _, arguments := range [][]string{
		{"-O1"}, {"-O1", "-fcf-protection=full", "-Wl,-z,lazy"}, {"-O1", "-Wl,-z,now", "-no-pie"},
	} {
		path := compile(t, arguments...)
		image := open(t, symbolizer(t, Config{}), path)
		checked := 0
		for line := range strings.Lines(run(t, objdump, "-d", path)) {
			var address uint64
			var name string
			if count, _ := fmt.Sscanf(line, "%x <%s", &address, &name); count == 2 && strings.HasSuffix(name, "@plt>:") {
				frames, err := image.Lookup(address+5, nil)
				require.NoError(t, err, name)
				assert.Equal(t, strings.TrimSuffix(name, ">:"), linkage(frames[0]))
				checked++
			}
		}
		assert.Greater(t, checked, 5)
	}
}

func TestSlotOnARM64(t *testing.T) {
	// adrp x16, 0x411000; ldr x17, [x16, #24], at 0x400400, behind bti c.
	code := []byte{0x5f, 0x24, 0x03, 0xd5, 0x90, 0x00, 0x00, 0xb0, 0x11, 0x0e, 0x40, 0xf9, 0, 0, 0, 0}
	slot, ok := slotOnARM64(code, 0x400400)
	require.True(t, ok)
	assert.Equal(t, uint64(0x411018), slot)
}

func TestDemangle(t *testing.T) {
	for _, test := range []struct {
		linkage  string
		expected Frame
	}{
		{"main", Frame{Function: "main", Type: Native}},
		{"_ZN4shop5checkERKNS_4CartIiEE", Frame{Function: "shop::check", Linkage: "_ZN4shop5checkERKNS_4CartIiEE", Type: Native}},
		{"_ZN4shop4CartIiE3addEi", Frame{Function: "shop::Cart<int>::add", Linkage: "_ZN4shop4CartIiE3addEi", Type: Native}},
		{"_ZN4core3ptr13drop_in_place17h0123456789abcdefE", Frame{
			Function: "core::ptr::drop_in_place", Linkage: "_ZN4core3ptr13drop_in_place17h0123456789abcdefE", Type: Rust,
		}},
		{"_RNvCskwGfYPst2Cb_3foo16example_function", Frame{
			Function: "foo::example_function", Linkage: "_RNvCskwGfYPst2Cb_3foo16example_function", Type: Rust,
		}},
		{"memcpy@@GLIBC_2.14", Frame{Function: "memcpy", Linkage: "memcpy@@GLIBC_2.14", Type: Native}},
		{"malloc@plt", Frame{Function: "malloc@plt", Type: Native}},
		{"_Znwm@plt", Frame{Function: "operator new@plt", Linkage: "_Znwm@plt", Type: Native}},
		{"_Znonsense", Frame{Function: "_Znonsense", Type: Native}},
		{"_Rnonsense", Frame{Function: "_Rnonsense", Type: Native}},
		{"_Z" + strings.Repeat("x", maxMangledBytes), Frame{Function: "_Z" + strings.Repeat("x", maxMangledBytes), Type: Native}},
	} {
		assert.Equal(t, test.expected, nativeFrame(test.linkage))
	}
}

// TestTruncated is what happens to a mapped file when its owner makes it shorter.
func TestTruncated(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("/proc/self/exe")
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "copy")
	require.NoError(t, os.WriteFile(path, source, 0o600))
	image := open(t, symbolizer(t, Config{}), path)
	entry := image.object.entry
	require.NoError(t, os.Truncate(path, 0))
	_, err = image.Lookup(entry, nil)
	require.ErrorIs(t, err, ErrMalformed)
}

func TestReadLimited(t *testing.T) {
	_, err := readLimited(bytes.NewReader(make([]byte, 11)), 10)
	require.ErrorIs(t, err, ErrTooLarge)
	text, err := readLimited(bytes.NewReader(make([]byte, 10)), 10)
	require.NoError(t, err)
	assert.Len(t, text, 10)
}
