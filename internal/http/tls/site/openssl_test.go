package site

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Machine code of real builds.
const (
	// SSL_read of OpenSSL 3.0.19, as Debian 12 builds it: sub $0x18,%rsp comes first, js at +0x16, jne at +0x38.
	debianRead = `4883ec18 6448 8b042528000000 4889442408 31c0 85d2 782f 4889e1 4863d2 e83dfeffff 85c0 7e03 8b0424
		488b542408 64482b142528000000 7544 4883c418 31d2 31c9 31f6 31ff c3
		e8449ffeff 488d1505d50400 be4c070000 488d3d62cc0400 e82ca6feff 31c0 31d2 be0f010000 bf14000000 e849a4feff
		b8ffffffff ebac e83db1feff`
	// SSL_read_ex of the same: sub $8,%rsp, call of the internal function at +4, and nothing emulated after it.
	debianReadEx = `4883ec08 e8c7fdffff 31d2 85c0 0f48c2 4883c408 31d2 31c9 31f6 31ff c3`
	// ssl3_read of OpenSSL 3.0 in node 20, without a stack protector: je at +0x6a and jmp at +0xdb.
	nodeRead = `55 4889e5 4157 4156 4989ce 4155 4989f5 4154 4989fc 53 4889d3 4883ec18 e8de4911ff c70000000000
		418bbc24ac010000 85ff 0f85a8000000 498b442408 4883ec08 4c89e9 4531c9 4156 be17000000 4989d8 31d2
		41c78424b801000001000000 4c89e7 ff5068 59 5e 83f8ff 7424 41c78424b801000000000000 488d65d8 5b 415c 415d 415e 415f
		5d c3 660f1f840000000000 4183bc24b801000002 75d1 be01000000 4c89e7 e8d8130400 4883ec08 498b442408 31d2 4156
		4531c9 4989d8 4c89e9 be17000000 4c89e7 ff5068 31f6 4c89e7 8945cc e8aa130400 58 8b45cc 5a eb9b 0f1f00
		4d8dbc24580c0000 4c89ff e8c0d00200 85c0 0f8540ffffff 4c89ff e850d10200 85c0 0f8530ffffff 4c89e7 e870040400
		85c0 0f8520ffffff 4c89e7 e8d0040400 41838424b401000001 41838424b001000001 41c78424ac01000000000000 e9f5feffff`
)

const codeAddress = 0x100000

func machineCode(t testing.TB, text string) []byte {
	code, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
	require.NoError(t, err)
	return code
}

// codeOf makes an image of nothing but code.
func codeOf(machine []byte) *code {
	image := &image{reader: bytes.NewReader(machine), file: &elf.File{Progs: []*elf.Prog{{ProgHeader: elf.ProgHeader{
		Type: elf.PT_LOAD, Flags: elf.PF_X, Vaddr: codeAddress, Filesz: uint64(len(machine)), Memsz: uint64(len(machine)),
	}}}}}
	return image.disassemble(function{address: codeAddress, size: uint64(len(machine))})
}

func TestEntrances(t *testing.T) {
	in := func(register Register, bits uint8) Place { return Place{Register: register, Bits: bits} }
	read, readEx := arguments(sslRead), arguments(sslReadEx)
	for _, test := range []struct {
		name      string
		code      string
		arguments []argument
		want      []call // addresses from the begin
	}{
		{
			name: "conditional jump behind a frame", code: debianRead, arguments: read,
			want: []call{
				{address: 0, places: []Place{in(RDI, 64), in(RSI, 64), in(RDX, 32)}, atEntry: true},
				{address: 0x16, emulated: true, places: []Place{in(RDI, 64), in(RSI, 64), in(RDX, 32)}},
			},
		},
		{
			name: "call of the internal function", code: debianReadEx, arguments: readEx,
			want: []call{
				{address: 0, places: []Place{in(RDI, 64), in(RSI, 64), in(RDX, 64), in(RCX, 64)}, atEntry: true},
				{address: 4, emulated: true, places: []Place{in(RDI, 64), in(RSI, 64), in(RDX, 64), in(RCX, 64)}},
			},
		},
		{
			name: "push behind endbr64", code: "f30f1efa 55 c3", arguments: read,
			want: []call{
				{address: 0, places: []Place{in(RDI, 64), in(RSI, 64), in(RDX, 32)}, atEntry: true},
				{address: 4, emulated: true, places: []Place{in(RDI, 64), in(RSI, 64), in(RDX, 32)}, atEntry: true},
			},
		},
		{
			name: "an argument in another register", arguments: readEx,
			code: "4989c8 31c9 eb00 c3", // mov %rcx,%r8; xor %ecx,%ecx; jmp; ret
			want: []call{
				{address: 0, places: []Place{in(RDI, 64), in(RSI, 64), in(RDX, 64), in(RCX, 64)}, atEntry: true},
				{address: 5, emulated: true, places: []Place{in(RDI, 64), in(RSI, 64), in(RDX, 64), in(R8, 64)}, atEntry: true},
			},
		},
		{
			name: "half of an argument is enough for an int", arguments: read,
			code: "89d0 31d2 eb00 c3", // mov %edx,%eax; xor %edx,%edx; jmp; ret
			want: []call{
				{address: 0, places: []Place{in(RDI, 64), in(RSI, 64), in(RDX, 32)}, atEntry: true},
				{address: 4, emulated: true, places: []Place{in(RDI, 64), in(RSI, 64), in(RAX, 32)}, atEntry: true},
			},
		},
		{
			name: "but not for a size", arguments: readEx,
			code: "89d0 31d2 eb00 c3",
			want: []call{
				{address: 0, places: []Place{in(RDI, 64), in(RSI, 64), in(RDX, 64), in(RCX, 64)}, atEntry: true},
			},
		},
		{
			name: "an argument is overwritten first", arguments: read,
			code: "31ff 55 c3", // xor %edi,%edi; push %rbp; ret
			want: []call{{address: 0, places: []Place{in(RDI, 64), in(RSI, 64), in(RDX, 32)}, atEntry: true}},
		},
		{
			name: "the push may run twice", arguments: read,
			code: "90 55 74fd c3", // nop; push %rbp; je back to the push; ret
			want: []call{
				{address: 0, emulated: true, places: []Place{in(RDI, 64), in(RSI, 64), in(RDX, 32)}, atEntry: true},
			},
		},
		{name: "a loop to the begin", code: "55 74fd c3", arguments: read},
		{name: "no code", code: "06", arguments: read},
	} {
		t.Run(test.name, func(t *testing.T) {
			found := codeOf(machineCode(t, test.code)).entrances(test.arguments)
			for index := range found {
				found[index].address -= codeAddress
			}
			assert.Equal(t, test.want, found)
		})
	}
}

func TestResults(t *testing.T) {
	for _, test := range []struct {
		name string
		code string
		want []result
	}{
		{"stack protector", debianRead, []result{{0x38, RAX}}},
		{"nothing emulated after the call", debianReadEx, nil},
		{"a success and a repetition", nodeRead, []result{{0x6a, RAX}, {0xdb, RAX}}},
		{
			"in another register", // call; mov %eax,%ebx; call; mov %ebx,%eax; ret
			"e800010000 89c3 e800010000 89d8 c3",
			[]result{{7, RBX}},
		},
		{
			"a failure is no success", // call; test %eax,%eax; jle; ret; mov $-1,%eax; ret
			"e800010000 85c0 7e01 c3 b8ffffffff c3",
			[]result{{7, RAX}},
		},
		{
			"a success without a site", // call; test %eax,%eax; jle; ret; mov $1,%eax; ret
			"e800010000 85c0 7e01 c3 b801000000 c3",
			nil,
		},
		{
			"another result on one way", // call; test %eax,%eax; jns; call; ret
			"e800010000 85c0 7905 e800010000 c3",
			nil,
		},
		{
			"the number is stored later", // call; jmp; mov %ebx,(%rcx); ret
			"e800010000 eb00 8919 c3",
			nil,
		},
		{
			"a constant is stored later", // call; jmp; movl $0,(%rcx); ret
			"e800010000 eb00 c70100000000 c3",
			[]result{{5, RAX}},
		},
		{"it goes on in another function", "e800010000 85c0 7401 c3 ffe0", nil},
		{"the argument is returned", "c3", nil},
		{"unknown code", "e800010000 eb00 06 c3", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			found := codeOf(machineCode(t, test.code)).results()
			for index := range found {
				found[index].address -= codeAddress
			}
			assert.Equal(t, test.want, found)
		})
	}
}

func TestContents(t *testing.T) {
	argument := func(number, bits int) content { return content{heldArgument, int64(number), uint8(bits)} }
	number := func(value int) content { return content{heldNumber, int64(value), 32} }
	for _, test := range []struct {
		name string
		code string
		at   uint64
		want map[Register]content
	}{
		{
			"saved over a call", "4889fb 4189d4 4531ed e800010000 c3", 14, // mov %rdi,%rbx; mov %edx,%r12d; xor %r13d,%r13d; call
			map[Register]content{RBX: argument(0, 64), R12: argument(2, 32), R13: number(0)},
		},
		{
			"another value on one way", "4889fb 85d2 7403 4889f3 c3", 10, // mov %rdi,%rbx; test %edx,%edx; je; mov %rsi,%rbx
			map[Register]content{RDI: argument(0, 64), RSI: argument(1, 64), RDX: argument(2, 64), RCX: argument(3, 64)},
		},
		{
			"half on one way", "4889fb 85d2 7402 89fb c3", 9, // mov %rdi,%rbx; test %edx,%edx; je; mov %edi,%ebx
			map[Register]content{
				RBX: argument(0, 32), RDI: argument(0, 64), RSI: argument(1, 64), RDX: argument(2, 64), RCX: argument(3, 64),
			},
		},
		{
			"changed in a loop", "4889fb 4883c301 75fa c3", 3, // mov %rdi,%rbx; add $1,%rbx; jne back to the add
			map[Register]content{RDI: argument(0, 64), RSI: argument(1, 64), RDX: argument(2, 64), RCX: argument(3, 64)},
		},
		{
			"what is chosen is not known", "4889fb 480f44de c3", 7, // mov %rdi,%rbx; cmove %rsi,%rbx
			map[Register]content{RDI: argument(0, 64), RSI: argument(1, 64), RDX: argument(2, 64), RCX: argument(3, 64)},
		},
		{"taken back", "4889fb 5b e800010000 c3", 9, map[Register]content{}}, // mov %rdi,%rbx; pop %rbx; call
	} {
		t.Run(test.name, func(t *testing.T) {
			c := codeOf(machineCode(t, test.code))
			at, ok := c.index[codeAddress+test.at]
			require.True(t, ok)
			found := map[Register]content{}
			for register, held := range c.contents()[at].held {
				if held.kind != heldUnknown {
					found[Register(register)] = held
				}
			}
			assert.Equal(t, test.want, found)
		})
	}
}

func TestResultsPassedOnce(t *testing.T) {
	for _, test := range []struct {
		name string
		code string
		want bool
	}{
		{"a success and a repetition after a failure", nodeRead, true},
		{"one", debianRead, true},
		// call; test %eax,%eax; je +2; jmp +0; ret: both jumps are passed
		{"one after the other", "e800010000 85c0 7402 eb00 c3", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := codeOf(machineCode(t, test.code))
			results := c.results()
			require.NotEmpty(t, results)
			assert.Equal(t, test.want, c.once(results))
		})
	}
	c := codeOf(machineCode(t, "e800010000 eb00 eb00 c3"))
	assert.False(t, c.once([]result{{codeAddress + 5, RAX}, {codeAddress + 7, RAX}}))
}

// systemLibrary is the libssl of this machine: curl needs it, so it is here.
func systemLibrary(t testing.TB) *os.File {
	for _, directory := range []string{"/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"} {
		paths, err := filepath.Glob(filepath.Join(directory, "libssl.so.*"))
		require.NoError(t, err)
		if len(paths) > 0 {
			file, err := os.Open(paths[0])
			require.NoError(t, err)
			t.Cleanup(func() { file.Close() })
			return file
		}
	}
	t.Fatal("there is no libssl")
	return nil
}

func TestOpenSSLOfTheSystem(t *testing.T) {
	requireArchitecture(t)
	file := systemLibrary(t)
	sites, err := OpenSSL(file)
	require.NoError(t, err)

	events := map[Event]int{}
	endsTell := false
	for _, site := range sites {
		t.Log(site)
		events[site.Event]++
		requireEmulated(t, file, site)
		if site.Event != ReadReturn && site.Event != WriteReturn {
			assert.True(t, site.Connection.Known())
		}
		if site.Event == WriteCall || site.Event == ReadCall {
			assert.True(t, site.Buffer.Known() && site.Length.Known())
		}
		if site.Event == ReadReturn {
			endsTell = site.Connection.Known() && site.Buffer.Known() && (site.Count.Known() || site.Function != ssl3Read)
		}
	}
	assert.True(t, events[ReadCall] > 0 || endsTell)
	assert.Positive(t, events[ReadReturn])
	assert.Equal(t, 2, events[WriteCall], "SSL_write and SSL_write_ex")
	assert.Equal(t, 1, events[ErrorQuery])
}

// requireEmulated looks at the bytes of the instruction: one of push, short and near jumps, near calls and nop.
func requireEmulated(t *testing.T, file *os.File, site Site) {
	var code [2]byte
	_, err := file.ReadAt(code[:], int64(site.Offset))
	require.NoError(t, err)
	first, second := code[0], code[1]
	assert.Equal(t, Emulated, site.Cost)
	assert.True(t, first >= 0x50 && first <= 0x57 || first == 0x41 && second >= 0x50 && second <= 0x57 ||
		first >= 0x70 && first <= 0x7f || first == 0x0f && second >= 0x80 && second <= 0x8f ||
		first == 0xe8 || first == 0xe9 || first == 0xeb || first == 0x90, "%s: % x", site, code)
}

func TestOpenSSLWithoutLibrary(t *testing.T) {
	requireArchitecture(t)
	file, err := os.Open("/bin/sh")
	require.NoError(t, err)
	defer file.Close()
	_, err = OpenSSL(file)
	require.ErrorIs(t, err, ErrNone)

	_, err = OpenSSL(bytes.NewReader([]byte("#!/bin/sh\n")))
	require.Error(t, err)
	require.NotErrorIs(t, err, ErrNone)
}

// smallLibrary builds a small library with one function of each name, all of the same code.
func smallLibrary(code []byte, names ...string) []byte {
	const headerBytes, segmentBytes, sectionBytes, symbolBytes = 64, 56, 64, 24
	text := uint64(headerBytes + segmentBytes)
	strings, symbols := []byte{0}, make([]byte, symbolBytes)
	for _, name := range names {
		symbol := binary.LittleEndian.AppendUint32(nil, uint32(len(strings)))
		symbol = append(symbol, byte(elf.STT_FUNC)|byte(elf.STB_GLOBAL)<<4, 0, 1, 0)
		symbol = binary.LittleEndian.AppendUint64(symbol, text)
		symbols = append(symbols, binary.LittleEndian.AppendUint64(symbol, uint64(len(code)))...)
		strings = append(append(strings, name...), 0)
	}
	symbolsAt := text + uint64(len(code))
	stringsAt := symbolsAt + uint64(len(symbols))
	sectionsAt := stringsAt + uint64(len(strings))

	var file bytes.Buffer
	write := func(value any) {
		if err := binary.Write(&file, binary.LittleEndian, value); err != nil {
			panic(err)
		}
	}
	write(elf.Header64{
		Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_DYN), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
		Phoff: headerBytes, Phentsize: segmentBytes, Phnum: 1,
		Shoff: sectionsAt, Ehsize: headerBytes, Shentsize: sectionBytes, Shnum: 3, Shstrndx: 2,
	})
	write(elf.Prog64{
		Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Filesz: sectionsAt, Memsz: sectionsAt,
	})
	file.Write(code)
	file.Write(symbols)
	file.Write(strings)
	write(elf.Section64{})
	write(elf.Section64{
		Type: uint32(elf.SHT_DYNSYM), Off: symbolsAt, Size: uint64(len(symbols)), Link: 2, Info: 1, Entsize: symbolBytes,
	})
	write(elf.Section64{Type: uint32(elf.SHT_STRTAB), Off: stringsAt, Size: uint64(len(strings))})
	return file.Bytes()
}

// LibreSSL's SSL_read is simple, and its SSL_read_ex calls it; this is the shape of it.
func TestOpenSSLFallsBack(t *testing.T) {
	// push %rbp; call; pop %rbp; ret: nothing emulated behind the call.
	sites, err := OpenSSL(bytes.NewReader(smallLibrary(machineCode(t, "55 e800010000 5d c3"), sslRead, sslWrite)))
	require.NoError(t, err)
	var found []string
	for _, site := range sites {
		found = append(found, site.String())
	}
	assert.Equal(t, []string{
		"SSL_read read call at 0x78 (file 0x78, emulated) connection=rdi:64 buffer=rsi:64 length=rdx:32",
		"SSL_read read return at 0x78 (file 0x78, emulated return probe) result=rax:32",
		"SSL_write write call at 0x78 (file 0x78, emulated) connection=rdi:64 buffer=rsi:64 length=rdx:32",
	}, found)

	// sub $8,%rsp; call; add $8,%rsp; ret: the call is emulated, but the return address is no longer at the stack pointer.
	sites, err = OpenSSL(bytes.NewReader(smallLibrary(machineCode(t, "4883ec08 e800010000 4883c408 c3"), sslRead, sslWrite)))
	require.NoError(t, err)
	require.Len(t, sites, 3)
	assert.Equal(t, Stepped, sites[0].Cost)
	assert.Equal(t, SteppedReturn, sites[1].Cost)
	assert.True(t, sites[1].Return)
	assert.Equal(t, Emulated, sites[2].Cost)
}

func FuzzOpenSSL(f *testing.F) {
	f.Add(smallLibrary(machineCode(f, debianRead), sslRead, sslReadEx, sslWrite, sslWriteEx, sslGetError, tlsMethod))
	f.Add(smallLibrary(machineCode(f, nodeRead), sslRead, sslWrite))
	f.Fuzz(func(t *testing.T, file []byte) {
		sites, err := OpenSSL(bytes.NewReader(file))
		if err == nil && len(sites) == 0 {
			t.Fatal("neither sites nor a reason")
		}
		for _, site := range sites {
			if site.Offset >= uint64(len(file)) {
				t.Fatalf("%s lies outside of the file", site)
			}
		}
	})
}

func FuzzFlow(f *testing.F) {
	for _, text := range []string{debianRead, debianReadEx, nodeRead} {
		f.Add(machineCode(f, text))
	}
	f.Fuzz(func(t *testing.T, bytes []byte) {
		code := codeOf(bytes)
		for _, entrance := range code.entrances(arguments(sslReadEx)) {
			if at := code.index[entrance.address]; entrance.emulated != code.instructions[at].emulated() {
				t.Fatalf("an entrance at %#x is not what it says", entrance.address)
			}
		}
		for _, result := range code.results() {
			if at, ok := code.index[result.address]; !ok || !code.instructions[at].emulated() {
				t.Fatalf("a result at %#x is not emulated", result.address)
			}
		}
		if held := code.contents(); len(held) != len(code.instructions) {
			t.Fatal("not every instruction has its contents")
		}
		code.once(code.results())
		code.tableEntry()
		code.returnedAddress()
		code.spilled(codeAddress)
		for index := range code.instructions {
			code.tested(index, map[Register]bool{RAX: true}, code.saved(index, RCX))
		}
	})
}
