//go:build linux

package symbol

import (
	"strconv"
	"strings"
)

// perfFrame reads a name in a map of code that was compiled at run time. Each runtime has its own way to write them; a name
// of none of them is native code.
func perfFrame(name string) Frame {
	for _, parse := range []func(string) (Frame, bool){pythonFrame, v8Frame, beamFrame, dotnetFrame, javaFrame} {
		if frame, ok := parse(name); ok {
			if frame.Function != name {
				frame.Linkage = name
			}
			return frame
		}
	}
	return nativeFrame(name)
}

// pythonFrame reads names of CPython 3.12 and later with -X perf (Python/perf_trampoline.c): py::function:file. The file may
// be "<frozen module>".
func pythonFrame(name string) (Frame, bool) {
	rest, ok := strings.CutPrefix(name, "py::")
	if !ok {
		return Frame{}, false
	}
	function, file, _ := strings.Cut(rest, ":")
	return Frame{Function: function, File: file, Type: CPython}, function != ""
}

// v8Frame reads names of V8 with --perf-basic-prof (src/logging/log.cc, src/logging/code-events.h): a kind of code, then for
// functions a mark of how they were compiled (~ interpreted, ^ baseline, + Maglev, * TurboFan), name, file, line and column.
func v8Frame(name string) (Frame, bool) {
	kind, rest, ok := strings.Cut(name, ":")
	if !ok {
		return Frame{}, false
	}
	switch kind {
	case "JS", "LazyCompile", "Function", "Script", "Eval", "Callback", "NativeFunction", "NativeLazyCompile", "NativeScript":
	case "Builtin", "BytecodeHandler", "Stub", "RegExp", "Handler", "LoadIC", "StoreIC", "KeyedLoadIC", "KeyedStoreIC":
		return Frame{Function: name, Type: V8JS}, rest != ""
	default:
		return Frame{}, false
	}
	frame := Frame{Type: V8JS}
	function := strings.TrimLeft(rest, "*~^+'")
	// The file may have blanks and colons (file:///a b.js, node:internal/util): line and column are its end, and where it
	// begins is told by the first blank, as names of functions have none but "get x" and "set x".
	prefix := ""
	for _, accessor := range []string{"get ", "set ", "static ", "async "} {
		if after, found := strings.CutPrefix(function, accessor); found && strings.Contains(after, " ") {
			prefix, function = accessor, after
			break
		}
	}
	function, place, _ := strings.Cut(function, " ")
	frame.Function = prefix + function
	if file, line, column, ok := position(place); ok {
		frame.File, frame.StartLine = file, line
		// The position is where the function begins: in which line the address is, the map does not tell.
		_ = column
	} else if place != "" {
		frame.File = place
	}
	if frame.Function == "" {
		frame.Function = "(anonymous)"
	}
	return frame, true
}

// position splits file:line:column.
func position(text string) (file string, line, column int, ok bool) {
	last := strings.LastIndexByte(text, ':')
	if last <= 0 {
		return "", 0, 0, false
	}
	middle := strings.LastIndexByte(text[:last], ':')
	if middle <= 0 {
		return "", 0, 0, false
	}
	line, lineErr := strconv.Atoi(text[middle+1 : last])
	column, columnErr := strconv.Atoi(text[last+1:])
	return text[:middle], line, column, lineErr == nil && columnErr == nil && line >= 0 && column >= 0
}

// beamFrame reads names of Erlang with +JPperf (erts/emulator/beam/jit/beam_jit_main.cpp): $module:function/arity.
func beamFrame(name string) (Frame, bool) {
	rest, ok := strings.CutPrefix(name, "$")
	module, function, cut := strings.Cut(rest, ":")
	slash := strings.LastIndexByte(function, '/')
	if !ok || !cut || module == "" || slash <= 0 {
		return Frame{}, false
	}
	if _, err := strconv.ParseUint(strings.TrimSuffix(function[slash+1:], "-CodeInfoPrologue"), 10, 16); err != nil {
		return Frame{}, false
	}
	return Frame{Function: rest, Type: Beam}, true
}

// dotnetFrame reads names of .NET with DOTNET_PerfMapEnabled (src/coreclr/vm/perfmap.cpp): a method's return type, its
// assembly in brackets, class::method(parameters), and how it was compiled, in brackets. Stubs are "stub<number> kind<...>".
func dotnetFrame(name string) (Frame, bool) {
	body, tier := name, ""
	if strings.HasSuffix(name, "]") {
		if open := strings.LastIndexByte(name, '['); open > 0 {
			body, tier = name[:open], name[open+1:len(name)-1]
		}
	}
	switch tier {
	case "PreJIT", "ReadyToRun", "MinOptJitted", "Optimized", "QuickJitted", "OptimizedTier1", "OptimizedTier1OSR",
		"InstrumentedTier", "InstrumentedTierOptimized", "Tier0", "Tier1", "PreStub", "Unknown", "Instrumented", "OSR",
		"Tier0Instrumented", "Tier1Instrumented":
	default:
		return Frame{}, false
	}
	open := strings.Index(body, "[")
	end := strings.Index(body, "] ")
	if open < 0 || end < open || open > 0 && body[open-1] != ' ' {
		return Frame{Function: strings.TrimSpace(body), Type: Dotnet}, strings.Contains(body, "::")
	}
	method := body[end+2:]
	return Frame{Function: withoutParameters(method), Module: body[open+1 : end], Type: Dotnet}, method != ""
}

// javaFrame reads names of the JVM: of `jcmd PID Compiler.perfmap` and -XX:+DumpPerfMapAtExit, "type class.method(types)",
// and of perf-map-agent, "Lpackage/Class;::method".
func javaFrame(name string) (Frame, bool) {
	if class, method, ok := strings.Cut(name, ";::"); ok && strings.HasPrefix(class, "L") {
		return Frame{Function: strings.ReplaceAll(class[1:], "/", ".") + "." + method, Type: JVM}, true
	}
	if !strings.HasSuffix(name, ")") {
		return Frame{}, false
	}
	kind, method, ok := strings.Cut(name, " ")
	function := withoutParameters(method)
	if !ok || !javaName(kind) || !javaName(function) || !strings.Contains(function, ".") || function == method {
		return Frame{}, false
	}
	return Frame{Function: function, Type: JVM}, true
}

// javaName tells whether this can be the name of a class, of a type or of a method.
func javaName(text string) bool {
	for _, character := range text {
		if strings.ContainsRune(" ():;*&~", character) {
			return false
		}
	}
	return text != ""
}

func withoutParameters(method string) string {
	if open := strings.IndexByte(method, '('); open > 0 {
		return method[:open]
	}
	return method
}
