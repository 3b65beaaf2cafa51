//go:build linux

package symbol

import "errors"

// Frame is one call at an address. An address has several where calls were inlined.
type Frame struct {
	// Function is its name as people write it: demangled, without the types of its parameters. Empty where it is not known.
	Function string
	// Linkage is the function's name as the file has it, where that differs from Function; pprof's system_name.
	Linkage string
	// File is the source file, as the compiler recorded it. Empty where it is not known.
	File string
	// Line in File, from 1; 0 where it is not known.
	Line int
	// Column in Line, from 1; 0 where it is not known.
	Column int
	// StartLine is the line that the function begins at, from 1; 0 where it is not known.
	StartLine int
	// Module that a function of the kernel belongs to ("bpf" for BPF programs), or the assembly of one of .NET. Empty for
	// the kernel itself and for all else.
	Module string
	Type   FrameType
}

// FrameType is a value of the attribute profile.frame.type of the semantic conventions.
type FrameType string

// The values of profile.frame.type that this package can tell.
const (
	Beam    FrameType = "beam"
	CPython FrameType = "cpython"
	Dotnet  FrameType = "dotnet"
	Go      FrameType = "go"
	JVM     FrameType = "jvm"
	Kernel  FrameType = "kernel"
	Native  FrameType = "native"
	Ruby    FrameType = "ruby"
	Rust    FrameType = "rust"
	V8JS    FrameType = "v8js"
)

// Why an address has no symbol. Errors of this package wrap one of them.
var (
	// ErrNoSymbol says that there are symbols, but none for this address.
	ErrNoSymbol = errors.New("no symbol at this address")
	// ErrNoSymbols says that a file has no symbols, and that no separate debug file has them.
	ErrNoSymbols = errors.New("no symbols")
	// ErrMalformed says that a file contradicts its format.
	ErrMalformed = errors.New("malformed")
	// ErrUnsupported says that a file is of a kind that is not read here.
	ErrUnsupported = errors.New("unsupported")
	// ErrTooLarge says that a file has more than the limits of this package allow.
	ErrTooLarge = errors.New("too large")
	// ErrHidden says that the kernel does not show addresses of its functions.
	ErrHidden = errors.New("addresses are hidden")
	// ErrRefused says that a file is not one that its process may be believed to have written.
	ErrRefused = errors.New("refused")
)
