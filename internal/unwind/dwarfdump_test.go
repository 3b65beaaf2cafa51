//go:build linux

package unwind

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// dumper returns the program that call frame information is compared with, from the package llvm.
func dumper(t testing.TB) string {
	for _, name := range []string{"llvm-dwarfdump-19", "llvm-dwarfdump"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skip("llvm-dwarfdump is not installed")
	return ""
}

// dumpedFunction is an FDE as llvm-dwarfdump shows it.
type dumpedFunction struct {
	start, end uint64
	rows       []dumpedRow
}

type dumpedRow struct {
	address uint64
	row     Row
}

var (
	fdeLine = regexp.MustCompile(`^[0-9a-f]+ [0-9a-f]+ [0-9a-f]+ (FDE cie=([0-9a-f]+) pc=([0-9a-f]+)\.\.\.([0-9a-f]+)|CIE)`)
	rowLine = regexp.MustCompile(`^  (?:0x([0-9a-f]+): )?CFA=(.*)$`)
)

// dump reads what llvm-dwarfdump says of a section: eh-frame or debug-frame.
func dump(t *testing.T, path, section string, machine *architecture) []dumpedFunction {
	command := exec.Command(dumper(t), "--"+section, path)
	output, err := command.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, command.Start())
	var functions []dumpedFunction
	signals := map[string]bool{}
	place, signal, inFunction, wanted := "", false, false, false
	scanner := bufio.NewScanner(output)
	scanner.Buffer(nil, 16<<20)
	for scanner.Scan() {
		line := scanner.Text()
		if strings.HasSuffix(line, " contents:") {
			wanted = strings.HasPrefix(line, "."+strings.ReplaceAll(section, "-", "_"))
			continue
		}
		if match := fdeLine.FindStringSubmatch(line); match != nil && wanted {
			place, _, _ = strings.Cut(line, " ")
			inFunction = match[1] != "CIE"
			if inFunction {
				functions = append(functions, dumpedFunction{start: hexadecimal(t, match[3]), end: hexadecimal(t, match[4])})
				signal = signals[match[2]]
			}
			continue
		}
		if augmentation, found := strings.CutPrefix(line, "  Augmentation: "); found && !inFunction {
			signals[place] = strings.Contains(augmentation, "S")
		}
		match := rowLine.FindStringSubmatch(line)
		if match == nil || !wanted || !inFunction {
			continue
		}
		last := &functions[len(functions)-1]
		address := last.start
		if match[1] != "" {
			address = hexadecimal(t, match[1])
		}
		last.rows = append(last.rows, dumpedRow{address, dumpedRule(t, match[2], signal, machine)})
	}
	require.NoError(t, scanner.Err())
	require.NoError(t, command.Wait())
	return functions
}

func hexadecimal(t *testing.T, text string) uint64 {
	number, err := strconv.ParseUint(text, 16, 64)
	require.NoError(t, err)
	return number
}

var (
	plainCFA = regexp.MustCompile(`^(W?[A-Z0-9]+?)([+-]\d+)?$`)
	derefCFA = regexp.MustCompile(`^DW_OP_breg\d+ ([A-Z0-9]+)([+-]\d+), DW_OP_deref(?:, DW_OP_plus_uconst 0x([0-9a-f]+))?$`)
	atCFA    = regexp.MustCompile(`^\[CFA([+-]\d+)?\]$`)
	atItself = regexp.MustCompile(`^\[DW_OP_breg6 RBP\+0\]$`)
	pltCFA   = regexp.MustCompile(`^DW_OP_breg7 RSP\+8, DW_OP_breg16 RIP\+0, DW_OP_lit15, DW_OP_and, ` +
		`DW_OP_lit(\d+), DW_OP_ge, DW_OP_lit3, DW_OP_shl, DW_OP_plus$`)
)

var amd64Registers = []string{
	"RAX", "RDX", "RCX", "RBX", "RSI", "RDI", "RBP", "RSP", "R8", "R9", "R10", "R11", "R12", "R13", "R14", "R15",
}

// dumpedRule turns a line such as "RSP+16: RBP=[CFA-16], RIP=[CFA-8]" into a row, by another way than the package: text.
func dumpedRule(t *testing.T, text string, signal bool, machine *architecture) Row {
	cfa, rest, _ := strings.Cut(text, ": ")
	saved := map[string]string{}
	expression := ""
	for _, part := range strings.Split(rest, ", ") {
		if name, value, found := strings.Cut(part, "="); found {
			expression = name
			saved[name] = value
		} else if expression != "" {
			saved[expression] += ", " + part
		}
	}
	unsupported := Row{Rule: RuleUnsupported, FramePointer: FramePointerKept}
	frameName, returnName, stackName := "RBP", "RIP", "RSP"
	if machine.linkRegister {
		frameName, returnName, stackName = "W29", "W30", "WSP"
	}
	if saved[returnName] == "undefined" {
		return Row{Rule: RuleEnd, FramePointer: FramePointerKept}
	}
	if signal {
		if saved[returnName] == "[DW_OP_breg7 RSP+168]" && saved[frameName] == "[DW_OP_breg7 RSP+120]" &&
			saved[stackName] == "[DW_OP_breg7 RSP+160]" || machine.linkRegister {
			return Row{Rule: RuleSignal, FramePointer: FramePointerKept}
		}
		return unsupported
	}
	row := Row{FramePointer: FramePointerKept}
	wordsOf := func(text string) (int64, bool) {
		if text == "" {
			return 0, true
		}
		number, err := strconv.ParseInt(text, 10, 64)
		require.NoError(t, err)
		return number / 8, number%8 == 0
	}
	ok := true
	var offset int64
	if match := plainCFA.FindStringSubmatch(cfa); match != nil {
		offset, ok = wordsOf(match[2])
		switch match[1] {
		case stackName:
			row.Rule = RuleStack
		case frameName:
			row.Rule = RuleFrame
		default:
			number := -1
			for index, name := range amd64Registers {
				if name == match[1] {
					number = index
				}
			}
			if machine.linkRegister {
				_, err := fmt.Sscanf(match[1], "W%d", &number)
				require.NoError(t, err, text)
			}
			require.GreaterOrEqual(t, number, 0, text)
			row.Rule = RuleRegister | Rule(number)
		}
	} else if match := derefCFA.FindStringSubmatch(cfa); match != nil {
		offset, ok = wordsOf(match[2])
		switch match[1] + "+" + match[3] {
		case stackName + "+":
			row.Rule = RuleStackDeref
		case stackName + "+8":
			row.Rule = RuleStackDerefWord
		case frameName + "+":
			row.Rule = RuleFrameDeref
		case frameName + "+8":
			row.Rule = RuleFrameDerefWord
		default:
			return unsupported
		}
	} else if match := pltCFA.FindStringSubmatch(cfa); match != nil {
		row.Rule = RulePLT
		offset, _ = strconv.ParseInt(match[1], 10, 8)
	} else {
		return unsupported
	}
	row.Offset = int16(offset)
	if !ok || int64(row.Offset) != offset || saved[stackName] != "" {
		return unsupported
	}
	var frame int64
	switch value := saved[frameName]; {
	case value == "" || value == "undefined" || value == "same":
	case atItself.MatchString(value):
		row.FramePointer = FramePointerAtItself
	case atCFA.MatchString(value):
		frame, ok = wordsOf(atCFA.FindStringSubmatch(value)[1])
		if row.FramePointer = int8(frame); !ok || int64(row.FramePointer) != frame {
			return unsupported
		}
	default:
		return unsupported
	}
	value := saved[returnName]
	if !machine.linkRegister {
		if value != "[CFA-8]" {
			return unsupported
		}
		return row
	}
	if value == "" {
		row.Rule |= ReturnLink
		return row
	}
	match := atCFA.FindStringSubmatch(value)
	if match == nil {
		return unsupported
	}
	returnAt, ok := wordsOf(match[1])
	switch {
	case !ok:
		return unsupported
	case saved[frameName] == "":
		row.Rule, row.FramePointer = row.Rule|ReturnAlone, int8(returnAt)
	case returnAt == frame+1:
		row.Rule |= ReturnBeside
	default:
		return unsupported
	}
	return row
}

// compare checks a table row by row with what was dumped, in every function and between them.
func compare(t *testing.T, name string, table *Table, functions []dumpedFunction, file *File) (rows int) {
	starts := map[uint64]bool{}
	for _, f := range functions {
		starts[f.start] = true
	}
	wrong := 0
	check := func(address uint64, want Row, what string) {
		got := table.Lookup(address)
		want.Address, got.Address = 0, 0
		if got != want {
			if wrong++; wrong < 10 {
				t.Errorf("%s: at %#x (%s) is %v %+v, want %v %+v", name, address, what, got.Rule, got, want.Rule, want)
			}
		}
	}
	for _, f := range functions {
		if f.start == f.end || !covers(file, f.start, f.end) {
			continue
		}
		for index, row := range f.rows {
			end := f.end
			if index+1 < len(f.rows) {
				end = f.rows[index+1].address
			}
			if row.address >= end || index > 0 && starts[row.address] {
				continue // Later rules for the same place count, or another function begins.
			}
			rows++
			check(row.address, row.row, "first byte")
			check(end-1, row.row, "last byte")
		}
		next := false
		for padding := uint64(0); padding <= maxPadding; padding++ {
			next = next || starts[f.end+padding]
		}
		if !next && file.Go == nil {
			check(f.end, Row{FramePointer: FramePointerKept}, "behind a function")
		}
	}
	return rows
}

func covers(file *File, start, end uint64) bool {
	for _, s := range file.Segments {
		if start >= s.Address && end <= s.Address+s.MemoryBytes {
			return true
		}
	}
	return false
}

// machineFiles are programs and libraries of the machine, each file once.
func machineFiles(t testing.TB) []string {
	var found []string
	seen := map[string]bool{}
	add := func(path string) {
		target, err := filepath.EvalSymlinks(path)
		if err != nil || seen[target] {
			return
		}
		seen[target] = true
		found = append(found, target)
	}
	for _, name := range []string{
		"bash", "node", "nginx", "curl", "git", "clang-19", "gdb", "perl", "gcc", "ssh", "tar", "openssl", "python3",
	} {
		if path, err := exec.LookPath(name); err == nil {
			add(path)
		}
	}
	for _, pattern := range []string{
		"/lib*/*/libc.so.6", "/lib*/*/ld-linux-*.so.*", "/lib*/*/libm.so.6", "/usr/lib/*/libssl.so.*", "/usr/lib/*/libcrypto.so.*",
		"/usr/lib/*/libstdc++.so.6", "/lib*/*/libgcc_s.so.1", "/usr/lib/*/libz.so.1", "/usr/lib/*/libcurl.so.4",
		"/usr/lib/*/libsqlite3.so.0", "/usr/lib/*/libpython3*.so.1.0",
		"/lib*/*/libpthread.so.0", "/lib*/*/libresolv.so.2", "/usr/lib/*/libglib-2.0.so.0", "/usr/lib/*/libgmp.so.10",
		"/usr/lib/*/libxml2.so.2", "/usr/bin/python3.*", "/lib/*/libsystemd.so.0", "/usr/lib/*/libzstd.so.1",
	} {
		paths, _ := filepath.Glob(pattern)
		for _, path := range paths {
			add(path)
		}
	}
	return found
}

// The tables of this machine's own files say what llvm-dwarfdump says, at the first and the last byte of every row of it.
func TestTablesAreThoseOfLLVM(t *testing.T) {
	dumper(t)
	files, rows := 0, 0
	for _, path := range machineFiles(t) {
		opened, err := os.Open(path)
		require.NoError(t, err)
		info, err := opened.Stat()
		require.NoError(t, err)
		file, err := ReadFile(opened, info.Size())
		opened.Close()
		if err != nil {
			assert.Equal(t, ReasonNotELF, ReasonOf(err), "%s: %v", path, err) // a script
			continue
		}
		if file.Counts.Functions == 0 {
			continue
		}
		found := compare(t, path, file.Table, dump(t, path, "eh-frame", architectureOf(file.Machine)), file)
		assert.Zero(t, file.Counts.Malformed, path)
		assert.Zero(t, file.Counts.Truncated, path)
		t.Logf("%s: %d rows of %d functions equal; %+v, %d bytes", path, found, file.Counts.Functions, file.Counts,
			file.Table.Bytes())
		files, rows = files+1, rows+found
	}
	t.Logf("%d files, %d rows", files, rows)
	assert.Positive(t, rows)
}
