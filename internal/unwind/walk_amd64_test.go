//go:build linux

package unwind

import (
	"debug/elf"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// walker walks stacks by tables, as a program in the kernel is to.
type walker struct {
	memory  *os.File
	places  []Place
	symbols map[string]*symbolTable
}

type frame struct {
	address uint64 // of the instruction, or where the call returns to
	lookup  uint64
	rule    Rule
	name    string
}

func (w *walker) word(address uint64) (uint64, bool) {
	var data [8]byte
	_, err := w.memory.ReadAt(data[:], int64(address))
	return binary.LittleEndian.Uint64(data[:]), err == nil
}

func (w *walker) place(address uint64) *Place {
	index, _ := slices.BinarySearchFunc(w.places, address, func(p Place, address uint64) int {
		if p.End <= address {
			return -1
		}
		return 1
	})
	if index == len(w.places) || address < w.places[index].Start {
		return nil
	}
	return &w.places[index]
}

// walk returns the frames, innermost first, and whether the outermost one was reached.
func (w *walker) walk(registers *unix.PtraceRegs) (frames []frame, complete bool) {
	instruction, stack, framePointer := registers.Rip, registers.Rsp, registers.Rbp
	exact := true // the address is that of an instruction rather than where a call returns to
	for range 256 {
		lookup := instruction
		if !exact {
			lookup--
		}
		place := w.place(lookup)
		if place == nil || place.Entry == nil {
			return frames, false
		}
		file, err := place.Entry.File()
		bias, ok := place.Bias()
		if err != nil || !ok {
			return frames, false
		}
		row := file.Table.Lookup(lookup - bias)
		frames = append(frames, frame{instruction, lookup, row.Rule, w.name(place, lookup-bias)})
		var cfa uint64
		offset := uint64(int64(row.Offset)) * wordBytes
		readable := true
		switch row.Rule.CFA() {
		case RuleEnd:
			return frames, true
		case RuleSignal:
			// struct ucontext: general registers from 40 on; 10 is rbp, 15 rsp, 16 rip (struct sigcontext_64).
			var a, b, c bool
			context := stack + 40
			framePointer, a = w.word(context + 10*8)
			instruction, b = w.word(context + 16*8)
			stack, c = w.word(context + 15*8)
			if !a || !b || !c {
				return frames, false
			}
			exact = true
			continue
		case RulePLT:
			cfa = stack + 8
			if int16(instruction&15) >= row.Offset {
				cfa += 8
			}
		case RuleStack:
			cfa = stack + offset
		case RuleFrame:
			cfa = framePointer + offset
		case RuleStackDeref, RuleStackDerefWord:
			cfa, readable = w.word(stack + offset)
		case RuleFrameDeref, RuleFrameDerefWord:
			cfa, readable = w.word(framePointer + offset)
		case RuleRegister:
			if !exact || len(frames) > 1 {
				return frames, false
			}
			cfa = dwarfRegister(registers, row.Rule.Register()) + offset
		default:
			return frames, false
		}
		if cfaRule := row.Rule.CFA(); cfaRule == RuleStackDerefWord || cfaRule == RuleFrameDerefWord {
			cfa += 8
		}
		next, ok := w.word(cfa - 8)
		if !ok || !readable {
			return frames, false
		}
		switch row.FramePointer {
		case FramePointerKept:
		case FramePointerAtItself:
			framePointer, ok = w.word(framePointer)
		default:
			framePointer, ok = w.word(cfa + uint64(int64(row.FramePointer))*wordBytes)
		}
		if !ok {
			return frames, false
		}
		instruction, stack, exact = next, cfa, false
	}
	return frames, false
}

func dwarfRegister(r *unix.PtraceRegs, number uint8) uint64 {
	return [...]uint64{
		r.Rax, r.Rdx, r.Rcx, r.Rbx, r.Rsi, r.Rdi, r.Rbp, r.Rsp, r.R8, r.R9, r.R10, r.R11, r.R12, r.R13, r.R14, r.R15,
	}[number]
}

// symbolTable is of one file.
type symbolTable struct{ symbols []elf.Symbol }

func (w *walker) name(place *Place, address uint64) string {
	table := w.symbols[place.Path]
	if table == nil {
		table = &symbolTable{}
		w.symbols[place.Path] = table
		if opened, err := elf.Open(place.Path); err == nil {
			table.symbols, _ = opened.Symbols()
			if dynamic, err := opened.DynamicSymbols(); err == nil {
				table.symbols = append(table.symbols, dynamic...)
			}
			opened.Close()
		}
	}
	for _, symbol := range table.symbols {
		if elf.ST_TYPE(symbol.Info) == elf.STT_FUNC && address >= symbol.Value && address < symbol.Value+symbol.Size {
			return symbol.Name
		}
	}
	return filepath.Base(place.Path)
}

// compileStack builds the program without frame pointers.
func compileStack(t *testing.T, compiler string, arguments ...string) string {
	if _, err := exec.LookPath(compiler); err != nil {
		t.Skipf("%s is not installed", compiler)
	}
	path := filepath.Join(t.TempDir(), "stack")
	arguments = append(arguments, "-O2", "-fomit-frame-pointer", "-fno-optimize-sibling-calls", "-o", path, "testdata/stack.c")
	output, err := exec.Command(compiler, arguments...).CombinedOutput()
	require.NoError(t, err, string(output))
	return path
}

// Where compilers are told to leave out .eh_frame, debuggers have .debug_frame, in the forms of different versions of DWARF.
func TestDebugFrameIsThatOfLLVM(t *testing.T) {
	without := []string{"-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-fno-exceptions"}
	for name, compiler := range map[string][]string{
		"gcc, DWARF 2":   {"gcc", "-gdwarf-2"},
		"gcc, DWARF 5":   {"gcc", "-gdwarf-5"},
		"gcc, packed":    {"gcc", "-gdwarf-5", "-gz"},
		"clang, DWARF 3": {"clang-19", "-gdwarf-3"},
		"clang, DWARF 5": {"clang-19", "-gdwarf-5"},
	} {
		t.Run(name, func(t *testing.T) {
			path := compileStack(t, compiler[0], append(compiler[1:], without...)...)
			functions := dump(t, path, "debug-frame", architectureOf(elf.EM_X86_64))
			require.Greater(t, len(functions), 8)
			// What was compiled before, for the start of a program, has .eh_frame.
			functions = append(functions, dump(t, path, "eh-frame", architectureOf(elf.EM_X86_64))...)
			file := readPath(t, path)
			assert.Zero(t, file.Counts.Malformed)
			assert.Positive(t, compare(t, path, file.Table, functions, file))
		})
	}
}

// trace starts a program, waits until it stops itself, and lets it be traced by this thread.
func trace(t *testing.T, path string) *exec.Cmd {
	command := exec.Command(path)
	require.NoError(t, command.Start())
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_, _ = command.Process.Wait()
	})
	pid := command.Process.Pid
	require.Eventually(t, func() bool {
		content, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		_, rest, _ := strings.Cut(string(content), ") ")
		return err == nil && strings.HasPrefix(rest, "T")
	}, 5*time.Second, time.Millisecond)
	if err := unix.PtraceSeize(pid); err != nil {
		t.Skipf("ptrace is not allowed: %v", err)
	}
	require.NoError(t, unix.PtraceInterrupt(pid))
	var status unix.WaitStatus
	_, err := unix.Wait4(pid, &status, unix.WALL, nil)
	require.NoError(t, err)
	require.True(t, status.Stopped())
	return command
}

func newWalker(t *testing.T, pid int) *walker {
	cache := NewCache(CacheConfig{})
	t.Cleanup(cache.Close)
	process, err := cache.Load(uint32(pid))
	require.NoError(t, err)
	memory, err := os.Open("/proc/" + strconv.Itoa(pid) + "/mem")
	require.NoError(t, err)
	t.Cleanup(func() { memory.Close() })
	return &walker{memory: memory, places: process.Places, symbols: map[string]*symbolTable{}}
}

// A stack of functions without frame pointers is walked through a signal handler, the C library and all kinds of frames, to
// _start: also when every single instruction on the way back is where it was interrupted.
func TestWalk(t *testing.T) {
	for name, compiler := range map[string][]string{
		"clang":             {"clang-19"},
		"clang, static":     {"clang-19", "-static"},
		"gcc":               {"gcc"},
		"gcc, lazy binding": {"gcc", "-Wl,-z,lazy", "-no-pie", "-fcf-protection=none"},
		"gcc, .debug_frame": {"gcc", "-g", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-fno-exceptions"},
	} {
		t.Run(name, func(t *testing.T) {
			runtime.LockOSThread() // ptrace belongs to a thread
			defer runtime.UnlockOSThread()
			command := trace(t, compileStack(t, compiler[0], compiler[1:]...))
			w := newWalker(t, command.Process.Pid)
			registers := unix.PtraceRegs{}
			require.NoError(t, unix.PtraceGetRegs(command.Process.Pid, &registers))
			frames, complete := w.walk(&registers)
			names := functionsOf(frames)
			assert.True(t, complete, "%v", frames)
			want := []string{"stop", "handler", "interrupted", "compare", "sorter", "recurse"}
			for number := 1; number <= 20; number++ {
				want = append(want, []string{"variable", "aligned", "large"}[number%3], "recurse")
			}
			want = append(want, "main", "_start")
			assert.Equal(t, want, names)
			assert.True(t, slices.ContainsFunc(frames, func(f frame) bool { return f.rule == RuleSignal }))

			step(t, w, command.Process.Pid, want)
		})
	}
}

// functionsOf are those of the frames that are the program's own.
func functionsOf(frames []frame) (names []string) {
	own := []string{
		"stop", "handler", "interrupted", "compare", "sorter", "recurse", "variable", "aligned", "large", "main", "_start",
	}
	for _, f := range frames {
		if slices.Contains(own, f.name) {
			names = append(names, f.name)
		}
	}
	return names
}

// step lets the program go on by single instructions until main returns, and walks the stack at every one. The program
// only returns from the functions that it is in, but for the calls of compare: each stack has to be the rest of the first.
func step(t *testing.T, w *walker, pid int, whole []string) {
	complete, wrong, unknown := 0, 0, map[string]int{}
	const most = 20_000
	steps := 0
	for ; steps < most; steps++ {
		require.NoError(t, unix.PtraceSingleStep(pid))
		var status unix.WaitStatus
		_, err := unix.Wait4(pid, &status, unix.WALL, nil)
		require.NoError(t, err)
		if !status.Stopped() {
			break
		}
		if signal := status.StopSignal(); signal != syscall.SIGTRAP && signal != syscall.SIGSTOP && signal != syscall.SIGCONT {
			t.Fatalf("stopped by %v", signal)
		}
		var registers unix.PtraceRegs
		require.NoError(t, unix.PtraceGetRegs(pid, &registers))
		frames, done := w.walk(&registers)
		names := functionsOf(frames)
		if !done {
			last := frames[len(frames)-1]
			unknown[last.name+" "+last.rule.String()]++
			continue
		}
		complete++
		rest := names
		if len(rest) > 0 && rest[0] == "compare" {
			rest = rest[1:] // qsort calls it again
		}
		if !slices.Equal(rest, whole[len(whole)-len(rest):]) {
			if wrong++; wrong < 5 {
				t.Errorf("at step %d, %#x %s: %v", steps, registers.Rip, frames[0].name, names)
			}
		}
		if len(names) == 1 {
			break // main has returned
		}
	}
	t.Logf("%d steps, %d complete, where others ended: %v", steps+1, complete, unknown)
	assert.Zero(t, wrong)
	assert.Less(t, steps, most)
	assert.Greater(t, complete, 100)
	assert.Equal(t, steps+1, complete, "every stack is walked to its end")
}

// Interpreters have no frame pointers either. With -X perf, the functions of Python come through trampolines.
func TestWalkOfInterpreters(t *testing.T) {
	const python = `
import sys, time
def nested(depth):
    if depth == 0:
        print("ready", flush=True)
        time.sleep(60)
    return nested(depth - 1) + 1
nested(5)
`
	for name, test := range map[string]struct {
		command []string
		check   []string // has to succeed
	}{
		"python": {[]string{"python3", "-c", python}, []string{"python3", "-c", ""}},
		"python, for perf": {
			[]string{"python3", "-X", "perf", "-c", python},
			[]string{"python3", "-X", "perf", "-c", "import sys; sys.exit(sys.version_info < (3, 12))"},
		},
		"node": {[]string{"node", "-e", `setTimeout(() => {}, 60000); console.log("ready")`}, []string{"node", "-e", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			if exec.Command(test.check[0], test.check[1:]...).Run() != nil {
				t.Skipf("%v cannot be run", test.check)
			}
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			command := exec.Command(test.command[0], test.command[1:]...)
			output, err := command.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, command.Start())
			t.Cleanup(func() {
				_ = command.Process.Kill()
				_, _ = command.Process.Wait()
			})
			ready := make([]byte, len("ready"))
			_, err = io.ReadFull(output, ready)
			require.NoError(t, err)
			time.Sleep(50 * time.Millisecond) // It goes to sleep now.
			pid := command.Process.Pid
			if err := unix.PtraceSeize(pid); err != nil {
				t.Skipf("ptrace is not allowed: %v", err)
			}
			require.NoError(t, unix.PtraceInterrupt(pid))
			var status unix.WaitStatus
			_, err = unix.Wait4(pid, &status, unix.WALL, nil)
			require.NoError(t, err)
			var registers unix.PtraceRegs
			require.NoError(t, unix.PtraceGetRegs(pid, &registers))
			w := newWalker(t, pid)
			frames, complete := w.walk(&registers)
			var names []string
			trampolines := 0
			for _, f := range frames {
				names = append(names, f.name)
				if place := w.place(f.lookup); place != nil && place.Kind == MappingAnonymous {
					trampolines++
				}
			}
			assert.True(t, complete, "%v", names)
			assert.Equal(t, "_start", names[len(names)-1])
			t.Logf("%d frames", len(names))
			if name == "python, for perf" {
				assert.Equal(t, 7, trampolines, "one for each call of nested, and one for the module")
			}
		})
	}
}
